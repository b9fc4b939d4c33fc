"""Side by side, in one run: this project, dlt, and a bare script, all reading the same simulated portal.

``python -m tests.benchmarks`` writes ``RESULTS.md`` beside this file; ``--help`` says what can be chosen.
"""
