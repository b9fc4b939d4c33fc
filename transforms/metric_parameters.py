"""The numbers that the metrics' definitions depend on: each is a setting, and a row of ``metric_parameters``."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Parameter:
    """A number that definitions depend on: ``setting`` names the environment variable that sets it."""

    name: str
    default: int
    most: int
    unit: str
    description: str

    @property
    def setting(self) -> str:
        """The environment variable."""
        return f"CALLHISTORY_{self.name.upper()}"


PARAMETERS = {
    parameter.name: parameter
    for parameter in (
        Parameter("service_level_seconds", 20, 86_400, "seconds", "An answer within this time meets the service level"),
        Parameter(
            "short_abandon_seconds", 5, 86_400, "seconds", "A caller who gave up before this time is a short abandon"
        ),
        Parameter("repeat_days", 7, 3_660, "days", "A caller who calls again within this time is a repeat caller"),
        Parameter(
            "fcr_days",
            7,
            3_660,
            "days",
            "An answered call that no other call follows within this time is resolved",
        ),
        Parameter("recovery_hours", 24, 87_840, "hours", "Within this time a missed call counts as recovered"),
        Parameter("recovery_list_days", 30, 3_660, "days", "How far back the list of missed calls to recover reaches"),
        Parameter(
            "talk_includes_hold",
            1,
            1,
            "",
            "1 where the portal's talk time includes hold, else 0: then hold is added to the handle time",
        ),
    )
}
