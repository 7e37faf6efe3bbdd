"""The real `openai` package, newest and 2.8.1, takes Reelhook for OpenAI."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from emulating import emulating, png, saved, until
from openai_face import OpenAIFace, losing_answers, openai_face

from backend.emulator import EmulatorOptions

pytestmark = pytest.mark.story

OLD = "openai==2.8.1"

BEGIN = """
import asyncio, base64, io, sys, urllib.request
import openai
from openai import AsyncOpenAI, OpenAI

base, key, start, campaign = sys.argv[1:5]
client = OpenAI(base_url=base, api_key=key)

def is_picture(content):
    return content.startswith((b"\\x89PNG", b"\\xff\\xd8\\xff"))

def refused(error, ask, **more):
    try:
        ask(**more)
    except error as found:
        assert found.request_id, found
        return found
    raise AssertionError(f"no {error.__name__}")
"""

IMAGES = """
made = client.images.generate(prompt="two foxes", n=2, size="1536x1024", model="gpt-image-1", quality="high")
assert len(made.data) == 2 and made.created > 1_700_000_000, made
assert all(is_picture(base64.b64decode(one.b64_json, validate=True)) for one in made.data)
assert made.data[0].b64_json != made.data[1].b64_json or made.data[0].id != made.data[1].id
linked = client.images.generate(prompt="a linked fox", response_format="url", extra_body={"campaign_id": campaign})
assert linked.data[0].b64_json is None
with urllib.request.urlopen(linked.data[0].url) as answer:
    assert is_picture(answer.read())
for _ in range(2):
    client.images.generate(prompt="the same fox on purpose", extra_headers={"X-Campaign-Id": campaign})
"""

VIDEOS = """
with open(start, "rb") as picture:
    video = client.videos.create(prompt="it moves", seconds="8", size="1280x720", input_reference=picture)
assert (video.object, video.status, video.progress, video.error) == ("video", "queued", 0, None), video
assert (video.seconds, video.model) == ("10", "kwaivgi/kling-v2.1"), video
done = client.videos.create_and_poll(
    prompt="a boat", model="sora-2", size="720x1280", extra_body={"metadata": {"order": "7"}, "duration": 5}
)
assert (done.status, done.progress, done.seconds) == ("completed", 100, "5"), done
assert done.completed_at >= done.created_at and done.expires_at is None, done
ended = client.videos.poll(video.id, poll_interval_ms=200)
assert ended.status == "completed", ended
assert client.videos.retrieve(done.id) == done

newest = [one.id for one in client.videos.list(limit=1)]
oldest = [one.id for one in client.videos.list(limit=1, order="asc")]
assert newest == oldest[::-1] and newest.index(done.id) < newest.index(video.id), newest
page = client.videos.list(limit=1, after=newest[0])
assert [one.id for one in page.data] == newest[1:2] and page.last_id == newest[1], page

film = client.videos.download_content(done.id).read()
assert film[4:8] == b"ftyp", film[:16]
assert is_picture(client.videos.download_content(done.id, variant="thumbnail").read())
with client.videos.with_streaming_response.download_content(done.id) as answer:
    assert b"".join(answer.iter_bytes()) == film
refused(openai.BadRequestError, client.videos.download_content, video_id=done.id, variant="spritesheet")

gone = client.videos.delete(done.id)
assert (gone.id, gone.deleted, gone.object) == (done.id, True, "video.deleted"), gone
missing = refused(openai.NotFoundError, client.videos.retrieve, video_id=done.id)
assert (missing.type, missing.code) == ("not_found_error", "generation_not_found"), missing.body
"""

ERRORS = """
limited, bare, foreign = sys.argv[5:8]
wrong = refused(openai.AuthenticationError, OpenAI(base_url=base, api_key="sk_" + "x" * 43).models.list)
assert (wrong.type, wrong.code) == ("authentication_error", "invalid_api_key"), wrong.body
many = refused(openai.BadRequestError, client.images.generate, prompt="x", n=9)
assert (many.type, many.param) == ("invalid_request_error", "n"), many.body
refused(openai.BadRequestError, client.images.generate, prompt="x", stream=True)
refused(openai.BadRequestError, client.images.generate, prompt="x", background="transparent")
unknown = refused(openai.BadRequestError, client.videos.create, prompt="x", model="veo-99")
assert unknown.param == "model" and "kling" in unknown.message, unknown.body
nowhere = refused(openai.BadRequestError, OpenAI(base_url=base, api_key=bare).images.generate, prompt="x")
assert nowhere.param == "campaign_id" and "X-Campaign-Id" in nowhere.message, nowhere.body
refused(openai.NotFoundError, client.images.generate, prompt="x", extra_body={"campaign_id": foreign})
refused(openai.NotFoundError, client.embeddings.create, model="x", input="x", encoding_format="float")
moderated = refused(openai.BadRequestError, client.images.generate, prompt="forbidden")
assert moderated.code == "moderation_blocked", moderated.body
broken = refused(openai.InternalServerError, client.images.generate, prompt="doomed")
assert (broken.status_code, broken.type, broken.code) == (502, "api_error", "provider_failed"), broken.body
few = OpenAI(base_url=base, api_key=limited, max_retries=0)
few.images.generate(prompt="one")
rate = refused(openai.RateLimitError, few.images.generate, prompt="two")
assert rate.type == "rate_limit_error" and int(rate.response.headers["retry-after"]) > 0, rate.body
assert [one.id for one in client.models.list()] == ["google/nano-banana", "kwaivgi/kling-v2.1"]
assert client.models.retrieve("google/nano-banana").owned_by == "replicate"
"""

ASYNC = """
async def main():
    async with AsyncOpenAI(base_url=base, api_key=key) as client:
        picture = base64.b64encode(open(start, "rb").read()).decode()
        image, video = await asyncio.gather(
            client.images.generate(prompt="an async fox"),
            client.videos.create_and_poll(
                prompt="an async boat",
                extra_body={"input_reference": {"image_url": f"data:image/png;base64,{picture}"}},
            ),
        )
        assert is_picture(base64.b64decode(image.data[0].b64_json))
        assert video.status == "completed", video
        assert (await (await client.videos.download_content(video.id)).aread())[4:8] == b"ftyp"

asyncio.run(main())
"""

LOST = """
image = client.images.generate(prompt="a lost fox")
assert is_picture(base64.b64decode(image.data[0].b64_json))
print(image.data[0].id)
"""

KILLED = """
image = client.with_options(max_retries=8).images.generate(prompt="a slow fox")
assert is_picture(base64.b64decode(image.data[0].b64_json))
print(image.data[0].id)
"""

LOST_VIDEO = """
with open(start, "rb") as picture:
    print(client.videos.create(prompt="a lost boat", input_reference=picture).id)
"""


@pytest.fixture(scope="module")
def face(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenAIFace]:
    options = EmulatorOptions(image_s=0.2, video_s=0.4, render="tiny")
    with emulating(options) as provider:
        moderated = "The input or output was flagged as sensitive. Please try again with different inputs. (E005)"
        provider.spoil(
            {"kind": "failed", "error": moderated, "match": {"prompt_contains": "forbidden"}},
            {"kind": "failed", "error": "It broke.", "match": {"prompt_contains": "doomed"}},
            {"kind": "delay", "delay_s": 3.0, "match": {"prompt_contains": "slow"}},
        )
        with openai_face(tmp_path_factory.mktemp("openai"), provider) as face:
            yield face


@pytest.fixture(scope="module")
def newest() -> Path:
    return Path(sys.executable)


@pytest.fixture(scope="session")
def oldest(request: pytest.FixtureRequest) -> Path:
    """The Python of an environment with 2.8.1, which cannot live beside the newest; made once."""
    folder = request.config.cache.mkdir(OLD.replace("==", "-"))
    python = folder / "bin" / "python"
    try:
        if not python.exists():
            subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True, capture_output=True)
        if subprocess.run([python, "-c", "from openai import OpenAI"], capture_output=True).returncode:
            wanted = [str(python), "-m", "pip", "install", "-q", "--retries", "1", OLD]
            subprocess.run(wanted, check=True, capture_output=True, timeout=110)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as wrong:
        if os.environ.get("REQUIRE_SERVICES") == "1":
            raise
        pytest.skip(f"{OLD} cannot be installed: {wrong}")
    return python


@pytest.fixture(params=["newest", "oldest"])
def python(request: pytest.FixtureRequest) -> Path:
    found: Path = request.getfixturevalue(request.param)
    return found


def run(python: Path, script: str, *arguments: str) -> str:
    """A process of its own, as the SDK brings warnings and versions of its own."""
    done = subprocess.run(
        [str(python), "-c", BEGIN + script, *arguments],
        capture_output=True,
        text=True,
        timeout=100,
        env={**os.environ, "NO_PROXY": "127.0.0.1"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def start(tmp_path: Path) -> str:
    return str(saved(png(), tmp_path / "start.png"))


def test_images_are_made(face: OpenAIFace, python: Path, start: str) -> None:
    before = len(face.generations("the same fox on purpose"))
    run(python, IMAGES, face.base, face.key, start, face.campaign_id)
    assert len(face.generations("the same fox on purpose")) == before + 2


def test_videos_are_made_found_and_removed(face: OpenAIFace, python: Path, start: str) -> None:
    run(python, VIDEOS, face.base, face.key, start, face.campaign_id)
    face.deleted += 1
    moved = face.generations("it moves")[0]
    assert moved["params"]["mode"] == "standard" and "asset_id" in moved["source"]


def test_errors_are_those_the_sdk_knows(face: OpenAIFace, python: Path, start: str) -> None:
    limited, bare = face.new_key(image_rate_limit="1/hour"), face.new_key(campaign_id=None)
    other = face.admin.post("/clients", json={"name": "other"}).json()["id"]
    foreign = face.admin.post("/campaigns", json={"name": "theirs", "client_id": other}).json()["id"]
    run(python, ERRORS, face.base, face.key, start, face.campaign_id, limited, bare, foreign)
    assert face.admin.get("/generations", params={"campaign_id": foreign}).json()["items"] == []


def test_the_async_client_works(face: OpenAIFace, python: Path, start: str) -> None:
    run(python, ASYNC, face.base, face.key, start, face.campaign_id)


def test_a_service_killed_while_somebody_waits_makes_the_image_once(face: OpenAIFace, newest: Path, start: str) -> None:
    told: list[str] = []
    asking = threading.Thread(
        target=lambda: told.append(run(newest, KILLED, face.base, face.key, start, face.campaign_id))
    )
    asking.start()
    # The provider has it: killed a moment before, it may never have been sent, and then nobody gets an image.
    until(lambda: [row for row in face.generations("a slow fox") if row["status"] == "processing"], 60)
    face.service.restart()
    asking.join(90)
    assert [row["id"] for row in face.generations("a slow fox")] == told


@pytest.mark.parametrize(("script", "prompt"), [(LOST, "a lost fox"), (LOST_VIDEO, "a lost boat")])
def test_an_answer_that_is_lost_is_not_paid_for_twice(
    face: OpenAIFace, python: Path, start: str, script: str, prompt: str
) -> None:
    before = {row["id"] for row in face.generations(prompt)}
    with losing_answers(face.service.origin) as origin:
        told = run(python, script, f"{origin}/v1", face.key, start, face.campaign_id)
    assert {row["id"] for row in face.generations(prompt)} - before == {told}
