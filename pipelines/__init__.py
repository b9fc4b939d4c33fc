"""What runs, when, and in which order: the API, windows, the planner, the export, its flows and its command."""
