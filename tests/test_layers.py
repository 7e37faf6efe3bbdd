"""The house keeps its order: imports point down, and every outside thing has one home."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# Top to bottom. A name is a room or module below backend/; one in a later group is lower.
LAYERS: list[list[str]] = [
    ["cli"],
    ["backup"],
    ["app"],
    ["web.server", "worker", "emulator"],
    ["web.routes"],
    ["web.openai", "web.mcp"],
    ["web.api"],
    ["web.calls"],
    ["web.callers", "upkeep"],
    ["steps"],
    ["manage", "live"],
    ["context"],
    ["providers.registry"],
    ["providers.local", "providers.replicate", "emulator.replicate"],  # one provider knows nothing of another
    ["emulator.kit"],  # and what they are built from knows none of them
    ["providers"],
    ["db", "storage", "http", "media"],
    ["disk"],
    ["config"],
    ["core", "logs"],
]

# What the emulator may know of us: it stands in for somebody else, so nothing of the service's insides.
EMULATOR_KNOWS = {"emulator", "http", "core.errors"}

# Imports that skip the order on purpose, each with its reason.
EXCEPTIONS: dict[str, set[str]] = {}

# An outside package and the only places that may import it: a whole layer, or one module by its dotted name.
HOMES: dict[str, set[str]] = {
    "starlette": {"web", "emulator"},
    "uvicorn": {"emulator", "http.serving", "http.cycles", "web.server.entry"},
    "httptools": {"http"},
    "slowapi": {"web"},
    "sse_starlette": {"web"},
    "httpx": {"http"},
    "sqlite3": {"db"},
    "asyncpg": {"db"},
    "obstore": {"storage"},
    "PIL": {"media", "emulator"},
    "av": {"media", "emulator"},
    "bcrypt": {"web.callers", "manage.keys"},
    "mcp": {"web.mcp"},
    "mcp_types": {"web.mcp"},
    "reelhook": {"cli", "web.mcp"},  # the Python client: the commands and the tools are built on it, the service is not
    "typer": {"cli"},
    "rich": {"cli"},
}
SQL_HOMES = {"db"}
ENVIRONMENT_HOMES = {
    "config",
    "cli.processes",  # hands its own environment on to the programs it starts
}
BROAD_EXCEPT_HOMES = {
    "worker.loop",  # it outlives whatever one step does
    "web.server.middleware",  # a bug becomes a 500 that says nothing and a log line that says all
    "db.commits",  # several writes share a commit: each failure is handed to the one who asked
    "db.sqlite",  # a batch that fails as a whole: each who waits is told
    "db.threads",  # a thread hands over what went wrong and does the next job
}

MODULE_LINES = 300
FUNCTION_LINES = 45
EMPTY_NAMES = {"utils", "util", "helpers", "helper", "common", "manager", "managers", "service", "misc"}

STATEMENT = (
    r"^\s*(SELECT\b.+\bFROM\b|INSERT\s+(OR\s+\w+\s+)?INTO\b|UPDATE\s+\w+\s+SET\b|DELETE\s+FROM\b"
    r"|CREATE\s+(UNIQUE\s+)?(TABLE|INDEX)\b|ALTER\s+TABLE\b|DROP\s+TABLE\b|PRAGMA\s+\w+|BEGIN\s+IMMEDIATE)"
)
# All capitals or all small: a sentence that starts with "Select" is a sentence.
SQL = [
    re.compile(STATEMENT, re.DOTALL),
    re.compile(re.sub(r"(?<!\\)[A-Z]+", lambda word: word[0].lower(), STATEMENT), re.DOTALL),
]


parsed = cache(ast.parse)  # each rule reads every module


def modules(backend: Path) -> Iterator[tuple[str, Path, ast.Module]]:
    """Each module as its dotted name below backend ("" for the package itself), path and tree."""
    for path in sorted(backend.rglob("*.py")):
        parts = list(path.relative_to(backend).with_suffix("").parts)
        yield ".".join(parts if parts[-1] != "__init__" else parts[:-1]), path, parsed(path.read_text())


def imports(name: str, is_package: bool, tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Every import, wherever it stands, as an absolute dotted name with its line."""
    package = ["backend", *name.split(".")] if name else ["backend"]
    if not is_package:
        package = package[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (base, node.module or "") if part)
            yield from ((f"{module}.{alias.name}", node.lineno) for alias in node.names)


def home(name: str) -> str:
    return name.split(".")[0]


def above(name: str) -> set[str]:
    """The rooms that a module lies in."""
    parts = name.split(".")
    return {".".join(parts[:length]) for length in range(1, len(parts))}


def room(name: str) -> str | None:
    """The name in LAYERS that this module is, or lies in."""
    parts = name.split(".")
    found = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next((one for one in found if rank(one) is not None), None)


def rank(name: str) -> int | None:
    return next((i for i, group in enumerate(LAYERS) if name in group), None)


def is_downwards(here: str, there: str) -> bool:
    """Whether the module `here` may import `there`: what lies in one room may always import what lies beside it."""
    mine, theirs = room(here), room(there)
    if mine is None or theirs is None:
        return False
    return mine == theirs or theirs in EXCEPTIONS.get(mine, set()) or (rank(mine) or 0) < (rank(theirs) or 0)


def is_module(path: Path) -> bool:
    return path.is_dir() or path.with_suffix(".py").exists()


def wrong_directions(backend: Path) -> list[str]:
    found = []
    for name, path, tree in modules(backend):
        for target, line in imports(name, path.name == "__init__.py", tree):
            there = target.removeprefix("backend.")
            ours = target.startswith("backend.") and is_module(backend / there.split(".")[0])
            if ours and name and not is_downwards(name, there):
                found.append(f"{path.relative_to(backend)}:{line} imports {target}")
    return found


def emulator_insights(backend: Path) -> list[str]:
    return [
        f"{path.relative_to(backend)}:{line} imports {target}"
        for name, path, tree in modules(backend)
        if home(name) == "emulator"
        for target, line in imports(name, path.name == "__init__.py", tree)
        if target.startswith("backend.") and not {*above(target.removeprefix("backend.")), target[8:]} & EMULATOR_KNOWS
    ]


# What several steps need and none of them is: what an outcome means, how a row under a lease is moved, until when
# it is waited for, how a file is kept, what a reference becomes, what a new row starts from.
SHARED_BY_STEPS = {"deadlines", "inline", "leased", "outcomes", "outputs", "references", "sources"}


def steps_that_call_steps(backend: Path) -> list[str]:
    """A step talks to another one through the row."""
    found = []
    for name, path, tree in modules(backend):
        if name.startswith("steps."):
            for target, line in imports(name, path.name == "__init__.py", tree):
                other = target.split(".")[2] if target.startswith("backend.steps.") else name.split(".")[1]
                if other not in {name.split(".")[1], *SHARED_BY_STEPS}:
                    found.append(f"{path.relative_to(backend)}:{line} imports {target}")
    return found


def strangers(backend: Path) -> list[str]:
    """Outside packages imported away from home."""
    found = []
    for name, path, tree in modules(backend):
        for target, line in imports(name, path.name == "__init__.py", tree):
            homes = HOMES.get(target.split(".")[0])
            if homes is not None and not {name, *above(name)} & homes:
                found.append(f"{path.relative_to(backend)}:{line} imports {target}")
    return found


def literals(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Every string; of an f-string the text, with `x` for each value."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value, node.lineno
        elif isinstance(node, ast.JoinedStr):
            yield "".join(str(getattr(part, "value", "x")) for part in node.values), node.lineno


def stray_sql(backend: Path) -> list[str]:
    return [
        f"{path.relative_to(backend)}:{line} {text.strip()[:40]}"
        for name, path, tree in modules(backend)
        if home(name) not in SQL_HOMES
        for text, line in literals(tree)
        if any(pattern.match(text) for pattern in SQL)
    ]


def environment_readers(backend: Path) -> list[str]:
    return [
        f"{path.relative_to(backend)}:{node.lineno}"
        for name, path, tree in modules(backend)
        if name not in ENVIRONMENT_HOMES
        for node in ast.walk(tree)
        if (isinstance(node, ast.Attribute) and node.attr in {"environ", "environb", "getenv", "putenv"})
        or (
            isinstance(node, ast.ImportFrom)
            and node.module == "os"
            and {a.name for a in node.names} & {"environ", "getenv"}
        )
    ]


def broad_excepts(backend: Path) -> list[str]:
    return [
        f"{path.relative_to(backend)}:{node.lineno}"
        for name, path, tree in modules(backend)
        if name not in BROAD_EXCEPT_HOMES
        for node in ast.walk(tree)
        if isinstance(node, ast.ExceptHandler) and is_broad(node.type) and not raises_again(node)
    ]


def is_broad(caught: ast.expr | None) -> bool:
    if isinstance(caught, ast.Tuple):
        return any(is_broad(each) for each in caught.elts)
    return caught is None or (isinstance(caught, ast.Name) and caught.id in {"Exception", "BaseException"})


def raises_again(handler: ast.ExceptHandler) -> bool:
    """Whether the handler ends in a bare `raise`: it cleans up and swallows nothing."""
    last = handler.body[-1]
    return isinstance(last, ast.Raise) and last.exc is None


def too_long(backend: Path) -> list[str]:
    found = []
    for _, path, tree in modules(backend):
        where = path.relative_to(backend)
        lines = path.read_text().count("\n")
        found += [f"{where} has {lines} lines"] if lines > MODULE_LINES else []
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > FUNCTION_LINES:
                    found.append(f"{where}:{node.lineno} {node.name} has {length} lines")
    return found


def empty_names(backend: Path) -> list[str]:
    return [name for name, _, _ in modules(backend) if set(name.split(".")) & EMPTY_NAMES]


def homeless(backend: Path) -> list[str]:
    """Modules that no layer names: a new one must be given its place."""
    return [name for name, path, _ in modules(backend) if room(name) is None and path.name != "__init__.py"]


CAGED = "media.inside"
CAGED_KNOWS = {"core.errors", "disk.room", "media.kinds", CAGED}  # `room` knows of a disk that failed, and that is pure


def openings_of_the_cage(backend: Path) -> list[str]:
    """What decodes strangers' files runs in its own process: the service imports none of it, and it little of ours."""
    found = []
    for name, path, tree in modules(backend):
        is_caged = name == CAGED or name.startswith(f"{CAGED}.")
        for target, line in imports(name, path.name == "__init__.py", tree):
            ours = target.removeprefix("backend.")
            if target == ours:
                continue
            known = any(ours == one or ours.startswith(f"{one}.") for one in CAGED_KNOWS)
            if (is_caged and not known) or (not is_caged and ours.startswith(CAGED)):
                found.append(f"{path.relative_to(backend)}:{line} imports {target}")
    return found


RUNS = {"eval", "exec", "compile", "__import__"}
RUNNERS = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "yaml", "code", "runpy"}


def runners_of_text(backend: Path) -> list[str]:
    """What would run what it reads: eval, pickle, yaml and their like."""
    return [
        f"{path.relative_to(backend)}:{node.lineno}"
        for _, path, tree in modules(backend)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in RUNS
    ] + [
        f"{path.relative_to(backend)}:{line} imports {target}"
        for name, path, tree in modules(backend)
        for target, line in imports(name, path.name == "__init__.py", tree)
        if target.split(".")[0] in RUNNERS
    ]


RULES = [
    wrong_directions,
    emulator_insights,
    steps_that_call_steps,
    strangers,
    stray_sql,
    environment_readers,
    broad_excepts,
    too_long,
    empty_names,
    homeless,
    openings_of_the_cage,
    runners_of_text,
]


@pytest.mark.hazard(41)
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_house_is_in_order(rule) -> None:
    assert rule(ROOT / "backend") == []


CLIENT_RULES = [broad_excepts, too_long, empty_names, runners_of_text, stray_sql]
CLIENT_ENVIRONMENT_HOME = "_address"


def needs_of_the_client(client: Path) -> set[str]:
    """The packages it imports: whoever installs it for a program of theirs gets them all."""
    return {
        target.split(".")[0]
        for name, path, tree in modules(client)
        for target, _ in imports(name, path.name == "__init__.py", tree)
    } - sys.stdlib_module_names


@pytest.mark.parametrize("rule", CLIENT_RULES, ids=lambda rule: rule.__name__)
def test_the_python_client_is_in_order(rule) -> None:
    assert rule(ROOT / "reelhook") == []


def test_the_python_client_needs_httpx_alone_and_nothing_of_the_service() -> None:
    assert needs_of_the_client(ROOT / "reelhook") == {"reelhook", "httpx"}
    readers = environment_readers(ROOT / "reelhook")
    assert readers and all(each.startswith(f"{CLIENT_ENVIRONMENT_HOME}.py:") for each in readers)


# One file that breaks exactly the rule it stands beside, and one that looks like it and does not.
BREAKS = {
    wrong_directions: ("db/rows.py", "from backend.web.api import routes"),
    emulator_insights: ("emulator/app.py", "from backend.core.generation import QUEUED"),
    steps_that_call_steps: ("steps/submit.py", "from backend.steps import watch"),
    strangers: ("steps/submit.py", "def late():\n    import httpx"),
    stray_sql: (
        "web/api/routes.py",
        'def query(columns):\n    return f"""\n  SELECT {columns} FROM generations"""',
    ),
    environment_readers: ("web/api/routes.py", "import os\nhome = os.environ.get('HOME')"),
    broad_excepts: ("steps/submit.py", "try:\n    pass\nexcept (KeyError, Exception):\n    pass"),
    too_long: ("worker.py", "def long():\n" + "    pass\n" * 45),
    empty_names: ("web/helpers.py", ""),
    homeless: ("strays.py", ""),
    openings_of_the_cage: ("steps/submit.py", "from backend.media.inside import images"),
    runners_of_text: ("db/rows.py", "def read(row):\n    return eval(row)"),
}
HOLDS = {
    wrong_directions: ("web/api/rows.py", "from backend.db import rows\nfrom . import routes"),
    emulator_insights: ("emulator/app.py", "from backend.http import Http"),
    steps_that_call_steps: ("steps/submit.py", "from backend.steps import outcomes"),
    strangers: ("http.py", "import httpx"),
    stray_sql: ("web/api/routes.py", 'SENTENCE = "Select an image from the list"'),
    environment_readers: ("config.py", "import os\nhome = os.environ.get('HOME')"),
    broad_excepts: ("http.py", "try:\n    pass\nexcept BaseException:\n    print()\n    raise"),
    too_long: ("worker.py", "def short():\n" + "    pass\n" * 44),
    empty_names: ("web/helping.py", ""),
    homeless: ("worker.py", ""),
    openings_of_the_cage: ("media/inside/images.py", "from backend.media.kinds import Probe"),
    runners_of_text: ("db/rows.py", "import json\nimport re\nfound = re.compile('x'), json.loads('1')"),
}


def plant(tmp_path: Path, file: str, text: str) -> Path:
    """A small house in order, with one file more."""
    backend = tmp_path / "backend"
    for each in ("web/api/routes.py", "db/rows.py", "steps/watch.py", "steps/outcomes.py", "http.py", file):
        (backend / each).parent.mkdir(parents=True, exist_ok=True)
        (backend / each).touch()
    (backend / file).write_text(text)
    return backend


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_each_rule_sees_its_own_break(rule, tmp_path: Path) -> None:
    file, text = BREAKS[rule]
    assert len(rule(plant(tmp_path, file, text))) == 1


@pytest.mark.parametrize("there", ["emulator.replicate.routes", "emulator"])
def test_the_kit_of_the_emulator_knows_no_provider(there: str, tmp_path: Path) -> None:
    assert len(wrong_directions(plant(tmp_path, "emulator/kit/app.py", f"import backend.{there}"))) == 1
    assert wrong_directions(plant(tmp_path, "emulator/kit/app.py", "from backend.emulator.kit import runs")) == []


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_no_rule_cries_over_what_is_right(rule, tmp_path: Path) -> None:
    file, text = HOLDS[rule]
    assert rule(plant(tmp_path, file, text)) == []
