"""Rules of the house that ruff and import-linter cannot see."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def builtin_hash_calls(source: str) -> list[int]:
    """Lines that call the builtin `hash`, which differs from process to process."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    return [call.lineno for call in calls if isinstance(call.func, ast.Name) and call.func.id == "hash"]


def test_nothing_keys_by_the_builtin_hash() -> None:
    files = sorted((ROOT / "negtraj_dagster").rglob("*.py"))
    found = [f"{file.relative_to(ROOT)}:{line}" for file in files for line in builtin_hash_calls(file.read_text())]
    assert len(files) > 50
    assert found == [], "hash() differs from process to process; take schema.digest"


@pytest.mark.parametrize(
    ("source", "lines"), [("x = hash('a')", [1]), ("\nset.hash()\nhash_of(1)", [])], ids=["call", "other names"]
)
def test_the_builtin_is_told_from_its_namesakes(source: str, lines: list[int]) -> None:
    assert builtin_hash_calls(source) == lines
