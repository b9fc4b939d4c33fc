"""Which version of the views this is: other views, another digest. ``python -m tests.golden`` writes it anew."""

DIGEST = "aa0faa555e800401593c4cb21bdcee7b"
