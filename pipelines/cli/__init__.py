"""The command ``callhistory``: what it accepts, what it shows, and the exit code it ends with."""
