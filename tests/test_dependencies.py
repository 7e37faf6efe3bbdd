"""What we build on is new enough, locked to the byte, and asked for as it is locked."""

from __future__ import annotations

import re
import sqlite3
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from backend.db.file import IS_SAFE_FOR_SEVERAL

ROOT = Path(__file__).parent.parent
LOCKS = ("requirements.lock", "requirements-dev.lock", "requirements-build.lock")

# The oldest version that may be used, and what is wrong with those before it.
FLOORS = {
    "starlette": ("1.9", "CVE-2026-48710 (Host in the path), PYSEC-2026-248/-249, ranges in O(n²) (CVE-2025-62727)"),
    "uvicorn": ("0.51", "doubled forwarding headers (0.49), reloads without a gap (0.51)"),
    "h11": ("0.16", "CVE-2025-43859: chunk ends that are not checked let requests be smuggled"),
    "python-multipart": ("0.0.31", "CVE-2026-40347, -42561, -53537, -53538, -53540 in reading forms"),
    "pillow": ("12.3", "CVEs in its FITS, GD and PSD decoders, the last mended in 12.3"),
    "httpx": ("0.28.1", "the version that the Python client and the tests know"),
    "httpcore": ("1.0.9", "the first that asks for an h11 without CVE-2025-43859"),
    "limits": ("5.8", "a race in its asynchronous memory storage (seen in 5.2)"),
    "slowapi": ("0.1.10", "the version whose traps (mounts, middleware, headers, Redis) the tests know"),
    "bcrypt": ("5.0", "before it, what goes beyond 72 bytes is cut off in silence"),
    "standardwebhooks": ("1.1", "the version whose errors over junk the wrapper knows"),
}
# Below 1.0, or built around by hand: a next version may be another thing.
CEILINGS = (
    "asyncpg",
    "bcrypt",
    "httptools",
    "httpx",
    "limits",
    "python-dotenv",
    "slowapi",
    "standardwebhooks",
    "starlette",
    "uvicorn",
)


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def asked() -> dict[str, Requirement]:
    """What a user's pip is asked for."""
    return {canonicalize_name(one.name): one for one in map(Requirement, project()["project"]["dependencies"])}


def locked(lock: str) -> dict[str, Version]:
    lines = re.findall(r"^([A-Za-z0-9._-]+)==([^\s;]+)", (ROOT / lock).read_text(), re.MULTILINE)
    return {canonicalize_name(name): Version(found) for name, found in lines}


def is_below(requirement: Requirement, floor: str) -> bool:
    """Whether the requirement would be content with something older than the floor."""
    least = [Version(one.version) for one in requirement.specifier if one.operator in (">=", "==", "~=", ">")]
    return not least or max(least) < Version(floor)


@pytest.mark.parametrize("name", FLOORS)
def test_nothing_below_its_floor_is_asked_for_locked_or_installed(name: str) -> None:
    floor, why = FLOORS[name]
    assert name not in asked() or not is_below(asked()[name], floor), why
    for lock in LOCKS:
        assert locked(lock).get(name, Version(floor)) >= Version(floor), f"{lock}: {why}"
    assert name in locked("requirements.lock")
    assert Version(version(name)) >= Version(floor), why


@pytest.mark.parametrize("text", ["starlette>=1.8", "starlette", "starlette<2", "starlette==1.0", "starlette~=1.8"])
def test_a_floor_that_is_too_low_is_noticed(text: str) -> None:
    assert is_below(Requirement(text), "1.9")


@pytest.mark.parametrize("text", ["starlette>=1.9", "starlette>=1.10,<2", "starlette==1.9.1"])
def test_a_floor_that_is_high_enough_is_not(text: str) -> None:
    assert not is_below(Requirement(text), "1.9")


@pytest.mark.parametrize("name", CEILINGS)
def test_what_may_change_under_us_has_a_ceiling(name: str) -> None:
    assert any(one.operator in ("<", "==", "~=") for one in asked()[name].specifier)


@pytest.mark.parametrize("name", sorted(asked()))
def test_every_dependency_says_from_which_version_on(name: str) -> None:
    assert any(one.operator == ">=" for one in asked()[name].specifier)
    assert asked()[name].url is None


def test_the_locks_hold_what_is_asked_for() -> None:
    groups = project()["dependency-groups"]["dev"]
    wanted = {
        "requirements.lock": project()["project"]["dependencies"],
        "requirements-dev.lock": [*project()["project"]["dependencies"], *groups],
        "requirements-build.lock": project()["build-system"]["requires"],
    }
    for lock, texts in wanted.items():
        for one in map(Requirement, texts):
            assert locked(lock)[canonicalize_name(one.name)] in one.specifier, f"{lock}: {one}"
    shipped, tested = locked("requirements.lock"), locked("requirements-dev.lock")
    assert {name: tested.get(name) for name in shipped} == shipped, "what is tested is not what is shipped"


@pytest.mark.parametrize("lock", LOCKS)
def test_what_is_installed_is_what_is_locked(lock: str) -> None:
    text = (ROOT / lock).read_text()
    elsewhere = {canonicalize_name(name) for name in re.findall(r"^([\w.-]+)==\S+ ;", text, re.MULTILINE)}
    for name, expected in locked(lock).items():
        if name not in elsewhere:
            assert Version(version(name)) == expected, name


@pytest.mark.parametrize("lock", LOCKS)
def test_every_line_of_a_lock_is_a_version_or_a_hash(lock: str) -> None:
    text = (ROOT / lock).read_text().replace("\\\n", "")
    for line in text.splitlines():
        assert re.fullmatch(r"[\w.-]+==[\w.!+-]+( ; [^#@]+?)?(\s+--hash=sha256:[0-9a-f]{64})+\s*", line), line[:120]


def test_a_sqlite_that_can_damage_a_file_of_several_writers_is_known() -> None:
    assert (sqlite3.sqlite_version_info >= (3, 51, 3)) == IS_SAFE_FOR_SEVERAL
