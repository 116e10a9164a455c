"""Prompts read from a file in NAT's layout (its `prompts/<task>/*.json`), for exact reproduction; none is shipped.

An entry has `conversations` (a fixed prefix) and either `question_prompt` or one prompt per class; `{question}` is
replaced as it stands.
"""

import json
from pathlib import Path
from typing import Any

from negtraj_dagster.errors import SettingsError
from negtraj_dagster.schema import Question, Turn
from negtraj_dagster.settings import did_you_mean
from negtraj_dagster.strategies.base import Prompter

CLASS_KEYS = {"positive": "correct_question_prompt", "negative": "incorrect_question_prompt"}


def read_prompt_file(path: Path, entry_name: str) -> Prompter:
    """A prompter over one entry of a prompt file.

    Raises:
        SettingsError: no such file or entry, or an entry of another shape.
    """
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SettingsError(f"prompt file {path}: cannot be read ({error}); mend strategy.prompt_file") from error
    if entry_name not in entries:
        raise SettingsError(f"prompt file {path}: no entry {entry_name!r}{did_you_mean(entry_name, entries)}")
    entry = entries[entry_name]
    if not isinstance(entry, dict) or not isinstance(entry.get("conversations"), list):
        raise SettingsError(f"prompt file {path}, entry {entry_name!r}: expected an object with a list `conversations`")
    prefix = [_turn(turn, path, entry_name) for turn in entry["conversations"]]

    def prompt(question: Question, class_name: str | None) -> list[Turn]:
        key = CLASS_KEYS[class_name] if class_name else "question_prompt"
        if key not in entry:
            raise SettingsError(f"prompt file {path}, entry {entry_name!r}: no {key}; it holds {sorted(entry)}")
        return [*prefix, {"role": "user", "content": entry[key].replace("{question}", question.question)}]

    return prompt


def _turn(turn: Any, path: Path, entry_name: str) -> Turn:
    if not isinstance(turn, dict) or turn.get("role") not in ("user", "assistant", "system"):
        raise SettingsError(f"prompt file {path}, entry {entry_name!r}: a prefix turn needs role and content, found {turn!r}")
    return {"role": turn["role"], "content": str(turn["content"])}
