"""Loads studies: arms of recipes trained with several seeds, so that a difference can be told from the noise of training.

A study is one file of studies/*.toml, or of `studies/` in the home, and one asset. Its cells (an arm, a number of failures, a
seed) are recipes of their own, made here from the arm's and never listed.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from negtraj_dagster import paths
from negtraj_dagster.errors import SettingsError
from negtraj_dagster.recipes import NAME, Recipe, SelectionSettings
from negtraj_dagster.settings import Settings, Strict, did_you_mean, parse, read_toml


class StudyArm(Strict):
    """An arm: a recipe, or another arm's checkpoints (`like`) asked for another class (`asked_for`).

    `shuffle_labels` deals the classes of its selected rollouts out anew: a control whose tags say nothing.
    """

    recipe: str | None = None
    like: str | None = None
    asked_for: Literal["positive", "negative"] | None = None
    shuffle_labels: bool = False

    @model_validator(mode="after")
    def _is_trained_or_like_one(self) -> "StudyArm":
        if (self.recipe is None) == (self.like is None) or (self.like is not None) != (self.asked_for is not None):
            raise ValueError("either recipe, what is trained; or like, another arm, with asked_for")
        return self


class NegativesSettings(Strict):
    """Which arms are trained on how many failures; `none` is the arm that stands for no failure at all.

    `seeds` are the first ones of the study's where it names fewer.
    """

    arms: tuple[str, ...]
    none: str
    counts: tuple[int, ...]
    n_seeds: int | None = Field(None, ge=1)


class Variation(Strict):
    """What every arm of the study changes in its recipe, beside the seeds."""

    selection: Mapping[str, Any] = {}


class Study(Strict):
    """One study; `pairs` are the differences that are told, first minus second, paired by seed and question."""

    name: str
    description: str
    seeds: tuple[int, ...] = Field(min_length=2)
    split: Literal["practice", "gate", "test"] = "test"
    arms: dict[str, StudyArm]
    pairs: tuple[tuple[str, str], ...] = Field(min_length=1)
    negatives: NegativesSettings | None = None
    vary: Variation = Variation()


@dataclass(frozen=True)
class Cell:
    """One training of a study, or another question of its checkpoint (`asked_for`).

    Attributes:
        n_negatives: limit of failures; None: the recipe's own.
    """

    arm: str
    n_negatives: int | None
    seed: int
    recipe: Recipe
    asked_for: str | None = None


def load_studies(settings: Settings, recipes: Mapping[str, Recipe]) -> dict[str, Study]:
    """All studies by name; one of the home stands for a shipped one of its name.

    Raises:
        SettingsError: an unknown key, arm or recipe, with the nearest known one.
    """
    files: dict[str, Path] = {}
    for folder in (paths.shipped("studies"), settings.home / "studies"):
        files |= {path.stem: path for path in sorted(folder.glob("*.toml"))}
    return {name: _load(name, path, recipes) for name, path in sorted(files.items())}


def _load(name: str, path: Path, recipes: Mapping[str, Recipe]) -> Study:
    if not NAME.match(name):
        raise SettingsError(f"{path}: a study's name has lower-case letters, digits and _ only; rename the file")
    study = parse(Study, {**read_toml(path), "name": name}, path)
    for arm_name, arm in study.arms.items():
        if arm.recipe is not None and arm.recipe not in recipes:
            raise SettingsError(f"{path}: arms.{arm_name}.recipe = {arm.recipe!r}{did_you_mean(arm.recipe, recipes)}")
    arm_names = [*(arm.like for arm in study.arms.values() if arm.like), *(side for pair in study.pairs for side in pair)]
    if study.negatives:
        arm_names += [*study.negatives.arms, study.negatives.none]
    if unknown := next((arm_name for arm_name in arm_names if arm_name not in study.arms), None):
        raise SettingsError(f"{path}: no arm {unknown!r}{did_you_mean(unknown, study.arms)}")
    if unknown := next((key for key in study.vary.selection if key not in SelectionSettings.model_fields), None):
        raise SettingsError(f"{path}: vary.selection.{unknown}{did_you_mean(unknown, SelectionSettings.model_fields)}")
    parse(SelectionSettings, dict(study.vary.selection), path)
    of_tasks = {(recipe.task, recipe.base_model) for recipe in trained_recipes(study, recipes)}
    if len(of_tasks) != 1:
        raise SettingsError(
            f"{path}: its recipes are of several tasks or base models, which no seed makes comparable: {of_tasks}"
        )
    return study


def trained_recipes(study: Study, recipes: Mapping[str, Recipe]) -> list[Recipe]:
    """The recipes that a study's arms are made from, each once."""
    names = dict.fromkeys(arm.recipe for arm in study.arms.values() if arm.recipe is not None)
    return [recipes[name] for name in names]


def varied(study: Study, recipe: Recipe) -> SelectionSettings:
    """The recipe's selection with what the study changes in it."""
    return recipe.selection.model_copy(update=dict(study.vary.selection))


def cells(study: Study, recipes: Mapping[str, Recipe]) -> list[Cell]:
    """Everything the study trains and asks, seed by seed, so that a study that is cut short has whole seeds."""
    made: dict[tuple[str, int | None, int], Cell] = {}
    for seed in study.seeds:
        for cell in _cells_of_seed(study, recipes, seed):
            made.setdefault((cell.arm, cell.n_negatives, seed), cell)
    if study.negatives:
        seeds = study.seeds[: study.negatives.n_seeds]
        for seed in seeds:
            for arm in study.negatives.arms:
                for count in study.negatives.counts:
                    cell = _cell(study, recipes, arm, seed, count)
                    made.setdefault((arm, cell.n_negatives, seed), cell)
    return list(made.values())


def _cells_of_seed(study: Study, recipes: Mapping[str, Recipe], seed: int) -> Iterator[Cell]:
    for name in study.arms:
        yield _cell(study, recipes, name, seed, None)


def _cell(study: Study, recipes: Mapping[str, Recipe], name: str, seed: int, n_negatives: int | None) -> Cell:
    arm = study.arms[name]
    trained_name = arm.like or name
    trained = study.arms[trained_name]
    assert trained.recipe is not None
    recipe = recipes[trained.recipe]
    selection = varied(study, recipe)
    if n_negatives == selection.max_negatives:
        n_negatives = None
    selection = selection.model_copy(
        update={
            "sample_seed": seed,
            "shuffle_labels": trained.shuffle_labels,
            **({} if n_negatives is None else {"max_negatives": n_negatives}),
        }
    )
    suffix = "" if n_negatives is None else f".n{n_negatives}"
    changes = {
        "name": f"{study.name}.{trained_name}{suffix}.s{seed}",
        "selection": selection,
        "training": recipe.training.model_copy(update={"seed": seed}),
        "role": "study",
    }
    return Cell(name, n_negatives, seed, recipe.model_copy(update=changes), arm.asked_for)
