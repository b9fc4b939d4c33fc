"""Which version of the views this is: other views, another digest. ``python -m tests.golden`` writes it anew."""

DIGEST = "f837cb7f01205f44b731311bd3333a3e"
