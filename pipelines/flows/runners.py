"""Where the tasks of a run are done: in threads of the flow's process, or by the workers of a Dask cluster."""

from __future__ import annotations

import logging
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from concurrent.futures import CancelledError
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from prefect.settings import PREFECT_API_URL
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from pipelines.flows.artifacts import show_link
from pipelines.settings import Settings
from sinks.warehouse import Warehouse
from transforms.errors import SettingsError, TransportError

if TYPE_CHECKING:
    from prefect_dask.task_runners import DaskTaskRunner

DASK = r"^([1-9]\d?|(tcp|tls|ws|wss|ucx)://\S+:\d+)$"
"""What names a Dask cluster: a number of local worker processes, or the address of a scheduler."""

DASHBOARD_ARTIFACT = "callhistory-dask"

_TASKS_PER_THREAD = 2
"""One to work on and one at hand. All at once would take Prefect tens of seconds for thousands."""
_CONNECT_TIMEOUT_SECONDS = 30
_WITHOUT_PROFILER = {"distributed.worker.profile.enabled": False}
"""It looks into all threads every 10 ms, at which Python before 3.11.9 hangs now and then (gh-106883)."""


class Runner(ABC):
    """Does tasks side by side."""

    @abstractmethod
    def start(self) -> AbstractContextManager[TaskRunner[Any]]:
        """Return what tasks are submitted to, for the length of a block; at its end, none is under way any more."""

    @abstractmethod
    def tasks_ahead(self) -> int:
        """Return how many tasks should be submitted and not yet done."""

    def errors_explained(self) -> AbstractContextManager[None]:
        """Raise what befalls the place rather than the task as an error of ours."""
        return nullcontext()


@dataclass(frozen=True)
class Threads(Runner):
    """``days_at_once`` threads of this process."""

    days_at_once: int

    def start(self) -> AbstractContextManager[TaskRunner[Any]]:
        """See `Runner.start`."""
        return ThreadPoolTaskRunner(max_workers=self.days_at_once)

    def tasks_ahead(self) -> int:
        """See `Runner.tasks_ahead`."""
        return self.days_at_once * _TASKS_PER_THREAD


class Dask(Runner):
    """The workers of a cluster: ``dask`` is the address of its scheduler, or how many processes to start here.

    ``concurrency`` bounds the local days done at once: processes started here have that many threads together, by
    default as many as the settings say; those of an existing cluster are all used unless it is given.
    """

    def __init__(self, dask: str, concurrency: int | None, settings: Settings) -> None:
        check_dask(dask, settings)
        self._address = None if dask.isdecimal() else dask
        self._processes = int(dask) if dask.isdecimal() else 0
        self._limit = concurrency if self._address or concurrency else settings.concurrency
        self._runner: DaskTaskRunner | None = None

    @contextmanager
    def start(self) -> Iterator[TaskRunner[Any]]:
        """See `Runner.start`. Raises ``SettingsError`` when no scheduler answers, or one that has no workers."""
        from dask import config as dask_config
        from prefect_dask.task_runners import DaskTaskRunner

        logging.getLogger("distributed").setLevel(logging.WARNING)
        if self._address:
            self._runner = DaskTaskRunner(address=self._address)
        else:
            threads = math.ceil((self._limit or 1) / self._processes)
            cluster = {"n_workers": self._processes, "threads_per_worker": threads, "dashboard_address": ":0"}
            self._runner = DaskTaskRunner(cluster_kwargs=cluster)
        with dask_config.set(_WITHOUT_PROFILER), self._runner as runner:
            try:
                runner.client.wait_for_workers(1, timeout=_CONNECT_TIMEOUT_SECONDS)
            except OSError as error:
                where = self._address or "this machine"
                raise SettingsError(
                    f"--dask: no Dask scheduler with workers answers at {where} ({type(error).__name__}): "
                    "start one (dask scheduler, dask worker ADDRESS), or correct the address"
                ) from error
            if self._address and runner.client.dashboard_link:
                show_link(DASHBOARD_ARTIFACT, runner.client.dashboard_link, "The Dask cluster's dashboard")
            yield runner

    def tasks_ahead(self) -> int:
        """See `Runner.tasks_ahead`; workers may come and go."""
        if self._address and self._limit:
            return self._limit
        assert self._runner is not None
        threads: int = sum(self._runner.client.nthreads().values())  # type: ignore[no-untyped-call]
        return max(threads, 1) * _TASKS_PER_THREAD

    @contextmanager
    def errors_explained(self) -> Iterator[None]:
        """See `Runner.errors_explained`."""
        from distributed import KilledWorker

        try:
            yield
        except KilledWorker as error:
            raise TransportError(
                "a local day ended one Dask worker after the other: give the workers more memory, or set a smaller "
                "CALLHISTORY_WINDOW; what is exported by then is kept"
            ) from error
        except (CancelledError, OSError) as error:
            raise TransportError(
                f"the Dask scheduler went away ({type(error).__name__}): what is exported by then is kept; run it again"
            ) from error


def runner_for(dask: str | None, concurrency: int | None, settings: Settings) -> Runner:
    """Return where to do a run's tasks. Raises as `check_dask`."""
    return Dask(dask, concurrency, settings) if dask else Threads(concurrency or settings.concurrency)


def check_dask(dask: str, settings: Settings) -> None:
    """Raise ``SettingsError`` unless ``dask`` names a cluster, and there is what working with one needs."""
    if not re.match(DASK, dask):
        raise SettingsError(
            f"--dask {dask!r}: should be the address of a Dask scheduler such as tcp://host:8786, or a number of local "
            "worker processes from 1 to 99"
        )
    with Warehouse(settings.warehouse_url.get_secret_value(), settings.warehouse_schema) as warehouse:
        if warehouse.is_embedded:
            raise SettingsError(
                f"--dask: its workers are processes of their own, and a {warehouse.name} file has one user at a time: "
                "set CALLHISTORY_WAREHOUSE_URL to PostgreSQL, such as postgresql://user:password@host/database "
                "(callhistory move takes along what there is), or leave --dask out"
            )
    if find_spec("prefect_dask") is None:
        raise SettingsError("--dask: Dask is not installed: pip install 'callhistory[dask]', here and for each worker")
    if PREFECT_API_URL.value() is None:
        raise SettingsError(
            "PREFECT_API_URL: not set; --dask needs a Prefect server that all workers reach: start one (prefect server "
            "start), and set its address, such as http://127.0.0.1:4200/api"
        )
