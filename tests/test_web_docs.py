from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from webserving import KEY, ask, make_app, make_rows, make_site, serve

from backend.web.api import docs
from backend.web.calls.operation import OPERATIONS

SWAGGER = Path(docs.__file__).parent / "static" / "swagger"


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with serve(make_app(make_site(make_rows()), [])) as found:
        yield found


def test_the_vendored_files_are_the_ones_we_wrote_down() -> None:
    lines = (SWAGGER / "VERSIONS").read_text().splitlines()
    known = {name: digest for digest, name in (line.split() for line in lines[2:])}
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in SWAGGER.iterdir()}
    found.pop("VERSIONS")
    assert found == known
    assert {"LICENSE", "NOTICE"} <= set(found)


def test_the_page_allows_no_script_but_ours_and_says_its_encoding(port: int) -> None:
    page = ask(port, "GET", "/docs")
    policy = page.headers["content-security-policy"]
    assert "script-src 'self'" in policy
    assert "unsafe-eval" not in policy
    assert b"<meta charset=" in page.body
    assert b"<script>" not in page.body
    assert page.headers["content-type"] == "text/html; charset=utf-8"


def test_the_files_are_cached_and_checked_by_etag(port: int) -> None:
    got = ask(port, "GET", "/docs/swagger-ui.css")
    assert got.headers["content-type"] == "text/css; charset=utf-8"
    assert "max-age" in got.headers["cache-control"]
    again = ask(port, "GET", "/docs/swagger-ui.css", headers={"If-None-Match": got.headers["etag"]})
    assert (again.status, again.body) == (304, b"")
    assert again.headers["etag"] == got.headers["etag"]


@pytest.mark.parametrize(
    "path", ["/docs/LICENSE", "/docs/..%2fdocs.html", "/docs/docs.html", "/docs/swagger%2fVERSIONS"]
)
def test_only_listed_files_are_served(port: int, path: str) -> None:
    assert ask(port, "GET", path).status == 404


@pytest.fixture
def chromium() -> str:
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        if os.environ.get("REQUIRE_SERVICES") == "1":
            pytest.fail("chromium is missing (apt-get install chromium)")
        pytest.skip("chromium is not installed")
    return program


def test_the_page_shows_every_operation_and_asks_no_other_host(port: int, chromium: str) -> None:
    from playwright.sync_api import sync_playwright

    asked: list[str] = []
    complaints: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(f"http://127.0.0.1:{port}/docs")
        page.wait_for_selector(".opblock", timeout=30_000)
        shown = page.locator(".opblock").count()
        page.locator(".opblock").first.click()
        page.wait_for_selector(".opblock-body", timeout=10_000)
        browser.close()
    assert complaints == []
    assert all(url.startswith((f"http://127.0.0.1:{port}/", "data:")) for url in asked), asked
    assert len(asked) >= 4
    assert shown == len(
        [
            made
            for made in OPERATIONS
            if made.in_schema and made.auth == "none" and made.tags[:1] in (["docs"], ["health"])
        ]
    )
    assert KEY not in str(asked)
