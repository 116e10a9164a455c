"""States of a training that has not ended: published whole or not at all, proved before one is gone on from.

`states/<asset>/<key>/step-00000200/` of a home holds a MANIFEST.json like every object's, the curve so far, and what the
trainer's ranks wrote. The key says what the training is made of, apart from what changes no weights but by rounding (and
dropout's draws): how many ranks, threads and rows a forward pass. Nothing here loads torch.
"""

import logging
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from negtraj_dagster.errors import StoreError
from negtraj_dagster.schema import canonical_json
from negtraj_dagster.store import (
    Built,
    find_faults,
    load_manifest,
    make_folder,
    object_key,
    read_json_lines,
    sync_folder,
    write_manifest,
)

LOG = logging.getLogger(__name__)

STATES = "states"
STATE_NAME = re.compile(r"step-(\d{8})\Z")
CURVE = "curve.jsonl"
OF_A_MACHINE = ("training/ranks", "training/threads", "training/micro_batch_size")
"""Of a training's settings those that another attempt may have otherwise and still go on."""


@dataclass(frozen=True)
class StatePlace:
    """Where the states of one training are kept.

    Attributes:
        key: of what the training is made of.
        every_steps: how often one is saved; 0 = where a signal asks for it alone.
        keep_last: states that are kept; an older one is there for when the newest turns out to be damaged.
    """

    folder: Path
    asset: str
    key: str
    every_steps: int
    keep_last: int

    @classmethod
    def of(cls, home: Path, asset: str, made_of: Mapping[str, Any], *, every_steps: int, keep_last: int) -> "StatePlace":
        """That of a training in a home."""
        key = object_key({name: value for name, value in made_of.items() if name not in OF_A_MACHINE})
        return cls(home / STATES / asset / key, asset, key, every_steps, keep_last)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "StatePlace":
        """As `to_json` wrote it."""
        return cls(**{**value, "folder": Path(value["folder"])})

    def to_json(self) -> dict[str, Any]:
        """For a trainer's config file."""
        return {**vars(self), "folder": str(self.folder)}


@dataclass(frozen=True)
class State:
    """A state whose every file is as it was published; `made_by` says with how many ranks and which stage."""

    folder: Path
    step: int
    made_by: Mapping[str, Any]

    def curve(self) -> list[dict[str, Any]]:
        """The curve up to its step."""
        return read_json_lines(self.folder / CURVE)


def newest_state(place: StatePlace) -> State | None:
    """The newest state that is whole; every damaged one that is newer is named and passed over.

    What a save that was cut off left has another name (`unfinished_folder`), and is no state.
    """
    for path in sorted(place.folder.glob("step-*"), reverse=True):
        if not STATE_NAME.match(path.name):
            continue
        try:
            manifest = load_manifest(path, place.asset, place.key)
            faults = find_faults(path, manifest, deep=True)
            step = manifest["content"].get("step")
            if not faults and step != int(path.name.removeprefix("step-")):
                faults = [f"holds step {step}"]
        except (StoreError, OSError) as error:
            faults = [str(error).partition(";")[0]]  # not its remedy, which is one for objects
        if not faults:
            return State(path, step, manifest["content"])
        LOG.warning("%s is damaged (%s): training goes on from an older state, or from its beginning", path, "; ".join(faults))
    return None


def unfinished_folder(place: StatePlace, step: int) -> Path:
    """Where a state is written before it is published."""
    return place.folder / f".step-{step:08d}.unfinished"


def begin_state(place: StatePlace, step: int) -> None:
    """Make that folder, without what an earlier attempt left."""
    make_folder(place.folder)
    for leftover in place.folder.glob(".*"):
        shutil.rmtree(leftover, ignore_errors=True)
    unfinished_folder(place, step).mkdir()


def publish_state(place: StatePlace, step: int, curve: list[dict[str, Any]], made_by: Mapping[str, Any]) -> Path:
    """Publish what the ranks wrote, and drop states beyond the last few.

    A kill at any moment leaves the states that were there, and the new one whole or not at all.
    """
    unfinished, target = unfinished_folder(place, step), place.folder / f"step-{step:08d}"
    lines = "".join(f"{canonical_json(record)}\n" for record in curve)
    (unfinished / CURVE).write_text(lines, encoding="utf-8")
    content = {"step": step, **made_by}
    write_manifest(unfinished, place.asset, place.key, {"state": content}, Built(content=content))
    if target.exists():  # one that was found damaged
        os.rename(target, place.folder / f".{target.name}.damaged")
    os.rename(unfinished, target)
    sync_folder(place.folder)
    states = sorted(path for path in place.folder.iterdir() if STATE_NAME.match(path.name))
    damaged = [path for path in states if path > target]  # they were passed over, or this step would not have been taken again
    older = [path for path in states if path <= target][: -place.keep_last]
    for leftover in (*damaged, *older, *place.folder.glob(".*")):
        shutil.rmtree(leftover, ignore_errors=True)
    return target


def forget_states(place: StatePlace) -> None:
    """Drop the states of a training that has ended well."""
    shutil.rmtree(place.folder, ignore_errors=True)
