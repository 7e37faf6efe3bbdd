"""Every secret can be turned over: what was signed before goes on as long as it is meant to, and no longer."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import commands
import httpx
import pytest
from api_service import Service, Tenant, png, running
from emulating import Provider, emulating, until
from gateway import new_gateway
from receivers import happen, receiving, tell
from test_lifecycle_webhooks import LOST, submitted
from test_webhooks_out import verified
from workshop import Clock, Workshop, working

from backend.cli.processes import environment
from backend.config import Settings
from backend.config.loading import load
from backend.core import ids
from backend.core.errors import SettingsError
from backend.core.webhooks import new_secret
from backend.db import webhook_secrets
from backend.disk import data_key
from backend.emulator import WEBHOOK_SECRET
from backend.live import links
from backend.providers import signatures

pytestmark = pytest.mark.hazard(62)
ROOT = Path(__file__).parent.parent
SECRET = "/api/v2/webhook-secret"
DAY_S = 86_400


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    before = ids._last
    with running(tmp_path, webhook_allow_cidrs="127.0.0.0/8") as found:
        found.ctx.now = Clock()
        yield found
    ids._last = before  # ids are never smaller than those of a clock that was ahead


@pytest.fixture
def who(service: Service) -> Tenant:
    return service.tenant()


def turned(service: Service, who: Tenant, **more: Any) -> dict[str, Any]:
    answer = service.ask("POST", f"{SECRET}/rotate", {}, key=who.key, **more)
    assert answer.status == 200, answer.body
    return dict(answer.json())


# The client's own webhook secret


def test_a_clients_own_secret_is_shown_once_to_whoever_asks_first(service: Service, who: Tenant) -> None:
    answers = [service.ask("GET", SECRET, key=key).json() for key in (who.key, who.key)]
    answers.append(service.ask("GET", f"{SECRET}?client_id={who.client_id}").json())
    assert signatures.read_secret(answers[0]["secret"]) and answers[0]["hint"] is None
    assert [each["secret"] for each in answers[1:]] == [None, None] and "rotate" in answers[1]["hint"]
    assert {each["created_at"] for each in answers} == {answers[0]["created_at"]}
    assert service.ask("HEAD", SECRET, key=service.tenant("other").key).status == 405


def test_of_many_who_ask_at_once_one_is_shown_it(service: Service, who: Tenant) -> None:
    found: list[str | None] = []
    ask = lambda: found.append(service.ask("GET", SECRET, key=who.key).json()["secret"])  # noqa: E731
    threads = [threading.Thread(target=ask) for _ in range(12)]
    [thread.start() for thread in threads]  # type: ignore[func-returns-value]
    [thread.join(30) for thread in threads]  # type: ignore[func-returns-value]
    assert len(found) == 12 and len([one for one in found if one]) == 1


def test_a_secret_that_was_only_used_so_far_is_shown_to_the_first_who_asks(service: Service, who: Tenant) -> None:
    with receiving() as receiver:
        happen(service, who, webhook_url=receiver.url)
        tell(service)
        (letter,) = receiver.got
    assert verified(service.ask("GET", SECRET, key=who.key).json()["secret"], letter)


def test_for_a_day_the_old_secret_of_a_client_signs_too(service: Service, who: Tenant) -> None:
    old = service.ask("GET", SECRET, key=who.key).json()["secret"]
    new = turned(service, who)
    assert new["secret"] != old and new["rotating_until"] and new["hint"] is None
    assert service.ask("GET", SECRET, key=who.key).json() == new | {"secret": None, "hint": new_hint(service, who)}
    with receiving() as receiver:
        happen(service, who, webhook_url=receiver.url)
        tell(service)
        letter = receiver.got[0]
        assert verified(old, letter) == verified(new["secret"], letter)
        write(service, "UPDATE clients SET webhook_old_secret_until = 1")  # as a day later
        happen(service, who, webhook_url=receiver.url)
        tell(service)
        later = receiver.got[1]
    assert verified(new["secret"], later) and len(later.headers["webhook-signature"].split()) == 1
    assert service.ask("GET", SECRET, key=who.key).json()["rotating_until"] is None


def new_hint(service: Service, who: Tenant) -> Any:
    return service.ask("GET", SECRET, key=who.key).json()["hint"]


def write(service: Service, sql: str) -> None:
    service.run(service.ctx.db.write(lambda tx: tx.run(sql)))


def test_a_rotation_whose_answer_was_lost_five_times_breaks_nobody(service: Service, who: Tenant) -> None:
    every = [turned(service, who)["secret"] for _ in range(7)]
    with receiving() as receiver:
        happen(service, who, webhook_url=receiver.url)
        tell(service)
        (letter,) = receiver.got
    assert len(letter.headers["webhook-signature"].split()) == 5
    for secret in every[2:]:
        assert verified(secret, letter)


def test_a_repeated_rotation_rotates_once_and_shows_the_secret_once(service: Service, who: Tenant) -> None:
    heads = {"Idempotency-Key": "turn"}
    first, again = (turned(service, who, headers=heads) for _ in range(2))
    assert again == first | {"secret": None, "hint": again["hint"]} and "rotate" in again["hint"]
    kept = service.run(service.ctx.db.read(lambda tx: webhook_secrets.get(tx, who.client_id)))
    assert kept.secret == first["secret"] and kept.old_secret is None
    text = str(service.run(service.ctx.db.read(lambda tx: tx.all("SELECT body FROM idempotency_keys")))[0]["body"])
    assert first["secret"] not in text


def test_another_client_turns_nobody_elses_secret(service: Service, who: Tenant) -> None:
    other = service.tenant("other")
    mine = service.ask("GET", SECRET, key=who.key).json()["secret"]
    path = f"{SECRET}/rotate?client_id={who.client_id}"
    assert service.ask("POST", path, {}, key=other.key).status == 404
    assert service.run(service.ctx.db.read(lambda tx: webhook_secrets.get(tx, who.client_id))).secret == mine
    assert service.ask("POST", path, {}).json()["client_id"] == who.client_id


# The key of media links


@pytest.fixture
def image(service: Service, who: Tenant) -> str:
    id = str(service.generate(who)["id"])
    service.completed(id, png())
    return id


def fetched(service: Service, link: str) -> tuple[int, str | None]:
    parts = urlsplit(link)
    answer = service.ask("GET", f"{parts.path}?{parts.query}", key="")
    return answer.status, None if answer.status == 200 else answer.json()["code"]


def link_of_before(key: bytes, id: str, expires: int) -> str:
    """As links were until they named their key."""
    text = f"v1\nGET\nimages\n{id}\n{expires}\ndata"
    signature = base64.urlsafe_b64encode(hmac.digest(key, text.encode(), hashlib.sha256)[:24]).decode()
    return f"/api/v2/images/{id}/data?exp={expires}&sig={signature}"


def test_links_of_an_old_key_work_while_it_is_there_and_new_ones_name_the_new(service: Service, image: str) -> None:
    ctx, old, new = service.ctx, b"o" * 32, b"n" * 32
    ctx.data_key = old
    before, ancient = links.link(ctx, "images", image), link_of_before(old, image, 4_000_000_000)
    ctx.data_key, ctx.old_data_keys = new, (b"between" * 5, old)
    now = links.link(ctx, "images", image)
    assert [fetched(service, link)[0] for link in (before, ancient, now)] == [200, 200, 200]
    names = [parse_qs(urlsplit(link).query)["sig"][0].partition(".")[0] for link in (before, now)]
    assert names == [data_key.id_of(old), data_key.id_of(new)] and names[0] != names[1]
    ctx.old_data_keys = ()
    assert [fetched(service, link) for link in (before, ancient)] == [(403, "bad_signature")] * 2
    assert fetched(service, now)[0] == 200


@pytest.mark.parametrize("change", ["no name", "another name", "empty name", "two names", "name alone", "v1 of new"])
def test_a_link_whose_key_has_another_name_or_none_is_none_of_ours(service: Service, image: str, change: str) -> None:
    ctx = service.ctx
    ctx.data_key, ctx.old_data_keys = b"n" * 32, (b"o" * 32,)
    head, _, signed = links.link(ctx, "images", image).partition("sig=")
    name, _, signature = signed.partition(".")
    bent = {
        "no name": signature,
        "another name": f"{data_key.id_of(b'o' * 32)}.{signature}",
        "empty name": f".{signature}",
        "two names": f"{name}.{name}.{signature}",
        "name alone": f"{name}.",
        "v1 of new": f"{name}.{link_of_before(b'n' * 32, image, 4_000_000_000).partition('sig=')[2]}",
    }[change]
    assert fetched(service, f"{head}sig={bent}") == (403, "bad_signature")
    assert fetched(service, f"{head}sig={signed}")[0] == 200


def test_the_name_of_a_key_tells_nothing_of_it() -> None:
    assert len(data_key.id_of(b"k" * 32)) == 8 and data_key.id_of(b"k" * 32) != data_key.id_of(b"k" * 33)


def settings(tmp_path: Path, **more: Any) -> Settings:
    given = {"database_url": f"sqlite:///{tmp_path}/reelhook.db", "storage_url": f"file:{tmp_path}/media"}
    return Settings(_env_file=None, **(given | more))


@pytest.mark.parametrize("key", ["x" * 31, "short", " " * 40 + "x"])
def test_a_short_data_key_is_refused_at_the_start_by_name_and_not_shown(tmp_path: Path, key: str) -> None:
    place = {"DATABASE_URL": f"sqlite:///{tmp_path}/a.db", "STORAGE_URL": f"file:{tmp_path}/media", "DATA_KEY": key}
    done = commands.run_text("serve", "--port", "0", environment=environment(place))
    assert done.returncode == 1 and "DATA_KEY: needs at least 32 characters" in done.stderr
    assert "short" not in done.stderr and not (tmp_path / "a.db").exists()


def test_empty_keys_count_as_unset_and_old_ones_may_be_short(tmp_path: Path) -> None:
    empty = settings(tmp_path, data_key="", data_key_old="")
    assert (empty.data_key, data_key.read_old(empty)) == (None, ())
    old = settings(tmp_path, data_key="k" * 32, data_key_old=" a short one , another,, ")
    assert data_key.read_old(old)[:2] == (b"a short one", b"another")
    assert b"one,with a comma" in data_key.read_old(settings(tmp_path, data_key_old="one,with a comma"))


def test_the_lines_of_the_documentation_turn_the_data_key_over(tmp_path: Path) -> None:
    """As an operator does it: the lines, a restart, and after a year the old key is taken out."""
    if not (shutil.which("openssl") and shutil.which("sh")):
        assert os.environ.get("REQUIRE_SERVICES") != "1", "openssl is needed"
        pytest.skip("openssl is needed")
    text = (ROOT / "docs/operating.md").read_text()
    lines = re.search(r"```sh\n(echo \"DATA_KEY_OLD.*?)```", text, re.DOTALL)
    assert lines
    with emulating() as provider:
        place = {"DATABASE_URL": "sqlite:///data/reelhook.db"}
        service = new_gateway(tmp_path, provider, forked=True, **place)
        try:
            service.start()
            service.begin()
            made = service.ended(service.ask()["id"], "completed")
            assert service.stop() == 0
            subprocess.run(["sh", "-euc", lines[1]], cwd=tmp_path, check=True, timeout=30)
            service.start()
            again = service.get(made["id"])
            with httpx.Client(trust_env=False) as stranger:
                names = [url["url"].partition("sig=")[2].partition(".")[0] for url in (made, again)]
                assert names[0] != names[1]
                assert [stranger.get(one["url"]).status_code for one in (made, again)] == [200, 200]
                assert service.stop() == 0
                kept = [line for line in (tmp_path / ".env").read_text().splitlines() if "_OLD" not in line]
                (tmp_path / ".env").write_text("\n".join(kept))
                service.start()
                assert [stranger.get(one["url"]).status_code for one in (made, again)] == [403, 200]
        finally:
            service.abandon()
            service.close()


# The provider's webhook secret


def signed(prediction: dict[str, Any], secret: bytes, name: str) -> dict[str, Any]:
    body, at = json.dumps(prediction).encode(), int(time.time())
    headers = {"webhook-id": name, "webhook-timestamp": str(at)}
    return {"content": body, "headers": headers | {"webhook-signature": signatures.sign(secret, name, at, body)}}


def post(shop: Workshop, id: str, prediction: dict[str, Any], secret: bytes, name: str) -> int:
    path = f"/webhooks/replicate/{id}/{shop.row(id).nonce}"
    return int(shop.http.post(path, **signed(prediction, secret, name)).status_code)


@pytest.mark.parametrize("between", [",", " ", ", ", "\n", " ,\t"])
def test_any_of_several_webhook_secrets_verifies(tmp_path: Path, provider: Provider, between: str) -> None:
    secrets = [new_secret() for _ in range(3)]
    several = between.join(secrets)
    with working(tmp_path, provider, worker=False, replicate_webhook_secret=several) as bench:
        provider.spoil(LOST)
        id, prediction = submitted(bench, provider)
        answers = [post(bench, id, prediction, signatures.read_secret(one), f"m{n}") for n, one in enumerate(secrets)]
        answers.append(post(bench, id, prediction, signatures.read_secret(WEBHOOK_SECRET), "m9"))
        bench.finished = False
    assert answers == [200, 200, 200, 401]


@pytest.mark.parametrize("wrong", ["whsec_AA", "nonsense", "whsec_"])
def test_one_wrong_secret_among_several_stops_the_start_by_name(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPLICATE_WEBHOOK_SECRET", f"{new_secret()},{wrong}")
    with pytest.raises(SettingsError, match=r"^REPLICATE_WEBHOOK_SECRET: ") as refused:
        load()
    assert wrong not in str(refused.value.message) or wrong == "whsec_"


def test_a_stranger_cannot_make_us_ask_for_the_secret_more_than_once_a_minute(
    bench: Workshop, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider.spoil(LOST)
    id, prediction = submitted(bench, provider)
    calls = count_asks(bench, monkeypatch)
    assert post(bench, id, prediction, signatures.read_secret(WEBHOOK_SECRET), "true") == 200
    for minute in range(3):
        for number in range(20):
            assert post(bench, id, prediction, b"x" * 32, f"m{minute}-{number}") == 401
        assert 1 <= len(calls) <= minute + 2
        move_secret_time(bench, -61_000)
    bench.finished = False


def count_asks(bench: Workshop, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Each request for the account's secret, from now on."""
    replicate: Any = bench.ctx.providers["replicate"]
    calls: list[str] = []
    true = replicate._http.call

    async def call(method: str, url: str, **more: Any) -> Any:
        if url.endswith("/webhooks/default/secret"):
            calls.append(url)
        return await true(method, url, **more)

    monkeypatch.setattr(replicate._http, "call", call)
    return calls


def move_secret_time(bench: Workshop, ms: int) -> None:
    """As if the secret had been asked for earlier."""
    replicate: Any = bench.ctx.providers["replicate"]
    replicate.webhooks._asked_at += ms


def test_a_secret_that_was_given_up_is_not_believed_for_longer_than_a_day(bench: Workshop, provider: Provider) -> None:
    provider.spoil(LOST)
    id, prediction = submitted(bench, provider)
    replicate: Any = bench.ctx.providers["replicate"]
    replicate.webhooks._secret, replicate.webhooks._asked_at = (
        b"o" * 32,
        bench.ctx.now() - 1000,
    )  # the provider has another by now
    assert post(bench, id, prediction, b"o" * 32, "m1") == 200  # nobody told us yet
    move_secret_time(bench, -DAY_S * 1000)
    assert post(bench, id, prediction, b"o" * 32, "m2") == 401
    assert post(bench, id, prediction, signatures.read_secret(WEBHOOK_SECRET), "m3") == 200
    bench.finished = False


def test_while_the_provider_does_not_say_its_secret_the_known_one_stays(
    bench: Workshop, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider.spoil(LOST)
    id, prediction = submitted(bench, provider)
    assert post(bench, id, prediction, signatures.read_secret(WEBHOOK_SECRET), "m1") == 200
    replicate: Any = bench.ctx.providers["replicate"]
    monkeypatch.setattr(replicate, "base_url", "http://127.0.0.1:1/v1")
    move_secret_time(bench, -DAY_S * 1000 - 1)
    assert post(bench, id, prediction, signatures.read_secret(WEBHOOK_SECRET), "m2") == 200
    bench.finished = False


def test_a_webhook_of_a_secret_we_do_not_know_yet_costs_time_and_not_the_result(tmp_path: Path) -> None:
    """The provider changed its secret a moment after we asked: its webhooks are refused, the result is polled for."""
    with emulating() as provider, working(tmp_path, provider) as shop:
        replicate: Any = shop.ctx.providers["replicate"]
        replicate.webhooks._secret, replicate.webhooks._asked_at = b"o" * 32, shop.ctx.now() + 3_600_000
        id = shop.ask()["id"]
        shop.reach(id, "processing", "storing", "completed")
        for _ in range(5):  # not in one go: a clock that runs ahead of the work ends its leases
            shop.forward(11)
            with suppress(AssertionError):
                until(lambda: shop.get(id)["status"] == "completed", 4)
                break
        shop.ended(id, "completed")
