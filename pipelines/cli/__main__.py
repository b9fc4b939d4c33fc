"""What ``python -m callhistory`` runs: the wheel has this file as ``callhistory/__main__.py``."""

from pipelines.cli.main import main

main()
