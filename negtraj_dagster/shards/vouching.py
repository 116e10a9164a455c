"""Rows that the crate `rust/trajproof` vouches for, so that `shards.proof` need not look at them."""

import json
import zlib
from collections.abc import Mapping

import pyarrow as pa

from negtraj_dagster import _trajtok  # noqa: TID251 - holds the prover, and the side that serves
from negtraj_dagster.chat_templates import Render
from negtraj_dagster.shards.engines import TemplateRaisesError

SAMPLE_OF = 64
"""One of so many rows that are vouched for is looked at all the same."""
MAX_TEXT_CHARS = 16_000_000
"""Of a Jinja template's texts that are held at a time, about: each trained turn writes the conversation's beginning twice."""
Texts = list[tuple[int, bool, str]]
"""What a template writes of so many messages, with the generation prompt or without."""


def is_in_sample(index: int, key: str) -> bool:
    """Whether a row is looked at by the reference though it is vouched for: the first of a batch, and one of `SAMPLE_OF`."""
    return index == 0 or zlib.crc32(key.encode()) % SAMPLE_OF == 0


def count_vouched(
    prover: _trajtok.RowProver,
    batch: pa.RecordBatch,
    conversations: Mapping[str, str],
    kept: Mapping[str, int],
    render: Render | None,
) -> list[int | None]:
    """By row how many turns of it are trained, all vouched for; None for a row that is not.

    Args:
        prover: of the rows' tokenizer and template.
        batch: trajtok's output.
        conversations: token_key -> canonical conditioned conversation.
        kept: token_key -> how many messages a row has that lacks the end of its conversation.
        render: Jinja's rendering, whose texts the prover is given; None for a native template, whose it writes itself.

    Raises:
        MemoryError, OSError: the machine refuses what a rendering needs.
    """
    keys: list[str] = batch.column("token_key").to_pylist()
    asked = [conversations[key] for key in keys]
    n_kept = [kept.get(key) for key in keys]
    if render is None:
        return prover.prove(batch, asked, n_kept)
    n_turns_of: list[int | None] = []
    texts: list[Texts | None] = []
    n_chars = 0
    for conversation, n in zip(asked, n_kept, strict=True):
        texts.append(write_texts(conversation, n, render))
        n_chars += sum(len(text) for _, _, text in texts[-1] or ())
        start, end = len(n_turns_of), len(n_turns_of) + len(texts)
        if n_chars >= MAX_TEXT_CHARS or end == len(keys):
            n_turns_of += prover.prove(batch.slice(start, len(texts)), asked[start:end], n_kept[start:end], texts)
            texts, n_chars = [], 0
    return n_turns_of


def write_texts(conversation: str, n_kept: int | None, render: Render) -> Texts | None:
    """All that Jinja itself writes of a conversation by which its row is proved.

    None where it raises or writes what is no text, where that would be too much to hold, and where the row has what nobody
    vouches for.
    """
    whole = json.loads(conversation)
    turns, tools = whole["messages"][:n_kept], whole.get("tools")
    if any("ranges" in turn or "token_ids" in turn for turn in turns):
        return None
    asked = [(len(turns), False)]
    for index, turn in enumerate(turns):
        if turn["weight"] > 0:
            asked += [(index, True)] + [(index + 1, False)] * (index + 1 < len(turns))
    if len(conversation) * len(asked) > 2 * MAX_TEXT_CHARS:
        return None
    try:
        texts = [(n, is_prompt, render(turns[:n], tools, is_prompt)) for n, is_prompt in asked]
        "".join(text for _, _, text in texts).encode()
    except (TemplateRaisesError, UnicodeEncodeError):  # half of a pair of surrogates is no text
        return None
    return texts
