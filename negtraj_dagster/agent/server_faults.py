"""What chat servers' refusals say: what they are about, how long to wait, and what a person does about them."""

import json
import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

CONTEXT_FAULT = re.compile(
    r"context.?(?:length|size|window)|maximum (?:model|sequence|input) length|max_model_len|max_position|exceed_context",
    re.IGNORECASE,
)
"""vLLM, SGLang, llama.cpp, OpenAI: the conversation is longer than the model's context."""
LIMIT = re.compile(r"maximum (?:context|model) length is (\d+)", re.IGNORECASE)
PROMPT = re.compile(r"(\d+) (?:input tokens|in the messages|tokens from the input messages|of text input)", re.IGNORECASE)
REMEDIES: Mapping[int, str] = {
    400: "mend what it names: the model's name, a setting, or how the server was started",
    401: "export the key that the server expects, and name its variable in api_key_env",
    403: "take a key that may use this model",
    404: "look at base_url (it ends with /v1) and at the model's name, as GET /v1/models lists it",
    422: "the server does not take this request: look at extra_body, and at the server's version",
}


def read_error(text: str, key: str | None) -> str:
    """What an error's body says, in one line and without the key."""
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        body = text
    for name in ("error", "message", "detail"):
        if isinstance(body, dict) and name in body:
            parts = body[name]
            code = f" ({parts['code']})" if isinstance(parts, dict) and isinstance(parts.get("code"), str) else ""
            kind = f" ({parts['type']})" if isinstance(parts, dict) and isinstance(parts.get("type"), str) else ""
            body = f"{parts['message']}{code or kind}" if isinstance(parts, dict) and "message" in parts else parts
    message = " ".join(str(body).split()) or "without a message"
    return message.replace(key, "***") if key else message


def is_context_fault(message: str) -> bool:
    """Whether the conversation, or the turn behind it, is too long for the model."""
    return CONTEXT_FAULT.search(message) is not None


def room_behind_prompt(message: str) -> int | None:
    """How many tokens fit behind the prompt, where the message has both numbers."""
    limit, prompt = LIMIT.search(message), PROMPT.search(message)
    return int(limit[1]) - int(prompt[1]) if limit and prompt else None


def wait_s(headers: Mapping[str, str]) -> float | None:
    """Seconds that Retry-After asks for: a number, or a date beside the server's own."""
    value = headers.get("retry-after", "").strip()
    if re.fullmatch(r"\d{1,9}(?:\.\d+)?", value):
        return float(value)
    try:
        span = parsedate_to_datetime(value) - parsedate_to_datetime(headers.get("date", ""))
    except (ValueError, TypeError):
        return None
    return max(span.total_seconds(), 0.0)


def describe_refusal(url: str, model: str, status: int, message: str, api_key_env: str | None) -> str:
    """The message of a request that stays wrong."""
    remedy = REMEDIES.get(status, "look at base_url and at the server's log")
    sent = f"the key of {api_key_env}" if api_key_env else "no key"
    return f"{url}: status {status} for model {model!r} ({sent}): {message}; {remedy}"
