"""Which version of the views this is: other views, another digest. ``python -m tests.golden`` writes it anew."""

DIGEST = "2ce789f384bf6e9103b2d6d7f737d074"
