"""The checkpoint stage around the trainer: what it refuses before a child is started."""

from pathlib import Path

import polars as pl
import pytest

from negtraj_dagster.checkpoints.build import build_checkpoint, check_classes, check_unchanged
from negtraj_dagster.errors import ModelError, TrainingError
from negtraj_dagster.store import Built, Published, Store, file_sha256


def published_folder(store: Store, folder: Path) -> Published:
    """A user's model folder as the base model asset publishes it."""
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights")
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
        pl.DataFrame(rows, schema=["class", "weight", "repeat", "n_trained"], orient="row").write_parquet(
            folder / "index.parquet"
        )
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
