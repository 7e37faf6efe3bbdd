"""What docs/threats.md promises has a test for each row."""

from __future__ import annotations

import ast
import re
from pathlib import Path

TESTS = Path(__file__).parent
THREATS = TESTS.parent / "docs" / "threats.md"


def _numbers(decorator: ast.expr) -> set[int]:
    if not isinstance(decorator, ast.Call) or ast.unparse(decorator.func) != "pytest.mark.hazard":
        return set()
    return {number.value for number in decorator.args if isinstance(number, ast.Constant)}  # type: ignore[misc]


def held() -> set[int]:
    """The rows that some test carries the number of, as a decorator or for a whole module."""
    found: set[int] = set()
    for path in TESTS.glob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            found |= _numbers(node) if isinstance(node, ast.Call) else set()
    return found


def test_every_row_of_the_threats_has_a_test() -> None:
    rows = {int(number) for number in re.findall(r"^\| (\d+) \|", THREATS.read_text(), re.MULTILINE)}
    assert rows == set(range(1, max(rows) + 1))
    assert not rows - held(), f"rows without a test: {sorted(rows - held())}"
    assert not held() - rows, f"tests of rows that are not there: {sorted(held() - rows)}"
