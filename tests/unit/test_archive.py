"""Names in the archive, links to recordings, and how long a drain takes."""

from __future__ import annotations

import socket
from datetime import date

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.recordings.pace import Pace
from pipelines.settings import Settings, load_settings
from pipelines.stringeex.recording_links import RefusedLinkError, recording_url, redirect_target
from sinks.archive import archive_path, safe_name

ids = st.one_of(
    st.text(st.characters(exclude_categories=[]), min_size=1, max_size=300),
    st.from_regex(r"[Cc]all-[vV]n-1-[A-Za-z0-9]{1,3}-[0-9]{1,3}", fullmatch=True),
)


@given(ids)
def test_a_name_is_harmless_everywhere(call_id: str) -> None:
    name = safe_name(call_id)
    assert name.isascii()
    assert all(character.isalnum() or character in "-_~" for character in name)
    assert len(name) <= 120
    assert archive_path(call_id, date(2026, 1, 5), "wav") == f"call_date=2026-01-05/{name}.wav"


@given(ids, ids)
def test_two_calls_never_share_a_name_even_where_case_does_not_count(one: str, other: str) -> None:
    assert (safe_name(one).casefold() == safe_name(other).casefold()) == (one == other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("call-vn-1-ABC-1", "call-vn-1-abc-1"),
        ("call-vn-1-ABC-1", "CALL-VN-1-ABC-1"),
        ("a/b", "a_b"),
        ("a/b", "a\\b"),
        ("../x", "..\\x"),
        ("x\0", "x"),
        ("\ud800", "\udfff"),
        ("caf\u00e9", "cafe\u0301"),
        ("x" * 300, "x" * 299),
    ],
)
def test_ids_that_look_alike_stay_apart(one: str, other: str) -> None:
    assert safe_name(one).casefold() != safe_name(other).casefold()


def test_the_providers_own_ids_are_kept() -> None:
    assert safe_name("call-vn-1-ZZBSRU9TFD-1626628149854") == "call-vn-1-ZZBSRU9TFD-1626628149854"


@pytest.fixture(autouse=True)
def names_of_the_internet(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name service that needs no network, and has been tampered with in one place."""

    def resolve(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        address = "10.1.2.3" if host == "inside.stringee.com" else "1.1.1.1"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)


def settings(base_url: str = "https://api.stringeex.com", **overrides: str) -> Settings:
    return load_settings(None, require_api=False, overrides={"STRINGEEX_BASE_URL": base_url, **overrides})


@pytest.mark.parametrize(
    ("record_path", "expected"),
    [
        (None, None),
        ("", None),
        ("2026/01/call.wav", None),
        ("/v1/call/recording/x", "https://api.stringeex.com/v1/call/recording/x"),
        ("https://asia-3.api.stringee.com/r/x?sig=1", "https://asia-3.api.stringee.com/r/x?sig=1"),
        ("//asia-3.api.stringee.com/r/x", "https://asia-3.api.stringee.com/r/x"),
        ("http://asia-3.api.stringee.com/r/x", "https://asia-3.api.stringee.com/r/x"),
        ("http://asia-3.api.stringee.com:80/r/x", "https://asia-3.api.stringee.com/r/x"),
        ("https://media.files.example.com/x.mp3", "https://media.files.example.com/x.mp3"),
    ],
)
def test_where_a_recording_is_fetched_from(record_path: str | None, expected: str | None) -> None:
    url = recording_url(record_path, settings(STRINGEEX_RECORDING_HOSTS="files.example.com"))
    assert (url and str(url)) == expected


@pytest.mark.parametrize(
    "record_path",
    [
        "https://evilstringee.com/x",
        "https://stringee.com.evil.example/x",
        "https://evil.example/stringee.com",
        "https://stringee.com@evil.example/x",
        "https://user:secret@api.stringee.com/x",
        "https://evilfiles.example.com/x",
        "ftp://api.stringee.com/x",
        "file:///etc/passwd",
        "http://127.0.0.1/x",
        "https://10.0.0.1/x",
        "https://169.254.169.254/latest/meta-data",
        "https://[::1]/x",
        "https://inside.stringee.com/x",
        "https://192.168.1.7/x",
        "https://[/x",
    ],
)
def test_where_no_recording_is_fetched_from(record_path: str) -> None:
    listed = settings(STRINGEEX_RECORDING_HOSTS="files.example.com,192.168.1.7")
    with pytest.raises(RefusedLinkError) as caught:
        recording_url(record_path, listed)
    assert "secret" not in str(caught.value)
    request = httpx.Request("GET", "https://api.stringeex.com/v1/call/recording/x")
    redirect = httpx.Response(302, headers={"Location": record_path}, request=request)
    with pytest.raises(RefusedLinkError):
        redirect_target(redirect, listed)


def test_a_portal_on_this_machine_may_point_to_this_machine_only_where_that_is_listed() -> None:
    portal = "http://127.0.0.1:4711"
    with pytest.raises(RefusedLinkError):
        recording_url("http://127.0.0.1:4712/x", settings(portal))
    with pytest.raises(RefusedLinkError):
        recording_url("http://10.0.0.1/x", settings(portal, STRINGEEX_RECORDING_HOSTS="10.0.0.1"))
    listed = settings(portal, STRINGEEX_RECORDING_HOSTS="127.0.0.1,localhost")
    for link in ("http://127.0.0.1:4712/x", "http://localhost:4712/x"):
        assert str(recording_url(link, listed)) == link


def test_the_rest_takes_as_long_as_it_did_so_far_and_no_less_than_the_limits() -> None:
    now = [0.0]
    unlimited, limited = (Pace(100, minute, hour, lambda: now[0]) for minute, hour in ((0, 0), (30, 9_000)))
    assert unlimited.eta_seconds() is None
    assert limited.eta_seconds() == 200
    unlimited.done = limited.done = 10
    now[0] = 1.0
    assert unlimited.eta_seconds() == 9
    assert limited.eta_seconds() == 180
    now[0] = 100.0
    assert limited.eta_seconds() == 900
    assert Pace(100, 0, 3_600, lambda: 0.0).eta_seconds() == 100
