"""The Python client where no service is needed: its parser, its answers, its manners."""

from __future__ import annotations

import asyncio
import itertools
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from calling import CLIENTS, LoopThread
from hypothesis import given
from hypothesis import strategies as st
from peers import Peer, answering, listening, read_request

import reelhook
from reelhook import _calls, models
from reelhook._sse import LONGEST, Message, Parser
from reelhook.errors import sentence

ROOT = Path(__file__).parent.parent
GENERATION = {
    "id": "01900000-0000-7000-8000-000000000001",
    "kind": "image",
    "status": "completed",
    "stage": "completed",
    "client_id": "c",
    "campaign_id": "d",
    "provider": "replicate",
    "model": "google/nano-banana",
    "created_at": "2026-11-21T09:44:03.002Z",
    "completed_at": "2026-11-21T09:44:09.002Z",
    "error": None,
    "bytes": 3,
    "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",  # of "abc"
}
STREAM = (
    "\ufeff: hello\r\n\r\nretry: 2000\r\nid: 1\r\nevent: a\r\ndata: one\r\ndata:two\r\n\r\n"
    "id: 2\rdata: {\u2028}\r\r"
    "data: no id of its own\n\n: beat\n\nnonsense\nid: 3\n\ndata\n\nid: 4\nevent: cut\ndata: lost"
)


def reply(body: object, status: str = "200 OK", *headers: str) -> bytes:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(content)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + content


@contextmanager
def served(peer: Peer) -> Iterator[str]:
    """The peer in a loop of its own thread."""
    there = listening(peer)
    with closing(LoopThread()) as loop:
        yield loop.run(there.__aenter__())
        loop.run(there.__aexit__(None, None, None))


def in_turn(*answers: bytes) -> tuple[Peer, list[tuple[str, bytes]]]:
    """A peer that gives one answer after the other, each on a line of its own; and what it was asked."""
    left, seen = list(answers), []

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await read_request(reader))
        writer.write(left.pop(0) if len(left) > 1 else left[0])
        await writer.drain()

    return peer, seen


@pytest.fixture(params=CLIENTS)
def client_of(request: pytest.FixtureRequest) -> Iterator[Any]:
    made = []

    def make(url: str, key: str = "sk_secret", **more: Any) -> Any:
        made.append(CLIENTS[request.param](url, key, **more))
        return made[-1]

    yield make
    for each in made:
        each.close()


@given(st.lists(st.integers(0, len(STREAM.encode())), max_size=12))
def test_events_are_the_same_wherever_the_chunks_are_cut(cuts: list[int]) -> None:
    content, parser = STREAM.encode(), Parser()
    edges = [0, *sorted(cuts), len(content)]
    found = [each for a, b in itertools.pairwise(edges) for each in parser.feed(content[a:b])]
    assert found == [
        Message("a", "one\ntwo", "1"),
        Message("message", "{\u2028}", "2"),
        Message("message", "no id of its own", None),
        Message("message", "", None),
    ]
    assert parser.last_id == "3"  # an id without data counts; that of a message cut short does not


def test_an_event_without_end_is_refused_and_a_stream_of_beats_is_not() -> None:
    parser = Parser()
    with pytest.raises(reelhook.BadAnswer):
        for _ in range(LONGEST // 1000 + 1):
            parser.feed(b"x" * 1000)
    parser = Parser()
    with pytest.raises(reelhook.BadAnswer):
        for _ in range(LONGEST // 500):
            parser.feed(b"data: " + b"x" * 1000 + b"\n")
    parser = Parser()
    for _ in range(LONGEST // 4000):
        assert parser.feed(b": beat\n" * 1000) == []


def test_a_newer_service_may_say_more_and_an_older_one_less() -> None:
    made = models.generation(GENERATION | {"mood": "blue", "error": None})
    assert (made.bytes, made.width, made.metadata, made.raw["mood"]) == (3, None, {}, "blue")
    assert made.created_at == datetime(2026, 11, 21, 9, 44, 3, 2000, tzinfo=UTC)
    failed = models.generation(GENERATION | {"error": {"code": "moderated", "message": "No.", "hint": "?"}})
    assert failed.error == reelhook.Failure("moderated", "No.")
    warning = {"id": "e", "type": "budget.warning", "created_at": GENERATION["created_at"], "data": {"share": 0.8}}
    assert models.event(warning).generation is None


def test_a_problem_becomes_one_sentence_with_its_fields() -> None:
    fields = [{"field": "prompt", "message": "too long"}, {"field": "copies", "message": "at most 4"}]
    assert sentence({"detail": "Some fields are not valid.", "errors": fields}) == (
        "Some fields are not valid: prompt: too long; copies: at most 4"
    )
    assert sentence({"detail": "prompt: too long", "errors": fields[:1]}) == "prompt: too long"
    assert sentence({}) == sentence({"errors": 7}) == "the service refused the request"


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, reelhook.InvalidRequest),
        (401, reelhook.Unauthorized),
        (402, reelhook.BudgetExceeded),
        (403, reelhook.Forbidden),
        (404, reelhook.NotFound),
        (409, reelhook.Conflict),
        (418, reelhook.ApiError),
        (422, reelhook.InvalidRequest),
        (429, reelhook.RateLimited),
        (500, reelhook.Unavailable),
    ],
)
def test_each_refusal_has_its_class_and_all_that_was_said(status: int, kind: type, client_of: Any) -> None:
    fields = [{"field": "prompt", "message": "too long"}]
    problem = {"title": "No", "detail": "It is wrong.", "code": "c", "request_id": "r", "errors": fields}
    with served(answering(reply(problem, f"{status} No"))) as url, pytest.raises(reelhook.ApiError) as caught:
        client_of(url).generation("x")
    error = caught.value
    assert type(error) is kind
    assert (error.status, error.code, error.title, error.detail) == (status, "c", "No", "It is wrong.")
    assert (error.errors, error.request_id) == (fields, "r")


@pytest.mark.parametrize(
    "answer",
    [
        reply(b"<html>"),
        reply([]),
        reply({"id": "x"}),
        reply(b"{" * 100_000),
        reply(GENERATION | {"created_at": "soon"}),
        reply(b"", "302 Found", "Location: http://127.0.0.1:9/"),
    ],
    ids=["html", "list", "fields", "deep", "time", "redirect"],
)
def test_what_is_not_reelhook_is_told_as_that(answer: bytes, client_of: Any) -> None:
    with served(answering(answer)) as url, pytest.raises(reelhook.BadAnswer, match="is it Reelhook"):
        client_of(url).generation("x")


def test_a_call_is_sent_again_under_the_same_key_until_it_is_answered(client_of: Any) -> None:
    later = reply({"detail": "later"}, "503 No", "Retry-After: 0")
    peer, seen = in_turn(b"", later, b"HTTP/1.1 20", reply(GENERATION, "202 Accepted"))
    with served(peer) as url:
        client_of(url).generate_image(campaign_id="d", prompt="a fox")
        client_of(url).generate_image(campaign_id="d", prompt="a fox")
    keys = [line for head, _ in seen for line in head.split("\r\n") if line.startswith("idempotency-key")]
    assert len(keys) == 5 and len(set(keys[:4])) == 1 and keys[4] != keys[0]
    assert len({body for _, body in seen}) == 1


def test_a_refusal_for_longer_than_the_patience_is_told_at_once(client_of: Any) -> None:
    peer, seen = in_turn(reply({"detail": "slow down"}, "429 No", "Retry-After: 3600"))
    with served(peer) as url, pytest.raises(reelhook.RateLimited) as caught:
        client_of(url).generate_image(campaign_id="d", prompt="a fox")
    assert caught.value.retry_after_s == 3600 and len(seen) == 1


@pytest.mark.parametrize("status", ["409 No", "422 No", "500 No", "402 No"])
def test_what_would_not_change_is_not_asked_again(status: str, client_of: Any) -> None:
    peer, seen = in_turn(reply({"detail": "no"}, status), reply(GENERATION))
    with served(peer) as url, pytest.raises(reelhook.ApiError):
        client_of(url).retry("x")
    assert len(seen) == 1


def test_a_removal_whose_answer_was_lost_is_done_when_nothing_is_there_any_more(client_of: Any) -> None:
    gone = reply({"detail": "gone"}, "404 No")
    peer, seen = in_turn(b"", gone)
    with served(peer) as url:
        client_of(url).delete("x")
        assert len(seen) == 2
        with pytest.raises(reelhook.NotFound):
            client_of(url).delete("x")


def test_nobody_there_is_said_after_the_patience_or_at_once(client_of: Any) -> None:
    for more in ({"patience_s": 0.4}, {"fail_fast": True}):
        with pytest.raises(reelhook.Unreachable, match=r"no service answers at http://127\.0\.0\.1:9") as caught:
            client_of("http://127.0.0.1:9", **more).generation("x")
        assert not isinstance(caught.value, reelhook.Unanswered)


def test_a_file_is_fetched_from_the_store_and_the_key_is_not_told_there(client_of: Any, tmp_path: Path) -> None:
    store, told = in_turn(reply(b"abc"))
    with served(store) as elsewhere:
        there = reply(b"", "302 Found", f"Location: {elsewhere}/bucket/abc?X-Amz-Signature=s")
        peer, seen = in_turn(reply(GENERATION), there)
        with served(peer) as url:
            file = client_of(url).download(GENERATION["id"], tmp_path)
    assert file.read_bytes() == b"abc" and file.suffix == ""
    assert all("authorization: bearer sk_secret" in head for head, _ in seen) and len(seen) == 2
    assert len(told) == 1 and "sk_secret" not in told[0][0] and "authorization" not in told[0][0]
    assert [each.name for each in tmp_path.iterdir()] == [file.name]


def test_a_redirect_in_circles_ends(client_of: Any, tmp_path: Path) -> None:
    for where in ("/api/v2/again", "file:///etc/passwd", "https://["):
        peer, _ = in_turn(reply(b"", "302 Found", f"Location: {where}"))
        with served(peer) as url, pytest.raises(reelhook.ReelhookError):
            client_of(url).download(models.generation(GENERATION), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"abd", b"ab", b"abcd", b""], ids=["other", "short", "long", "empty"])
def test_a_file_that_is_not_what_was_stored_leaves_nothing_behind(
    content: bytes, client_of: Any, tmp_path: Path
) -> None:
    (tmp_path / "kept").write_text("as it was")
    with served(answering(reply(content))) as url, pytest.raises(reelhook.DownloadFailed):
        client_of(url).download(models.generation(GENERATION), tmp_path / "kept")
    assert [each.name for each in tmp_path.iterdir()] == ["kept"]
    assert (tmp_path / "kept").read_text() == "as it was"


def test_a_file_goes_on_where_the_line_broke_and_begins_anew_when_it_has_changed(
    client_of: Any, tmp_path: Path
) -> None:
    half = b'HTTP/1.1 200 OK\r\nContent-Length: 3\r\nETag: "t"\r\n\r\na'
    rest = reply(b"bc", "206 Partial Content", "Content-Range: bytes 1-2/3")
    for second in (rest, reply(b"abc")):
        peer, seen = in_turn(half, second)
        with served(peer) as url:
            file = client_of(url).download(models.generation(GENERATION), tmp_path)
        assert file.read_bytes() == b"abc"
        assert "range: bytes=1-" in seen[1][0] and 'if-range: "t"' in seen[1][0]


def test_what_has_no_file_is_not_asked_for(client_of: Any, tmp_path: Path) -> None:
    failed = models.generation(GENERATION | {"status": "failed", "sha256": None})
    with pytest.raises(reelhook.DownloadFailed, match="is failed"):
        client_of("http://127.0.0.1:9").download(failed, tmp_path)


def test_without_a_stream_the_end_is_found_by_asking(client_of: Any) -> None:
    no = reply({"detail": "there are no events here"}, "404 No")
    running = reply(GENERATION | {"status": "processing", "stage": "processing"})
    peer, seen = in_turn(no, running, reply({"detail": "full"}, "503 No", "Retry-After: 5"), reply(GENERATION))
    told: list[str] = []
    with served(peer) as url:
        ended = client_of(url).wait(GENERATION["id"], on_progress=lambda now: told.append(now.status))
    assert ended.status == "completed" and told == ["processing", "completed"] and len(seen) == 4


def test_a_wait_ends_when_its_time_is_over(client_of: Any) -> None:
    running = models.generation(GENERATION | {"status": "processing", "stage": "processing"})

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head, _ = await read_request(reader)
        if "/events" not in head:
            writer.write(reply(running.raw))
        else:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n: beat\n\n")
            await reader.read()

    with served(silent) as url, pytest.raises(TimeoutError) as caught:
        client_of(url).wait(running, timeout=0.5)
    assert isinstance(caught.value, reelhook.WaitTimedOut) and caught.value.generation == running


def test_an_end_without_a_result_is_raised_when_that_is_wanted(client_of: Any) -> None:
    error = {"code": "moderated", "message": "Flagged.", "retryable": False}
    failed = models.generation(GENERATION | {"status": "failed", "error": error})
    client = client_of("http://127.0.0.1:9")
    assert client.wait(failed).status == "failed"
    with pytest.raises(reelhook.GenerationFailed, match=r"is failed: Flagged\.") as caught:
        client.wait(failed, raise_on_failure=True)
    assert caught.value.generation is failed


def test_neither_a_message_nor_a_repr_holds_the_key() -> None:
    assert "sk_secret" not in repr(reelhook.Client("http://localhost:1", "sk_secret"))
    for key in ("sk_secret\r\nX: y", "sk_sécret", "sk secret"):
        with pytest.raises(reelhook.InvalidArgument) as caught:
            reelhook.Client("http://localhost:1", key)
        assert "cret" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["localhost:8000", "ftp://x", "http://", "http://u:p@x", "http://x:99999", "http://x?q"]
)
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(reelhook.InvalidArgument) as caught:
        reelhook.Client(url)
    assert isinstance(caught.value, ValueError) and "p@x" not in str(caught.value)


def test_address_and_key_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    peer, seen = in_turn(reply(GENERATION))
    with served(peer) as url:
        monkeypatch.setenv("REELHOOK_URL", url + "/")
        monkeypatch.setenv("REELHOOK_API_KEY", "sk_environment")
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
        with reelhook.Client() as client:
            client.generation("x")
    assert "authorization: bearer sk_environment" in seen[0][0]
    assert seen[0][0].startswith("get /api/v2/generations/x ")


@pytest.mark.parametrize("id", ["", "../keys", "a/b", "a?b", "a#b", "ä", "a b"])
def test_an_id_cannot_lead_to_another_route(id: str) -> None:
    with pytest.raises(reelhook.InvalidArgument):
        reelhook.Client("http://127.0.0.1:9").generation(id)


def test_times_and_flags_are_written_as_the_service_reads_them() -> None:
    at = datetime(2026, 11, 21, tzinfo=UTC)
    call = _calls.generations({"created_after": at, "possibly_charged": True, "q": None, "limit": 5})
    assert call.query == {"created_after": "2026-11-21T00:00:00+00:00", "possibly_charged": "true", "limit": "5"}
    with pytest.raises(reelhook.InvalidArgument):
        _calls.generations({"created_after": at.replace(tzinfo=None)})


def test_a_wait_is_read_in_every_form_that_http_has_by_the_clock_that_wrote_it() -> None:
    assert _calls.retry_after_s("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    said_at = "Wed, 21 Oct 2015 07:27:00 GMT"
    for text in (
        "Wed, 21 Oct 2015 07:28:00 GMT",
        "Wednesday, 21-Oct-15 07:28:00 GMT",
        "Wed Oct 21 07:28:00 2015",
        " 60 ",
    ):
        assert _calls.retry_after_s(text, said_at) == 60
    for junk in ("soon", "", "-5", "1e3", "Wed, 99 Foo", "9" * 5000 + "x", None):
        assert _calls.retry_after_s(junk, said_at) is None


PROGRAM = """
import asyncio
import reelhook
with reelhook.Client() as client:
    one: reelhook.Generation = client.generate_image(campaign_id="c", prompt="p")
    two: list[reelhook.Generation] = client.generate_video(campaign_id="c", copies=2, duration=5)
    reveal_type(client.wait(one).cost_usd.actual)
    for event in client.events(generation_id=one.id):
        reveal_type(event.generation)
async def main() -> None:
    async with reelhook.AsyncClient() as client:
        reveal_type(await client.generate_image(campaign_id="c", prompt="p"))
        reveal_type([each.name async for each in client.campaigns()])
"""


def test_a_program_with_it_passes_the_strictest_types_and_a_wrong_one_does_not(tmp_path: Path) -> None:
    def checked(text: str) -> str:
        (tmp_path / "program.py").write_text(text)
        command = [sys.executable, "-m", "mypy", "--strict", "--config-file", "", "program.py"]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100).stdout

    said = checked(PROGRAM)
    assert "error" not in said, said
    revealed = ["float | None", "Generation | None", "Generation", "list[str]"]
    for line, wanted in zip([each for each in said.splitlines() if "Revealed" in each], revealed, strict=True):
        assert wanted in line.replace("builtins.", "").replace("reelhook.models.", ""), line
    for wrong in ('campaign_id="c", promt="p"', 'prompt="p"', 'campaign_id="c", seed="7"'):
        assert "error" in checked(f"import reelhook\nreelhook.Client().generate_image({wrong})")
