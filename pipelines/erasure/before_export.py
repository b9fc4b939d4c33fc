"""What an export does before all else: people still to be erased go, and raw copies that are old enough."""

from __future__ import annotations

from pipelines.context import Stores, utc_now
from pipelines.export.raw_retention import expire_raw
from pipelines.logs import logger
from transforms.errors import BusyError


def before_export(stores: Stores) -> None:
    """Do what is owed before anything is read. Raises as `finish_erasures` and `expire_raw`."""
    _finish_erasures(stores)
    expire_raw(stores, utc_now())


def _finish_erasures(stores: Stores) -> None:
    """Do what is unfinished on the list of erased people; where other runs are in the way, the next export does it."""
    with stores.warehouse.kept_open():
        is_owed = bool(stores.erasures.unfinished() or stores.erasures.released_audio())
    if not is_owed:
        return
    # Most exports have nothing to erase, and start without what it takes.
    from pipelines.erasure.run import finish_erasures

    logger.info("finishing erasures that were cut off, or undone by a backup")
    try:
        last_look = finish_erasures(stores)
    except BusyError as error:
        # No day is withheld for it: of what is read now, nobody who is to be erased is kept.
        logger.warning("erasures are left for the next export: %s", error)
        return
    if last_look is not None and not last_look.is_clean:
        left = ", ".join(f"{count} in {place}" for place, count in sorted(last_look.found.items()))
        unreadable = ", ".join(last_look.unreadable)
        logger.warning("people who are to be erased are still there: %s", left or f"{unreadable} cannot be read")
