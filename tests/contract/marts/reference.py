"""What the marts should hold, computed in plain Python from their definitions: no SQL, and no code of theirs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from itertools import groupby
from typing import Any

Row = dict[str, Any]
DAY, HOUR = timedelta(days=1), timedelta(hours=1)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

DEFAULTS = {
    "service_level_seconds": 20,
    "short_abandon_seconds": 5,
    "repeat_days": 7,
    "fcr_days": 7,
    "recovery_hours": 24,
    "recovery_list_days": 30,
    "talk_includes_hold": 1,
}

FLAGS = (
    "inbound", "outbound", "internal", "offered", "answered", "missed", "abandoned", "missed_without_queue",
    "short_abandoned", "answered_in_time", "abandoned_in_time", "stopped_in_ivr", "stopped_in_survey", "voicemail",
    "outbound_answered", "offered_other", "missed_with_voicemail", "unknown_direction", "unknown_status",
    "answered_without_talk",
)  # fmt: skip


@dataclass
class Reference:
    """The calls that are not deleted, the days of the ledger (complete, settled), and the parameters."""

    calls: list[Row]
    ledger: dict[date, tuple[bool, bool]]
    parameters: dict[str, int] = field(default_factory=lambda: dict(DEFAULTS))

    def __post_init__(self) -> None:
        self.facts = sorted((self._facts(call) for call in self.calls), key=_moment)
        self.of_number: dict[str, list[Row]] = {}
        for fact in self.facts:
            if fact["customer_number_e164"] is not None:
                self.of_number.setdefault(fact["customer_number_e164"], []).append(fact)
        self.newest = max((fact["call_date"] for fact in self.facts), default=None)

    def _facts(self, call: Row) -> Row:
        waited = call["queue_seconds"] or 0
        direction, status = call["direction"], call["status"]
        inbound, answered = direction == "inbound", status == "answered"
        missed, soon = inbound and status == "missed", waited <= self.parameters["service_level_seconds"]
        abandoned = missed and waited > 0
        offered = inbound and (status in ("answered", "missed") or waited > 0)
        found = {
            "inbound": inbound,
            "outbound": direction == "outbound",
            "internal": direction == "internal",
            "offered": offered,
            "answered": inbound and answered,
            "missed": missed,
            "abandoned": abandoned,
            "missed_without_queue": missed and waited == 0,
            "short_abandoned": abandoned and waited < self.parameters["short_abandon_seconds"],
            "answered_in_time": inbound and answered and soon,
            "abandoned_in_time": abandoned and soon,
            "stopped_in_ivr": inbound and status == "stopped_at_ivr",
            "stopped_in_survey": inbound and status == "stopped_at_survey_ivr",
            "voicemail": inbound and bool(call["has_voicemail"]),
            "outbound_answered": direction == "outbound" and answered,
            "offered_other": offered and status not in ("answered", "missed"),
            "missed_with_voicemail": missed and bool(call["has_voicemail"]),
            "unknown_direction": direction == "unknown",
            "unknown_status": status == "unknown",
            "answered_without_talk": inbound and answered and call["talk_seconds"] is None,
        }
        handle = None
        if answered:
            handle = (call["talk_seconds"] or 0) + (call["acw_seconds"] or 0)
            if not self.parameters["talk_includes_hold"]:
                handle += call["hold_seconds"] or 0
        return {**call, **{name: int(value) for name, value in found.items()}, "handle_seconds": handle}

    def metrics(self, facts: list[Row]) -> Row:
        """The counts C and the ratios R of some calls."""
        counts: Row = {"calls": len(facts)}
        for flag in FLAGS:
            counts["voicemails" if flag == "voicemail" else flag] = sum(fact[flag] for fact in facts)
        for what in ("queue", "talk", "hold", "acw", "handle"):
            counts[f"answered_{what}_seconds"] = _sum(facts, "answered", f"{what}_seconds")
        for what in ("talk", "handle"):
            counts[f"outbound_{what}_seconds"] = _sum(facts, "outbound_answered", f"{what}_seconds")
        c = counts
        answered_or_abandoned = c["answered"] + c["abandoned"]
        ratios = {
            "service_level": (c["answered_in_time"], answered_or_abandoned),
            "service_level_abandons_ignored": (c["answered_in_time"], c["answered"]),
            "service_level_abandons_in_time_met": (
                c["answered_in_time"] + c["abandoned_in_time"],
                answered_or_abandoned,
            ),
            "service_level_short_abandons_ignored": (
                c["answered_in_time"],
                answered_or_abandoned - c["short_abandoned"],
            ),
            "service_level_of_offered": (c["answered_in_time"], c["offered"]),
            "abandonment_rate": (c["abandoned"], c["offered"]),
            "asa_seconds": (c["answered_queue_seconds"], c["answered"]),
            "aht_seconds": (c["answered_handle_seconds"], c["answered"]),
            "acw_average_seconds": (c["answered_acw_seconds"], c["answered"]),
            "hold_share": (c["answered_hold_seconds"], c["answered_talk_seconds"]),
            "voicemail_rate": (c["missed_with_voicemail"], c["missed"]),
            "ivr_containment": (c["stopped_in_ivr"], c["inbound"]),
            "outbound_connect_rate": (c["outbound_answered"], c["outbound"]),
        }
        return counts | {name: _ratio(*parts) for name, parts in ratios.items()}

    def views(self) -> dict[str, list[Row]]:
        """Every view of the contract, by name."""
        by_day = _grouped(self.facts, lambda fact: (fact["call_date"],))
        return {
            "dates": [self._date(day) for day in sorted({*self.ledger, *(key[0] for key in by_day)})],
            "daily_metrics": [
                self._day(day, by_day.get((day,), [])) for day in {*self.ledger, *(key[0] for key in by_day)}
            ],
            "hourly_metrics": [
                {"call_date": day, "call_hour": hour, "weekday": day.isoweekday(), **self.metrics(facts)}
                for (day, hour), facts in self._by("call_date", "call_hour").items()
            ],
            "interval_metrics": [
                {"interval_start_local": start, "call_date": day, **self.metrics(facts)}
                for (start, day), facts in _grouped(self.facts, _interval).items()
            ],
            "number_daily": [
                {"call_date": day, "stringee_number": number, **self.metrics(facts)}
                for (day, number), facts in self._by("call_date", "stringee_number").items()
            ],
            "campaign_daily": [
                {"call_date": day, "campaign_name": name, **self.metrics(facts)}
                for (day, name), facts in self._by("call_date", "campaign_name").items()
                if name is not None
            ],
            "agent_daily": [
                self._agent_day(day, agent, facts)
                for (day, agent), facts in self._by("call_date", "agent_id").items()
                if agent is not None
            ],
            "agents": [
                {
                    "agent_id": agent,
                    **_last_names(facts),
                    "first_call_date": min(fact["call_date"] for fact in facts),
                    "last_call_date": max(fact["call_date"] for fact in facts),
                    "calls": len(facts),
                }
                for (agent,), facts in self._by("agent_id").items()
                if agent is not None
            ],
            "repeat_calls": list(self._repeat_calls()),
            "missed_call_recovery": [self._recovery(f) for fs in self.of_number.values() for f in fs if f["missed"]],
            "missed_calls_to_recover": list(self._to_recover()),
            "first_contact_resolution": list(self._resolution()),
            "concurrency_daily": [self._concurrency(day, facts) for (day,), facts in by_day.items()],
        }

    def _by(self, *names: str) -> dict[tuple[Any, ...], list[Row]]:
        return _grouped(self.facts, lambda fact: tuple(fact[name] for name in names))

    def _date(self, day: date) -> Row:
        complete, settled = self.ledger.get(day, (False, False))
        iso = day.isocalendar()
        return {
            "call_date": day,
            "weekday": day.isoweekday(),
            "weekday_name": day.strftime("%A"),
            "is_weekend": day.isoweekday() > 5,
            "iso_year": iso.year,
            "iso_week": iso.week,
            "year": day.year,
            "quarter": (day.month - 1) // 3 + 1,
            "month": day.month,
            "day": day.day,
            "is_complete": complete,
            "is_settled": settled,
        }

    def _day(self, day: date, facts: list[Row]) -> Row:
        complete, settled = self.ledger.get(day, (False, False))
        numbers = {fact["customer_number_e164"] for fact in facts if fact["inbound"]} - {None}
        return {
            "call_date": day,
            **self.metrics(facts),
            "customers": len(numbers),
            "is_complete": complete,
            "is_settled": settled,
        }

    def _agent_day(self, day: date, agent: str, facts: list[Row]) -> Row:
        done = [fact for fact in facts if fact["status"] == "answered"]
        talks = [fact["talk_seconds"] for fact in done if fact["talk_seconds"] is not None]
        sums = {
            f"{what}_seconds": sum(fact[f"{what}_seconds"] or 0 for fact in done)
            for what in ("talk", "hold", "acw", "handle")
        }
        return {
            "call_date": day,
            "agent_id": agent,
            **_last_names(facts),
            "calls": len(facts),
            **{
                name: sum(fact[name] for fact in facts)
                for name in ("answered", "missed", "outbound", "outbound_answered", "internal")
            },
            **sums,
            "aht_seconds": _ratio(sums["handle_seconds"], len(done)),
            "longest_talk_seconds": max(talks, default=None),
        }

    def _repeat_calls(self) -> Iterable[Row]:
        for facts in self.of_number.values():
            inbound = [fact for fact in facts if fact["inbound"]]
            for fact in inbound:
                before = [other for other in inbound if other["started_at"] < fact["started_at"]]
                if not before:
                    continue
                nearest = max(before, key=_moment)
                gap = fact["started_at"] - nearest["started_at"]
                if gap <= self.parameters["repeat_days"] * DAY:
                    yield {
                        **{n: fact[n] for n in ("call_id", "call_date", "started_at")},
                        **{n: fact[n] for n in ("customer_number_e164", "agent_id")},
                        "previous_call_id": nearest["call_id"],
                        "previous_started_at": nearest["started_at"],
                        "previous_status": nearest["status"],
                        "seconds_since_previous": gap // timedelta(seconds=1),
                    }

    def _recovery(self, missed: Row) -> Row:
        limit = self.parameters["recovery_hours"] * HOUR
        after = [
            fact
            for fact in self.of_number[missed["customer_number_e164"]]
            if timedelta(0) < fact["started_at"] - missed["started_at"] <= limit
        ]
        first = min(
            (fact for fact in after if fact["answered"] or fact["outbound_answered"]), key=_moment, default=None
        )
        return {
            **{
                name: missed[name]
                for name in (
                    "call_id", "call_date", "started_at", "started_at_local", "customer_number_e164", "contact_name",
                    "stringee_number", "queue_seconds", "has_voicemail",
                )
            },
            "recovered": int(first is not None),
            "recovered_by_call_id": first and first["call_id"],
            "recovered_at": first and first["started_at"],
            "recovery_seconds": first and (first["started_at"] - missed["started_at"]) // timedelta(seconds=1),
            "callback_attempts": sum(fact["outbound"] for fact in after),
        }  # fmt: skip

    def _to_recover(self) -> Iterable[Row]:
        for number, facts in self.of_number.items():
            earliest = self.newest - timedelta(days=self.parameters["recovery_list_days"])
            missed = [fact for fact in facts if fact["missed"] and fact["call_date"] > earliest]
            if not missed:
                continue
            last = missed[-1]
            if any(f["started_at"] > last["started_at"] for f in facts if f["answered"] or f["outbound_answered"]):
                continue
            names = [fact["contact_name"] for fact in facts if fact["contact_name"] is not None]
            yield {
                "customer_number_e164": number,
                "contact_name": names[-1] if names else None,
                "stringee_number": last["stringee_number"],
                "missed_calls": len(missed),
                "first_missed_at": missed[0]["started_at"],
                "last_missed_at": last["started_at"],
                "last_missed_at_local": last["started_at_local"],
                "callback_attempts": sum(
                    fact["outbound"] for fact in facts if fact["started_at"] > missed[0]["started_at"]
                ),
            }

    def _resolution(self) -> Iterable[Row]:
        limit = self.parameters["fcr_days"] * DAY
        for (day,), facts in self._by("call_date").items():
            answered = [fact for fact in facts if fact["answered"] and fact["customer_number_e164"] is not None]
            if not answered:
                continue
            followed = sum(
                any(
                    other["inbound"] and timedelta(0) < other["started_at"] - fact["started_at"] <= limit
                    for other in self.of_number[fact["customer_number_e164"]]
                )
                for fact in answered
            )
            yield {
                "call_date": day,
                "answered_calls": len(answered),
                "followed_up": followed,
                "resolved": len(answered) - followed,
                "resolution_rate": (len(answered) - followed) / len(answered),
                "is_mature": (self.newest - day).days > self.parameters["fcr_days"],
            }

    def _concurrency(self, day: date, facts: list[Row]) -> Row:
        def in_progress(fact: Row) -> int:
            at = fact["started_at"]
            others = (f for f in self.facts if f is not fact)
            return 1 + sum(other["started_at"] <= at < _end(other) for other in others)

        counted = [(in_progress(fact), fact["started_at"]) for fact in facts]
        peak = max(count for count, _ in counted)
        return {"call_date": day, "peak_calls": peak, "peak_at": min(at for count, at in counted if count == peak)}


def _end(fact: Row) -> datetime:
    if fact["ended_at"] is not None:
        return fact["ended_at"]
    return fact["started_at"] + timedelta(seconds=fact["duration_seconds"] or 0)


def _moment(fact: Row) -> tuple[datetime, bytes]:
    return fact["started_at"], fact["call_id"].encode()


def _interval(fact: Row) -> tuple[datetime, date]:
    local = fact["started_at_local"]
    return local.replace(minute=local.minute // 15 * 15, second=0, microsecond=0), fact["call_date"]


def _sum(facts: list[Row], flag: str, name: str) -> int:
    return sum(fact[name] or 0 for fact in facts if fact[flag])


def _ratio(numerator: int, denominator: int) -> float | None:
    return numerator / denominator if denominator else None


def _last_names(facts: list[Row]) -> Row:
    return {
        name: next((fact[name] for fact in reversed(facts) if fact[name] is not None), None)
        for name in ("agent_name", "agent_email")
    }


def _grouped(facts: list[Row], key: Callable[[Row], tuple[Any, ...]]) -> dict[tuple[Any, ...], list[Row]]:
    ordered = sorted(facts, key=lambda fact: (repr(key(fact)), *_moment(fact)))
    return {of: list(group) for of, group in groupby(ordered, key)}
