"""Small tokenizers, one per way of tokenizing that trajtok must follow; trained in-process, so no test needs a network."""

import json

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

TEXTS = [
    "Question: which river is longer? Thought: I should look at the lengths of both rivers.",
    "Action: calculator[12 + 30]\nObservation: 42\n\nThought: the answer is 42.",
    "system user assistant tool naïve café 日本語 🙂🙂 l'été don't we'll 12345",
]
CONTROL = ["<|im_start|>", "<|im_end|>"]
ADDED = ["<|endoftext|>", *CONTROL, "<tool_call>", "</tool_call>"]
QWEN_SPLIT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def _train(tokenizer: Tokenizer, *, in_model: list[str]) -> Tokenizer:
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=in_model, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(TEXTS * 3, trainer)
    tokenizer.add_special_tokens(ADDED[:3])
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in ADDED[3:]])
    return tokenizer


def _gpt2_like() -> Tokenizer:
    """The regex of GPT-2; added tokens lie in the model too; offsets are trimmed and rows truncated, were it asked."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    tokenizer.enable_truncation(8)
    tokenizer.enable_padding(length=64)
    return _train(tokenizer, in_model=ADDED[:3])


def _qwen_like() -> Tokenizer:
    """Qwen's split and NFC; added tokens lie behind the model's vocabulary."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(QWEN_SPLIT), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return _train(tokenizer, in_model=[])


def _smollm_like() -> Tokenizer:
    """Digits apart, then GPT-2's regex."""
    tokenizer = Tokenizer(models.BPE())
    digits = pre_tokenizers.Digits(individual_digits=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()
    return _train(tokenizer, in_model=ADDED[:3])


def _whole_word_like() -> Tokenizer:
    """Llama 3's way: a stretch that is in the vocabulary as a whole is taken whole (`ignore_merges`)."""
    tokenizer = _gpt2_like()
    raw = json.loads(tokenizer.to_str())
    raw["model"]["ignore_merges"] = True
    return Tokenizer.from_str(json.dumps(raw))


def _metaspace_like() -> Tokenizer:
    """SentencePiece's way: spaces are ▁, one stands before the first word of a conversation; bytes are the fallback."""
    vocab = {f"<0x{byte:02X}>": byte for byte in range(256)}
    for token in ["▁", *"the hasquion", "th", "the", "▁the", "▁th"]:
        vocab.setdefault("▁" if token == " " else token, len(vocab))
    tokenizer = Tokenizer(models.BPE(vocab, [("t", "h"), ("th", "e"), ("▁", "the"), ("▁", "th")], byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens(ADDED[:3])
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in ADDED[3:]])
    return tokenizer


def _sentencepiece_like() -> Tokenizer:
    """Llama 2's way: the same, but as a normalizer, which puts a ▁ before every stretch between added tokens."""
    raw = json.loads(_metaspace_like().to_str())
    prepend, replace = {"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    raw.update(pre_tokenizer=None, normalizer={"type": "Sequence", "normalizers": [prepend, replace]})
    raw["model"].update(fuse_unk=True, unk_token="<0x00>")
    return Tokenizer.from_str(json.dumps(raw))


KINDS = {
    "gpt2": _gpt2_like,
    "qwen": _qwen_like,
    "smollm": _smollm_like,
    "ignore_merges": _whole_word_like,
    "metaspace": _metaspace_like,
    "sentencepiece": _sentencepiece_like,
}
