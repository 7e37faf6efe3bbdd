"""Replicate's own clients take the emulator for the real service."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from emulating import TOKEN, Provider, emulating, png, receiving, saved, until

from backend.emulator import PROVIDERS, EmulatorOptions

pytestmark = pytest.mark.story

SDK_1 = """
import sys, replicate
from replicate.client import Client
from replicate.exceptions import ModelError, ReplicateError
from replicate.webhook import Webhooks, WebhookSigningSecret

origin, image = sys.argv[1:3]
client = Client(api_token="r8_emulator", base_url=origin)
output = client.run("google/nano-banana", input={"prompt": "a fox", "output_format": "png"})
assert str(output).startswith(origin + "/output/"), output
assert client.run("google/nano-banana", input={"prompt": "a fox"}, wait=False)

file = client.files.create(image, metadata={"a": 1})
assert client.files.get(file.id).name == "start.png"
assert file.id in [found.id for found in client.files.list()]
made = client.models.predictions.create(
    "kwaivgi/kling-v2.1", input={"prompt": "x", "start_image": file.urls["get"]}
)
made.wait()
assert made.status == "succeeded", made.error
assert "%|" in made.logs and made.progress.percentage == 1.0, made.logs
assert client.predictions.get(made.id).output == made.output
assert made.id in [found.id for found in client.predictions.list()]
with open(image, "rb") as opened:
    film = client.run("kwaivgi/kling-v2.1", input={"prompt": "x", "start_image": opened})
assert str(film).endswith(".mp4"), film

made = client.predictions.create(
    model="google/nano-banana", input={"prompt": "stuck"}, webhook=sys.argv[3], webhook_events_filter=["completed"]
)
made.cancel()
made.reload()
assert made.status == "canceled", made.status
version = client.models.get("google/nano-banana").latest_version
assert "prompt" in version.openapi_schema["components"]["schemas"]["Input"]["properties"]
assert client.predictions.create(version=version.id, input={"prompt": "x"}).status == "starting"
assert client.files.delete(file.id)
print(client.webhooks.default.secret().key)
for wrong, status in (({}, 422), ({"prompt": "x", "y": 1}, 422)):
    try:
        client.models.predictions.create("google/nano-banana", input=wrong)
    except ReplicateError as error:
        assert error.status == status and error.title == "Input validation failed", error
    else:
        raise AssertionError(wrong)
try:
    client.run("google/nano-banana", input={"prompt": "fail"})
except ModelError as error:
    assert "E005" in str(error)
else:
    raise AssertionError("no ModelError")
"""

SDK_2 = """
import sys
from replicate import Replicate

origin, image = sys.argv[1:3]
client = Replicate(bearer_token="r8_emulator", base_url=origin + "/v1", max_retries=0)
output = client.run("google/nano-banana", input={"prompt": "a fox"})
assert str(output).startswith(origin + "/output/"), output
made = client.models.predictions.create(
    model_owner="google", model_name="nano-banana", input={"prompt": "a fox"}, prefer="wait=5", cancel_after="5m"
)
assert made.status == "succeeded" and made.deadline, made
made = client.predictions.create(version="google/nano-banana", input={"prompt": "x"})
assert client.predictions.get(prediction_id=made.id).id == made.id
assert made.id in [found.id for found in client.predictions.list()]
stuck = client.predictions.create(version="google/nano-banana", input={"prompt": "stuck"})
assert client.predictions.cancel(prediction_id=stuck.id).status == "canceled"
with open(image, "rb") as opened:
    file = client.files.create(content=opened.read(), filename="start.png", type="image/png")
film = client.run("kwaivgi/kling-v2.1", input={"prompt": "x", "start_image": file.urls.get})
assert str(film).endswith(".mp4"), film
assert client.models.get(model_owner="google", model_name="nano-banana").latest_version
assert client.account.get().username == "emulator"
assert client.webhooks.default.secret.get().key.startswith("whsec_")
client.files.delete(file_id=file.id)
"""

CHECK_SIGNATURE = """
import sys, json
from replicate.webhook import Webhooks, WebhookSigningSecret

given = json.load(sys.stdin)
Webhooks.validate(
    headers=given["headers"], body=given["body"], secret=WebhookSigningSecret(key=given["key"]), tolerance=300
)
try:
    Webhooks.validate(headers=given["headers"], body=given["body"] + " ", secret=WebhookSigningSecret(key=given["key"]))
except ValueError:
    pass
else:
    raise AssertionError("a changed body was taken")
"""


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    options = EmulatorOptions(image_s=0.3, video_s=0.6, render="tiny")
    with emulating(options) as provider:
        provider.spoil(
            {"kind": "stuck", "match": {"prompt_contains": "stuck"}},
            {"kind": "failed", "match": {"prompt_contains": "fail"}},
        )
        yield provider


def run(python: str | Path, script: str, *arguments: str, text: str = "") -> str:
    """A process of its own, as the clients bring warnings and versions of their own."""
    done = subprocess.run(
        [str(python), "-c", script, *arguments], input=text, capture_output=True, text=True, timeout=90
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_first_sdk_works(provider: Provider, tmp_path: Path) -> None:
    start = saved(png(), tmp_path / "start.png")
    with receiving() as receiver:
        key = run(sys.executable, SDK_1, provider.server.origin, str(start), receiver.url).strip()
        until(lambda: receiver.got)
    headers, body = receiver.got[0]
    given = json.dumps({"headers": headers, "body": body.decode(), "key": key})
    run(sys.executable, CHECK_SIGNATURE, text=given)


@pytest.fixture(scope="session")
def second_sdk(request: pytest.FixtureRequest) -> Path:
    """The Python of an environment with the second SDK, which cannot live beside the first; made once."""
    folder = request.config.cache.mkdir("replicate-2.0.0b4")
    python = folder / "bin" / "python"
    try:
        if not python.exists():
            subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True, capture_output=True)
        if subprocess.run([python, "-c", "from replicate import Replicate"], capture_output=True).returncode:
            wanted = [str(python), "-m", "pip", "install", "-q", "--retries", "1", "replicate==2.0.0b4"]
            subprocess.run(wanted, check=True, capture_output=True, timeout=110)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as wrong:
        if os.environ.get("REQUIRE_SERVICES") == "1":
            raise
        pytest.skip(f"replicate 2.0.0b4 cannot be installed: {wrong}")
    return python


def test_the_second_sdk_works(provider: Provider, second_sdk: Path, tmp_path: Path) -> None:
    start = saved(png(), tmp_path / "start.png")
    run(second_sdk, SDK_2, provider.server.origin, str(start))


def test_the_token_of_the_emulator_is_the_documented_one() -> None:
    assert PROVIDERS["replicate"].api_key == TOKEN
