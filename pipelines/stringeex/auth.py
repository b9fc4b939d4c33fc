"""Both ways to authenticate, as `httpx.Auth`: they hold one token, and put it into a header for hosts that may see it.

Whether an answer rejects the token is for the client to say, which has read it; it then asks for another with `renew`.
"""

from __future__ import annotations

import json
import secrets
import threading
import time
from abc import abstractmethod
from collections.abc import Callable, Generator, Sequence
from typing import Any

import httpx

from pipelines.redaction import hide
from pipelines.settings.values import is_loopback
from transforms.errors import AuthenticationError, TransportError

TOKEN_HEADER = "X-STRINGEE-AUTH"  # noqa: S105
_LONGEST_RENEWAL_MARGIN_SECONDS = 60


def may_see_token(url: httpx.URL, base_url: httpx.URL, token_hosts: Sequence[str]) -> bool:
    """Whether ``url`` is at the configured address, or over https at one of ``token_hosts`` or a sub-domain of one."""
    if url.host == base_url.host:
        return url.scheme == "https" or (url.port == base_url.port and is_loopback(url.host))
    return url.scheme == "https" and any(url.host == host or url.host.endswith(f".{host}") for host in token_hosts)


class TokenAuth(httpx.Auth):
    """Holds the token of one account, for all threads.

    ``setting_names`` are the settings to look at when the API refuses the token.
    """

    setting_names: str

    def __init__(self, base_url: str, token_hosts: Sequence[str]) -> None:
        self._base_url = httpx.URL(base_url)
        self._token_hosts = tuple(token_hosts)
        self._lock = threading.RLock()
        self._token: str | None = None
        self._token_expires_at = float("inf")
        self._accepted = False
        self._refused: str | None = None

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Add the token to a request to a host that may see it; leave every other request without one."""
        if may_see_token(request.url, self._base_url, self._token_hosts):
            request.headers[TOKEN_HEADER] = self.token()
        yield request

    def token(self) -> str:
        """Return a valid token, a new one where there is none or it is about to expire.

        Raises AuthenticationError, without a request, once a login, or a first token and its renewal, was refused.
        """
        with self._lock:
            if self._refused:
                raise AuthenticationError(self._refused)
            if self._token is None or time.time() >= self._token_expires_at:
                try:
                    self._token, self._token_expires_at = self._new_token()
                    hide([self._token])
                except AuthenticationError as error:
                    self._refused = str(error)  # a wrong password tried by every thread may lock the account
                    raise
            return self._token

    def renew(self, rejected: str | None) -> None:
        """Drop the token that the API rejected, unless another thread has already done so."""
        with self._lock:
            if self._token == rejected:
                self._token = None

    def accepted(self) -> None:
        """Take note that the API accepted a token: the settings are right."""
        self._accepted = True

    def refused(self, said: str) -> AuthenticationError:
        """Return the error for a renewed token refused, too. Settings that never worked are not tried again."""
        message = f"{said}: the API refuses the credentials; check {self.setting_names}"
        with self._lock:
            if not self._accepted:
                self._refused = message
        return AuthenticationError(message)

    @abstractmethod
    def _new_token(self) -> tuple[str, float]:
        """Return a token and the epoch second from which on it is to be replaced."""


class KeyPairAuth(TokenAuth):
    """A token minted from an API key, as documented: HS256, ``cty`` ``stringee-api;v=1``, claim ``rest_api``."""

    setting_names = "STRINGEEX_API_KEY_SID and STRINGEEX_API_KEY_SECRET"

    def __init__(
        self, sid: str, secret: str, *, base_url: str, token_hosts: Sequence[str] = (), lifetime_seconds: int = 3600
    ) -> None:
        super().__init__(base_url, token_hosts)
        self._sid = sid
        self._secret = secret
        self._lifetime_seconds = lifetime_seconds

    def _new_token(self) -> tuple[str, float]:
        from pipelines.stringeex.signing import signed_token

        now = int(time.time())
        expires_at = now + self._lifetime_seconds
        claims = {
            "jti": f"{self._sid}-{now}-{secrets.token_hex(4)}",
            "iss": self._sid,
            "exp": expires_at,
            "rest_api": True,
        }
        payload = json.dumps(claims, separators=(",", ":")).encode()
        return signed_token(payload, self._secret), expires_at - min(
            _LONGEST_RENEWAL_MARGIN_SECONDS, self._lifetime_seconds / 10
        )


class PortalLoginAuth(TokenAuth):
    """A token got by logging in with e-mail and password.

    ``log_in`` carries the JSON body of the login to the API and returns what the envelope carries. It raises
    AuthenticationError where the API refuses the login.
    """

    setting_names = "STRINGEEX_EMAIL, STRINGEEX_PASSWORD and STRINGEEX_PORTAL"

    def __init__(
        self,
        email: str,
        password: str,
        portal: str | None,
        *,
        log_in: Callable[[dict[str, str]], Any],
        base_url: str,
        token_hosts: Sequence[str] = (),
    ) -> None:
        super().__init__(base_url, token_hosts)
        self._email = email
        self._password = password
        self._portal = portal
        self._log_in = log_in

    def _new_token(self) -> tuple[str, float]:
        answer = self._log_in({"email": self._email, "password": self._password})
        portals = answer.get("portals") if isinstance(answer, dict) else None
        if not isinstance(portals, list) or not all(_token_of(portal) for portal in portals):
            raise TransportError("the login was answered without a list of portals and their tokens")
        wanted = [portal for portal in portals if self._portal is None or self._portal in _names_of(portal)]
        if len(wanted) != 1:
            names = ", ".join("/".join(_names_of(portal)) or "(no name)" for portal in portals) or "none"
            raise AuthenticationError(
                f"this login has {len(portals)} portals, and STRINGEEX_PORTAL names {len(wanted)} of them: "
                f"set it to one of: {names}"
                if self._portal
                else f"this login has {len(portals)} portals: set STRINGEEX_PORTAL to one of: {names}"
            )
        return _token_of(wanted[0]), float("inf")


def _token_of(portal: Any) -> str:
    token = portal.get("auth_token") if isinstance(portal, dict) else None
    return token if isinstance(token, str) else ""


def _names_of(portal: dict[str, Any]) -> list[str]:
    """Whatever may tell a portal from another: the keys beside ``auth_token`` are not published."""
    keys = ("portal", "portal_id", "portalId", "id", "name", "portal_name", "domain", "subdomain", "project_id")
    return [str(portal[key]) for key in keys if isinstance(portal.get(key), str | int)]
