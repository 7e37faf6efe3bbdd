"""Which worker takes which rows beyond the queue: under a lease, by one conditional UPDATE.

A claim never looks first and writes then: between the two, another worker would take the same row, and a create that is
sent twice is paid twice.
"""

from __future__ import annotations

from backend.core.generation import STORING, Generation
from backend.db.connection import Tx
from backend.db.generation_rows import COLUMNS, read

NEVER = 1 << 62
_ACCOUNT = "COALESCE(account, provider) = :account"
# Both are read off an index in this order, up to the limit, and not sorted: with 50,000 rows due, sorting took 50 to
# 150 ms a claim. The indexes are generations_storing and generations_due. SQLite takes the latter only for a statement
# that repeats the condition of the index, so the list of statuses stays although one status is asked for.
_EXPIRING = f"status = 'storing' AND {_ACCOUNT} AND due_at <= :now ORDER BY COALESCE(outputs_expire_at, 0), due_at"
_BEGUN = (
    f"status IN ('submitting', 'unclear', 'processing', 'storing') AND {_ACCOUNT} AND due_at <= :now ORDER BY due_at"
)


async def accounts(tx: Tx, status: str) -> list[str]:
    """Return the accounts that have rows of this status, beyond the queue: one step of the index for each."""
    rows = await tx.all(
        """
        WITH RECURSIVE found (account) AS (
          SELECT MIN(COALESCE(account, provider)) FROM generations WHERE status = :status
          AND status IN ('submitting', 'unclear', 'processing', 'storing')
          UNION ALL
          SELECT (SELECT MIN(COALESCE(g.account, g.provider)) FROM generations g
                  WHERE g.status = :status AND COALESCE(g.account, g.provider) > found.account
                  AND g.status IN ('submitting', 'unclear', 'processing', 'storing'))
          FROM found WHERE found.account IS NOT NULL
        )
        SELECT account FROM found WHERE account IS NOT NULL
        """,
        status=status,
    )
    return [row["account"] for row in rows]


async def any_due(tx: Tx, status: str, account: str, now: int) -> bool:
    """Whether a row of this status and account is due; a status beyond the queue, which has `any_queued`."""
    row = await tx.one(
        """
        SELECT id FROM generations
        WHERE status = :status AND COALESCE(account, provider) = :account AND due_at <= :now
        AND status IN ('submitting', 'unclear', 'processing', 'storing') LIMIT 1
        """,
        status=status,
        account=account,
        now=now,
    )
    return row is not None


async def claim_due(
    tx: Tx, status: str, account: str, *, owner: str, now: int, until: int, limit: int
) -> list[Generation]:
    """Take up to `limit` due rows of this status and account, soonest to expire first; the lease ends at `until`."""
    # `attempts` is counted with the claim and not after the work: a row that kills its worker must be noticed. The
    # conditions stand outside of the subquery too: on PostgreSQL the row may change between the two, and only those
    # outside are checked anew.
    those = _EXPIRING if status == STORING else f"status = '{status}' AND {_BEGUN}"
    rows = await tx.all(
        f"""
        UPDATE generations SET lease_owner = :owner, due_at = :until, attempts = attempts + 1
        WHERE id IN (SELECT id FROM generations WHERE {those} LIMIT :limit) AND status = '{status}' AND due_at <= :now
        RETURNING {COLUMNS}
        """,  # noqa: S608
        account=account,
        owner=owner,
        now=now,
        until=until,
        limit=limit,
    )
    return [read(row) for row in rows]


async def count_in_flight(tx: Tx, provider: str, account: str, now: int | None = None) -> int:
    """Return how many predictions this account of the provider has, or may have, from us now.

    Rows that a restore holds do not count: most of them were finished, or never sent. With `now`, rows that are about
    to be sent count too: those that are leased until their references are ready, by whichever account.
    """
    row = await tx.one(
        """
        SELECT (
          SELECT COUNT(*) FROM generations
          WHERE COALESCE(account, provider) = :account AND status IN ('submitting', 'unclear', 'processing')
          AND held_at IS NULL
        ) + (
          SELECT COUNT(*) FROM generations
          WHERE lease_owner IS NOT NULL AND provider = :provider AND due_at > :now
          AND status || '' = 'queued'  -- an expression: the index of the few leased rows is taken, not the queue's
        ) AS n
        """,
        provider=provider,
        account=account,
        now=NEVER if now is None else now,
    )
    return int(row["n"]) if row else 0
