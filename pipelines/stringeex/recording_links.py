"""Where a recording may be fetched from, and who may see the token on the way.

The call history's ``record_path`` is data, and so is where a server redirects to: neither decides whom we talk to.
The rules, in order: https only; a host that may see the token (`may_see_token`), or one of
``STRINGEEX_RECORDING_HOSTS``, which is asked without it; and no address inside a private network. The configured host
itself is the user's own word. Plain http is for a portal on this machine, talking to this machine.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from ipaddress import ip_address

import httpx

from pipelines.settings import Settings
from pipelines.settings.values import is_loopback
from pipelines.stringeex.auth import may_see_token
from transforms.errors import DataError


class RefusedLinkError(DataError):
    """A link or a redirect leads to where we do not go; the message names the host, never the rest of it."""


def recording_url(record_path: str | None, settings: Settings) -> httpx.URL | None:
    """Return the address that ``record_path`` gives, or null where the API's own operation is the way.

    An ``http`` link is taken as ``https``, for the redirect that would follow shows the token to whoever listens.
    Raises RefusedLinkError.
    """
    path = (record_path or "").strip()
    if path.startswith("/") and not path.startswith("//"):
        return _parsed(f"{settings.base_url}{path}")
    if "://" not in path and not path.startswith("//"):
        return None
    return allowed(_parsed(f"https:{path}" if path.startswith("//") else path), settings)


def redirect_target(response: httpx.Response, settings: Settings) -> httpx.URL:
    """Return where ``response`` redirects to, if the same rules allow it; raises RefusedLinkError."""
    try:
        target = response.url.join(response.headers.get("location", ""))
    except (httpx.InvalidURL, ValueError) as error:
        raise RefusedLinkError("the recording is redirected to an address that is none") from error
    return allowed(target, settings)


def allowed(url: httpx.URL, settings: Settings) -> httpx.URL:
    """Return ``url``, over https, if a recording may be fetched from there; raises RefusedLinkError."""
    base = httpx.URL(settings.base_url)
    on_this_machine = is_loopback(url.host) and is_loopback(base.host)
    if url.scheme == "http" and not on_this_machine:
        url = url.copy_with(scheme="https", port=None if url.port == 80 else url.port)
    if url.scheme != "https" and not on_this_machine:
        raise RefusedLinkError(f"the recording's link is no https link, but {url.scheme or 'nothing'}:")
    if url.userinfo:
        raise RefusedLinkError(f"the recording's link to host {url.host} holds a user name; it is not followed")
    listed = any(url.host == host or url.host.endswith(f".{host}") for host in settings.recording_hosts)
    if not listed and not may_see_token(url, base, settings.token_hosts):
        raise RefusedLinkError(
            f"the recording is at host {url.host}, which is not one to fetch from: if it should be, add it to "
            "STRINGEEX_RECORDING_HOSTS (asked without the token)"
        )
    if url.host != base.host and not on_this_machine and _is_private(url):
        raise RefusedLinkError(f"the recording's link to host {url.host} leads into a private network")
    return url


def _parsed(text: str) -> httpx.URL:
    try:
        return httpx.URL(text)
    except (httpx.InvalidURL, ValueError) as error:
        raise RefusedLinkError("the recording's link is no address") from error


def _is_private(url: httpx.URL) -> bool:
    """Whether the host is, or has, an address that is not of the public internet."""
    with suppress(ValueError):  # it is a name
        return not ip_address(url.host).is_global
    try:
        found = socket.getaddrinfo(url.host, url.port or 443, type=socket.SOCK_STREAM)
    except OSError:
        # Unknown here, as behind a proxy: then nothing on this side is reached by that name either.
        return False
    return any(not ip_address(str(address[0]).partition("%")[0]).is_global for *_, address in found)
