"""The lineage without Dagster: for every asset one method that hands its stage what it needs and returns what is published.

The asset bodies in defs/ call these, and so does `negtraj plan`: what is planned is what runs.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from negtraj_dagster import base_models, sql
from negtraj_dagster.chat_templates import ChatTemplate
from negtraj_dagster.chat_templates.choose import choose_template
from negtraj_dagster.checkpoints.build import build_checkpoint, model_folder
from negtraj_dagster.errors import StoreError
from negtraj_dagster.gates import line_gate
from negtraj_dagster.graph import parse_key
from negtraj_dagster.launch import RunChild
from negtraj_dagster.recipes import Recipe, load_recipes
from negtraj_dagster.reports.answers import ask, count_unasked, play
from negtraj_dagster.reports.build import build_report
from negtraj_dagster.reports.champion import crown_champion
from negtraj_dagster.reports.compare import Arm, BaseArm, compare_arms
from negtraj_dagster.reports.metrics import score_rows
from negtraj_dagster.reports.study import build_study, outcome_of, publish_empty_study
from negtraj_dagster.respondents import PLACEHOLDER, Respondents, conditioning
from negtraj_dagster.rollouts.collect import land_teacher_rollouts
from negtraj_dagster.rollouts.read import read_landed_files
from negtraj_dagster.schema import Question
from negtraj_dagster.settings import Settings
from negtraj_dagster.shards.build import Selected, build_shards
from negtraj_dagster.shards.rows import RowSettings
from negtraj_dagster.shards.show import Shards, open_shards
from negtraj_dagster.shards.tokenize import token_rule
from negtraj_dagster.store import Published, Store, read_json_lines
from negtraj_dagster.strategies import STRATEGIES
from negtraj_dagster.studies import Study, load_studies
from negtraj_dagster.studies import cells as study_cells
from negtraj_dagster.tasks import Task, load_tasks
from negtraj_dagster.tasks.question_sets import build_question_sets, read_questions, refuse_broken_task
from negtraj_dagster.trajectories.corpus import build_corpus
from negtraj_dagster.trajectories.judging.rules import TaskRule
from negtraj_dagster.trajectories.score import Scoring, score_rollouts
from negtraj_dagster.trajectories.select import ClassLimit, SelectionRule, select_rollouts
from negtraj_dagster.trajectories.set_judging import CorpusInputs
from negtraj_dagster.views.catalog.catalog import CATALOG, write_catalog
from negtraj_dagster.views.delivery import Named
from negtraj_dagster.views.quality_page.page import write_quality_page
from negtraj_dagster.views.write import write_if_changed

LOG = logging.getLogger(__name__)


class Lineage:
    """Every asset of one deployment.

    Args:
        store: where everything is published.
        settings: the deployment's.
        run_child: how trainers, evaluators and model makers are run.
    """

    def __init__(self, store: Store, settings: Settings, run_child: RunChild) -> None:
        self.store, self.settings, self.run_child = store, settings, run_child

    @cached_property
    def recipes(self) -> dict[str, Recipe]:
        """All recipes of the deployment."""
        return dict(load_recipes(self.settings))

    @cached_property
    def studies(self) -> dict[str, Study]:
        """All studies of the deployment."""
        return load_studies(self.settings, self.recipes)

    @cached_property
    def tasks(self) -> dict[str, Task]:
        """All tasks of the deployment."""
        return load_tasks(self.settings)

    @cached_property
    def scoring(self) -> Scoring:
        """The deployment's SQL files, and what they know of its tasks."""
        settings = self.settings
        limits = sql.Limits(settings.sql.deadline_s, settings.sql.memory_mb)
        rules = {name: task_rule(task, self.recipes.values()) for name, task in self.tasks.items()}
        return Scoring(sql.load_registry(settings.sql_dirs), rules, self.tasks, settings.labels.scorers, limits)

    def build(self, asset: str) -> Published:
        """Any asset by its key, `wordtraps_nat/checkpoint`; what it is made of must be materialized."""
        kind, subject = parse_key(asset)
        build: Callable[..., Published] = getattr(self, kind.name)
        if not subject:
            return build()
        return build(self.recipes[subject] if kind.is_of_recipe else subject)

    def question_sets(self) -> Published:
        """`question_sets`."""
        is_recorded = any(task.has_recorded_questions for task in self.tasks.values())
        raw = self.store.require("raw_rollouts") if is_recorded else None
        return build_question_sets(self.store, self.settings, raw)

    def base_model(self, name: str) -> Published:
        """`base_model/<name>`."""
        return base_models.publish_base_model(
            self.store, self.settings, name, lambda module, config: self.run_child(module, config, 1, 1)
        )

    def raw_rollouts(self) -> Published:
        """`raw_rollouts`; the embedded teacher lands its file first."""
        land_teacher_rollouts(self.settings)
        return read_landed_files(self.store, self.settings)

    def scored_trajectories(self) -> Published:
        """`scored_trajectories`."""
        raw, questions = self.store.require("raw_rollouts"), self.store.require("question_sets")
        return score_rollouts(self.store, raw, questions, self.scoring)

    def trajectory_corpus(self, task: str) -> Published:
        """`trajectory_corpus/<task>`."""
        inputs = CorpusInputs(*(self.store.require(name) for name in ("raw_rollouts", "scored_trajectories", "question_sets")))
        refuse_broken_task(inputs.questions, task)
        return build_corpus(self.store, inputs, self.scoring.rules[task], self.scoring)

    def show_corpus(self, task: str) -> dict[str, Path]:
        """Write what people open of a corpus, for it is no object: the quality page, with what flipped, and the catalogue."""
        asset = f"trajectory_corpus/{task}"
        corpus = self.store.require(asset)
        files = {"catalog": self._show_catalog()}
        if not corpus.is_empty:
            raw, scored = (self.store.require(name) for name in ("raw_rollouts", "scored_trajectories"))
            profiles = sql.load_profiles(self.scoring.registry)
            previous = self.store.before(asset)
            shows = {
                **{published.asset: published.key for published in (raw, scored, corpus)},
                "previous": previous.key if previous else None,
                "profiles": {name: profile.identity() for name, profile in profiles.items()},
            }
            files["quality_page"] = write_if_changed(
                self.store,
                f"quality/{task}.html",
                shows,
                lambda: write_quality_page(self.store, raw, corpus, scored, profiles, previous),
            )
        return files

    def _show_catalog(self) -> Path:
        registry = self.scoring.registry
        present = {asset: published.key for asset in self.store.assets() if (published := self.store.current(asset))}
        reports = {name: file.version for name, file in registry.files["reports"].items()}
        write = partial(write_catalog, self.store, registry)
        return write_if_changed(self.store, CATALOG, {"present": present, "reports": reports}, write)

    def training_selection(self, recipe: Recipe) -> Published:
        """`<recipe>/training_selection`."""
        corpus, questions = self.store.require(f"trajectory_corpus/{recipe.task}"), self.store.require("question_sets")
        return select_rollouts(self.store, corpus, questions, self.selection_rule(recipe), recipe.task)

    def tokenized_shards(self, recipe: Recipe) -> Published:
        """`<recipe>/tokenized_shards`."""
        store, shards = self.store, recipe.shards
        selected = Selected(
            selection=store.require(f"{recipe.name}/training_selection"),
            corpus=store.require(f"trajectory_corpus/{recipe.task}"),
            raw=store.require("raw_rollouts"),
            questions=self._questions(recipe),
        )
        base = model_folder(store.require(f"base_model/{recipe.base_model}"))
        row_settings = RowSettings(shards.reasoning, shards.missing_tools, shards.ids)
        rule = token_rule(base, self._template(recipe), shards.max_tokens, shards.over_length, row_settings)
        made_with = conditioning(recipe, self.settings)
        return build_shards(store, recipe.name, selected=selected, conditioning=made_with, rule=rule)

    def show_selections(self) -> Path:
        """Write the catalogue anew, with the present selections."""
        return self._show_catalog()

    def shards_to_show(self, recipe: Recipe) -> Shards | None:
        """`<recipe>/tokenized_shards` as it is now, for reading; None where there are no rows yet."""
        base = self.store.current(f"base_model/{recipe.base_model}")
        if base is None:
            return None
        return open_shards(self.store, recipe.name, model_folder(base) / "tokenizer.json")

    def _template(self, recipe: Recipe) -> ChatTemplate:
        """The chat template that the recipe names, for its base model."""
        base = model_folder(self.store.require(f"base_model/{recipe.base_model}"))
        shards = recipe.shards
        variables, empty_think = shards.template_variables, shards.empty_think
        as_served = shards.reasoning == "as_served"
        return choose_template(shards.chat_template, base, settings=variables, empty_think=empty_think, as_served=as_served)

    def checkpoint(self, recipe: Recipe) -> Published:
        """`<recipe>/checkpoint`."""
        shards = self.store.require(f"{recipe.name}/tokenized_shards")
        made_with = conditioning(recipe, self.settings)
        card = {
            "task": recipe.task,
            "strategy": recipe.strategy.model_dump(mode="json"),
            "conditioning": made_with.identity,
            "prompt": made_with.strategy.inference_turns(made_with.prompter, PLACEHOLDER),
            "chat_template": shards.details.get("chat_template") or self._template(recipe).to_json(),
            "n_contaminated": shards.content.get("n_contaminated", 0),
        }
        return build_checkpoint(
            self.store,
            recipe.name,
            shards=shards,
            base=self.store.require(f"base_model/{recipe.base_model}"),
            training=recipe.training.model_dump(mode="json", exclude={"warm_start"}),
            card=card,
            run_child=self.run_child,
            classes=STRATEGIES[recipe.strategy.name].classes,
            warm_start=_warm_start(recipe),
            recipe_settings=recipe.model_dump(mode="json"),
        )

    @cached_property
    def respondents(self) -> Respondents:
        """Models as they are asked, and what they are asked."""
        return Respondents(self.store, self.settings, self.tasks, self._template)

    def ask(self, named: Named, question: str) -> dict[str, Any]:
        """The episode of a checkpoint that is asked a question: turns, prediction, status."""
        self.store.verify(named.checkpoint.folder)
        respondent = self.respondents.by_card(named.recipe, named.checkpoint)
        asked_question = replace(PLACEHOLDER, task=named.recipe.task, question_id="asked", question=question)
        with self.store.scratch() as scratch:
            play(self.store, respondent, {"asked": (asked_question, 0)}, scratch, self.run_child)
            (path,) = scratch.glob("answers-*.jsonl")
            (episode,) = read_json_lines(path)
        return dict(episode)

    def evaluation_report(self, recipe: Recipe) -> Published:
        """`<recipe>/evaluation_report`."""
        checkpoint = self.store.require(f"{recipe.name}/checkpoint")
        shards = self.store.require(f"{recipe.name}/tokenized_shards")
        is_of_shards = not checkpoint.is_empty and checkpoint.details["card"]["lineage"]["shards"] == shards.version
        return build_report(
            self.store,
            recipe.name,
            checkpoint=checkpoint,
            respondent=None if checkpoint.is_empty else self.respondents.trained(recipe, checkpoint),
            suite=self.respondents.suite(recipe),
            prompt_identity=conditioning(recipe, self.settings).identity,
            task=self.tasks[recipe.task],
            trained_on=shards.details.get("contaminated_questions") if is_of_shards else None,
            run_child=self.run_child,
        )

    def count_unasked(self, recipe: Recipe) -> int:
        """How many episodes `evaluation_report` would play now."""
        checkpoint, suite = self.store.require(f"{recipe.name}/checkpoint"), self.respondents.suite(recipe)
        respondent = self.respondents.trained(recipe, checkpoint)
        return count_unasked(self.store, respondent, suite.questions, trials=suite.trials)

    def count_unasked_of_bases(self, line: str) -> int:
        """How many episodes of base models `recipe_comparison` would play now."""
        return sum(
            count_unasked(self.store, base.respondent, base.suite.questions, trials=base.suite.trials)
            for base in self._bases(line)
        )

    def recipe_comparison(self, line: str) -> Published:
        """`recipe_comparison/<line>`."""
        recipes = [recipe for recipe in self.recipes.values() if recipe.line == line]
        stages = ("evaluation_report", "checkpoint", "training_selection")
        arms = [
            Arm(recipe.name, recipe.role, *(self.store.require(f"{recipe.name}/{stage}") for stage in stages))
            for recipe in recipes
        ]
        return compare_arms(self.store, line, arms, self._bases(line), comparison_notes(recipes), self.run_child)

    def _bases(self, line: str) -> list[BaseArm]:
        """The base models of a line's recipes, each once."""
        asking = self.respondents
        bases = {
            recipe.base_model: BaseArm(f"base_model/{recipe.base_model}", asking.untrained(recipe), asking.suite(recipe))
            for recipe in self.recipes.values()
            if recipe.line == line
        }
        return list(bases.values())

    def champion(self, line: str) -> Published:
        """`champion/<line>`."""
        gate = line_gate(self.store, self.settings.gate_of(line), self.respondents, line, list(self.recipes.values()))
        return crown_champion(self.store, gate, self.run_child)

    def study(self, study: Study, tell: Callable[[str], None] = LOG.info) -> Published:
        """`study/<name>`: every cell is trained and asked, those that are there already are not, then they are counted."""
        outcomes, versions, segments = [], {}, set()
        cells = study_cells(study, self.recipes)
        for number, cell in enumerate(cells, 1):
            recipe = cell.recipe
            tell(f"{number} of {len(cells)}: {recipe.name}{f' asked for {cell.asked_for}' if cell.asked_for else ''}")
            self.training_selection(recipe)
            self.tokenized_shards(recipe)
            checkpoint = self.checkpoint(recipe)
            if checkpoint.is_empty:
                return publish_empty_study(self.store, study, checkpoint)
            respondent = self.respondents.trained(recipe, checkpoint, asked_for=cell.asked_for)
            questions = self.respondents.held_out(recipe.task, study.split)
            answers = ask(self.store, respondent, questions, self.run_child)
            if answers.unanswered:
                raise StoreError(
                    f"study {study.name}: {len(answers.unanswered)} of {len(answers.rows)} episodes of {recipe.name} were "
                    "ended by the machine or the server; run again: the others are kept"
                )
            segments |= set(answers.segments)
            rows = score_rows(answers.rows, questions, self.tasks[recipe.task])
            outcomes.append(outcome_of(cell, rows))
            versions[f"{recipe.name} {cell.asked_for or ''}".strip()] = [checkpoint.version, respondent.table]
        return build_study(self.store, study, outcomes, versions, self.recipes, segments)

    def selection_rule(self, recipe: Recipe) -> SelectionRule:
        """The recipe's slice for the selection stage."""
        selection = recipe.selection
        limits = {
            "positive": ClassLimit(
                selection.positive_rate,
                selection.max_positives_per_question,
                selection.max_positives,
                selection.repeat_positives,
            ),
            "negative": ClassLimit(
                selection.negative_rate,
                selection.max_negatives_per_question,
                selection.max_negatives,
                selection.repeat_negatives,
            ),
        }
        return SelectionRule(
            recipe=recipe.name,
            profile=sql.find_profile(self.scoring.registry, selection.profile),
            choice=self.scoring.registry.one("selection", "choice").with_parameters({"seed": str(selection.sample_seed)}),
            classes=STRATEGIES[recipe.strategy.name].classes,
            limits=limits,
            min_quality=selection.min_quality,
            allow_contaminated=selection.allow_contaminated,
            shuffle_seed=selection.sample_seed if selection.shuffle_labels else None,
        )

    def _questions(self, recipe: Recipe) -> list[Question]:
        return read_questions(self.store, self.store.require("question_sets"), recipe.task)


def task_rule(task: Task, recipes: Iterable[Recipe]) -> TaskRule:
    """What SQL files know of a task; its limit in tokens is that of the recipe with the longest rows."""
    longest = [recipe.shards.max_tokens for recipe in recipes if recipe.task == task.name]
    terminal = (task.terminal_action,)
    return TaskRule(task.name, task.style, terminal, task.allowed_actions, task.min_chars, max(longest, default=None))


def _warm_start(recipe: Recipe) -> str | None:
    name = recipe.training.warm_start
    if name is None:
        return None
    return f"champion/{recipe.line}" if name == "champion" else f"{name}/checkpoint"


def comparison_notes(recipes: Sequence[Recipe]) -> list[str]:
    """What a reader of the comparison has to know of how the arms were made."""
    notes = []
    repeats = {recipe.name: recipe.selection.repeat_positives for recipe in recipes}
    for times in sorted({times for times in repeats.values() if times > 1}):
        names = ", ".join(name for name, n_times in repeats.items() if n_times == times)
        notes.append(f"Every positive rollout stands {times} times in an epoch of {names}.")
    if len({recipe.training.steps for recipe in recipes}) == 1 and len(recipes) > 1:
        notes.append("All arms take the same number of optimiser steps; epochs differ.")
    seeds = sorted({recipe.training.seed for recipe in recipes})
    notes.append(f"Training seed {', '.join(map(str, seeds))}: one run per arm, so the intervals leave out training noise.")
    return notes
