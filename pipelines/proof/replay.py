"""Lake and warehouse rebuilt from the raw copy, without the API, by the code that publishes an export.

A window whose copies are as the raw copy makes them is left alone. One whose certificate still holds in the
warehouse is brought up to date in place, from its newest state: what changes is stamped with the present and kept in
``call_versions``, for it changes here and now. Any other one is made anew from all its states, each stamped with when
it was read, in the order in which they were read over all windows (calls move between them): the same values, times
and versions come out as when they were exported.
"""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from datetime import date, datetime
from enum import StrEnum
from typing import Any

from pipelines.context import Stores, utc_now
from pipelines.export.claims import LEASE, keep_claim
from pipelines.export.doubts import Judgement
from pipelines.export.publish import Publication, Published, publish, window_spool
from pipelines.export.raw_retention import is_raw_expired
from pipelines.proof.verify import compare_window, fill_from_raw
from pipelines.windows import Window, day_bounds, days_between, local_date
from sinks.comparison import Comparison, Difference, Kind, Place, TableDifference
from sinks.ledger import ClaimedDay, LedgerRow, WindowStatus, attempt_of
from sinks.raw import RawFile, Verdict, raw_dates, raw_files, read_raw
from sinks.spool import BATCH_ROWS
from sinks.window_rows import moved_calls
from transforms.errors import CallHistoryError, ClaimLostError, DataError, SettingsError


class Action(StrEnum):
    """What a replay does with a window."""

    NOTHING = "nothing"
    IN_PLACE = "in_place"
    ANEW = "anew"
    FAILED = "failed"


@dataclass
class WindowReplay:
    """A window, its states in the raw copy (oldest first), what is to be done with it, and what was done."""

    window: Window
    states: Sequence[RawFile]
    action: Action
    row: LedgerRow | None
    differences: Sequence[Difference] = ()
    tables: Sequence[TableDifference] = ()
    error: str | None = None
    published: list[Published] = field(default_factory=list)

    @property
    def steps(self) -> Sequence[RawFile]:
        """The states that are to be published, oldest first."""
        return {Action.ANEW: self.states, Action.IN_PLACE: self.states[-1:]}.get(self.action, ())

    @property
    def start(self) -> datetime:
        """First instant of the window."""
        return self.window.start

    @property
    def end(self) -> datetime:
        """First instant after the window."""
        return self.window.end

    @property
    def completed_at(self) -> datetime | None:
        """When the window was last complete, as the plan saw it."""
        return self.row.completed_at if self.row else None

    def to_dict(self) -> dict[str, Any]:
        """Return the window as JSON can hold it: counts, and values of columns that tell nothing of a person."""
        changes = [published.changes for published in self.published]
        return {
            "call_date": self.window.call_date.isoformat(),
            "window_start": self.start.isoformat(),
            "action": self.action.value,
            "states": len(self.states),
            "differences": [
                {"place": d.place, "table": d.table, "kind": d.kind, "count": d.count, "message": d.message}
                for d in self.differences
            ],
            "tables": [asdict(table) for table in self.tables],
            "calls_changed": sum(change.calls_changed for change in changes),
            "rejected": self.published[-1].certificate.rejected
            if self.published and self.published[-1].certificate
            else None,
            "files_written": sum(published.files_written for published in self.published),
            "error": self.error,
        }


def known_days(stores: Stores) -> set[date]:
    """Return the local days that the raw copy or the ledger has."""
    return {*raw_dates(stores.lake.storage), *(row.call_date for row in stores.ledger.rows())}


def plan_replay(
    stores: Stores, first: date, last: date, *, only: Callable[[Window], bool] | None = None, with_values: bool = False
) -> list[WindowReplay]:
    """Return what a replay of the local days from ``first`` to ``last`` (both included) has to do; nothing is written.

    ``only`` picks windows. ``with_values`` finds out how many rows would change, and in which columns.
    """
    plans: list[WindowReplay] = []
    rows_by_day: dict[date, dict[datetime, LedgerRow]] = defaultdict(dict)
    for row in stores.ledger.rows(first, last):
        rows_by_day[row.call_date][row.window_start] = row
    for day in days_between(first, last):
        rows = rows_by_day[day]
        states = _states(stores, day, rows)
        windows = set(states) | {Window(r.window_start, r.window_end, day) for r in rows.values() if r.completed_at}
        plans += [
            _plan(stores, window, states.get(window, []), rows.get(window.start), with_values)
            for window in sorted(windows)
            if only is None or only(window)
        ]
    for plan in plans:
        _check_states(stores, plan)
    _extend_to_moved(stores, plans)
    return plans


def replay(
    stores: Stores,
    plans: Sequence[WindowReplay],
    *,
    on_done: Callable[[WindowReplay], None] = lambda _: None,
    clock: Callable[[], datetime] = utc_now,
) -> None:
    """Do what is planned, and note in ``plans`` what came of it.

    A window that fails, or whose day another run has claimed, does not stop the others; it is due for an export then.
    """
    claims = _claim(stores, plans)
    with ExitStack() as stack:
        for claim in claims.values():
            stack.callback(_release, stores, claim)
        if claims:
            # One attempt holds all of the days: renewed for one, they are for all.
            stack.enter_context(keep_claim(stores.ledger, next(iter(claims.values())), LEASE))
        left: dict[datetime, WindowReplay] = {}
        to_forget = _windows_to_forget(stores, plans)
        for plan, number in _in_order(plans):
            forgets = to_forget.pop(plan.start, []) if plan.action is Action.ANEW else []
            for window in forgets:
                to_forget.pop(window.start, None)
            _do(stores, plan, number, claims, clock, forgets)
            left.pop(plan.start, None)
            left |= {other.start: other for other in _left_by_calls(plan, plans)}
            if number == len(plan.steps) - 1:
                on_done(plan)
        for plan in left.values():
            _do(stores, plan, len(plan.steps) - 1, claims, clock)


def _windows_to_forget(stores: Stores, plans: Sequence[WindowReplay]) -> dict[datetime, list[Window]]:
    """Return, by the start of each window that is made anew, all that the warehouse has to forget with it.

    Windows that share a call's history are forgotten together: the call would be found where it went later.
    """
    anew = {plan.start: plan.window for plan in plans if plan.action is Action.ANEW}
    together = {start: [window] for start, window in anew.items()}
    for starts in moved_calls(stores.warehouse):
        shared = {w.start: w for w in anew.values() if any(w.start <= start < w.end for start in starts)}
        merged = {window.start: window for start in shared for window in together[start]}
        together |= {start: list(merged.values()) for start in merged}
    return together


def _do(
    stores: Stores,
    plan: WindowReplay,
    number: int,
    claims: Mapping[date, ClaimedDay],
    clock: Callable[[], datetime],
    forgets: Sequence[Window] = (),
) -> None:
    if plan.action is Action.FAILED:
        return
    claim = claims[plan.window.call_date]
    try:
        _publish(stores, plan, number, claim, clock, forgets)
    except SettingsError:
        raise
    except CallHistoryError as error:
        _give_up(plan, error)
        if not isinstance(error, ClaimLostError):
            stores.ledger.fail(claim, plan.start, f"window {plan.window.label}: {error}")


def _left_by_calls(plan: WindowReplay, plans: Sequence[WindowReplay]) -> list[WindowReplay]:
    """Return the windows, done already, that calls have left by what was just published of ``plan``.

    If nothing else of them follows, their newest state is to be published once more. What an export reads again then,
    and finds to be the same, has no file of its own in the raw copy.
    """
    if not plan.published:
        return []
    changes = plan.published[-1].changes
    instants = (*changes.left, *changes.to_confirm)
    return [other for other in plans if other.published and any(other.start <= i < other.end for i in instants)]


def _release(stores: Stores, claim: ClaimedDay) -> None:
    with suppress(CallHistoryError):  # it lapses by itself
        stores.ledger.release_day(claim)


def _states(stores: Stores, day: date, rows: dict[datetime, LedgerRow]) -> dict[Window, list[RawFile]]:
    """Return the published states of each window of a day; of overlapping ones, those of the ledger or a later read.

    Windows overlap when a warehouse was lost and the day exported again in windows of another length.
    """
    found: dict[Window, list[RawFile]] = {}
    for file in raw_files(stores.lake.storage, day):
        if file.verdict is not Verdict.HELD:
            found.setdefault(Window(file.window_start, file.window_end, day), []).append(file)

    def rank(window: Window) -> tuple[bool, datetime]:
        row = rows.get(window.start)
        return row is not None and row.window_end == window.end, found[window][-1].read_at

    kept: dict[Window, list[RawFile]] = {}
    for window in sorted(found, key=rank, reverse=True):
        if all(window.end <= other.start or other.end <= window.start for other in kept):
            kept[window] = found[window]
    return kept


def _plan(
    stores: Stores, window: Window, states: list[RawFile], row: LedgerRow | None, with_values: bool
) -> WindowReplay:
    plan = WindowReplay(window, states, Action.ANEW, row)
    try:
        is_raw_gone = not states and is_raw_expired(stores, window, utc_now())
        if not states and not is_raw_gone:
            raise DataError("there is no raw copy to rebuild it from: bring it back from a backup")
        with Comparison(window.call_date, window.start, window.end) as comparison:
            if row is not None or with_values:
                plan.differences = compare_window(stores, window, row, comparison)
            if with_values and comparison.counts(Place.RAW):
                plan.tables = comparison.table_differences()
        if is_raw_gone:
            plan.action = Action.NOTHING
            if plan.differences:
                raise DataError(
                    "its raw copy was kept for CALLHISTORY_RETENTION_RAW, and lake or warehouse is not as certified: "
                    "bring that one back from a backup, or have callhistory backfill --force fetch a raw copy, and "
                    "replay again"
                )
            return plan
        unreadable = [d for d in plan.differences if d.place is Place.RAW and d.kind is Kind.UNREADABLE]
        if unreadable:
            raise DataError(unreadable[0].message or "")
        if row is not None and row.status is WindowStatus.COMPLETE and _has_certified(row, states[-1]):
            wrong = [d for d in plan.differences if d.place is Place.WAREHOUSE and d.kind is not Kind.OUTDATED]
            plan.action = Action.ANEW if wrong else Action.IN_PLACE if plan.differences else Action.NOTHING
    except DataError as error:
        _give_up(plan, error)
    return plan


def _extend_to_moved(stores: Stores, plans: list[WindowReplay]) -> None:
    """Have the windows made anew, too, that share a call's history with one that is: the call moved between them."""
    moves = moved_calls(stores.warehouse)
    pending = [plan for plan in plans if plan.action is Action.ANEW]
    while pending:
        origin = pending.pop()
        for starts in moves:
            if any(origin.start <= start < origin.end for start in starts):
                for start in starts:
                    plan = _plan_at(stores, plans, start)
                    if plan is not None and not plan.states:
                        _give_up(origin, DataError(f"it shares calls with {plan.window.label}, whose raw copy is gone"))
                        break
                    if plan is not None and plan.action in (Action.NOTHING, Action.IN_PLACE):
                        plan.action = Action.ANEW
                        _check_states(stores, plan)
                        pending.append(plan)
                    if plan is not None and plan.action is Action.FAILED:
                        _give_up(origin, DataError(f"it shares calls with window {plan.window.label}, which failed"))


def _plan_at(stores: Stores, plans: list[WindowReplay], instant: datetime) -> WindowReplay | None:
    """Return the plan of the window that holds ``instant``, which is added where it is outside of the range."""
    for plan in plans:
        if plan.start <= instant < plan.end:
            return plan
    day = local_date(instant, stores.timezone)
    rows = {row.window_start: row for row in stores.ledger.rows(day, day)}
    for window, states in _states(stores, day, rows).items():
        if window.start <= instant < window.end:
            plans.append(WindowReplay(window, states, Action.NOTHING, rows.get(window.start)))
            return plans[-1]
    return None


def _check_states(stores: Stores, plan: WindowReplay) -> None:
    """Read all states of a window that is to be made anew, before anything of it is given up."""
    try:
        for state in plan.steps if plan.action is Action.ANEW else ():
            for _ in read_raw(stores.lake.storage, state, BATCH_ROWS):
                pass
    except DataError as error:
        _give_up(plan, error)


def _has_certified(row: LedgerRow, state: RawFile) -> bool:
    """Whether the ledger has a certificate of that state; one that was disputed has none."""
    return (
        row.status is not WindowStatus.DISPUTED
        and state.verdict is Verdict.PROVEN
        and row.completed_at is not None
        and row.completed_at >= state.read_at
    )


def _claim(stores: Stores, plans: Sequence[WindowReplay]) -> dict[date, ClaimedDay]:
    """Claim the days of what is planned; what is on a day that another run has claimed fails."""
    claimed_by = attempt_of(f"replay-{uuid.uuid4().hex[:12]}")
    of_day: dict[date, list[WindowReplay]] = {}
    for plan in plans:
        if plan.action in (Action.IN_PLACE, Action.ANEW):
            of_day.setdefault(plan.window.call_date, []).append(plan)
    claims = {}
    for day, due in of_day.items():
        start, end = day_bounds(day, stores.timezone)
        known = [row.window_end for row in stores.ledger.rows(day, day) if row.window_start == start]
        inside = [p.end if p.start == start else p.start for p in due]
        claim = ClaimedDay(day, start, min([*known, *inside, end]), claimed_by)
        begun = stores.ledger.claim_day(claim, due, LEASE)
        if begun is not None:
            claims[day] = claim
        for plan in due:
            if begun is None or plan.start not in begun:
                _give_up(plan, ClaimLostError("another run is at work on its day: replay it again later"))
    return claims


def _in_order(plans: Sequence[WindowReplay]) -> list[tuple[WindowReplay, int]]:
    """Return each state that is to be published, as its plan and its number there, in the order of reading."""
    steps = [(plan, number) for plan in plans for number in range(len(plan.steps))]

    def reading_order(step: tuple[WindowReplay, int]) -> tuple[datetime, int, datetime]:
        plan, number = step
        # An export takes the newest day first, and the windows of a day in order.
        return plan.steps[number].read_at, -plan.window.call_date.toordinal(), plan.start

    return sorted(steps, key=reading_order)


def _publish(
    stores: Stores,
    plan: WindowReplay,
    number: int,
    claim: ClaimedDay,
    clock: Callable[[], datetime],
    forgets: Sequence[Window],
) -> None:
    window, state, row = plan.window, plan.steps[number], plan.row
    is_anew = plan.action is Action.ANEW
    certified = row if row is not None and _has_certified(row, plan.states[-1]) else None
    completed_at = (certified.completed_at if certified else None) or state.read_at
    with window_spool(stores, window) as spool:
        fill_from_raw(stores, spool, state)
        publication = Publication(
            stores=stores,
            claim=claim,
            window=window,
            api_total=spool.rows if state.verdict is Verdict.PROVEN else _api_total(row, state),
            read_at=state.read_at,
            judge=lambda *_: Judgement(state.verdict, _reason(row, state)),
            keep_raw=lambda _: state.read_at if is_anew else clock(),
            previous_read_at=plan.steps[number - 1].read_at if number else None,
            whole_day=(window.start, window.end) == day_bounds(window.call_date, stores.timezone),
            releases_claim=False,
            tell=lambda _: None,
            forgets=forgets,
            is_newest=number == len(plan.steps) - 1,
            started_at=state.read_at,
            certified=certified,
        )
        plan.published.append(publish(publication, spool, lambda: completed_at))


def _api_total(row: LedgerRow | None, state: RawFile) -> int | None:
    """Return the API's count of a disputed state, where the ledger still speaks of that one."""
    return row.api_total if row is not None and _is_disputed(row, state) else None


def _reason(row: LedgerRow | None, state: RawFile) -> str | None:
    if state.verdict is Verdict.PROVEN:
        return None
    if row is not None and row.error and _is_disputed(row, state):
        return row.error.removeprefix(f"window {Window(row.window_start, row.window_end, row.call_date).label}: ")
    return "the rows of the raw copy were disputed when they were read"


def _is_disputed(row: LedgerRow, state: RawFile) -> bool:
    return row.status is WindowStatus.DISPUTED and not row.held and (row.started_at or state.read_at) >= state.read_at


def _give_up(plan: WindowReplay, error: Exception) -> None:
    plan.action = Action.FAILED
    plan.error = f"window {plan.window.label}: {error}"
