"""A small tokenizer for any chat template: the control tokens that the template's text names are its added tokens."""

import re
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

CONTROL = re.compile(
    r"<\|[^|<>\s]{1,40}\|>|<｜[^<>\s]{1,40}｜>|</?[a-z_]{2,20}>|\[/?[A-Z_]{2,20}\]|<[a-z_]{2,20}\|>|<\|[a-z_]{2,20}>"
)
TEXTS = ["Question: which river is longer? Thought: look it up. Action: calculator[12 + 30]\nObservation: 42\n\n日本 naïve"]
SPECIAL = ("<|", "<｜", "<s>", "</s>", "<pad>", "<end", "<start", "[")
SETTINGS = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "today": "2026-01-31"}


def template_tokenizer(source: str) -> Tokenizer:
    """A byte-level tokenizer with the template's control tokens, whatever else its text names in their form."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(TEXTS, trainer)
    for token in sorted({*CONTROL.findall(source), "<s>", "</s>", "<pad>"}):
        tokenizer.add_tokens([AddedToken(token, special=token.startswith(SPECIAL), normalized=False)])
    return tokenizer


def save_template_tokenizer(source: str, folder: Path) -> Path:
    """The tokenizer as a tokenizer.json in the folder."""
    path = folder / "tokenizer.json"
    template_tokenizer(source).save(str(path))
    return path
