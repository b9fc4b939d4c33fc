"""The way of a window: what is due, its claim, its read, whether that is believed, how it is published and proven."""
