"""``callhistory recordings archive | verify | delete | download``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.cli.archive_progress import ArchiveProgress
from pipelines.cli.calls import Yes
from pipelines.cli.command import DONE, INCOMPLETE, UsageError, command
from pipelines.cli.confirm import confirmed, declined
from pipelines.cli.output import Output, Report, counted, file_size, time_taken
from pipelines.cli.progress import ProgressLines, tell_retries
from pipelines.cli.recording_reports import archive_report, deletion_report, show_verification

if TYPE_CHECKING:
    from datetime import timedelta

    from pipelines.context import Stores
    from pipelines.stringeex.operations import StringeeX

recordings = typer.Typer(
    name="recordings",
    help="Recordings: archived, proven, and deleted at the source on demand.",
    no_args_is_help=True,
)


@recordings.command("archive")
@command
def archive(
    output: Output,
    again: Annotated[bool, typer.Option("--again", help="Ask at once for all that is missing or failed.")] = False,
) -> Report:
    """Fetch every recording that is due into the archive, oldest call first.

    Ends with exit code 3 while a recording is failing, and when one has turned out to be missing for good. With
    PREFECT_API_URL in the environment it runs as a Prefect flow.
    """
    from pipelines.settings import load_settings

    settings = load_settings()
    if os.environ.get("PREFECT_API_URL"):
        from pipelines.flows import run_archive_flow

        return archive_report(run_archive_flow(again))
    from pipelines.context import open_stores_in_use
    from pipelines.recordings.archive import archive_recordings
    from pipelines.stringeex.client import StringeeXClient
    from pipelines.stringeex.request_budget import Priority
    from pipelines.watch.last_runs import RunKind
    from pipelines.watch.notifications import notified

    tell_retries(output)

    def run() -> dict[str, Any]:
        with (
            open_stores_in_use(settings) as stores,
            StringeeXClient(settings, priority=Priority.RECORDINGS) as client,
            ArchiveProgress(output) as progress,
        ):
            return archive_recordings(stores, client, again=again, on_event=progress).to_dict()

    return archive_report(notified(settings, RunKind.ARCHIVE, run))


@recordings.command("verify")
@command
def verify(
    output: Output,
    sample: Annotated[
        int | None,
        typer.Option(min=1, help="Read back only so many: those that were not read back for the longest time."),
    ] = None,
    refetch: Annotated[
        bool, typer.Option("--refetch", help="Have the next archive run fetch anew what is missing or damaged.")
    ] = False,
) -> Report:
    """Read the archive back: is every recording there, and its hash still the one in the table?

    Ends with exit code 3 when one is missing or damaged.
    """
    from pipelines.settings import load_settings

    settings = load_settings(require_api=False)
    from pipelines.context import open_stores_to_read
    from pipelines.recordings.verify import verify_recordings

    lines = ProgressLines(output)
    with open_stores_to_read(settings) as stores:
        found = verify_recordings(
            stores,
            sample=sample,
            refetch=refetch,
            on_progress=lambda done, size: lines.log(f"{counted(done, 'recording')} read back, {file_size(size)}"),
        )
    data = found.to_dict()
    return Report(data, lambda console: show_verification(console, data), DONE if found.is_right else INCOMPLETE)


@recordings.command("delete")
@command
def delete(
    output: Output,
    call_id: Annotated[str | None, typer.Argument(metavar="CALL_ID", help="One recording.")] = None,
    older_than: Annotated[
        str | None, typer.Option(metavar="AGE", help="Every archived recording of calls older than this, such as 90d.")
    ] = None,
    without_copy: Annotated[
        bool, typer.Option("--without-copy", help="With CALL_ID: also when there is no copy of it in the archive.")
    ] = False,
    yes: Yes = False,
) -> Report:
    """Delete recordings at the provider, for good; the archive keeps its copies.

    Each is read back from the archive just before, and left where it is when that fails or it is under legal hold.
    --older-than leaves what is doubtful, too (see recordings verify): name those by CALL_ID.
    Without --yes, --older-than prints its plan and deletes nothing. Ends with exit code 3 when one was left.
    """
    if (call_id is None) == (older_than is None):
        raise UsageError("name either a CALL_ID or --older-than AGE")
    if without_copy and call_id is None:
        raise UsageError("--without-copy goes with a CALL_ID")
    from pipelines.settings import load_settings
    from pipelines.settings.values import read_duration

    try:
        age = read_duration(older_than) if older_than is not None else None
    except ValueError as error:
        raise UsageError(f"--older-than {older_than!r} {error}") from error
    settings = load_settings()
    from pipelines.context import open_stores, open_stores_in_use
    from pipelines.stringeex.client import StringeeXClient
    from pipelines.stringeex.operations import StringeeX
    from pipelines.stringeex.request_budget import Priority

    # Without a copy, one recording can be deleted before anything was exported.
    opened = open_stores_in_use(settings) if call_id is None else open_stores(settings)
    with opened as stores, StringeeXClient(settings, priority=Priority.RECORDINGS) as client:
        if call_id is not None:
            return _delete_one(output, stores, StringeeX(client), call_id, without_copy=without_copy, yes=yes)
        assert age is not None, "one of both is given"
        return _delete_older(output, stores, StringeeX(client), age, yes=yes)


def _delete_older(output: Output, stores: Stores, api: StringeeX, age: timedelta, *, yes: bool) -> Report:
    from pipelines.context import utc_now
    from pipelines.recordings.delete import delete_planned, plan_deletion

    plan = plan_deletion(stores, age, utc_now())
    dates = f", of calls from {plan.first_date} to {plan.last_date}" if plan.recordings else ""
    line = (
        f"{counted(plan.recordings, 'archived recording')} ({file_size(plan.bytes)}){dates}, to be deleted at the "
        f"provider; {plan.under_legal_hold:,} under legal hold stay, and {plan.doubtful:,} that are doubtful, unless "
        f"they are named by CALL_ID. About {time_taken(plan.hours)} within the budget."
    )
    if not yes or not plan.recordings:
        after = "Nothing was deleted." if yes or not plan.recordings else "Nothing was deleted: add --yes to do it."
        data: dict[str, Any] = {"plan": plan.to_dict(), "done": False}
        return Report(data, lambda console: console.print(f"{line}\n{after}", soft_wrap=True))
    output.log(line)
    lines = ProgressLines(output)
    deletion = delete_planned(
        stores, api, plan, on_progress=lambda done: lines.log(f"{done:,} of {counted(plan.recordings, 'recording')}")
    )
    return deletion_report({"plan": plan.to_dict(), "done": True, **deletion.to_dict()})


def _delete_one(
    output: Output, stores: Stores, api: StringeeX, call_id: str, *, without_copy: bool, yes: bool
) -> Report:
    from pipelines.context import utc_now
    from pipelines.recordings.delete import delete_kept, delete_without_copy
    from sinks.recordings import Recordings

    kept = Recordings(stores.warehouse).kept_one(call_id)
    if kept is None and not without_copy:
        raise UsageError(
            f"the recording of call {call_id} is not in the archive: run callhistory recordings archive first, or add "
            "--without-copy to lose it for good"
        )
    if kept is not None and kept.source_deleted_at is not None:
        when = f"{kept.source_deleted_at:%Y-%m-%d %H:%M} UTC"
        data = {"done": False, "call_id": call_id, "source_deleted_at": kept.source_deleted_at.isoformat()}
        return Report(data, lambda console: console.print(f"Nothing to do: it was deleted at the provider at {when}."))
    copy = "; the archive keeps its copy" if kept else ", of which there is NO copy in the archive"
    if kept is not None and kept.doubt is not None:
        copy += f", which is doubtful ({kept.doubt})"
    if not confirmed(output, f"delete the recording of call {call_id} at the provider, for good{copy}", yes=yes):
        return declined()
    deletion = delete_kept(stores, api, [kept]) if kept else delete_without_copy(stores, api, call_id, utc_now())
    return deletion_report({"done": True, "call_id": call_id, **deletion.to_dict()})


@recordings.command("expire")
@command
def expire(
    output: Output,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go; delete nothing.")] = False,
) -> Report:
    """Delete audio from the archive that is older than CALLHISTORY_RETENTION_RECORDINGS; `archive` does so first, too.

    The rows of the table recordings stay, and so does what is under legal hold, and what the provider has.
    """
    from pipelines.settings import load_settings

    settings = load_settings(require_api=False)
    retention = settings.retention_recordings
    if retention is None:
        raise UsageError("CALLHISTORY_RETENTION_RECORDINGS: not set, so audio stays for ever; set it, such as to 5y")
    from pipelines.context import open_archive, open_stores_in_use, utc_now
    from pipelines.recordings.expire import expire_recordings, plan_expiry

    with open_stores_in_use(settings) as stores:
        now = utc_now()
        plan = plan_expiry(stores, retention, now)
        if not dry_run:
            archive = open_archive(stores)
            lines = ProgressLines(output)
            with archive.storage.only_writer():
                expire_recordings(
                    stores,
                    archive,
                    plan.started_before,
                    now,
                    lambda done: lines.log(f"{done:,} of {plan.recordings:,}"),
                )
    dates = f", of calls from {plan.first_date} to {plan.last_date}" if plan.recordings else ""
    line = (
        f"{counted(plan.recordings, 'recording')} ({file_size(plan.bytes)}){dates} "
        f"{'would go' if dry_run else 'went'}; {plan.not_fetched:,} are not fetched any more; "
        f"{plan.under_legal_hold:,} under legal hold stay."
    )
    data = {**plan.to_dict(), "dry_run": dry_run}
    return Report(data, lambda console: console.print(line, soft_wrap=True), DONE)


@recordings.command("hold")
@command
def hold(
    output: Output,
    call_id: Annotated[str, typer.Argument(metavar="CALL_ID", help="The call whose recording to keep.")],
    reason: Annotated[str, typer.Option("--reason", help="Why; it stands in the table recordings.")],
) -> Report:
    """Put a recording under legal hold: it is not deleted at the provider before it is released."""
    if not reason.strip():
        raise UsageError("--reason is empty: say why, for whoever looks at it in a year")
    return _set_hold(call_id, reason.strip())


@recordings.command("release")
@command
def release(
    output: Output,
    call_id: Annotated[str, typer.Argument(metavar="CALL_ID", help="The call whose recording is held.")],
) -> Report:
    """End the legal hold of a recording."""
    return _set_hold(call_id, None)


def _set_hold(call_id: str, reason: str | None) -> Report:
    from pipelines.settings import load_settings

    settings = load_settings(require_api=False)
    from pipelines.context import open_stores_in_use, utc_now
    from sinks.recordings import Recordings
    from transforms.errors import DataError

    with open_stores_in_use(settings) as stores:
        held = Recordings(stores.warehouse)
        is_there = held.release(call_id) if reason is None else held.hold(call_id, reason, utc_now())
    if not is_there:
        raise DataError("no recording of this call is known: callhistory calls show CALL_ID tells of the call")
    data = {"call_id": call_id, "legal_hold": reason is not None, "reason": reason}
    said = "is released" if reason is None else "is under legal hold"
    return Report(data, lambda console: console.print(f"The recording of {call_id} {said}.", soft_wrap=True), DONE)


@recordings.command("download")
@command
def download(
    output: Output,
    call_id: Annotated[str, typer.Argument(metavar="CALL_ID", help="The call whose recording to download.")],
    to: Annotated[
        Path | None, typer.Option("--to", metavar="FILE", help="Where to; by default a file here, named by the call.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there.")] = False,
) -> Report:
    """Download one recording to a file, past the archive and its table."""
    from pipelines.settings import load_settings

    settings = load_settings()
    from pipelines.recordings.single_download import download_to_file
    from pipelines.stringeex.client import StringeeXClient
    from pipelines.stringeex.operations import StringeeX
    from pipelines.stringeex.request_budget import Priority

    tell_retries(output)
    if to is not None and to.exists() and not force:
        raise UsageError(f"{to} is there already: add --force to write over it, or choose another name")
    with StringeeXClient(settings, priority=Priority.INTERACTIVE) as client:
        recording, path = download_to_file(StringeeX(client), call_id, to, settings, overwrite=force)
    seconds = recording.audio.duration_seconds
    data = {
        "call_id": call_id,
        "file": str(path),
        "bytes": recording.bytes,
        "sha256": recording.sha256,
        "content_type": recording.audio.content_type,
        "duration_seconds": None if seconds is None else round(seconds, 3),
        "doubt": recording.audio.doubt,
    }
    length = "of unknown length" if seconds is None else f"{seconds:.0f} seconds"
    return Report(
        data,
        lambda console: console.print(
            f"{path}: {file_size(recording.bytes)} of {recording.audio.content_type}, "
            f"{length}, SHA-256 {recording.sha256}",
            soft_wrap=True,
        ),
    )
