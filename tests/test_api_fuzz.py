"""The real application against its own description, by a program that knows nothing else of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from api_service import Service, png, running
from openapi_spec_validator import validate

pytestmark = pytest.mark.usefixtures("nobody_waits")


@pytest.fixture
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running(tmp_path_factory.mktemp("fuzz")) as found:
        yield found


def test_the_description_of_the_real_service_is_valid(service: Service) -> None:
    document = json.loads(service.ask("GET", "/openapi.json", key="").body)
    validate(document)
    assert len(document["paths"]) > 25


# Rules between fields are no part of a schema; guessing keys would have the address locked out, and
# test_api_tenants.py knows who is asked for one.
LEFT_OUT = "positive_data_acceptance,ignored_auth"
# Not what is no part of the interface, nor images that are waited for: no worker makes them here, and
# test_openai_fuzz.py has one.
ELSEWHERE = "^/(metrics|docs|openapi.json|healthz|readyz|v1/images)"
LONGEST_S = 300


def schemathesis(service: Service, key: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("schemathesis")), "run"]
    command += [f"http://127.0.0.1:{service.port}/openapi.json", "--header", f"Authorization: Bearer {key}"]
    command += ["--exclude-path-regex", ELSEWHERE, "--max-examples=15", "--seed=7"]
    command += ["--no-color", "--generation-database=none", "--generation-allow-x00=false", "--phases=coverage,fuzzing"]
    command += [f"--exclude-checks={LEFT_OUT}"]
    environment = {**os.environ, "COLUMNS": "150"}
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=LONGEST_S, env=environment)


@pytest.mark.story
@pytest.mark.timeout(LONGEST_S + 30)
@pytest.mark.parametrize("role", ["admin", "client"])
def test_schemathesis_finds_nothing(service: Service, tmp_path: Path, role: str) -> None:
    who = service.tenant()
    service.completed(service.generate(who)["id"], png())
    key = service.admin if role == "admin" else service.key(who.client_id, campaign_id=who.campaign_id)[0]
    ran = schemathesis(service, key, tmp_path)
    assert ran.returncode == 0, ran.stdout[-8000:] + ran.stderr[-2000:]
