"""The checkpoint stage around the trainer: what it refuses before a child is started."""

from pathlib import Path

import pytest

from negtraj_dagster.checkpoints.build import build_checkpoint, check_unchanged
from negtraj_dagster.errors import ModelError
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
