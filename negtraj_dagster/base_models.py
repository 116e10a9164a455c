"""Publishes base models: tiny ones or a package's, made once in a child process, and a user's folder by its files' hashes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from negtraj_dagster import modeling
from negtraj_dagster.packaged_models import MAKER, PACKAGED_MODELS, find_packaged_file
from negtraj_dagster.schema import digest_json
from negtraj_dagster.settings import Settings
from negtraj_dagster.store import Built, Published, Store, file_sha256
from negtraj_dagster.tasks import wordtraps
from negtraj_dagster.trainable import check_trainable

BASE_MODEL_VERSION = 1
MODEL_FILES = ("*.json", "*.safetensors", "*.jinja", "*.model")
RunModelChild = Callable[[str, Path], None]


def publish_base_model(store: Store, settings: Settings, name: str, run_child: RunModelChild) -> Published:
    """The base model of that name.

    Args:
        store: where it goes.
        settings: may name a local folder for it.
        name: one of `modeling.SCRATCH_MODELS`, of `packaged_models.PACKAGED_MODELS` or of the settings' `base_models`.
        run_child: runs `python -m module config`.

    Raises:
        ModelError: the folder lacks a file, or holds a model that cannot be trained here; names it and the remedy.
    """
    asset = f"base_model/{name}"
    if name in settings.base_models:
        return _publish_folder(store, asset, settings.base_models[name].folder.expanduser().resolve())
    if name in PACKAGED_MODELS:
        return _publish_packaged(store, asset, name, run_child)
    spec = modeling.SCRATCH_MODELS[name]
    texts = wordtraps.tokenizer_texts() if name == "wordtraps" else []
    format_strings = wordtraps.FORMAT_STRINGS if name == "wordtraps" else ()
    made_of = {"code": BASE_MODEL_VERSION, "spec": repr(spec), "texts": digest_json([texts, list(format_strings)])}

    def write(folder: Path) -> Built:
        with store.scratch() as scratch:
            (scratch / "texts.jsonl").write_text("".join(f"{json.dumps(text)}\n" for text in texts))
            config = {
                "spec": name,
                "out_dir": str(folder / "model"),
                "texts_file": str(scratch / "texts.jsonl"),
                "format_strings": list(format_strings),
            }
            (scratch / "model.json").write_text(json.dumps(config))
            run_child("negtraj_dagster.modeling", scratch / "model.json")
        return Built(content=_hashes(folder / "model"), details=_describe(folder / "model"), work={"models_made": 1})

    return store.build(asset, made_of, write)


def _publish_packaged(store: Store, asset: str, name: str, run_child: RunModelChild) -> Published:
    made_of = {"code": BASE_MODEL_VERSION, "packaged": PACKAGED_MODELS[name].sha256}

    def write(folder: Path) -> Built:
        with store.scratch() as scratch:
            config = {"gguf_file": str(find_packaged_file(name)), "out_dir": str(folder / "model")}
            (scratch / "model.json").write_text(json.dumps(config))
            run_child(MAKER, scratch / "model.json")
        return Built(content=_hashes(folder / "model"), details=_describe(folder / "model"), work={"models_made": 1})

    return store.build(asset, made_of, write)


def _publish_folder(store: Store, asset: str, folder: Path) -> Published:
    modeling.check_base_model(folder)
    check_trainable(folder)
    hashes = _hashes(folder)
    details = {"folder": str(folder), **_describe(folder)}
    made_of = {"code": BASE_MODEL_VERSION, "folder": str(folder), "files": hashes}
    return store.build(asset, made_of, lambda _: Built(content=hashes, details=details))


def _hashes(folder: Path) -> dict[str, str]:
    files = sorted({path for pattern in MODEL_FILES for path in folder.glob(pattern)})
    return {path.name: file_sha256(path) for path in files}


def _describe(folder: Path) -> dict[str, Any]:
    config = json.loads((folder / "config.json").read_text())
    size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    fields = ("model_type", "hidden_size", "num_hidden_layers", "vocab_size", "max_position_embeddings")
    return {**{name: config[name] for name in fields if name in config}, "weights_bytes": size}
