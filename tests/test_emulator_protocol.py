"""The emulator's answers are the ones of Replicate's own specification."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from emulating import IMAGE, TINY, TOKEN, VIDEO, Provider, emulating, png, until
from jsonschema import Draft202012Validator, FormatChecker

from backend.emulator import EmulatorOptions

SPEC = json.loads((Path(__file__).parent / "data" / "replicate-openapi.json").read_text())
DATA_URI = "data:image/png;base64," + base64.b64encode(png()).decode()


def check(schema: str, answer: Any) -> None:
    """`version` says oneOf where "hidden" fits both sides: it is read as anyOf."""
    schemas = json.loads(json.dumps(SPEC["components"]["schemas"]).replace('"oneOf"', '"anyOf"'))
    for name in schemas:
        make_nullable(schemas[name])
    document = {"$ref": f"#/components/schemas/{schema}", "components": {"schemas": schemas}}
    Draft202012Validator(document, format_checker=FormatChecker()).validate(answer)


def make_nullable(schema: Any) -> None:
    if isinstance(schema, dict):
        if schema.pop("nullable", False):
            schema["type"] = [schema["type"], "null"]
        for inner in schema.values():
            make_nullable(inner)


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    with emulating() as provider:
        yield provider


def test_a_prediction_fits_the_specification_from_creation_to_its_end(provider: Provider) -> None:
    answer = provider.create("a fox", output_format="png", body={"webhook_events_filter": ["completed"]})
    assert answer.status_code == 201
    assert answer.headers["ratelimit-remaining"] == "599"
    check("schemas_prediction_response", answer.json())
    ended = provider.ended(answer.json()["id"])
    check("schemas_prediction_response", ended)
    assert ended["status"] == "succeeded"
    assert ended["version"] == "hidden"
    assert "stream" not in ended["urls"]
    assert len(ended["id"]) == 26 and ended["id"].isalnum() and ended["id"] == ended["id"].lower()
    assert provider.download(ended["output"]).headers["content-type"] == "image/png"


def test_webhook_and_filter_are_echoed(provider: Provider) -> None:
    hook = "http://127.0.0.1:9/never"
    made = provider.create(body={"webhook": hook, "webhook_events_filter": ["start", "completed"]}).json()
    assert (made["webhook"], made["webhook_events_filter"]) == (hook, ["start", "completed"])


@pytest.mark.parametrize("version", [IMAGE, "{slug}:{hex}", "{hex}"])
def test_a_version_is_named_in_three_ways(provider: Provider, version: str) -> None:
    digits = provider.http.get(f"/models/{IMAGE}").json()["latest_version"]["id"]
    body = {"version": version.format(slug=IMAGE, hex=digits), "input": {"prompt": "x"}}
    answer = provider.http.post("/predictions", json=body)
    assert (answer.status_code, answer.json()["model"]) == (201, IMAGE)


@pytest.mark.parametrize(
    ("body", "field", "kind"),
    [
        ({"input": {}}, "input.prompt", "required"),
        ({"input": {"prompt": 7}}, "input.prompt", "invalid_type"),
        ({"input": {"prompt": "x", "output_format": "gif"}}, "input.output_format", "enum"),
        ({"input": {"prompt": "x", "seed": 1}}, "input.seed", "additional_property_not_allowed"),
        ({"input": {"prompt": "x", "image_input": ["no"]}}, "input.image_input.0", "format"),
        ({"input": {"prompt": "x"}, "metadata": {}}, "metadata", "additional_property_not_allowed"),
        ({"input": {"prompt": "x"}, "webhook_events_filter": ["end"]}, "webhook_events_filter", "enum"),
        ({"input": {"prompt": "x"}, "webhook": "ftp://x"}, "webhook", "format"),
        ({}, "input", "required"),
        ([], "", "invalid_type"),
    ],
)
def test_a_wrong_body_is_refused_with_the_field(provider: Provider, body: Any, field: str, kind: str) -> None:
    answer = provider.http.post(f"/models/{IMAGE}/predictions", json=body)
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
    assert answer.json()["invalid_fields"][0].items() >= {"field": field, "type": kind}.items()


def test_a_video_needs_its_start_image_and_an_allowed_duration(provider: Provider) -> None:
    answer = provider.create(model=VIDEO, duration=7)
    assert [wrong["field"] for wrong in answer.json()["invalid_fields"]] == [
        "input.start_image",
        "input.duration",
    ]


@pytest.mark.parametrize(
    "junk",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b'{"input":{"prompt":"x"},"stream":NaN}',
        b"[" * 100_000,
        b'{"input":{"prompt":"\\ud800"}}',
        b'"\\u0000"',
        b"1" * 5000,
    ],
)
def test_junk_is_refused_and_never_an_error_of_ours(provider: Provider, junk: bytes) -> None:
    for path in (f"/models/{IMAGE}/predictions", "/predictions"):
        answer = provider.http.post(path, content=junk)
        assert answer.status_code in (400, 422)
        assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/predictions/nothing", 404),
        ("POST", "/predictions/nothing/cancel", 404),
        ("GET", "/models/no/body", 404),
        ("GET", "/files/nothing", 404),
        ("GET", "/nowhere", 404),
        ("DELETE", "/predictions", 405),
        ("GET", "/predictions?cursor=older-x", 422),
        ("GET", "/predictions?created_after=yesterday", 422),
    ],
)
def test_errors_are_problems(provider: Provider, method: str, path: str, status: int) -> None:
    answer = provider.http.request(method, path)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert answer.json()["status"] == status


def test_an_unknown_model_is_404_and_an_unknown_version_422(provider: Provider) -> None:
    assert provider.create(model="no/body").status_code == 404
    answer = provider.http.post("/predictions", json={"version": "0" * 64, "input": {}})
    assert (answer.status_code, answer.json()["title"]) == (422, "Invalid version or not permitted")


@pytest.mark.parametrize("authorization", [None, "Bearer r8_other", "Basic r8_emulator", "Bearer \u00e9"])
def test_another_token_is_401(provider: Provider, authorization: str | None) -> None:
    headers = {"authorization": authorization.encode("latin-1")} if authorization else {}
    answer = httpx.get(f"{provider.server.origin}/v1/account", headers=headers)  # type: ignore[arg-type]
    assert (answer.status_code, answer.json()["title"]) == (401, "Unauthenticated")


def test_the_old_token_scheme_still_works(provider: Provider) -> None:
    answer = httpx.get(f"{provider.server.origin}/v1/account", headers={"authorization": "Token r8_emulator"})
    assert answer.json()["username"] == "emulator"


def test_models_show_their_input_schema(provider: Provider) -> None:
    listed = provider.http.get("/models").json()
    check("schemas_paginated_model_response", listed)
    model = provider.http.get(f"/models/{VIDEO}").json()
    check("schemas_model_response", model)
    check("schemas_version_response", model["latest_version"])
    schema = model["latest_version"]["openapi_schema"]["components"]["schemas"]["Input"]
    assert schema["required"] == ["prompt", "start_image"]
    assert schema["properties"]["duration"]["enum"] == [5, 10]


def test_the_list_has_pages_of_a_hundred_newest_first() -> None:
    with emulating() as provider:
        ids = [provider.create(str(n)).json()["id"] for n in range(205)][::-1]
        first = provider.http.get("/predictions").json()
        check("schemas_paginated_prediction_response", first)
        second = provider.http.get(first["next"]).json()
        third = provider.http.get(second["next"]).json()
        shown = [item["id"] for page in (first, second, third) for item in page["results"]]
        assert shown == ids
        assert (first["previous"], third["next"]) == (None, None)
        back = provider.http.get(third["previous"]).json()
        assert [item["id"] for item in back["results"]] == [item["id"] for item in second["results"]]


def test_the_list_is_cut_by_creation_time(provider: Provider) -> None:
    provider.create("before")
    since = datetime.now(UTC).isoformat()
    wanted = provider.create("within").json()
    params = {"created_after": since, "created_before": provider.create("after").json()["created_at"]}
    results = provider.http.get("/predictions", params=params).json()["results"]
    assert [item["id"] for item in results] == [wanted["id"]]


def test_the_list_of_the_web_page_is_empty(provider: Provider) -> None:
    provider.made()
    assert provider.http.get("/predictions?source=web").json()["results"] == []


def test_prefer_wait_holds_the_answer_until_the_end_or_the_time(provider: Provider) -> None:
    done = provider.create(headers={"prefer": "wait=5"})
    assert (done.status_code, done.json()["status"]) == (201, "succeeded")
    assert done.headers["preference-applied"] == "wait=5"
    provider.spoil({"kind": "stuck", "match": {"prompt_contains": "stuck"}})
    began = time.monotonic()
    late = provider.create("stuck", headers={"prefer": "wait=1"})
    assert (late.status_code, late.json()["status"]) == (202, "processing")
    assert 0.9 < time.monotonic() - began < 5


@pytest.mark.parametrize("text", ["4", "4s", "soon", "-5", "5x", "m"])
def test_a_life_under_five_seconds_is_refused(provider: Provider, text: str) -> None:
    assert provider.create(headers={"cancel-after": text}).status_code == 422


@pytest.mark.parametrize(("text", "seconds"), [("30", 30), ("5s", 5), ("5m", 300), ("1h30m45s", 5445)])
def test_a_life_becomes_a_deadline(provider: Provider, text: str, seconds: int) -> None:
    made = provider.create(headers={"cancel-after": text}).json()
    check("schemas_prediction_response", made)
    life = datetime.fromisoformat(made["deadline"]) - datetime.fromisoformat(made["created_at"])
    assert life.total_seconds() == seconds


def test_the_deadline_aborts_what_has_not_started_and_cancels_what_runs() -> None:
    with emulating() as provider:
        provider.spoil(
            {"kind": "delay", "delay_s": 60, "match": {"prompt_contains": "late"}},
            {"kind": "stuck", "match": {"prompt_contains": "stuck"}},
        )
        late, stuck = (provider.create(p, headers={"cancel-after": "5"}).json() for p in ("late", "stuck"))
        assert provider.ended(late["id"])["status"] == "aborted"
        assert provider.ended(stuck["id"])["status"] == "canceled"
        assert "started_at" not in provider.get(late["id"])


def test_a_cancel_ends_what_runs_and_leaves_what_has_ended(provider: Provider) -> None:
    provider.spoil({"kind": "stuck", "match": {"prompt_contains": "stuck"}})
    stuck = provider.create("stuck").json()
    canceled = provider.http.post(f"/predictions/{stuck['id']}/cancel")
    assert (canceled.status_code, canceled.json()["status"]) == (200, "canceled")
    done = provider.made("done")
    assert provider.http.post(f"/predictions/{done['id']}/cancel").json()["status"] == "succeeded"


def test_an_output_expires_and_the_prediction_forgets_its_data(provider: Provider) -> None:
    done = provider.made("secret words")
    httpx.post(f"{provider.server.origin}/emulator/expire/{done['id']}")
    after = provider.get(done["id"])
    check("schemas_prediction_response", after)
    assert (after["data_removed"], after["output"], after["input"]) == (True, None, {})
    assert provider.download(done["output"]).status_code == 404


def test_an_output_expires_by_itself() -> None:
    with emulating(EmulatorOptions(image_s=0, render="tiny", expiry_s=0.2)) as provider:
        done = provider.create(headers={"prefer": "wait"}).json()
        assert until(lambda: provider.get(done["id"])["data_removed"])


def test_files_come_back_as_they_went(provider: Provider) -> None:
    parts = {"content": ("fox.png", png(), "image/png"), "metadata": (None, '{"a": 1}', "application/json")}
    made = provider.http.post("/files", files=parts)
    assert made.status_code == 201
    check("schemas_file_response", made.json())
    assert (made.json()["metadata"], made.json()["size"]) == ({"a": 1}, len(png()))
    url = made.json()["urls"]["get"]
    assert provider.http.get(url).json() == made.json()
    assert provider.http.get(f"{url}/download").content == png()
    assert made.json() in provider.http.get("/files").json()["results"]
    assert provider.http.delete(url).status_code == 204
    assert provider.http.get(url).status_code == 404


def test_a_file_over_100_mb_is_413(provider: Provider) -> None:
    answer = provider.http.post("/files", files={"content": ("big", bytes(101 << 20), "image/png")})
    assert (answer.status_code, answer.headers["content-type"]) == (413, "application/problem+json")
    assert "100MB" in answer.json()["detail"]


def test_a_file_without_content_is_refused(provider: Provider) -> None:
    for sent in ({"data": {"filename": "x"}}, {"content": b"junk"}, {"files": {"other": b"x"}}):
        answer = provider.http.post("/files", **sent)  # type: ignore[arg-type]
        assert answer.status_code in (400, 422)


@pytest.mark.parametrize("way", ["data uri", "file", "output", "download url"])
def test_references_are_taken_however_they_come(provider: Provider, way: str) -> None:
    file = provider.http.post("/files", files={"content": ("a.png", png(), "image/png")}).json()
    urls = {
        "data uri": DATA_URI,
        "file": file["urls"]["get"],
        "download url": file["urls"]["get"] + "/download?owner=a&expiry=1&signature=x",
        "output": provider.made("x", output_format="png")["output"],
    }
    assert provider.made(model=VIDEO, start_image=urls[way])["status"] == "succeeded"


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:9/x.png",
        "{origin}/healthz",
        "{origin}/v1/files/nothing",
        "data:image/png;base64,!!!",
        "data:,hello",
        "data:",
    ],
)
def test_a_reference_that_is_no_image_fails_the_prediction(provider: Provider, url: str) -> None:
    ended = provider.made(model=VIDEO, start_image=url.format(origin=provider.server.origin))
    assert ended["status"] == "failed"
    assert ended["error"].startswith("start_image: ")


def test_a_reference_behind_an_error_says_which(provider: Provider) -> None:
    url = f"{provider.server.origin}/v1/files/nothing"
    assert provider.made(model=VIDEO, start_image=url)["error"].endswith("HTTP 401")


def test_the_ledger_tells_what_was_asked() -> None:
    with emulating() as provider:
        provider.create(model=VIDEO)
        done = provider.made("x", image_input=[DATA_URI * 1])
        ledger = provider.ledger
        assert [(entry["created"], entry["answered"]) for entry in ledger["creates"]] == [
            (False, True),
            (True, True),
        ]
        assert ledger["creates"][1]["prediction_id"] == done["id"]
        assert len(json.dumps(ledger["creates"])) < 1000
        assert ledger["predictions"] == {"succeeded": 1}
        httpx.delete(f"{provider.server.origin}/emulator/ledger")
        assert provider.ledger["creates"] == []
        assert provider.ledger["predictions"] == {}


def test_the_tiny_mode_does_not_need_long() -> None:
    with emulating(TINY) as provider:
        began = time.monotonic()
        for number in range(100):
            provider.create(str(number), headers={"prefer": "wait"})
        assert time.monotonic() - began < 10


@pytest.mark.hazard(24)
@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://localhost:3000"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Host": "rebound.example:8900"},
        {"Host": "rebound.example:8900", "Origin": "http://rebound.example:8900"},
    ],
    ids=repr,
)
def test_a_page_of_a_browser_neither_changes_the_faults_nor_makes_anything(
    provider: Provider, headers: dict[str, str]
) -> None:
    token = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "text/plain"}
    for method, path in (
        ("PUT", "/emulator/faults"),
        ("DELETE", "/emulator/faults"),
        ("DELETE", "/emulator/ledger"),
        ("POST", "/emulator/expire/x"),
        ("POST", "/v1/models/google/nano-banana/predictions"),
    ):
        sent = {**token, **headers}
        content = b'{"faults": [], "input": {}}'
        answer = httpx.request(method, provider.server.origin + path, headers=sent, content=content, trust_env=False)
        assert answer.status_code == 403, (method, path)
        assert "access-control-allow-origin" not in answer.headers


@pytest.mark.hazard(24)
def test_a_program_and_the_emulators_own_address_may_use_it(provider: Provider) -> None:
    for headers in ({}, {"Origin": provider.server.origin}, {"Sec-Fetch-Site": "none"}):
        url = f"{provider.server.origin}/emulator/faults"
        assert httpx.delete(url, headers=headers, trust_env=False).status_code == 204
    followed = {"Sec-Fetch-Site": "cross-site"}
    assert httpx.get(f"{provider.server.origin}/healthz", headers=followed, trust_env=False).status_code == 200
