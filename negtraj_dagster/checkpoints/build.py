"""A recipe's checkpoint as an object: made by a trainer child once per (shards, base model, training settings)."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl

from negtraj_dagster.checkpoints.curve import thin_curves
from negtraj_dagster.checkpoints.memory import available_bytes, check_fits, estimate_memory
from negtraj_dagster.checkpoints.states import StatePlace, forget_states
from negtraj_dagster.errors import ModelError, StoreError, TrainingError
from negtraj_dagster.launch import RunChild, has_gpu
from negtraj_dagster.recipes import TrainingSettings
from negtraj_dagster.schema import canonical_json, digest, digest_json
from negtraj_dagster.store import Built, Published, Store, file_sha256, object_key, read_json_lines

TRAIN_VERSION = 6
"""Rises when the trainer gives other weights from the same inputs."""
OF_NO_WEIGHT = ("log_every_steps", "save_every_steps", "keep_last", "memory_check", "loggers")
"""Training settings that no weight depends on."""
TRACKING = "tracking"
"""Folder of a home in which loggers keep what they are told."""
TRAINER = "negtraj_dagster.checkpoints.train"
"""(module, config file, ranks, threads) -> returns when the child has published its result, raises ChildRunError else."""


def build_checkpoint(
    store: Store,
    recipe: str,
    *,
    shards: Published,
    base: Published,
    training: Mapping[str, Any],
    card: Mapping[str, Any],
    run_child: RunChild,
    classes: Sequence[str] = (),
    warm_start: str | None = None,
    recipe_settings: Mapping[str, Any] | None = None,
) -> Published:
    """Train, unless this very checkpoint exists.

    Args:
        store: where shards lie and the checkpoint goes.
        recipe: its name.
        shards: the recipe's tokenized shards.
        base: the base model.
        training: the recipe's training table, `warm_start` left out.
        card: what inference has to know (strategy, template); copied into the checkpoint.
        run_child: starts the trainer.
        classes: what the strategy learns from; each has to have a row that is trained.
        recipe_settings: the whole recipe as it is now, kept beside the checkpoint: its file may say something else later.
        warm_start: whose weights training starts from, `<recipe>/checkpoint` or `champion/<line>`; None: the base model's.

    Raises:
        TrainingError: a class has no row left, or the child ended well but its result is not what was asked for.
        ChildRunError: the child failed.
    """
    asset = f"{recipe}/checkpoint"
    made_of = {
        "code": TRAIN_VERSION,
        "tokenized_shards": shards.version,
        "base_model": base.version,
        **{f"training/{name}": value for name, value in training.items() if name not in OF_NO_WEIGHT},
        "card": dict(card),
    }
    pin: dict[str, str | None] = {}
    if warm_start and not shards.is_empty:
        pin = pinned_parent(store, asset, made_of, warm_start)
        made_of["warm_start"] = [warm_start, pin["version"]]

    every_steps, keep_last = training.get("save_every_steps", 0), training.get("keep_last", 1)
    states = StatePlace.of(store.home, asset, made_of, every_steps=every_steps, keep_last=keep_last)

    def write(folder: Path) -> Built:
        if shards.is_empty:
            return Built(content=shards.content)
        check_classes(store, recipe, shards, classes)
        tracking = {"tracking": str(store.home / TRACKING), "run": f"{recipe}-{object_key(made_of)[:12]}"}
        built = _train(store, folder, shards, base, training, card, run_child, _load_parent(store, pin), states, tracking)
        return replace(built, details={**built.details, "recipe": dict(recipe_settings or {})})

    published = store.build(asset, made_of, write)
    if not published.is_empty:
        forget_states(states)  # also where a kill, or another machine that made it, left them
    return published


def check_classes(store: Store, recipe: str, shards: Published, classes: Sequence[str]) -> None:
    """Refuse shards that lack a class: a checkpoint without its contrast would be published like any other.

    Raises:
        TrainingError: names the class, and why its rows were rejected.
    """
    index = pl.read_parquet(store.file(shards.folder, "index.parquet"), glob=False)
    trained = index.filter((pl.col("weight") > 0) & (pl.col("repeat") > 0) & (pl.col("n_trained") > 0))
    if not (absent := [name for name in classes if name not in set(trained["class"])]):
        return
    refused = pl.read_parquet(store.file(shards.folder, "rejected.parquet"), glob=False).filter(pl.col("class").is_in(absent))
    reasons = refused.group_by("reason").len().sort("len", "reason", descending=[True, False])
    counts = ", ".join(f"{n} {reason}" for reason, n in reasons.rows()) or "none was selected"
    raise TrainingError(
        f"recipe {recipe}: no row of class {', '.join(map(repr, absent))} is left to train, of {', '.join(map(repr, classes))} "
        f"({counts}); mend what rejects them (`negtraj show --recipe {recipe} --rejected`), land more, or choose the strategy "
        "vanilla"
    )


def pinned_parent(store: Store, asset: str, made_of: Mapping[str, Any], warm_start: str) -> dict[str, str | None]:
    """Asset, key and version of the checkpoint to start from: the alias' present one, chosen once per these very inputs.

    So a moved alias alone makes nothing stale: the parent is asked for again only when shards, base model or settings
    change. All None where the alias had no checkpoint yet: then training starts from the base model, and stays so.

    Raises:
        StoreError: the alias names a checkpoint that is gone.
    """
    name = f"pins/{asset}/{object_key(made_of)}.json"
    with store.lock(f"pins/{asset}"):
        text = store.read_text(name)
        if text is None:
            parent = present_checkpoint(store, warm_start)
            identity = (parent.asset, parent.key, parent.version) if parent else (None, None, None)
            pin = canonical_json(dict(zip(("asset", "key", "version"), identity, strict=True)))
            text = store.update_text(name, lambda present: pin if present is None else present)  # the first machine's holds
    return {part: json.loads(text)[part] for part in ("asset", "key", "version")}


def _load_parent(store: Store, pin: Mapping[str, str | None]) -> Published | None:
    if not pin.get("key"):
        return None
    try:
        return store.load(str(pin["asset"]), str(pin["key"]))
    except StoreError as error:
        raise StoreError(
            f"the checkpoint that training was to start from is gone ({error}); delete the file under {store.home / 'pins'} "
            f"that names {pin['key']}: the next run chooses another"
        ) from error


def present_checkpoint(store: Store, warm_start: str) -> Published | None:
    """The checkpoint an alias names now: `champion/<line>`, or a recipe's present one; None where there is none yet.

    Raises:
        StoreError: a champion is named whose object is gone.
    """
    if not warm_start.startswith("champion/"):
        present = store.current(warm_start)
        return None if present is None or present.is_empty else present
    text = store.read_text(f"registry/{warm_start.removeprefix('champion/')}/champion.json")
    if text is None:
        return None
    champion = json.loads(text)
    parent = store.find(f"{champion['recipe']}/checkpoint", champion["checkpoint"])
    if parent is None:
        raise StoreError(
            f"the champion of {warm_start.removeprefix('champion/')}, {champion['recipe']}/checkpoint of version "
            f"{champion['checkpoint'][:12]}, is gone from {store.home}; materialize that recipe and champion again"
        )
    return parent


def _train(
    store: Store,
    folder: Path,
    shards: Published,
    base: Published,
    training: Mapping[str, Any],
    card: Mapping[str, Any],
    run_child: RunChild,
    parent: Published | None,
    states: StatePlace,
    tracking: Mapping[str, str],
) -> Built:
    store.verify(shards.folder)
    segments = [store.folder(name) for name in shards.details["segments"]]
    for part in (*segments, base.folder, *([parent.folder] if parent else [])):
        store.verify(part)
    check_unchanged(base)
    model_dir = parent.folder / "model" if parent else model_folder(base)
    check_memory(model_dir, TrainingSettings.model_validate(training), store.file(shards.folder, "index.parquet"))
    lineage = {"shards": shards.version, "base_model": base.version, **({"warm_start": parent.version} if parent else {})}
    config = {
        "out_dir": str(folder),
        "base_model_dir": str(model_dir),
        "index_path": str(shards.folder / "index.parquet"),
        "segment_paths": [str(segment / "rows.arrow") for segment in segments],
        "training": dict(training),
        "card": {**card, "lineage": lineage},
        "states": states.to_json(),
        **tracking,
    }
    with store.scratch() as scratch:
        config_path = scratch / "train.json"
        config_path.write_text(json.dumps(config))
        run_child(TRAINER, config_path, int(training["ranks"]), int(training["threads"]))
    result = json.loads((folder / "result.json").read_text())
    if result["steps"] != training["steps"] or result["engine"] != "DeepSpeedEngine":
        raise TrainingError(
            f"trainer ran {result['steps']} steps with {result['engine']}, expected {training['steps']} with DeepSpeedEngine"
        )
    weights = sorted((folder / "model").glob("*.safetensors"))
    curves = thin_curves(read_json_lines(folder / "curve.jsonl"))
    return Built(
        content={"weights": digest(*(file_sha256(path) for path in weights)), "card": digest_json(config["card"])},
        details={"result": result, "card": config["card"], "loss_curve": curves["loss"], "curves": curves},
        work={"steps_trained": result["steps"] - result["resumed_behind_step"]},
        volatile=("result.json", "curve.jsonl"),
    )


def check_memory(model_dir: Path, settings: TrainingSettings, index: Path) -> None:
    """Refuse a training that this machine's memory cannot hold, or warn of it; a GPU's is looked at by its ranks.

    Raises:
        TrainingError: what it needs, and for what.
    """
    lengths = pl.read_parquet(index, columns=["n_tokens", "repeat"], glob=False)
    longest, n_rows = lengths["n_tokens"].max(), int(lengths["repeat"].sum())
    settings = settings.model_copy(update={"batch_size": max(1, min(settings.batch_size, n_rows))})
    trains_on_gpu = has_gpu() and os.environ.get("DS_ACCELERATOR") != "cpu"
    needs = estimate_memory(model_dir, settings, longest=int(str(longest)), has_gpu=trains_on_gpu)
    check_fits(
        needs.host,
        ranks=settings.ranks,
        available=available_bytes(),
        place="this machine's memory",
        check=settings.memory_check,
    )


def check_unchanged(base: Published) -> None:
    """Refuse a user's model folder whose files are not those the base model was published with.

    Raises:
        ModelError: names the files that differ.
    """
    if "folder" not in base.details:
        return
    folder = Path(base.details["folder"])
    differing = [
        name
        for name, sha256 in sorted(base.content.items())
        if not (folder / name).is_file() or file_sha256(folder / name) != sha256
    ]
    if differing:
        raise ModelError(f"{folder}: {', '.join(differing)} changed since {base.asset} was materialized; materialize it again")


def model_folder(base: Published) -> Path:
    """Where a base model's files are: inside its object, or the user's folder it points to."""
    return Path(base.details["folder"]) if "folder" in base.details else base.folder / "model"
