"""Rows of published chat templates, think tokens in contents: each is what transformers writes, or is rejected by name."""

import datetime
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from tokenizers import Tokenizer
from transformers.utils import chat_template_utils

from negtraj_dagster.chat_templates import make_template, reference_render
from negtraj_dagster.chat_templates.jinja import message_for_template
from negtraj_dagster.schema import ConditionedTurn, conditioned_json
from negtraj_dagster.shards.proof import Prover
from tests.support.published_templates import JINJA_NAMES, TRL
from tests.support.template_tokenizers import SETTINGS, template_tokenizer
from tests.support.tool_conversations import Maker, conditioned

NEVER_A_ROW = ("deepseek_r1_distill", "deepseekv3")
"""Their prompt opens reasoning that they never write."""
SPREAD = ("deepseekv3", "gemma3", "gptoss", "llama3_1", "qwen3", "qwen3_5_think")
N_GENERATED = 300
ANSWERS = (
    "plain",
    "plan\n</think>\n\nanswer",
    "<think>\nplan\n</think>\n\nanswer",
    "<think></think>answer",
    "<think>",
    "</think>",
    "a <think> b </think> c </think> d",
    "answer</think>",
    "< think >x</ think >",
)
TOOL = {
    "type": "function",
    "function": {
        "name": "look",
        "description": "Looks something up.",
        "parameters": {"type": "object", "properties": {"at": {"type": "string", "description": "Where."}}, "required": ["at"]},
    },
}
needs_templates = pytest.mark.skipif(not TRL.is_dir(), reason="`make setup` fetches the published templates")
Conversation = tuple[list[ConditionedTurn], str | None]


@pytest.fixture(autouse=True)
def fixed_day(monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers' own clock shows the day that the settings pin."""

    class Clock(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> datetime.datetime:  # type: ignore[override]
            return datetime.datetime(2026, 1, 31, tzinfo=tz)

    monkeypatch.setattr(chat_template_utils, "datetime", Clock)


def conversations() -> list[Conversation]:
    """Every answer alone, as an earlier turn, beside reasoning, as a question, and around a call; with tools and without."""
    user: ConditionedTurn = {"role": "user", "content": "Which river?", "weight": 0.0}
    result: list[Conversation] = []
    for text in ANSWERS:
        answer: ConditionedTurn = {"role": "assistant", "content": text, "weight": 1.0}
        plain: ConditionedTurn = {"role": "assistant", "content": "The Nile.", "weight": 1.0}
        call: ConditionedTurn = {**answer, "tool_calls": [{"id": "call00001", "name": "look", "arguments": '{"at": "maps"}'}]}
        found: ConditionedTurn = {"role": "tool", "content": text, "name": "look", "tool_call_id": "call00001", "weight": 0.0}
        forms: list[list[ConditionedTurn]] = [
            [user, answer],
            [user, answer, user, plain],
            [user, {**answer, "reasoning": "I think."}],
            [{**user, "content": text}, plain],
            [user, call, found, plain],
        ]
        tools = json.dumps([TOOL])
        result += [(turns, None) for turns in forms[:4]] + [(turns, tools) for turns in forms]
    return result


def render_by_transformers(source: str, turns: list[ConditionedTurn], tools: str | None) -> str:
    texts, _ = chat_template_utils.render_jinja_template(
        [[message_for_template(turn) for turn in turns]],
        tools=None if tools is None else json.loads(tools),
        chat_template=source,
        add_generation_prompt=False,
        **{key: value for key, value in SETTINGS.items() if key != "today"},
    )
    return str(texts[0])


def holds_token(turns: list[ConditionedTurn], tools: str | None, added: list[str]) -> bool:
    """Whether a text of the conversation holds an added token, which stays text in a row and is one for Hugging Face."""
    text = json.dumps(turns, ensure_ascii=False) + (tools or "")
    return any(token in text for token in added)


def outcomes(name: str, folder: Path, drawn: list[Conversation]) -> Counter[str]:
    """What became of every conversation under a template."""
    source = (TRL / f"{name}.jinja").read_text()
    path = folder / "tokenizer.json"
    template_tokenizer(source + "<think></think>").save(str(path))
    theirs = Tokenizer.from_file(str(path))
    added = [token.content for token in theirs.get_added_tokens_decoder().values()]
    template = make_template(name, source, settings=SETTINGS)
    ours = template.open_tokenizer(path, max_tokens=1 << 30)
    texts = {str(n): conditioned_json(turns, tools) for n, (turns, tools) in enumerate(drawn)}
    encoded = ours.encode(list(texts), list(texts.values()))
    prover = Prover(ours, path, reference_render(template), jinja_name=name)
    proof = prover.prove(pa.record_batch(encoded), texts, has_straddling=encoded.n_straddling > 0)
    reasons = {key: reason for key, reason, _ in [*encoded.rejected, *proof.rejected]}
    counts = Counter(reasons.values())
    rows: list[dict[str, Any]] = pa.record_batch(encoded).to_pylist()
    for row in (row for row in rows if row["token_key"] not in reasons):
        turns, tools = drawn[int(row["token_key"])]
        text = render_by_transformers(source, turns, tools)
        same_text = prover.read(row["input_ids"]) == text
        if holds_token(turns, tools, added):
            counts["equal text" if same_text else "other text"] += 1
        else:
            same_ids = row["input_ids"] == theirs.encode(text, add_special_tokens=False).ids
            counts["equal ids" if same_text and same_ids else "other ids"] += 1
    assert sum(counts.values()) == len(drawn)
    assert (counts["equal ids"] > 0 and counts["equal text"] > 0) or name in NEVER_A_ROW
    return counts


@needs_templates
@pytest.mark.parametrize("name", SPREAD)
def test_a_row_is_what_transformers_writes_or_is_rejected_by_name(name: str, tmp_path: Path) -> None:
    counts = outcomes(name, tmp_path, conversations())
    assert counts["other text"] == counts["other ids"] == 0, counts


@needs_templates
@pytest.mark.slow
@pytest.mark.parametrize("name", JINJA_NAMES)
def test_many_rows_are_what_transformers_writes_or_are_rejected_by_name(name: str, tmp_path: Path) -> None:
    maker = Maker(11)
    counts = outcomes(name, tmp_path, [*conversations(), *(conditioned(maker.request()) for _ in range(N_GENERATED))])
    print(f"{name:24} {dict(sorted(counts.items()))}")
    assert counts["other text"] == counts["other ids"] == 0, counts
