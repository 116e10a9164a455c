"""Reads token ids back as text with Hugging Face's decoder, stretch by stretch, as far as a tokenizer can be undone."""

import itertools
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from tokenizers import Tokenizer as HfTokenizer


class TokenReader:
    """A tokenizer's decoder.

    Attributes:
        added: id -> text of every added token.
        special: the texts of those that the file calls special.
    """

    def __init__(self, tokenizer: HfTokenizer) -> None:
        self._tokenizer = tokenizer
        self.added = {id_: token.content for id_, token in tokenizer.get_added_tokens_decoder().items()}
        self.special = [token.content for token in tokenizer.get_added_tokens_decoder().values() if token.special]
        longest_first = sorted(self.added.values(), key=len, reverse=True)
        self._added = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
        # SentencePiece's way: a space is put before a text, and its decoder takes one away
        self._drops_space = any(
            tokenizer.decode(tokenizer.encode(text, add_special_tokens=False).ids[-n_last:]) != expected
            for text, n_last, expected in ((" a", 0, " a"), ("a", 1, "a"), ("a a", 1, " a"))
        )

    def read(self, ids: Sequence[int]) -> str:
        """The text of some tokens."""
        return "".join(self._pieces(ids))

    def reads(self, ids: Sequence[int], text: str) -> bool:
        """Whether tokens stand for a text: exactly, or after the tokenizer's own normalizer (NFC, for Qwen), which its tokens
        cannot undo, or but for one space at the start of a stretch, where SentencePiece puts one."""
        pieces = self._pieces(ids)
        decoded = "".join(pieces)
        if decoded == text:
            return True
        # A typed ▁ is the sign that SentencePiece puts for a space: a served model reads a space there, too.
        if self._drops_space and _matches(pieces, text.replace("▁", " ")):
            return True
        return (
            is_text(text)
            and self._tokenizer.normalizer is not None
            and decoded == self._tokenizer.normalizer.normalize_str(text)
        )

    def without_added(self, text: str) -> str:
        """The text without what reads like an added token."""
        return self._added.sub("", text)

    def leading_added(self, text: str) -> list[str]:
        """What reads like added tokens at a text's start, up to other text."""
        added: list[str] = []
        at = 0
        while match := self._added.match(text, at):
            added.append(match[0])
            at = match.end()
        return added

    def _pieces(self, ids: Sequence[int]) -> list[str]:
        """Added tokens one by one, and the stretches between them."""
        pieces = []
        for is_added, stretch in itertools.groupby(ids, key=self.added.__contains__):
            if is_added:
                pieces += [self.added[id_] for id_ in stretch]
            else:
                pieces.append(self._tokenizer.decode(list(stretch), skip_special_tokens=False))
        return pieces


def is_text(text: str) -> bool:
    """Whether it can be written at all: half of a pair of surrogates cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def load_reader(tokenizer_json: Path) -> TokenReader:
    """The reader of a tokenizer.json, kept as long as the file is as it was: a large vocabulary takes a second to load."""
    stat = tokenizer_json.stat()
    return _load_reader(tokenizer_json, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=2)
def _load_reader(tokenizer_json: Path, mtime_ns: int, size_bytes: int) -> TokenReader:
    return TokenReader(HfTokenizer.from_file(str(tokenizer_json)))


def _matches(pieces: Sequence[str], text: str) -> bool:
    at = 0
    for piece in pieces:
        forms = (piece, f" {piece}", piece.removeprefix(" "))
        form = next((form for form in forms if text.startswith(form, at)), None)
        if form is None:
            return False
        at += len(form)
    return at == len(text)
