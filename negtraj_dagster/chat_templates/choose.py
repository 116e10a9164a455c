"""Finds the chat template that a recipe names: a native one, the base model's own, or a file of Jinja text."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from negtraj_dagster.chat_templates import NATIVE, ChatTemplate, EmptyThink, make_template
from negtraj_dagster.errors import SettingsError
from negtraj_dagster.settings import did_you_mean

BASE_MODEL = "base_model"
AUTO = "auto"
"""The base model's own template where it has one, else `chatml`."""
FALLBACK = "chatml"
SPECIAL_TOKENS = ("bos_token", "eos_token", "pad_token", "unk_token", "sep_token", "cls_token", "mask_token")


def check_template_name(name: str) -> None:
    """Refuse what names no template.

    Raises:
        SettingsError: with what may stand there.
    """
    if name not in NATIVE and name not in (AUTO, BASE_MODEL) and not name.endswith(".jinja"):
        template_names = [*NATIVE, AUTO, BASE_MODEL]
        raise SettingsError(
            f"shards.chat_template = {name!r}: no native template, nor {AUTO!r}, {BASE_MODEL!r} or a path that ends in .jinja"
            f"{did_you_mean(name, template_names)}"
        )


def choose_template(
    name: str,
    base_folder: Path,
    *,
    settings: Mapping[str, Any],
    empty_think: EmptyThink = "mask",
    as_served: bool = False,
) -> ChatTemplate:
    """The template of this name, for this base model.

    Args:
        name: `auto`, a native template, `base_model`, or the path of a Jinja file.
        base_folder: where the base model's tokenizer_config.json lies: its special tokens are what a Jinja template sees.
        settings: what else the template sees.
        empty_think: see `ChatTemplate`.
        as_served: see `ChatTemplate`.

    Raises:
        SettingsError: the file or the base model's chat template is missing.
    """
    check_template_name(name)
    config = {} if name in NATIVE else _read_config(base_folder / "tokenizer_config.json")
    if name == AUTO:
        name = BASE_MODEL if _has_own_template(base_folder, config) else FALLBACK
    if name in NATIVE:
        return make_template(name, settings=settings, empty_think=empty_think)
    tokens = {key: text for key in SPECIAL_TOKENS if (text := _token_text(config.get(key))) is not None}
    if name == BASE_MODEL:
        title, source = _own_template(base_folder, config)
    else:
        title, source = Path(name).name, _read(Path(name).expanduser())
    return make_template(title, source, settings={**tokens, **settings}, empty_think=empty_think, as_served=as_served)


def _has_own_template(folder: Path, config: Mapping[str, Any]) -> bool:
    return (folder / "chat_template.jinja").is_file() or bool(config.get("chat_template"))


def _own_template(folder: Path, config: Mapping[str, Any]) -> tuple[str, str]:
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.name, _read(file)
    template = config.get("chat_template")
    if isinstance(template, list):
        if names := sorted(str(entry.get("name")) for entry in template if entry.get("name") != "default"):
            raise SettingsError(
                f"{folder}: the base model has several chat templates (default, {', '.join(names)}), of which a server chooses "
                f"by the conversation; save the one to train with as a file and set shards.chat_template to its path"
            )
        template = next((entry.get("template") for entry in template if entry.get("name") == "default"), None)
    if not isinstance(template, str):
        raise SettingsError(
            f"{folder}: the base model has no chat template (chat_template.jinja, or chat_template in tokenizer_config.json); "
            f"set shards.chat_template to a native one ({', '.join(NATIVE)}) or to a .jinja file"
        )
    return "tokenizer_config.json's chat_template", template


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"shards.chat_template = {str(path)!r}: cannot be read ({error}); mend the path") from error


def _read_config(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise SettingsError(f"{path}: not JSON ({error}); save the tokenizer again") from error
    if not isinstance(config, dict):
        raise SettingsError(f"{path}: found {type(config).__name__}, expected an object; save the tokenizer again")
    return config


def _token_text(value: Any) -> str | None:
    """A special token's text: files spell it as a string or as an object with `content`."""
    return value.get("content") if isinstance(value, dict) else value
