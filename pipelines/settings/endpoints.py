"""Every operation of the API, declared once: its endpoint, its setting, its budget, and what it does to the world.

Paths that the provider does not publish are assumptions, which is why each of them is a setting.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal

BudgetShare = Literal["history", "recording", "other"]

_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
_PLACEHOLDER = re.compile(r"\{(\w*)\}")


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation of the API.

    ``path`` may hold placeholders such as ``{call_id}``. ``changes_world`` operations are never repeated
    automatically; ``fallback_method`` is the one exception, used once when ``method`` is answered with 404 or 405,
    which means that nothing was done. ``budget_share`` names the block of requests that the operation counts in,
    besides the blocks that everything counts in.
    """

    name: str
    method: str
    path: str
    description: str
    changes_world: bool = False
    fallback_method: str | None = None
    budget_share: BudgetShare = "other"

    @property
    def setting(self) -> str:
        """Name of the environment variable that pins method and path."""
        return f"STRINGEEX_ENDPOINT_{self.name.upper()}"

    @property
    def endpoint(self) -> str:
        """``METHOD /path``, as the setting spells it and as messages name it."""
        return f"{self.method} {self.path}"

    @property
    def placeholders(self) -> frozenset[str]:
        """Names in braces in the path."""
        return frozenset(_PLACEHOLDER.findall(self.path))

    def pinned(self, endpoint: str) -> Operation:
        """Return this operation at another ``METHOD /path``, and without the fallback method.

        Raises ValueError, saying what would be right.
        """
        method, _, path = endpoint.strip().partition(" ")
        path = path.strip()
        if method not in _METHODS or not path.startswith("/") or path.startswith("//") or re.search(r"[\s?#\\]", path):
            raise ValueError(f"should be METHOD /path without a query, such as {self.endpoint!r}")
        pinned = replace(self, method=method, path=path, fallback_method=None)
        if pinned.placeholders != self.placeholders or "{" in _PLACEHOLDER.sub("", path):
            names = ", ".join(f"{{{name}}}" for name in sorted(self.placeholders)) or "no placeholder"
            raise ValueError(f"should hold {names} in its path, such as {self.endpoint!r}")
        return pinned


OPERATIONS: dict[str, Operation] = {
    operation.name: operation
    for operation in (
        Operation("account", "POST", "/v1/account", "logging in with e-mail and password"),
        Operation("history", "GET", "/v1/call/history", "call history", budget_share="history"),
        Operation("realtime", "GET", "/v1/call/realtime", "calls in progress"),
        Operation("transfer", "GET", "/v1/call/transfer", "transferring a call", True, "POST"),
        Operation("stop", "GET", "/v1/call/stop", "stopping a call", True, "POST"),
        Operation("add_participant", "GET", "/v1/call/addparticipant", "adding a participant to a call", True, "POST"),
        Operation(
            "download_recording",
            "GET",
            "/v1/call/recording/{call_id}",
            "downloading a recording",
            budget_share="recording",
        ),
        Operation("delete_recording", "DELETE", "/v1/call/recording/{call_id}", "deleting a recording", True),
        Operation("upload_greeting", "POST", "/v1/greetingfile", "uploading a greeting", True),
    )
}
"""Operation name to its declaration, with the documented (or assumed) endpoint."""
