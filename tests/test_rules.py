"""The rules about safety hold, each sees what breaks it, and none cries over what is right."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import rules

WRONG = {
    rules.secret_comparisons: [
        "if signature == expected: pass",
        "if request.headers['token'] != row.token: pass",
        "ok = hmac.digest(key, text, 'sha256') == given",
        "ok = hashlib.sha256(key).hexdigest() == row.hash",
        "ok = await asked.token() == given",
        "ok = nonce.encode() == row.nonce.encode()",
        "ok = api_key == 'sk_test'",
    ],
    rules.values_in_statements: [
        "tx.one(f'SELECT id FROM clients WHERE name = {name}')",
        "tx.one(f'''\n  UPDATE clients SET name = {given.name}''')",
        "tx.one('SELECT id FROM clients WHERE id = ' + id)",
        "tx.one('SELECT id FROM clients WHERE id = %s' % id)",
        "tx.one('DELETE FROM clients WHERE id = {}'.format(id))",
        "tx.one('DELETE FROM clients WHERE id = ?'.replace('?', id))",
        "tx.one(f'select id from clients where id in ({\", \".join(ids)})')",
        "tx.one('SELECT id FROM clients ' + 'WHERE id = ' + id)",
    ],
    rules.quoted_values: ["where = f\"name = '{name}'\"", "where = f\"{column} LIKE '{text}%'\""],
    rules.unsafe_options: [
        "subprocess.run(command, shell=True)",
        "httpx.Client(verify=False)",
        "client.get(url, follow_redirects=True)",
        "context.verify_mode = ssl.CERT_NONE",
        "context = ssl._create_unverified_context()",
    ],
    rules.unsafe_code: [
        "import pickle",
        "def late():\n    from pickle import loads",
        "import xml.etree.ElementTree",
        "eval(text)",
        "exec(text)",
        "yaml.load(text)",
        "os.system('ls')",
    ],
    rules.swallowed_errors: [
        "try:\n    work()\nexcept Exception:\n    pass",
        "try:\n    work()\nexcept:\n    ...",
        "for each in all:\n    try:\n        work()\n    except (KeyError, BaseException):\n        continue",
        "with suppress(Exception):\n    work()",
        "with contextlib.suppress(KeyError, Exception):\n    work()",
    ],
    rules.works_with_side_effects: [
        "async def admit(tx, ctx, client_id, more):\n    ctx.room_left[client_id] = more",
        "async def f(ctx):\n    found = []\n    async def work(tx):\n        found.append(await get(tx))",
        "async def f(ctx):\n    n = 0\n    async def work(tx):\n        nonlocal n\n        n += 1",
        "async def work(tx, ctx):\n    await move(tx)\n    ctx.wake('submit')",
        "async def work(tx, row):\n    row.status = 'queued'",
        "db.write(lambda tx: seen.add(tx.one('x')))",
        "async def work(tx):\n    FAILURES.labels('lane').inc()",
    ],
    rules.asserts_that_decide: [
        "assert caller.admin",
        "assert row.client_id == caller.client_id",
        "assert caller is not None and caller.admin",
        "assert not expired",
    ],
}
RIGHT = {
    rules.secret_comparisons: [
        "ok = hmac.compare_digest(signature, expected)",
        "if token is None or token == '' or len(token) != 43: pass",
        "if row.kind == 'token': pass",
        "if tokens_left == limit: pass",
    ],
    rules.values_in_statements: [
        "tx.one(f'SELECT {COLUMNS} FROM clients WHERE id = :id', id=id)",
        "say(f'{id} was selected from {place}')",
        "path = folder + name",
        "tx.one('SELECT id ' + 'FROM clients')",
    ],
    rules.quoted_values: ["names = f\"'{status}'\"", "where = f'{name} = :{name}'"],
    rules.unsafe_options: ["subprocess.run(['ls'])", "httpx.Client(verify=context, follow_redirects=False)"],
    rules.unsafe_code: ["import json", "from ast import literal_eval", "model.eval()", "yaml.safe_load(text)"],
    rules.swallowed_errors: [
        "try:\n    work()\nexcept KeyError:\n    pass  # why",
        "try:\n    work()\nexcept Exception:\n    log.exception('work_failed')",
        "with suppress(FileNotFoundError):\n    work()",
    ],
    rules.works_with_side_effects: [
        "async def work(tx):\n    taken = []\n    taken.append(await get(tx))\n    taken[0] = 1\n    return taken",
        "async def work(tx, row):\n    await holdings.add(tx, row.client_id)",
        "async def work(tx, **fields):\n    fields = {**fields}\n    fields.pop('failure')",
        "async def f(ctx):\n    await ctx.db.write(lambda tx: move(tx))\n    ctx.wake('submit')\n    ctx.n[1] = 2",
    ],
    rules.asserts_that_decide: ["assert caller is not None", "assert isinstance(row, dict) and name is not None"],
}


def cases(of: dict[object, list[str]]) -> list[object]:
    return [pytest.param(rule, text, id=f"{rule.__name__}-{n}") for rule in of for n, text in enumerate(of[rule])]


def test_the_rules_hold() -> None:
    assert rules.broken(rules.ROOT / "backend") == []
    assert rules.broken(rules.ROOT / "reelhook") == []
    assert rules.impatient(rules.ROOT / "tests") == []


@pytest.mark.parametrize(("rule", "text"), cases(WRONG))
def test_each_rule_sees_its_break(rule, text: str) -> None:
    assert len(list(rule(ast.parse(text)))) >= 1


@pytest.mark.parametrize(("rule", "text"), cases(RIGHT))
def test_no_rule_cries_over_what_is_right(rule, text: str) -> None:
    assert list(rule(ast.parse(text))) == []


@pytest.mark.parametrize("text", ["time.sleep(0.1)", "await asyncio.sleep(seconds)", "sleep(\n    1,\n)", "sleep()"])
def test_a_test_that_waits_for_a_time_is_seen(text: str) -> None:
    assert len(list(rules.fixed_sleeps(f"async def test():\n    {text}\n    pass  # why"))) == 1


@pytest.mark.parametrize("text", ["await asyncio.sleep(0)", "time.sleep(1)  # slow on purpose", "until(lambda: done)"])
def test_a_test_may_give_way_and_may_wait_with_a_reason(text: str) -> None:
    assert list(rules.fixed_sleeps(f"async def test():\n    {text}")) == []


def test_every_rule_has_samples_and_every_exception_is_still_needed() -> None:
    assert set(WRONG) == set(RIGHT) == set(rules.RULES)
    by_name = {rule.__name__: rule for rule in rules.RULES}
    for (rule, module), why in rules.EXCEPTIONS.items():
        path: Path = rules.ROOT / "backend" / module
        assert why and list(by_name[rule](ast.parse(path.read_text()))), f"{rule} holds in {module}"


def test_every_name_that_may_stand_in_a_statement_does(monkeypatch: pytest.MonkeyPatch) -> None:
    allowed = set(rules.IN_STATEMENTS)
    monkeypatch.setattr(rules, "IN_STATEMENTS", set())
    trees = [ast.parse(path.read_text()) for path in (rules.ROOT / "backend/db").rglob("*.py")]
    assert allowed == {words for tree in trees for _, words in rules.values_in_statements(tree)}
