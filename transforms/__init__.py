"""What a call is: pure functions and declarations, with no I/O, no clock and no scheduler."""
