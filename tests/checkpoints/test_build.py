"""The checkpoint stage around the trainer: what it refuses before a child is started."""

import json
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from negtraj_dagster.checkpoints.build import build_checkpoint, check_classes, check_unchanged
from negtraj_dagster.checkpoints.states import StatePlace
from negtraj_dagster.errors import ChildRunError, ModelError, TrainingError
from negtraj_dagster.store import Built, Published, Store, file_sha256
from tests.support.weights import write_model_files


def published_folder(store: Store, folder: Path) -> Published:
    """A user's model folder as the base model asset publishes it."""
    write_model_files(folder, b"weights")
    content = {"model.safetensors": file_sha256(folder / "model.safetensors")}
    return store.build("base_model/mine", {"made": "here"}, lambda _: Built(content=content, details={"folder": str(folder)}))


def test_a_local_model_that_changed_since_it_was_published_is_refused(store: Store, tmp_path: Path) -> None:
    base = published_folder(store, tmp_path / "model")
    check_unchanged(base)
    (tmp_path / "model" / "model.safetensors").write_bytes(b"others!")
    with pytest.raises(ModelError, match=r"model\.safetensors changed since base_model/mine was materialized"):
        check_unchanged(base)


def test_a_recipe_without_data_starts_no_trainer(store: Store, tmp_path: Path) -> None:
    base = published_folder(store, tmp_path / "model")
    shards = store.build(
        "mine/tokenized_shards", {"made": "here"}, lambda _: Built(content={"status": "no_data", "reason": "none landed"})
    )

    def never(module: str, config: Path, ranks: int, threads: int) -> None:
        raise AssertionError("a child was started")

    made = build_checkpoint(store, "mine", shards=shards, base=base, training={}, card={}, run_child=never)
    assert made.content == {"status": "no_data", "reason": "none landed"}


def shards_with(store: Store, rows: list[tuple[str, float, int, int]], rejected: list[tuple[str, str]]) -> Published:
    """(class, weight, repeat, n_trained) of each row; (class, reason) of each rejected one."""

    def write(folder: Path) -> Built:
        pl.DataFrame(rows, schema=["class", "weight", "repeat", "n_trained"], orient="row").with_columns(
            n_tokens=pl.lit(900)
        ).write_parquet(folder / "index.parquet")
        schema = {"class": pl.String, "reason": pl.String}
        pl.DataFrame(rejected, schema=schema, orient="row").write_parquet(folder / "rejected.parquet")
        return Built(content={"n_rows": len(rows)})

    return store.build("mine/tokenized_shards", {"rows": str(rows)}, write)


LEFT_OUT = {
    "no row": [("negative", 1.0, 1, 5)],
    "a row without weight": [("negative", 1.0, 1, 5), ("positive", 0.0, 1, 5)],
    "a row that is repeated no time": [("negative", 1.0, 1, 5), ("positive", 1.0, 0, 5)],
    "a row without a trained token": [("negative", 1.0, 1, 5), ("positive", 1.0, 1, 0)],
}


@pytest.mark.parametrize("rows", LEFT_OUT.values(), ids=LEFT_OUT.keys())
def test_training_does_not_start_where_a_class_has_no_trained_row(
    store: Store, rows: list[tuple[str, float, int, int]]
) -> None:
    rejected = [("positive", "over_length"), ("positive", "over_length"), ("negative", "no_token")]
    shards = shards_with(store, rows, rejected)
    with pytest.raises(TrainingError, match=r"recipe mine: no row of class 'positive' is left .*\(2 over_length\)"):
        check_classes(store, "mine", shards, ("positive", "negative"))
    check_classes(store, "mine", shards, ("negative",))


def test_a_training_that_failed_goes_on_in_its_states_and_leaves_none_behind(store: Store, tmp_path: Path) -> None:
    """Also with other ranks; with other settings it begins anew."""
    base = published_folder(store, tmp_path / "model")
    shards = shards_with(store, [("positive", 1.0, 1, 5)], [])
    shards = replace(shards, details={"segments": []})
    places: list[Path] = []

    def train(module: str, config: Path, ranks: int, threads: int) -> None:
        job = json.loads(config.read_text())
        place = StatePlace.from_json(job["states"])
        places.append(place.folder)
        if len(places) < 3:
            place.folder.mkdir(parents=True, exist_ok=True)
            raise ChildRunError("killed")
        out = Path(job["out_dir"])
        write_model_files(out / "model", b"trained")
        (out / "curve.jsonl").write_text('{"step": 1, "loss": 1.0, "loss_by_class": {}, "heldout_loss": null}\n')
        result = {"steps": 4, "resumed_behind_step": 3, "engine": "DeepSpeedEngine"}
        (out / "result.json").write_text(json.dumps(result))

    def build(**changes: object) -> Published:
        training = {"steps": 4, "ranks": 1, "threads": 1, "lr": 0.1, "save_every_steps": 2, "keep_last": 1, **changes}
        return build_checkpoint(store, "mine", shards=shards, base=base, training=training, card={}, run_child=train)

    for changes in ({}, {"lr": 0.2}):
        with pytest.raises(ChildRunError):
            build(**changes)
    made = build(ranks=2, save_every_steps=1)
    assert places[0] == places[2] != places[1]
    assert made.work == {"steps_trained": 1}
    assert not places[0].exists()
    assert places[1].exists(), "of other settings: another run may be at it"
    places[0].mkdir()  # as a kill between publishing and forgetting leaves it
    assert build(ranks=2).reused
    assert not places[0].exists()


def test_a_training_that_cannot_fit_starts_no_trainer(store: Store, tmp_path: Path) -> None:
    base = published_folder(store, tmp_path / "model")
    shards = replace(shards_with(store, [("positive", 1.0, 1, 5)], []), details={"segments": []})
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    (tmp_path / "model" / "config.json").write_text(json.dumps({**config, "hidden_size": 10**9}))

    def never(module: str, config: Path, ranks: int, threads: int) -> None:
        raise AssertionError("started")

    training = {"steps": 4, "ranks": 1, "threads": 1, "lr": 0.1}
    with pytest.raises(TrainingError, match=r"activations of 1 x 900 tokens .*micro_batch_size"):
        build_checkpoint(store, "mine", shards=shards, base=base, training=training, card={}, run_child=never)
