"""Finds how a chat template writes tool calls, by having it write some: the syntax in which a native agent's turns are read."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from negtraj_dagster.agent.call_parsers import CALL_SIGNS, PARSERS, ArgumentTypes, CallFormatError
from negtraj_dagster.chat_templates import ChatTemplate
from negtraj_dagster.errors import ModelError
from negtraj_dagster.reasoning import CLOSE, OPEN, split_reasoning
from negtraj_dagster.schema import ConditionedTurn, ToolCall, conditioned_json

MAX_TOKENS = 2**31 - 1
"""Probes are never cut."""
QUESTION, THOUGHT, ANSWER, RESULT = "Linesquestion", "Linesthought", "Linesanswer", "Linesresult"
CALLS: tuple[ToolCall, ToolCall] = (
    {"name": "look_up", "arguments": '{"query": "two \\"words\\" {of} 7"}', "id": "callaaaa1"},
    {"name": "look_up", "arguments": '{"query": "7"}', "id": "callaaaa2"},
)
"""What a template is tried with: quotes, braces, and a text that is a number's."""
TOOLS = (
    '[{"type":"function","function":{"name":"look_up","description":"Look it up.","parameters":{"type":"object",'
    '"properties":{"query":{"type":"string","description":"words"}},"required":["query"]}}}]'
)
TYPES: ArgumentTypes = {"look_up": {"query": ("string",)}}


@dataclass(frozen=True)
class AgentTurn:
    """A generated turn, read.

    Attributes:
        fault: why what looks like a call is none; then `content` is all that is beside the reasoning.
    """

    content: str
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    fault: str | None = None


@dataclass(frozen=True)
class CallSyntax:
    """How a chat template writes an agent's turn.

    Attributes:
        name: a key of PARSERS.
        think_tags: what stands before and behind reasoning.
        is_thought_open: whether prompts open the thought, so that a turn only closes it.
        lead: white space that the template writes before content.
        glue: white space that it writes between content and a call.
        max_calls: of one turn; None = any number.
    """

    name: str
    think_tags: tuple[str, str] = (OPEN, CLOSE)
    is_thought_open: bool = False
    lead: str = ""
    glue: str = ""
    max_calls: int | None = None

    def read(self, text: str, types: ArgumentTypes) -> AgentTurn:
        """A turn's text without its end token, taken apart."""
        reasoning, behind = self._split(text)
        try:
            content, calls = PARSERS[self.name](behind, types)
            if self.max_calls is not None and len(calls) > self.max_calls:
                raise CallFormatError(f"{len(calls)} calls in one turn, where the chat format has {self.max_calls}")
        except CallFormatError as error:
            return AgentTurn(behind, reasoning, fault=str(error))
        content = content.removeprefix(self.lead)
        if calls:
            content = content.removesuffix(self.glue) if content.strip() else ""
        return AgentTurn(content, reasoning, tuple(calls))

    def _split(self, text: str) -> tuple[str, str]:
        opening, closing = self.think_tags
        starts_with_thought = self.is_thought_open or text.lstrip().startswith(opening)
        if not starts_with_thought and closing not in text.partition(CALL_SIGNS[self.name])[0]:
            return "", text
        return split_reasoning(text, tags=self.think_tags)


class _Renderer(Protocol):
    def render(self, conversation: str, *, add_generation_prompt: bool = False) -> list[tuple[str, bool, float]]: ...

    @property
    def end_of_turn(self) -> list[str]: ...


@dataclass(frozen=True)
class _Probe:
    """A turn that the template is to write, and how much it matters that it can."""

    answer: AgentTurn
    is_required: bool = False


PROBES = (
    _Probe(AgentTurn(ANSWER), is_required=True),
    _Probe(AgentTurn("", tool_calls=CALLS[:1]), is_required=True),
    _Probe(AgentTurn(ANSWER, tool_calls=CALLS[:1])),
    _Probe(AgentTurn("", tool_calls=CALLS)),
    _Probe(AgentTurn("", THOUGHT, CALLS[:1])),
    _Probe(AgentTurn(ANSWER, THOUGHT)),
)


def find_call_syntax(template: ChatTemplate, tokenizer_json: Path) -> CallSyntax:
    """The syntax whose parser gives back what the template is made to write.

    Args:
        template: writes one call, two, one behind reasoning, one behind content, and an answer, as far as it can.
        tokenizer_json: its model's.

    Raises:
        ModelError: the template refuses a conversation that every native episode has, or no parser reads what it writes.
        TrajtokError: the tokenizer or the template is refused.
    """
    renderer = template.open_tokenizer(tokenizer_json, max_tokens=MAX_TOKENS)
    texts = [_write(renderer, template, probe) for probe in PROBES]
    _check_prompts(renderer, template)
    max_calls = 1 if texts[3] is None else None
    opening, closing = _think_tags(texts)
    basis = CallSyntax("", (opening or OPEN, closing), is_thought_open=not opening, max_calls=max_calls)
    for syntax in _candidates(texts, basis):
        if all(text is None or _gives(syntax, text, probe.answer) for text, probe in zip(texts, PROBES, strict=True)):
            return syntax
    raise ModelError(
        f"chat template {template.name}: no syntax of tool calls that is known here ({', '.join(PARSERS)}) reads back what it "
        f"writes of a call, {(texts[1] or '')[:200]!r}, beside answers, content and reasoning; native agents cannot be "
        "evaluated with it: set shards.chat_template to another one, or add a parser to agent/call_parsers.py"
    )


def argument_types(tools: str | None) -> ArgumentTypes:
    """The types that tool schemas name, by tool and argument.

    Args:
        tools: JSON text of a list of schemas, each as it is or under `function`.
    """
    types: dict[str, dict[str, tuple[str, ...]]] = {}
    for schema in json.loads(tools) if tools else []:
        function = schema.get("function", schema)
        properties = (function.get("parameters") or {}).get("properties") or {}
        types[function["name"]] = {key: _types_of(value) for key, value in properties.items()}
    return types


def _types_of(schema: object) -> tuple[str, ...]:
    declared = schema.get("type", "string") if isinstance(schema, dict) else "string"
    return (declared,) if isinstance(declared, str) else tuple(declared)


def _write(renderer: _Renderer, template: ChatTemplate, probe: _Probe) -> str | None:
    """What the model would have to generate; None where the template leaves a part of the turn out, or refuses it."""
    turn: ConditionedTurn = {"role": "assistant", "content": probe.answer.content, "weight": 1.0}
    if probe.answer.reasoning:
        turn["reasoning"] = probe.answer.reasoning
    if probe.answer.tool_calls:
        turn["tool_calls"] = list(probe.answer.tool_calls)
    try:
        pieces = renderer.render(conditioned_json([_context("user", QUESTION), turn], TOOLS))
    except ValueError as error:
        if not probe.is_required:
            return None
        kind = "a tool call" if probe.answer.tool_calls else "an answer where tools are offered"
        raise ModelError(
            f"chat template {template.name}: it does not write {kind} ({error}); native agents cannot be evaluated with it: do "
            "what it names, or set shards.chat_template to one that writes tools"
        ) from error
    written = "".join(text for text, _, weight in pieces if weight > 0)
    ends = [written.rfind(token) for token in renderer.end_of_turn if written.rstrip().endswith(token)]
    return written[: max(ends)] if ends else written


def _context(role: str, content: str, **said: object) -> ConditionedTurn:
    return {"role": role, "content": content, "weight": 0.0, **said}  # type: ignore[typeddict-item, return-value]


def _check_prompts(renderer: _Renderer, template: ChatTemplate) -> None:
    """Whether the template goes on behind a tool's result, and behind what an agent is told of a malformed call.

    Raises:
        ModelError: it does not.
    """
    question, call = _context("user", QUESTION), _context("assistant", "", tool_calls=list(CALLS[:1]))
    result = _context("tool", RESULT, tool_call_id=CALLS[0]["id"], name=CALLS[0]["name"])
    conversations = {
        "a tool's result": [question, call, result],
        "two results": [question, call, result, {**call, "tool_calls": [CALLS[1]]}, {**result, "tool_call_id": CALLS[1]["id"]}],
        "a second message of the user": [question, _context("assistant", ANSWER), _context("user", RESULT)],
    }
    for place, turns in conversations.items():
        try:
            renderer.render(conditioned_json(turns, TOOLS), add_generation_prompt=True)  # type: ignore[arg-type]
        except ValueError as error:
            raise ModelError(
                f"chat template {template.name}: it writes no prompt behind {place} ({error}); native agents cannot be "
                "evaluated with it: set shards.chat_template to one that writes tools"
            ) from error


def _think_tags(texts: Sequence[str | None]) -> tuple[str, str]:
    """What stands around the thought before an answer or a call: nothing before it where the prompt opens it; the usual tags
    where the template writes none."""
    for thought, plain in ((texts[5], texts[0]), (texts[4], texts[1])):
        before, is_written, behind = (thought or "").partition(THOUGHT)
        answer = (plain or "").strip()
        if (
            is_written
            and answer
            and behind.rstrip().endswith(answer)
            and (close := behind.rstrip().removesuffix(answer).strip())
        ):
            return before.strip(), close
    return OPEN, CLOSE


def _candidates(texts: Sequence[str | None], basis: CallSyntax) -> Iterator[CallSyntax]:
    for name in PARSERS:
        syntax = replace(basis, name=name)
        contents = ["" if text is None else syntax.read(text, TYPES).content for text in (texts[0], texts[2])]
        lead, glue = contents[0].partition(ANSWER)[0], contents[1].partition(ANSWER)[2]
        yield replace(syntax, lead="" if lead.strip() else lead, glue="" if glue.strip() else glue)


def _gives(syntax: CallSyntax, text: str, expected: AgentTurn) -> bool:
    turn = syntax.read(text, TYPES)
    if turn.fault is not None or len(turn.tool_calls) != len(expected.tool_calls):
        return False
    pairs = zip(turn.tool_calls, expected.tool_calls, strict=True)
    is_same = all((a["name"], json.loads(a["arguments"])) == (b["name"], json.loads(b["arguments"])) for a, b in pairs)
    texts = (turn.content.strip(), turn.reasoning.strip())
    return is_same and texts == (expected.content, expected.reasoning)
