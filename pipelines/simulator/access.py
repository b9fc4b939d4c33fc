"""Who may ask: signed tokens and portal logins, checked for real.

The credentials are constants of the simulated portal and open nothing else.
"""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass
from typing import Any

import jwt


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a client needs to know to get in, one way or the other."""

    api_key_sid: str = "SKsimulated"
    api_key_secret: str = "simulated-secret-that-opens-nothing-else"  # noqa: S105 - opens nothing else
    email: str = "admin@example.com"
    password: str = "simulated-password"  # noqa: S105 - opens nothing else


CREDENTIALS = Credentials()


class Access:
    """Issues login tokens and tells whether a token is good. The caller serialises access."""

    def __init__(self, credentials: Credentials = CREDENTIALS, portal_count: int = 1) -> None:
        self.credentials = credentials
        self.portal_count = portal_count
        self.login_token_seconds = 24 * 3600.0
        self._revoked: set[str] = set()
        self._good_until: dict[str, float] = {}

    def problem(self, token: str | None) -> str | None:
        """Return why a token does not open the door, or None when it does."""
        if not token:
            return "access token is missing"
        if token in self._revoked:
            return "access token is revoked"
        if self._good_until.get(token, 0.0) > time.time():
            return None
        return "access token is expired" if token in self._good_until else self._jwt_problem(token)

    def _jwt_problem(self, token: str) -> str | None:
        try:
            header = jwt.get_unverified_header(token)
            claims: dict[str, Any] = jwt.decode(
                token, self.credentials.api_key_secret, algorithms=["HS256"], options={"require": ["jti", "iss", "exp"]}
            )
        except jwt.ExpiredSignatureError:
            return "access token is expired"
        except jwt.PyJWTError as error:
            return f"access token is invalid: {type(error).__name__}"
        if header.get("cty") != "stringee-api;v=1" or header.get("typ") != "JWT":
            return "access token is invalid: header cty or typ"
        if claims["iss"] != self.credentials.api_key_sid:
            return "access token is invalid: unknown iss"
        if claims.get("rest_api") is not True:
            return "access token is not a rest_api token"
        self._good_until[token] = claims["exp"]
        return None

    def login(self, email: object, password: object) -> list[dict[str, Any]] | None:
        """Return the account's portals, each with a fresh token, or None when the login is wrong."""
        if (email, password) != (self.credentials.email, self.credentials.password):
            return None
        portals = []
        for number in range(1, self.portal_count + 1):
            token = secrets.token_urlsafe(24)
            self._good_until[token] = time.time() + self.login_token_seconds
            portals.append({"id": f"PTSIMULATED{number}", "name": f"portal{number}", "auth_token": token})
        return portals

    def revoke_tokens(self) -> None:
        """Refuse from now on every token that was ever good; new ones are welcome."""
        self._revoked |= self._good_until.keys()
