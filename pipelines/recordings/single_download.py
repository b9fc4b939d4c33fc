"""One recording into a file of the user's own, past the archive."""

from __future__ import annotations

from pathlib import Path

from pipelines.settings import Settings
from pipelines.stringeex.operations import Recording, StringeeX
from sinks.archive import safe_name
from sinks.recordings import Recordings
from sinks.storage import Storage
from sinks.warehouse import Warehouse
from transforms.errors import CallHistoryError, SettingsError


def download_to_file(
    api: StringeeX, call_id: str, to: Path | None, settings: Settings, *, overwrite: bool
) -> tuple[Recording, Path]:
    """Download a recording to ``to``, or to a file in this folder that is named by the call; return it and its place.

    The file appears whole or not at all. Where the warehouse can be read, its link to the recording is used. Raises
    SettingsError for a file that is there, unless ``overwrite``; and as `StringeeX.download_recording`.
    """
    folder = Storage(str(Path.cwd() if to is None else to.absolute().parent))
    with folder.incoming() as file:
        recording = api.download_recording(call_id, file, _known_link(settings, call_id))
        name = to.name if to is not None else f"{safe_name(call_id)}.{recording.audio.extension}"
        if folder.exists(name) and not overwrite:
            raise SettingsError(f"{name} is there already: add --force to write over it, or choose another name")
        folder.publish_incoming(file, name)
    return recording, Path(folder.path(name))


def _known_link(settings: Settings, call_id: str) -> str | None:
    """Return the link of the call history, where a warehouse knows it; without, the API's own path is the way."""
    try:
        with Warehouse(settings.warehouse_url.get_secret_value(), settings.warehouse_schema) as warehouse:
            return Recordings(warehouse).record_path(call_id)
    except CallHistoryError:
        return None
