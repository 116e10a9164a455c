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


VAGUE = frozenset(
    [
        "each",
        "made",
        "said",
        "told",
        "mine",
        "found",
        "known",
        "seen",
        "given",
        "shown",
        "asked",
        "wanted",
        "left",
        "kept",
        "named",
        "chosen",
        "lost",
        "own",
        "one",
        "some",
        "thing",
        "what",
        "more",
        "others",
        "gone",
        "taken",
        "alone",
        "used",
        "passed",
        "placed",
        "listed",
        "got",
        "put",
        "it",
        "this",
        "that",
        "them",
        "stuff",
    ]
)
"""Participles and pronouns: as a name they say that something was done to something."""
MAX_VAGUE_SHARE = 0.01


def stored_names(source: str) -> list[str]:
    """Names that are assigned, looped over or bound by a comprehension."""
    return [node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)]


def test_names_say_what_they_hold() -> None:
    names = [
        (file, name) for file in sorted((ROOT / "negtraj_dagster").rglob("*.py")) for name in stored_names(file.read_text())
    ]
    vague = [f"{file.relative_to(ROOT)}: {name}" for file, name in names if name in VAGUE]
    assert len(names) > 5000
    assert len(vague) <= MAX_VAGUE_SHARE * len(names), "\n".join(vague)


def test_a_name_counts_wherever_it_is_bound() -> None:
    assert stored_names("made = [each for each in x]\nfor one in y: pass\nf(told=1)") == ["made", "one", "each"]


MAX_MODULE_LINES = 400


def test_no_module_is_longer_than_a_reader_follows() -> None:
    sizes = {file: len(file.read_text().splitlines()) for file in sorted((ROOT / "negtraj_dagster").rglob("*.py"))}
    assert {str(file.relative_to(ROOT)): n for file, n in sizes.items() if n > MAX_MODULE_LINES} == {}
