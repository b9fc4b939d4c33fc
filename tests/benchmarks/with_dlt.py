"""dlt: a resource that yields the portal's pages, merged on ``id``.

``python -m tests.benchmarks.with_dlt BASE_URL DATABASE_URL FOLDER START_MS END_MS``

What was needed for dlt 1.31 to run at its best here, each choice tried against the others with 100,000 calls:

- the loader file format ``parquet``, into DuckDB 2.0 as into PostgreSQL (by ADBC). Of the others, ``csv`` (PostgreSQL)
  and ``jsonl`` (DuckDB) took a fifth more CPU, and ``insert_values``, the default of both, into DuckDB 2.0 ten times
  the time and gigabytes of memory;
- the merge strategy ``upsert``, as fast as ``delete-insert`` or a little faster;
- one process to normalise in: a second one (``NORMALIZE__WORKERS=2``) gained nothing on two cores;
- telemetry off, for it calls the internet.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import Any

from tests.benchmarks.history_pages import pages

os.environ.update(RUNTIME__DLTHUB_TELEMETRY="false", RUNTIME__LOG_LEVEL="ERROR")

import dlt


def main() -> None:
    base_url, database_url, folder, start_ms, end_ms = sys.argv[1:]

    @dlt.resource(name="calls", primary_key="id", write_disposition={"disposition": "merge", "strategy": "upsert"})
    def calls() -> Iterator[list[dict[str, Any]]]:
        yield from pages(base_url, int(start_ms), int(end_ms))

    if database_url.startswith("duckdb:///"):
        destination = dlt.destinations.duckdb(database_url.removeprefix("duckdb:///"))
    else:
        destination = dlt.destinations.postgres(database_url)
    pipeline = dlt.pipeline(
        "side_by_side", pipelines_dir=folder, destination=destination, dataset_name="call_data", progress=None
    )
    pipeline.run(calls(), loader_file_format="parquet").raise_on_failed_jobs()


if __name__ == "__main__":
    main()
