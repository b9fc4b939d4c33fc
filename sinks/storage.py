"""A folder, or any place fsspec reaches, where a file appears whole or not at all."""

from __future__ import annotations

import errno
import fcntl
import filecmp
import os
import re
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast

import fsspec
from fsspec.core import split_protocol
from fsspec.implementations.local import LocalFileSystem

from sinks.private_files import create_file, make_folder
from transforms.errors import BusyError, StorageError

TEMPORARY_NAME = ".publishing.tmp"
"""One name per folder: whoever publishes there has claimed the day, and a killed run's leftover is written over."""

_CONTAINERS = frozenset({"abfs", "abfss"})
"""Storages whose URL has a container, and no user, before the @."""
_COMPARE_CHUNK_BYTES = 1 << 20
_INCOMING = ".incoming"
_LOCK = ".lock"
_LOCK_POLL_SECONDS = 0.05
_CANNOT_LOCK = frozenset({errno.EBADF, errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL})
"""What file systems answer that have no locks on folders, such as NFS."""
_LEFTOVER_AFTER_SECONDS = 3600
_UPLOAD_PART_BYTES = 8 << 20


class Storage:
    """Files under one folder or URL, such as ``data/lake`` or ``s3://bucket/prefix``.

    Raises ``StorageError`` from the constructor when the URL's kind is unknown or needs a package that is missing.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        protocol, _ = split_protocol(url)
        try:
            # Listings are not remembered: other processes and machines write here, too.
            self._fs, root = fsspec.url_to_fs(url, use_listings_cache=False)
        except ImportError as error:
            raise StorageError(
                f"{protocol}:// storage cannot be used: {error}. Install the extra that brings it, "
                "such as callhistory[s3], or use a folder."
            ) from error
        except ValueError:
            # Its words may hold a piece of the URL, and so of a password.
            raise StorageError(
                f"{protocol}:// storage cannot be used: it is of no known kind, or its URL is not as it should be. "
                "Use a folder, or a URL such as s3://bucket/prefix."
            ) from None
        self._root = PurePosixPath(root)
        self.is_local = isinstance(self._fs, LocalFileSystem)

    @property
    def location(self) -> str:
        """Where the files are: an absolute path, or the URL without a user, a password or options."""
        if self.is_local:
            return str(self._root)
        scheme, _, rest = self.url.partition("://")
        place, slash, folder = re.split(r"[?#]", rest, maxsplit=1)[0].partition("/")
        if scheme not in _CONTAINERS:
            place = place.rpartition("@")[2]
        return f"{scheme}://{place}{slash}{folder}"

    def path(self, name: str) -> str:
        """Return the full path of a file, as fsspec and, for a folder, the operating system know it."""
        return str(self._root / name)

    @property
    def is_there(self) -> bool:
        """Whether the folder exists; a bucket's prefix always does."""
        return not self.is_local or Path(self._root).is_dir()

    def check_creatable(self) -> None:
        """Raise ``StorageError`` unless the folder, which is not there, could be created; nothing is written."""
        nearest = next(parent for parent in Path(self._root).absolute().parents if parent.exists())
        if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
            raise StorageError(f"cannot create {self.location}: {nearest} cannot be written. Check its permissions.")

    def check_writable(self) -> None:
        """Write and remove a small file; raise ``StorageError`` that says why not, if it cannot be done."""
        probe = self.path(f".writable-{uuid.uuid4().hex}.tmp")
        try:
            if self.is_local:
                # A bucket is never created: a misspelt name would be a new one.
                make_folder(Path(self._root))
            self._fs.pipe_file(probe, b"")
            self._fs.rm_file(probe)
        except Exception as error:
            raise StorageError(
                f"cannot write to {self.location}: {_reason(error)}. Check the path and its permissions."
            ) from error

    def publish(self, local: Path, name: str) -> bool:
        """Make the file ``local`` readable as ``name``, atomically and durably; return whether anything changed.

        A reader sees the old file or the new one. A file that already has these bytes is left alone, with its
        times. Raises ``StorageError`` when the storage refuses or is full.
        """
        try:
            if self._holds(local, name):
                return False
            if self.is_local:
                _replace_durably(local, Path(self.path(name)))
            else:
                self._fs.put_file(str(local), self.path(name))
                self._fs.invalidate_cache()
        except OSError as error:
            raise StorageError(f"cannot write {name} in {self.location}: {_reason(error)}.") from error
        return True

    @contextmanager
    def incoming(self) -> Iterator[BinaryIO]:
        """Open an empty file to write and to read, for `publish_incoming`; without that, it is gone at the end.

        A folder holds it itself, under a hidden name; for any other place it is a temporary file of this machine.
        """
        if not self.is_local:
            with tempfile.TemporaryFile() as unnamed:
                yield cast(BinaryIO, unnamed)
            return
        path = Path(self.path(f".{uuid.uuid4().hex}{_INCOMING}"))
        make_folder(path.parent)
        with create_file(path, "x+b") as file:
            try:
                yield file
            finally:
                path.unlink(missing_ok=True)

    def publish_incoming(self, file: BinaryIO, name: str) -> None:
        """Make what `incoming` gave, and was filled, readable as ``name``: atomically, durably, in constant memory.

        Objects are uploaded in parts, and are not there before the last one. Raises ``StorageError``.
        """
        try:
            file.flush()
            if self.is_local:
                os.fsync(file.fileno())
                _rename_durably(Path(file.name), Path(self.path(name)))
            else:
                self._upload(file, self.path(name))
        except OSError as error:
            raise StorageError(f"cannot write {name} in {self.location}: {_reason(error)}.") from error

    @contextmanager
    def only_writer(self) -> Iterator[None]:
        """Keep every other run from doing the same in this folder; buckets have no such lock.

        The lock dies with its process. Raises ``BusyError`` when another run has it.
        """
        if not self.is_local:
            yield
            return
        make_folder(Path(self._root))
        with create_file(Path(self.path(_LOCK)), "wb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise BusyError(f"another run is writing to {self.location}: it does what is due there") from error
            yield

    @contextmanager
    def locked(self, folder: str, timeout_seconds: float = 30.0) -> Iterator[None]:
        """Keep every other process from publishing below ``folder`` as long as the block lasts.

        The lock lies on the folder itself and dies with its process. Buckets, and network folders that cannot lock,
        have none. Raises ``BusyError`` when another process keeps it for longer than ``timeout_seconds``.
        """
        if not self.is_local:
            yield
            return
        path = Path(self.path(folder))
        try:
            make_folder(path)
            descriptor = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise StorageError(f"cannot write {folder} in {self.location}: {_reason(error)}.") from error
        try:
            _lock(descriptor, time.monotonic() + timeout_seconds, f"{folder} in {self.location}")
            yield
        finally:
            os.close(descriptor)

    def remove_leftovers(self) -> None:
        """Remove what killed processes left of `incoming`: files that nobody has written to for an hour."""
        for path in Path(self._root).glob(f".*{_INCOMING}") if self.is_local else ():
            with suppress(FileNotFoundError):  # its owner has just published it
                if time.time() - path.stat().st_mtime > _LEFTOVER_AFTER_SECONDS:
                    path.unlink()

    def sizes(self) -> dict[str, int]:
        """Return the size in bytes of every finished file, by name, with one listing."""
        self._fs.invalidate_cache()
        if not self._fs.isdir(str(self._root)):
            return {}
        found: dict[str, Any] = self._fs.find(str(self._root), detail=True)
        sizes = {PurePosixPath(path).relative_to(self._root): info["size"] for path, info in found.items()}
        return {str(name): size for name, size in sizes.items() if not name.name.startswith(".")}

    def remove(self, name: str) -> bool:
        """Remove a file; return whether there was one."""
        if not self.exists(name):
            return False
        self._fs.rm_file(self.path(name))
        self._fs.invalidate_cache()
        return True

    def exists(self, name: str) -> bool:
        """Tell whether there is a file of that name."""
        return bool(self._fs.exists(self.path(name)))

    def open(self, name: str) -> BinaryIO:
        """Open a file for reading; the caller closes it. Raises ``FileNotFoundError``."""
        return cast(BinaryIO, self._fs.open(self.path(name), "rb"))

    def names(self, folder: str, suffix: str = "") -> list[str]:
        """Return the names of the finished files below ``folder``, sorted, relative to the storage's root."""
        base = self.path(folder)
        if not self._fs.isdir(base):
            return []
        found: list[Any] = self._fs.find(base)
        relative = [str(PurePosixPath(path).relative_to(self._root)) for path in found]
        return sorted(
            name for name in relative if name.endswith(suffix) and not PurePosixPath(name).name.startswith(".")
        )

    def _upload(self, file: BinaryIO, path: str) -> None:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        if size <= _UPLOAD_PART_BYTES:
            self._fs.pipe_file(path, file.read())
            return
        # Not a `with` block: leaving one after an error would complete the upload of half a file.
        upload = self._fs.open(path, "wb", block_size=_UPLOAD_PART_BYTES, autocommit=False)
        try:
            shutil.copyfileobj(file, upload, _COMPARE_CHUNK_BYTES)
            upload.close()
            upload.commit()
        except BaseException:
            upload.discard()
            upload.closed = True
            raise

    def _holds(self, local: Path, name: str) -> bool:
        if not self.exists(name) or self._fs.size(self.path(name)) != local.stat().st_size:
            return False
        if self.is_local:
            return filecmp.cmp(local, self.path(name), shallow=False)
        with local.open("rb") as ours, self.open(name) as theirs:
            while chunk := ours.read(_COMPARE_CHUNK_BYTES):
                if chunk != theirs.read(len(chunk)):
                    return False
        return True


def _lock(descriptor: int, deadline: float, what: str) -> None:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() > deadline:
                raise BusyError(f"another process is publishing in {what}, or stands still there") from error
            time.sleep(_LOCK_POLL_SECONDS)
        except OSError as error:
            if error.errno not in _CANNOT_LOCK:
                raise
            return
        else:
            return


def _replace_durably(source: Path, target: Path) -> None:
    """Copy next to the target, make it durable, rename: a rename within one folder is atomic on every platform."""
    make_folder(target.parent)
    temporary = target.parent / TEMPORARY_NAME
    try:
        with source.open("rb") as reader, create_file(temporary, "wb") as writer:
            shutil.copyfileobj(reader, writer, _COMPARE_CHUNK_BYTES)
            writer.flush()
            os.fsync(writer.fileno())
        _rename_durably(temporary, target)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def _rename_durably(source: Path, target: Path) -> None:
    """Rename within one file system; afterwards the new name survives a loss of power."""
    is_new_folder = not target.parent.is_dir()
    make_folder(target.parent)
    source.replace(target)
    for folder in (target.parent, target.parent.parent) if is_new_folder else (target.parent,):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _reason(error: BaseException) -> str:
    """The operating system's words without the path, which the message around them names better."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return type(error).__name__
