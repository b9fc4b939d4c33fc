"""What runs, when, and in which order: the API, windows, the planner, the export, its flows and its command."""

import os

# Arrow reads it when it is imported. Its own pool keeps what each thread has freed: 130 MB with four of them.
os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
