"""``callhistory metrics``."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

from pipelines.cli.command import DONE, UsageError, command
from pipelines.cli.output import Output, Report
from transforms.errors import StorageError

if TYPE_CHECKING:
    from pipelines.settings import Settings


@command
def metrics(
    output: Output,
    file: Annotated[
        str | None,
        typer.Option("--output", metavar="FILE", help="Write them to a file ending in .prom, in one stroke."),
    ] = None,
    listen: Annotated[
        str | None,
        typer.Option(
            "--listen", metavar="[HOST:]PORT", help="Serve them until stopped; on this machine only unless HOST says."
        ),
    ] = None,
) -> Report:
    """Print how the export stands as Prometheus metrics; from the warehouse alone.

    A file is for the textfile collector of Prometheus's node_exporter. With --listen the warehouse is read at each
    scrape.
    """
    if file is not None and listen is not None:
        raise UsageError("--output and --listen: choose one")
    if file is not None and not file.endswith(".prom"):
        raise UsageError(f"--output {file}: let it end in .prom, or the textfile collector passes over it")
    address = None if listen is None else _address(listen)
    from pipelines.settings import load_settings

    settings = load_settings(require_api=False)
    if address is not None:
        return _serve(output, settings, *address)
    from pipelines.context import open_stores_to_read
    from pipelines.watch.metrics import exposition, read, samples, write

    with open_stores_to_read(settings) as stores:
        reading = read(stores)
    found = samples(reading)
    if file is None:
        return Report({"metrics": found}, lambda console: console.out(exposition(reading), highlight=False, end=""))
    try:
        write(reading, file)
    except OSError as error:
        raise StorageError(f"--output {file}: cannot be written ({error.strerror})") from error
    data = {"file": file, "samples": len(found)}
    return Report(data, lambda console: console.print(f"{len(found)} samples in {file}", soft_wrap=True))


def _address(listen: str) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{listen if ':' in listen else f'127.0.0.1:{listen}'}")
        host, port = parts.hostname or "127.0.0.1", parts.port
    except ValueError:
        port = None
    if port is None:
        raise UsageError(f"--listen {listen}: write it as PORT or HOST:PORT, such as 127.0.0.1:9108")
    return host, port


def _serve(output: Output, settings: Settings, host: str, port: int) -> Report:
    from prometheus_client import start_http_server

    from pipelines.watch.metrics import scraped_registry

    try:
        server, thread = start_http_server(port, host, scraped_registry(settings))
    except OSError as error:
        raise UsageError(f"--listen {host}:{port}: cannot listen there ({error.strerror})") from error
    shown = f"[{host}]" if ":" in host else host
    try:
        # Whoever reads this line may stop it at once.
        output.log(f"serving metrics at http://{shown}:{server.server_port}/metrics")
        threading.Event().wait()
    except KeyboardInterrupt:
        output.log("stopped serving")
    server.shutdown()
    server.server_close()
    thread.join()
    return Report({"served": True}, lambda _: None, DONE)
