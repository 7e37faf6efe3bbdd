"""The queue of a provider: clients take turns, and none gets more than its share of what may be in flight."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from backend.core.generation import Generation
from backend.db.connection import Tx
from backend.db.generation_rows import COLUMNS, read
from backend.db.generations import begin


async def any_queued(tx: Tx, provider: str, kinds: tuple[str, ...], now: int) -> bool:
    """Whether a row for this provider is due: one step of the index for each client, however long the queue is."""
    those, of_kind = _due_of_client(kinds)
    for client_id in await _clients_with_work(tx, provider):
        row = await tx.one(
            f"SELECT id FROM generations WHERE {those} LIMIT 1",  # noqa: S608
            provider=provider,
            client_id=client_id,
            now=now,
            **of_kind,
        )
        if row is not None:
            return True
    return False


async def claim_queued(
    tx: Tx,
    provider: str,
    account: str,
    *,
    kinds: tuple[str, ...],
    owner: str,
    now: int,
    until: int,
    limit: int,
    ready: Callable[[Generation], bool] = lambda row: not row.source,
    after: str = "",
) -> list[Generation]:
    """Take queued rows for this account fairly: clients with the fewest in flight first, none more than its share.

    Of clients with equally many, those behind the client `after` come first.
    Rows that are `ready` become `submitting` in this transaction, before anything is sent. The others stay `queued`
    under the lease until their references are there. The lease ends at `until`.
    """
    clients = await _clients_with_work(tx, provider)
    if not clients:
        return []
    # A share for each client: taken by age alone, 10,000 rows of one client would be served before the others' first.
    portion = max(1, limit // len(clients))
    taken: list[Generation] = []
    for client_id in await _fewest_first(tx, account, _behind(after, clients)):
        taken += await _claim_of_client(
            tx, provider, client_id, kinds, owner, now, until, min(portion, limit - len(taken))
        )
        if len(taken) >= limit:
            break
    taken = [replace(row, account=account) for row in taken]
    # Committed before the request leaves: after a crash, a row in `submitting` may have been paid for, and one that is
    # still `queued` certainly was not.
    ids = [row.id for row in taken if ready(row)]
    begun = {row.id: row for row in await begin(tx, ids, account=account, owner=owner, now=now)}
    return [begun.get(row.id, row) for row in taken]


async def _clients_with_work(tx: Tx, provider: str) -> list[str]:
    """Return the clients that have queued rows.

    A DISTINCT would read the whole queue. This takes one step of the index for each client.
    """
    rows = await tx.all(
        """
        WITH RECURSIVE found (client_id) AS (
          SELECT MIN(client_id) FROM generations WHERE status = 'queued' AND provider = :provider
          UNION ALL
          SELECT (SELECT MIN(g.client_id) FROM generations g
                  WHERE g.status = 'queued' AND g.provider = :provider AND g.client_id > found.client_id)
          FROM found WHERE found.client_id IS NOT NULL
        )
        SELECT client_id FROM found WHERE client_id IS NOT NULL
        """,
        provider=provider,
    )
    return [row["client_id"] for row in rows]


def _behind(after: str, clients: list[str]) -> list[str]:
    """Return the same clients, in an order that begins behind this one."""
    # Where one row runs at a time nobody has any in flight, and by id alone the first client would be served for ever.
    return sorted(clients, key=lambda client: (client <= after, client))


async def _fewest_first(tx: Tx, account: str, clients: list[str]) -> list[str]:
    rows = await tx.all(
        """
        SELECT client_id, COUNT(*) AS n FROM generations
        WHERE COALESCE(account, provider) = :account AND status IN ('submitting', 'unclear', 'processing')
        AND held_at IS NULL GROUP BY client_id
        """,
        account=account,
    )
    flying = {row["client_id"]: row["n"] for row in rows}
    return sorted(clients, key=lambda client: flying.get(client, 0))


async def _claim_of_client(
    tx: Tx,
    provider: str,
    client_id: str,
    kinds: tuple[str, ...],
    owner: str,
    now: int,
    until: int,
    limit: int,
) -> list[Generation]:
    those, of_kind = _due_of_client(kinds)
    rows = await tx.all(
        f"""
        UPDATE generations SET lease_owner = :owner, due_at = :until, attempts = attempts + 1
        WHERE id IN (SELECT id FROM generations WHERE {those} ORDER BY due_at, id LIMIT :limit)
        AND status = 'queued' AND due_at <= :now
        RETURNING {COLUMNS}
        """,  # noqa: S608
        provider=provider,
        client_id=client_id,
        owner=owner,
        now=now,
        until=until,
        limit=limit,
        **of_kind,
    )
    return sorted(map(read, rows), key=lambda row: row.id)


def _due_of_client(kinds: tuple[str, ...]) -> tuple[str, dict[str, str]]:
    """The condition for the queued rows of one client that are due and of these kinds, and the parameter it adds.

    A worker for both kinds states no kind at all: the index ends at `due_at`, and a condition that every row meets
    would only cost a look at the row.
    """
    due = "status = 'queued' AND provider = :provider AND client_id = :client_id AND due_at <= :now"
    return (due, {}) if len(kinds) == 2 else (f"{due} AND kind = :kind", {"kind": kinds[0]})
