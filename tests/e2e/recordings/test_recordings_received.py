"""One recording on its way: cuts, redirects, tokens, and what is no recording."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.simulator import Portal, SimulatedPortal
from pipelines.simulator import faults as fault
from pipelines.simulator.audio import recording
from pipelines.simulator.wire import Request
from tests.archives import archived_at, other_host, recordings_of, serve
from tests.e2e.recordings.portals import add_call


def test_a_cut_is_resumed_where_the_server_takes_ranges(
    portal: Portal, server: SimulatedPortal, tmp_path: Path
) -> None:
    add_call(portal, talk_duration=300, duration=300)
    archived = archived_at(server.base_url, tmp_path)
    archived.export()
    portal.faults.append(fault.Cut(operation="download_recording", count=2))
    summary = archived.run()
    assert [entry.status for entry in portal.log if entry.operation == "download_recording"] == [200, 206, 206]
    assert summary.bytes == len(recording("call-vn-1-AAAAAAAAAA-1", 300)), "nothing was received twice"
    archived.check_every_recording(recordings_of(portal))


@pytest.mark.parametrize("first_byte", [b"{", b"["])
def test_a_rest_that_begins_like_an_envelope_is_a_rest(
    portal: Portal, server: SimulatedPortal, tmp_path: Path, first_byte: bytes
) -> None:
    ids = (f"call-vn-1-AAAAAAAAAA-{number}" for number in range(10_000))
    call_id = next(name for name in ids if (audio := recording(name, 31))[len(audio) // 2 :].startswith(first_byte))
    add_call(portal, call_id, talk_duration=31, duration=31)
    archived = archived_at(server.base_url, tmp_path)
    archived.export()
    portal.faults.append(fault.Cut(operation="download_recording", count=1))
    assert archived.run().archived == 1
    assert [entry.status for entry in portal.log if entry.operation == "download_recording"] == [200, 206]
    archived.check_every_recording(recordings_of(portal))


@pytest.mark.parametrize("honours_if_range", [True, False])
def test_a_recording_that_changes_between_two_parts_is_never_a_mixture(
    portal: Portal, server: SimulatedPortal, tmp_path: Path, honours_if_range: bool
) -> None:
    add_call(portal, talk_duration=300, duration=300)
    archived = archived_at(server.base_url, tmp_path)
    archived.export()
    portal.options.honours_if_range = honours_if_range

    def change(portal: Portal, request: Request) -> None:
        portal.options.recording_format = "mp3"

    is_rest = fault.Hook(operation="download_recording", action=change, when=lambda request: "range" in request.headers)
    portal.faults += [fault.Cut(operation="download_recording", count=1), is_rest]
    assert archived.run().archived == 1
    assert {name: audio for name, audio in archived.files().items() if not name.endswith(".json")} == {
        "call_date=2026-01-05/call-vn-1-AAAAAAAAAA-1.mp3": recording("call-vn-1-AAAAAAAAAA-1", 300, "mp3")
    }


def test_parts_whose_whole_size_is_not_told_are_put_together(
    portal: Portal, server: SimulatedPortal, tmp_path: Path
) -> None:
    add_call(portal, talk_duration=300, duration=300)
    archived = archived_at(server.base_url, tmp_path)
    archived.export()
    portal.options.range_says_total = False
    portal.faults.append(fault.Cut(operation="download_recording", count=2))
    assert archived.run().archived == 1
    archived.check_every_recording(recordings_of(portal))


def test_a_server_that_gives_only_so_much_of_a_range_is_asked_for_the_next_piece(
    portal: Portal, server: SimulatedPortal, tmp_path: Path
) -> None:
    add_call(portal, talk_duration=300, duration=300)
    archived = archived_at(server.base_url, tmp_path)
    archived.export()
    portal.options.most_bytes_per_range = 20_000
    portal.faults.append(fault.Cut(operation="download_recording", count=1))
    summary = archived.run()
    assert summary.bytes == len(recording("call-vn-1-AAAAAAAAAA-1", 300)), "nothing was received twice"
    assert summary.requests == 9
    archived.check_every_recording(recordings_of(portal))


def test_a_rest_is_fetched_where_a_redirect_leads(portal: Portal, server: SimulatedPortal, tmp_path: Path) -> None:
    add_call(portal, talk_duration=300, duration=300)
    archived = archived_at(server.base_url, tmp_path)
    archived.export()
    location = "/v1/call/recording/call-vn-1-AAAAAAAAAA-1?elsewhere=1"
    moved = fault.Redirect(
        operation="download_recording",
        location=location,
        when=lambda request: "range" in request.headers and "elsewhere" not in request.query_string,
    )
    portal.faults += [fault.Cut(operation="download_recording", count=1), moved]
    assert archived.run().archived == 1
    assert [entry.status for entry in portal.log if entry.operation == "download_recording"] == [200, 302, 206]
    archived.check_every_recording(recordings_of(portal))


def test_a_cut_starts_anew_where_the_server_takes_no_ranges(
    portal: Portal, server: SimulatedPortal, tmp_path: Path
) -> None:
    audio = recording("x", 10)
    answers = [serve(audio, cut_at=5_000), serve(audio)]
    with other_host(lambda handler: answers.pop(0)(handler)) as host:
        add_call(portal, record_path=f"{host.base_url}/x.wav")
        archived = archived_at(server.base_url, tmp_path, STRINGEEX_RECORDING_HOSTS="127.0.0.1")
        archived.export()
        assert archived.run().archived == 1
        assert [headers.get("range") for headers in host.seen] == [None, "bytes=5000-"]
    assert next(content for name, content in archived.files().items() if name.endswith(".wav")) == audio


def test_the_token_goes_to_the_portal_and_nowhere_else(portal: Portal, server: SimulatedPortal, tmp_path: Path) -> None:
    audio = recording("x", 10)
    with other_host(serve(audio)) as host:
        add_call(portal, "call-vn-1-LINK-1", record_path=f"{host.base_url}/a?signature=1")
        add_call(portal, "call-vn-1-REDIRECT-1")
        add_call(portal, "call-vn-1-OWN-1", record_path="/v1/call/recording/call-vn-1-OWN-1")
        add_call(portal, "call-vn-1-NOLINK-1", record_path=None)
        refusing = archived_at(server.base_url, tmp_path / "1")
        refusing.export()
        redirect = fault.Redirect(
            operation="download_recording",
            location=f"{host.base_url}/b",
            when=lambda request: "REDIRECT" in request.path,
        )
        portal.faults.append(redirect)
        summary = refusing.run()
        assert (summary.archived, summary.failed) == (2, 2)
        assert host.seen == []
        errors = {call_id: row["last_error"] for call_id, row in refusing.rows().items() if row["last_error"]}
        assert set(errors) == {"call-vn-1-LINK-1", "call-vn-1-REDIRECT-1"}
        assert all("STRINGEEX_RECORDING_HOSTS" in error and "signature" not in error for error in errors.values())

        allowing = archived_at(server.base_url, tmp_path / "2", STRINGEEX_RECORDING_HOSTS="127.0.0.1")
        allowing.export()
        assert allowing.run().archived == 4
        assert {headers[":path"] for headers in host.seen} == {"/a?signature=1", "/b"}
    assert all(entry.had_token for entry in portal.log if entry.operation == "download_recording")


@pytest.mark.parametrize(
    "location",
    [
        "http://10.0.0.1/x",
        "https://169.254.169.254/latest",
        "https://localhost/x",
        "//192.168.0.1/x",
        "ftp://127.0.0.1/x",
    ],
)
def test_a_redirect_leads_into_no_private_network(
    portal: Portal, server: SimulatedPortal, tmp_path: Path, location: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_call(portal)
    archived = archived_at(server.base_url, tmp_path, STRINGEEX_RECORDING_HOSTS="10.0.0.1,192.168.0.1,169.254.169.254")
    archived.export()
    portal.faults.append(fault.Redirect(operation="download_recording", location=location))
    assert archived.run().failed == 1
    assert portal.counts["download_recording"] == 1


def test_a_redirect_is_not_followed_for_ever(portal: Portal, server: SimulatedPortal, tmp_path: Path) -> None:
    add_call(portal)
    archived = archived_at(server.base_url, tmp_path)
    archived.export()
    portal.faults.append(
        fault.Redirect(operation="download_recording", location="/v1/call/recording/call-vn-1-AAAAAAAAAA-1")
    )
    assert archived.run().failed == 1
    assert portal.counts["download_recording"] == 5 * 6


@pytest.mark.parametrize(
    "what",
    [fault.Html(), fault.EmptyBody(), fault.InvalidJson(), fault.Envelope(), fault.Status(status=500), fault.Reset()],
    ids=lambda what: type(what).__name__,
)
def test_what_is_no_recording_is_not_archived(
    portal: Portal, server: SimulatedPortal, tmp_path: Path, what: fault.Fault
) -> None:
    add_call(portal)
    archived = archived_at(server.base_url, tmp_path)
    archived.export()
    what.operation = "download_recording"
    portal.faults.append(what)
    assert not archived.run().is_complete
    (row,) = archived.rows().values()
    assert row["status"] == "failed"
    assert archived.files() == {}


def test_text_is_refused_and_damaged_audio_waits_for_a_better_answer(
    portal: Portal, server: SimulatedPortal, tmp_path: Path
) -> None:
    audio = recording("x", 10)
    answers = {"/text": b"There is no such recording.", "/cut": audio[:-1], "/good": audio}
    with other_host(lambda handler: serve(answers[handler.path])(handler)) as host:
        for number, path in enumerate(answers):
            add_call(portal, f"call-vn-1-{number}-1", record_path=host.base_url + path)
        archived = archived_at(server.base_url, tmp_path, STRINGEEX_RECORDING_HOSTS="127.0.0.1")
        archived.export()
        archived.run()
    errors = [row["last_error"] for _, row in sorted(archived.rows().items())]
    assert ["no JSON" in errors[0], "cut short" in errors[1], errors[2]] == [True, True, None]
    assert len(archived.files()) == 2


def test_hostile_call_ids_stay_inside_and_apart(portal: Portal, server: SimulatedPortal, tmp_path: Path) -> None:
    hostile = [
        "../../../etc/passwd",
        "a/b",
        "a\\b",
        "x" * 300,
        "X" * 300,
        "Gọi đi 📞",
        "con",
        "%2e%2e%2f",
        "a?b#c",
        " . ",
    ]
    for call_id in hostile:
        add_call(portal, call_id, record_path=None)
    archived = archived_at(server.base_url, tmp_path / "deep" / "deeper")
    archived.export()
    assert archived.run().is_complete
    rows = archived.rows()
    assert len({row["archive_path"].casefold() for row in rows.values()}) == len(hostile)
    root = tmp_path / "deep" / "deeper" / "recordings"
    assert {path.parent for path in tmp_path.rglob("*.wav")} == {root / "call_date=2026-01-05"}
    for call_id, row in rows.items():
        assert (root / row["archive_path"]).read_bytes() == recording(call_id, 10)
