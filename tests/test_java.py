"""Java's own HTTP client, which offers HTTP/2 with every request, works with every kind of route."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from api_service import form, running

pytestmark = [pytest.mark.hazard(53), pytest.mark.timeout(180)]

PROGRAM = Path(__file__).with_name("Drive.java")
JSON = "application/json"


def drive(port: int, key: str, *asked: tuple[str, str, str, str]) -> list[tuple[int, str]]:
    """The status and the body of each answer; each is the answer to its own request."""
    java = shutil.which("java")
    if java is None:
        pytest.skip("java is not installed")
    command = [java, str(PROGRAM), f"http://127.0.0.1:{port}", key, *(part for one in asked for part in one)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120, env=os.environ | {"LANG": "C.UTF-8"})
    assert ran.returncode == 0, ran.stderr
    told = [line.split(" ", 2) for line in ran.stdout.splitlines()]
    assert [mark for _, mark, _ in told] == [f"java-{at * 4 + 2}" for at in range(len(asked))]
    return [(int(status), body) for status, _, body in told]


def test_a_java_program_can_use_the_service(tmp_path: Path) -> None:
    with running(tmp_path) as service:
        who = service.tenant()
        wanted = json.dumps({"campaign_id": who.campaign_id, "prompt": "a fox"})
        upload, headers = form(b"no picture at all")
        ping = '{"jsonrpc": "2.0", "id": 1, "method": "ping"}'
        told = drive(
            service.port,
            who.key,
            ("POST", "/api/v2/campaigns", JSON, '{"name": "one"}'),
            ("POST", "/api/v2/generate/image", JSON, wanted),
            ("GET", "/api/v2/campaigns", "", ""),
            ("POST", "/api/v2/generate/image", JSON, "no json"),
            ("POST", "/api/v2/assets", headers["Content-Type"], upload.decode()),
            ("POST", "/mcp", JSON, ping),
            ("POST", "/v1/videos/none", JSON, "{}"),
            ("GET", "/healthz", "", "a body that nobody reads"),
            ("DELETE", "/api/v2/generations/none", "", ""),
            ("POST", "/api/v2/campaigns", JSON, '{"name": "two"}'),
        )
        assert [status for status, _ in told] == [201, 202, 200, 400, 422, 200, 405, 200, 404, 201]
        names = [one["name"] for one in service.ask("GET", "/api/v2/campaigns", key=who.key).json()["items"]]
        assert sorted(names) == ["campaign", "one", "two"]
