from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openapi_spec_validator import validate
from pydantic import Field
from starlette.responses import JSONResponse, Response
from webserving import KEY, ask, make_app, make_rows, make_site, serve

from backend.core.requests import Strict
from backend.storage import Spool
from backend.web.calls import inputs, uploads
from backend.web.calls.answering import routes
from backend.web.calls.operation import Call, Operation, operation

SPOOL = Spool(Path(tempfile.mkdtemp(prefix="uploads-")))

OPERATIONS: list[Operation] = []
BAND = "019abcde-0000-7000-8000-00000000000a"


class BandInput(Strict):
    """A band to be made."""

    name: str = Field(min_length=1, max_length=50)
    members: int = Field(4, ge=1, le=20)
    tags: dict[str, str] = Field({}, max_length=5)


class BandQuery(inputs.Query):
    limit: int = Field(20, ge=1, le=100, description="how many")
    q: str | None = Field(None, max_length=50)


class BandView(Strict):
    id: str
    name: str


class BandList(Strict):
    items: list[BandView]
    next_cursor: str | None


@operation("POST", "/api/v2/bands", body=BandInput, answers={201: BandView}, tags=["bands"], into=OPERATIONS)
async def create_band(call: Call) -> Response:
    """Make a band."""
    made = {"id": BAND, "name": call.body.name}
    return JSONResponse(made, 201, {"Location": f"/api/v2/bands/{BAND}"})


@operation("GET", "/api/v2/bands", query=BandQuery, answers={200: BandList}, tags=["bands"], into=OPERATIONS)
async def list_bands(call: Call) -> Response:
    """List bands.

    The newest come first.
    """
    return JSONResponse({"items": [{"id": BAND, "name": "x"}][: call.query.limit], "next_cursor": None})


@operation("GET", "/api/v2/bands/{id}", answers={200: BandView}, tags=["bands"], into=OPERATIONS)
async def show_band(call: Call) -> Response:
    """Show a band."""
    return JSONResponse({"id": call.path["id"], "name": "x"})


@operation("DELETE", "/api/v2/bands/{id}", answers={204: None}, auth="admin", tags=["bands"], into=OPERATIONS)
async def delete_band(call: Call) -> Response:
    """Part."""
    return Response(status_code=204)


@operation(
    "POST",
    "/api/v2/bands/{id}/songs",
    answers={202: BandView},
    limit="image",
    accepts=["multipart/form-data"],
    into=OPERATIONS,
)
async def create_song(call: Call) -> Response:
    """Play a song."""
    async with uploads.open_file(call.request, SPOOL, cap_bytes=1 << 20):
        pass
    return JSONResponse({"id": BAND, "name": "x"}, 202)


@operation("GET", "/api/v2/bands/{id}/photo", answers={200: "image/png"}, auth="media", into=OPERATIONS)
async def show_photo(call: Call) -> Response:
    """Show a photo."""
    return Response(b"x", media_type="image/png")


async def ready() -> dict[str, Any]:
    return {"database": {"ok": True, "why": None}}


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    site = make_site(make_rows(), rates={"image": "100000/minute", "video": "5/minute"}, readiness=ready)
    site.keyring._attempts._limit = 1_000_000
    with serve(make_app(site, OPERATIONS)) as found:
        yield found


@pytest.fixture(scope="module")
def document(port: int) -> dict[str, Any]:
    return dict(ask(port, "GET", "/openapi.json").json())


def test_the_description_is_valid_openapi_3_1(document: dict[str, Any]) -> None:
    validate(document)
    assert document["openapi"].startswith("3.1")


def test_every_operation_says_who_may_use_it_and_how_it_fails(document: dict[str, Any]) -> None:
    for path, methods in document["paths"].items():
        for method, made in methods.items():
            assert "security" in made, (method, path)
            assert "500" in made["responses"]
            assert made["summary"]
            if made["security"]:
                assert {"401", "429"} <= set(made["responses"])


def test_posts_document_the_idempotency_key(document: dict[str, Any]) -> None:
    names = [parameter["name"] for parameter in document["paths"]["/api/v2/bands"]["post"]["parameters"]]
    assert names == ["Idempotency-Key"]


def test_ids_are_documented_as_uuids_and_queries_with_their_bounds(document: dict[str, Any]) -> None:
    assert document["paths"]["/api/v2/bands/{id}"]["get"]["parameters"][0]["schema"]["format"] == "uuid"
    limit, q = document["paths"]["/api/v2/bands"]["get"]["parameters"]
    assert limit["schema"] == {"type": "integer", "minimum": 1, "maximum": 100, "default": 20}
    assert limit["description"] == "how many"
    assert q["schema"] == {"type": "string", "maxLength": 50}
    assert "BandQuery" not in document["components"]["schemas"]


def test_a_signed_url_is_documented_beside_the_keys(document: dict[str, Any]) -> None:
    security = document["paths"]["/api/v2/bands/{id}/photo"]["get"]["security"]
    assert [next(iter(way)) for way in security] == ["bearer", "apiKey", "signedUrl"]


def test_two_operations_for_one_method_and_path_are_a_mistake() -> None:
    with pytest.raises(ValueError, match="two operations for GET"):
        routes([*OPERATIONS, OPERATIONS[1]])


def test_routes_are_flat() -> None:
    assert all(type(route).__name__ == "Route" for route in routes(OPERATIONS))


@pytest.mark.story
def test_schemathesis_finds_nothing(port: int, tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("schemathesis")
    ran = subprocess.run(
        [
            str(program),
            "run",
            f"http://127.0.0.1:{port}/openapi.json",
            "--header",
            f"Authorization: Bearer {KEY}",
            "--exclude-path-regex",
            "^/(metrics|openapi.json)",
            "--max-examples=15",
            "--seed=4",
            "--no-color",  # NUL is refused in every text, which a schema cannot say
            "--generation-database=none",
            "--generation-allow-x00=false",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=110,
        env={**os.environ, "COLUMNS": "150"},
    )
    assert ran.returncode == 0, ran.stdout[-6000:] + ran.stderr[-2000:]


def test_the_description_is_the_same_every_time(port: int) -> None:
    first, second = ask(port, "GET", "/openapi.json"), ask(port, "GET", "/openapi.json")
    assert first.body == second.body
    assert ask(port, "GET", "/openapi.json", headers={"If-None-Match": first.headers["etag"]}).status == 304
    assert json.loads(first.body)["servers"] == [{"url": "/"}]
