"""Proves token rows before they are published, without trajtok's own mask code.

For every row: (a) the trained tokens decode to exactly what should be trained: each target turn's content and its end
token; (b) for every target turn, the tokens before it are those a served model is given there. A row that fails stops
the stage: a wrong mask never reaches a trainer. One kind of failure is the data's own and only rejects its row: the
tokenizer joins a target's first characters with the header before it, so no served model could have been at that point.
"""

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
from tokenizers import Tokenizer as HfTokenizer

from negtraj_dagster import _trajtok  # noqa: TID251 - decodes what it proves
from negtraj_dagster.chat_templates.chatml import ChatTemplate
from negtraj_dagster.errors import MaskError
from negtraj_dagster.schema import ConditionedTurn, conditioned_json


@dataclass
class Proof:
    """What was checked, and which rows are to be left out: (token_key, reason, detail)."""

    rejected: list[tuple[str, str, str]] = field(default_factory=list)

    n_rows: int = 0
    n_turns: int = 0
    n_tokens: int = 0
    n_trained: int = 0

    def counts(self) -> dict[str, int]:
        """Numbers for a manifest."""
        return {
            "proved_rows": self.n_rows,
            "proved_turns": self.n_turns,
            "n_tokens": self.n_tokens,
            "n_trained": self.n_trained,
        }


def prove_rows(
    batch: pa.RecordBatch,
    conversations: Mapping[str, str],
    tokenizer: _trajtok.Tokenizer,
    tokenizer_json: Path,
    template: ChatTemplate,
    *,
    kept: Mapping[str, int] | None = None,
    has_straddling: bool = False,
) -> Proof:
    """Check every row of a batch against the conversation it was made from.

    Args:
        batch: trajtok's output.
        conversations: token_key -> canonical conditioned conversation.
        tokenizer: gives the prompt a served model sees.
        tokenizer_json: read again by the reference decoder.
        template: the template's plain Python rendering.
        kept: token_key -> how many messages a row has that lacks the end of its conversation.
        has_straddling: trajtok reported tokens that cross a target's border; only then may a row be rejected for it.

    Raises:
        MaskError: names the row's key, the turn, what was found and what was expected.
    """
    reference = HfTokenizer.from_file(str(tokenizer_json))
    proof = Proof()
    for row in batch.to_pylist():
        turns: list[ConditionedTurn] = json.loads(conversations[row["token_key"]])["messages"]
        turns = turns[: (kept or {}).get(row["token_key"], len(turns))]
        try:
            _prove_row(row, turns, tokenizer, reference, template)
        except _JoinedAcrossTurnError as error:
            if not has_straddling:
                raise MaskError(str(error)) from error
            proof.rejected.append((row["token_key"], "joined_across_turn", str(error)))
            continue
        proof.n_rows += 1
        proof.n_turns += len(row["span_start"])
        proof.n_tokens += row["n_tokens"]
        proof.n_trained += row["n_trained"]
    return proof


def _prove_row(
    row: Mapping[str, Any],
    turns: list[ConditionedTurn],
    tokenizer: _trajtok.Tokenizer,
    reference: HfTokenizer,
    template: ChatTemplate,
) -> None:
    ids, key = row["input_ids"], row["token_key"]
    targets = [index for index, turn in enumerate(turns) if turn["weight"] > 0]
    spans = list(zip(row["span_start"], row["span_end"], row["span_weight"], strict=True))
    if len(spans) != len(targets):
        raise MaskError(f"token row {key}: {len(spans)} trained stretches, expected {len(targets)}, one per target turn")
    whole = reference.decode(ids, skip_special_tokens=False)
    rendered = template.render(turns, False)
    if not _is_same_text(whole, rendered, reference):
        raise MaskError(f"token row {key}: decodes to {whole[:200]!r}, the template gives {rendered[:200]!r}")
    for (start, end, weight), index in zip(spans, targets, strict=True):
        served = tokenizer.prompt_ids(conditioned_json(turns[:index]))
        if ids[:start] != served:
            raise _JoinedAcrossTurnError(
                f"token row {key}, turn {index}: the {start} tokens before the target are not the {len(served)} tokens a "
                f"served model is given there; the tokenizer joins text across the turn's border"
            )
        expected = turns[index]["content"] + template.end_of_turn
        found = reference.decode(ids[start:end], skip_special_tokens=False)
        if not _is_same_text(found, expected, reference) or weight != _as_float32(turns[index]["weight"]):
            raise MaskError(
                f"token row {key}, turn {index}: trains {found!r} with weight {weight}, "
                f"expected {expected!r} with weight {turns[index]['weight']}"
            )
    if row["n_tokens"] != len(ids) or row["n_trained"] != sum(end - start for start, end, _ in spans):
        raise MaskError(f"token row {key}: counts {row['n_tokens']}/{row['n_trained']} do not fit its tokens")


class _JoinedAcrossTurnError(Exception):
    """The tokens before a target are not the served prompt's."""


def _is_same_text(found: str, expected: str, reference: HfTokenizer) -> bool:
    """Equal, or equal after the tokenizer's own normalizer (NFC, for Qwen), which its tokens cannot undo."""
    if found == expected:
        return True
    return reference.normalizer is not None and found == reference.normalizer.normalize_str(expected)


def _as_float32(weight: float) -> float:
    return float(struct.unpack("f", struct.pack("f", weight))[0])
