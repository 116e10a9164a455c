"""A Jinja template's rows as they are served, in plain Python: what trajtok puts together is proved by.

Templates of reasoning models open or close a block of thought in the prompt and write none in a conversation, so that no row
that they write begins with what is served. Here a conversation that ends with the agent's turn is the prompt before it, and
behind that the answer: what the template writes of the turn where it parts from the prompt. A thought that the prompt opens is
closed as the template closes one; a turn that nothing ends is ended by the token at which a served model stops.
`rust/trajtok/src/template/jinja/served.rs` says the same.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from negtraj_dagster.chat_templates.base import Render
from negtraj_dagster.schema import ConditionedTurn

OPEN, CLOSE = "<think>", "</think>"
CLOSE_BEHIND_LINE, CLOSE_BEHIND_TEXT = "\n</think>\n\n", "</think>"
"""What closes a thought where a template writes none."""
MOST_SHARED = 16
"""Tokens that a prompt's end and an answer's beginning are searched for in common."""
ASKED, THOUGHT, ANSWERED = "Linesquestion", "Linesthought", "Linesanswer"
"""What a template is tried with."""


def served_render(render: Render, added_tokens: Iterable[str], stops: Sequence[str]) -> Render:
    """The template as rows are made of it that are as they are served.

    Args:
        render: the template.
        added_tokens: of the tokenizer.
        stops: the tokens by which the agent's turn ends.
    """
    served: _Served | None = None

    def write(turns: Sequence[ConditionedTurn], tools: str | None, add_generation_prompt: bool) -> str:
        nonlocal served
        written = render(turns, tools, add_generation_prompt)
        if add_generation_prompt or not turns or turns[-1]["role"] != "assistant":
            return written
        served = served or _learn(render, added_tokens, stops)
        prompt = render(turns[:-1], tools, True)
        row = served.compose(prompt, _tried(render, turns[:-1], tools) or "", written, turns[-1])
        return written if row is None else row

    return write


def _tried(render: Render, turns: Sequence[ConditionedTurn], tools: str | None = None) -> str | None:
    """What is written of a conversation; None where the template, which is a program, refuses it.

    Raises:
        MemoryError, OSError: the machine does.
    """
    try:
        return render(turns, tools, False)
    except (MemoryError, OSError):
        raise
    except Exception:
        return None


def _learn(render: Render, added_tokens: Iterable[str], stops: Sequence[str]) -> "_Served":
    asked: ConditionedTurn = {"role": "user", "content": ASKED, "weight": 0.0}
    answered: ConditionedTurn = {"role": "assistant", "content": ANSWERED, "weight": 0.0}
    prompt, plain = render([asked], None, True), render([asked, answered], None, False)
    tokens = re.compile("|".join(re.escape(token) for token in sorted({*added_tokens, OPEN, CLOSE}, key=len, reverse=True)))
    served = _Served(tokens, tuple(stops))
    served.again = served.asked_again(prompt, plain)
    served.lacks_end = not served.is_ended(plain.removesuffix(served.again))
    if served.lacks_end:
        served.call_end = _call_end(render, served)
    if (thought := _tried(render, [asked, {**answered, "reasoning": THOUGHT}])) is None:
        return served
    before, is_written, behind = thought.partition(THOUGHT)
    served.writes_thoughts = bool(is_written)
    close, is_said, _ = behind.partition(ANSWERED)
    opened = prompt[len(before.rstrip()) :]
    if not (is_written and is_said and close.strip() and prompt.startswith(before.rstrip())):
        return served
    if close.strip() in opened and not before.rstrip().endswith(OPEN):
        return served
    same = served.common(prompt, plain)
    if close.strip() not in opened:
        served.opens = prompt[same:].strip()
    # what answers begin with in any case closes nothing, unless that is all there is
    glue = plain[same : max(plain.rfind(ANSWERED), same)]
    own = close.removesuffix(glue)
    served.closes_itself = None if own.strip() else glue.strip()
    served.close = own if served.closes_itself is None else ""
    return served


def _call_end(render: Render, served: "_Served") -> str | None:
    """The token by which a call ends that the template ends by nothing: the first behind it where its result follows."""
    calling: ConditionedTurn = {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"name": "t", "arguments": '{"a":"b"}', "id": "callabcde"}],
        "weight": 0.0,
    }
    turns: list[ConditionedTurn] = [
        {"role": "user", "content": "a", "weight": 0.0},
        calling,
        {"role": "tool", "content": ASKED, "tool_call_id": "callabcde", "weight": 0.0},
    ]
    call, result = (_tried(render, turns[:n], CALL_TOOLS) for n in (2, 3))
    if call is None or result is None or served.is_ended(call):
        return None
    return served.first_behind(call.rstrip(), result)


CALL_TOOLS = (
    '[{"type":"function","function":{"name":"t","description":"d","parameters":'
    '{"type":"object","properties":{"a":{"type":"string"}},"required":["a"]}}}]'
)


@dataclass
class _Served:
    """How answers go on behind prompts.

    Attributes:
        tokens: finds added tokens and tags.
        stops: the tokens by which turns end; `lacks_end`: the template writes none behind a conversation's last turn.
        opens: what prompts end with that open a thought, beside `<think>`.
        close: what closes a thought before what is said; None where the template shows none, empty where answers begin with it
            themselves: with `closes_itself`.
        writes_thoughts: whether the template writes any.
        again: what the template writes behind a conversation that ends with an answer as if it were asked again.
        call_end: the token by which a turn ends that calls a tool, where the template ends it by nothing.
    """

    tokens: re.Pattern[str]
    stops: tuple[str, ...]
    lacks_end: bool = False
    opens: str = ""
    close: str | None = None
    closes_itself: str | None = None
    writes_thoughts: bool = False
    again: str = ""
    call_end: str | None = None

    def compose(self, prompt: str, before: str, written: str, turn: ConditionedTurn) -> str | None:
        """The prompt and the answer; None where the answer may not belong there.

        Args:
            prompt: what a served model is given.
            before: what is written of the conversation before the turn.
            written: of the conversation that ends with it.
            turn: itself.
        """
        written = written.removesuffix(self.again)
        same = self.common(prompt, written)
        row, answer = prompt, written[same:]
        if same < len(prompt):
            thought = (turn.get("reasoning") or "") if (turn.get("reasoning") or "").strip() else ""
            if thought and (self.writes_thoughts or thought.strip() in answer):
                return None
            is_open, is_early = self._is_open(prompt), same < len(before) and before != prompt
            if is_open:
                row += thought + (self.close if self.close is not None else self._default_close(prompt))
                begins = self.closes_itself
                if is_early or (begins is not None and (thought or not answer.lstrip().startswith(begins))):
                    return None
            rest, added = self._behind(row, answer), prompt[same:]
            stands_once = rest is not None and (is_early or not self.tokens.sub("", added).strip())
            if not is_open and not stands_once and (is_early or not self._is_closed(added.strip())):
                return None
            answer = answer if rest is None else rest
        row += answer
        end = self.call_end if turn.get("tool_calls") else self.stops[0]
        return row.rstrip() + end if self.lacks_end and end is not None and not self.is_ended(row) else row

    def first_behind(self, shorter: str, longer: str) -> str | None:
        """The token with which a longer text goes on."""
        rest = longer[self.common(shorter, longer) :]
        return next((match[0] for match in self._leading(rest)), None)

    def asked_again(self, prompt: str, plain: str) -> str:
        """What stands behind the answer's own tokens from a token on by which messages start, where it is more than tokens."""
        _, _, behind = plain.rpartition(ANSWERED)
        starts = [match[0] for match in self._leading(prompt)]
        found = self._leading(behind)
        first = next((n for n, match in enumerate(found) if match[0] in starts), 0)
        return behind[found[first].start() :] if first and self.tokens.sub("", behind).strip() else ""

    def is_ended(self, written: str) -> bool:
        """Whether a token that ends a turn is among those that a text ends with."""
        return any(token in self.stops for token in self._trailing(written))

    def common(self, one: str, other: str) -> int:
        """How many characters both begin with, up to a token in which they part."""
        same = next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
        parted = [
            match.start() for text in (one, other) for match in self.tokens.finditer(text) if match.start() < same < match.end()
        ]
        return min([same, *parted])

    @staticmethod
    def _default_close(prompt: str) -> str:
        return CLOSE_BEHIND_LINE if prompt.endswith("\n") else CLOSE_BEHIND_TEXT

    def _is_open(self, prompt: str) -> bool:
        endings = (OPEN, self.opens) if self.opens else (OPEN,)
        return prompt.rstrip().endswith(endings)

    def _is_closed(self, added: str) -> bool:
        tokens = list(self.tokens.finditer(added))
        is_pair = len(tokens) > 1 and tokens[-1].end() == len(added) and _name_of(tokens[0][0]) == _name_of(tokens[-1][0])
        return not added or added.endswith(CLOSE) or is_pair

    def _behind(self, before: str, answer: str) -> str | None:
        """The answer without the tokens that stand at the end of what is before it; None where there are none."""
        trailing, leading = self._trailing(before), self._leading(answer)
        found = [match[0] for match in leading]
        n_most = min(len(found), len(trailing), MOST_SHARED)
        shared = [n for n in range(1, n_most + 1) if trailing[-n:] == found[:n]]
        if not shared:
            return None
        return answer[leading[shared[-1] - 1].end() :].removeprefix(before[len(before.rstrip()) :])

    def _leading(self, text: str) -> list[re.Match[str]]:
        """Tokens at the start, with nothing but white space before and between them."""
        tokens: list[re.Match[str]] = []
        at = 0
        for match in self.tokens.finditer(text):
            if text[at : match.start()].strip():
                break
            tokens.append(match)
            at = match.end()
        return tokens

    def _trailing(self, text: str) -> list[str]:
        """Tokens at the end, with nothing but white space behind and between them."""
        tokens: list[str] = []
        at = len(text)
        for match in reversed(list(self.tokens.finditer(text))):
            if text[match.end() : at].strip():
                break
            tokens.insert(0, match[0])
            at = match.start()
        return tokens


def _name_of(token: str) -> str:
    """What a token is of: `thinking` of `<|START_THINKING|>` and of `<|END_THINKING|>`."""
    letters = "".join(filter(str.isalnum, token)).lower()
    part = next((part for part in ("start", "end", "begin", "open", "close") if letters.startswith(part)), "")
    return letters.removeprefix(part)
