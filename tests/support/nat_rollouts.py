"""The paper's StrategyQA rollouts as conversations, and how rows of them are compared."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from tokenizers import Tokenizer

from negtraj_dagster import _trajtok  # noqa: TID251 - compared with the reference
from tests.reference.nat_exact import MASKED, NatRow, nat_row, nat_segments

BOS, EOS = "<s>", "</s>"
MAX_TOKENS = 4096
PROMPT_ENTRY = "zero-shot-target-aware"

Message = dict[str, Any]
Encode = Callable[..., tuple[list[int], list[int]]]
"""Messages of role, content and weight, and tools, to ids and labels."""


@dataclass(frozen=True)
class RealConversation:
    """A rollout of the paper's data with the prompt it is trained under."""

    prefix: list[Message]
    question_prompt: str
    turns: list[Message]
    is_finished: bool

    def row(self, tokenizer: Tokenizer, max_tokens: int = MAX_TOKENS) -> NatRow:
        segments = nat_segments(self.prefix, self.question_prompt, self.turns)
        return nat_row(segments, tokenizer, bos=BOS, eos=EOS, max_tokens=max_tokens)

    def messages(self) -> list[Message]:
        """As trajtok reads them: only what is to be trained weighs."""
        context = [*self.prefix, {"role": "user", "content": self.question_prompt}]
        weighted = [(message, 0.0) for message in context] + [(turn, float(turn["loss"])) for turn in self.turns]
        return [{"role": each["role"], "content": each["content"], "weight": weight} for each, weight in weighted]


def read_real_conversations(nat_dir: Path) -> list[RealConversation]:
    """Every StrategyQA rollout, positives first, the prompt chosen by its reward."""
    entry = json.loads((nat_dir / "prompts/StrategyQA/StrategyQA_conversation.json").read_text("utf-8"))[PROMPT_ENTRY]
    with (nat_dir / "strategyqa/train.jsonl").open(encoding="utf-8") as file:
        asked = {row["id"]: row["question"] for row in map(json.loads, file)}
    conversations = []
    for name in ("positive", "negative"):
        for rollout in json.loads((nat_dir / f"strategyqa/strategyqa_gpt-3.5_{name}.json").read_text("utf-8")):
            prompt = entry["correct_question_prompt" if rollout["info"]["reward"] else "incorrect_question_prompt"]
            question_prompt = prompt.replace("{question}", asked[rollout["id"]])
            is_finished = "pred" in rollout["info"]
            conversations.append(
                RealConversation(entry["conversations"], question_prompt, rollout["conversations"], is_finished)
            )
    return conversations


@dataclass
class Comparison:
    """How many conversations were encoded, and the numbers of those whose ids or labels differ."""

    n_conversations: int
    ids: list[int]
    labels: list[int]


def compare(
    encode: Encode, conversations: Sequence[RealConversation], tokenizer: Tokenizer, max_tokens: int = MAX_TOKENS
) -> Comparison:
    result = Comparison(len(conversations), [], [])
    for n, conversation in enumerate(conversations):
        expected = conversation.row(tokenizer, max_tokens)
        input_ids, labels = encode(conversation.messages(), tools=None)
        if input_ids != expected.input_ids:
            result.ids.append(n)
        if labels != expected.labels:
            result.labels.append(n)
    return result


def trajtok_encode(tokenizer_json: Path, max_tokens: int) -> Encode:
    tokenizer = _trajtok.Tokenizer(tokenizer_json, template="nat_exact", max_tokens=max_tokens)

    def encode(messages: list[Message], tools: list[Any] | None = None) -> tuple[list[int], list[int]]:
        assert tools is None, "the paper's conversations have no tools"
        encoded = tokenizer.encode(["key"], [json.dumps({"messages": messages}, ensure_ascii=False)])
        assert encoded.rejected == []
        (row,) = pa.record_batch(encoded).to_pylist()
        assert row["token_key"] == "key"
        return row["input_ids"], labels_of(row["input_ids"], zip(row["span_start"], row["span_end"], strict=True))

    return encode


def labels_of(input_ids: list[int], spans: Iterable[tuple[int, int]]) -> list[int]:
    labels = [MASKED] * len(input_ids)
    for start, end in spans:
        labels[start:end] = input_ids[start:end]
    return labels
