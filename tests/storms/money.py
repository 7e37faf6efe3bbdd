"""Budgets that are reached on the way: nothing may be accepted that does not fit, at any moment."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from auditor import MISCOUNTED, UNTRUE, Finding

USD_EACH = 0.05  # a budget for so much of each generation that is wanted: less than they cost

# What is used is added up from the rows at each new one, by the database and not by the balances.
_USED = """
  SELECT COALESCE(SUM(CASE
    WHEN finished_at IS NULL THEN COALESCE(cost_estimated_micros, 0)
    WHEN cost_actual_micros IS NOT NULL THEN cost_actual_micros
    WHEN status = 'completed' OR possibly_charged = 1 THEN COALESCE(cost_estimated_micros, 0)
    ELSE 0 END), 0)
  + (SELECT COALESCE(SUM(actual_micros), 0) FROM usage_days WHERE deleted = 1 AND usage_days.{whose} = new.{whose})
  FROM generations WHERE generations.{whose} = new.{whose}"""
_TRIGGER = """
CREATE TRIGGER witness_budget_of_{table} AFTER INSERT ON generations
WHEN (SELECT budget_micros FROM {table} WHERE id = new.{whose}) IS NOT NULL
BEGIN INSERT INTO overdrawn SELECT new.id, budget_micros, ({used}) AS used FROM {table}
WHERE id = new.{whose} AND ({used}) > budget_micros; END;"""
WITNESS = "CREATE TABLE overdrawn (id TEXT, budget INTEGER, used INTEGER);" + "".join(
    _TRIGGER.format(table=table, whose=whose, used=_USED.format(whose=whose))
    for table, whose in (("clients", "client_id"), ("campaigns", "campaign_id"))
)
LIMITED = """
SELECT id, budget_micros FROM clients WHERE budget_micros IS NOT NULL
UNION ALL SELECT id, budget_micros FROM campaigns WHERE budget_micros IS NOT NULL
"""
WARNED = "SELECT COALESCE(campaign_id, client_id), COUNT(*) FROM events WHERE type = 'budget.warning' GROUP BY 1"


def findings(rows: Callable[[str], list[tuple[Any, ...]]]) -> Iterator[Finding]:
    """What was accepted beyond a budget, and budgets that nobody was warned of."""
    for id, budget, used in rows("SELECT id, budget, used FROM overdrawn"):
        yield Finding(MISCOUNTED, f"{id} was accepted, which made {used} of a budget of {budget}")
    balances = {owner: used for owner, used in rows("SELECT owner_id, reserved_micros + settled_micros FROM balances")}
    warned = dict(rows(WARNED))
    for owner, budget in rows(LIMITED):
        if balances.get(owner, 0) * 100 >= budget * 80 and not warned.get(owner):
            yield Finding(UNTRUE, f"nobody was warned of the budget of {owner}")
