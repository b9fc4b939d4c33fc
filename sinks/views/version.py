"""Which version of the views this is: other views, another digest. ``python -m tests.golden`` writes it anew."""

DIGEST = "1ee9508ba948d1aed13a0983504ae170"
