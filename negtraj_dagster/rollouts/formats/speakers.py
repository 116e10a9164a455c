"""Conversations of speakers (`from`/`value` or `role`/`content`), as fine-tuning tools write them, become turns.

What an agent says and the calls that follow it without a result between are one answer of the model, and one turn.
"""

import re
from typing import Any, cast

from negtraj_dagster.errors import RolloutFormatError
from negtraj_dagster.reasoning import CLOSE
from negtraj_dagster.rollouts.formats.fields import NOTHING, check, optional_reward, read_score, refusal, require
from negtraj_dagster.rollouts.formats.messages import read_message
from negtraj_dagster.rollouts.formats.openai import read_content
from negtraj_dagster.rollouts.records import parse_text
from negtraj_dagster.schema import Turn

ROLE_OF = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "ai": "assistant",
    "system": "system",
    "observation": "tool",
    "tool": "tool",
    "tool_response": "tool",
}
CALLS = ("function_call", "tool_call")
WEIGHTS = ("loss", "loss_weight", "loss_scale")
KEYS = {"from", "value", "role", "content", *WEIGHTS}
SPEAKER_KEYS, ROLE_KEYS = {"from", "value", "loss"}, {"role", "content", "loss"}
MEDIA_MARK = re.compile("<(?:image|audio|video)>")


def read_speakers(values: list[Any], place: str) -> tuple[list[Turn], dict[str, Any]]:
    """Turns, and what of each message has no place in a turn, by its number.

    Raises:
        RolloutFormatError: an unknown speaker, a call that is no JSON, or images or sound.
    """
    turns: list[Turn] = []
    unread: dict[str, Any] = {}
    for index, value in enumerate(values):
        at = f"{place}[{index}]"
        message = check(value, at, dict)
        if (plain := _plain_turn(message)) is not None:
            turns.append(plain)
            continue
        speaker_key, content_key = ("from", "value") if "from" in message else ("role", "content")
        speaker = require(message, speaker_key, str, at=at)
        if message.get("tool_calls"):
            raise RolloutFormatError(
                f"{at}.tool_calls: found calls, expected them as turns of their own; such messages are `openai`'s"
            )
        if content_key not in message:
            raise RolloutFormatError(f"{at}: key {content_key!r} is missing; found {sorted(message)}")
        content, thought, calls = _parts(message.get(content_key), f"{at}.{content_key}")
        weight = _weight(message)
        if speaker in CALLS:
            _add_calls(turns, content, weight, at)
        elif speaker in ROLE_OF:
            role = ROLE_OF[speaker]
            loss = {} if weight is None or (role != "assistant" and not weight) else {"loss": weight}
            said = {"reasoning": thought, "tool_calls": calls}
            turns.append(read_message({"role": role, "content": content, **said, **loss}, at))
        else:
            raise refusal(f"{at}.{speaker_key}", speaker, f"one of {', '.join([*ROLE_OF, *CALLS])}")
        if rest := {key: field_value for key, field_value in message.items() if key not in KEYS and field_value not in NOTHING}:
            unread[str(index)] = rest
    return turns, unread


def _plain_turn(message: dict[str, Any]) -> Turn | None:
    """The turn of a message that is a text of a speaker, and at most trained or not, as most are; None for any other."""
    is_of_speaker = "from" in message
    if not message.keys() <= (SPEAKER_KEYS if is_of_speaker else ROLE_KEYS):
        return None
    speaker, content = (
        (message["from"], message.get("value")) if is_of_speaker else (message.get("role"), message.get("content"))
    )
    if type(content) is not str or type(speaker) is not str or MEDIA_MARK.search(content):
        return None
    role, loss = ROLE_OF.get(speaker), message.get("loss")
    if role is None or (loss is not None and type(loss) is not bool):
        return None
    if role == "assistant":
        if CLOSE in content:
            return None
        return cast("Turn", {"role": role, "content": content} | ({"loss": False} if loss is False else {}))
    return None if loss else cast("Turn", {"role": role, "content": content})


def _weight(message: dict[str, Any]) -> object:
    """What a message says of its loss: false wins, then a scale, then true."""
    weights = [message[key] for key in WEIGHTS if message.get(key) is not None]
    if any(weight is False for weight in weights):
        return False
    return next((weight for weight in weights if weight is not True), weights[0] if weights else None)


def _parts(value: object, place: str) -> tuple[str, str, list[dict[str, Any]]]:
    """Text, reasoning and calls of a message: its content is text, or parts `{"type": …, "value": …}`."""
    if not isinstance(value, list):
        return _content(value, place), "", []
    thoughts: list[str] = []
    calls: list[dict[str, Any]] = []
    texts: list[object] = []
    for index, part in enumerate(value):
        kind, at = part.get("type") if isinstance(part, dict) else None, f"{place}[{index}]"
        if kind == "reasoning":
            thoughts.append(require(part, "value", str, at=at))
        elif kind in CALLS:
            calls += _calls(require(part, "value", str, at=at), at)
        elif isinstance(part, dict) and "value" in part and "text" not in part:
            texts.append({**part, "text": part["value"]})
        else:
            texts.append(part)
    return _content(texts, place), "\n\n".join(thoughts), calls


def _content(value: object, place: str) -> str:
    text = read_content(value, place) or ""
    if MEDIA_MARK.search(text):
        raise RolloutFormatError(f"{place}: found a mark of an image, sound or video, expected text; they are unsupported")
    return text


def _add_calls(turns: list[Turn], content: str, weight: object, at: str) -> None:
    calls = _calls(content, at)
    message: dict[str, Any] = {"role": "assistant", "content": "", "tool_calls": calls}
    if weight is not None:
        message["loss"] = weight
    if turns and turns[-1]["role"] == "assistant" and _is_alike(turns[-1].get("loss"), weight):
        turn_before: dict[str, Any] = dict(turns.pop())
        message = {**turn_before, "tool_calls": [*turn_before.get("tool_calls", []), *calls]}
    turns.append(read_message(message, at))


def _calls(text: str, at: str) -> list[dict[str, Any]]:
    try:
        value = parse_text(text)
    except ValueError as error:
        raise RolloutFormatError(f"{at}: {error}, expected JSON text of a call with name and arguments") from error
    return [_call(call, at) for call in (value if isinstance(value, list) else [value])]


def _is_alike(first: object, second: object) -> bool:
    """Whether two turns have one weight; without one it is 1."""
    return float(1 if first is None else first) == float(1 if second is None else second)  # type: ignore[arg-type]


def _call(value: object, at: str) -> dict[str, Any]:
    call = check(value, at, dict)
    return {"name": require(call, "name", str, at=at), "arguments": call.get("arguments") or {}}


def outcome_of(record: dict[str, Any], key: str) -> tuple[bool | None, float | None]:
    """Success and score of a reward that is a number: 0 and 1 are failure and success, between them a score alone.

    Raises:
        RolloutFormatError: neither a number nor true or false.
    """
    score = read_score(record.get(key), key)
    return (optional_reward(record, key) if score in (0.0, 1.0) else None), score
