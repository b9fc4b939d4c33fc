"""What an export does before all else: erasures that were cut off, or that a backup has undone."""

from __future__ import annotations

from pipelines.context import Stores
from pipelines.logs import logger


def finish_erasures_first(stores: Stores) -> None:
    """Do what is unfinished on the list of erased people. Raises as `pipelines.erasure.run.finish_erasures`."""
    if not stores.erasures.unfinished() and not stores.erasures.released_audio():
        return
    # Most exports have nothing to erase, and start without what it takes.
    from pipelines.erasure.run import finish_erasures

    logger.info("finishing erasures that were cut off, or undone by a backup")
    last_look = finish_erasures(stores)
    if last_look is not None and not last_look.is_clean:
        left = ", ".join(f"{count} in {place}" for place, count in sorted(last_look.found.items()))
        unreadable = ", ".join(last_look.unreadable)
        logger.warning("people who are to be erased are still there: %s", left or f"{unreadable} cannot be read")
