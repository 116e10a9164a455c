"""Generated landing trees, each held to this: what lies there is read, in quarantine, or listed by name.

    python -m tests.support.landing_trees FOLDER SEED…

Runs as `nobody` where it is started by root, who may read everything; a process of its own, since that cannot be taken back.
"""

import json
import os
import random
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from negtraj_dagster.rollouts.landing import find_landed_files
from negtraj_dagster.rollouts.read import read_landed_files
from negtraj_dagster.settings import Settings, WordtrapsSettings
from negtraj_dagster.store import Store

NOBODY = 65534


@dataclass
class Tree:
    """What was planted in a landing folder."""

    root: Path
    rng: random.Random
    n_good: int = 0
    n_bad: int = 0
    listed: set[str] = field(default_factory=set)
    names: set[str] = field(default_factory=set)

    @property
    def folder(self) -> Path:
        return self.root / "wordtraps" / "negtraj"

    def record(self) -> str:
        """One more good record."""
        self.n_good += 1
        turn = {"role": "assistant", "content": f"é 东 Action: finish[{self.n_good}]"}
        return json.dumps({"question_id": f"q{self.n_good}", "messages": [turn]}, ensure_ascii=self.rng.random() < 0.5)

    def records(self) -> list[str]:
        return [self.record() for _ in range(self.rng.randint(1, 6))]

    def path(self, suffix: str = ".json", folder: str = "") -> Path:
        """A new file's path in the tree, under one of the odd names that files have."""
        odd = ["a b", "\x1b[31mred", "two\nlines", "[x]*?", "é東", "-rf", "tab\t", "quote'\"", "back\\slash", "\u202egnp"]
        path = self.folder / folder / f"{self.rng.choice(odd)}-{len(self.names)}{suffix}"
        self.names.add(path.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def expect_listed(self, path: Path) -> None:
        self.listed.add(str(path.relative_to(self.root)))


def plain_lines(tree: Tree) -> None:
    ending = tree.rng.choice(["\n", "\r\n"])
    bom = tree.rng.choice(["", "\ufeff"])
    tree.path(".jsonl").write_bytes((bom + ending.join(tree.records()) + tree.rng.choice(["", ending])).encode())


def plain_array(tree: Tree) -> None:
    bom = tree.rng.choice(["", "\ufeff"])
    tree.path().write_bytes((bom + "[" + tree.rng.choice([",", ",\n", " , \r\n"]).join(tree.records()) + "]").encode())


def bad_record(tree: Tree) -> bytes:
    tree.n_bad += 1
    return tree.rng.choice(
        [
            b'{"question_id":' + b"9" * 5000 + b"}",
            b'{"question_id":"\xff\xfe"}',
            b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
            b'{"a":1 "b":2}',
            b'{"a":NaN}',
            b'{"a":1,"a":2}',
            b'{"a":"\\ud800"}',
            b"17",
        ]
    )


def lines_with_bad_records(tree: Tree) -> None:
    lines = [*(line.encode() for line in tree.records()), bad_record(tree), bad_record(tree)]
    tree.rng.shuffle(lines)
    tree.path(".jsonl").write_bytes(b"\n".join(lines))


def array_with_bad_records(tree: Tree) -> None:
    records = [*(line.encode() for line in tree.records()), bad_record(tree), bad_record(tree)]
    tree.rng.shuffle(records)
    tree.path().write_bytes(b"[" + b",".join(records) + b"]")


def array_without_a_comma(tree: Tree) -> None:
    tree.path().write_text("[" + " ".join(tree.records()) + "]")


def array_with_an_open_bracket(tree: Tree) -> None:
    records = [*tree.records(), tree.rng.choice(['{"a":{"b":1}', '{"a":[1}}', '{"a":"x}', '{"a":"x\n y"}']), *tree.records()]
    tree.n_bad += 1
    tree.path().write_text("[\n" + ",\n".join(records) + "\n]")


def cut_array(tree: Tree) -> None:
    tree.path().write_text("[" + ",".join(tree.records()) + ',{"question_id":"cu')
    tree.n_bad += 1


def cut_line(tree: Tree) -> None:
    tree.path(".jsonl").write_text("\n".join(tree.records()) + '\n{"question_id":"cu')
    tree.n_bad += 1


def pretty_object(tree: Tree) -> None:
    tree.path(".jsonl").write_text(tree.record() + "\n" + json.dumps({"a": [1, {"b": 2}]}, indent=2) + "\n" + tree.record())
    tree.n_bad += 1


def utf16(tree: Tree) -> None:
    tree.path().write_bytes(f"[{len(tree.names)}]".encode("utf-16"))  # files of equal bytes count once
    tree.n_bad += 1


def empty(tree: Tree) -> None:
    tree.path(tree.rng.choice([".json", ".jsonl"])).write_text(tree.rng.choice(["", "\n", " \r\n", "[]"]))


def other_file(tree: Tree) -> None:
    path = tree.path(tree.rng.choice([".txt", ".json.bz2", ""]))
    path.write_text(tree.rng.choice(["notes", "{}"]))
    tree.expect_listed(path)


def hidden_folder(tree: Tree) -> None:
    path = tree.path(folder=f".h{len(tree.names)}/deep")
    path.write_text("{}")
    tree.expect_listed(path.parents[1])


def misnamed_folder(tree: Tree) -> None:
    name = tree.rng.choice(["wordtrap/negtraj", "wordtraps/negtrja", "wordtraps/\x1b[2J", "wordtraps/[*"])
    path = tree.root / name / "a.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{}")
    tree.expect_listed(tree.root / "wordtrap" if name.startswith("wordtrap/") else path.parent)


def stray_file(tree: Tree) -> None:
    path = tree.rng.choice([tree.root, tree.root / "wordtraps"]) / f"stray-{len(tree.names)}.jsonl"
    tree.names.add(path.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{}")
    tree.expect_listed(path)


def pipe(tree: Tree) -> None:
    path = tree.path(".jsonl")
    os.mkfifo(path)
    tree.expect_listed(path)


def open_socket(tree: Tree) -> None:
    path, here = tree.path(".json"), Path.cwd()
    os.chdir(path.parent)  # a socket's name has at most 107 bytes
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path.name)
    os.chdir(here)
    tree.expect_listed(path)


def not_utf8(tree: Tree) -> None:
    path = tree.path(folder="x").parent / os.fsdecode(b"\xff%d.jsonl" % len(tree.names))
    tree.names.add(path.name)
    path.write_text("{}")
    tree.expect_listed(path)


def linked_file(tree: Tree) -> None:
    target = tree.root.parent / f"outside-{len(tree.names)}.jsonl"
    target.write_text("\n".join(tree.records()))
    tree.path(".jsonl").symlink_to(target)


def linked_folder(tree: Tree) -> None:
    target = tree.root.parent / f"outside-{len(tree.names)}"
    target.mkdir()
    (target / "a.jsonl").write_text("\n".join(tree.records()))
    tree.path("").symlink_to(target)


def loop(tree: Tree) -> None:
    path = tree.path("", folder="deep/er")
    path.symlink_to(tree.rng.choice([tree.folder, path.parent, Path("..")]))
    tree.expect_listed(path)


def dangling(tree: Tree) -> None:
    path = tree.path(tree.rng.choice([".json", ""]))
    path.symlink_to(tree.rng.choice(["nowhere", path.name]))
    tree.expect_listed(path)


def forbidden_file(tree: Tree) -> None:
    path = tree.path(".jsonl")
    path.write_text("{}")
    path.chmod(0)
    tree.expect_listed(path)


def forbidden_folder(tree: Tree) -> None:
    path = tree.path(".jsonl", folder=f"closed-{len(tree.names)}/deep")
    path.write_text("{}")
    path.parents[1].chmod(tree.rng.choice([0, 0o300]))  # 0o300: entered by those who know what is in it
    tree.expect_listed(path.parents[1])


def unsearchable_folder(tree: Tree) -> None:
    path = tree.path(".jsonl", folder=f"blind-{len(tree.names)}")
    path.write_text("{}")
    path.parent.chmod(0o600)  # may be listed, nothing in it may be opened
    tree.expect_listed(path)


def forbidden_format(tree: Tree) -> None:
    folder = tree.root / "wordtraps" / "nat"
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0)
    tree.expect_listed(folder)


def forbidden_task(tree: Tree) -> None:
    folder = tree.root / "strategyqa"
    folder.mkdir(exist_ok=True)
    folder.chmod(0)
    tree.expect_listed(folder)


KINDS: tuple[Callable[[Tree], None], ...] = (
    plain_lines,
    plain_array,
    lines_with_bad_records,
    array_with_bad_records,
    array_without_a_comma,
    array_with_an_open_bracket,
    cut_array,
    cut_line,
    pretty_object,
    utf16,
    empty,
    other_file,
    hidden_folder,
    misnamed_folder,
    stray_file,
    pipe,
    open_socket,
    not_utf8,
    linked_file,
    linked_folder,
    loop,
    dangling,
)
FORBIDDEN: tuple[Callable[[Tree], None], ...] = (
    forbidden_file,
    forbidden_folder,
    unsearchable_folder,
    forbidden_format,
    forbidden_task,
)


def settings_in(root: Path) -> Settings:
    sizes = WordtrapsSettings(n_train_questions=4, n_gate_questions=2, n_test_questions=2)
    return Settings(home=root / "home", wordtraps=sizes)


def check_tree(seed: int, root: Path) -> None:
    """Plant a tree, read it, and hold what came out to what was put in."""
    rng = random.Random(seed)
    settings = settings_in(root)
    tree = Tree(settings.landing, rng)
    settings.landing.mkdir(parents=True)
    kinds = [KINDS[seed % len(KINDS)], *rng.sample(KINDS, 4)]
    kinds += [FORBIDDEN[seed % len(FORBIDDEN)]] if os.getuid() else []
    for kind in kinds:
        kind(tree)
    raw = read_landed_files(Store(settings.home), settings)
    listed = {entry["path"] for entry in (*raw.details["unread"], *raw.details["ignored"])}
    names = [kind.__name__ for kind in kinds]
    counts = (raw.content["n_rollouts"], raw.details["n_quarantined"])
    assert counts == (tree.n_good, tree.n_bad), f"seed {seed}: {names}, {(raw.folder / 'quarantine.jsonl').read_text()}"
    assert {ascii(path) for path in listed} == {ascii(printed(path)) for path in tree.listed}, names
    assert not any(char in path for path in listed for char in "\x1b\n\t\u202e"), names
    assert all(entry["reason"] for entry in raw.details["unread"])


def printed(path: str) -> str:
    """A name as messages have it, by another way than the code's own."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in path)


def check_closed_landing(root: Path) -> None:
    """A landing folder that may not be listed is listed itself."""
    settings = settings_in(root)
    settings.landing.mkdir(parents=True)
    settings.landing.chmod(0)
    landed = find_landed_files(Store(settings.home), settings)
    assert landed.files == []
    assert "Permission denied; give the user that runs this permission" in landed.unread[0]["reason"]
    assert read_landed_files(Store(settings.home), settings).content["n_rollouts"] == 0


def main(root: Path, seeds: list[int]) -> None:
    """Check the trees of some seeds under a folder that everyone may write to."""
    check_tree(0, root / "warm-up")  # imports what `nobody` might not be able to
    if not os.getuid():
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    check_closed_landing(root / "closed")
    for seed in seeds:
        check_tree(seed, root / str(seed))
    print(f"{len(seeds)} trees")


if __name__ == "__main__":
    main(Path(sys.argv[1]), [int(seed) for seed in sys.argv[2:]])
