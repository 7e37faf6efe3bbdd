"""What Replicate's answers and signatures mean to us: tables of everything that may come."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import pytest

from backend.core.errors import BadAnswer, ProviderRefused, ProviderUnavailable, SettingsError, Unauthorized
from backend.http import HttpAnswer
from backend.providers import signatures
from backend.providers.replicate import answers

HOUR_MS = 3_600_000
SECRET = b"k" * 32
NOW_S = 1_795_000_000  # fixed: it is in the names of tests, which every process has to find alike
BODY = b'{"id": "p1"}'


def answered(status: int, body: Any = None, **headers: str) -> HttpAnswer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return HttpAnswer(status, named, b"" if body is None else json.dumps(body).encode())


@pytest.mark.parametrize(
    ("answer", "wait_s"),
    [
        (answered(429, {"retry_after": 7}), 7),
        (answered(429, {"detail": "Throttled."}, retry_after="9"), 9),
        (answered(429, {"detail": "Your rate limit resets in ~31s."}), 31),
        (answered(429, {"retry_after": 7, "detail": "resets in ~31s"}, retry_after="9"), 9),
        (answered(429, {"retry_after": -1}), None),
        (answered(429, {"retry_after": 10**9}), None),
        (answered(429, {}, retry_after="Wed, 21 Oct 2026 07:28:00 GMT"), 0),
        (answered(429, [1]), None),
        (answered(429), None),
    ],
)
def test_a_throttled_create_says_how_long_to_wait(answer: HttpAnswer, wait_s: float | None) -> None:
    refusal = answers.refusal(answer, int(time.time() * 1000))
    assert isinstance(refusal, ProviderUnavailable) and refusal.retry_after_s == wait_s


@pytest.mark.parametrize("status", [401, 403, 408, 429, 500, 502, 503])
def test_an_answer_to_a_look_says_nothing_about_the_prediction_unless_it_is_a_404(status: int) -> None:
    assert isinstance(answers.trouble(answered(status), 0), ProviderUnavailable)
    assert isinstance(answers.trouble(answered(404), 0), ProviderRefused)


@pytest.mark.parametrize("status", ["starting", "processing", "resuming", "", None, 3, ["succeeded"], "SUCCEEDED"])
def test_a_status_nobody_knows_is_still_running(status: object) -> None:
    assert answers.outcome({"id": "p", "status": status, "output": "http://x"}, 0, HOUR_MS).state == "running"


@pytest.mark.parametrize(
    ("output", "urls"),
    [
        ("https://a/1.png", ("https://a/1.png",)),
        (["https://a/1.png", "https://a/2.png"], ("https://a/1.png", "https://a/2.png")),
        ({"video": "https://a/1.mp4", "seed": 3}, ("https://a/1.mp4",)),
        ([None, 3, "", "https://a/1.png"], ("https://a/1.png",)),
        *((nothing, ()) for nothing in (None, "", [], {}, 3, True, [[]], {"a": {}})),
    ],
)
def test_an_output_has_many_shapes(output: object, urls: tuple[str, ...]) -> None:
    found = answers.outcome({"id": "p", "status": "succeeded", "output": output}, 0, HOUR_MS)
    assert found.outputs == urls and (found.failure is None) == bool(urls)


@pytest.mark.parametrize("prediction", [None, [], "p", 3, {}, {"id": 3}, {"id": ""}, {"id": "x" * 201}, {"id": None}])
def test_a_prediction_without_an_id_is_none(prediction: object) -> None:
    with pytest.raises(BadAnswer):
        answers.outcome(prediction, 0, HOUR_MS)


@pytest.mark.parametrize("status", ["canceled", "aborted"])
def test_stopped_at_the_provider_is_canceled(status: str) -> None:
    found = answers.outcome({"id": "p", "status": status}, 0, HOUR_MS)
    assert found.state == "canceled" and found.failure is None


@pytest.mark.parametrize(
    ("metrics", "seconds"),
    [
        ({"predict_time": 2.5, "total_time": 9}, 2.5),
        ({"predict_time": 0}, 0.0),
        *(({"predict_time": odd}, None) for odd in (-1, 1e300, float("nan"), float("inf"), True, "2.5", None, [1])),
        *((odd, None) for odd in (None, [], {}, "2.5")),
    ],
)
@pytest.mark.parametrize("status", ["succeeded", "failed", "canceled"])
def test_how_long_it_ran_is_believed_when_it_can_be_true(status: str, metrics: object, seconds: float | None) -> None:
    prediction = {"id": "p", "status": status, "output": "https://a/1.png", "metrics": metrics}
    assert answers.outcome(prediction, 0, HOUR_MS).predict_s == seconds


@pytest.mark.parametrize(
    ("error", "code", "retryable"),
    [
        ("The input or output was flagged as sensitive. (E005)", "moderated", False),
        ("Prediction interrupted; please retry (code: PA)", "provider_failed", True),
        (None, "provider_failed", True),
        ({"odd": 1}, "provider_failed", True),
    ],
)
def test_a_failure_keeps_its_reason(error: object, code: str, retryable: bool) -> None:
    failure = answers.outcome({"id": "p", "status": "failed", "error": error}, 0, HOUR_MS).failure
    assert failure and (failure.code, failure.retryable) == (code, retryable)


def test_an_output_expires_an_hour_after_its_end_and_never_later_than_an_hour_from_now() -> None:
    prediction = {"id": "p", "status": "succeeded", "output": "https://a/1.png"}
    ended = {**prediction, "completed_at": "1970-01-01T00:10:00.000Z"}
    assert answers.outcome(ended, 900_000, HOUR_MS).outputs_expire_at == 600_000 + HOUR_MS
    assert answers.outcome(ended, 100_000, HOUR_MS).outputs_expire_at == 100_000 + HOUR_MS
    assert answers.outcome({**prediction, "completed_at": "junk"}, 5, HOUR_MS).outputs_expire_at == 5 + HOUR_MS


@pytest.mark.parametrize(
    ("logs", "progress"),
    [
        (" 40%|####      | 4/10\n", 0.4),
        ("10%|\n 70%|x", 0.7),
        ("999%|", 1.0),
        ("", None),
        (None, None),
        (["40%|"], None),
    ],
)
def test_progress_is_read_from_the_logs(logs: object, progress: float | None) -> None:
    assert answers.outcome({"id": "p", "status": "processing", "logs": logs}, 0, HOUR_MS).progress == progress


def signed(id: str = "msg_1", at: object = NOW_S, body: bytes = BODY, secret: bytes = SECRET) -> dict[str, str]:
    right = signatures.sign(secret, id, int(str(at)) if str(at).isdigit() else 0, body)
    return {"webhook-id": id, "webhook-timestamp": str(at), "webhook-signature": right}


def verify(headers: dict[str, str], body: bytes = BODY, now_s: float = NOW_S) -> str:
    return signatures.verify(SECRET, headers, body, int(now_s * 1000))


@pytest.mark.hazard(14, 15)
def test_a_right_signature_gives_the_id_also_among_others_and_at_the_edge_of_its_time() -> None:
    headers = signed()
    assert verify(headers) == "msg_1"
    for beside in ("junk {}", "v1,bad {}", "v1a,x  {}", "{} v1,bad", "é {}"):
        assert verify(headers | {"webhook-signature": beside.format(headers["webhook-signature"])}) == "msg_1"
    assert verify(headers, now_s=NOW_S + 300) == verify(headers, now_s=NOW_S - 300) == "msg_1"


@pytest.mark.hazard(14, 15)
@pytest.mark.parametrize(
    "changed",
    [
        {"webhook-signature": ""},
        {"webhook-signature": " "},
        {"webhook-signature": "v1"},
        {"webhook-signature": "v1,"},
        {"webhook-signature": "v1,%%%"},
        {"webhook-signature": "v1,a,b"},
        {"webhook-signature": "v1,\udcff"},
        {"webhook-signature": signed(secret=b"o" * 32)["webhook-signature"]},
        {"webhook-signature": signed()["webhook-signature"].replace("v1,", "v2,")},
        {"webhook-signature": signed()["webhook-signature"].swapcase()},
        {"webhook-id": ""},
        {"webhook-id": "msg_2"},
        {"webhook-id": "a.b"},
        {"webhook-id": "é"},
        {"webhook-id": "x" * 257},
        *(
            {"webhook-timestamp": odd}
            for odd in ("", "nan", "inf", "1e9", f"{NOW_S}.0", "-5", f" {NOW_S}", f"{NOW_S}000")
        ),
        {"webhook-timestamp": "٣" * 10},
        signed(at=NOW_S - 301),
        signed(at=NOW_S + 301),
        signed(body=BODY + b" "),
    ],
    ids=repr,
)
def test_whatever_else_is_sent_is_unauthorized(changed: dict[str, str]) -> None:
    with pytest.raises(Unauthorized):
        verify(signed() | changed)


@pytest.mark.hazard(14)
def test_a_missing_header_is_unauthorized() -> None:
    for name in ("webhook-id", "webhook-timestamp", "webhook-signature"):
        with pytest.raises(Unauthorized):
            verify({key: value for key, value in signed().items() if key != name})


@pytest.mark.hazard(14)
def test_the_exact_bytes_are_what_is_signed() -> None:
    for body in (b"", BODY + b"\n", BODY.replace(b" ", b""), b"\xff" + BODY, BODY[:-1]):
        with pytest.raises(Unauthorized):
            verify(signed(), body)


@pytest.mark.hazard(22)
def test_a_weak_or_broken_secret_is_refused_at_the_start() -> None:
    for text in (
        "",
        "whsec_",
        "whsec_AA",
        "your-secret-here",
        "whsec_" + base64.b64encode(b"x" * 23).decode(),
        "whsec_é",
    ):
        with pytest.raises(SettingsError):
            signatures.read_secret(text)
    assert signatures.read_secret("whsec_" + base64.b64encode(SECRET).decode()) == SECRET
