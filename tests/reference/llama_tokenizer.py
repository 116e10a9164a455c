"""transformers' LlamaTokenizer of the time of the paper (4.3x), in plain Python over SentencePiece.

    LlamaTokenizer(model_file, legacy=True).encode("[INST] Why </s>", add_special_tokens=False).ids

Versions from 5 on have none: theirs reads a tokenizer.json. Follows `models/llama/tokenization_llama.py` of 4.38 (`tokenize`,
`_tokenize`, `get_spm_processor`). Independent of trajtok and of `tokenizers`.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import sentencepiece

SPECIAL = ("<unk>", "<s>", "</s>")
NO_DUMMY_PREFIX = b"\x1a\x02\x18\x00"
"""normalizer_spec { add_dummy_prefix: false }, which Protobuf merges into a model's bytes when it stands behind them."""


@dataclass(frozen=True)
class Ids:
    """What `encode` returns, by the name that Hugging Face's have."""

    ids: list[int]


class LlamaTokenizer:
    """One SentencePiece model.

    Args:
        model_file: SentencePiece's.
        legacy: whether every stretch between special tokens gets a dummy prefix, as by default then; else the first text alone.
    """

    def __init__(self, model_file: Path, *, legacy: bool) -> None:
        self._legacy = legacy
        model = model_file.read_bytes() + (b"" if legacy else NO_DUMMY_PREFIX)
        self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        self._n_unk = len(self._processor.encode("<unk>"))

    def token_to_id(self, token: str) -> int:
        """A piece's id."""
        return int(self._processor.piece_to_id(token))

    def encode(self, text: str, *, add_special_tokens: bool) -> Ids:
        """A text's ids, special tokens matched wherever they stand."""
        assert not add_special_tokens, "the paper's code writes them itself"
        if not self._legacy and text:
            text = "▁" + text.replace("▁", " ")
        special = {token: self.token_to_id(token) for token in SPECIAL}
        ids: list[int] = []
        for stretch in re.split("(<unk>|<s>|</s>)", text):
            ids += [special[stretch]] if stretch in special else self._encode_stretch(stretch)
        if not self._legacy and ids[0] == self.token_to_id("▁") and ids[1:2] and ids[1] in special.values():
            return Ids(ids[1:])
        return Ids(ids)

    def _encode_stretch(self, text: str) -> list[int]:
        if not text:
            return []
        if self._legacy or not text.startswith(("▁", " ")):
            return list(self._processor.encode(text))
        return list(self._processor.encode("<unk>" + text))[self._n_unk :]
