"""The loss mask the slow, plain way: Hugging Face tokenizes the rendered text as a whole, a token at a time is masked.

Independent of trajtok: other code renders, added tokens are matched in the text, offsets are characters. So it answers
only where contents hold no added token's text. Read by tests; nothing here is fast or shared with the package.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from tokenizers import Tokenizer


class Message(TypedDict):
    """One message of a conditioned conversation."""

    role: str
    content: str
    weight: float


@dataclass(frozen=True)
class Reference:
    """What a row should be. `weights: float [n_tokens]`, 0.0 where the token is context."""

    input_ids: list[int]
    weights: list[float]


def render_chatml(messages: Sequence[Message]) -> tuple[str, list[tuple[int, int, float]]]:
    """The rendered text and its trained stretches: start, end (characters, half-open), weight."""
    text, stretches = "", []
    for message in messages:
        text += f"<|im_start|>{message['role']}\n"
        start = len(text)
        text += message["content"] + "<|im_end|>"
        if message["weight"] > 0:
            stretches.append((start, len(text), message["weight"]))
        text += "\n"
    return text, stretches


def load_tokenizer(tokenizer_json: Path) -> Tokenizer:
    """The tokenizer without truncation, padding and post-processor: it adds nothing, cuts nothing, trims no offsets."""
    tokenizer = Tokenizer.from_file(str(tokenizer_json))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.post_processor = None
    return tokenizer


def mask_conversation(tokenizer: Tokenizer, messages: Sequence[Message]) -> Reference:
    """Ids and weights of one conversation.

    The rule is transformers' `return_assistant_tokens_mask`: from char_to_token(start) to char_to_token(end - 1), both
    included (transformers `tokenization_utils_base.py`, `apply_chat_template`).
    """
    text, stretches = render_chatml(messages)
    encoding = tokenizer.encode(text, add_special_tokens=False)
    weights = [0.0] * len(encoding.ids)
    for start, end, weight in stretches:
        first, last = encoding.char_to_token(start), encoding.char_to_token(end - 1)
        if first is None or last is None:
            raise ValueError(f"characters {start} to {end} of {text!r} lie in no token")
        weights[first : last + 1] = [weight] * (last + 1 - first)
    return Reference(encoding.ids, weights)
