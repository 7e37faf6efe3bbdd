"""Every fault does what its name says, to those it is meant for, as often as it should."""

from __future__ import annotations

import gzip
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from emulating import IMAGE, TOKEN, VIDEO, Provider, emulating, until

from backend.core.errors import SettingsError
from backend.emulator.kit import faults

TINY_START = "data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAACAkQBADs="


@pytest.fixture(scope="module")
def shared() -> Iterator[Provider]:
    with emulating() as provider:
        yield provider


@pytest.fixture
def provider(shared: Provider) -> Iterator[Provider]:
    httpx.delete(f"{shared.server.origin}/emulator/ledger")
    yield shared
    httpx.delete(f"{shared.server.origin}/emulator/faults")


def answered(provider: Provider, **more: Any) -> tuple[int, int]:
    """The status of a create, and how many predictions there are after it."""
    status = provider.create(**more).status_code
    return status, sum(entry["created"] for entry in provider.ledger["creates"])


@pytest.mark.parametrize("status", [401, 402, 422, 429, 500, 502, 503])
def test_a_create_can_be_refused_with_nothing_created(provider: Provider, status: int) -> None:
    provider.spoil({"kind": f"create_{status}", "times": 1})
    assert answered(provider) == (status, 0)
    assert answered(provider) == (201, 1)


def test_a_429_tells_when_to_come_back(provider: Provider) -> None:
    provider.spoil({"kind": "create_429", "retry_after": 7, "in_header": True})
    answer = provider.create()
    assert (answer.json()["retry_after"], answer.headers["retry-after"]) == (7, "7")
    assert "~7s" in answer.json()["detail"]
    provider.spoil({"kind": "create_429", "in_body": False})
    assert "retry_after" not in provider.create().json()


def test_a_5xx_can_hide_a_created_prediction(provider: Provider) -> None:
    provider.spoil({"kind": "create_500_after", "status": 504})
    assert answered(provider) == (504, 1)


@pytest.mark.parametrize(("kind", "created"), [("reset_before", False), ("reset_after", True)])
def test_a_reset_is_a_real_one(provider: Provider, kind: str, created: bool) -> None:
    provider.spoil({"kind": kind})
    where = urlsplit(provider.server.origin)
    body = b'{"input": {"prompt": "x"}}'
    with socket.create_connection((where.hostname, where.port)) as raw:
        raw.sendall(
            f"POST /v1/models/{IMAGE}/predictions HTTP/1.1\r\nHost: {where.netloc}\r\n"
            f"Authorization: Bearer {TOKEN}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        with pytest.raises(ConnectionResetError):
            raw.recv(1)
    entry = provider.ledger["creates"][-1]
    assert (entry["created"], entry["answered"]) == (created, False)
    assert (entry["prediction_id"] is not None) is created


def test_a_create_can_hang_although_it_was_created(provider: Provider) -> None:
    provider.spoil({"kind": "create_hang", "delay_s": 30})
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(
            f"{provider.server.origin}/v1/models/{IMAGE}/predictions",
            json={"input": {"prompt": "x"}},
            headers={"authorization": f"Bearer {TOKEN}"},
            timeout=0.5,
        )
    entry = provider.ledger["creates"][-1]
    assert (entry["created"], entry["answered"]) == (True, False)


def test_a_create_can_answer_with_broken_json(provider: Provider) -> None:
    provider.spoil({"kind": "create_bad_json"})
    answer = provider.create()
    assert answer.status_code == 201
    with pytest.raises(ValueError):
        answer.json()


@pytest.mark.parametrize("stage", ["create", "get", "list", "output"])
def test_a_delay_delays_its_stage(provider: Provider, stage: str) -> None:
    done = provider.made()
    calls = {
        "create": provider.create,
        "get": lambda: provider.get(done["id"]),
        "list": lambda: provider.http.get("/predictions"),
        "output": lambda: provider.download(done["output"]),
    }
    provider.spoil({"kind": "delay", "on": stage, "delay_s": 0.3})
    began = time.monotonic()
    calls[stage]()
    assert time.monotonic() - began >= 0.3


def test_a_delayed_run_stays_starting(provider: Provider) -> None:
    provider.spoil({"kind": "delay", "delay_s": 0.5})
    made = provider.create().json()
    assert provider.get(made["id"])["status"] == "starting"
    assert provider.ended(made["id"])["status"] == "succeeded"


@pytest.mark.parametrize("status", ["failed", "canceled", "aborted"])
def test_a_run_can_end_badly(provider: Provider, status: str) -> None:
    provider.spoil({"kind": status})
    assert provider.made()["status"] == status


def test_a_failure_has_its_text(provider: Provider) -> None:
    provider.spoil({"kind": "failed", "error": "Prediction interrupted; please retry (code: PA)"})
    assert provider.made()["error"] == "Prediction interrupted; please retry (code: PA)"


def test_an_unknown_status_passes_or_stays(provider: Provider) -> None:
    provider.spoil({"kind": "unknown_status", "forever": True, "match": {"prompt_contains": "stay"}})
    stays = provider.create("stay").json()["id"]
    until(lambda: provider.get(stays)["status"] == "resuming")
    provider.spoil({"kind": "unknown_status", "status": "queued_again"})
    assert provider.made()["status"] == "succeeded"


def test_a_stuck_one_never_ends(provider: Provider) -> None:
    provider.spoil({"kind": "stuck"})
    id = provider.create().json()["id"]
    provider.spoil()
    provider.made()
    assert provider.get(id)["status"] == "processing"


@pytest.mark.parametrize("status", [500, 404, 429])
def test_a_get_can_fail_once(provider: Provider, status: int) -> None:
    id = provider.made()["id"]
    provider.spoil({"kind": f"get_{status}", "times": 1})
    assert [provider.http.get(f"/predictions/{id}").status_code for _ in range(2)] == [status, 200]


def test_a_list_can_be_empty(provider: Provider) -> None:
    provider.made()
    provider.spoil({"kind": "list_empty", "times": 1})
    assert provider.http.get("/predictions").json()["results"] == []
    assert provider.http.get("/predictions").json()["results"] != []


def test_an_output_can_be_missing(provider: Provider) -> None:
    provider.spoil({"kind": "output_404", "times": 1})
    url = provider.made()["output"]
    assert [provider.download(url).status_code for _ in range(2)] == [404, 200]


def test_a_truncated_output_promises_its_whole_length(provider: Provider) -> None:
    url = provider.made()["output"]
    whole = provider.download(url).content
    provider.spoil({"kind": "output_truncated"})
    with httpx.stream("GET", url) as answer:
        assert int(answer.headers["content-length"]) == len(whole)
        with pytest.raises(httpx.RemoteProtocolError):
            answer.read()


def test_a_short_output_gives_no_sign_in_http(provider: Provider) -> None:
    url = provider.made()["output"]
    whole = provider.download(url).content
    provider.spoil({"kind": "output_short"})
    answer = provider.download(url)
    assert not {"content-length", "transfer-encoding"} & set(answer.headers)
    assert answer.content == whole[: len(whole) // 2]


def test_an_output_can_be_a_page_garbage_or_zipped(provider: Provider) -> None:
    url = provider.made()["output"]
    whole = provider.download(url).content
    provider.spoil({"kind": "output_html"})
    assert provider.download(url).headers["content-type"].startswith("text/html")
    provider.spoil({"kind": "output_garbage"})
    garbage = provider.download(url)
    assert (garbage.headers["content-type"], len(garbage.content)) == ("image/jpeg", len(whole))
    assert garbage.content != whole
    provider.spoil({"kind": "output_gzip"})
    with httpx.stream("GET", url, headers={"accept-encoding": "identity"}) as answer:
        assert gzip.decompress(b"".join(answer.iter_raw())) == whole


def test_an_endless_output_goes_on_until_it_is_left(provider: Provider) -> None:
    url = provider.made()["output"]
    provider.spoil({"kind": "output_huge"})
    got = 0
    with httpx.stream("GET", url) as answer:
        for piece in answer.iter_raw():
            got += len(piece)
            if got > 50 << 20:
                break
    assert provider.get(urlsplit(url).path.split("/")[2])["status"] == "succeeded"


def test_a_slow_output_drips(provider: Provider) -> None:
    url = provider.made()["output"]
    whole = provider.download(url).content
    provider.spoil({"kind": "output_slow", "bytes_per_s": len(whole) * 2})
    began = time.monotonic()
    assert provider.download(url).content == whole
    assert time.monotonic() - began > 0.3


def test_what_stands_in_output_can_be_bent(provider: Provider) -> None:
    provider.spoil({"kind": "output_other_host", "url": "https://evil.example/x.png"})
    assert provider.made()["output"] == "https://evil.example/x.png"
    provider.spoil({"kind": "output_list"})
    assert isinstance(provider.made()["output"], list)
    provider.spoil({"kind": "output_empty"})
    assert provider.made()["output"] is None
    provider.spoil({"kind": "output_empty", "value": []})
    assert provider.made()["output"] == []
    provider.spoil({"kind": "output_data_uri"})
    assert provider.made()["output"].startswith("data:image/jpeg;base64,/9j/")


def test_a_video_can_be_a_picture(provider: Provider) -> None:
    provider.spoil({"kind": "output_wrong_kind"})
    output = provider.made(model=VIDEO, start_image=TINY_START)["output"]
    assert provider.download(output).content.startswith(b"\x89PNG")


def test_a_fault_strikes_only_whom_and_when_it_should(provider: Provider) -> None:
    provider.spoil({"kind": "create_500", "match": {"model": VIDEO}})
    assert provider.create().status_code == 201
    provider.spoil({"kind": "create_500", "match": {"prompt_contains": "bad"}, "times": 1})
    assert [provider.create(p).status_code for p in ("good", "bad", "bad")] == [201, 500, 201]
    provider.spoil({"kind": "create_500", "match": {"nth": 2}})
    assert [provider.create().status_code for _ in range(3)] == [201, 500, 201]
    provider.spoil({"kind": "create_500", "match": {"every": 2}})
    assert [provider.create().status_code for _ in range(4)] == [201, 500, 201, 500]


@pytest.mark.parametrize(
    "wrong",
    [
        "reset",
        {"kind": "nothing"},
        {"kind": "stuck", "x": 1},
        {"kind": "stuck", "match": {"x": 1}},
        {"kind": "stuck", "match": []},
        {"kind": "stuck", "times": 0},
        {"kind": "stuck", "match": {"every": 0}},
        {"kind": "delay", "on": "monday"},
        {"kind": "delay", "delay_s": "long"},
        {"kind": []},
    ],
)
def test_a_fault_nobody_knows_is_refused_and_the_old_ones_stay(provider: Provider, wrong: Any) -> None:
    provider.spoil({"kind": "create_503"})
    assert provider.spoil(wrong).status_code == 422
    assert provider.create().status_code == 503


def test_faults_are_shown_with_their_counts(provider: Provider) -> None:
    provider.spoil({"kind": "create_503", "times": 1})
    provider.create()
    provider.create()
    shown = httpx.get(f"{provider.server.origin}/emulator/faults").json()["faults"]
    assert [(fault["kind"], fault["seen"], fault["struck"]) for fault in shown] == [("create_503", 2, 1)]
    assert provider.spoil(*shown).status_code == 200


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("f.toml", '[[faults]]\nkind = "stuck"\ntimes = 2\n[faults.match]\nnth = 3\n'),
        ("f.json", '[{"kind": "stuck", "times": 2, "match": {"nth": 3}}]'),
        ("f.json", '{"faults": [{"kind": "stuck", "times": 2, "match": {"nth": 3}}]}'),
    ],
)
def test_faults_come_from_toml_or_json(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    assert faults.load(path) == [{"kind": "stuck", "times": 2, "match": {"nth": 3}}]


@pytest.mark.parametrize(("name", "text"), [("f.toml", "["), ("f.json", "{}"), ("none", None)])
def test_an_unreadable_faults_file_is_a_settings_error(tmp_path: Path, name: str, text: str | None) -> None:
    path = tmp_path / name
    if text is not None:
        path.write_text(text)
    with pytest.raises(SettingsError):
        faults.load(path)
