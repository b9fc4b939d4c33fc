"""DuckDB and SQLite: who may have the file open, and what is said of one that cannot be used."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa

from sinks.dialects.embedded import DuckDB
from sinks.warehouse import Warehouse
from tests.contract.windows import call, publish, read
from transforms.errors import BusyError, StorageError
from transforms.schema import CALLS


def test_a_duckdb_file_held_by_another_process_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "warehouse.duckdb"
    with Warehouse(f"duckdb:///{path}", busy_timeout_seconds=0.3) as hasty:
        hasty.prepare()
        hold = "import sys, duckdb; c = duckdb.connect(sys.argv[1]); print('held', flush=True); sys.stdin.read()"
        holder = subprocess.Popen(
            [sys.executable, "-c", hold, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        with holder:
            assert holder.stdout is not None
            assert holder.stdin is not None
            assert holder.stdout.readline() == "held\n"
            with pytest.raises(BusyError, match="duckdb database"):
                publish(hasty, [call("one")])
            with pytest.raises(BusyError):
                hasty.prepare()
            threading.Timer(0.3, holder.stdin.close).start()
            with Warehouse(f"duckdb:///{path}", busy_timeout_seconds=30) as patient:
                assert publish(patient, [call("one")])[0].inserted == 1


def test_a_duckdb_file_is_free_between_transactions(tmp_path: Path) -> None:
    path = tmp_path / "warehouse.duckdb"
    with Warehouse(f"duckdb:///{path}") as warehouse:
        warehouse.prepare()
        publish(warehouse, [call("one")])
        count = (
            "import sys, duckdb; print(duckdb.connect(sys.argv[1]).execute('SELECT count(*) FROM calls').fetchall())"
        )
        found = subprocess.run([sys.executable, "-c", count, str(path)], capture_output=True, text=True, check=True)
        assert found.stdout == "[(1,)]\n"


def test_a_transaction_that_fails_leaves_nothing_of_the_duckdb_file_open(tmp_path: Path) -> None:
    path = tmp_path / "warehouse.duckdb"
    with Warehouse(f"duckdb:///{path}", busy_timeout_seconds=0.3) as warehouse:
        warehouse.prepare()
        with pytest.raises(StorageError), warehouse.transaction() as connection:
            connection.exec_driver_sql("SELECT nothing FROM nowhere")
        with pytest.raises(ValueError, match="not ours"), warehouse.transaction():
            raise ValueError("not ours")
        with Warehouse(f"duckdb:///{path}", busy_timeout_seconds=0.3) as another:
            assert publish(another, [call("one")])[0].inserted == 1
        assert publish(warehouse, [call("one")])[0].unchanged == 1


def test_a_duckdb_file_that_is_kept_open_is_opened_once_and_let_go_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "warehouse.duckdb"
    opened: list[str] = []
    attach = DuckDB._attach
    monkeypatch.setattr(DuckDB, "_attach", lambda self, option: (opened.append(option), attach(self, option))[1])
    with Warehouse(f"duckdb:///{path}", busy_timeout_seconds=20) as warehouse:
        warehouse.prepare()
        with warehouse.kept_open():
            opened.clear()
            assert read(warehouse, CALLS) == []
            with warehouse.kept_open():
                assert read(warehouse, CALLS) == []
            assert read(warehouse, CALLS) == []
            assert opened == ["READ_ONLY"]
            # Others read along; nobody writes.
            assert in_another_process(path, "reading") == "done"
            assert in_another_process(path, "transaction") == "BusyError"

            assert publish(warehouse, [call("one")])[0].inserted == 1
            assert [row["call_id"] for row in read(warehouse, CALLS)] == ["one"]
            assert opened == ["READ_ONLY", "READ_WRITE"]
        assert opened_as(path) == []
        assert in_another_process(path, "transaction") == "done"


def test_a_failure_inside_lets_go_of_a_duckdb_file_that_was_kept_open(tmp_path: Path) -> None:
    path = tmp_path / "warehouse.duckdb"
    with Warehouse(f"duckdb:///{path}", busy_timeout_seconds=20) as warehouse:
        warehouse.prepare()
        with warehouse.kept_open():
            with pytest.raises(StorageError), warehouse.transaction() as connection:
                connection.exec_driver_sql("SELECT nonsense")
            assert opened_as(path) == []
            assert read(warehouse, CALLS) == []
        with pytest.raises(StorageError), warehouse.kept_open(), warehouse.reading() as connection:
            connection.exec_driver_sql("SELECT nonsense")
        assert opened_as(path) == []
        assert publish(warehouse, [call("one")])[0].inserted == 1


def test_another_thread_waits_for_a_duckdb_file_that_is_kept_open(tmp_path: Path) -> None:
    with Warehouse(f"duckdb:///{tmp_path}/warehouse.duckdb", busy_timeout_seconds=20) as warehouse:
        warehouse.prepare()
        with ThreadPoolExecutor(1) as pool:
            with warehouse.kept_open():
                other = pool.submit(publish, warehouse, [call("one")])
                with pytest.raises(TimeoutError):
                    other.result(timeout=0.3)
                assert read(warehouse, CALLS) == []
            assert other.result()[0].inserted == 1


def opened_as(path: Path) -> list[str]:
    """Return the descriptors by which this process has the file open."""
    return [fd.name for fd in Path("/proc/self/fd").iterdir() if fd.is_symlink() and str(fd.readlink()) == str(path)]


def in_another_process(path: Path, way: str) -> str:
    script = f"""
from sinks.warehouse import Warehouse
from transforms.errors import BusyError
try:
    with Warehouse("duckdb:///{path}", busy_timeout_seconds=0.2) as warehouse, warehouse.{way}():
        print("done")
except BusyError:
    print("BusyError")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.strip()


def test_a_duckdb_urls_own_options_win_and_what_memory_cannot_hold_lies_beside_the_file(tmp_path: Path) -> None:
    path = tmp_path / "warehouse.duckdb"
    with Warehouse(f"duckdb:///{path}?memory_limit=64MB&threads=2") as warehouse:
        warehouse.prepare()
        with warehouse.transaction() as connection:
            settings = "SELECT current_setting('memory_limit'), current_setting('threads')"
            assert connection.exec_driver_sql(settings).one() == ("61.0 MiB", 2)
            large = "CREATE TEMPORARY TABLE large AS SELECT i, repeat(md5(i::text), 8) FROM range(500000) AS t(i)"
            connection.exec_driver_sql(large)
            assert list(tmp_path.glob("warehouse.duckdb.tmp/*"))
    assert [file.name for file in tmp_path.iterdir()] == ["warehouse.duckdb"]
    with (
        pytest.raises(StorageError, match=r"nonsense.*CALLHISTORY_WAREHOUSE_URL"),
        Warehouse(f"duckdb:///{path}?nonsense=1") as wrong,
    ):
        wrong.prepare()


def test_a_new_duckdb_file_has_the_storage_version_of_older_releases(tmp_path: Path) -> None:
    path = tmp_path / "new" / "warehouse.duckdb"
    with Warehouse(f"duckdb:///{path}") as warehouse:
        warehouse.prepare()
        publish(warehouse, [call("one")])
    # Bytes 12 to 20 of the main header: 64 is DuckDB 0.10 to 1.1 (https://duckdb.org/docs/internals/storage).
    assert int.from_bytes(path.read_bytes()[12:20], "little") == 64


def test_a_duckdb_file_of_any_storage_version_is_used_as_it_is(tmp_path: Path) -> None:
    duckdb = pytest.importorskip("duckdb")
    path = tmp_path / "warehouse.duckdb"
    duckdb.connect(str(path)).close()
    before = path.read_bytes()[12:20]
    with Warehouse(f"duckdb:///{path}") as warehouse:
        warehouse.prepare()
        assert publish(warehouse, [call("one")])[0].inserted == 1
    assert path.read_bytes()[12:20] == before


@pytest.mark.parametrize("name", ["duckdb", "sqlite"])
def test_a_file_that_cannot_be_is_named(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with Warehouse(f"{name}:///{tmp_path}/file/warehouse.db") as warehouse, pytest.raises(StorageError, match=r"file"):
        warehouse.prepare()
    (tmp_path / "other.db").write_text("no database, but long enough to have the header of one" * 400)
    with Warehouse(f"{name}:///{tmp_path}/other.db") as warehouse, pytest.raises(StorageError, match=r"other\.db"):
        warehouse.prepare()
    with Warehouse(f"{name}:///{tmp_path}/absent.db") as warehouse, pytest.raises(StorageError, match="yet"):
        read(warehouse, CALLS)
    assert not (tmp_path / "absent.db").exists()


def test_a_read_only_folder_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o555)
    script = """
import os, sys
from sinks.views import views
from sinks.warehouse import Warehouse
from transforms.errors import StorageError
for name in ("duckdb", "sqlite"):
    # Load every module while this user may: the superuser is not stopped by any folder's mode.
    Warehouse(f"{name}:///{sys.argv[2]}/first.{name}").prepare()
if os.geteuid() == 0:
    os.setuid(65534)
for name in ("duckdb", "sqlite"):
    try:
        Warehouse(f"{name}:///{sys.argv[1]}/warehouse.{name}").prepare()
    except StorageError as error:
        print(error)
"""
    for parent in (folder, *folder.parents[:-2]):
        parent.chmod(parent.stat().st_mode | 0o055)
    found = subprocess.run([sys.executable, "-c", script, str(folder), str(tmp_path)], capture_output=True, text=True)
    assert found.stdout.count(str(folder)) == 2, found.stderr


def test_sqlite_readers_go_on_while_a_window_is_written(tmp_path: Path) -> None:
    with Warehouse(f"sqlite:///{tmp_path}/warehouse.db", busy_timeout_seconds=0.1) as warehouse:
        warehouse.prepare()
        publish(warehouse, [call("one")])
        with warehouse.transaction() as connection:
            connection.execute(sa.delete(warehouse.tables["calls"]))
            assert len(read(warehouse, CALLS)) == 1
            with pytest.raises(BusyError), warehouse.transaction():
                pass


# --- servers -----------------------------------------------------------------------------------------------------
