"""Which version of the views this is: other views, another digest. ``python -m tests.golden`` writes it anew."""

DIGEST = "cd7162374a87ebd1183d20e3bb110622"
