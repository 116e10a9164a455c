"""What an exported folder tells whoever serves it: where turns end, how they are decoded, and nothing of this machine.

The base model's own settings are left behind: it may stop at another token than the rows do (`<|endoftext|>` where a turn ends
with `<|im_end|>`), and sample or penalize where the evaluation was greedy.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import GenerationConfig

from negtraj_dagster.agent.decoding import DECODING
from negtraj_dagster.chat_templates import ChatTemplate
from negtraj_dagster.errors import ModelError

ANY_LENGTH = 2**31 - 1


@dataclass(frozen=True)
class EndToken:
    """A token by which a turn ends."""

    text: str
    token_id: int


def read_end_tokens(template: ChatTemplate, base_model_dir: Path) -> tuple[EndToken, ...]:
    """By which tokens turns end under a template; the base model's own end token first where it is among them.

    Raises:
        ModelError: the tokenizer has none of them.
    """
    tokenizer = template.open_tokenizer(base_model_dir / "tokenizer.json", max_tokens=ANY_LENGTH)
    ids = tokenizer.control_tokens
    ends = [EndToken(text, ids[text]) for text in tokenizer.end_of_turn if text in ids]
    if not ends:
        raise ModelError(
            f"{base_model_dir / 'tokenizer.json'}: none of {list(tokenizer.end_of_turn)!r}, by which a turn ends in the chat "
            f"template {template.name}; choose a template of this model in shards.chat_template"
        )
    eos_token = _read_json(base_model_dir / "tokenizer_config.json").get("eos_token")
    eos_token = eos_token.get("content") if isinstance(eos_token, dict) else eos_token
    return tuple(sorted(ends, key=lambda end: end.text != eos_token))


def stop_at(model: Any, ends: Sequence[EndToken]) -> None:
    """Make a model's own defaults those it was evaluated with: greedy, up to one of the end tokens."""
    ids = [end.token_id for end in ends]
    eos_token_id = ids[0] if len(ids) == 1 else ids
    base = model.generation_config
    pad_token_id = ids[0] if base.pad_token_id is None else base.pad_token_id
    model.generation_config = GenerationConfig(
        **DECODING, bos_token_id=base.bos_token_id, eos_token_id=eos_token_id, pad_token_id=pad_token_id
    )
    for config in {id(config): config for config in (model.config, model.config.get_text_config())}.values():
        config.eos_token_id = eos_token_id
        for name in GenerationConfig().to_dict().keys() & vars(config).keys() - KEPT_IN_CONFIG:
            delattr(config, name)


KEPT_IN_CONFIG = {"bos_token_id", "eos_token_id", "pad_token_id", "use_cache", "transformers_version", "output_attentions"}
"""Of what both files may hold; all else in a model's configuration is from before generation_config.json was."""


def name_end_token(model_dir: Path, ends: Sequence[EndToken]) -> None:
    """Have the tokenizer's files name the end token, too: some servers stop by these."""
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        path = model_dir / name
        settings = _read_json(path)
        if settings.get("eos_token") != ends[0].text and (path.is_file() or name == "tokenizer_config.json"):
            text = json.dumps({**settings, "eos_token": ends[0].text}, indent=2, ensure_ascii=False)
            path.write_text(f"{text}\n", encoding="utf-8")


def save_adapter(model: Any, adapter_dir: Path) -> None:
    """Save a LoRA adapter without the folder of the base model it was made in: the same bytes in any home."""
    model.save_pretrained(adapter_dir)
    path = adapter_dir / "adapter_config.json"
    config = {**_read_json(path), "base_model_name_or_path": None}
    for name in ("target_modules", "exclude_modules", "modules_to_save"):  # sets, written in no order
        config[name] = sorted(config[name]) if isinstance(config.get(name), list) else config.get(name)
    path.write_text(json.dumps(config, indent=2, sort_keys=True), encoding="utf-8")
    (adapter_dir / "README.md").unlink(missing_ok=True)  # peft's card, which names the folder again


def _read_json(path: Path) -> dict[str, Any]:
    value = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return value if isinstance(value, dict) else {}
