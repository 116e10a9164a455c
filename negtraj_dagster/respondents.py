"""Models as they are asked: which questions, with which prompt, template, tools and limits, as a recipe or a card says."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from negtraj_dagster.chat_templates import ChatTemplate
from negtraj_dagster.checkpoints.build import model_folder
from negtraj_dagster.errors import SettingsError
from negtraj_dagster.recipes import Recipe
from negtraj_dagster.reports.answers import Prompt, Respondent
from negtraj_dagster.reports.build import Suite
from negtraj_dagster.schema import Question, Split, Turn, digest
from negtraj_dagster.settings import Settings
from negtraj_dagster.shards.build import Conditioning
from negtraj_dagster.store import Published, Store, file_sha256
from negtraj_dagster.strategies import STRATEGIES
from negtraj_dagster.strategies.prompt_file import read_prompt_file
from negtraj_dagster.tasks import Task, find_task, load_tasks
from negtraj_dagster.tasks.question_sets import read_questions
from negtraj_dagster.tasks.recorded import UNKNOWN_ANSWER
from negtraj_dagster.views.delivery import VERSION_CHARS, asked

PLACEHOLDER = Question(task="", question_id="", split="test", question="{question}", answer="null")
"""Stands for any question in the prompt of a checkpoint's card."""
UNTAGGED = STRATEGIES["vanilla"]
"""How a model that was never trained is asked."""
NOT_OF_THE_AGENT = {"split", "max_questions", "trials"}
"""Evaluation settings that say what is asked, not how."""


@dataclass(frozen=True)
class Respondents:
    """The models of a deployment as they are asked.

    Attributes:
        template: the chat template that a recipe names, for its base model.
    """

    store: Store
    settings: Settings
    tasks: Mapping[str, Task]
    template: Callable[[Recipe], ChatTemplate]

    def suite(self, recipe: Recipe) -> Suite:
        """What the recipe's checkpoint is evaluated on."""
        of_split = self.held_out(recipe.task, recipe.evaluation.split)
        return Suite(of_split[: recipe.evaluation.max_questions], recipe.evaluation.trials)

    def held_out(self, task: str, split: Split) -> list[Question]:
        """A task's questions of a split whose right answers are known."""
        return [
            question
            for question in self._questions(task)
            if question.split == split and (question.prompt is None or question.answer != UNKNOWN_ANSWER)
        ]

    def passages(self, recipe: Recipe) -> list[str]:
        """What the agent's search looks things up in: the facts of every split, since a suite is to have its evidence."""
        return [fact for question in self._questions(recipe.task) for fact in question.facts]

    def trained(self, recipe: Recipe, checkpoint: Published, *, asked_for: str | None = None) -> Respondent:
        """A checkpoint of the recipe, asked as the recipe now says, or for another class than its strategy asks for."""
        made_with = conditioning(recipe, self.settings)
        class_name = asked_for or made_with.strategy.inference_class
        template = self.template(recipe).to_json()
        return self._of_checkpoint(recipe, checkpoint, template, lambda question: made_with.prompter(question, class_name))

    def by_card(self, recipe: Recipe, checkpoint: Published) -> Respondent:
        """A checkpoint, asked with the prompt and the template that it was trained with, whatever its recipe says now."""
        card = checkpoint.details["card"]
        strategy = STRATEGIES[card["strategy"]["name"]]
        recorded_prompter = strategy.prompter("")

        def prompt(question: Question) -> list[Turn]:
            if question.prompt is not None:
                return strategy.inference_turns(recorded_prompter, question)
            return asked(card, question.question)

        return self._of_checkpoint(recipe, checkpoint, card["chat_template"], prompt)

    def untrained(self, recipe: Recipe) -> Respondent:
        """The recipe's base model, asked without any class's sentence."""
        base = self.store.require(f"base_model/{recipe.base_model}")
        prompter = UNTAGGED.prompter(self.tasks[recipe.task].instruction)
        template = self.template(recipe).to_json()
        in_process = recipe.evaluation.model_copy(update={"client": "model", "server": None})  # no server has it
        as_asked = recipe.model_copy(update={"evaluation": in_process})
        return self._respondent(as_asked, base.version, model_folder(base), template, lambda question: prompter(question, None))

    def _of_checkpoint(self, recipe: Recipe, checkpoint: Published, template: object, prompt: Prompt) -> Respondent:
        respondent = self._respondent(recipe, checkpoint.version, checkpoint.folder / "model", template, prompt)
        return replace(respondent, checkpoint=checkpoint.folder)

    def _respondent(self, recipe: Recipe, version: str, model_dir: Path, template: object, prompt: Prompt) -> Respondent:
        task, limits = self.tasks[recipe.task], recipe.evaluation
        agent = limits.model_dump(mode="json", exclude=NOT_OF_THE_AGENT)
        if limits.server is not None:
            served_name = limits.server.model.format(recipe=recipe.name, version=version[:VERSION_CHARS])
            agent["server"] = {**agent["server"], "model": served_name}
        return Respondent(
            version,
            model_dir,
            task,
            {**agent, "max_turns": limits.max_turns or task.max_turns, "template": template},
            self.passages(recipe) if "search" in task.tools else (),
            prompt,
            sums_depend_on_batch=limits.dtype != "fp32",
        )

    def _questions(self, task: str) -> list[Question]:
        return read_questions(self.store, self.store.require("question_sets"), task)


def conditioning(recipe: Recipe, settings: Settings) -> Conditioning:
    """The recipe's strategy with our wording, or with that of the prompt file it names."""
    strategy = STRATEGIES[recipe.strategy.name]
    task = find_task(recipe.task, load_tasks(settings))
    instruction = task.instruction
    if task.has_recorded_questions and recipe.strategy.prompt_file is not None:
        raise SettingsError(
            f"recipe {recipe.name}: strategy.prompt_file beside the task {task.name}, whose prompts are the recorded ones; "
            f"leave it out"
        )
    file, entry = recipe.strategy.prompt_file, recipe.strategy.prompt_entry or ""
    if file is None:
        return Conditioning(strategy, strategy.prompter(instruction), digest(strategy.identity(), instruction))
    if settings.nat_dir is None and not file.is_absolute():  # the task has no data either, so nothing will be asked
        return Conditioning(strategy, strategy.prompter(instruction), digest(strategy.identity(), "no prompt file"))
    path = (settings.nat_dir or Path()) / file
    return Conditioning(strategy, read_prompt_file(path, entry), digest(strategy.identity(), file_sha256(path), entry))
