"""The crate's files import in one direction: rooms by the order of ROOMS, and no file comes back to itself."""

import re
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

SOURCES = Path(__file__).resolve().parents[1] / "rust" / "trajtok" / "src"
ROOMS = (
    *("py", "prepare", "pack", "plain", "condition", "records", "row", "template", "conversation", "encode", "signature"),
    *("json", "json_text", "digest", "error"),
)
"""A room may import those behind it."""
USE = re.compile(r"^\s*(?:pub(?:\([a-z ]+\))? )?use ((?:crate|super|self)(?:::\w+)*|[a-z_0-9]+(?:::\w+)*)", re.MULTILINE)
TESTS = re.compile(r"^#\[cfg\(test\)\]\n(?:#\[path.*\]\n)?mod \w+(?:;| \{.*\Z)", re.MULTILINE | re.DOTALL)


def module_of(file: Path) -> tuple[str, ...]:
    parts = file.relative_to(SOURCES).with_suffix("").parts
    return parts[:-1] if parts[-1] in ("mod", "lib") else parts


MODULES = {module_of(file): file for file in sorted(SOURCES.rglob("*.rs")) if not file.stem.endswith("tests")}


def imports(module: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """The modules whose items a file names, tests apart."""
    text = TESTS.sub("", MODULES[module].read_text(encoding="utf-8"))
    for path in USE.findall(text):
        parts = path.split("::")
        if parts[0] == "crate":
            target = tuple(parts[1:])
        elif parts[0] in ("super", "self"):
            base = module if MODULES[module].stem == "mod" else module[:-1]
            target = (*(module[:-1] if parts[0] == "super" else base), *parts[1:])
        else:
            target = (*module, *parts)  # a child of this file's folder, or another crate
            if target[: len(module) + 1] not in MODULES:
                continue
        while target not in MODULES:
            target = target[:-1]
        if target and target != module:
            yield target


def test_every_file_has_a_room() -> None:
    assert {module[0] for module in MODULES if module} == {*ROOMS, "fixture"}


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_the_rooms_behind_it_alone(room: str) -> None:
    found = {target[0] for module in MODULES if module[:1] == (room,) for target in imports(module)} - {room}
    assert found <= set(ROOMS[ROOMS.index(room) + 1 :])


def test_no_file_imports_itself_through_others() -> None:
    graph = {module: set(imports(module)) for module in MODULES if module}
    assert sum(len(targets) for targets in graph.values()) > 100
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(" -> ".join("::".join(module) for module in error.args[1]))


def test_the_native_encoder_is_known_by_its_name_alone() -> None:
    inner = [(module, target) for module in MODULES for target in imports(module) if target[:2] == ("encode", "native")]
    assert inner
    assert [pair for pair in inner if pair[0][:2] != ("encode", "native") and len(pair[1]) > 2] == []
