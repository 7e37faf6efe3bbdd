"""Clients, campaigns and keys over HTTP: made, shown, renamed, and gone with all that is theirs."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from api_service import Service, form, png, running
from waiting import until

from backend.upkeep import tidy

MONEY = ("budget_usd", "spent_usd", "reserved_usd")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running(tmp_path_factory.mktemp("own")) as found:
        yield found


def test_a_client_is_made_shown_renamed_and_listed(service: Service) -> None:
    made = service.ask("POST", "/api/v2/clients", {"name": "  Ängström & Söhne  "})
    client = made.json()
    assert (made.status, made.headers["location"]) == (201, f"/api/v2/clients/{client['id']}")
    assert set(client) == {"id", "name", *MONEY, "created_at"} and client["name"] == "Ängström & Söhne"
    assert datetime.fromisoformat(client["created_at"]).tzinfo == UTC
    path = made.headers["location"]
    assert service.ask("GET", path).json() == client
    renamed = service.ask("PATCH", path, {"name": "New"})
    assert (renamed.status, renamed.json()) == (200, client | {"name": "New"})
    assert service.ask("GET", "/api/v2/clients?limit=1").json()["items"] == [client | {"name": "New"}]


def test_a_campaign_belongs_to_the_keys_client_or_to_the_one_an_admin_names(service: Service) -> None:
    who, other = service.tenant(), service.tenant()
    made = service.ask("POST", "/api/v2/campaigns", {"name": "Spring"}, key=who.key)
    campaign = made.json()
    assert (made.status, made.headers["location"]) == (201, f"/api/v2/campaigns/{campaign['id']}")
    assert set(campaign) == {"id", "client_id", "name", *MONEY, "created_at"}
    assert campaign["client_id"] == who.client_id
    assert service.ask("POST", "/api/v2/campaigns", {"name": "x"}).status == 422
    theirs = service.ask("POST", "/api/v2/campaigns", {"name": "x", "client_id": other.client_id})
    assert theirs.json()["client_id"] == other.client_id
    foreign = {"name": "x", "client_id": other.client_id}
    assert service.ask("POST", "/api/v2/campaigns", foreign, key=who.key).status == 404
    renamed = service.ask("PATCH", made.headers["location"], {"name": "Summer"}, key=who.key)
    assert renamed.json() == campaign | {"name": "Summer"}
    listed = service.ask("GET", "/api/v2/campaigns", key=who.key).json()["items"]
    assert [row["id"] for row in listed] == [campaign["id"], who.campaign_id]


@pytest.mark.parametrize("body", [{}, {"name": ""}, {"name": " \t"}, {"name": 5}, {"name": "x" * 201}, {"name": None}])
def test_a_name_is_a_text_of_1_to_200_characters(service: Service, body: dict[str, Any]) -> None:
    for path in ("/api/v2/clients", "/api/v2/campaigns"):
        refused = service.ask("POST", path, body)
        assert refused.status == 422
        assert [error["field"] for error in refused.json()["errors"]] == ["name"]


def test_a_clients_key_sees_its_own_client_and_changes_none(service: Service) -> None:
    who, other = service.tenant(), service.tenant()
    listed = service.ask("GET", "/api/v2/clients", key=who.key).json()
    assert [row["id"] for row in listed["items"]] == [who.client_id]
    assert service.ask("GET", f"/api/v2/clients/{who.client_id}", key=who.key).status == 200
    assert service.ask("GET", f"/api/v2/clients/{other.client_id}", key=who.key).status == 404
    for method, path in (("POST", "/api/v2/clients"), ("PATCH", f"/api/v2/clients/{who.client_id}")):
        assert service.ask(method, path, {"name": "mine"}, key=who.key).status == 403
    assert service.ask("DELETE", f"/api/v2/clients/{who.client_id}", key=who.key).status == 403


def files(service: Service) -> set[str]:
    root = Path(service.ctx.settings.storage_url.removeprefix("file:"))
    return {path.name for path in root.rglob("*") if path.is_file()}


def test_a_deleted_campaign_is_gone_at_once_with_all_that_was_made_for_it(service: Service) -> None:
    who = service.tenant()
    kept, gone = service.generate(who)["id"], None
    campaign = service.ask("POST", "/api/v2/campaigns", {"name": "short"}, key=who.key).json()["id"]
    gone = service.generate(who, campaign_id=campaign)["id"]
    again = service.generate(who, campaign_id=campaign)["id"]
    service.completed(gone, png(), png(kind="JPEG"))
    path = f"/api/v2/campaigns/{campaign}"
    refused = service.ask("DELETE", path, key=who.key)
    assert (refused.status, refused.json()["code"]) == (409, "unfinished")
    service.failed(again)
    link = service.ask("GET", f"/api/v2/generations/{gone}", key=who.key).json()["url"]
    assert service.ask("DELETE", path, key=who.key).status == 204
    for key in (who.key, service.admin):
        for one in (path, f"/api/v2/generations/{gone}", f"/api/v2/images/{gone}", f"/api/v2/images/{gone}/data"):
            assert service.ask("GET", one, key=key).status == 404, one
        listed = service.ask("GET", f"/api/v2/generations?client_id={who.client_id}", key=key).json()["items"]
        assert [row["id"] for row in listed] == [kept]
    assert service.ask("POST", f"/api/v2/generations/{again}/retry", key=who.key).status == 404
    assert (
        service.ask("POST", "/api/v2/generate/image", {"campaign_id": campaign, "prompt": "x"}, key=who.key).status
        == 404
    )
    assert service.ask("GET", link[link.index("/api") :], key="").status == 404
    before = files(service)
    service.run(tidy.tidy(service.ctx))
    assert before - files(service) == {f"{gone}.png", f"{gone}-poster.jpg"}


def test_a_deleted_client_is_gone_with_keys_campaigns_generations_and_assets(service: Service) -> None:
    who = service.tenant()
    body, headers = form(png())
    asset = service.ask("POST", "/api/v2/assets", key=who.key, content=body, headers=headers).json()
    made = service.generate(who)["id"]
    service.completed(made, png())
    assert service.ask("DELETE", f"/api/v2/clients/{who.client_id}").status == 204
    assert service.ask("GET", "/api/v2/campaigns", key=who.key).status == 401
    paths = [f"clients/{who.client_id}", f"campaigns/{who.campaign_id}", f"generations/{made}"]
    paths += [f"assets/{asset['id']}", f"assets/{asset['id']}/data", f"clients/{who.client_id}/generated-images"]
    for path in paths:
        assert service.ask("GET", f"/api/v2/{path}").status == 404, path
    assert service.ask("GET", asset["url"][asset["url"].index("/api") :], key="").status == 404
    assert asset["id"] not in str(service.ask("GET", "/api/v2/assets?limit=100").json())
    assert service.ask("DELETE", f"/api/v2/clients/{who.client_id}").status == 404
    service.run(tidy.tidy(service.ctx))
    assert not any(name.startswith((made, asset["id"])) for name in files(service))


def key_body(**more: Any) -> dict[str, Any]:
    return {"name": "n", "admin": True, **more}


def test_a_key_is_shown_once_and_listed_without_its_text(service: Service) -> None:
    who = service.tenant()
    expires = (datetime.now(UTC) + timedelta(days=2)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    wanted = {"name": "ci", "client_id": who.client_id, "image_rate_limit": "7/minute", "expires_at": expires}
    headers = {"Idempotency-Key": f"once-{who.client_id}"}
    made = service.ask("POST", "/api/v2/keys", wanted, headers=headers)
    key = made.json()
    text = key.pop("key")
    assert made.status == 201 and text.startswith("sk_") and len(text) == 46
    assert key == {
        "id": key["id"],
        "client_id": who.client_id,
        "name": "ci",
        "prefix": text[:15],
        "admin": False,
        "image_rate_limit": "7/minute",
        "video_rate_limit": None,
        "campaign_id": None,
        "created_at": key["created_at"],
        "expires_at": expires,
        "revoked_at": None,
    }
    assert service.ask("GET", "/api/v2/campaigns", key=text).status == 200
    again = service.ask("POST", "/api/v2/keys", wanted, headers=headers)
    assert again.headers["idempotent-replayed"] == "true"
    assert again.json() == key | {"key": None}
    listed = service.ask("GET", "/api/v2/keys").body.decode()
    assert key["id"] in listed and text[15:] not in listed and "$2b$" not in listed
    database = Path(service.ctx.settings.database_url.removeprefix("sqlite:///"))
    assert all(text.encode() not in path.read_bytes() for path in database.parent.glob("test.db*"))


def test_a_revoked_key_is_refused_from_that_moment_on(service: Service) -> None:
    who = service.tenant()
    assert service.ask("GET", "/api/v2/campaigns", key=who.key).status == 200
    for _ in range(2):
        assert service.ask("DELETE", f"/api/v2/keys/{who.key_id}").status == 204
    assert service.ask("GET", "/api/v2/campaigns", key=who.key).status == 401
    shown = next(row for row in service.ask("GET", "/api/v2/keys").json()["items"] if row["id"] == who.key_id)
    assert shown["revoked_at"]


def test_a_key_stops_working_when_it_expires(service: Service) -> None:
    who = service.tenant()
    for lives_ms in (400, 4_000, 15_000):  # the first is too short when the machine is busy
        soon = service.ctx.now() + lives_ms
        key, _ = service.key(who.client_id, expires_at=soon)
        answer = service.ask("GET", "/api/v2/campaigns", key=key)
        if service.ctx.now() <= soon:
            break
    assert answer.status == 200
    until(lambda: service.ctx.now() > soon)
    assert service.ask("GET", "/api/v2/campaigns", key=key).status == 401


def test_a_key_carries_its_own_limit(service: Service) -> None:
    who = service.tenant()
    key, _ = service.key(who.client_id, image_limit="2/minute")
    wanted = {"campaign_id": who.campaign_id, "prompt": "x"}
    statuses = [service.ask("POST", "/api/v2/generate/image", wanted, key=key).status for _ in range(3)]
    assert statuses == [202, 202, 429]
    assert service.ask("POST", "/api/v2/generate/image", wanted, key=who.key).status == 202


def test_a_spoiled_hash_is_a_401_for_that_key_alone(service: Service) -> None:
    spoiled, fine = service.tenant(), service.tenant()
    sql = "UPDATE api_keys SET hash = 'not a hash' WHERE id = :id"
    service.run(service.ctx.db.write(lambda tx: tx.run(sql, id=spoiled.key_id)))
    assert service.ask("GET", "/api/v2/campaigns", key=spoiled.key).status == 401
    assert service.ask("GET", "/api/v2/campaigns", key=fine.key).status == 200
    assert service.ask("GET", "/api/v2/keys").status == 200


def test_keys_are_for_admins(service: Service) -> None:
    who = service.tenant()
    assert service.ask("GET", "/api/v2/keys", key=who.key).status == 403
    assert service.ask("POST", "/api/v2/keys", key_body(), key=who.key).status == 403
    assert service.ask("DELETE", f"/api/v2/keys/{who.key_id}", key=who.key).status == 403
    admin = service.ask("POST", "/api/v2/keys", key_body()).json()
    assert (admin["admin"], admin["client_id"]) == (True, None)
    assert service.ask("GET", "/api/v2/keys", key=admin["key"]).status == 200


@pytest.mark.parametrize(
    "more",
    [
        {"client_id": "019abcde-0000-7000-8000-00000000000a"},
        {"admin": False},
        {"admin": False, "client_id": "019abcde-0000-7000-8000-00000000000a"},
        {"image_rate_limit": "often"},
        {"image_rate_limit": ""},
        {"video_rate_limit": "5 per fortnight"},
        {"image_rate_limit": "0/minute"},
        {"image_rate_limit": "99999999999999999999/minute"},
        {"image_rate_limit": "1 per 99999999999999999999 years"},
        {"expires_at": "tomorrow"},
        {"expires_at": "2030-01-01T00:00:00"},
        {"expires_at": "2020-01-01T00:00:00Z"},
        {"expires_at": "0001-01-01T00:00:00+14:00"},
        {"expires_at": "9999-12-31T23:59:59-14:00"},
        {"expires_at": 4_000_000_000},
        {"hash": "$2b$10$x"},
        {"prefix": "abc"},
    ],
)
def test_a_key_that_makes_no_sense_is_refused(service: Service, more: dict[str, Any]) -> None:
    assert service.ask("POST", "/api/v2/keys", key_body(**more)).status == 422
    assert service.ask("GET", "/api/v2/keys").status == 200
