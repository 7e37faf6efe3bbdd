"""What each status of the provider means: for a create, for an upload, and for those who did not ask."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from backend.core.errors import ProviderError, ProviderRefused, ProviderUnavailable, ProviderUnclear
from backend.http import HttpAnswer
from backend.providers.replicate import answers, words

STATUSES = range(100, 1000)
REFUSED = {400, 404, 405, 409, 410, 411, 412, 413, 414, 415, 416, 417, 422, 424, 426, 428, 431, 451}
REFUSED_NOW = {401, 402, 403, 407, 408, 421, 423, 425, 300, 301, 302, 305, 307, 308}
THROTTLED = {429}
PAGE = b"<html><head><title>Attention Required! | Cloudflare</title></head><body>Sorry</body></html>"
BODIES = [b"", PAGE, b'{"detail": "x"}', b"[1]", b"\xff\xfe\x00", b'{"detail": {"a": [1]}, "status": "x"}']
NOW_MS = 1_780_000_000_000


def meaning(status: int) -> type[ProviderError]:
    """The table: certainly not taken, throttled, or nobody knows."""
    if status in REFUSED | REFUSED_NOW:
        return ProviderRefused
    return ProviderUnavailable if status in THROTTLED else ProviderUnclear


@pytest.mark.hazard(58)
@pytest.mark.parametrize("body", BODIES, ids=repr)
def test_each_status_to_a_create_is_refused_throttled_or_unclear(body: bytes) -> None:
    for status in STATUSES:
        found = answers.refusal(HttpAnswer(status, {}, body), NOW_MS)
        assert type(found) is meaning(status), status
        if isinstance(found, ProviderRefused):
            assert found.retryable is (status in REFUSED_NOW), status
            assert found.message and len(found.message) < 700


@pytest.mark.parametrize("status", [500, 502, 503, 504, 520, 521, 522, 523, 524, 525, 526, 530, 599, 499, 444, 999])
def test_what_a_proxy_says_for_itself_leaves_open_whether_the_create_was_taken(status: int) -> None:
    assert type(answers.refusal(HttpAnswer(status, {"retry-after": "5"}, PAGE), NOW_MS)) is ProviderUnclear


@pytest.mark.parametrize("body", BODIES, ids=repr)
def test_nothing_about_an_upload_is_unclear(body: bytes) -> None:
    for status in STATUSES:
        found = answers.upload_refusal(HttpAnswer(status, {}, body), NOW_MS)
        assert type(found) in (ProviderUnavailable, ProviderRefused), status
        if status >= 500 or status in (408, 423, 425, 429):
            assert type(found) is ProviderUnavailable, status


OWN_403 = [
    ({"title": "Forbidden", "detail": "You do not have permission to perform this action.", "status": 403}, True),
    ({"detail": "Authentication credentials were not provided.", "status": 403}, True),
    ({"detail": "Your account has been suspended.", "status": 403}, True),
    ({"detail": "You do not have permission to run this model.", "status": 403}, False),
    ({"title": "Forbidden", "detail": "Your account may not use this version."}, False),
    ({"detail": "This prompt violates our content policy", "status": 403}, False),
    ({"detail": "You may not fetch this input image", "status": 403}, False),
]
FOREIGN_403 = [
    PAGE,
    b"",
    b"Access denied",
    b"null",
    b"[]",
    b'{"message": "Forbidden"}',
    b'{"error": {"code": 403, "message": "blocked"}}',
    b'{"title": "Access denied", "status": 403}',
    b'{"detail": ["x"], "status": 403}',
    b'{"detail": "Denied", "status": 1020}',
    b'{"title": "Error 1020", "detail": "Blocked by a firewall.", "status": 403, "cloudflare_error": true}',
]


@pytest.mark.hazard(58)
@pytest.mark.parametrize(("problem", "everybody"), OWN_403)
def test_a_403_of_the_providers_own_is_about_the_account_unless_it_names_the_request(
    problem: dict[str, Any], everybody: bool
) -> None:
    found = answers.refusal(HttpAnswer(403, {}, json.dumps(problem).encode()), NOW_MS)
    assert isinstance(found, ProviderRefused) and found.everybody is everybody
    assert everybody or problem["detail"] in found.message


@pytest.mark.hazard(58)
@pytest.mark.parametrize("body", FOREIGN_403, ids=repr)
def test_a_403_that_is_not_the_providers_own_is_about_this_request_alone(body: bytes) -> None:
    found = answers.refusal(HttpAnswer(403, {}, body), NOW_MS)
    assert isinstance(found, ProviderRefused) and not found.everybody and found.retryable
    assert "credentials" not in found.message


@pytest.mark.parametrize("status", [401, 402])
@pytest.mark.parametrize("body", BODIES, ids=repr)
def test_no_credit_and_a_wrong_key_concern_everybody(status: int, body: bytes) -> None:
    found = answers.refusal(HttpAnswer(status, {}, body), NOW_MS)
    assert isinstance(found, ProviderRefused) and found.everybody and found.retryable


MODERATED = [
    "The input or output was flagged as sensitive. Please try again with different inputs. (E005) (abc)",
    "NSFW content detected. Try running it again, or try a different prompt.",
    "Error: All generated images contained NSFW content",
    "Prediction failed: the prompt was blocked by our safety system",
    "Output rejected by the safety checker",
    "Your request was rejected as a result of our safety system",
    "This request violates our content policy.",
    "The image violates the Acceptable Use policies",
    "content moderation failed",
    "Prompt was moderated",
    "Failure to pass the risk control system",
    "The prompt contains sensitive words",
    "Generation stopped: finish reason IMAGE_SAFETY",
    "PROHIBITED_CONTENT",
    "Sexually explicit material is not allowed",
    "Potentially unsafe content in the input",
]
NOT_MODERATED = [
    "CUDA out of memory",
    "Prediction interrupted; please retry (code: PA)",
    "Director: unexpected error handling prediction (E9828)",
    "Service is temporarily unavailable. Please try again later. (E004)",
    '- input.safety_tolerance: must be one of "1", "2"',
    "- input.disable_safety_checker: Additional property is not allowed",
    "- input.safety_filter_level: safety_filter_level must be one of the following",
    "E0051",
    "'NoneType' object has no attribute 'shape'",
    "The input image is too small",
    "",
]


@pytest.mark.parametrize("text", MODERATED)
def test_what_is_not_allowed_is_moderated_in_a_failure_and_in_a_refusal(text: str) -> None:
    found = answers.outcome({"id": "p", "status": "failed", "error": text}, NOW_MS, 1000)
    assert found.failure and found.failure.code == "moderated" and not found.failure.retryable
    for status in (400, 403, 422, 451):
        refused = answers.refusal(
            HttpAnswer(status, {}, json.dumps({"detail": text, "status": status}).encode()), NOW_MS
        )
        assert isinstance(refused, ProviderRefused) and refused.code == "moderated" and not refused.everybody


@pytest.mark.parametrize("text", NOT_MODERATED)
def test_other_failures_and_names_of_settings_are_not(text: str) -> None:
    found = answers.outcome({"id": "p", "status": "failed", "error": text}, NOW_MS, 1000)
    assert found.failure and found.failure.code == "provider_failed"
    refused = answers.refusal(HttpAnswer(422, {}, json.dumps({"detail": text, "status": 422}).encode()), NOW_MS)
    assert isinstance(refused, ProviderRefused) and refused.code == "invalid_input"


@pytest.mark.parametrize(
    ("error", "message"),
    [
        ({"detail": "NSFW"}, "NSFW"),
        ({"message": "broken", "code": 3}, "broken"),
        (["one", 2, "two"], "one; two"),
        *((nothing, "The provider gave no reason.") for nothing in (None, "", " ", 3, {}, [], {"detail": {}}, True)),
    ],
)
def test_an_error_of_any_shape_is_a_sentence(error: object, message: str) -> None:
    found = answers.outcome({"id": "p", "status": "failed", "error": error}, NOW_MS, 1000)
    assert found.failure and found.failure.message == message


def at(seconds: float, form: str = "imf") -> str:
    """A date so long after now, as HTTP has written it over the years."""
    when = datetime.fromtimestamp(NOW_MS / 1000, UTC) + timedelta(seconds=seconds)
    forms = {"rfc850": "%A, %d-%b-%y %H:%M:%S GMT", "asctime": "%a %b %e %H:%M:%S %Y"}
    return when.strftime(forms[form]) if form in forms else format_datetime(when, usegmt=True)


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({"retry-after": "7"}, 7),
        ({"retry-after": " 7 "}, 7),
        ({"retry-after": at(40)}, 40),
        ({"retry-after": at(40, "rfc850")}, 40),
        ({"retry-after": at(40, "asctime")}, 40),
        ({"retry-after": f" {at(40)}"}, 40),
        ({"retry-after": at(-40)}, 0),
        ({"retry-after": at(10**8)}, 86_400),
        ({"retry-after": "9" * 12}, 86_400),
        ({"retry-after": at(940), "date": at(900)}, 40),
        ({"retry-after": at(-860, "asctime"), "date": at(-900)}, 40),
        ({"retry-after": at(40), "date": "some day"}, 40),
        *(
            ({"retry-after": junk}, None)
            for junk in ("", "soon", "-5", "1e3", "9" * 5000, "nan", "Sun, 99 Foo", "12:00")
        ),
        ({}, None),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
def test_a_wait_is_told_in_seconds_or_as_a_date_of_any_form(
    headers: dict[str, str], wait_s: float | None, status: int
) -> None:
    answer = HttpAnswer(status, headers, b"{}")
    found = answers.refusal(answer, NOW_MS) if status == 429 else answers.trouble(answer, NOW_MS)
    assert isinstance(found, ProviderUnavailable) and found.retry_after_s == wait_s


def test_a_model_nobody_knows_is_no_setting_of_moderation() -> None:
    assert not words.is_moderated("safety_checker moderation_level content-type policy")
