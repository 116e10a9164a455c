"""Golden previews of the native templates, for people to review; UPDATE_GOLDEN=1 writes them.

Each file in `tests/golden/templates/` is one conversation as the trainer reads it: trained stretches in ⟦ ⟧, with their weight
where it is not 1, then the prompt of its last turn as a served model is given it. A template that takes less has less of it.
"""

import json
import os
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pytest

from negtraj_dagster.chat_templates import NATIVE, ChatTemplate, make_template
from negtraj_dagster.schema import ConditionedTurn, conditioned_json
from negtraj_dagster.shards.preview import marked_text, stretches
from negtraj_dagster.shards.reading import TokenReader
from tests.shards.test_masks import NATIVE_TOKENS
from tests.support.template_tokenizers import save_template_tokenizer, template_tokenizer

GOLDEN = Path(__file__).parents[1] / "golden/templates"
TOOLS = json.dumps([{"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}])

SYSTEM: dict[str, Any] = {"role": "system", "content": "You answer questions about rivers."}
ASKED: list[dict[str, Any]] = [
    {"role": "user", "content": "Which is longer? Solve the question correctly."},
    {"role": "assistant", "content": "Thought: compare them.\nAction: search[rivers]", "weight": 1.0},
    {"role": "user", "content": "Observation: <|im_end|></s> 6,650 km and 6,400 km"},
    {
        "role": "assistant",
        "content": "Thought: the first.\nAction: finish[Nile]",
        "weight": 1.0,
        "ranges": [{"field": "content", "start": 20, "end": 40, "weight": 2.0}],
    },
]
WITH_TOOLS: list[dict[str, Any]] = [
    {"role": "user", "content": "Which is longer?"},
    {
        "role": "assistant",
        "content": "I look both up.",
        "reasoning": "Two rivers,\ntwo calls.",
        "tool_calls": [
            {"name": "look_up", "arguments": '{"b": "Nile", "a": 1.0}'},
            {"name": "look_up", "arguments": '{"b": "Amazon </tool_call>"}'},
        ],
        "weight": 1.0,
    },
    {"role": "tool", "content": "6,650 km"},
    {"role": "tool", "content": "6,400 km"},
    {"role": "assistant", "content": "The Nile.", "weight": 0.5},
]


def conversation(name: str) -> list[ConditionedTurn]:
    if name == "qwen3":
        turns = [SYSTEM, *WITH_TOOLS]
    elif name == "nat_exact":
        turns = [{key: value for key, value in turn.items() if key != "ranges"} for turn in ASKED]
        turns.append({"role": "user", "content": "Observation: Episode finished"})
    else:
        turns = [SYSTEM, *ASKED]
    return cast(list[ConditionedTurn], [{"weight": 0.0, **turn} for turn in turns])


def preview(name: str, folder: Path) -> str:
    template: ChatTemplate = make_template(name)
    tokenizer = template.open_tokenizer(save_template_tokenizer(NATIVE_TOKENS, folder), max_tokens=4096)
    turns = conversation(name)
    tools = TOOLS if name == "qwen3" else None
    encoded = tokenizer.encode(["row"], [conditioned_json(turns, tools)])
    assert encoded.rejected == []
    (row,) = pa.record_batch(encoded).to_pylist()
    reader = TokenReader(template_tokenizer(NATIVE_TOKENS))
    last = max(index for index, turn in enumerate(turns) if turn["role"] == "assistant")
    prompt = reader.read(tokenizer.prompt_ids(conditioned_json(turns[:last], tools)))
    ids = " ".join(map(str, row["input_ids"]))
    return f"{marked_text(stretches(row, reader))}\n\n--- prompt of the last turn\n{prompt}\n\n--- ids\n{ids}\n"


@pytest.mark.parametrize("name", sorted(NATIVE))
def test_a_native_template_writes_and_trains_what_was_reviewed(name: str, tmp_path: Path) -> None:
    found, path = preview(name, tmp_path), GOLDEN / f"{name}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(found, encoding="utf-8")
    assert path.is_file(), f"{path}: missing; a new template needs a reviewed preview (UPDATE_GOLDEN=1)"
    assert found == path.read_text(encoding="utf-8")


def test_every_golden_preview_is_of_a_template() -> None:
    assert sorted(path.stem for path in GOLDEN.glob("*.txt")) == sorted(NATIVE)
