"""The paper's token rows: the reference on tiny conversations, then trajtok beside it on every real one.

The tiny tokenizer has a word for a token, and SentencePiece's dummy prefix: ▁ for a space, and one before every stretch
between special tokens. So an expected row can be read: `▁ ▁Go ▁ </s>` is the segment ` Go </s>`.
"""

import functools
import importlib.util
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import cast

import pytest
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers

from negtraj_dagster.chat_templates import ChatTemplate
from negtraj_dagster.schema import canonical_json
from negtraj_dagster.shards.tokenize import TokenRule, token_keys, tokenize
from negtraj_dagster.store import Store, file_sha256
from tests.reference.nat_exact import MASKED, NatRow, nat_row, nat_segments
from tests.support.nat_rollouts import (
    BOS,
    EOS,
    MAX_TOKENS,
    Comparison,
    Message,
    RealConversation,
    compare,
    labels_of,
    read_real_conversations,
    trajtok_encode,
)
from tests.support.real_tokenizers import PACKAGES, real_tokenizer

N_CONVERSATIONS, N_EMPTY, N_UNFINISHED = 2333, 7, 20
FASTCHAT = PACKAGES / "fastchat" / "conversation.py"

WORDS = ["<unk>", "<s>", "</s>", "▁", "▁[INST]", "▁[/INST]", "▁Play", "▁OK", "▁Why", "▁Go", "▁Look", "▁End"]


@pytest.fixture
def real_conversations(nat_dir: Path) -> list[RealConversation]:
    return read_real_conversations(nat_dir)


@pytest.fixture(scope="module")
def words() -> Tokenizer:
    """A token per word of WORDS, ids in their order."""
    tokenizer = Tokenizer(models.WordLevel({word: n for n, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.pre_tokenizer = pre_tokenizers.Split("▁", behavior="merged_with_next")
    tokenizer.add_special_tokens([AddedToken(text, normalized=False) for text in (BOS, EOS)])
    return tokenizer


def _user(content: str) -> Message:
    return {"role": "user", "content": content, "loss": False}


def _assistant(content: str, *, loss: bool = True) -> Message:
    return {"role": "assistant", "content": content, "loss": loss}


PREFIX = [{"role": "user", "content": "Play"}, {"role": "assistant", "content": "OK"}]
TURNS = [_assistant("Go"), _user("Look"), _assistant("Go Go"), _user("End")]


def _expected(stretches: Iterable[tuple[str, bool]]) -> NatRow:
    """The row of written-out tokens: text of tokens, whether they are trained."""
    labelled = [(WORDS.index(word), is_trained) for text, is_trained in stretches for word in text.split()]
    return NatRow([n for n, _ in labelled], [n if is_trained else MASKED for n, is_trained in labelled])


def _row(tokenizer: Tokenizer, turns: list[Message], max_tokens: int = MAX_TOKENS) -> NatRow:
    return nat_row(nat_segments(PREFIX, "Why", turns), tokenizer, bos=BOS, eos=EOS, max_tokens=max_tokens)


# --- Segments --------------------------------------------------------------------------------------------------------------


def test_the_prefix_and_the_question_are_one_masked_segment() -> None:
    assert nat_segments(PREFIX, "Why", TURNS) == [
        ("[INST] Play [/INST] OK </s><s>[INST] Why [/INST]", False),
        (" Go </s>", True),
        ("<s>[INST] Look [/INST]", False),
        (" Go Go </s>", True),
        ("<s>[INST] End", False),
    ]


def test_without_turns_the_row_ends_with_the_question() -> None:
    assert nat_segments(PREFIX, "Why", []) == [("[INST] Play [/INST] OK </s><s>[INST] Why", False)]


def test_without_a_prefix_the_question_comes_first() -> None:
    assert nat_segments([], "Why", TURNS[:2]) == [
        ("[INST] Why [/INST]", False),
        (" Go </s>", True),
        ("<s>[INST] Look", False),
    ]


def test_an_assistant_turn_without_loss_is_merged_into_its_neighbours() -> None:
    assert nat_segments(PREFIX, "Why", [_assistant("Go", loss=False), *TURNS[1:]]) == [
        ("[INST] Play [/INST] OK </s><s>[INST] Why [/INST] Go </s><s>[INST] Look [/INST]", False),
        (" Go Go </s>", True),
        ("<s>[INST] End", False),
    ]


@pytest.mark.parametrize(
    ("last", "segments"),
    [
        (_assistant("Go"), [("[INST] Why [/INST]", False), (" Go </s>", True)]),
        (_assistant("Go", loss=False), [("[INST] Why [/INST] Go", False)]),
    ],
    ids=["trained", "masked"],
)
def test_no_separator_follows_a_last_assistant_turn(last: Message, segments: list[tuple[str, bool]]) -> None:
    assert nat_segments([], "Why", [last]) == segments


def test_a_message_without_text_is_its_tag_alone() -> None:
    assert nat_segments([], "Why", [_assistant(""), _user(""), _assistant("Go"), _user("End")]) == [
        ("[INST] Why [/INST][INST][/INST]", False),
        (" Go </s>", True),
        ("<s>[INST] End", False),
    ]


@pytest.mark.parametrize(
    ("question_prompt", "turns", "message"),
    [
        ("Why", [_user("Look")], "message 1 has role 'user', expected 'assistant'"),
        ("Why", [_assistant("Go"), _assistant("Go")], "message 2 has role 'assistant', expected 'user'"),
        ("Why", [{"role": "tool", "content": "Go", "loss": False}], "message 1 has role 'tool'"),
        ("Why", [_assistant("Go"), {**_user("Look"), "loss": True}], "message 2 is a user's and has loss"),
        ("", [], "the first message has no text"),
    ],
    ids=["two users", "two assistants", "tool", "trained user", "no text"],
)
def test_what_the_paper_never_trained_on_is_refused(question_prompt: str, turns: list[Message], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        nat_segments([], question_prompt, turns)


# --- Rows ------------------------------------------------------------------------------------------------------------------


def test_a_row_is_its_segments_each_tokenized_alone_and_an_eos_that_is_trained(words: Tokenizer) -> None:
    assert _row(words, TURNS) == _expected(
        [
            ("<s> ▁[INST] ▁Play ▁[/INST] ▁OK ▁ </s> <s> ▁[INST] ▁Why ▁[/INST]", False),
            ("▁ ▁Go ▁ </s>", True),
            ("<s> ▁[INST] ▁Look ▁[/INST]", False),
            ("▁ ▁Go ▁Go ▁ </s>", True),
            ("<s> ▁[INST] ▁End", False),
            ("</s>", True),
        ]
    )


def test_the_same_row_in_numbers(words: Tokenizer) -> None:
    context, look, end = [1, 4, 6, 5, 7, 3, 2, 1, 4, 8, 5], [1, 4, 10, 5], [1, 4, 11]
    go, go_go = [3, 9, 3, 2], [3, 9, 9, 3, 2]
    assert _row(words, TURNS) == NatRow(
        [*context, *go, *look, *go_go, *end, 2],
        [-100] * 11 + go + [-100] * 4 + go_go + [-100] * 3 + [2],
    )


def test_the_joined_text_has_other_ids(words: Tokenizer) -> None:
    text = BOS + "".join(text for text, _ in nat_segments(PREFIX, "Why", TURNS)) + EOS
    row = _row(words, TURNS)
    joined = words.encode(text, add_special_tokens=False).ids
    assert words.token_to_id("<unk>") not in joined
    assert len(row.input_ids) == len(joined) + 2, "a dummy prefix for each of the two answers"


def test_a_conversation_without_turns_is_a_row_that_trains_eos_alone(words: Tokenizer) -> None:
    assert _row(words, []) == _expected([("<s> ▁[INST] ▁Play ▁[/INST] ▁OK ▁ </s> <s> ▁[INST] ▁Why", False), ("</s>", True)])


def test_a_row_that_ends_with_an_answer_gets_no_second_eos(words: Tokenizer) -> None:
    assert _row(words, TURNS[:1]) == _expected(
        [("<s> ▁[INST] ▁Play ▁[/INST] ▁OK ▁ </s> <s> ▁[INST] ▁Why ▁[/INST]", False), ("▁ ▁Go ▁ </s>", True)]
    )


N_TOKENS = 28


@pytest.mark.parametrize("max_tokens", [1, 10, 13, 15, 24, 26, N_TOKENS - 1])
def test_a_longer_row_is_cut_at_the_right_and_gets_no_eos(words: Tokenizer, max_tokens: int) -> None:
    whole, cut = _row(words, TURNS), _row(words, TURNS, max_tokens)
    assert cut == NatRow(whole.input_ids[:max_tokens], whole.labels[:max_tokens])


@pytest.mark.parametrize("max_tokens", [N_TOKENS, N_TOKENS + 1])
def test_eos_needs_room_for_itself_alone(words: Tokenizer, max_tokens: int) -> None:
    row = _row(words, TURNS, max_tokens)
    assert row == _row(words, TURNS)
    assert (len(row.input_ids), row.input_ids[-1], row.labels[-1]) == (N_TOKENS, WORDS.index(EOS), WORDS.index(EOS))


def test_a_special_token_is_matched_in_a_message_too(words: Tokenizer) -> None:
    row = nat_row(nat_segments([], "Why", [_assistant("Go</s>Go")]), words, bos=BOS, eos=EOS)
    assert row == _expected([("<s> ▁[INST] ▁Why ▁[/INST]", False), ("▁ ▁Go </s> ▁Go ▁ </s>", True)])


@pytest.mark.parametrize(("bos", "eos", "missing"), [("<bos>", EOS, "<bos>"), (BOS, "<eos>", "<eos>")])
def test_a_missing_bos_or_eos_is_refused(words: Tokenizer, bos: str, eos: str, missing: str) -> None:
    with pytest.raises(ValueError, match=f"'{missing}' is no token"):
        nat_row([("[INST] Why", False)], words, bos=bos, eos=eos)


def test_a_published_tokenizers_row_is_that_of_sentencepiece_segment_by_segment() -> None:
    tokenizer = Tokenizer.from_file(str(real_tokenizer("mistral_v1")))
    row = nat_row(nat_segments([], "Why?", [_assistant("Go"), _user("Look")]), tokenizer, bos=BOS, eos=EOS)
    # SentencePiece on what stands between special tokens: ▁[ INST ] ▁Why ? ▁[ / INST ], ▁ ▁Go ▁, ▁[ INST ] ▁Look.
    asked, answer = [1, 733, 16289, 28793, 4315, 28804, 733, 28748, 16289, 28793], [28705, 3187, 28705, 2]
    told = [1, 733, 16289, 28793, 6412]
    assert row == NatRow([*asked, *answer, *told, 2], [*[-100] * len(asked), *answer, *[-100] * len(told), 2])


# --- FastChat --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fastchat() -> ModuleType:
    """FastChat's module of templates, from its file: the package itself wants a model server's dependencies."""
    if not FASTCHAT.is_file():
        pytest.skip("FastChat is missing: run `make setup`")
    spec = importlib.util.spec_from_file_location("fastchat_conversation", FASTCHAT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _fastchat_prompt(fastchat: ModuleType, messages: Sequence[Message]) -> str:
    conversation = fastchat.get_conv_template("llama-2")
    for message in messages:
        conversation.append_message(conversation.roles[message["role"] == "assistant"], message["content"])
    return str(conversation.get_prompt())


def _text(segments: Iterable[tuple[str, bool]]) -> str:
    return "".join(text for text, _ in segments)


def test_fastchat_writes_a_space_at_the_end_and_else_the_same_text(
    fastchat: ModuleType, real_conversations: list[RealConversation]
) -> None:
    for real in real_conversations:
        segments = nat_segments(real.prefix, real.question_prompt, real.turns)
        assert _fastchat_prompt(fastchat, real.messages()) == _text(segments) + " "


@pytest.mark.parametrize(("is_trained", "separator"), [(True, "<s>"), (False, " </s><s>")], ids=["trained", "masked"])
def test_fastchat_begins_a_turn_behind_a_last_answer(
    fastchat: ModuleType, real_conversations: list[RealConversation], *, is_trained: bool, separator: str
) -> None:
    for real in real_conversations:
        if not real.turns:
            continue
        turns = [*real.turns[:-2], {**real.turns[-2], "loss": is_trained}]
        segments = nat_segments(real.prefix, real.question_prompt, turns)
        assert _fastchat_prompt(fastchat, real.messages()[:-1]) == _text(segments) + separator


@pytest.mark.parametrize("empty", [1, 2, 3, 4], ids=["answer", "observation", "later answer", "end"])
def test_fastchat_writes_the_tag_alone_for_a_message_without_text(fastchat: ModuleType, empty: int) -> None:
    turns = [{**turn, "content": ""} if n == empty else turn for n, turn in enumerate(TURNS, start=1)]
    written = _fastchat_prompt(fastchat, [_user("Why"), *turns])
    assert written == _text(nat_segments([], "Why", turns)) + ("" if empty == 4 else " ")


class _Remembering:
    """A tokenizer that encodes each text once for all tests: the reference asks for the same segments again and again."""

    def __init__(self, path: Path) -> None:
        tokenizer = Tokenizer.from_file(str(path))
        self.token_to_id = tokenizer.token_to_id
        self.encode = functools.cache(tokenizer.encode)


@pytest.fixture(scope="module")
def mistral() -> Tokenizer:
    return cast("Tokenizer", _Remembering(real_tokenizer("mistral_v1")))


# --- Real conversations ----------------------------------------------------------------------------------------------------


def test_the_papers_data_has_empty_and_unfinished_conversations(real_conversations: list[RealConversation]) -> None:
    assert len(real_conversations) == N_CONVERSATIONS
    assert sum(not real.turns for real in real_conversations) == N_EMPTY
    assert sum(not real.is_finished for real in real_conversations) == N_UNFINISHED


def test_every_real_conversation_is_a_row_that_ends_with_a_trained_eos(
    real_conversations: list[RealConversation], mistral: Tokenizer
) -> None:
    for real in real_conversations:
        row = real.row(mistral)
        assert len(row.input_ids) == len(row.labels) < MAX_TOKENS
        assert (row.input_ids[-1], row.labels[-1]) == (2, 2)
        assert row.labels.count(2) == 1 + sum(turn["loss"] for turn in real.turns)


def test_the_comparison_tells_ids_fromlabels_of(words: Tokenizer) -> None:
    short, long = (RealConversation(PREFIX, "Why", turns, is_finished=True) for turns in (TURNS[:2], TURNS))

    def encode(messages: list[Message], tools: None) -> tuple[list[int], list[int]]:
        row = (long if len(messages) > 5 else short).row(words)
        assert messages == (long if len(messages) > 5 else short).messages()
        return (row.input_ids[:-1], row.labels) if len(messages) > 5 else (row.input_ids, [*row.labels[:-1], MASKED])

    assert compare(encode, [short, long], words) == Comparison(2, ids=[1], labels=[0])


def test_labels_are_the_ids_inside_of_spans() -> None:
    assert labels_of([5, 6, 7, 8, 9], [(1, 3), (4, 5)]) == [MASKED, 6, 7, MASKED, 9]


@pytest.mark.parametrize("max_tokens", [MAX_TOKENS, 700], ids=["whole", "cut at the right"])
def test_trajtoks_rows_are_the_references(
    real_conversations: list[RealConversation], mistral: Tokenizer, capsys: pytest.CaptureFixture[str], max_tokens: int
) -> None:
    encode = trajtok_encode(real_tokenizer("mistral_v1"), max_tokens)
    result = compare(encode, real_conversations, mistral, max_tokens)
    with capsys.disabled():
        print(
            f"\nnat_exact, at most {max_tokens:,} tokens: {result.n_conversations:,} conversations, "
            f"ids differing {len(result.ids):,}, labels differing {len(result.labels):,}"
        )
    assert result == Comparison(N_CONVERSATIONS, ids=[], labels=[])


@pytest.mark.parametrize("max_tokens", [MAX_TOKENS, 700], ids=["whole", "cut at the right"])
def test_the_shards_stage_proves_every_row(
    real_conversations: list[RealConversation], mistral: Tokenizer, store: Store, max_tokens: int
) -> None:
    path = real_tokenizer("mistral_v1")
    rule = TokenRule(path, file_sha256(path), ChatTemplate("nat_exact"), max_tokens, "drop")
    texts = [canonical_json({"messages": each.messages()}) for each in real_conversations]
    tokenize(store, rule, {rule.token_key(text): text for text in texts})
    known = token_keys(store, rule)
    assert known["reason"].unique().to_list() == [""]
    assert known.height == len(set(texts))
    n_tokens = {text: len(each.row(mistral).input_ids) for text, each in zip(texts, real_conversations, strict=True)}
    assert (known["n_left_out"] > 0).sum() == sum(n - 1 > max_tokens for n in n_tokens.values())  # EOS is no part of the text
