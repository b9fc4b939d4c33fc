"""Which version of the views this is: other views, another digest. ``python -m tests.golden`` writes it anew."""

DIGEST = "0312d9ee22b5fb3054dc638cb7226e48"
