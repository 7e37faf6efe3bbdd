"""What clients and campaigns have reserved, spent and unfinished: changed in the transaction that changes a generation.

A client's row is always taken before its campaign's. So of two transactions on PostgreSQL that change the money of
one client, in whichever campaigns, the second waits for the first to end, and neither waits for the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from backend.core.errors import BudgetExceeded
from backend.core.generation import Generation
from backend.db import events
from backend.db.connection import Row, Tx

WARN_PERCENT = 80
Scope = Literal["client", "campaign"]
# Of a client or a campaign, joined with its balance.
OWNER_COLUMNS = (
    "id, name, created_at, budget_micros, COALESCE(reserved_micros, 0) AS reserved, "
    "COALESCE(settled_micros, 0) AS spent"
)


@dataclass(frozen=True, slots=True)
class _Owner:
    """Whose balance: a client's, or that of one campaign of it."""

    scope: Scope
    client_id: str
    campaign_id: str | None = None

    @property
    def id(self) -> str:
        return self.campaign_id or self.client_id


async def admit(tx: Tx, client_id: str, campaign_id: str, micros: int, *, of_client: int | None = None) -> None:
    """Raise BudgetExceeded when so many millionths of a dollar more do not fit, before anything is written.

    `of_client` is the sum for the client when the request is for several campaigns. `reserve` would refuse as well,
    but after a write: then all works that share its commit would be run again.
    """
    row = await tx.one(
        """
        SELECT 'campaign' AS scope, budget_micros AS budget, COALESCE(reserved_micros + settled_micros, 0) AS used
        FROM campaigns LEFT JOIN balances ON owner_id = id
        WHERE id = :campaign_id AND COALESCE(reserved_micros + settled_micros, 0) + :micros > budget_micros
        UNION ALL
        SELECT 'client' AS scope, budget_micros AS budget, COALESCE(reserved_micros + settled_micros, 0) AS used
        FROM clients LEFT JOIN balances ON owner_id = id
        WHERE id = :client_id AND COALESCE(reserved_micros + settled_micros, 0) + :of_client > budget_micros
        """,
        client_id=client_id,
        campaign_id=campaign_id,
        micros=micros,
        of_client=micros if of_client is None else of_client,
    )
    if row:
        wanted = micros if of_client is None or row["scope"] == "campaign" else of_client
        raise _refusal(row["scope"], row["budget"], row["used"], wanted)


async def unfinished(tx: Tx, client_id: str) -> int:
    """Return how many generations of the client have not ended. A COUNT took 2 to 6 ms for 10,000 queued rows."""
    row = await tx.one("SELECT unfinished FROM balances WHERE owner_id = :client_id", client_id=client_id)
    return int(row["unfinished"]) if row else 0


async def reserve(tx: Tx, row: Generation) -> None:
    """Reserve the estimate of a new generation. Raises BudgetExceeded: then the transaction has to be undone.

    The budget is compared after the sum is written, with the row locked. Compared before, two requests at the same time
    would both fit into the room for one.
    """
    for owner, found in await _change(tx, row, row.reserved_micros, 0, 1):
        if found["budget"] is not None and found["used"] > found["budget"]:
            used = found["used"] - row.reserved_micros
            raise _refusal(owner.scope, found["budget"], used, row.reserved_micros)
        await _warn(tx, owner, found, row.created_at)


async def settle(tx: Tx, row: Generation, now: int) -> None:
    """Settle a generation that has ended: what was reserved is free, and what it cost is spent."""
    for owner, found in await _change(tx, row, -row.reserved_micros, row.spent_micros, -1):
        await _warn(tx, owner, found, now)


async def correct(tx: Tx, old: Generation, new: Generation, now: int) -> None:
    """Replace what a generation was counted with: its cost is known better than when it ended."""
    for owner, found in await _change(tx, new, 0, new.spent_micros - old.spent_micros, 0):
        await _warn(tx, owner, found, now)


async def release(tx: Tx, row: Generation) -> None:
    """Free what was reserved for an unfinished generation that is deleted."""
    await _change(tx, row, -row.reserved_micros, 0, -1)


async def begin_anew(tx: Tx, client_id: str, campaign_id: str | None, now: int) -> None:
    """Forget the warning about the old budget of a client or campaign, and warn about the new one if it is due."""
    owner = _Owner("campaign" if campaign_id else "client", client_id, campaign_id)
    table = "campaigns" if campaign_id else "clients"
    await tx.run("UPDATE balances SET warned_micros = NULL WHERE owner_id = :id", id=owner.id)
    found = await tx.one(
        f"""
        SELECT reserved_micros + settled_micros AS used, warned_micros AS warned, budget_micros AS budget
        FROM {table} JOIN balances ON owner_id = id WHERE id = :id
        """,  # noqa: S608
        id=owner.id,
    )
    if found:
        await _warn(tx, owner, found, now)


async def _change(tx: Tx, row: Generation, reserved: int, settled: int, unfinished: int) -> list[tuple[_Owner, Row]]:
    """Add to the balances of the client and the campaign; return for each what is used now, its budget, and the budget
    that was warned of.

    A warning is forgotten when there is room again. It is one statement, since every accepted request waits for it.
    """
    found = await tx.all(
        """
        INSERT INTO balances (owner_id, reserved_micros, settled_micros, unfinished)
        VALUES (:client_id, :reserved, :settled, :unfinished), (:campaign_id, :reserved, :settled, :unfinished)
        ON CONFLICT (owner_id) DO UPDATE SET
          reserved_micros = balances.reserved_micros + excluded.reserved_micros,
          settled_micros = balances.settled_micros + excluded.settled_micros,
          unfinished = balances.unfinished + excluded.unfinished,
          warned_micros = CASE
            WHEN (balances.reserved_micros + balances.settled_micros + excluded.reserved_micros
              + excluded.settled_micros) * 100 < balances.warned_micros * :percent
            THEN NULL ELSE balances.warned_micros END
        RETURNING owner_id, reserved_micros + settled_micros AS used, warned_micros AS warned,
          CASE WHEN owner_id = :client_id THEN (SELECT budget_micros FROM clients WHERE id = :client_id)
            ELSE (SELECT budget_micros FROM campaigns WHERE id = :campaign_id) END AS budget
        """,
        client_id=row.client_id,
        campaign_id=row.campaign_id,
        reserved=reserved,
        settled=settled,
        unfinished=unfinished,
        percent=WARN_PERCENT,
    )
    client, campaign = _Owner("client", row.client_id), _Owner("campaign", row.client_id, row.campaign_id)
    return [(client if one["owner_id"] == row.client_id else campaign, one) for one in found]


async def _warn(tx: Tx, owner: _Owner, found: Row, now: int) -> None:
    """Write one event for a budget when WARN_PERCENT of it are used for the first time; none for a budget of 0."""
    budget, used = found["budget"], found["used"]
    if not budget or found["warned"] == budget or used * 100 < budget * WARN_PERCENT:
        return
    await tx.run("UPDATE balances SET warned_micros = :budget WHERE owner_id = :id", id=owner.id, budget=budget)
    subject = {
        "scope": owner.scope,
        "client_id": owner.client_id,
        "campaign_id": owner.campaign_id,
        "budget_usd": budget / 1_000_000,
        "used_usd": used / 1_000_000,
        "share": WARN_PERCENT / 100,
    }
    await events.warn(tx, owner.client_id, owner.campaign_id, subject, now)


def _refusal(scope: str, budget: int, used: int, micros: int) -> BudgetExceeded:
    left = max(budget - used, 0)
    return BudgetExceeded(
        f"The {scope}'s budget of {_usd(budget)} has {_usd(left)} left and this may cost {_usd(micros)}:"
        " nothing was accepted."
    )


def _usd(micros: int) -> str:
    """Write millionths of a dollar as dollars with cents, and with more digits only where there are more."""
    whole, rest = divmod(micros, 1_000_000)
    return f"${whole:,}.{f'{rest:06}'.rstrip('0').ljust(2, '0')}"
