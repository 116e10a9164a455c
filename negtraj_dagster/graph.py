"""The graph of assets: one row a kind, from which definitions, lineage, plans and the catalogue take keys and edges.

A checkpoint that starts from another one is no edge: the parent is pinned when it is first asked for, so that a parent that
moves makes nothing stale.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from negtraj_dagster.recipes import Recipe


@dataclass(frozen=True)
class AssetKind:
    """What assets of a kind are called and made of.

    Attributes:
        name: the kind, and the method of `Lineage` that builds it.
        form: of its key, with at most one of `{base_model}`, `{task}`, `{recipe}` and `{line}`, its subject.
        upstream: the kinds that it is made of.
    """

    name: str
    form: str
    upstream: tuple[str, ...] = ()

    @property
    def is_of_recipe(self) -> bool:
        """Whether each recipe has its own."""
        return self.form.startswith("{recipe}/")

    def key(self, recipe: Recipe) -> str:
        """The key of the one that concerns a recipe."""
        return self.form.format(base_model=recipe.base_model, task=recipe.task, recipe=recipe.name, line=recipe.line)


ASSET_KINDS = {
    kind.name: kind
    for kind in (  # in an order that can be built
        AssetKind("raw_rollouts", "raw_rollouts"),
        AssetKind("question_sets", "question_sets", ("raw_rollouts",)),
        AssetKind("base_model", "base_model/{base_model}"),
        AssetKind("scored_trajectories", "scored_trajectories", ("raw_rollouts", "question_sets")),
        AssetKind("trajectory_corpus", "trajectory_corpus/{task}", ("raw_rollouts", "scored_trajectories", "question_sets")),
        AssetKind("training_selection", "{recipe}/training_selection", ("trajectory_corpus", "question_sets")),
        AssetKind(
            "tokenized_shards",
            "{recipe}/tokenized_shards",
            ("training_selection", "trajectory_corpus", "raw_rollouts", "question_sets", "base_model"),
        ),
        AssetKind("checkpoint", "{recipe}/checkpoint", ("tokenized_shards", "base_model")),
        AssetKind(
            "evaluation_report",
            "{recipe}/evaluation_report",
            ("checkpoint", "tokenized_shards", "question_sets", "base_model"),
        ),
        AssetKind(
            "recipe_comparison",
            "recipe_comparison/{line}",
            ("evaluation_report", "checkpoint", "training_selection", "question_sets", "base_model"),
        ),
        AssetKind("champion", "champion/{line}", ("checkpoint", "question_sets", "base_model")),
    )
}
STUDY = AssetKind("study", "study/{study}", ("trajectory_corpus", "raw_rollouts", "question_sets", "base_model"))
"""A study: recipes of its own, trained and asked inside of it. Lines and nightly runs leave it out."""
RECIPE_STAGES = tuple(kind.name for kind in ASSET_KINDS.values() if kind.is_of_recipe)
"""A recipe's own assets, in order."""


def parse_key(asset: str) -> tuple[AssetKind, str]:
    """An asset's kind and subject: a base model, task, recipe or line by name, or nothing.

    Raises:
        KeyError: no kind has such a key.
    """
    head, _, tail = asset.partition("/")
    kind = ASSET_KINDS.get(head)
    if kind is not None and not kind.is_of_recipe and bool(tail) == ("{" in kind.form):
        return kind, tail
    kind = ASSET_KINDS.get(tail)
    if kind is not None and kind.is_of_recipe and head:
        return kind, head
    raise KeyError(asset)


def upstream_keys(kind: str, recipes: Sequence[Recipe] = ()) -> list[str]:
    """Keys of what an asset of this kind is made of.

    Args:
        kind: its name.
        recipes: the one that it is of, or all of its line; none where all recipes share it.
    """
    of_kind = STUDY if kind == STUDY.name else ASSET_KINDS[kind]
    above = [ASSET_KINDS[name] for name in of_kind.upstream]
    keys = [
        [kind_above.key(recipe) for recipe in recipes] if "{" in kind_above.form else [kind_above.form] for kind_above in above
    ]
    return list(dict.fromkeys(key for above_keys in keys for key in above_keys))


def keys_above(recipe: Recipe) -> list[str]:
    """Keys of everything that a recipe's own assets are made of, in an order that can be built."""
    return [kind.key(recipe) for kind in ASSET_KINDS.values() if "{line}" not in kind.form and not kind.is_of_recipe]


def keys_in_order(recipes: Sequence[Recipe]) -> list[str]:
    """Keys of everything that these recipes and their lines need, in an order that can be built, each once."""
    keys = [key for recipe in recipes for key in keys_above(recipe)]
    keys += [ASSET_KINDS[stage].key(recipe) for recipe in recipes for stage in RECIPE_STAGES]
    for line in dict.fromkeys(recipe.line for recipe in recipes):
        arms = [recipe for recipe in recipes if recipe.line == line]
        keys.append(ASSET_KINDS["recipe_comparison"].key(arms[0]))
        if has_champion(arms):
            keys.append(ASSET_KINDS["champion"].key(arms[0]))
    return list(dict.fromkeys(keys))


def has_champion(arms: Sequence[Recipe]) -> bool:
    """Whether a line has an arm that may lead it."""
    return any(arm.role == "candidate" for arm in arms)
