"""FireAct's trajectory dumps: one object, by the question's number, each with an episode's ReAct text, its F1 and its outcome.

`traj` is a list of messages, or one text in Alpaca's layout: the prompt is the instruction, the rest the episode.
"""

import re
from typing import TYPE_CHECKING, Any

from negtraj_dagster.errors import RolloutFormatError
from negtraj_dagster.rollouts.formats.base import Reading, extra_json, split_prompt
from negtraj_dagster.rollouts.formats.fields import check, optional_answer, optional_reward, read_score, require
from negtraj_dagster.rollouts.formats.openai import read_messages
from negtraj_dagster.schema import Rollout, Turn

if TYPE_CHECKING:
    from negtraj_dagster.rollouts.documents import FileDocument

KEYS = {"reward", "f1", "gt", "pred", "traj", "traj_by_line", "prompt"}
INSTRUCTION = re.compile(r"### Instruction:\n(?P<asked>.*?)\n*### Response:\n?(?P<episode>.*)\Z", re.DOTALL)
OBSERVED = re.compile(r"\n(?=Observation:)")
SPOKEN = re.compile(r"\n(?=(?:Thought|Action):)")


def read_file(task: str, document: "FileDocument") -> Reading:
    """All episodes of a dump.

    Raises:
        RolloutFormatError: the file is no object of episodes.
    """
    episodes = document.objects[0] if len(document.objects) == 1 else {}
    if not any(isinstance(episode, dict) and "traj" in episode for episode in episodes.values()):
        raise RolloutFormatError("expected one object of episodes by number, each with the key traj")
    rollouts: list[Rollout | RolloutFormatError] = []
    for number, episode in episodes.items():
        try:
            rollouts.append(_rollout(task, number, check(episode, number, dict)))
        except RolloutFormatError as error:
            rollouts.append(RolloutFormatError(f"{number}: {error}"))
    return rollouts


def _rollout(task: str, number: str, episode: dict[str, Any]) -> Rollout:
    value = require(episode, "traj", object)
    turns = _turns(value) if isinstance(value, str) else read_messages(check(value, "traj", list), "traj")[0]
    prompt, agent_turns = split_prompt(turns, "traj")
    return Rollout(
        task=task,
        question_id=number,
        source="fireact",
        turns=agent_turns,
        reward=optional_reward(episode, "reward"),
        pred=optional_answer(episode, "pred"),
        gold=optional_answer(episode, "gt"),
        score=read_score(episode.get("f1"), "f1"),
        prompt=prompt,
        extra=extra_json({key: value for key, value in episode.items() if key not in KEYS}),
    )


def _turns(text: str) -> list[Turn]:
    match = INSTRUCTION.search(text)
    if match is None:
        raise RolloutFormatError("traj: no '### Instruction:' and '### Response:' in the text, expected both")
    turns: list[Turn] = [{"role": "user", "content": match["asked"].strip()}]
    for part in OBSERVED.split(match["episode"].rstrip("\n")):
        if not part.startswith("Observation:"):
            turns.append({"role": "assistant", "content": part})
            continue
        observation, *answers = SPOKEN.split(part, maxsplit=1)
        turns.append({"role": "user", "content": observation})
        turns += [{"role": "assistant", "content": answer} for answer in answers]
    return turns
