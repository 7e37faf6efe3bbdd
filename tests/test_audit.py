"""Who did what is kept with the change itself, tells no secret, and is an admin's alone to read."""

from __future__ import annotations

import json
import os
import pwd
import re
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import commands
import pytest
from api_service import Service, Tenant, form, png, running
from emulating import emulating, until
from gateway import gateway, new_gateway

from backend import app
from backend.backup import restoring, taking
from backend.cli.processes import environment
from backend.config import Settings
from backend.core.errors import Unavailable
from backend.db import audit
from backend.db.migrate import migrate
from backend.db.versions import known, schema_file, statements
from backend.manage import clients
from backend.upkeep import start, tidy

pytestmark = pytest.mark.hazard(62)
ROOT = Path(__file__).parent.parent
NOBODY = "019ac000-0000-7000-8000-000000000000"
ME = pwd.getpwuid(os.geteuid()).pw_name
HOOKS = "/api/v2/webhook-endpoints"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running(tmp_path_factory.mktemp("audit"), trusted_proxies="127.0.0.0/8", history_days=30) as found:
        yield found


@pytest.fixture
def who(service: Service) -> Tenant:
    return service.tenant()


def log(service: Service, query: str = "limit=100") -> list[dict[str, Any]]:
    answer = service.ask("GET", f"/api/v2/audit?{query}")
    assert answer.status == 200, answer.body
    return list(answer.json()["items"])


def of(service: Service, id: str) -> list[dict[str, Any]]:
    """What was done to one thing, oldest first."""
    return log(service, f"object_id={id}")[::-1]


def count(service: Service) -> int:
    row = service.run(service.ctx.db.read(lambda tx: tx.one("SELECT COUNT(*) AS n FROM audit")))
    return int(row["n"])


def asset_of(service: Service, who: Tenant) -> str:
    body, headers = form(png())
    made = service.ask("POST", "/api/v2/assets", key=who.key, content=body, headers=headers)
    return str(made.json()["id"])


def ended(service: Service, who: Tenant) -> str:
    id = service.generate(who)["id"]
    service.failed(id)
    return str(id)


def test_a_key_that_is_made_and_revoked_is_told_with_who_did_it(service: Service, who: Tenant) -> None:
    wanted = {"name": "Night shift", "client_id": who.client_id, "image_rate_limit": "3/minute"}
    headers = {"X-Request-Id": "made-by-me", "X-Forwarded-For": "203.0.113.7"}
    made = service.ask("POST", "/api/v2/keys", wanted, headers=headers).json()
    service.ask("DELETE", f"/api/v2/keys/{made['id']}", headers={"X-Forwarded-For": "2001:db8::12:3"})
    service.ask("DELETE", f"/api/v2/keys/{made['id']}")
    created, revoked = of(service, made["id"])
    admin = service.ask("GET", "/api/v2/keys?limit=100").json()["items"][-1]
    assert (created["action"], revoked["action"]) == ("key.created", "key.revoked")
    assert (created["actor"], created["actor_name"], created["key_id"]) == ("key", "test", admin["id"])
    assert created["key_prefix"] == admin["prefix"] and service.admin.startswith(admin["prefix"])
    assert (created["request_id"], created["address"]) == ("made-by-me", "203.0.113.7")
    assert revoked["address"] == "2001:db8::12:3"
    assert (created["object_type"], created["client_id"], created["old"]) == ("key", who.client_id, None)
    assert (created["new"]["name"], created["new"]["image_limit"]) == ("Night shift", "3/minute")
    assert created["new"]["prefix"] == made["prefix"] and created["id"] < revoked["id"]
    assert made["key"] not in json.dumps([created, revoked]) and "$2b$" not in json.dumps([created, revoked])


def test_a_stranger_in_front_of_no_trusted_proxy_cannot_choose_the_address(tmp_path: Path) -> None:
    with running(tmp_path) as bare:
        made = bare.ask("POST", "/api/v2/clients", {"name": "x"}, headers={"X-Forwarded-For": "203.0.113.7"}).json()
        assert of(bare, made["id"])[0]["address"] == "127.0.0.1"


@pytest.mark.parametrize("noun", ["client", "campaign"])
def test_a_budget_that_changes_is_told_with_what_it_was(service: Service, who: Tenant, noun: str) -> None:
    wanted = {"name": "Spring", "budget_usd": 5} | ({"client_id": who.client_id} if noun == "campaign" else {})
    path = service.ask("POST", f"/api/v2/{noun}s", wanted).headers["location"]
    for change in (
        {"budget_usd": 7.5},
        {"name": "Summer"},
        {"name": "Summer", "budget_usd": 7.5},
        {"budget_usd": None},
    ):
        assert service.ask("PATCH", path, change).status == 200
    assert service.ask("DELETE", path).status == 204
    found = of(service, path.rpartition("/")[2])
    assert [(each["action"], each["old"], each["new"]) for each in found] == [
        (f"{noun}.created", None, {"name": "Spring", "budget_usd": 5.0}),
        (f"{noun}.updated", {"budget_usd": 5.0}, {"budget_usd": 7.5}),
        (f"{noun}.updated", {"name": "Spring"}, {"name": "Summer"}),
        (f"{noun}.updated", {"budget_usd": 7.5}, {"budget_usd": None}),
        (f"{noun}.deleted", {"name": "Summer", "budget_usd": None}, None),
    ]
    assert {each["client_id"] for each in found} == {who.client_id if noun == "campaign" else found[0]["object_id"]}


def test_an_endpoint_is_told_without_its_secrets(service: Service, who: Tenant) -> None:
    url = "https://hooks.example.com/in?token=canary-in-the-query"
    made = service.ask("POST", HOOKS, {"url": url}, key=who.key).json()
    path = f"{HOOKS}/{made['id']}"
    other = url.replace("canary-in", "canary-changed-in")
    for change in ({"enabled": False}, {"events": ["generation.failed"]}, {"url": other}, {"url": other}):
        assert service.ask("PATCH", path, change, key=who.key).status == 200
    turned = service.ask("POST", f"{path}/rotate", {}, key=who.key).json()
    assert service.ask("DELETE", path, key=who.key).status == 204
    found = of(service, made["id"])
    shown = "https://hooks.example.com/in?***"
    assert [(each["action"], each["old"], each["new"]) for each in found] == [
        ("webhook_endpoint.created", None, {"url": shown, "events": [], "enabled": True}),
        ("webhook_endpoint.updated", {"enabled": True}, {"enabled": False}),
        ("webhook_endpoint.updated", {"events": []}, {"events": ["generation.failed"]}),
        ("webhook_endpoint.updated", {"hidden_part": None}, {"hidden_part": "another"}),
        ("webhook_endpoint.rotated", None, None),
        ("webhook_endpoint.deleted", {"url": shown, "events": ["generation.failed"], "enabled": False}, None),
    ]
    text = json.dumps(found)
    assert {each["key_id"] for each in found} == {who.key_id}
    assert not [secret for secret in (made["secret"], turned["secret"], "canary", who.key) if secret in text]


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/services/T01ABCDEF/B02GHIJKL/x9Canary8wV7uT6sR5qP4o3", "/services/T01ABCDEF/B02GHIJKL/***"),
        ("/api/webhooks/1234567890/aB1-canary_cD2eF3gH4iJ5kL6mN7oP8/slack", "/api/webhooks/1234567890/***/***"),
        ("/hooks/reelhook-of-the-agency", "/hooks/reelhook-of-the-agency"),
    ],
)
def test_a_token_in_the_path_of_an_endpoint_is_not_kept(service: Service, who: Tenant, path: str, told: str) -> None:
    made = service.ask("POST", HOOKS, {"url": f"https://chat.example.com{path}"}, key=who.key).json()
    service.ask("DELETE", f"{HOOKS}/{made['id']}", key=who.key)
    new, old = (each["new"] or each["old"] for each in of(service, made["id"]))
    assert new["url"] == old["url"] == f"https://chat.example.com{told}"


def test_a_secret_that_somebody_puts_into_a_name_is_not_kept(service: Service, who: Tenant) -> None:
    secret = "sk_" + "Canary0123456789" * 2
    names = {"X-Request-Id": f"Bearer-{secret}"}
    path = service.ask("POST", "/api/v2/campaigns", {"name": f"of {secret}"}, key=who.key, headers=names).headers[
        "location"
    ]
    changed = service.ask("PATCH", path, {"name": f"token={secret}&x"}, key=who.key, headers=names)
    key = service.ask("POST", "/api/v2/keys", {"name": secret, "client_id": who.client_id}).json()
    service.ask("DELETE", path, key=key["key"])
    found = [*of(service, changed.json()["id"]), *of(service, key["id"])]
    assert [each["action"].partition(".")[2] for each in found] == ["created", "updated", "deleted", "created"]
    assert "Canary" not in json.dumps(found)
    assert found[0]["new"]["name"] == "of sk_***"


def test_a_clients_own_secret_is_told_as_shown_and_rotated_and_never_itself(service: Service, who: Tenant) -> None:
    shown = [service.ask("GET", "/api/v2/webhook-secret", key=who.key).json()["secret"] for _ in range(2)]
    turned = service.ask("POST", "/api/v2/webhook-secret/rotate", {}, key=who.key).json()["secret"]
    found = log(service, f"client_id={who.client_id}")
    told = [each for each in found if each["object_type"] == "webhook_secret"]
    assert [each["action"] for each in told] == ["webhook_secret.rotated", "webhook_secret.shown"]
    assert shown[0] not in json.dumps(found) and turned not in json.dumps(found)


def test_what_is_deleted_is_told_with_what_it_was(service: Service, who: Tenant) -> None:
    generation, asset = ended(service, who), asset_of(service, who)
    service.ask("DELETE", f"/api/v2/generations/{generation}", key=who.key)
    service.ask("DELETE", f"/api/v2/assets/{asset}", key=who.key)
    (gone,), (file,) = of(service, generation), of(service, asset)
    assert (gone["action"], gone["old"]["status"], gone["new"]) == ("generation.deleted", "failed", None)
    assert (file["action"], file["old"]["kind"], len(file["old"]["sha256"])) == ("asset.deleted", "image", 64)
    assert "a fox" not in json.dumps(gone)


def test_the_openai_face_is_no_way_around(service: Service, who: Tenant) -> None:
    made = service.ask("POST", "/v1/videos", {"prompt": "x", "campaign_id": who.campaign_id}, key=who.key).json()
    id = ids_of(made["id"])
    service.failed(id)
    start = service.ask("GET", f"/api/v2/generations/{id}").json()["source"]["image_id"]
    service.failed(start) if service.ask("GET", f"/api/v2/generations/{start}").json()["status"] == "pending" else None
    assert service.ask("DELETE", f"/v1/videos/{made['id']}", key=who.key).status == 200
    assert [each["action"] for each in of(service, id)] == ["generation.deleted"]


def ids_of(name: str) -> str:
    found = re.search(r"[0-9a-f-]{36}", name)
    assert found
    return found[0]


@dataclass(frozen=True)
class Change:
    """One change over HTTP: how it is asked for, and how one sees whether it was made."""

    ask: Callable[[Service, Tenant], tuple[str, str, Any]]
    look: str
    admin: bool = False


def _endpoint(service: Service, who: Tenant) -> str:
    return str(service.ask("POST", HOOKS, {"url": "https://hooks.example.com/"}, key=who.key).json()["id"])


CHANGES = {
    "key.created": Change(
        lambda s, w: ("POST", "/api/v2/keys", {"name": "x", "client_id": w.client_id}), "/api/v2/keys?limit=100", True
    ),
    "key.revoked": Change(lambda s, w: ("DELETE", f"/api/v2/keys/{w.key_id}", None), "/api/v2/keys?limit=100", True),
    "client.created": Change(
        lambda s, w: ("POST", "/api/v2/clients", {"name": "x"}), "/api/v2/clients?limit=100", True
    ),
    "client.updated": Change(
        lambda s, w: ("PATCH", f"/api/v2/clients/{w.client_id}", {"budget_usd": 9}), "/api/v2/clients?limit=100", True
    ),
    "client.deleted": Change(
        lambda s, w: ("DELETE", f"/api/v2/clients/{w.client_id}", None), "/api/v2/clients?limit=100", True
    ),
    "campaign.created": Change(lambda s, w: ("POST", "/api/v2/campaigns", {"name": "x"}), "/api/v2/campaigns"),
    "campaign.updated": Change(
        lambda s, w: ("PATCH", f"/api/v2/campaigns/{w.campaign_id}", {"budget_usd": 9}), "/api/v2/campaigns"
    ),
    "campaign.deleted": Change(
        lambda s, w: ("DELETE", f"/api/v2/campaigns/{w.campaign_id}", None), "/api/v2/campaigns"
    ),
    "webhook_endpoint.created": Change(lambda s, w: ("POST", HOOKS, {"url": "https://hooks.example.com/"}), HOOKS),
    "webhook_endpoint.updated": Change(lambda s, w: ("PATCH", f"{HOOKS}/{_endpoint(s, w)}", {"enabled": False}), HOOKS),
    "webhook_endpoint.rotated": Change(lambda s, w: ("POST", f"{HOOKS}/{_endpoint(s, w)}/rotate", {}), HOOKS),
    "webhook_endpoint.deleted": Change(lambda s, w: ("DELETE", f"{HOOKS}/{_endpoint(s, w)}", None), HOOKS),
    "webhook_secret.rotated": Change(
        lambda s, w: ("POST", "/api/v2/webhook-secret/rotate", {}), "/api/v2/webhook-endpoints"
    ),
    "generation.deleted": Change(
        lambda s, w: ("DELETE", f"/api/v2/generations/{ended(s, w)}", None), "/api/v2/generations"
    ),
    "asset.deleted": Change(lambda s, w: ("DELETE", f"/api/v2/assets/{asset_of(s, w)}", None), "/api/v2/assets"),
}


@pytest.mark.parametrize("action", CHANGES)
def test_a_change_whose_row_cannot_be_written_is_not_made(
    service: Service, who: Tenant, action: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    change = CHANGES[action]
    key = service.admin if change.admin else who.key
    method, path, body = change.ask(service, who)
    before, rows = service.ask("GET", change.look, key=key).json(), count(service)

    async def break_off(*_: Any, **__: Any) -> None:
        raise Unavailable("The log cannot be written.")

    with monkeypatch.context() as broken:
        broken.setattr(audit, "record", break_off)
        assert service.ask(method, path, body, key=key).status == 503
    assert (service.ask("GET", change.look, key=key).json(), count(service)) == (before, rows)
    assert service.ask(method, path, body, key=key).status < 300
    assert (count(service), log(service, "limit=1")[0]["action"]) == (rows + 1, action)


def test_every_action_has_a_test_and_none_is_unknown() -> None:
    elsewhere = {"restore", "settings.started", "database.migrated", "webhook_secret.shown"}
    assert set(CHANGES) | elsewhere == set(audit.ACTIONS)
    used = set()
    for file in (ROOT / "backend").rglob("*.py"):
        used |= set(re.findall(r'audit\.record\(\s*tx, [\w.]+, "([\w.]+)"', file.read_text()))
    assert used | {"database.migrated"} == set(audit.ACTIONS)


def test_what_is_refused_or_changes_nothing_leaves_no_row(service: Service, who: Tenant) -> None:
    busy = service.generate(who)["id"]
    before = count(service)
    for method, path, body, key in (
        ("POST", "/api/v2/clients", {"name": "x"}, who.key),
        ("PATCH", f"/api/v2/clients/{who.client_id}", {"budget_usd": 1}, who.key),
        ("PATCH", f"/api/v2/campaigns/{who.campaign_id}", {"name": "campaign"}, who.key),
        ("PATCH", f"/api/v2/campaigns/{NOBODY}", {"name": "mine"}, who.key),
        ("DELETE", f"/api/v2/campaigns/{who.campaign_id}", None, who.key),
        ("DELETE", f"/api/v2/generations/{busy}", None, who.key),
        ("DELETE", f"/api/v2/keys/{NOBODY}", None, service.admin),
        ("POST", "/api/v2/keys", {"name": "x", "client_id": NOBODY}, service.admin),
        ("POST", HOOKS, {"url": "http://127.0.0.1/"}, service.admin),
        ("POST", "/api/v2/webhook-secret/rotate", {}, service.admin),
        ("GET", "/api/v2/audit", None, "sk_nobody"),
    ):
        assert service.ask(method, path, body, key=key).status != 500
    assert count(service) == before


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/v2/campaigns", {"name": "once"}),
        ("/api/v2/webhook-secret/rotate", {}),
        (HOOKS, {"url": "https://h.example.com"}),
    ],
)
def test_a_request_that_is_repeated_is_told_once(service: Service, who: Tenant, path: str, body: Any) -> None:
    before = count(service)
    heads = {"Idempotency-Key": "once"}
    answers = [service.ask("POST", path, body, key=who.key, headers=heads) for _ in range(3)]
    assert {answer.status for answer in answers} <= {200, 201} and "idempotent-replayed" in answers[2].headers
    assert count(service) == before + 1


def test_the_log_is_listed_newest_first_by_pages_and_filters(service: Service, who: Tenant) -> None:
    for name in "abcde":
        service.ask("POST", "/api/v2/campaigns", {"name": name}, key=who.key)
    mine = f"client_id={who.client_id}"
    every = log(service, f"{mine}&limit=100")
    assert [each["new"]["name"] for each in every[:5]] == list("edcba")
    assert [each["id"] for each in every] == sorted((each["id"] for each in every), reverse=True)
    found, cursor = [], ""
    while cursor is not None:
        page = service.ask(
            "GET", f"/api/v2/audit?{mine}&action=campaign.created&limit=2{cursor and '&cursor='}{cursor}"
        )
        found, cursor = found + page.json()["items"], page.json()["next_cursor"]
    assert [each["id"] for each in found] == [each["id"] for each in every if each["action"] == "campaign.created"]
    assert {each["key_id"] for each in log(service, f"key_id={who.key_id}")} == {who.key_id}
    assert log(service, f"{mine}&created_before=2020-01-01T00:00:00Z") == []
    assert log(service, f"{mine}&created_after=2020-01-01T00:00:00Z&limit=100") == every
    assert log(service, f"key_id={who.key_id}&object_id={NOBODY}") == []


@pytest.mark.parametrize(
    "query",
    [
        "action=nonsense",
        "action=",
        "client_id=",
        "client_id=" + "x" * 65,
        "created_after=yesterday",
        "limit=0",
        "limit=101",
        "cursor=x",
        "cursor=" + "A" * 300,
        "page=2",
        "key_id=a&key_id=b",
        "object_id=%00",
    ],
)
def test_a_filter_that_is_none_is_422(service: Service, query: str) -> None:
    assert service.ask("GET", f"/api/v2/audit?{query}").status == 422


def test_the_log_is_an_admins_alone(service: Service, who: Tenant) -> None:
    refused = service.ask("GET", "/api/v2/audit", key=who.key)
    assert (refused.status, refused.json()["code"]) == (403, "forbidden")
    assert service.ask("GET", "/api/v2/audit", key="").status == 401
    assert service.ask("HEAD", "/api/v2/audit", key=who.key).status == 403


def test_the_rows_of_a_client_outlive_it_and_go_by_age(service: Service, who: Tenant) -> None:
    service.ask("DELETE", f"/api/v2/clients/{who.client_id}")
    service.run(tidy.tidy(service.ctx))
    assert log(service, f"client_id={who.client_id}")[0]["action"] == "client.deleted"
    before = count(service)
    for days, left in ((29, before), (31, 0)):
        later = replace(service.ctx, now=lambda days=days: service.ctx.now() + int(days * 86_400_000))
        while service.run(tidy.forget_audit(later)):
            pass
        assert count(service) == left


def test_no_statement_changes_a_row_of_the_log_and_only_age_removes_one() -> None:
    statements = []
    for file in (ROOT / "backend").rglob("*.py"):
        for found in re.finditer(r"(?is)\b(UPDATE|DELETE\s+FROM|REPLACE\s+INTO|INTO)\s+audit\b", file.read_text()):
            statements.append((file.relative_to(ROOT / "backend").as_posix(), found[1].upper()))
    assert sorted(statements) == [
        ("db/audit.py", "DELETE FROM"),
        ("db/audit.py", "INTO"),
        ("db/migrate.py", "INTO"),
    ]
    assert "ON CONFLICT" not in (ROOT / "backend/db/audit.py").read_text()


@pytest.mark.parametrize("wrong", [{"actor": "somebody"}, {"actor": "key"}, {"key_id": "k"}, {"action": None}])
def test_a_row_that_names_nobody_is_refused_by_the_database(tmp_path: Path, wrong: dict[str, Any]) -> None:
    migrate(tmp_path / "a.db")
    row = {"id": "1", "at": 1, "action": "restore", "actor": "cli", "key_id": None, "object_type": "database"} | wrong
    names = ", ".join(row)
    insert = f"INSERT INTO audit ({names}) VALUES ({', '.join(':' + name for name in row)})"  # noqa: S608
    with closing(sqlite3.connect(tmp_path / "a.db")) as database, pytest.raises(sqlite3.IntegrityError):
        database.execute(insert, row)


def command(*arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
    return commands.run_text(*arguments, environment=environment({}) | variables)


def rows(folder: Path) -> list[dict[str, Any]]:
    with closing(sqlite3.connect(folder / "reelhook.db")) as database:
        database.row_factory = sqlite3.Row
        return [dict(row) for row in database.execute("SELECT * FROM audit ORDER BY id")]


def test_the_command_line_is_told_with_the_systems_user(tmp_path: Path) -> None:
    place = {"DATABASE_URL": f"sqlite:///{tmp_path}/reelhook.db", "STORAGE_URL": f"file:{tmp_path}/media"}
    made = json.loads(command("keys", "create", "--name", "Lena", "--json", **place).stdout)
    assert command("keys", "revoke", made["id"], **place).returncode == 0
    found = rows(tmp_path)
    assert [row["action"] for row in found] == ["client.created", "key.created", "key.revoked"]
    assert {(row["actor"], row["actor_name"], row["key_id"], row["address"]) for row in found} == {
        ("cli", ME, None, None)
    }
    assert made["key"] not in json.dumps(found) and {row["client_id"] for row in found} == {made["client_id"]}


def test_an_upgrade_is_told_with_the_versions_and_a_new_database_with_nothing(tmp_path: Path) -> None:
    file = tmp_path / "reelhook.db"
    before = next(n for n, one in enumerate(known()) if "CREATE TABLE audit" in one.sql)
    with closing(sqlite3.connect(file, isolation_level=None)) as database:
        for migration in known()[:before]:
            for statement in statements(migration.sql):
                database.execute(statement)
            sql = "INSERT INTO schema_migrations (version, name, checksum, applied_at) VALUES (?, ?, ?, 1)"
            database.execute(sql, (migration.version, migration.name, migration.checksum))
    done = command("migrate", DATABASE_URL=f"sqlite:///{file}")
    assert done.returncode == 0, done.stderr
    found = rows(tmp_path)
    assert [(row["action"], row["actor"], row["actor_name"]) for row in found] == [
        ("database.migrated", "cli", ME) for _ in known()[before:]
    ]
    assert json.loads(found[0]["new_values"])["version"] == json.loads(found[0]["old_values"])["version"] + 1
    migrate(tmp_path / "new" / "reelhook.db")
    assert rows(tmp_path / "new") == [] and schema_file().exists()


def test_a_restore_is_told_in_the_database_it_brings(tmp_path: Path) -> None:
    migrate(tmp_path / "old" / "reelhook.db")
    old, new = (settings(tmp_path / name) for name in ("old", "new"))
    made = json.loads(
        command("keys", "create", "--name", "A", "--admin", "--json", **place_of(tmp_path / "old")).stdout
    )
    taking.take(old, tmp_path / "backup")
    restoring.restore(new, tmp_path / "backup")
    told = rows(tmp_path / "new")[-1]
    assert (told["action"], told["actor"], told["actor_name"]) == ("restore", "cli", ME)
    assert json.loads(told["new_values"])["admin_keys"] == [made["id"]]


def place_of(folder: Path) -> dict[str, str]:
    return {"DATABASE_URL": f"sqlite:///{folder}/reelhook.db", "STORAGE_URL": f"file:{folder}/media"}


def settings(folder: Path) -> Settings:
    return Settings(_env_file=None, **{name.lower(): value for name, value in place_of(folder).items()})


def test_a_start_is_told_with_its_settings_and_no_secret_in_them(tmp_path: Path) -> None:
    secrets = {
        "DATA_KEY": "canary" * 8,
        "DATA_KEY_OLD": "canary-one,canary-two",
        "REPLICATE_WEBHOOK_SECRET": "whsec_" + "canary00" * 6,
        "REDIS_URL": "redis://:canary-password@127.0.0.1:1/0",
    }
    with emulating() as provider:
        service = new_gateway(tmp_path, provider, HISTORY_DAYS="30", **secrets)
        try:
            service.start()
            until(lambda: [row for row in rows(tmp_path) if row["action"] == "settings.started"])
            dev = service.http.post("/api/v2/clients", json={"name": "x"}).json()
            shown = service.http.get("/api/v2/audit", params={"object_id": dev["id"]}).json()["items"]
        finally:
            service.abandon()
            service.close()
    (started,) = [row for row in rows(tmp_path) if row["action"] == "settings.started"]
    told = json.loads(started["new_values"])
    assert (told["HISTORY_DAYS"], told["AUTH_MODE"], told["NGROK_URL"]) == (30, "dev", None)
    assert (started["actor"], started["actor_name"]) == ("system", ME)
    assert set(told["DATA_KEY"]) == {"fingerprint"} and len(told["DATA_KEY"]["fingerprint"]) == 8
    assert told["REPLICATE_API_KEY"] != told["DATA_KEY"]
    assert "canary" not in started["new_values"] and "r8_" not in started["new_values"]
    assert (shown[0]["actor"], shown[0]["key_id"], shown[0]["address"]) == ("dev", None, "127.0.0.1")


async def test_settings_that_cannot_be_noted_keep_nobody_from_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def break_off(*_: Any, **__: Any) -> None:
        raise Unavailable("The disk is full.")

    async with app.open_context(settings(tmp_path)) as ctx:
        monkeypatch.setattr(audit, "record", break_off)
        await start.note_settings(ctx)
    assert rows(tmp_path) == []


def test_the_command_reads_the_log_of_a_running_service(tmp_path: Path) -> None:
    with emulating() as provider, gateway(tmp_path, provider) as service:
        where = {"REELHOOK_URL": service.origin, "REELHOOK_API_KEY": "sk_" + "x" * 43}
        client = service.http.post("/api/v2/clients", json={"name": "\x1b[31mred"}).json()["id"]
        done = command("audit", "--object", client, "--json", **where)
        assert done.returncode == 0, done.stderr
        assert [each["action"] for each in json.loads(done.stdout)["items"]] == ["client.created"]
        table = command("audit", "--client", client, "--action", "client.created", "--limit", "1", **where)
        assert "client.created" in table.stdout and "127.0.0.1" in table.stdout and "\x1b" not in table.stdout
        refused = command("audit", "--action", "nonsense", **where)
        assert (refused.returncode, refused.stdout) == (1, "") and "action" in refused.stderr


def test_what_the_service_does_by_itself_has_no_key(service: Service) -> None:
    made = service.run(service.ctx.db.write(lambda tx: clients.dev_client(tx, service.ctx)))
    (told,) = of(service, made.id)
    assert (told["actor"], told["key_id"], told["address"], told["request_id"]) == ("system", None, None, None)
