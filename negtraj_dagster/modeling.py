"""Makes base models from scratch, in Hugging Face layout: a tokenizer from given texts, a tiny Llama at a fixed seed.

Run as a child: `python -m negtraj_dagster.modeling CONFIG.json`. The Dagster code location imports this file, so
torch, transformers and tokenizers are imported inside the functions that a child runs.
"""

import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from negtraj_dagster.errors import ModelError
from negtraj_dagster.store import read_json_lines

PAD, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
CONTROL_TOKENS = (PAD, TURN_START, TURN_END)
"""Added, special tokens; a token's place here is its id."""

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)

MAX_VOCABULARY = 1024
"""Above what wordtraps' words and numbers need (about 630), so that training ends with every one of them a token."""

WEIGHTS, WEIGHTS_INDEX = "model.safetensors", "model.safetensors.index.json"

MAX_HEADER_BYTES = 100_000_000
"""What the safetensors library reads at most (safetensors README, section Format)."""


@dataclass(frozen=True)
class BaseModelSpec:
    """A base model's definition: everything but the texts that decide its bytes.

    Attributes:
        tokenizer: `bpe` is trained on texts; `bytes` has one token per byte and no merges.
        intermediate_size: width of the feed-forward layers.
        max_positions: longest sequence in tokens.
        seed: torch seed of the initial weights.
        init: standard deviation of the normal the weights are drawn from.
    """

    name: str
    tokenizer: Literal["bpe", "bytes"]
    hidden_size: int
    n_layers: int
    n_heads: int
    intermediate_size: int
    max_positions: int
    seed: int = 0
    init: float = 0.02


SCRATCH_MODELS: dict[str, BaseModelSpec] = {
    spec.name: spec
    for spec in (
        BaseModelSpec("wordtraps", "bpe", 128, n_layers=2, n_heads=4, intermediate_size=256, max_positions=512),
        BaseModelSpec("bytes", "bytes", 64, n_layers=2, n_heads=4, intermediate_size=128, max_positions=8192),
    )
}


def make_base_model(spec_name: str, out_dir: Path, *, texts: Iterable[str], format_strings: Sequence[str]) -> None:
    """Write tokenizer and initial weights into `out_dir`; same inputs, same bytes.

    Args:
        spec_name: a key of SCRATCH_MODELS.
        out_dir: an empty or absent folder.
        texts: what a `bpe` tokenizer is trained on; `bytes` ignores them.
        format_strings: strings that recur in every rollout (`Thought: `, `assistant\\n`). In a `bpe` tokenizer each
            becomes one token of the ordinary vocabulary: content never matches added tokens, so none is added.

    Raises:
        ModelError: no such spec, or a format string that another one keeps from being a token.
    """
    if spec_name not in SCRATCH_MODELS:
        raise ModelError(
            f"base model {spec_name!r} is not defined; expected one of {', '.join(SCRATCH_MODELS)}; "
            "correct base_model in the recipe or name a folder under [base_models] in negtraj.toml"
        )
    spec = SCRATCH_MODELS[spec_name]
    out_dir.mkdir(parents=True, exist_ok=True)
    tokenizer = train_bpe(texts, format_strings) if spec.tokenizer == "bpe" else byte_tokenizer()
    (out_dir / "tokenizer.json").write_text(tokenizer.to_str(pretty=True), encoding="utf-8")
    _write_tokenizer_config(spec, out_dir)
    _write_weights(spec, out_dir, vocab_size=tokenizer.get_vocab_size())
    check_base_model(out_dir)


def check_base_model(folder: Path) -> None:
    """Check that a folder holds a model this project can read (safetensors only: no pickles from outside).

    Reads two JSON files and the headers of the weights, never the weights: a fault shows here in milliseconds instead of
    in a trainer that took seconds to start.

    Raises:
        ModelError: lists every missing file, or names the first file that is not what it should be; and what to do.
    """
    if not folder.is_dir():
        raise ModelError(f"base model folder {folder} does not exist; correct its path under [base_models] in negtraj.toml")
    missing = [name for name in ("config.json", "tokenizer.json") if not (folder / name).is_file()]
    if not any((folder / name).is_file() for name in (WEIGHTS, WEIGHTS_INDEX)):
        missing.append(f"{WEIGHTS} (or {WEIGHTS_INDEX})")
    if missing:
        file_names = ", ".join(sorted(path.name for path in folder.iterdir())) or "nothing"
        raise ModelError(
            f"base model folder {folder}: missing {', '.join(missing)}; found {file_names}; save the model there in "
            "Hugging Face layout with save_pretrained (model and fast tokenizer, safetensors) and try again"
        )
    _check_config(folder / "config.json")
    _check_tokenizer(folder / "tokenizer.json")
    tensors = {path.name: _read_tensors(path).keys() for path in _weight_files(folder)}
    if (folder / WEIGHTS_INDEX).is_file():
        _check_weights_index(folder / WEIGHTS_INDEX, tensors)


def tensor_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Shapes of a checked folder's weights by name, from the files' headers."""
    return {name: shape for path in _weight_files(folder) for name, shape in _read_tensors(path).items()}


def _weight_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("[!.]*.safetensors"))


def _check_config(path: Path) -> None:
    config = _read_json_object(path)
    if not isinstance(kind := config.get("model_type"), str) or not kind:
        raise _refusal(path, f"model_type = {kind!r}", "the architecture's name, such as 'llama'")
    size = config.get("vocab_size")
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise _refusal(path, f"vocab_size = {size!r}", "a number of tokens above 0 (a text-only causal model)")


def _check_tokenizer(path: Path) -> None:
    tokenizer = _read_json_object(path)
    if not isinstance(tokenizer.get("model"), dict):
        keys = ", ".join(sorted(tokenizer)) or "no keys"
        raise _refusal(path, f"{keys[:200]}, without an object `model`", "a fast tokenizer's file", "its tokenizer")


def _check_weights_index(path: Path, tensors: Mapping[str, Set[str]]) -> None:
    """Every tensor stands in a shard of this very folder: only these are hashed."""
    places = _read_json_object(path).get("weight_map")
    if not isinstance(places, dict) or not places or not all(isinstance(shard, str) for shard in places.values()):
        raise _refusal(path, f"weight_map = {repr(places)[:80]}", "an object that gives each tensor's file")
    shards = sorted(set(places.values()))
    if absent := [shard for shard in shards if shard not in tensors]:
        there = f"{len(absent)} of {len(shards)} shards it names are not beside it ({', '.join(absent[:8])})"
        raise _refusal(path, there, "every shard in the same folder, named *.safetensors")
    if not_stored := sorted(name for name, shard in places.items() if name not in tensors[shard]):
        there = f"{places[not_stored[0]]} does not hold {not_stored[0]!r} ({len(not_stored)} tensors in all)"
        raise _refusal(path, there, "every tensor in the shard the index gives")


def _read_tensors(path: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes from a safetensors header: 8 bytes of its length (little-endian), then JSON; the data fill the rest."""
    size_bytes = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        n_header = int.from_bytes(start, "little")
        if len(start) < 8 or not 2 <= n_header <= min(size_bytes - 8, MAX_HEADER_BYTES):
            raise _refusal(path, f"{size_bytes} bytes that begin with {start!r}", "safetensors: a header's length, the header")
        raw = file.read(n_header)
    header = _parse_json_object(path, raw, "its header is")
    header.pop("__metadata__", None)
    ranges = sorted(_data_range(path, name, entry) for name, entry in header.items())
    end_before = 0
    for begin, end in ranges:
        if begin != end_before:
            raise _refusal(path, f"a tensor's data begins at byte {begin}, after byte {end_before}", "no gap, no overlap")
        end_before = end
    n_data = size_bytes - 8 - n_header
    if end_before != n_data:
        damage = "the file is cut" if end_before > n_data else "something was appended"
        raise _refusal(path, f"{n_data} bytes of data ({damage})", f"{end_before}, as its header says")
    if not ranges:
        raise _refusal(path, "no tensors", "the model's weights")
    return {name: tuple(entry["shape"]) for name, entry in header.items()}


def _data_range(path: Path, name: str, entry: object) -> tuple[int, int]:
    offsets = entry.get("data_offsets") if isinstance(entry, dict) else None
    match offsets:
        case [int(begin), int(end)] if 0 <= begin <= end:
            return begin, end
    raise _refusal(path, f"tensor {name!r} with data_offsets {repr(offsets)[:80]}", "two byte places, the second not smaller")


def _read_json_object(path: Path) -> dict[str, Any]:
    return _parse_json_object(path, path.read_bytes(), "it is")


def _parse_json_object(path: Path, raw: bytes, subject: str) -> dict[str, Any]:
    try:
        value = json.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise _refusal(path, f"{subject} not JSON ({error}) and begins with {raw[:40]!r}", "a JSON object") from None
    if not isinstance(value, dict):
        raise _refusal(path, f"{subject} a JSON {type(value).__name__}", "a JSON object")
    return value


def _refusal(path: Path, found: str, expected: str, part: str = "the model") -> ModelError:
    return ModelError(
        f"base model file {path}: {found}; expected {expected}; copy the file again, or save {part} anew with "
        "save_pretrained (safetensors, fast tokenizer), and try again"
    )


def train_bpe(texts: Iterable[str], format_strings: Sequence[str]) -> Any:
    """A byte-level BPE whose pre-tokens are format strings, words, runs of digits, runs of space, and the rest.

    A whole number is one token, so that a model this small copies it in one step.

    Returns:
        tokenizers.Tokenizer
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    longest_first = sorted(format_strings, key=lambda text: (-len(text), text))
    pattern = "|".join([*map(_regex_literal, longest_first), r" ?[A-Za-z]+", r"\d+", r"\s+", r"[^\sA-Za-z\d]+"])
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=MAX_VOCABULARY,
        special_tokens=list(CONTROL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*texts, *format_strings], trainer)
    return _merge_whole(tokenizer, format_strings)


def byte_tokenizer() -> Any:
    """One token per byte: no merges, so text of any kind fits and lengths are byte counts.

    Returns:
        tokenizers.Tokenizer
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    tokens = [*CONTROL_TOKENS, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in CONTROL_TOKENS])
    return tokenizer


def _regex_literal(text: str) -> str:
    """Python escapes a newline as backslash-newline, which Oniguruma reads as a newline too but nobody can read."""
    return re.escape(text).replace("\\\n", r"\n").replace("\\ ", " ")


def _merge_whole(tokenizer: Any, format_strings: Sequence[str]) -> Any:
    """Append the merges a format string still lacks; training stops short of one only when the vocabulary is full."""
    from tokenizers import Tokenizer

    for text in format_strings:
        pieces = tokenizer.encode(text, add_special_tokens=False).tokens
        while len(pieces) > 1:
            state = json.loads(tokenizer.to_str())
            model = state["model"]
            joined = pieces[0] + pieces[1]
            model["vocab"].setdefault(joined, len(model["vocab"]))
            model["merges"].append([pieces[0], pieces[1]])
            tokenizer = Tokenizer.from_str(json.dumps(state))
            shorter = tokenizer.encode(text, add_special_tokens=False).tokens
            if len(shorter) >= len(pieces):
                raise ModelError(
                    f"format string {text!r}: found tokens {shorter}, expected one token; another format string cuts "
                    "it: leave one of the two out"
                )
            pieces = shorter
    return tokenizer


def _write_tokenizer_config(spec: BaseModelSpec, out_dir: Path) -> None:
    config = {
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "eos_token": TURN_END,
        "model_max_length": spec.max_positions,
        "pad_token": PAD,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    (out_dir / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _write_weights(spec: BaseModelSpec, out_dir: Path, *, vocab_size: int) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(spec.seed)
    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=spec.hidden_size,
        num_hidden_layers=spec.n_layers,
        num_attention_heads=spec.n_heads,
        num_key_value_heads=spec.n_heads,
        intermediate_size=spec.intermediate_size,
        max_position_embeddings=spec.max_positions,
        initializer_range=spec.init,
        tie_word_embeddings=True,
        pad_token_id=CONTROL_TOKENS.index(PAD),
        bos_token_id=None,
        eos_token_id=CONTROL_TOKENS.index(TURN_END),
    )
    LlamaForCausalLM(config).save_pretrained(out_dir)


def main(config_path: Path) -> None:
    """Make what a config file asks for: {"spec", "out_dir", "texts_file" (JSON lines of strings), "format_strings"}."""
    from transformers.utils import logging

    logging.disable_progress_bar()  # it would draw "Writing model shards" into the run's own lines
    config = json.loads(config_path.read_text(encoding="utf-8"))
    make_base_model(
        config["spec"],
        Path(config["out_dir"]),
        texts=read_json_lines(Path(config["texts_file"])),
        format_strings=config["format_strings"],
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
