"""Secrets with a canary in each go through a whole story; then everything that was written anywhere is searched."""

from __future__ import annotations

import base64
import json
import re
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import commands
import pytest
from api_service import form, png
from emulating import TOKEN, Provider, emulating
from gateway import READY, Gateway
from webserving import Answer, ask, until

from backend import logs
from backend.cli.processes import environment, free_port
from backend.emulator import WEBHOOK_SECRET, EmulatorOptions

R8 = "r8_canaryTOKENcanaryTOKENcanaryTOKEN"
DATA_KEY = "canaryDATAKEYcanaryDATAKEYcanaryDATAKEY"
WHSEC = "whsec_" + base64.b64encode(b"canary of the webhook secret").decode()
NOT_A_KEY = "sk_" + "canaryBADKEY" * 3 + "xxxxxxx"
REDIS = "canaryREDISpassword"


@dataclass
class Story:
    """A service as a process with canaries for secrets, and every answer it gave."""

    gateway: Gateway
    keys: list[str] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    hidden: list[str] = field(default_factory=list)
    log: str = ""

    def ask(self, method: str, path: str, body: Any = None, key: str | None = None, **more: Any) -> Answer:
        port = int(self.gateway.origin.rpartition(":")[2])
        answer = ask(port, method, path, key=self.keys[0] if key is None else key or None, json_body=body, **more)
        self.answers.append(answer)
        return answer

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        given = environment(self.gateway.settings)
        return commands.run_text(*words, environment=given, folder=self.gateway.folder)


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    folder = tmp_path_factory.mktemp("canaries")
    options = EmulatorOptions(
        api_token=R8, webhook_secret=WHSEC, image_s=0, video_s=0, render="tiny", webhook_delays_s=(0.05,)
    )
    assert TOKEN != R8 and WHSEC != WEBHOOK_SECRET
    with emulating(options) as provider:
        gateway = Gateway(
            f"http://127.0.0.1:{free_port()}", folder=folder, settings=settings(folder, provider), forked=True
        )
        gateway.settings["BASE_URL"] = gateway.origin
        told = Story(gateway)
        made = told.run("keys", "create", "--name", "canary", "--admin", "--json")
        assert made.returncode == 0, made.stderr
        told.keys.append(json.loads(made.stdout)["key"])
        gateway.start()
        try:
            live(told)
        finally:
            assert gateway.stop() == 0
            gateway.close()
        told.log = gateway.log()
        yield told


def settings(folder: Path, provider: Provider) -> dict[str, str]:
    return {
        "DATABASE_URL": f"sqlite:///{folder}/reelhook.db",
        "STORAGE_URL": f"file:{folder}/media",
        "REPLICATE_API_TOKEN": R8,
        "REPLICATE_WEBHOOK_SECRET": WHSEC,
        "REPLICATE_BASE_URL": f"{provider.server.origin}/v1",
        "REDIS_URL": f"redis://:{REDIS}@127.0.0.1:9/0",
        "DATA_KEY": DATA_KEY,
        "MIN_FREE_MB": "0",
        "IMAGE_RATE_LIMIT": "1000/minute",
        "WRITE_RATE_LIMIT": "10000/minute",
    }


def live(story: Story) -> None:
    """All that people and programs do with secrets, rightly and wrongly."""
    client = story.ask("POST", "/api/v2/clients", {"name": "c"}).json()["id"]
    made = story.ask("POST", "/api/v2/keys", {"name": "k", "client_id": client})
    story.answers.remove(made)  # the one answer that shows a key
    story.keys.append(made.json()["key"])
    campaign = story.ask("POST", "/api/v2/campaigns", {"name": "c"}, key=story.keys[1]).json()["id"]
    generate(story, campaign)
    mislay(story, campaign)
    forge(story)
    for path in ("/metrics", "/readyz", "/healthz", "/openapi.json", "/docs"):
        story.ask("GET", path, key="")


def generate(story: Story, campaign: str) -> None:
    """An image from an asset that travels inline, to its end, and its link."""
    body, headers = form(png())
    asset = story.ask("POST", "/api/v2/assets", key=story.keys[1], content=body, headers=headers).json()["id"]
    for more in ({"prompt": "a fox"}, {"asset_id": asset}):
        wanted = {"campaign_id": campaign, **more}
        id = story.ask("POST", "/api/v2/generate/image", wanted, key=story.keys[1]).json()["id"]
        until(lambda id=id: story.ask("GET", f"/api/v2/generations/{id}").json()["status"] == "completed", 30)
        link = story.ask("GET", f"/api/v2/generations/{id}", key=story.keys[1]).json()["url"]
        story.hidden.append(link.partition("sig=")[2])
        story.ask("GET", link.removeprefix(story.gateway.origin), key="")
        story.ask("GET", link.removeprefix(story.gateway.origin)[:-1] + "!", key="")
    with closing(sqlite3.connect(story.gateway.folder / "reelhook.db")) as database:
        story.hidden += [row[0] for row in database.execute("SELECT nonce FROM generations")]


def mislay(story: Story, campaign: str) -> None:
    """Secrets where none belong: in paths, queries, bodies, names and headers."""
    for secret in (story.keys[1], NOT_A_KEY, R8, WHSEC):
        story.ask("GET", f"/api/v2/generations/{secret}")
        story.ask("GET", f"/{secret}?token={secret}&key={secret}", key="")
        story.ask("GET", f"/api/v2/generations?api_key={secret}")
        story.ask("GET", f"/%0d%0aAuthorization:%20Bearer%20{secret}%0a{secret}", key="")
        story.ask("POST", "/api/v2/campaigns", {"name": "x", secret: secret})
        story.ask("GET", "/api/v2/campaigns", key="", headers={"Authorization": secret, "X-Request-Id": f"{secret}\t"})
    story.ask("GET", "/api/v2/campaigns", key=NOT_A_KEY)
    story.ask("GET", "/api/v2/campaigns", key="", headers={"Authorization": f"Basic {NOT_A_KEY}"})
    inside = f"http://canaryUSER:canaryPASSWORD@127.0.0.1:9/?sig=canarySIG&data=data:image/png;base64,{'canary' * 10}"
    story.ask("POST", "/api/v2/assets", {"url": inside}, key=story.keys[1])
    wanted = {"campaign_id": campaign, "prompt": "x", "webhook_url": inside}
    story.ask("POST", "/api/v2/generate/image", wanted, key=story.keys[1])


def forge(story: Story) -> None:
    """Webhooks that are not the provider's."""
    path = f"/webhooks/replicate/01890000-0000-7000-8000-000000000000/{'canaryNONCE' * 3}"
    signed = {"webhook-id": "m", "webhook-timestamp": "1", "webhook-signature": "v1,canarySIGNATURE="}
    for bent in (path, "/" + path, path + "/more", path.replace("replicate", "nobody")):
        story.ask("POST", bent, {"id": "x"}, key="", headers=signed)


def secrets(story: Story) -> list[str]:
    texts = [R8, DATA_KEY, WHSEC, WHSEC.removeprefix("whsec_").rstrip("="), NOT_A_KEY, REDIS, *story.keys]
    return [*texts, *story.hidden, "canaryPASSWORD", "canarySIG", "canaryNONCE"]


def told_in(text: str, story: Story) -> list[str]:
    return [secret for secret in secrets(story) if secret in text]


@pytest.mark.hazard(49)
def test_no_secret_is_in_the_log_of_a_whole_story(story: Story) -> None:
    assert len(story.log.splitlines()) > 50
    assert told_in(story.log, story) == []
    assert "canaryUSER" not in story.log


@pytest.mark.hazard(49)
def test_no_answer_repeats_a_secret(story: Story) -> None:
    owed = [answer for answer in story.answers if answer.status >= 400 or b"reelhook_" in answer.body]
    assert len(owed) > 20
    for answer in owed:
        assert answer.status < 500 or answer.status == 503
        assert told_in(answer.body.decode() + repr(answer.headers), story) == []
    for answer in story.answers:
        text = answer.body.decode("latin-1")
        assert [secret for secret in (R8, DATA_KEY, WHSEC, REDIS, *story.keys) if secret in text] == []


@pytest.mark.hazard(49)
def test_the_database_holds_no_key_and_no_token_only_hashes(story: Story) -> None:
    folder = story.gateway.folder
    held = b"".join(path.read_bytes() for path in folder.glob("reelhook.db*"))
    for secret in (R8, DATA_KEY, WHSEC, NOT_A_KEY, REDIS, *story.keys):
        assert secret.encode() not in held
        assert base64.b64encode(secret.encode()) not in held
    with closing(sqlite3.connect(folder / "reelhook.db")) as database:
        for (hash_,) in database.execute("SELECT hash FROM api_keys"):
            assert re.fullmatch(r"\$2b\$10\$[./A-Za-z0-9]{53}", hash_)


@pytest.mark.hazard(49)
@pytest.mark.parametrize("words", [["doctor"], ["doctor", "--json"], ["keys", "list"], ["keys", "list", "--json"]])
def test_no_command_prints_a_secret(story: Story, words: list[str]) -> None:
    done = story.run(*words)
    assert told_in(done.stdout + done.stderr, story) == []
    assert len(done.stdout) > 50


@pytest.mark.hazard(49)
@pytest.mark.parametrize(
    "name", ["REPLICATE_API_TOKEN", "REPLICATE_WEBHOOK_SECRET", "DATABASE_URL", "REDIS_URL", "DATA_KEY"]
)
def test_a_setting_that_makes_no_sense_is_not_quoted(story: Story, name: str) -> None:
    told = Story(Gateway(story.gateway.origin, folder=story.gateway.folder, settings=dict(story.gateway.settings)))
    told.gateway.settings[name] = (
        "nonsense://user:canaryNONSENSE@127.0.0.1:9/\n\x1b[31m" if "URL" in name else "canaryNONSENSE\n"
    )
    done = told.run("doctor")
    assert "canaryNONSENSE" not in done.stdout + done.stderr


EDGES = [
    "{}",
    "\n{}",
    "a\n{}",
    "\t{}",
    "é{}",
    "%20{}",
    "%0a{}",
    "x_{}",
    "'{}'",
    "b'{}'",
    "({})",
    "\\n{}",
    "\x00{}",
    "={}",
    "\u2028{}",
]
WORDS = ["sk_CANARYCANARY", "r8_CANARYCANARY", "whsec_CANARYCANARY", "AIzaCANARYCANARY", "Bearer CANARYCANARY"]
WORDS += [
    "token=CANARY",
    "X-API-Key: CANARY",
    "Authorization: Basic CANARYCANARY",
    "nonce=CANARY",
    '"secret": "CANARY"',
]
WORDS += ["https://CANARY@example.com/", "https://user:CANARY@example.com/", "data:image/png;base64," + "CANARY" * 4]
WORDS += ["client_secret=CANARY", "[(b'x-api-key', b'CANARY')]", "refresh_token=CANARY", "sig%3DCANARY"]


@pytest.mark.hazard(49)
@pytest.mark.parametrize("edge", EDGES, ids=ascii)
def test_a_secret_is_found_whatever_stands_before_it(edge: str) -> None:
    for word in WORDS:
        line = logs._write_line(None, "info", {"event": edge.format(word), "deep": {"a": [edge.format(word)]}})
        assert "CANARY" not in line, word
        assert "CANARY" not in logs.redact(edge.format(word))


@pytest.mark.hazard(49)
@pytest.mark.parametrize(
    "text",
    ["key_hash_malformed", "idempotency_key_reused", "task_force", "risk_assessment", "monkey=1", '"key_id": "019"'],
)
def test_words_that_only_look_like_secrets_stay(text: str) -> None:
    assert logs.redact(text) == text


FORGERIES = [
    '\r\n{"event": "forged"}',
    "\x1b[2J\x1b]0;owned\x07",
    "\u2028forged",
    "\x00\x08\x7f\x9b31m",
    "\n\nforged",
    "\ud800",
]


@pytest.mark.hazard(50)
def test_every_line_of_the_log_is_one_object_of_plain_ascii(story: Story) -> None:
    lines = [line for line in story.log.split("\n") if line and not line.startswith(READY)]
    for line in lines:
        assert line.isascii() and line.isprintable(), line
        assert isinstance(json.loads(line), dict)
    requests = [one for one in map(json.loads, lines) if one["event"] == "request"]
    assert len({one["request_id"] for one in requests}) == len(requests) > 40


@pytest.mark.hazard(50)
@pytest.mark.parametrize("text", FORGERIES, ids=ascii)
@pytest.mark.parametrize("where", ["event", "value", "name", "exception"])
def test_nothing_said_makes_a_second_line_or_colours_a_terminal(text: str, where: str) -> None:
    event: dict[str, Any] = {"event": "said", "level": "info"}
    event |= {"event": text} if where == "event" else {text: 1} if where == "name" else {"value": ValueError(text)}
    line = logs._write_line(None, "info", event)
    assert line.isascii() and line.isprintable()
    assert json.loads(line)
