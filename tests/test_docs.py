"""The documentation is true: its examples run, and it names what there is and nothing else."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import os
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import typer
from PIL import Image

from backend import __version__
from backend.cli.commands import app
from backend.config import Settings
from backend.config.loading import setting_names
from backend.core.catalog import ProviderFacts
from backend.core.generation import ERROR_CODES, SHOWN
from backend.core.inputs import Input
from backend.core.models import Model
from backend.core.prices import Rule
from backend.core.requests import VideoRequest
from backend.core.roles import ROLES, Role
from backend.emulator.kit.fault_kinds import KINDS
from backend.emulator.kit.faults import parse
from backend.live.views import GenerationView
from backend.providers import catalog
from backend.upkeep import readiness
from backend.web.calls.operation import OPERATIONS
from backend.web.server import entry  # noqa: F401  registers every operation

ROOT = Path(__file__).parent.parent
PAGES = [
    *("README.md", "CHANGELOG.md", "docs/api.md", "docs/operating.md", "docs/architecture.md"),
    *("docs/emulator.md", "docs/models.md"),
]
HOSTS = {"localhost", "example.com", "media.example.com", "api.replicate.com", "name.ngrok-free.dev"}
HOSTS |= {"hooks.example.com"}


def page(name: str) -> str:
    return (ROOT / name).read_text("utf-8")


def section(name: str, title: str) -> str:
    """The text below a heading, up to the next one of its level."""
    return re.split(r"^## ", page(name).split(f"\n## {title}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]


def rows(text: str) -> list[list[str]]:
    """The cells of every table row, heads included."""
    return [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|")]


def names(text: str) -> list[str]:
    """What stands in backticks."""
    return re.findall(r"`([^`\n]+)`", text)


def test_the_readme_and_the_api_page_name_every_route_and_no_other() -> None:
    named = set(re.findall(r"(?:GET|POST|PATCH|DELETE|PUT) /[^`\s]*", page("docs/api.md")))
    there = {f"{made.method} {made.path}" for made in OPERATIONS}
    assert named <= there
    assert {f"{made.method} {made.path}" for made in OPERATIONS if made.in_schema} <= named


def test_every_route_named_elsewhere_exists() -> None:
    emulated = set(re.findall(r"`((?:GET|PUT|POST|DELETE) /emulator/[^`\s]*)", page("docs/operating.md")))
    source = (ROOT / "backend/emulator/kit/app.py").read_text()
    routes = re.findall(r'Route\("(/emulator/[^"]+)", \w+\.\w+, methods=\["(\w+)"\]', source)
    assert emulated == {f"{method} {path}" for path, method in routes}
    there = {f"{made.method} {made.path}" for made in OPERATIONS} | emulated
    for name in PAGES:
        assert set(re.findall(r"`((?:GET|POST|PATCH|DELETE|PUT) /[^`\s]*)", page(name))) <= there


def test_every_setting_is_in_the_table_with_its_default() -> None:
    told = {tuple(names(cells[0])): cells[1].strip() for cells in rows(section("docs/operating.md", "Settings"))[2:]}
    fields = Settings.model_fields
    there = {
        tuple(variables): f"`{fields[field].default}`" if fields[field].default not in (None, "") else "none"
        for field, variables in setting_names().items()
    }
    assert told == there


def test_every_variable_that_is_named_is_read_somewhere() -> None:
    known = {name for variables in setting_names().values() for name in variables}
    known |= {"REELHOOK_URL", "REELHOOK_API_KEY", "REELHOOK_ADMIN_KEY", "NGROK_AUTHTOKEN"}
    for name in PAGES:
        used = re.findall(r"\b([A-Z]+(?:_[A-Z]+)+)\b", page(name))
        assert set(used) - {"NEXT_CURSOR"} <= known, name


def commands() -> dict[str, set[str]]:
    """Every command by its words, with its options."""
    found: dict[str, set[str]] = {}

    def visit(words: str, command: Any) -> None:
        for name, inner in getattr(command, "commands", {}).items():
            visit(f"{words} {name}".strip(), inner)
        if not hasattr(command, "commands"):
            found[words] = {option for each in command.params for option in each.opts if option.startswith("-")}

    visit("", typer.main.get_command(app))
    return found


def test_every_command_is_in_the_table_and_no_other() -> None:
    table = rows(section("docs/operating.md", "Start"))[2:]
    assert [names(cells[0])[0].removeprefix("reelhook ") for cells in table] == list(commands_in_order())
    for cells in table:
        given = set(re.findall(r"--[a-z-]+", cells[1]))
        told = names(cells[0])[0].removeprefix("reelhook ")
        assert given - {"--no-worker"} <= commands()[told] and (told == "worker" or given <= commands()[told])


def commands_in_order() -> Iterator[str]:
    """As the table has them: what an operator runs, the keys, what a client runs."""
    known = list(commands())
    first = ("serve", "worker", "emulator", "demo", "migrate", "doctor", "backup", "restore")
    yield from first
    yield from (name for name in known if name.startswith("keys"))
    yield from (name for name in known if name.startswith("generate"))
    yield from (name for name in known if " " not in name and name not in first)


def test_every_command_line_that_is_shown_exists() -> None:
    known = commands()
    for name in PAGES:
        for shown in re.findall(r"(?:^|[\s`/(])reelhook ((?:--)?[a-z][^`#\n)]*)", "\n".join(code(name))):
            words = " ".join(re.match(r"(?:[a-z]+ ?)*", shown)[0].split())  # type: ignore[index]
            command = next((known[each] for each in known if words == each or words.startswith(each + " ")), None)
            assert command is not None or any(each.startswith(words + " ") for each in known), f"{name}: {shown}"
            assert set(re.findall(r"(?<=\s)--[a-z-]+", shown)) <= (command or set()), f"{name}: {shown}"


def code(name: str) -> list[str]:
    """Everything in a fenced block or in backticks."""
    text = page(name)
    fenced = re.findall(r"^```\w*\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [*fenced, *names(re.sub(r"^```\w*\n.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE))]


def test_every_script_that_is_named_exists() -> None:
    for name in PAGES:
        for script in re.findall(r"\bscripts/[a-z-]+", page(name)):
            assert os.access(ROOT / script, os.X_OK), script
        for file in re.findall(r"`((?:backend|tests)/[\w./]+|[a-z]+\.(?:sql|py))`", page(name)):
            assert (ROOT / file).exists(), f"{name}: {file}"


def test_the_map_of_the_architecture_names_what_exists() -> None:
    """Its paths are below backend/, so that the table fits; those in the text have their full name."""
    cells = [row[1] for row in rows(section("docs/architecture.md", "Where is what"))]
    paths = [path for cell in cells for path in re.findall(r"`([\w./-]+/[\w./-]*)`", cell)]
    assert len(paths) > 50
    assert [path for path in paths if not (ROOT / "backend" / path).exists()] == []


def test_the_checks_and_events_that_are_named_are_those_in_the_code() -> None:
    watch = section("docs/operating.md", "What to watch")
    told = {names(cells[0])[0] for cells in rows(watch) if names(cells[0])}
    checks = set(re.findall(r'^ +"(\w+)": ', inspect.getsource(readiness.readiness), re.MULTILINE))
    sources = "".join(file.read_text() for file in (ROOT / "backend").rglob("*.py") if "emulator" not in file.parts)
    events = set(re.findall(r'\blog\.(?:info|warning|error|exception)\(\s*"(\w+)"', sources))
    events |= set(re.findall(r'"event": "(\w+)"', sources))
    assert told == checks | events


def codes_in_source() -> set[str]:
    """Every `code` a problem can have: of its class, or given where it is raised."""
    found = set()
    errors = ast.parse((ROOT / "backend/core/errors.py").read_text())
    for node in ast.walk(errors):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Tuple) and len(node.value.elts) == 3:
            found.add(cast(ast.Constant, node.value.elts[1]).value)
    for folder in ("web", "steps", "manage", "live"):
        place = ROOT / "backend" / folder
        for file in place.rglob("*.py") if place.is_dir() else [place]:
            found |= set(re.findall(r'\bcode="(\w+)"', file.read_text()))
    return cast(set[str], found) | {"image_not_found", "video_not_found"}


def test_every_problem_code_is_in_the_table_and_no_other() -> None:
    text = section("docs/api.md", "Errors").split("| status | codes |")[1]
    told = set(re.findall(r"`([a-z]+(?:_[a-z]+)*)`", text))
    assert told == codes_in_source()


def test_every_status_stage_and_failure_is_told() -> None:
    text = section("docs/api.md", "A generation")
    head, failures = text.split("| `error.code` | meaning |")
    told = {
        (names(cells[0])[0], stage)
        for cells in rows(head.split("| status |")[1])[1:]
        if names(cells[0])
        for stage in names(cells[1])
    }
    assert told == {(status, stage) for stage, status in SHOWN.items()}
    assert {code for cells in rows(failures) for code in names(cells[0])} == set(ERROR_CODES)


def test_the_generation_that_is_shown_has_every_field() -> None:
    shown = re.search(r"```json\n(.*?)```", section("docs/api.md", "A generation"), re.DOTALL)
    assert shown
    GenerationView.model_validate_json(shown[1])


def test_every_field_of_a_request_is_told_with_the_models_there_are() -> None:
    text = section("docs/api.md", "Generate")
    told = {field for cells in rows(text) for field in names(cells[0])}
    assert told == set(VideoRequest.model_fields)
    for model in catalog.load().models.values():
        assert f"`{model.name}`" in text or not model.default


def fields_of(shape: type) -> set[str]:
    return {field.name for field in dataclasses.fields(shape)}


@pytest.mark.parametrize(
    ("heading", "shape", "elsewhere"),
    [
        ("The provider", ProviderFacts, set()),
        ("A model", Model, {"name", "provider"}),
        ("Inputs", Input, set()),
        ("References", Role, set()),
        ("Prices", Rule, set()),
    ],
)
def test_every_field_of_a_models_file_is_told(heading: str, shape: type, elsewhere: set[str]) -> None:
    told = {field for cells in rows(section("docs/models.md", heading))[2:] for field in names(cells[0])}
    assert told == fields_of(shape) - elsewhere


def test_every_role_is_told() -> None:
    assert {*ROLES} <= {*names(section("docs/models.md", "References"))}


def test_every_fault_is_told_with_its_arguments() -> None:
    text = section("docs/operating.md", "Rehearsals with the emulator")
    table = " ".join(cells[1] for cells in rows(text)[2:])
    told = {kind: names(arguments) for kind, arguments in re.findall(r"`(\w+)`(?: \(([^)]*)\))?", table)}
    assert {kind: set(given) for kind, given in told.items()} == {
        kind: set(arguments) for kind, (_, arguments, _) in KINDS.items()
    }
    faults = re.search(r"<!-- file: faults.toml -->\n```toml\n(.*?)```", text, re.DOTALL)
    assert faults and [parse(each) for each in tomllib.loads(faults[1])["faults"]]


def test_the_emulators_page_shows_code_that_runs() -> None:
    toy = (ROOT / "tests/toy_emulator.py").read_text()
    shown = re.findall(r"```python\n(.*?)```", page("docs/emulator.md"), re.DOTALL)
    assert len(shown) == 4 and all(block in toy for block in shown)


def test_the_emulators_page_names_no_kind_of_fault_that_is_none() -> None:
    table = rows(section("docs/emulator.md", "Faults"))[2:]
    assert {kind for cells in table for kind in names(cells[1])} <= set(KINDS)


@pytest.mark.parametrize("name", PAGES)
def test_every_link_leads_somewhere(name: str) -> None:
    here = (ROOT / name).parent
    for target in re.findall(r"\]\(([^)]+)\)|src=\"([^\"]+)\"", page(name)):
        file, _, anchor = "".join(target).partition("#")
        assert "://" not in file, "a page links to no other site"
        found = (here / file).resolve() if file else ROOT / name
        assert found.exists(), f"{name}: {file}"
        assert not anchor or anchor in anchors(found), f"{name}: #{anchor}"


def anchors(file: Path) -> set[str]:
    """The headings' names, as they are written in links."""
    headings = re.findall(r"^#+ (.+)$", file.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", PAGES)
def test_no_page_names_a_foreign_host_or_a_place_on_somebodys_disk(name: str) -> None:
    hosts = {host for host in re.findall(r"https?://([\w.-]+)", page(name))}
    assert hosts <= HOSTS
    assert not re.search(r"(?<![\w.}])/(?:home|root|work|tmp|Users)/", page(name))


def test_the_pictures_are_small_and_can_be_shown_light_and_dark() -> None:
    assert (ROOT / "docs/demo.jpg").stat().st_size < 60_000
    with Image.open(ROOT / "docs/demo.jpg") as picture:
        picture.load()
    drawing = page("docs/flow.svg")
    assert "prefers-color-scheme: dark" in drawing and "<title" in drawing and "<script" not in drawing


def test_the_changelog_has_this_version() -> None:
    assert re.search(rf"^## {re.escape(__version__)}\b", page("CHANGELOG.md"), re.MULTILINE)
