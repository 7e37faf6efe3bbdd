"""Several accounts at one provider: each has its own places, pause and secret, and is asked about its own."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from auditor import creates_of
from emulating import Provider, emulating, together, until
from workshop import Workshop, working

from backend.config import Settings
from backend.core.catalog import ProviderFacts
from backend.core.generation import Generation
from backend.db import operations
from backend.emulator import WEBHOOK_SECRET
from backend.providers import base, registry, signatures
from backend.providers.base import Means
from backend.providers.replicate.api import Replicate

SECOND = "replicate:second"
SECRET = signatures.read_secret(WEBHOOK_SECRET)
OTHER_SECRET = "whsec_" + "c2Vjb25kIGFjY291bnQgc2VjcmV0IG9mIHRoZSB0ZXN0"
LOST = {"kind": "webhook_lost"}


@dataclass
class Both:
    """Two accounts, as one ledger of what was paid."""

    first: Provider
    second: Provider

    @property
    def server(self) -> Any:
        return self.first.server

    @property
    def ledger(self) -> dict[str, Any]:
        return together(self.first.ledger, self.second.ledger)

    def spoil(self, *faults: dict[str, Any]) -> None:
        self.first.spoil(*faults)
        self.second.spoil(*faults)


@pytest.fixture
def both(provider: Provider, monkeypatch: pytest.MonkeyPatch) -> Iterator[Both]:
    """Two emulators, offered as two accounts of Replicate; the webhooks of the second have another secret."""
    with emulating() as second:

        def offered(settings: Settings, means: Means, facts: Mapping[str, ProviderFacts]) -> dict[str, base.Provider]:
            found = {}
            for label, one, secret in (("", provider, WEBHOOK_SECRET), ("second", second, OTHER_SECRET)):
                url = f"{one.server.origin}/v1"
                account = Replicate(
                    means, facts["replicate"], base_url=url, token="r8_emulator", secrets=[secret], label=label
                )
                found[account.key] = account
            return found

        monkeypatch.setattr(registry, "offered", offered)
        yield Both(provider, second)


@pytest.fixture
def two(tmp_path: Path, both: Both) -> Iterator[Workshop]:
    with working(tmp_path, both, worker=False) as bench:  # type: ignore[arg-type]
        yield bench


def of_account(bench: Workshop, key: str) -> list[Generation]:
    ids = bench.run(bench.ctx.db.read(lambda tx: tx.all("SELECT id FROM generations ORDER BY id")))
    return [row for row in (bench.row(one["id"]) for one in ids) if row.account == key]


def end_all(bench: Workshop, both: Both) -> None:
    """Poll and store until all have ended."""

    def step() -> bool:
        bench.clock.forward(11)
        return not (bench.submit_next() + bench.look("processing") + bench.look("storing"))

    until(step)


def test_each_account_gets_no_more_than_its_limit_and_is_asked_about_its_own(tmp_path: Path, both: Both) -> None:
    both.spoil(LOST)
    with working(tmp_path, both, worker=False, max_in_flight=2) as bench:  # type: ignore[arg-type]
        ids = bench.ask_many(4)
        bench.submit_next()
        assert [len(of_account(bench, key)) for key in ("replicate", SECOND)] == [2, 2]
        for key, provider in (("replicate", both.first), (SECOND, both.second)):
            for row in of_account(bench, key):
                assert len(creates_of(provider.ledger, row.id)) == 1
        end_all(bench, both)
        assert [bench.get(id)["status"] for id in ids] == ["completed"] * 4


def test_an_account_without_credit_pauses_alone(two: Workshop, both: Both) -> None:
    both.spoil(LOST)
    both.first.spoil({"kind": "create_402"})
    refused = two.ask()["id"]
    two.submit_next()
    assert two.get(refused)["error"]["code"] == "quota"
    ids = two.ask_many(3)
    two.submit_next()
    assert {two.row(id).account for id in ids} == {SECOND}
    end_all(two, both)
    assert [two.get(id)["status"] for id in ids] == ["completed"] * 3


def test_what_an_account_certainly_did_not_take_may_go_to_another(two: Workshop, both: Both) -> None:
    both.spoil(LOST)
    both.first.spoil({"kind": "create_429", "retry_after": 300})
    id = two.ask()["id"]
    two.submit_next()
    assert two.row(id).status == "queued" and two.row(id).account is None
    two.clock.forward(2)
    end_all(two, both)
    assert two.row(id).account == SECOND and two.get(id)["status"] == "completed"


def test_a_webhook_of_one_account_is_not_believed_about_a_generation_of_the_other(two: Workshop, both: Both) -> None:
    both.spoil(LOST)
    id = two.ask()["id"]
    two.submit_next()
    row = two.row(id)
    assert row.account == "replicate"

    def tell(account: str, secret: str) -> int:
        body, at = json.dumps({"id": row.provider_id, "status": "failed", "error": "x"}).encode(), int(time.time())
        signed = signatures.sign(signatures.read_secret(secret), "msg", at, body)
        headers = {"webhook-id": "msg", "webhook-timestamp": str(at), "webhook-signature": signed}
        return two.http.post(f"/webhooks/{account}/{id}/{row.nonce}", content=body, headers=headers).status_code

    assert tell(SECOND, OTHER_SECRET) == 404
    assert tell("replicate", OTHER_SECRET) == 401 and tell(SECOND, WEBHOOK_SECRET) == 401
    assert tell("replicate:third", OTHER_SECRET) == 404
    assert tell("replicate", WEBHOOK_SECRET) == 200
    two.finished = False


def test_two_accounts_may_have_predictions_of_the_same_name_and_one_may_not(two: Workshop, both: Both) -> None:
    both.spoil(LOST, {"kind": "stuck"})
    first, second = two.ask()["id"], two.ask()["id"]
    path = two.folder / "reelhook.db"
    named = "UPDATE generations SET account = ?, provider_id = 'p1' WHERE id = ?"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(named, ("replicate", first))
        connection.execute(named, (SECOND, second))
        with pytest.raises(sqlite3.IntegrityError):
            connection.execute(named, (None, second))  # of before there were several: the first account's
    two.finished = False


def test_an_unclear_create_is_looked_for_at_the_account_that_sent_it(two: Workshop, both: Both) -> None:
    both.spoil(LOST)
    both.first.spoil({"kind": "reset_after"}, LOST)
    id = two.ask()["id"]
    two.submit_next()
    assert two.row(id).status == "unclear"
    two.clock.forward(6)
    two.look("unclear")
    assert two.row(id).provider_id and two.row(id).account == "replicate"
    end_all(two, both)
    assert two.get(id)["status"] == "completed"
    assert len(creates_of(both.ledger, id)) == 1


def test_an_account_that_hangs_takes_nobody_elses_places(tmp_path: Path, both: Both) -> None:
    both.first.spoil({"kind": "create_hang", "delay_s": 8})
    with working(tmp_path, both, max_in_flight=64) as shop:  # type: ignore[arg-type]
        hour = shop.ctx.now() + 3_600_000
        shop.run(shop.ctx.db.write(lambda tx: operations.pause(tx, SECOND, hour, "the first one fills up")))
        ids = shop.ask_many(80)
        until(lambda: sum(shop.row(id).account == "replicate" for id in ids) == 64)
        shop.run(shop.ctx.db.write(lambda tx: tx.run("DELETE FROM providers WHERE name = :name", name=SECOND)))
        later = shop.ask_many(4)
        for id in later:
            shop.ended(id, "completed")
        assert {shop.row(id).account for id in later} == {SECOND}
        shop.finished = False
