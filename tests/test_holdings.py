"""What a key can make without paying is counted and bounded: bytes and rows of a client, whatever they are."""

from __future__ import annotations

import base64
import http.client
import io
import os
import sqlite3
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pydantic
import pytest
from api_service import Service, Tenant, form, png, running
from auditor import of_holdings
from emulating import Provider
from PIL import Image
from receivers import receiving, status
from test_upgrade import as_released
from webserving import ask
from workshop import Workshop, working

from backend.config import Settings
from backend.db.holdings import ROW_BYTES
from backend.db.migrate import migrate
from backend.db.versions import known
from backend.manage import storage_quota
from backend.upkeep import tidy

INSIDE = {"webhook_allow_cidrs": "127.0.0.0/8"}
TINY_GB = 0.0001  # 100 kB


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with running(tmp_path, max_client_gb=TINY_GB) as found:
        yield found
    with closing(sqlite3.connect(tmp_path / "test.db")) as connection:
        connection.row_factory = sqlite3.Row
        assert not list(of_holdings(connection))


@pytest.fixture
def who(service: Service) -> Tenant:
    return service.tenant()


def kept(service: Service, who: Tenant) -> dict[str, Any]:
    """What the client is told that it keeps."""
    found: dict[str, Any] = service.ask("GET", "/api/v2/usage", key=who.key).json()["storage"]
    return found


def noise(size: int) -> bytes:
    """A picture that no coding makes small, of about so many bytes."""
    width = max(1, size // 3 // 64)
    out = io.BytesIO()
    Image.frombytes("RGB", (width, 64), os.urandom(width * 64 * 3)).save(out, "PNG")
    return out.getvalue()


def upload(service: Service, who: Tenant, content: bytes, **headers: str) -> Any:
    body, more = form(content)
    return ask(service.port, "POST", "/api/v2/assets", key=who.key, content=body, headers={**more, **headers})


@pytest.mark.hazard(56)
def test_what_a_client_keeps_is_counted_and_told(service: Service, who: Tenant) -> None:
    before = kept(service, who)
    assert before["limit_bytes"] == 100_000 and before["rows"]["campaigns"] == before["rows"]["keys"] == 1
    content = noise(9_000)
    asset = upload(service, who, content, **{"Idempotency-Key": "once"}).json()
    made = service.generate(who, prompt="ü" * 500)
    service.completed(made["id"], png())
    now = kept(service, who)
    assert now["file_bytes"] == len(content) + len(png())
    assert now["text_bytes"] >= 1_000
    rows = Counter(now["rows"]) - Counter(before["rows"])
    assert rows == {"assets": 1, "generations": 1, "answers": 1}
    assert now["bytes"] == now["file_bytes"] + now["text_bytes"] + ROW_BYTES * sum(now["rows"].values())
    assert service.ask("DELETE", f"/api/v2/assets/{asset['id']}", key=who.key).status == 204
    assert service.ask("DELETE", f"/api/v2/generations/{made['id']}", key=who.key).status == 204
    assert kept(service, who)["file_bytes"] == 0
    assert service.ask("GET", "/api/v2/usage").json()["storage"] is None
    of_one = service.ask("GET", f"/api/v2/usage?client_id={who.client_id}").json()["storage"]
    assert of_one == kept(service, who)


@pytest.mark.hazard(56)
def test_a_full_client_can_add_nothing_and_what_it_paid_for_is_stored(service: Service, who: Tenant) -> None:
    made = service.generate(who)
    other = service.tenant("another")
    large = noise(80_000)
    assert upload(service, who, large).status == 201
    service.completed(made["id"], noise(40_000))  # paid for: there is no question
    before = kept(service, who)
    assert before["bytes"] > before["limit_bytes"]
    wanted = {"campaign_id": who.campaign_id, "prompt": "a fox"}
    failed = service.generate(other)["id"]
    service.failed(failed)
    refused = [
        upload(service, who, png()),
        service.ask("POST", "/api/v2/generate/image", wanted, key=who.key),
        service.ask("POST", "/api/v2/campaigns", {"name": "more"}, key=who.key),
        service.ask("POST", "/api/v2/webhook-endpoints", {"url": "https://example.com/"}, key=who.key),
        service.ask("POST", "/api/v2/assets", {"url": "https://example.com/a.png"}, key=who.key),
    ]
    assert [(answer.status, answer.json()["code"]) for answer in refused] == [(507, "client_full")] * 5
    assert {answer.headers["content-type"] for answer in refused} == {"application/problem+json"}
    other_face = service.ask("POST", "/v1/images/generations", {"prompt": "a fox", "model": "x"}, key=who.key)
    assert other_face.status in (400, 507)
    assert kept(service, who) == before, "what was refused changed nothing"
    assert service.ask("GET", f"/api/v2/images/{made['id']}/data", key=who.key).status == 200
    assert upload(service, other, png()).status == 201
    assert service.ask("POST", f"/api/v2/generations/{failed}/retry", {}, key=other.key).status == 202
    for asset in service.ask("GET", "/api/v2/assets", key=who.key).json()["items"]:
        assert service.ask("DELETE", f"/api/v2/assets/{asset['id']}", key=who.key).status == 204
    assert service.ask("POST", "/api/v2/generate/image", wanted, key=who.key).status == 202


@pytest.mark.hazard(56)
def test_many_uploads_at_once_never_overrun_the_room(service: Service, who: Tenant) -> None:
    content = noise(20_000)
    with ThreadPoolExecutor(24) as pool:
        answers = list(pool.map(lambda _: upload(service, who, content), range(24)))
    codes = Counter(answer.status for answer in answers)
    assert set(codes) <= {201, 507} and 1 <= codes[201] <= 4, codes
    assert {answer.json()["code"] for answer in answers if answer.status == 507} == {"client_full"}
    found = kept(service, who)
    assert found["bytes"] <= found["limit_bytes"] + 2 * ROW_BYTES
    assert found["rows"]["assets"] == codes[201]
    assert service.ctx.reserved_bytes == {}
    assert not list((Path(service.ctx.settings.storage_url.removeprefix("file:")) / "tmp").iterdir())


def test_a_picture_written_as_text_has_room_for_what_it_is_and_no_more(service: Service, who: Tenant) -> None:
    def ask_for(number: int, size: int) -> int:
        picture = {"image_url": "data:image/png;base64," + base64.b64encode(noise(size)).decode()}
        wanted = {"prompt": f"boat {number}", "campaign_id": who.campaign_id, "input_reference": picture}
        return service.ask("POST", "/v1/videos", wanted, key=who.key).status

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(ask_for, range(4), [12_000] * 4)) == [200] * 4
    before = kept(service, who)
    assert ask_for(4, 60_000) == 507
    assert kept(service, who) == before


def test_a_body_of_unknown_length_gets_the_room_that_is_left(service: Service, who: Tenant) -> None:
    body, headers = form(noise(150_000))
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=20)
    pieces = (body[start : start + 8192] for start in range(0, len(body), 8192))
    sent = {**headers, "Authorization": f"Bearer {who.key}", "Transfer-Encoding": "chunked"}
    connection.request("POST", "/api/v2/assets", pieces, sent, encode_chunked=True)
    answer = connection.getresponse()
    assert (answer.status, b"client_full" in answer.read()) == (507, True)
    connection.close()
    assert kept(service, who)["rows"]["assets"] == 0 and service.ctx.reserved_bytes == {}


def test_there_are_so_many_campaigns_and_assets_of_a_client_and_no_more(
    service: Service, who: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage_quota, "MOST_CAMPAIGNS", 2)
    monkeypatch.setattr(storage_quota, "MOST_ASSETS", 1)
    answers = [service.ask("POST", "/api/v2/campaigns", {"name": "c"}, key=who.key) for _ in range(2)]
    assert [answer.status for answer in answers] == [201, 409]
    assert answers[-1].json()["code"] == "too_many_campaigns"
    answers = [upload(service, who, png()) for _ in range(2)]
    assert [answer.status for answer in answers] == [201, 409]
    assert answers[-1].json()["code"] == "too_many_assets"


def test_what_is_deleted_with_a_client_is_counted_no_more(service: Service, who: Tenant) -> None:
    upload(service, who, png())
    service.completed(service.generate(who)["id"], png())
    assert service.ask("DELETE", f"/api/v2/clients/{who.client_id}").status == 204
    for _ in range(3):
        service.run(tidy.tidy(service.ctx))
    left = service.run(
        service.ctx.db.read(lambda tx: tx.all("SELECT * FROM holdings WHERE client_id = :id", id=who.client_id))
    )
    assert left == []


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"MAX_CLIENT_GB": "0"}, "max_client_gb"),
        ({"MAX_CLIENT_GB": "nan"}, "max_client_gb"),
        ({"MAX_CLIENT_GB": "much"}, "max_client_gb"),
        ({"WRITE_RATE_LIMIT": "often"}, "write_rate_limit"),
    ],
)
def test_settings_that_bound_nothing_are_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], named: str
) -> None:
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(pydantic.ValidationError) as refused:
        Settings(_env_file=None)
    assert [error["loc"] for error in refused.value.errors()] == [(named,)]


def test_an_empty_setting_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MAX_CLIENT_GB", "WRITE_RATE_LIMIT"):
        monkeypatch.setenv(name, "")
    settings = Settings(_env_file=None)
    assert (settings.max_client_gb, settings.write_rate_limit) == (50, "300/minute")


def test_an_older_database_is_counted_when_it_is_brought_up(tmp_path: Path, provider: Provider) -> None:
    """As if everything had been written before anybody counted: the same is held again."""
    with receiving() as receiver, working(tmp_path, provider, **INSIDE) as shop:
        receiver.usual = status(200, body=b"x" * 5_000)
        shop.http.post("/api/v2/webhook-endpoints", json={"url": receiver.url, "client_id": own_client(shop)})
        asset = shop.upload(png())
        for id in (shop.ask("video", asset_id=asset, prompt="it moves")["id"], shop.ask()["id"]):
            shop.ended(id, "completed")
    path = tmp_path / "reelhook.db"
    with closing(sqlite3.connect(path)) as connection:
        held = connection.execute("SELECT * FROM holdings").fetchall()
    every = known()
    as_released(path, every[: [one.name for one in every].index("holdings")])
    migrate(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.row_factory = sqlite3.Row
        now = [tuple(row) for row in connection.execute("SELECT * FROM holdings")]
        longest = connection.execute("SELECT MAX(LENGTH(answer)) FROM webhook_attempts").fetchone()[0]
        assert [finding for finding in of_holdings(connection) if "is held for" in finding.text] == []
    assert [row[3:] for row in now] == [row[3:] for row in held]
    assert longest == 2_000


def own_client(shop: Workshop) -> str:
    return str(shop.http.get("/api/v2/clients").json()["items"][0]["id"])
