"""The crate `trajproof` vouches for right rows, and for none that the reference would not prove: planted faults, any others."""

import json
import random
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from negtraj_dagster import _trajtok
from negtraj_dagster.chat_templates import ChatTemplate, make_template, reference_render
from negtraj_dagster.errors import MaskError
from negtraj_dagster.schema import ConditionedTurn, canonical_json, conditioned_json
from negtraj_dagster.shards import vouching
from negtraj_dagster.shards.proof import Prover
from negtraj_dagster.shards.tokenize import TokenRule, token_table, tokenize
from negtraj_dagster.shards.vouching import count_vouched, write_texts
from negtraj_dagster.store import Store, file_sha256
from tests.support.hf_reference import with_chatml
from tests.support.real_tokenizers import NEWEST, real_tokenizer

SPANS = ("span_start", "span_end", "span_weight")
TEMPLATES = {
    "chatml": ("qwen", make_template("chatml")),
    "llama3": ("llama3", make_template("llama3")),
    "qwen3": ("qwen", make_template("qwen3")),
    "qwen3 without thinking": ("qwen", make_template("qwen3", settings={"enable_thinking": False})),
    "qwen3 that trains empty thoughts": ("qwen", make_template("qwen3", empty_think="train")),
    "mistral": ("mistral_v1", make_template("mistral")),
    "llama2": ("mistral_v1", make_template("llama2")),
    "zephyr": ("mistral_v1", make_template("zephyr")),
}
JINJA = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>{% endif %}"
    "{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TEMPLATES["jinja"] = ("qwen", make_template("t.jinja", JINJA))
N_FUZZ, N_FUZZ_SLOW = 300, 168_000
TALK: list[ConditionedTurn] = [
    {"role": "user", "content": "Is the Nile longer than the Rhine?", "weight": 0.0},
    {"role": "assistant", "content": "Let me look it up:\n\nsearch[Nile]", "weight": 1.0},
    {"role": "user", "content": "Observation: 6,650 km — très long 長い", "weight": 0.0},
    {"role": "assistant", "content": "  It is. ", "weight": 0.5},
    {"role": "user", "content": "Thanks.", "weight": 0.0},
    {"role": "assistant", "content": "yes", "weight": 1.0},
]
SINGLE = [{**turn, "weight": 0.0} if index < 5 else turn for index, turn in enumerate(TALK)]
"""As `per_turn_rows` has it: templates that leave earlier thoughts out take this one, too."""
TOOLS = json.dumps([{"type": "function", "function": {"name": "look", "description": "é\n", "parameters": {"n": [1, 0.5]}}}])


@cache
def provers(template: str) -> tuple[_trajtok.Tokenizer, _trajtok.RowProver, Prover]:
    """What makes rows, what vouches for them, and the reference."""
    name, chat = TEMPLATES[template]
    path = real_tokenizer(name)
    tokenizer = chat.open_tokenizer(path, max_tokens=4096)
    prover = _trajtok.RowProver.open(
        tokenizer,
        path,
        template=None if chat.jinja else chat.name,
        enable_thinking=bool(chat.variables().get("enable_thinking", True)),
        masks_empty_think=chat.empty_think == "mask",
    )
    assert prover is not None
    jinja_name = chat.name if chat.jinja else None
    return (
        tokenizer,
        prover,
        Prover(tokenizer, path, reference_render(chat), empty_think=chat.empty_think, jinja_name=jinja_name),
    )


def made(template: str, conversation: str) -> dict[str, Any] | None:
    """The row of a conversation; None where trajtok refuses it."""
    batch = pa.record_batch(provers(template)[0].encode(["k"], [conversation]))
    return dict(batch.to_pylist()[0]) if batch.num_rows else None


def as_batch(row: Mapping[str, Any]) -> pa.RecordBatch:
    schema = pa.record_batch(provers("chatml")[0].encode([], [])).schema
    return pa.RecordBatch.from_pylist([dict(row)], schema=schema)


def vouched(template: str, row: Mapping[str, Any], conversation: str, n_kept: int | None = None) -> int | None:
    kept = {} if n_kept is None else {"k": n_kept}
    render = reference_render(TEMPLATES[template][1]) if template == "jinja" else None
    return count_vouched(provers(template)[1], as_batch(row), {"k": conversation}, kept, render)[0]


def proved(template: str, row: Mapping[str, Any], conversation: str, n_kept: int | None = None) -> int | None:
    """What the reference proves; None where it raises or rejects."""
    kept = {} if n_kept is None else {row["token_key"]: n_kept}
    try:
        found = provers(template)[2].prove(as_batch(row), {row["token_key"]: conversation}, kept=kept, has_straddling=True)
    except MaskError:
        return None
    return None if found.rejected else found.n_turns


@pytest.mark.parametrize("template", TEMPLATES)
def test_right_rows_are_vouched_for(template: str) -> None:
    for turns in (SINGLE, TALK):
        conversation = conditioned_json(turns)
        row = made(template, conversation)
        if row is None:
            assert "qwen3" in template
            continue
        n_turns = sum(turn["weight"] > 0 for turn in turns)
        assert (vouched(template, row, conversation), proved(template, row, conversation)) == (n_turns, n_turns)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name == "mistral_v1_as_gemma" else pytest.mark.slow) for name in NEWEST]
)
def test_rows_of_the_newest_tokenizers_are_vouched_for(name: str, tmp_path: Path) -> None:
    path = with_chatml(real_tokenizer(name), tmp_path)
    tokenizer = TEMPLATES["chatml"][1].open_tokenizer(path, max_tokens=4096)
    prover = _trajtok.RowProver.open(tokenizer, path, template="chatml", enable_thinking=True, masks_empty_think=False)
    assert prover is not None
    content = "A ▁ sign,  two spaces, ünïcödé 日本語 😀 it's 12345\n"
    turns = [{**turn, "content": content + str(turn["content"])} for turn in TALK]
    conversation = conditioned_json(turns)
    batch = pa.record_batch(tokenizer.encode(["k"], [conversation]))
    assert count_vouched(prover, batch, {"k": conversation}, {}, None)[0] == sum(turn["weight"] > 0 for turn in turns)
    (row,) = batch.to_pylist()
    other = {**row, "input_ids": [*row["input_ids"][:-3], row["input_ids"][-3] ^ 1, *row["input_ids"][-2:]]}
    assert (
        count_vouched(prover, pa.RecordBatch.from_pylist([other], schema=batch.schema), {"k": conversation}, {}, None)[0]
        is None
    )


def test_calls_with_schemas_and_thoughts_are_vouched_for() -> None:
    calls = [{"name": "look", "arguments": '{"at": "ri\\"ver\\n", "n": [1, 2.50, true, null], "é": {}}'}]
    turns: list[Any] = [
        {"role": "system", "content": "Be brief.", "weight": 0.0},
        {"role": "user", "content": "How long?", "weight": 0.0},
        {"role": "assistant", "content": "", "reasoning": "I look.\n", "tool_calls": calls, "weight": 1.0},
        {"role": "tool", "content": "6,650 km", "name": "look", "weight": 0.0},
        {"role": "tool", "content": "or more", "weight": 0.0},
        {"role": "assistant", "content": "6,650 km.", "reasoning": "It says so.", "weight": 1.0},
    ]
    conversation = conditioned_json(turns, TOOLS)
    row = made("qwen3", conversation)
    assert row is not None
    assert vouched("qwen3", row, conversation) == proved("qwen3", row, conversation) == 2


Fault = Callable[[dict[str, Any]], dict[str, Any]]


def spans(change: Callable[[list[list[Any]]], list[list[Any]]]) -> Fault:
    """A fault in the mask; the count of trained tokens goes with it."""

    def plant(row: dict[str, Any]) -> dict[str, Any]:
        triples = change([list(span) for span in zip(*(row[name] for name in SPANS), strict=True)])
        columns = {name: [span[at] for span in triples] for at, name in enumerate(SPANS)}
        return {**row, **columns, "n_trained": sum(end - start for start, end, _ in triples)}

    return plant


def moved(index: int, start: int, end: int) -> Fault:
    return spans(lambda all_: [[s + start, e + end, w] if n == index else [s, e, w] for n, (s, e, w) in enumerate(all_)])


def tokens(change: Callable[[list[int]], list[int]]) -> Fault:
    """A fault in the ids, of as many tokens."""

    def plant(row: dict[str, Any]) -> dict[str, Any]:
        ids = change(list(row["input_ids"]))
        assert ids != row["input_ids"]
        return {**row, "input_ids": ids, "n_tokens": len(ids)}

    return plant


def replaced(at: Callable[[dict[str, Any]], int], id_: int) -> Fault:
    return lambda row: tokens(lambda ids: [*ids[: at(row)], id_, *ids[at(row) + 1 :]])(row)


def shifted(row: dict[str, Any], at: int, by: int) -> dict[str, Any]:
    """The spans behind a place moved with the tokens."""
    return {**row, **{name: [n + by if n > at else n for n in row[name]] for name in ("span_start", "span_end")}}


def inserted(at: int, ids_: list[int]) -> Fault:
    return lambda row: shifted(tokens(lambda ids: [*ids[:at], *ids_, *ids[at:]])(row), at - 1, len(ids_))


def removed(at: int) -> Fault:
    return lambda row: shifted(tokens(lambda ids: ids[:at] + ids[at + 1 :])(row), at, -1)


LETTER = 64
"""An id of ordinary text in all three vocabularies."""
FAULTS: dict[str, Fault] = {
    "a target begins one token early": moved(0, -1, 0),
    "a target begins one token late": moved(0, 1, 0),
    "a target ends one token early": moved(0, 0, -1),
    "a target ends one token late": moved(0, 0, 1),
    "a later target begins early": moved(1, -1, 0),
    "the last target begins late": moved(2, 1, 0),
    "the last target ends early": moved(2, 0, -1),
    "a target goes on into the next turn": moved(0, 0, 4),
    "the first target is missing": spans(lambda all_: all_[1:]),
    "the last target is missing": spans(lambda all_: all_[:-1]),
    "all targets are missing": spans(lambda all_: []),
    "a target stands twice": spans(lambda all_: [all_[0], *all_]),
    "two targets are one": spans(lambda all_: [[all_[0][0], all_[1][1], 1.0], all_[2]]),
    "everything is trained": spans(lambda all_: [[0, all_[-1][1], 1.0]]),
    "the prompt is trained": spans(lambda all_: [[0, all_[0][0], 1.0], *all_]),
    "the first token is trained": spans(lambda all_: [[0, 1, 1.0], *all_]),
    "an observation is trained": spans(lambda all_: [all_[0], [all_[0][1] + 1, all_[1][0] - 1, 1.0], *all_[1:]]),
    "an end token alone is trained": spans(lambda all_: [[all_[0][1] - 1, all_[0][1], 1.0], *all_[1:]]),
    "a target is cut in two": spans(
        lambda all_: [[all_[0][0], all_[0][1] - 2, 1.0], [all_[0][1] - 2, all_[0][1], 1.0], *all_[1:]]
    ),
    "a hole in a target": spans(lambda all_: [[all_[0][0], all_[0][1] - 2, 1.0], [all_[0][1] - 1, all_[0][1], 1.0], *all_[1:]]),
    "targets in another order": spans(lambda all_: all_[::-1]),
    "an empty span": spans(lambda all_: [[all_[0][0], all_[0][0], 1.0], *all_]),
    "a span turned round": spans(lambda all_: [[all_[0][1], all_[0][0], 1.0], *all_[1:]]),
    "a span behind the row's end": moved(2, 0, 9),
    "a span before the row's beginning": spans(lambda all_: [[-1, 1, 1.0], *all_]),
    "half of a weight": spans(lambda all_: [[s, e, w / 2] for s, e, w in all_]),
    "no weight": spans(lambda all_: [[s, e, 0.0] for s, e, _ in all_]),
    "a weight below 0": spans(lambda all_: [[s, e, -w] for s, e, w in all_]),
    "weights of each other": spans(lambda all_: [[s, e, w] for (s, e, _), w in zip(all_, (0.5, 1.0, 1.0), strict=True)]),
    "a weight a little off": spans(lambda all_: [[s, e, w + 1e-6] for s, e, w in all_]),
    "a token more than counted": lambda row: {**row, "n_tokens": row["n_tokens"] - 1},
    "a trained token more than counted": lambda row: {**row, "n_trained": row["n_trained"] - 1},
    "another token in the prompt": replaced(lambda row: row["span_start"][0] - 4, LETTER),
    "another token in a target": replaced(lambda row: row["span_start"][0] + 1, LETTER),
    "another token in an observation": replaced(lambda row: row["span_end"][0] + 4, LETTER),
    "another token at the row's beginning": replaced(lambda row: 0, LETTER),
    "an end token that is text": replaced(lambda row: row["span_end"][0] - 1, LETTER),
    "a last end token that is text": replaced(lambda row: row["span_end"][-1] - 1, LETTER),
    "a token of no vocabulary": replaced(lambda row: row["span_start"][0] + 1, 10_000_000),
    "a token below 0": replaced(lambda row: row["span_start"][0] + 1, -1),
    "a token too many in the prompt": inserted(3, [LETTER]),
    "a token too many at the beginning": inserted(0, [LETTER]),
    "a token too few in the prompt": removed(3),
    "a token too few at the beginning": removed(0),
    "a token too many at the end": tokens(lambda ids: [*ids, LETTER]),
    "a row cut within its last target": lambda row: moved(2, 0, -1)(tokens(lambda ids: ids[: row["span_end"][-1] - 1])(row)),
    "a row cut behind its first target": lambda row: spans(lambda all_: all_[:1])(
        tokens(lambda ids: ids[: row["span_end"][0]])(row)
    ),
    "two tokens swapped": lambda row: tokens(lambda ids: [ids[0], ids[2], ids[1], *ids[3:]])(row),
    "all tokens in reverse": tokens(lambda ids: ids[::-1]),
    "another row's tokens": lambda row: {
        **row,
        **{name: (made("chatml", OTHER) or {})[name] for name in ("input_ids", "n_tokens")},
    },
}
OTHER = conditioned_json([{**turn, "content": turn["content"].swapcase()} for turn in TALK])  # type: ignore[typeddict-item]
FOR_TALK = [name for name in TEMPLATES if "qwen3" not in name]


@pytest.mark.parametrize("template", FOR_TALK)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_not_vouched_for(fault: str, template: str) -> None:
    conversation = conditioned_json(TALK)
    row = made(template, conversation)
    assert row is not None
    assert vouched(template, row, conversation) == 3
    broken = FAULTS[fault](row)
    assert vouched(template, broken, conversation) is None
    assert proved(template, broken, conversation) is None


def changed(index: int, **keys: Any) -> list[ConditionedTurn]:
    return [{**turn, **keys} if n == index else turn for n, turn in enumerate(TALK)]  # type: ignore[typeddict-item]


CALL = [{"name": "fetch_page", "arguments": "{}"}]
CONVERSATIONS: dict[str, tuple[list[ConditionedTurn], int | None]] = {
    "another question": (changed(0, content="Is the Rhine longer than the Nile?"), None),
    "another answer": (changed(1, content="Let me look it up:\n\nsearch[Rhine]"), None),
    "an answer of other case": (changed(5, content="Yes"), None),
    "another role": (changed(2, role="assistant"), None),
    "another weight": (changed(3, weight=1.0), None),
    "an observation that is to be trained": (changed(2, weight=1.0), None),
    "an answer that is not to be trained": (changed(1, weight=0.0), None),
    "a thought that is not written": (changed(1, reasoning="First I look."), None),
    "a call that is not written": (changed(1, tool_calls=CALL), None),
    "a turn that the row has not": ([*TALK, {"role": "user", "content": "And?", "weight": 0.0}], None),
    "an answer that the row has not": ([*TALK, *TALK[-2:]], None),
    "a turn too many in the row": (TALK[:-1], None),
    "no turn": ([], None),
    "turns in another order": (TALK[2:] + TALK[:2], None),
    "fewer turns kept than the row has": (TALK, 4),
    "no turns kept": (TALK, 0),
}


@pytest.mark.parametrize("template", FOR_TALK)
@pytest.mark.parametrize("difference", CONVERSATIONS)
def test_a_row_of_another_conversation_is_not_vouched_for(difference: str, template: str) -> None:
    row = made(template, conditioned_json(TALK))
    assert row is not None
    turns, n_kept = CONVERSATIONS[difference]
    assert vouched(template, row, conditioned_json(turns), n_kept) is None
    assert vouched(template, row, conditioned_json(TALK), len(TALK)) == 3


def test_more_turns_kept_than_there_are_is_not_vouched_for() -> None:
    row = made("chatml", conditioned_json(TALK))
    assert row is not None
    assert vouched("chatml", row, conditioned_json(TALK), len(TALK) + 1) is None
    for text in ("", "{", "[]", '{"messages": {}}', '{"messages": [], "more": 1}', canonical_json({"messages": TALK})[:-1]):
        assert vouched("chatml", row, text) is None


def test_without_jinja_s_texts_no_row_of_a_jinja_template_is_vouched_for() -> None:
    conversation = conditioned_json(TALK)
    row = made("jinja", conversation)
    assert row is not None
    prover = provers("jinja")[1]
    texts = write_texts(conversation, None, reference_render(TEMPLATES["jinja"][1]))
    assert texts is not None
    assert prover.prove(as_batch(row), [conversation], [None], [texts]) == [3]
    assert prover.prove(as_batch(row), [conversation], [None]) == [None]
    for left_out in range(len(texts)):
        assert prover.prove(as_batch(row), [conversation], [None], [texts[:left_out] + texts[left_out + 1 :]]) == [None]
        n, is_prompt, text = texts[left_out]
        changed_texts = [*texts[:left_out], (n, is_prompt, text[:-1] + "x"), *texts[left_out + 1 :]]
        assert prover.prove(as_batch(row), [conversation], [None], [changed_texts]) == [None]


def test_what_is_not_looked_at_is_left_to_the_reference() -> None:
    """Ranges and recorded ids are right here, but not vouched for."""
    ranges = [{"field": "content", "start": 0, "end": 1, "weight": 0.0}]
    conversation = conditioned_json(changed(1, ranges=ranges))
    row = made("chatml", conversation)
    assert row is not None
    assert vouched("chatml", row, conversation) is None
    assert proved("chatml", row, conversation) == 3
    unstable = conditioned_json(changed(1, content="e\u0301 is composed by Qwen's normalizer"))
    row = made("chatml", unstable)
    assert row is not None
    assert (vouched("chatml", row, unstable), proved("chatml", row, unstable)) == (None, 3)


def test_columns_and_counts_that_do_not_fit_are_named() -> None:
    prover = provers("chatml")[1]
    row = made("chatml", conditioned_json(TALK))
    assert row is not None
    with pytest.raises(ValueError, match="found 0 conversations, 1 counts and 1 lists of texts for 1 rows"):
        prover.prove(as_batch(row), [], [None])
    with pytest.raises(ValueError, match='column "input_ids": found None'):
        prover.prove(as_batch(row).drop_columns(["input_ids"]), [conditioned_json(TALK)], [None])


def test_a_tokenizer_or_template_that_cannot_be_read_has_no_prover() -> None:
    path = real_tokenizer("mistral_v1")
    exact = ChatTemplate("nat_exact")
    tokenizer = exact.open_tokenizer(path, max_tokens=64)
    opened = _trajtok.RowProver.open(tokenizer, path, template="nat_exact", enable_thinking=True, masks_empty_think=True)
    assert opened is None
    with pytest.raises(OSError, match="No such file"):
        _trajtok.RowProver.open(
            tokenizer, path.parent / "gone", template="chatml", enable_thinking=True, masks_empty_think=True
        )


def rule_of_qwen() -> TokenRule:
    path = real_tokenizer("qwen")
    return TokenRule(path, file_sha256(path), ChatTemplate("chatml"), 4096, "drop")


def test_the_reference_looks_at_the_first_row_and_one_of_64(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vouching, "SAMPLE_OF", 64)
    rule = rule_of_qwen()
    texts = [conditioned_json(changed(0, content=f"question {n}")) for n in range(300)]
    keys = {rule.token_key(text): text for text in texts}
    assert tokenize(store, rule, keys).n_rows == 300
    (segment,) = store.segments(token_table(rule))
    details = json.loads((segment / "MANIFEST.json").read_text())["details"]
    in_sample = [vouching.is_in_sample(index, key) for index, key in enumerate(sorted(keys))]
    assert details["proved_by_reference"] == sum(in_sample)
    assert in_sample[0]
    assert 1 < sum(in_sample) < 15


def test_a_row_of_the_sample_that_was_wrongly_vouched_for_stops_the_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vouching, "SAMPLE_OF", 64)
    conversation = conditioned_json(TALK)
    row = made("chatml", conversation)
    assert row is not None
    tokenizer, _, _ = provers("chatml")
    rule = rule_of_qwen()
    for n_vouched, broken in ((3, FAULTS["half of a weight"](row)), (2, row)):
        prover = Prover(tokenizer, rule.tokenizer_json, reference_render(rule.template), vouching=Vouches(n_vouched))  # type: ignore[arg-type]
        with pytest.raises(MaskError, match=r"token row k: (turn 1: weight|2 turns were vouched for, the reference proves 3)"):
            prover.prove(as_batch(broken), {"k": conversation})


class Vouches:
    """Vouches for every row."""

    def __init__(self, n_turns: int) -> None:
        self._n_turns = n_turns

    def prove(self, rows: pa.RecordBatch, conversations: list[str], n_kept: list[int | None]) -> list[int | None]:
        del conversations, n_kept
        return [self._n_turns] * rows.num_rows


TEXTS = st.text(st.sampled_from('ab 1\n\t.<|>é長▁\u0301\u200b\x1c"\\'), max_size=8) | st.sampled_from(
    [
        "<|im_end|>",
        "</s>",
        "<think>x</think>y",
        "<think>",
        "</think>\n\nso",
        "[INST]",
        "Observation: six",
        " x",
        "x ",
        "\n",
        "<s>",
    ]
)
TURNS = st.lists(st.tuples(TEXTS, TEXTS, st.sampled_from([0.0, 0.3, 1.0])), min_size=1, max_size=4)


@st.composite
def conversations(draw: st.DrawFn) -> str:
    turns: list[Any] = [{"role": "system", "content": draw(TEXTS), "weight": 0.0}] if draw(st.booleans()) else []
    for asked, answered, weight in draw(TURNS):
        turns += [
            {"role": "user", "content": asked, "weight": 0.0},
            {"role": "assistant", "content": answered, "weight": weight},
        ]
        if draw(st.integers(0, 4)) == 0:
            turns[-1]["reasoning"] = draw(TEXTS.filter(bool))
    return conditioned_json(turns)


def mutated(row: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    """The row with one to three small changes."""
    row = json.loads(json.dumps(row))
    for _ in range(rng.randint(1, 3)):
        name = rng.choice(["input_ids", *SPANS])
        values = row[name]
        at = rng.randrange(len(values) + 1)
        if name == "span_weight":
            values[at : at + 1] = [rng.choice([0.0, 0.3, 1.0])]
        elif name == "input_ids" and rng.random() < 0.5:
            values[at : at + rng.randint(0, 2)] = rng.choices(row["input_ids"], k=rng.randint(0, 2))
        elif values and at < len(values):
            values[at] = max(0, values[at] + rng.choice([-1, 1]))
    n_spans = min(len(row[name]) for name in SPANS)
    row |= {name: row[name][:n_spans] for name in SPANS}
    n_trained = sum(end - start for start, end in zip(row["span_start"], row["span_end"], strict=True))
    return {**row, "n_tokens": len(row["input_ids"]), "n_trained": n_trained}


def check_soundness(template: str, conversation: str, other: str, seed: int) -> None:
    """What is vouched for, the reference proves: the row itself, changed rows, and rows of another conversation."""
    row = made(template, conversation)
    if row is None:
        return
    rng = random.Random(seed)
    for candidate, said in ((row, conversation), (mutated(row, rng), conversation), (row, other)):
        n_turns = vouched(template, candidate, said)
        assert n_turns is None or n_turns == proved(template, candidate, said)


@pytest.mark.parametrize("template", TEMPLATES)
@settings(max_examples=N_FUZZ // len(TEMPLATES), deadline=None)
@given(conversations(), conversations(), st.integers(0, 2**32))
def test_nothing_is_vouched_for_that_the_reference_does_not_prove(template: str, one: str, other: str, seed: int) -> None:
    check_soundness(template, one, other, seed)


@pytest.mark.slow
@pytest.mark.parametrize("template", TEMPLATES)
@settings(max_examples=N_FUZZ_SLOW // len(TEMPLATES), deadline=None)
@given(conversations(), conversations(), st.integers(0, 2**32))
def test_nothing_is_vouched_for_that_the_reference_does_not_prove_at_length(
    template: str, one: str, other: str, seed: int
) -> None:
    check_soundness(template, one, other, seed)


TIES = (1700000000.00390625, 1320275584388339.2, 0.5, 123456.789, 2.0**-14 + 2.0**-60, 9007199254740993.0)


@pytest.mark.parametrize("number", TIES)
def test_numbers_in_calls_are_written_as_python_writes_them(number: float) -> None:
    calls = [{"name": "look", "arguments": json.dumps({"x": number})}]
    turns: list[Any] = [{"role": "user", "content": "How long?", "weight": 0.0}]
    turns += [{"role": "assistant", "content": "so", "tool_calls": calls, "weight": 1.0}]
    conversation = conditioned_json(turns, TOOLS)
    row = made("qwen3", conversation)
    assert row is not None
    assert proved("qwen3", row, conversation) == 1
    assert vouched("qwen3", row, conversation) in (None, 1)


@pytest.mark.parametrize("weight", [0.9209243953227997, 1.0003358721733093, 0.1])
def test_weights_are_read_to_the_last_bit(weight: float) -> None:
    conversation = conditioned_json(changed(5, weight=weight))
    row = made("chatml", conversation)
    assert row is not None
    assert vouched("chatml", row, conversation) == proved("chatml", row, conversation) == 3


def test_a_null_is_not_vouched_for() -> None:
    row = made("chatml", conditioned_json(TALK))
    assert row is not None
    assert vouched("chatml", row, conditioned_json(changed(1, reasoning=None))) is None
    for name in ("n_tokens", "n_trained", "input_ids", *SPANS):
        assert vouched("chatml", {**row, name: None}, conditioned_json(TALK)) is None


def test_texts_that_are_none_or_too_many_are_left_to_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    render = reference_render(TEMPLATES["jinja"][1])
    conversation = conditioned_json(TALK)
    assert write_texts(conversation, None, render) is not None
    assert write_texts(conditioned_json(changed(1, token_ids=[1])), None, render) is None
    assert write_texts(conversation, None, lambda *_: "\ud83d\ude00") is None
    monkeypatch.setattr(vouching, "MAX_TEXT_CHARS", len(conversation))
    assert write_texts(conversation, None, render) is None


def test_an_answer_that_begins_with_an_empty_thought_of_its_own_stops_no_stage() -> None:
    conversation = conditioned_json(changed(1, content="<think></think>x y z"))
    for template in ("chatml", "llama3", "zephyr", "jinja"):
        row = made(template, conversation)
        assert row is not None
        batch = as_batch(row)
        found = provers(template)[2].prove(batch, {"k": conversation}, has_straddling=True)
        assert [reason for _, reason, _ in found.rejected] in ([], ["weights_differ"])
