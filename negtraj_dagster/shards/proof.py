"""Proves token rows before they are published, without trajtok's own rendering and mask code.

Most rows are vouched for by the crate `rust/trajproof`, which looks at them in the same way (`RowProver`). This module judges
all others, looks at a sample of those once more, as their reference, and knows what is wrong with a row.

For every trained turn of every row: (a) its trained tokens decode to what should be trained; (b) what precedes it, as text
and as tokens, is what a served model is given there; (c) it is what a conversation that ends with this turn has there, with
all that the agent wrote: reasoning, content, tool calls, end token. A row that fails stops the stage: a wrong mask never
reaches a trainer. Some failures are the data's own or the template's and only reject their row: the tokenizer joins a target's
first characters with what precedes it, recorded token ids are not those of the text, Jinja itself raises or writes other text.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from negtraj_dagster import _trajtok  # noqa: TID251 - gives the ids that a served model is given
from negtraj_dagster.chat_templates import EmptyThink, Render
from negtraj_dagster.errors import MaskError
from negtraj_dagster.schema import ConditionedTurn, conditioned_json
from negtraj_dagster.shards.engines import MACHINE_ERRORS, Engines, TemplateRaisesError
from negtraj_dagster.shards.reading import load_reader
from negtraj_dagster.shards.rows import is_target
from negtraj_dagster.shards.turn_texts import empty_think, foreign_text, lost_text
from negtraj_dagster.shards.vouching import count_vouched, is_in_sample
from negtraj_dagster.shards.weights import Span, as_float32, expected_weights, find_weight_fault


@dataclass
class Proof:
    """What was checked, and which rows are to be left out: (token_key, reason, detail)."""

    rejected: list[tuple[str, str, str]] = field(default_factory=list)

    n_rows: int = 0
    n_turns: int = 0
    n_tokens: int = 0
    n_trained: int = 0
    n_by_reference: int = 0

    def counts(self) -> dict[str, int]:
        """Numbers for a manifest."""
        return {
            "proved_rows": self.n_rows,
            "proved_turns": self.n_turns,
            "n_tokens": self.n_tokens,
            "n_trained": self.n_trained,
        }


@dataclass(frozen=True)
class RowText:
    """A row and what it was made from.

    Attributes:
        ids: its tokens; `spans` those that are trained.
        turns: of the conditioned conversation; `tools` its schemas.
        whole: the text of all its turns.
    """

    ids: list[int]
    spans: Sequence[Span]
    turns: list[ConditionedTurn]
    tools: str | None
    whole: str


@dataclass(frozen=True)
class Target:
    """A trained turn of a row.

    Attributes:
        index: of the turn; `turn` itself.
        prompt: the text that a served model is given before it; it ends before token `start`.
        following: the token where the next target starts, or the number of tokens.
        spans: the row's spans in between.
    """

    index: int
    turn: ConditionedTurn
    prompt: str
    start: int
    following: int
    spans: Sequence[Span]


class Prover:
    """Checks rows of one tokenizer and template.

    Args:
        tokenizer: gives the prompt a served model sees.
        tokenizer_json: read again by the reference decoder.
        render: the template's rendering without trajtok.
        empty_think: the rule that the rows were made by.
        row_end: the token that is appended to a row that does not end with it, and trained, where there is room; None where
            none is.
        max_tokens: the room.
        vouching: looks at rows before this does; None where there is none for this template and tokenizer.
        jinja_name: what the template is called in messages, where it is a Jinja one: it may be one that the engines do not
            render alike. None where a difference is our own fault.
    """

    def __init__(
        self,
        tokenizer: _trajtok.Tokenizer,
        tokenizer_json: Path,
        render: Render,
        *,
        empty_think: EmptyThink = "mask",
        row_end: str | None = None,
        max_tokens: int = 0,
        vouching: _trajtok.RowProver | None = None,
        jinja_name: str | None = None,
    ) -> None:
        self._vouching = vouching
        self._empty_think = empty_think
        self._engines = None if jinja_name is None else Engines(jinja_name, render, tokenizer)
        self._tokenizer, self._render = tokenizer, render if self._engines is None else self._engines.render
        self._max_tokens = max_tokens
        self._row_end_id = None if row_end is None else tokenizer.control_tokens[row_end]
        self._reader = load_reader(tokenizer_json)

    def read(self, ids: Sequence[int]) -> str:
        """The text of some tokens, by Hugging Face's decoder."""
        return self._reader.read(ids)

    def prove(
        self,
        batch: pa.RecordBatch,
        conversations: Mapping[str, str],
        *,
        kept: Mapping[str, int] | None = None,
        has_straddling: bool = False,
    ) -> Proof:
        """Check every row of a batch against the conversation it was made from.

        Args:
            batch: trajtok's output.
            conversations: token_key -> canonical conditioned conversation.
            kept: token_key -> how many messages a row has that lacks the end of its conversation.
            has_straddling: trajtok reported tokens that cross a target's border; only then may a row be rejected for it.

        Raises:
            MaskError: names the row's key, the turn, what was found and what was expected.
        """
        proof = Proof()
        keys: list[str] = batch.column("token_key").to_pylist()
        n_turns_of: list[int | None] = [None] * len(keys)
        if self._vouching is not None:
            render = None if self._engines is None else self._engines.render
            n_turns_of = count_vouched(self._vouching, batch, conversations, kept or {}, render)
        looked_at = [index for index, n in enumerate(n_turns_of) if n is None or is_in_sample(index, keys[index])]
        for index, row in zip(looked_at, batch.take(pa.array(looked_at, pa.int64())).to_pylist(), strict=True):
            key = row["token_key"]
            conversation = json.loads(conversations[key])
            turns: list[ConditionedTurn] = conversation["messages"][: (kept or {}).get(key)]
            tools = conversation.get("tools")
            vouched = n_turns_of[index]
            try:
                n_turns_of[index] = self._prove_row(row, turns, tools)
            except (MaskError, TemplateRaisesError, _WeightsError, _JoinedAcrossTurnError) as error:
                reason, detail = self._judge_fault(error, key, turns, tools, has_straddling=has_straddling)
                proof.rejected.append((key, reason, detail))
                n_turns_of[index] = None
            if vouched not in (None, n_turns_of[index]):
                # also where the row is rejected as the data's own fault: nothing of it should have been vouched for
                raise MaskError(
                    f"token row {key}: {vouched} turns were vouched for, the reference proves {n_turns_of[index]}; the two "
                    f"proofs differ, which is a fault of this program: report it"
                )
        proof.n_by_reference = len(looked_at)
        is_proved = [n is not None for n in n_turns_of]
        proof.n_rows, proof.n_turns = sum(is_proved), sum(n or 0 for n in n_turns_of)
        proof.n_tokens, proof.n_trained = (
            sum(batch.column(name).filter(pa.array(is_proved, pa.bool_())).to_pylist()) for name in ("n_tokens", "n_trained")
        )
        return proof

    def _judge_fault(
        self, error: Exception, key: str, turns: Sequence[ConditionedTurn], tools: str | None, *, has_straddling: bool
    ) -> tuple[str, str]:
        """Reason and detail by which a row that failed is left out.

        Raises:
            MaskError: neither the data nor the template is at fault.
        """
        try:
            difference = None if self._engines is None else self._engines.find_difference(turns, tools)
        except TemplateRaisesError as raised:
            return "template_refuses", f"token row {key}: {raised}"
        if difference is not None:
            return "engines_differ", f"token row {key}: {difference}"
        if isinstance(error, _WeightsError):
            return "weights_differ", str(error)
        if isinstance(error, _JoinedAcrossTurnError) and has_straddling:
            return "joined_across_turn", str(error)
        if isinstance(error, MaskError) and any("token_ids" in turn for turn in turns):
            return "ids_differ", f"with the token ids that came with it, {error}"
        raise MaskError(f"token row {key}: {error}") from error

    def _prove_row(self, row: Mapping[str, Any], turns: list[ConditionedTurn], tools: str | None) -> int:
        """The number of turns that were proved."""
        ids: list[int] = row["input_ids"]
        spans = [Span(*span) for span in zip(*(row[name] for name in SPANS), strict=True)]
        if row["n_tokens"] != len(ids) or row["n_trained"] != sum(span.end - span.start for span in spans):
            raise MaskError(f"counts {row['n_tokens']}/{row['n_trained']} do not fit its tokens")
        borders = [0, *(at for span in spans for at in (span.start, span.end)), len(ids)]
        if borders != sorted(borders):
            raise MaskError(f"its trained stretches are not in order from token 0 to {len(ids)}")
        whole = self._render(turns, tools, False)
        trained = [index for index, turn in enumerate(turns) if is_target(turn)]
        if self._row_end_id is not None:
            trained = [index for index in trained if turns[index]["content"]]
            ids, spans = self._without_row_end(ids, spans, whole)
        text = RowText(ids, spans, turns, tools, whole)
        targets = self._find_targets(text, trained)
        # one walk over the row: what lies between two targets has to read as the text between them, so nothing is left unread
        at_token = at_text = 0
        for target in targets:
            self._check_reads(
                ids[at_token : target.start], whole[at_text : len(target.prompt)], f"the context before turn {target.index}"
            )
            at_token, at_text = self._prove_target(text, target)
        self._check_reads(ids[at_token:], whole[at_text:], "what follows the last target")
        # spans behind the first target were compared turn by turn; one before it belongs to no turn at all
        first_start = targets[0].start if targets else len(ids)
        if outside := [span for span in spans if span.start < first_start]:
            raise MaskError(f"tokens {outside[0].start} to {outside[0].end} are trained before the first target")
        return len(targets)

    def _find_targets(self, row: RowText, trained: Sequence[int]) -> list[Target]:
        """The turns of these indices, each with the tokens between its prompt and the next one's."""
        starts = [self._prove_prompt(row, index) for index in trained]
        ends = [*(start for start, _ in starts[1:]), len(row.ids)][: len(starts)]
        targets = []
        for index, (start, prompt), following in zip(trained, starts, ends, strict=True):
            spans = [span for span in row.spans if start <= span.start < following]
            if not spans:
                raise MaskError(f"turn {index}: none of its tokens is trained; expected its end token at least")
            targets.append(Target(index, row.turns[index], prompt, start, following, spans))
        return targets

    def _without_row_end(self, ids: list[int], spans: list[Span], whole: str) -> tuple[list[int], list[Span]]:
        """The row as its text has it; checks what was appended."""
        assert self._row_end_id is not None
        if ids[-1:] != [self._row_end_id] and len(ids) == self._max_tokens:
            return ids, spans
        if ids[-1:] != [self._row_end_id]:
            raise MaskError(f"the row ends with token {ids[-1:]}, expected {self._row_end_id}")
        if whole.endswith(self._reader.added[self._row_end_id]):
            return ids, spans
        if not spans or spans[-1] != Span(len(ids) - 1, len(ids), 1.0):
            raise MaskError("the end token that was appended to the row is not trained")
        return ids[:-1], spans[:-1]

    def _prove_prompt(self, row: RowText, index: int) -> tuple[int, str]:
        """(b): where the turn starts, in tokens, and the text before it."""
        prompt = self._render(row.turns[:index], row.tools, True)
        if not row.whole.startswith(prompt):
            raise MaskError(f"turn {index}: a served model is given …{prompt[-80:]!r}, which the row does not begin with")
        served = self._tokenizer.prompt_ids(conditioned_json(row.turns[:index], row.tools))
        if row.ids[: len(served)] != served:
            raise _JoinedAcrossTurnError(
                f"turn {index}: the first {len(served)} tokens are not those that a served model is given before the target; "
                f"the tokenizer joins text across the turn's border"
            )
        return len(served), prompt

    def _prove_target(self, row: RowText, target: Target) -> tuple[int, int]:
        """(a) and (c): where the turn ends, in tokens and in characters of the whole."""
        ids, turns, prompt, place = row.ids, row.turns[: target.index + 1], target.prompt, f"turn {target.index}"
        end = self._turn_end(ids, target)
        end_token = self._reader.added.get(ids[end - 1])
        if end_token is None:
            raise MaskError(f"{place}: the last trained token is {ids[end - 1]}, which ends no turn")
        prefix_text = self._render(turns, row.tools, False)
        stop = prefix_text.rfind(end_token) + len(end_token)
        text = prefix_text[len(prompt) : stop]
        if not prefix_text.startswith(prompt) or not row.whole.startswith(prefix_text[:stop]) or stop < len(prompt):
            raise MaskError(
                f"{place}: the row has not what a conversation that ends with this turn has: …{prefix_text[-80:]!r}"
            )
        if rest := self._rest_of_turn(prefix_text[stop:], turns, row.tools, prefix_text):
            raise MaskError(f"{place}: {rest!r} follows its last trained token; expected nothing of the turn")
        if lost_part := lost_text(text, target.turn):
            raise MaskError(f"{place}: its target {text!r} lacks {lost_part!r}")
        if foreign := foreign_text(text, row.turns, target.index, lambda changed: self._behind_prompt(changed, row.tools)):
            raise MaskError(f"{place}: its target {text!r} holds {foreign!r}, a text of another message")
        self._check_reads(ids[target.start : end], text, f"{place}'s target")
        is_masked = self._empty_think == "mask" and not target.turn.keys() & {"reasoning", "token_ids"}
        think = empty_think(prompt, text) if is_masked else ""
        try:
            self._check_weights(ids[:end], target, text, think)
        except (MaskError, _WeightsError) as error:
            raise type(error)(f"{place}: {error}") from error
        return end, stop

    def _rest_of_turn(self, rest: str, turns: list[ConditionedTurn], tools: str | None, alone: str) -> str:
        """What belongs to the turn behind its last trained token: text, or a special token directly behind it."""
        if text := self._reader.without_added(rest).strip():
            return text
        special = next((token for token in self._reader.special if rest.lstrip().startswith(token)), "")
        if not special or special in self._reader.leading_added(alone):  # the next turn's header is always written
            return ""
        # What stands at a conversation's end alone is no part of the turn.
        asks: ConditionedTurn = {"role": "user", "content": "x", "weight": 0.0}
        goes_on = self._try_render([*turns, asks], tools)
        n_turn = len(alone) - len(rest)
        return special if goes_on is None or goes_on[n_turn:].lstrip().startswith(special) else ""

    def _behind_prompt(self, turns: Sequence[ConditionedTurn], tools: str | None) -> str | None:
        """What a template writes for the last of these turns, and behind it; None where it refuses them."""
        text, prompt = self._try_render(turns, tools), self._try_render(turns[:-1], tools, add_generation_prompt=True)
        return None if text is None or prompt is None else text[len(prompt) :]

    def _try_render(
        self, turns: Sequence[ConditionedTurn], tools: str | None, *, add_generation_prompt: bool = False
    ) -> str | None:
        try:
            return self._render(turns, tools, add_generation_prompt)
        except MACHINE_ERRORS:
            raise
        except Exception:  # a template may refuse what it was not asked to write
            return None

    def _turn_end(self, ids: list[int], target: Target) -> int:
        """Where the turn ends, in tokens: with its last span, or, where its end is not trained, with the first end token behind
        which nothing of it is missing."""
        if target.turn["weight"] > 0:
            return target.spans[-1].end
        controls = self._tokenizer.control_tokens
        ends = {controls[token] for token in self._tokenizer.end_of_turn}
        places = [n + 1 for n in range(target.start, target.following) if ids[n] in ends]
        return next((place for place in places if self._ends_here(ids, target.start, place, target.turn)), len(ids))

    def _ends_here(self, ids: list[int], start: int, place: int, turn: ConditionedTurn) -> bool:
        return lost_text(self._reader.read(ids[start:place]), turn) is None

    def _check_weights(self, ids: list[int], target: Target, text: str, think: str) -> None:
        """Check the weights of a target that ends with the last of these tokens.

        Args:
            ids: the row's tokens up to the target's end.
            target: the turn.
            text: what the target reads.
            think: what it thinks of nothing, which is not trained.
        """
        if "ranges" not in target.turn:
            return self._check_plain_weight(ids, target, think)
        faults = []
        for weights in expected_weights(target.turn, text, len(think)):
            fault = find_weight_fault(self._reader, ids, target.spans, weights, target.start, len(ids))
            if fault is None:
                return None
            faults.append(fault)
        raise _WeightsError(faults[0])

    def _check_plain_weight(self, ids: list[int], target: Target, think: str) -> None:
        """One span from the turn's start, or from the end of what it thinks of nothing, to its end token."""
        spans, weight = target.spans, target.turn["weight"]
        if len(spans) != 1 or spans[0].end != len(ids):
            raise MaskError(f"{len(spans)} trained stretches, expected one, up to token {len(ids)}")
        if spans[0].weight != as_float32(weight):
            raise MaskError(f"weight {spans[0].weight}, expected {weight}")
        before = self._reader.read(ids[target.start : spans[0].start])
        # A token on both sides of the border is trained.
        if not think.startswith(before) or think[len(before) :].strip():
            # Where the agent itself begins with one, nobody can tell which is the template's.
            kind = _WeightsError if empty_think("", target.turn["content"]) else MaskError
            raise kind(f"{before!r} is left out at its start, expected {think!r}")

    def _check_reads(self, ids: Sequence[int], text: str, what: str) -> None:
        if not self._reader.reads(ids, text):
            raise MaskError(f"{what} decodes to {self._reader.read(ids)[:200]!r}, expected {text[:200]!r}")


def is_beginning(row: Mapping[str, Any], whole: Mapping[str, Any]) -> bool:
    """Whether a token row is another one, cut at the right."""

    def spans(of: Mapping[str, Any]) -> list[tuple[int, int, float]]:
        cut = [(start, min(end, n), weight) for start, end, weight in zip(*(of[name] for name in SPANS), strict=True)]
        return [span for span in cut if span[0] < span[1]]

    n = len(row["input_ids"])
    return bool(row["input_ids"] == whole["input_ids"][:n] and spans(row) == spans(whole))


SPANS = ("span_start", "span_end", "span_weight")


class _WeightsError(Exception):
    """The weights of a turn with ranges are not those asked for, or cannot be told."""


class _JoinedAcrossTurnError(Exception):
    """The tokens before a target are not the served prompt's."""
