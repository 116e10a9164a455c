"""The paper's token rows the slow, plain way: text in segments, each tokenized alone by Hugging Face, then joined.

    row = nat_row(nat_segments(prefix, question_prompt, turns), tokenizer, bos="<s>", eos="</s>")

What the paper's code trained on (arXiv 2402.11651; Reason-Wang/NAT at 5f25412, `prompts/conversations.py` and
`data/dataset.py`), its oddities too. Independent of trajtok: it imports nothing of the package. Read by tests; nothing here
is fast. No place for prompts or data: callers bring both.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, groupby
from operator import itemgetter
from typing import Any

from tokenizers import Tokenizer

MASKED = -100
"""The label of a token that is not trained: what torch's cross entropy ignores."""

_TAGS = {"user": "[INST]", "assistant": "[/INST]"}


@dataclass(frozen=True)
class NatRow:
    """What a row should be. `input_ids`, `labels`: int [n_tokens]; a label is its token's id, or MASKED."""

    input_ids: list[int]
    labels: list[int]


def nat_segments(prefix: list[dict[str, Any]], question_prompt: str, turns: list[dict[str, Any]]) -> list[tuple[str, bool]]:
    """A conversation as Llama 2's template writes it: text and whether it is trained, in turns; no BOS yet.

        [INST] {instruction} [/INST] {acknowledgement} </s><s>[INST] {question} [/INST]   masked
         {assistant} </s>                                                                 trained
        <s>[INST] {user} [/INST]                                                          masked
         {assistant} </s>                                                                 trained
        <s>[INST] Observation: Episode finished                                           masked, no [/INST] follows

    Neighbours that are both masked are one segment. Without turns the row is one masked segment that ends with the question.

    Beside `get_prompt()` of FastChat's "llama-2" (lm-sys/FastChat 0.2.36, `fastchat/conversation.py`):

    - FastChat writes a separator behind every message, the last one too: a space behind `Episode finished`, `<s>` behind a
      last trained answer, ` </s><s>` behind a last masked one. Here a separator is written with the message that follows, so
      none stands at the end. All other text is the same.
    - A message without text is its tag alone, without spaces and separator, and masked: so FastChat, whose text this follows
      where the paper's data shows no case.

    Args:
        prefix: messages with `role` and `content`, never trained; may be empty.
        question_prompt: the user message behind the prefix.
        turns: messages with `role`, `content` and `loss`; may be empty. An assistant message without loss is masked whole.

    Raises:
        ValueError: the roles do not alternate from user on, a user message is to be trained, or the first has no text.
    """
    untrained = [(message["role"], message["content"], False) for message in prefix]
    recorded = [(turn["role"], turn["content"], turn["loss"]) for turn in turns]
    messages = [*untrained, ("user", question_prompt, False), *recorded]
    _refuse_other_shapes(messages)
    pieces, separator = [], ""
    for role, content, is_trained in messages:
        if not content:
            pieces.append((separator + _TAGS[role], False))
            separator = ""
        elif role == "user":
            pieces.append((f"{separator}[INST] {content}", False))
            separator = " "
        elif is_trained:
            pieces += [(f"{separator}[/INST]", False), (f" {content} </s>", True)]
            separator = "<s>"
        else:
            pieces.append((f"{separator}[/INST] {content}", False))
            separator = " </s><s>"
    return [("".join(text for text, _ in run), is_trained) for is_trained, run in groupby(pieces, key=itemgetter(1))]


def _refuse_other_shapes(messages: Sequence[tuple[str, str, bool]]) -> None:
    for n, ((role, _content, is_trained), expected) in enumerate(zip(messages, cycle(_TAGS), strict=False)):
        if role != expected:
            raise ValueError(f"message {n} has role {role!r}, expected {expected!r}: user and assistant alternate")
        if is_trained and role == "user":
            raise ValueError(f"message {n} is a user's and has loss: only assistant messages are trained")
    if not messages[0][1]:
        raise ValueError("the first message has no text")


def nat_row(
    segments: Sequence[tuple[str, bool]], tokenizer: Tokenizer, *, bos: str, eos: str, max_tokens: int = 4096
) -> NatRow:
    """The segments' ids one after the other, cut at the right, with an EOS that is trained where none stands at the end.

    SentencePiece puts its dummy prefix before every stretch between special tokens, so before every segment too: a trained
    segment begins with two spaces, and the ids are not those of the joined text. Special tokens are matched in the text,
    wherever they stand. A row that was cut gets no EOS, as it has no room. One that ends with a user message gets one, with
    its label: the model learns to stop after `Episode finished`.

    Args:
        segments: as `nat_segments` makes them.
        tokenizer: with `bos` and `eos` among its tokens, without truncation and padding.
        bos: text put before the first segment.
        eos: text of the token that ends a row.
        max_tokens: the most tokens a row may have.

    Raises:
        ValueError: `bos` or `eos` is no token.
    """
    _bos_id, eos_id = _token_id(tokenizer, bos), _token_id(tokenizer, eos)
    input_ids: list[int] = []
    labels: list[int] = []
    for n, (text, is_trained) in enumerate(segments):
        ids = tokenizer.encode(bos + text if n == 0 else text, add_special_tokens=False).ids
        input_ids += ids
        labels += ids if is_trained else [MASKED] * len(ids)
    input_ids, labels = input_ids[:max_tokens], labels[:max_tokens]
    if input_ids[-1] != eos_id and len(input_ids) < max_tokens:
        input_ids.append(eos_id)
        labels.append(eos_id)
    return NatRow(input_ids, labels)


def _token_id(tokenizer: Tokenizer, text: str) -> int:
    token_id = tokenizer.token_to_id(text)
    if token_id is None:
        raise ValueError(f"{text!r} is no token of the tokenizer")
    return token_id
