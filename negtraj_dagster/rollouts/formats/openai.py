"""Chat completions messages (OpenAI's, as most tools write them): the whole conversation in `messages`, its prompt included.

    {"messages": [{"role": "system", …}, {"role": "user", …}, {"role": "assistant", …}], "tools": […], "reward": true}

Messages may be JSON text, as in tables. Keys without a place of their own are kept as they are, in `extra`.
"""

import difflib
from functools import lru_cache
from typing import Any

from negtraj_dagster.errors import RolloutFormatError
from negtraj_dagster.rollouts.formats.base import Reading, extra_json, split_prompt
from negtraj_dagster.rollouts.formats.fields import (
    NOTHING,
    check,
    described,
    optional,
    optional_answer,
    optional_reward,
    optional_text,
    read_score,
    require,
)
from negtraj_dagster.rollouts.formats.messages import MESSAGE_KEYS, PLAIN_KEYS, read_message
from negtraj_dagster.rollouts.formats.tool_calls import OPENAI_KEYS, OUR_KEYS, read_tools
from negtraj_dagster.rollouts.records import key_name, parse_text
from negtraj_dagster.schema import Rollout, Turn

OUTCOMES = ("reward", "resolved")
TEXTS = ("question_id", "source", "teacher", "subject", "session", "licence", "origin_url", "parent", "group")
ALIASES = {"instance_id": "group", "model": "teacher", "session_id": "session", "run_id": "session", "license": "licence"}
"""Names that public data sets give to the same things; ours stand before them."""
KEYS = {"messages", "tools", "tokenizer", "pred", "gold", "is_evaluation", "score", *OUTCOMES, *TEXTS, *ALIASES}
ROLES = {"developer": "system", "function": "tool"}
NEAR = 0.85
"""From so alike on, an unknown key is taken for a misspelled one: the outcome must not go to `extra` unnoticed."""
TEXT_PARTS = ("text", "input_text", "output_text")
WEIGHTS = ("weight", "loss_scale", "loss_weight")
"""A message's loss weight, as OpenAI's fine-tuning data (0 or 1), ms-swift and LLaMA-Factory spell it."""
MEDIA = ("images", "audios", "videos")
"""Keys beside the messages that hold what their marks stand for."""
THOUGHTS = ("thinking", "reasoning", "redacted_thinking")
"""Parts, and blocks, of what an agent thought."""
UNSUPPORTED = ("image_url", "image", "input_image", "input_audio", "audio", "file", "video")


def read_record(task: str, record: dict[str, Any]) -> Reading:
    """One record: one rollout.

    Raises:
        RolloutFormatError: no messages, one of another shape, images or sound, a misspelled key, or an evaluation episode.
    """
    refuse_media(record)
    extra = _extra(record)
    if optional(record, "is_evaluation", bool):
        raise RolloutFormatError("an evaluation episode must not enter training (is_evaluation = true)")
    messages = json_list(require(record, "messages", object), "messages")
    turns, unread = read_messages(messages, "messages")
    prompt, agent_turns = split_prompt(turns, "messages")
    text_fields = _text_fields(record)
    outcomes = [outcome for name in OUTCOMES if (outcome := optional_reward(record, name)) is not None]
    if len(set(outcomes)) > 1:
        raise RolloutFormatError("reward and resolved differ, expected one outcome; keep the one that is meant")
    rollout = Rollout(
        task=task,
        question_id=text_fields["question_id"] or "",
        source=text_fields["source"] or "",
        turns=agent_turns,
        reward=outcomes[0] if outcomes else None,
        pred=optional_answer(record, "pred"),
        gold=optional_answer(record, "gold"),
        teacher=text_fields["teacher"] or "",
        subject=text_fields["subject"],
        session=text_fields["session"],
        licence=text_fields["licence"],
        origin_url=text_fields["origin_url"],
        tools=read_tools(record.get("tools"), "tools"),
        tokenizer=optional(record, "tokenizer", str) or None,
        prompt=prompt,
        score=read_score(record.get("score"), "score"),
        parent=text_fields["parent"],
        group=text_fields["group"],
        extra=extra_json({**extra, "messages": unread}),
    )
    return [rollout]


def refuse_media(record: dict[str, Any]) -> None:
    """Nothing of what the agent saw is left out unsaid.

    Raises:
        RolloutFormatError: images, sound or video stand beside the messages.
    """
    if medium := next((key for key in MEDIA if record.get(key)), None):
        raise RolloutFormatError(f"{medium}: found values, expected none; images, sound and video are unsupported")


def read_messages(messages: list[Any], place: str) -> tuple[list[Turn], dict[str, Any]]:
    """Turns of chat completions messages, and what of each message has no place in a turn, by its number.

    Raises:
        RolloutFormatError: a message of another shape, or with images or sound.
    """
    turns, unread = [], {}
    for index, message in enumerate(messages):
        at = f"{place}[{index}]"
        turn, rest = read_chat_message(check(message, at, dict), at)
        turns.append(turn)
        if rest:
            unread[str(index)] = rest
    return turns, unread


def read_chat_message(message: dict[str, Any], place: str) -> tuple[Turn, dict[str, Any]]:
    """One message's turn, and what of it has no place there.

    Raises:
        RolloutFormatError: see `read_messages`.
    """
    recorded_calls, text = message.get("tool_calls"), message.get("content")
    calls, unread_of_calls = _readable_calls(recorded_calls) if recorded_calls is not None else (None, {})
    is_text = type(text) is str or (calls and text is None)
    role = message.get("role")
    if is_text and not unread_of_calls and type(role) is str and _is_plain(message, role):
        return read_message(message, place), {}
    message = {key: value for key, value in message.items() if value is not None or key == "content"}
    if "function_call" in message and "tool_calls" not in message:
        message["tool_calls"] = [{"function": message.pop("function_call")}]
    role = ROLES.get(str(role), role)
    if not unread_of_calls and type(text) is str and _is_plain(message, str(role)):
        return read_message({**message, "role": role}, place), {}
    content, thought = _without_thoughts(message.get("content")) if role == "assistant" else (message.get("content"), "")
    kept_fields = {"role": role, "content": read_content(content, f"{place}.content")}
    if thought and not message.get("reasoning"):
        message["reasoning"] = thought
    for key in WEIGHTS:
        if (weight := message.pop(key, None)) is not None and message.get("loss") in (None, True):
            message["loss"] = weight
    if unread_of_calls:
        message["tool_calls"] = calls
    if role == "tool" and not message.get("tool_call_id") and _is_one_id(message.get("tool_call_ids")):
        message["tool_call_id"] = message.pop("tool_call_ids")[0]
    if role != "tool":
        message.pop("name", None)
        message.pop("tool_call_id", None)
    kept_fields |= {key: message[key] for key in MESSAGE_KEYS - kept_fields.keys() if key in message}
    if role == "assistant" and kept_fields["content"] is None and not kept_fields.get("tool_calls"):
        kept_fields["content"] = ""
    rest = {key: value for key, value in message.items() if key not in MESSAGE_KEYS and value not in ("", [], {})}
    if unread_of_calls:
        rest["tool_calls"] = unread_of_calls
    return read_message(kept_fields, place), rest


def _is_plain(message: dict[str, Any], role: str) -> bool:
    """Whether a message of ours of this role has no other keys, as most have none."""
    return role in PLAIN_KEYS and message.keys() <= PLAIN_KEYS[role]


def _without_thoughts(content: object) -> tuple[object, str]:
    """An answer's parts without those of what was thought, and that."""
    if not isinstance(content, list):
        return content, ""
    thoughts = [part for part in content if isinstance(part, dict) and part.get("type") in THOUGHTS]
    texts = [part for part in content if part not in thoughts]
    return (texts, "\n".join(filter(None, map(read_thought, thoughts)))) if thoughts else (content, "")


def read_thought(part: dict[str, Any]) -> str:
    """Reasoning's text; what is recorded encrypted, or as a placeholder, is none, its summary is."""
    if part.get("type") == "redacted_thinking" or part.get("redacted"):
        return str(part.get("summary") or "")
    return next((str(part[key]) for key in ("thinking", "reasoning", "content", "text") if part.get(key)), "")


def _readable_calls(value: object) -> tuple[Any, dict[str, Any]]:
    """The calls without keys of which nothing is known here, and those, by the call's number."""
    if not isinstance(value, list):
        return value, {}
    unread = {}
    calls: list[object] = []
    for number, call in enumerate(value):
        known = OPENAI_KEYS if isinstance(call, dict) and "function" in call else OUR_KEYS
        if isinstance(call, dict) and (rest := {key: field for key, field in call.items() if key not in known}):
            unread[str(number)] = rest
            call = {key: field for key, field in call.items() if key in known}
        calls.append(call)
    return calls, {number: rest for number, rest in unread.items() if any(field not in NOTHING for field in rest.values())}


def _is_one_id(value: object) -> bool:
    return isinstance(value, list) and len(value) == 1 and isinstance(value[0], str)


def read_content(value: object, place: str) -> str | None:
    """A message's text; of several parts their texts, one after another.

    Raises:
        RolloutFormatError: a part is no text (an image, sound, a file).
    """
    if value is None or isinstance(value, str):
        return value
    parts = check(value, place, list, "write text, or a list of parts of text")
    texts = []
    for index, part in enumerate(parts):
        at = f"{place}[{index}]"
        if isinstance(part, str):
            texts.append(part)
            continue
        kind = check(part, at, dict).get("type", "text")
        if kind not in TEXT_PARTS:
            kind_words = f"of type {kind}" if kind in UNSUPPORTED else "of another type"
            raise RolloutFormatError(f"{at}: found a part {kind_words}, expected text; images, sound and files are unsupported")
        texts.append(require(part, "content" if "content" in part and "text" not in part else "text", str, at=at))
    return "".join(texts)


def json_list(value: object, place: str) -> list[Any]:
    """A list, or JSON text of one.

    Raises:
        RolloutFormatError: neither.
    """
    if isinstance(value, str):
        try:
            value = parse_text(value)
        except ValueError as error:
            raise RolloutFormatError(f"{place}: {error}, expected a list, or JSON text of one") from error
    return check(value, place, list, "write a list of messages, or JSON text of one")


def _extra(record: dict[str, Any]) -> dict[str, Any]:
    unknown = {key: value for key, value in record.items() if key not in KEYS}
    for key, value in unknown.items():
        if value is not None and (near := nearly_known(key)):
            raise RolloutFormatError(
                f"unknown key {key_name(key)}, {described(value)}, which is nearly {near!r}; mend or rename it"
            )
    return unknown


@lru_cache(maxsize=4096)
def nearly_known(key: str) -> str | None:
    """The known key, if any, that a key is nearly; asked of the same few keys for every record."""
    return next(iter(difflib.get_close_matches(key, KEYS, n=1, cutoff=NEAR)), None)


def _text_fields(record: dict[str, Any]) -> dict[str, str | None]:
    """By our names; a record's own spelling of them stands before an alias, and the first alias before others."""
    fields = {name: (optional_text(record, name) or None) if name in record else None for name in TEXTS}
    for alias, name in ALIASES.items():
        if alias in record:
            text = optional_text(record, alias)
            fields[name] = fields[name] or text or None
    return fields
