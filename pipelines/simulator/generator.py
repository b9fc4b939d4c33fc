"""Believable call-centre days from a seed, as compact columns: what happened, before any wire format.

Everything is drawn with one ``numpy.random.Generator``, so that the same arguments give the same calls in every
process. Hours follow a two-peaked office curve, weekdays a falling one; customers come back (a skewed pool of about
one number per three calls); missed calls are called back; long calls run over midnight.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from pipelines.simulator.people import Agent, agents, customer_numbers

OUTBOUND, INBOUND, INTERNAL = 0, 1, 2
MET, MISSED, STOPPED_AT_IVR, STOPPED_AT_SURVEY = 1, 2, 3, 4

_WEEKDAY_WEIGHTS = np.array([1.2, 1.08, 1.03, 1.0, 1.02, 0.55, 0.3])
_HOUR_WEIGHTS = np.array(
    [0.15, 0.08, 0.05, 0.05, 0.08, 0.2, 0.7, 2.2, 6.5, 9.5, 10, 8.5,
     4.5, 6.5, 9, 9.5, 8.5, 6.5, 3.5, 2.8, 2.4, 1.6, 0.8, 0.4]
)  # fmt: skip
_SECOND, _DAY = 1_000, 86_400_000
_CUSTOMERS_PER_CALL = 0.50  # with the skew below, about one distinct number per three calls turns up
_ID_PREFIX, _ID_LETTERS = b"call-vn-1-", b"ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"

Ints = NDArray[np.int64]
Small = NDArray[np.int8]
Flags = NDArray[np.bool_]


@dataclass(slots=True)
class GeneratedCalls:
    """Calls sorted by (start, id), one array per fact; times in epoch ms, ``*_s`` in seconds, -1 for "none".

    ``visible_from_ms`` is when the portal's history shows a call; from ``settled_from_ms`` on, the row is final
    (recording, after-call work and contact are filled in).
    """

    seed: int
    start_ms: Ints
    call_ids: NDArray[np.bytes_]
    end_ms: Ints
    answer_ms: Ints
    direction: Small
    status: Small
    agent: NDArray[np.int16]
    other_agent: NDArray[np.int16]
    customer: NDArray[np.int32]
    number: Small
    campaign: Small
    ivr_s: NDArray[np.int32]
    queue_s: NDArray[np.int32]
    hold_s: NDArray[np.int32]
    acw_s: NDArray[np.int32]
    recorded: Flags
    voicemail: Flags
    video: Flags
    variety: NDArray[np.int16]
    visible_from_ms: Ints
    settled_from_ms: Ints
    team: list[Agent]
    customer_numbers: Ints
    record_link_base: str = ""

    def __len__(self) -> int:
        return len(self.start_ms)


def generate(
    seed: int = 1,
    start_date: date | str = "2026-01-05",
    days: int = 7,
    calls_total: int | None = None,
    calls_per_day: int = 1_000,
    timezone: str = "Asia/Ho_Chi_Minh",
    *,
    agent_count: int = 40,
    ties: int = 1,
    late_arrival_share: float = 0.004,
    late_change_share: float = 0.03,
    record_link_base: str = "",
) -> GeneratedCalls:
    """Return exactly ``calls_total`` calls (default ``days * calls_per_day``) that start on ``days`` local days.

    ``ties``: that many neighbouring calls share one start millisecond. ``late_arrival_share`` of the calls appear one
    to three days after their end; ``late_change_share`` are changed as late as that.
    ``record_link_base``, such as ``https://asia-3.api.stringee.com``, makes every ``record_path`` an absolute
    link. Raises ValueError for a negative number of calls, or fewer than one day.
    """
    total = days * calls_per_day if calls_total is None else calls_total
    if total < 0 or days < 1 or ties < 1:
        raise ValueError("generate() needs days >= 1, ties >= 1 and no negative number of calls")
    rng = np.random.Generator(np.random.PCG64(seed))
    team = agents(agent_count, rng)
    midnights = _midnights(start_date, days, timezone)

    start = _start_times(rng, midnights, start_date, total)
    load = _HOUR_WEIGHTS[_hour(start, midnights)] / _HOUR_WEIGHTS.max()
    direction = rng.choice(np.array([OUTBOUND, INBOUND, INTERNAL], np.int8), total, p=[0.32, 0.63, 0.05])
    inbound, outbound, internal = direction == INBOUND, direction == OUTBOUND, direction == INTERNAL
    status = _status(rng, direction, load)
    customer, numbers = _customers(rng, total)
    campaign = np.where(outbound & (rng.random(total) < 0.4), rng.integers(4, size=total), -1).astype(np.int8)
    _call_back(
        rng, start, customer, status, inbound & (status == MISSED), outbound & (campaign < 0), int(midnights[-1])
    )
    _run_over_midnight(rng, start, status, direction, midnights)

    met = status == MET
    stopped = status >= STOPPED_AT_IVR
    ivr = np.where(inbound, rng.integers(3, 40, total), 0)
    waits = inbound & ~stopped
    queue = np.where(waits, rng.exponential(6 + 40 * load**2, total).astype(np.int64), 0)
    ring_ms = np.where(stopped, 0, rng.integers(1_500, 25_000, total))
    talk_ms = np.where(met, np.minimum(rng.lognormal(4.6, 0.9, total), 7_000) * _SECOND, 0).astype(np.int64)
    near_midnight = met & (start >= midnights[_day(start, midnights) + 1] - 300 * _SECOND)
    talk_ms[near_midnight] += 400 * _SECOND
    hold = np.where(met & (rng.random(total) < 0.12), (talk_ms * rng.uniform(0.05, 0.3, total)) // _SECOND, 0)
    answered_after = (ivr + queue) * _SECOND + ring_ms
    end = start + answered_after + talk_ms + np.where(met, 0, rng.integers(200, 30_000, total))
    voicemail = inbound & (status == MISSED) & (rng.random(total) < 0.15)
    agent = np.where(met | ~inbound, rng.integers(agent_count, size=total), -1)
    lag = rng.integers(2_000, 15_000, total)
    late = rng.random(total) < late_arrival_share
    visible = end + lag + np.where(late, rng.integers(_DAY, 3 * _DAY, total), 0)
    changed_late = rng.random(total) < late_change_share
    settled = visible + np.where(
        changed_late, rng.integers(_DAY, 3 * _DAY, total), rng.integers(20_000, 1_800_000, total)
    )

    if ties > 1:
        start, end, answered_after, visible, settled = _tie(ties, start, end, answered_after, visible, settled)
    ids = _call_ids(rng, start)
    order = np.lexsort((ids, start))
    columns = {
        "start_ms": start,
        "call_ids": ids,
        "end_ms": end,
        "answer_ms": np.where(met, start + answered_after, 0),
        "direction": direction,
        "status": status,
        "agent": agent.astype(np.int16),
        "other_agent": np.where(
            internal, (agent + 1 + rng.integers(max(agent_count - 1, 1), size=total)) % agent_count, -1
        ).astype(np.int16),
        "customer": np.where(internal, -1, customer).astype(np.int32),
        "number": rng.integers(3, size=total, dtype=np.int8),
        "campaign": campaign,
        "ivr_s": ivr.astype(np.int32),
        "queue_s": queue.astype(np.int32),
        "hold_s": hold.astype(np.int32),
        "acw_s": np.where(met & ~internal, rng.integers(0, 90, total), 0).astype(np.int32),
        "recorded": met & ~internal & (rng.random(total) < 0.9),
        "voicemail": voicemail,
        "video": met & (rng.random(total) < 0.004),
        "variety": rng.integers(1_000, size=total, dtype=np.int16),
        "visible_from_ms": visible,
        "settled_from_ms": settled,
    }
    return GeneratedCalls(
        seed=seed,
        team=team,
        customer_numbers=numbers,
        record_link_base=record_link_base,
        **{name: column[order] for name, column in columns.items()},
    )


def _midnights(start_date: date | str, days: int, timezone: str) -> Ints:
    """Return ``days + 1`` local midnights in epoch ms; a local day can have 23 or 25 hours."""
    first = date.fromisoformat(start_date) if isinstance(start_date, str) else start_date
    zone = ZoneInfo(timezone)
    instants = [datetime.combine(first + timedelta(day), time(), zone).timestamp() for day in range(days + 1)]
    return np.array([int(instant * 1000) for instant in instants], np.int64)


def _day(start: Ints, midnights: Ints) -> NDArray[np.intp]:
    return np.searchsorted(midnights, start, side="right") - 1


def _hour(start: Ints, midnights: Ints) -> Ints:
    hours: Ints = (start - midnights[_day(start, midnights)]) // 3_600_000
    return np.minimum(hours, 23)


def _start_times(rng: np.random.Generator, midnights: Ints, start_date: date | str, total: int) -> Ints:
    first = date.fromisoformat(start_date) if isinstance(start_date, str) else start_date
    days = len(midnights) - 1
    weights = _WEEKDAY_WEIGHTS[(first.weekday() + np.arange(days)) % 7] * rng.lognormal(0, 0.08, days)
    day = np.repeat(np.arange(days), rng.multinomial(total, weights / weights.sum()))
    hour = rng.choice(24, total, p=_HOUR_WEIGHTS / _HOUR_WEIGHTS.sum())
    share_of_day = (hour + rng.random(total)) / 24
    return midnights[day] + (share_of_day * np.diff(midnights)[day]).astype(np.int64)


def _status(rng: np.random.Generator, direction: Small, load: NDArray[np.float64]) -> Small:
    """Return a status per call: the busier the hour, the more inbound calls are missed."""
    draw = rng.random(len(direction))
    missed = np.select([direction == INBOUND, direction == OUTBOUND], [0.05 + 0.12 * load, 0.36], 0.15)
    status = np.where(draw < missed, MISSED, MET)
    status[(direction == INBOUND) & (draw > 0.91)] = STOPPED_AT_IVR
    status[(direction == INBOUND) & (draw > 0.985)] = STOPPED_AT_SURVEY
    return status.astype(np.int8)


def _customers(rng: np.random.Generator, total: int) -> tuple[NDArray[np.int64], Ints]:
    pool = max(int(total * _CUSTOMERS_PER_CALL), 1)
    reach = np.cumsum(rng.lognormal(0, 1.1, pool))
    customer = np.searchsorted(reach, rng.random(total) * reach[-1], side="right")
    return np.minimum(customer, pool - 1), customer_numbers(pool, rng)


def _call_back(
    rng: np.random.Generator,
    start: Ints,
    customer: NDArray[np.int64],
    status: Small,
    missed: Flags,
    free: Flags,
    end: int,
) -> None:
    """Turn ordinary outbound calls into calls back to customers who were missed, 5 to 90 minutes later."""
    wanted = np.flatnonzero(missed & (rng.random(len(start)) < 0.55))
    again = start[wanted] + rng.integers(300_000, 5_400_000, len(wanted))
    wanted, again = wanted[again < end], again[again < end]
    callers = rng.permutation(np.flatnonzero(free))[: len(wanted)]
    wanted, again = wanted[: len(callers)], again[: len(callers)]
    start[callers], customer[callers] = again, customer[wanted]
    status[callers] = np.where(rng.random(len(callers)) < 0.8, MET, MISSED)


def _run_over_midnight(rng: np.random.Generator, start: Ints, status: Small, direction: Small, midnights: Ints) -> None:
    """Let one connected call of every busy day start shortly before midnight; its talk then runs over it."""
    connected = np.flatnonzero((status == MET) & (direction != INTERNAL))
    days, first, counts = np.unique(_day(start[connected], midnights), return_index=True, return_counts=True)
    busy = counts >= 20
    start[connected[first[busy]]] = midnights[days[busy] + 1] - rng.integers(30_000, 240_000, int(busy.sum()))


def _tie(size: int, start: Ints, *moved: Ints) -> tuple[Ints, ...]:
    """Give every ``size`` neighbours the first one's start; the other instants move along, except the durations."""
    order = np.argsort(start, kind="stable")
    shared = np.empty_like(start)
    shared[order] = start[order][np.arange(len(start)) // size * size]
    shift = shared - start
    end, answered_after, visible, settled = moved
    return shared, end + shift, answered_after, visible + shift, settled + shift


def _call_ids(rng: np.random.Generator, start: Ints) -> NDArray[np.bytes_]:
    """Return ids as the portal's: ``call-vn-1-``, ten letters or digits, ``-`` and ms a little before the start."""
    total = len(start)
    made_ms = start - rng.integers(0, 150_000, total)
    letters = np.zeros((total, 34), np.uint8)
    letters[:, :10] = np.frombuffer(_ID_PREFIX, np.uint8)
    letters[:, 10:20] = np.frombuffer(_ID_LETTERS, np.uint8)[rng.integers(36, size=(total, 10), dtype=np.uint8)]
    letters[:, 20] = ord("-")
    for place in range(13):
        letters[:, 33 - place] = ord("0") + made_ms // 10**place % 10
    return letters.view("S34").ravel()
