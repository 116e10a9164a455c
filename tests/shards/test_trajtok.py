"""trajtok against Hugging Face: the same ids, the same mask, and no content that becomes a control token."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as HfTokenizer
from tokenizers import models, pre_tokenizers, trainers

from negtraj_dagster import _trajtok
from negtraj_dagster.chat_templates import NATIVE
from tests.reference.loss_mask import Message, load_tokenizer, mask_conversation, render_chatml
from tests.reference.small_tokenizers import ADDED, CONTROL, KINDS, TEXTS

SCHEMA = pa.schema(
    [
        pa.field("token_key", pa.string(), nullable=False),
        pa.field("input_ids", pa.list_(pa.int32())),
        pa.field("span_start", pa.list_(pa.int32())),
        pa.field("span_end", pa.list_(pa.int32())),
        pa.field("span_weight", pa.list_(pa.float32())),
        pa.field("n_tokens", pa.int32()),
        pa.field("n_trained", pa.int32()),
    ]
)


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Every kind's tokenizer.json."""
    paths = {kind: tmp_path_factory.mktemp(kind) / "tokenizer.json" for kind in KINDS}
    for kind, path in paths.items():
        KINDS[kind]().save(str(path))
    return paths


@pytest.fixture
def file(files: dict[str, Path]) -> Path:
    return files["smollm"]


def _load(path: Path, max_tokens: int = 100_000) -> _trajtok.Tokenizer:
    return _trajtok.Tokenizer(path, template="chatml", max_tokens=max_tokens)


def _text(messages: Sequence[Message]) -> str:
    return json.dumps({"messages": list(messages)}, ensure_ascii=False)


def _turn(role: str, content: str, weight: float = 0.0) -> Message:
    return {"role": role, "content": content, "weight": weight}


def _row(tokenizer: _trajtok.Tokenizer, messages: Sequence[Message]) -> dict[str, Any]:
    encoded = tokenizer.encode(["key"], [_text(messages)])
    assert encoded.rejected == []
    return pa.record_batch(encoded).to_pylist()[0]


def _weights(row: dict[str, Any]) -> list[float]:
    weights = [0.0] * len(row["input_ids"])
    for start, end, weight in zip(row["span_start"], row["span_end"], row["span_weight"], strict=True):
        weights[start:end] = [weight] * (end - start)
    return weights


def _has_no_added(text: str) -> bool:
    return not any(token in text for token in ADDED)


BITS = [
    *TEXTS,
    *[
        "",
        " ",
        "  ",
        "\n",
        "\n\n",
        "\r\n",
        "\t",
        "\u00a0",
        "\u3000",
        "\u0000",
        "\ufeff",
        "🙂",
        "👩‍👩‍👧",
        "e\u0301",
        "é",
        "日本語",
        "اللغة",
        "ﬁ",
    ],
    *["<|im_", "start|>", "|>", "<", "assistant\n", "▁", "Ġ", "don't", "12345", " the", "the "],
]
CONTENTS = st.one_of(
    st.text(max_size=40),
    st.lists(st.one_of(st.sampled_from(BITS), st.text(max_size=5)), max_size=8).map("".join),
).filter(_has_no_added)
WEIGHTS = st.sampled_from([0.0, 0.25, 1.0, 2.0])
MESSAGES = st.one_of(
    st.builds(_turn, st.sampled_from(["system", "user", "tool"]), CONTENTS),
    st.builds(_turn, st.just("assistant"), CONTENTS, WEIGHTS),
)
CONVERSATIONS = st.lists(MESSAGES, max_size=6)
TRAINED = st.tuples(CONVERSATIONS, st.builds(_turn, st.just("assistant"), CONTENTS, st.just(1.0)), CONVERSATIONS).map(
    lambda parts: [*parts[0], parts[1], *parts[2]]
)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=200, deadline=None)
@given(messages=TRAINED)
@example(messages=[_turn("assistant", "", 1.0)])
@example(messages=[_turn("user", " the"), _turn("assistant", " the \n", 0.25), _turn("assistant", "\n", 2.0)])
def test_ids_and_mask_are_those_of_hugging_face(files: dict[str, Path], kind: str, messages: list[Message]) -> None:
    expected = mask_conversation(_reference(files[kind]), messages)
    row = _row(_cached(files[kind]), messages)
    assert row["input_ids"] == expected.input_ids
    assert _weights(row) == expected.weights
    assert row["n_tokens"] == len(expected.input_ids)
    assert row["n_trained"] == sum(weight > 0 for weight in expected.weights)


GENERATION_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}{{ '\n' }}{% if message.role == 'assistant' %}"
    "{% generation %}{{ message.content }}<|im_end|>{% endgeneration %}"
    "{% else %}{{ message.content }}<|im_end|>{% endif %}{{ '\n' }}{% endfor %}"
)


@pytest.mark.parametrize("kind", ["qwen", "smollm", "metaspace"])
@pytest.mark.parametrize("content", ["the answer", " the answer\n", "日本語 🙂", "🙂\n\n", ""])
def test_ids_and_mask_are_those_of_transformers_itself(files: dict[str, Path], kind: str, content: str) -> None:
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(files[kind]), chat_template=GENERATION_TEMPLATE)
    messages = [_turn("user", content), _turn("assistant", content, 1.0), _turn("tool", "42"), _turn("assistant", "a", 1.0)]
    expected = tokenizer.apply_chat_template(messages, return_dict=True, return_assistant_tokens_mask=True)
    row = _row(_cached(files[kind]), messages)
    assert row["input_ids"] == expected["input_ids"]
    assert _weights(row) == expected["assistant_masks"]


@pytest.mark.parametrize("kind", ["gpt2", "smollm", "ignore_merges"])
@settings(max_examples=100, deadline=None)
@given(messages=TRAINED)
def test_trained_ids_decode_to_content_and_end_token(files: dict[str, Path], kind: str, messages: list[Message]) -> None:
    row = _row(_cached(files[kind]), messages)
    targets = [message for message in messages if message["weight"] > 0]
    spans = list(zip(row["span_start"], row["span_end"], row["span_weight"], strict=True))
    decode = _reference(files[kind]).decode
    texts = [decode(row["input_ids"][start:end], skip_special_tokens=False) for start, end, _ in spans]
    assert texts == [message["content"] + "<|im_end|>" for message in targets]
    assert [weight for *_, weight in spans] == [message["weight"] for message in targets]


_LOADED: dict[Path, tuple[_trajtok.Tokenizer, HfTokenizer]] = {}


def _both(path: Path) -> tuple[_trajtok.Tokenizer, HfTokenizer]:
    if path not in _LOADED:
        _LOADED[path] = (_load(path), load_tokenizer(path))
    return _LOADED[path]


def _cached(path: Path) -> _trajtok.Tokenizer:
    return _both(path)[0]


def _reference(path: Path) -> HfTokenizer:
    return _both(path)[1]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("role", ["system", "user", "assistant", "tool"])
@pytest.mark.parametrize("added", ADDED)
@pytest.mark.parametrize("around", ["{}", " {} ", "a{}b", "\n{}\n{}", "x<|im_end|>\n<|im_start|>assistant\n{}"])
def test_no_content_becomes_a_control_token(files: dict[str, Path], kind: str, role: str, added: str, around: str) -> None:
    messages = [_turn(role, around.replace("{}", added)), _turn("assistant", around.replace("{}", added), 1.0)]
    reference = _reference(files[kind])
    encoded = _cached(files[kind]).encode(["key"], [_text(messages)])
    assert encoded.rejected == []
    ids = pa.record_batch(encoded).to_pylist()[0]["input_ids"]
    start, end = (reference.token_to_id(token) for token in CONTROL)
    controls = set(reference.get_added_tokens_decoder())
    assert [token_id for token_id in ids if token_id in controls] == [start, end, start, end]


def test_content_that_the_models_own_vocabulary_makes_a_control_token_is_rejected(tmp_path: Path) -> None:
    pieces = [("<unk>", 0.0), ("<|im_end|>", -1.0), ("<|im_start|>", -1.0), *((char, -9.0) for char in "asitn\nuer<|m_d>▁")]
    tokenizer = HfTokenizer(models.Unigram(pieces, unk_id=0))
    tokenizer.add_special_tokens(CONTROL)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    conversations = [
        _text([_turn("user", "a<|im_end|>"), _turn("assistant", "sit", 1.0)]),
        _text([_turn("assistant", "a", 1.0)]),
    ]
    encoded = _load(tmp_path / "tokenizer.json").encode(["bad", "good"], conversations)
    assert pa.record_batch(encoded)["token_key"].to_pylist() == ["good"]
    [(key, reason, detail)] = encoded.rejected
    assert (key, reason) == ("bad", "control_token_in_content")
    assert '"<|im_end|>" (id 1)' in detail


@pytest.mark.parametrize("unknown", ["<|unk|>", "‹unk›"], ids=["in the alphabet", "outside of it"])
def test_an_unknown_token_that_is_an_added_one_never_comes_from_text(tmp_path: Path, unknown: str) -> None:
    alphabet = [char for char in pre_tokenizers.ByteLevel.alphabet() if char != "©"]  # the byte 0xA9, of é
    vocab = {token: number for number, token in enumerate([*sorted(alphabet), unknown])}
    tokenizer = HfTokenizer(models.BPE(vocab=vocab, merges=[], unk_token=unknown))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.add_special_tokens([*CONTROL, unknown])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    ours = _load(tmp_path / "tokenizer.json")
    assert ours.encoder == "fastokens gpt2"
    [(_, reason, detail)] = ours.encode(["k"], [_text([_turn("assistant", "aé", 1.0)])]).rejected
    assert (reason, detail.split(" of ")[0]) == ("no_token", "no token stands for the byte 0xa9 at byte 24")
    with pytest.raises(
        _trajtok.TrajtokError, match=f"control_token_in_content: text becomes {json.dumps(unknown, ensure_ascii=False)}"
    ):
        ours.encode_text("aé")
    assert ours.encode_text("ab") == [vocab["a"], vocab["b"]]


REJECTED: dict[str, tuple[str, str, str]] = {
    "not_json": ("{", "invalid_conversation", "EOF"),
    "unknown_key": ('{"messages":[],"questions":[]}', "invalid_conversation", "unknown field `questions`"),
    "no_weight": ('{"messages":[{"role":"user","content":"a"}]}', "invalid_conversation", "missing field `weight`"),
    "unknown_role": (_text([_turn("critic", "a")]), "invalid_conversation", "unknown variant `critic`"),
    "nan_weight": (_text([_turn("assistant", "a", float("nan"))]), "invalid_conversation", "expected"),
    "lone_surrogate": (_text([_turn("assistant", "\ud800", 1.0)]), "invalid_conversation", "unicode"),
    "escaped_surrogate": (
        r'{"messages":[{"role":"user","content":"\ud800","weight":0}]}',
        "invalid_conversation",
        "hex escape",
    ),
    "user_weight": (_text([_turn("user", "a", 1.0)]), "invalid_weight", "messages[0] (user) has weight 1"),
    "tool_weight": (_text([_turn("tool", "a", 1.0)]), "invalid_weight", "messages[0] (tool) has weight 1"),
    "negative": (_text([_turn("assistant", "a", -1.0)]), "invalid_weight", "has weight -1"),
    "too_small": (_text([_turn("assistant", "a", 1e-60)]), "invalid_weight", "32-bit"),
    "no_target": (_text([_turn("user", "a"), _turn("assistant", "b")]), "nothing_trained", "above 0"),
    "empty": ('{"messages":[]}', "nothing_trained", "above 0"),
    "long": (_text([_turn("assistant", "a " * 100, 1.0)]), "over_length", "max_tokens is 50"),
}


@pytest.mark.parametrize(("conversation", "reason", "detail"), REJECTED.values(), ids=REJECTED.keys())
def test_a_refused_row_says_why(file: Path, conversation: str, reason: str, detail: str) -> None:
    encoded = _load(file, max_tokens=50).encode(["key"], [conversation])
    assert (encoded.n_rows, len(encoded.rejected)) == (0, 1)
    assert encoded.rejected[0][:2] == ("key", reason)
    assert detail in encoded.rejected[0][2]


def test_every_row_comes_back_in_input_order(file: Path) -> None:
    good, bad = _text([_turn("assistant", "a", 1.0)]), "{"
    keys = [f"row {row}" for row in range(500)]
    encoded = _load(file).encode(keys, [bad if row % 3 == 0 else good for row in range(500)])
    assert pa.record_batch(encoded)["token_key"].to_pylist() == [key for row, key in enumerate(keys) if row % 3]
    assert [key for key, *_ in encoded.rejected] == keys[::3]


def test_a_row_of_exactly_max_tokens_is_kept(file: Path) -> None:
    messages = [_turn("assistant", "the answer", 1.0)]
    n_tokens = _row(_load(file), messages)["n_tokens"]
    assert _load(file, n_tokens).encode(["key"], [_text(messages)]).n_rows == 1
    [(_, reason, detail)] = _load(file, n_tokens - 1).encode(["key"], [_text(messages)]).rejected
    assert (reason, detail) == ("over_length", f"{n_tokens} tokens, max_tokens is {n_tokens - 1}")


@pytest.mark.parametrize("conversations", [[], [_text([_turn("assistant", "a", 1.0)])]], ids=["no rows", "a row"])
def test_the_batch_has_the_stated_schema(file: Path, conversations: list[str]) -> None:
    batch = pa.record_batch(_load(file).encode(["key"] * len(conversations), conversations))
    batch.validate(full=True)
    assert batch.schema == SCHEMA
    assert batch.num_rows == len(conversations)


def test_a_batch_outlives_what_made_it_and_can_be_read_twice(file: Path) -> None:
    encoded = _load(file).encode(["key"], [_text([_turn("assistant", "a", 1.0)])])
    first, second = pa.record_batch(encoded), pa.record_batch(encoded)
    address = first["input_ids"].values.buffers()[1].address
    assert address == second["input_ids"].values.buffers()[1].address
    del encoded
    assert first.equals(second)


@settings(max_examples=100, deadline=None)
@given(messages=CONVERSATIONS)
def test_rendered_pieces_concatenate_to_the_text_and_carry_its_weights(files: dict[str, Path], messages: list[Message]) -> None:
    pieces = _cached(files["gpt2"]).render(_text(messages))
    text, stretches = render_chatml(messages)
    assert "".join(piece for piece, _, _ in pieces) == text
    weights = [weight for piece, _, weight in pieces for _ in piece]
    expected = [0.0] * len(text)
    for start, end, weight in stretches:
        expected[start:end] = [weight] * (end - start)
    assert weights == expected
    assert [piece for piece, is_control, _ in pieces if is_control] == CONTROL * len(messages)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=100, deadline=None)
@given(messages=TRAINED)
def test_what_precedes_a_target_is_what_a_served_model_is_given(
    files: dict[str, Path], kind: str, messages: list[Message]
) -> None:
    tokenizer = _cached(files[kind])
    row = _row(tokenizer, messages)
    targets = [turn for turn, message in enumerate(messages) if message["weight"] > 0]
    for start, turn in zip(row["span_start"], targets, strict=True):
        content = messages[turn]["content"]
        # "\n" before content that begins with white space may be one token with it: counted as straddling instead.
        if kind == "metaspace" or not content[:1].isspace():
            assert row["input_ids"][:start] == tokenizer.prompt_ids(_text(messages[:turn]))


def test_a_token_on_both_sides_of_a_targets_start_is_trained_and_counted(file: Path) -> None:
    tokenizer = HfTokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        special_tokens=CONTROL, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(["assistant\n\n\nthe"] * 50, trainer)
    straddling = file.parent / "straddling.json"
    tokenizer.save(str(straddling))
    messages = [_turn("assistant", "\n\nthe", 1.0)]
    encoded = _load(straddling).encode(["key"], [_text(messages)])
    row = pa.record_batch(encoded).to_pylist()[0]
    expected = mask_conversation(load_tokenizer(straddling), messages)
    assert _weights(row) == expected.weights
    newlines = [tokenizer.id_to_token(token_id) for token_id in row["input_ids"]]
    assert encoded.n_straddling == sum(
        token == "ĊĊ" and weight > 0 for token, weight in zip(newlines, _weights(row), strict=True)
    )
    assert encoded.n_straddling == 1


def test_prompt_ids_of_no_message_are_the_generation_prompt(file: Path) -> None:
    prompt = _load(file).prompt_ids('{"messages":[]}')
    assert load_tokenizer(file).decode(prompt, skip_special_tokens=False) == "<|im_start|>assistant\n"


def test_render_and_prompt_ids_raise_what_encode_collects(file: Path) -> None:
    tokenizer = _load(file)
    for call in (tokenizer.render, tokenizer.prompt_ids):
        with pytest.raises(_trajtok.TrajtokError, match=r"invalid_weight: messages\[0\]"):
            call(_text([_turn("user", "a", 1.0)]))


def test_the_tokenizer_says_what_it_runs_and_which_control_tokens_it_writes(file: Path) -> None:
    tokenizer = _load(file)
    assert (tokenizer.encoder, tokenizer.encoder_note) == ("trajtok smollm", None)
    assert tokenizer.control_tokens == {token: load_tokenizer(file).token_to_id(token) for token in CONTROL}
    assert tuple(NATIVE) == _trajtok.TEMPLATES
    assert _trajtok.TOKEN_FORMAT_VERSION == 1


@pytest.mark.parametrize(
    ("change", "note"),
    [
        (lambda file: file.update(pre_tokenizer={"type": "Whitespace"}), "pre-tokenizer is not covered natively: Whitespace"),
        (lambda file: file.update(normalizer={"type": "Lowercase"}), "normalizer is not covered natively: Lowercase"),
        (lambda file: file["model"].update(end_of_word_suffix="</w>"), "marks the inside or the end of words"),
    ],
    ids=["pre_tokenizer", "normalizer", "suffix"],
)
def test_a_file_that_is_not_covered_natively_is_tokenized_by_tokenizers_and_the_note_says_why(
    file: Path, tmp_path: Path, change: Callable[[dict[str, Any]], None], note: str
) -> None:
    changed = json.loads(file.read_text())
    change(changed)
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(changed))
    tokenizer = _load(path)
    assert tokenizer.encoder == "tokenizers"
    assert note in (tokenizer.encoder_note or "")
    text = "The Cat sat, 12 times."
    assert tokenizer.encode_text(text) == load_tokenizer(path).encode(text, add_special_tokens=False).ids


def test_a_missing_or_malformed_tokenizer_file_is_named_with_the_remedy(tmp_path: Path) -> None:
    broken = tmp_path / "broken.json"
    broken.write_text("{}")
    for path in (tmp_path / "missing.json", broken, tmp_path):
        with pytest.raises(_trajtok.TokenizerError, match=r"expected a tokenizer in Hugging Face's.*save_pretrained") as raised:
            _load(path)
        assert str(path) in str(raised.value)


def test_a_control_token_that_the_tokenizer_lacks_is_named(tmp_path: Path) -> None:
    tokenizer = HfTokenizer(models.BPE())
    tokenizer.add_special_tokens(["<|im_start|>"])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(_trajtok.TemplateError, match=r'"<\|im_end\|>".*tokenizer\.json.*add_special_tokens'):
        _load(tmp_path / "tokenizer.json")


@pytest.mark.parametrize(
    ("chosen", "error", "message"),
    [
        ({"template": "llama"}, _trajtok.TemplateError, "expected one of: chatml, llama2"),
        ({"over_length": "window"}, _trajtok.TrajtokError, "expected one of: drop, cut_at_turn"),
        ({"max_tokens": 0}, _trajtok.TrajtokError, "expected at least 1"),
        ({"max_tokens": -1}, _trajtok.TrajtokError, "expected at least 1"),
    ],
    ids=["template", "over_length", "zero", "negative"],
)
def test_a_setting_that_is_not_known_is_refused(
    file: Path, chosen: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        _trajtok.Tokenizer(file, **{"template": "chatml", "max_tokens": 9, **chosen})


def test_keys_and_conversations_must_pair_up(file: Path) -> None:
    with pytest.raises(_trajtok.TrajtokError, match="2 keys and 1 conversations"):
        _load(file).encode(["a", "b"], ["{}"])


@given(st.integers(1, 50).flatmap(lambda capacity: st.tuples(st.just(capacity), st.lists(st.integers(1, capacity)))))
def test_packing_puts_every_row_into_one_bin_and_fills_none_over(case: tuple[int, list[int]]) -> None:
    capacity, lengths = case
    bins = _trajtok.pack(lengths, capacity)
    assert sorted(row for rows in bins for row in rows) == list(range(len(lengths)))
    assert all(0 < sum(lengths[row] for row in rows) <= capacity for rows in bins)
    assert bins == _trajtok.pack(lengths, capacity)


@pytest.mark.parametrize(("lengths", "place"), [([3, 9], 1), ([0], 0), ([1, -1], 1)], ids=["too long", "zero", "negative"])
def test_a_length_that_no_bin_holds_is_named(lengths: list[int], place: int) -> None:
    with pytest.raises(_trajtok.PackError, match=rf"lengths\[{place}\] is {lengths[place]}; expected 1 to 8"):
        _trajtok.pack(lengths, 8)
