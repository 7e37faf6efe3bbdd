"""Rules of this house about safety and waits: `python tests/rules.py` says where one is broken."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent

SECRET = re.compile(r"(^|_)(signature|sig|token|digest|hexdigest|hmac|mac|nonce|secret|password|api_key)s?$")
UNSAFE_IMPORTS = {"pickle", "cPickle", "dill", "marshal", "shelve", "jsonpickle", "xml", "telnetlib", "ftplib"}
UNSAFE_CALLS = {
    "eval",
    "exec",
    "__import__",
    "yaml.load",
    "yaml.unsafe_load",
    "os.system",
    "os.popen",
    "tempfile.mktemp",
}
UNSAFE_OPTIONS = {("shell", True), ("verify", False), ("follow_redirects", True), ("check_hostname", False)}
STATEMENT = re.compile(
    r"^\s*(SELECT\b.+\bFROM\b|INSERT\b.*\bINTO\b|UPDATE\b.+\bSET\b|DELETE\s+FROM\b|WITH\b.+\bSELECT\b|PRAGMA\b|ATTACH\b)",
    re.IGNORECASE | re.DOTALL,
)

# What may stand in the text of a statement: names of columns and tables, and conditions, all written in our sources.
# A value never does: it is bound as `:name`.
IN_STATEMENTS = {
    "COLUMNS",
    "_COLUMNS",
    "OWNER_COLUMNS",
    "_ADDED",  # the sums of columns
    "columns",  # the same with their table's name
    "changes",  # `name = :name` of names that were looked up among the columns
    "column",  # one of two constants
    "table",  # of a constant list
    "status",  # of MOVES and SHOWN, which no request can add to
    "finals",  # the final ones of these
    "_NOT_DELETED",
    "those",  # a constant condition, like the rest of these
    "of_client",
    "of_campaign",
    "condition",
    "fence",
    "' AND '.join(wheres)",
    "' AND '.join(wheres + more)",
    "', '.join((':' + name for name in names))",  # placeholders
    "', '.join((':' + name for name in NAMES))",
    "', '.join((':' + name for name in _NAMES))",
}

# A rule, a module, and why the rule does not hold there.
EXCEPTIONS: dict[tuple[str, str], str] = {
    ("secret_comparisons", "backup/manifest.py"): "checksums of files, which are no secret",
    ("swallowed_errors", "worker/loop.py"): "the last words of a worker that leaves: its row goes stale by itself",
}

ONLY_IN = {"quoted_values": "db/"}  # elsewhere a quote is a quote

Finding = tuple[int, str]


def secret_comparisons(tree: ast.Module) -> Iterator[Finding]:
    """`==` tells by its time how much of a signature was right: hmac.compare_digest does not."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Compare) or not all(isinstance(op, ast.Eq | ast.NotEq) for op in node.ops):
            continue
        sides = [node.left, *node.comparators]
        if any(SECRET.search(name_of(side)) for side in sides) and not any(map(is_plain, sides)):
            yield node.lineno, ast.unparse(node)


def is_plain(side: ast.expr) -> bool:
    """None, a number or an empty text: that something is there at all may be seen."""
    return isinstance(side, ast.Constant) and (not side.value or isinstance(side.value, int))


def name_of(node: ast.expr) -> str:
    """The last name of `a`, `a.b`, `a.b()` and `a["b"]`."""
    match node:
        case ast.Name():
            return node.id
        case ast.Attribute():
            return node.attr
        case ast.Call():
            made_of = node.func.value if isinstance(node.func, ast.Attribute) else None
            inner = (
                name_of(made_of) if made_of is not None and name_of(node.func) in {"encode", "strip", "lower"} else ""
            )
            return inner or name_of(node.func)
        case ast.Await():
            return name_of(node.value)
        case ast.Subscript(slice=ast.Constant(value=str() as key)):
            return key
    return ""


def values_in_statements(tree: ast.Module) -> Iterator[Finding]:
    """SQL that is put together from anything but names this list knows."""
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = [part.value for part in node.values if isinstance(part, ast.FormattedValue)]
            text = "".join(part.value if isinstance(part, ast.Constant) else "x" for part in node.values)
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Mod):
            parts, text = [node.left, node.right], leading_text(node)
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in {"format", "replace"}
        ):
            parts, text = [*node.args, *(given.value for given in node.keywords)], leading_text(node.func.value)
        else:
            continue
        if STATEMENT.match(text):
            yield from ((node.lineno, ast.unparse(part)) for part in parts if not is_known(part))


def quoted_values(tree: ast.Module) -> Iterator[Finding]:
    """A value between quotes in a piece of SQL, which could hold a quote itself."""
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            for before, part in zip(node.values, node.values[1:], strict=False):
                quoted = isinstance(before, ast.Constant) and str(before.value).endswith("'")
                if quoted and isinstance(part, ast.FormattedValue) and not is_known(part.value):
                    yield node.lineno, ast.unparse(part.value)


def leading_text(node: ast.expr) -> str:
    """The text a concatenation begins with."""
    while isinstance(node, ast.BinOp):
        node = node.left
    if isinstance(node, ast.JoinedStr):
        return "".join(part.value if isinstance(part, ast.Constant) else "x" for part in node.values)
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def is_known(part: ast.expr) -> bool:
    return isinstance(part, ast.Constant | ast.JoinedStr) or ast.unparse(part) in IN_STATEMENTS


def unsafe_options(tree: ast.Module) -> Iterator[Finding]:
    """A shell, a certificate nobody looks at, a redirect that leads past the checks."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            for given in node.keywords:
                if isinstance(given.value, ast.Constant) and (given.arg, given.value.value) in UNSAFE_OPTIONS:
                    yield node.lineno, f"{given.arg}={given.value.value}"
        elif isinstance(node, ast.Attribute) and node.attr in {"CERT_NONE", "_create_unverified_context"}:
            yield node.lineno, node.attr


def unsafe_code(tree: ast.Module) -> Iterator[Finding]:
    """What runs code that came as data."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        else:
            if isinstance(node, ast.Call) and ast.unparse(node.func) in UNSAFE_CALLS:
                yield node.lineno, ast.unparse(node.func)
            continue
        yield from ((node.lineno, name) for name in names if name.split(".")[0] in UNSAFE_IMPORTS)


def swallowed_errors(tree: ast.Module) -> Iterator[Finding]:
    """Whatever happened, nobody hears of it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler) and is_broad(node.type) and all(map(says_nothing, node.body)):
            yield node.lineno, "except " + (ast.unparse(node.type) if node.type else "")
        elif isinstance(node, ast.Call) and name_of(node.func) == "suppress" and any(map(is_broad, node.args)):
            yield node.lineno, ast.unparse(node)


def is_broad(caught: ast.expr | None) -> bool:
    if isinstance(caught, ast.Tuple):
        return any(map(is_broad, caught.elts))
    return caught is None or name_of(caught) in {"Exception", "BaseException"}


def says_nothing(line: ast.stmt) -> bool:
    return isinstance(line, ast.Pass | ast.Continue) or (
        isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant)
    )


def asserts_that_decide(tree: ast.Module) -> Iterator[Finding]:
    """`python -O` leaves asserts out: they may tell mypy a type, and nothing else."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Assert) and not tells_a_type(node.test):
            yield node.lineno, ast.unparse(node)


def tells_a_type(test: ast.expr) -> bool:
    if isinstance(test, ast.BoolOp):
        return all(map(tells_a_type, test.values))
    if isinstance(test, ast.Compare):
        return isinstance(test.ops[0], ast.IsNot) and ast.unparse(test.comparators[0]) == "None"
    return isinstance(test, ast.Call) and name_of(test.func) in {"isinstance", "issubclass"}


# What changes the thing it is called on, or tells others. `add(tx, ...)` is a statement of ours.
CHANGES = {
    "add",
    "append",
    "appendleft",
    "clear",
    "discard",
    "extend",
    "extendleft",
    "insert",
    "pop",
    "popitem",
    "popleft",
}
CHANGES |= {"put_nowait", "remove", "set", "setdefault", "update", "wake", "ring", "inc", "dec", "observe"}


def works_with_side_effects(tree: ast.Module) -> Iterator[Finding]:
    """What is given a transaction may be run again, so it changes nothing but the database and names of its own."""
    for function in ast.walk(tree):
        if isinstance(function, ast.AsyncFunctionDef | ast.FunctionDef | ast.Lambda) and is_given_a_transaction(
            function
        ):
            inner = [node for node in ast.walk(function) if node is not function]
            own = {node.id for node in inner if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
            yield from ((node.lineno, ast.unparse(node)) for node in inner if is_changed_outside(node, own))


def is_given_a_transaction(function: ast.AsyncFunctionDef | ast.FunctionDef | ast.Lambda) -> bool:
    return any(given.arg == "tx" for given in (*function.args.args, *function.args.kwonlyargs))


def is_changed_outside(node: ast.AST, own: set[str]) -> bool:
    match node:
        case ast.Nonlocal() | ast.Global():
            return True
        case ast.Attribute(ctx=ast.Store() | ast.Del()) | ast.Subscript(ctx=ast.Store() | ast.Del()):
            return root_of(node) not in own
        case ast.Call(func=ast.Attribute(attr=name), args=given):
            is_statement = bool(given) and ast.unparse(given[0]) == "tx"
            return name in CHANGES and not is_statement and root_of(node) not in own
    return False


def root_of(node: ast.AST) -> str:
    """The first name of `a.b[c].d()`."""
    while isinstance(node, ast.Attribute | ast.Subscript | ast.Call):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else ""


RULES: list[Callable[[ast.Module], Iterator[Finding]]] = [
    secret_comparisons,
    values_in_statements,
    quoted_values,
    unsafe_options,
    unsafe_code,
    swallowed_errors,
    asserts_that_decide,
    works_with_side_effects,
]


def fixed_sleeps(source: str) -> Iterator[Finding]:
    """A test that waits for a time: too short on a slow machine, too long on each other. `until` waits for a condition.

    Where the time itself is the point, the line says why: proof that nothing happens, a peer that is slow on purpose.
    """
    lines = source.splitlines()
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    for call in calls:
        has_reason = any("  # " in line for line in lines[call.lineno - 1 : call.end_lineno])
        if name_of(call.func) == "sleep" and not has_reason and not is_no_time(call):
            yield call.lineno, ast.unparse(call)


def is_no_time(sleep: ast.Call) -> bool:
    """`sleep(0)` gives others their turn and waits for nothing."""
    return bool(sleep.args) and isinstance(sleep.args[0], ast.Constant) and sleep.args[0].value == 0


def impatient(tests: Path) -> list[str]:
    """Every place where a test waits for a time, but for the one home of the waits."""
    found = []
    for path in sorted(tests.rglob("*.py")):
        if path != tests / "waiting.py":
            name = path.relative_to(tests.parent).as_posix()
            for line, words in fixed_sleeps(path.read_text("utf-8")):
                found.append(f"{name}:{line}: fixed_sleeps: {words}: use waiting.until, or say why beside it")
    return found


def broken(backend: Path) -> list[str]:
    """Every place where a rule is broken, with the rule and the words."""
    found = []
    for path in sorted(backend.rglob("*.py")):
        name, tree = path.relative_to(backend).as_posix(), ast.parse(path.read_text("utf-8"))
        for rule in RULES:
            if (rule.__name__, name) not in EXCEPTIONS and name.startswith(ONLY_IN.get(rule.__name__, "")):
                found += [f"{backend.name}/{name}:{line}: {rule.__name__}: {words}" for line, words in rule(tree)]
    return found


if __name__ == "__main__":
    wrong = broken(ROOT / "backend") + broken(ROOT / "reelhook") + impatient(ROOT / "tests")
    print("\n".join(wrong) or "the rules hold")
    sys.exit(bool(wrong))
