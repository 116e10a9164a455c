"""What a run would recompute, and why, without changing anything: the very stages, over a store that writes elsewhere.

Reading, judging and tokenizing of what is new is done for real into a throw-away folder, so the counts are exact and not an
estimate that drifts from the code. Training and evaluation are not done: where they would be, the plan says how much.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from negtraj_dagster.errors import NegtrajError
from negtraj_dagster.graph import keys_in_order, parse_key, upstream_keys
from negtraj_dagster.launch import run_child
from negtraj_dagster.lineage import Lineage
from negtraj_dagster.recipes import Recipe
from negtraj_dagster.settings import Settings
from negtraj_dagster.store import Store

MAKES_MODELS = "negtraj_dagster.modeling"
"""The one child a plan runs: a tiny base model is made in seconds, and without its tokenizer nothing can be counted."""


class _WouldRunError(NegtrajError):
    """A trainer or evaluator would be started here."""


@dataclass(frozen=True)
class Planned:
    """What one asset would do: `is_stale` with the reasons, and what would be computed by name.

    `is_run` is False where the work was not done, so that what lies below cannot be known yet. `has_data` is False where the
    asset has nothing to work on: a task without files, and all that is made of it.
    """

    asset: str
    is_stale: bool
    why: tuple[str, ...] = ()
    work: dict[str, int] = field(default_factory=dict)
    is_run: bool = True
    has_data: bool = True


def plan_recipes(settings: Settings, recipes: Sequence[Recipe]) -> list[Planned]:
    """Every asset of some recipes, from question sets to comparison, in the order they would be built.

    Args:
        settings: the deployment's; its home is read and never written.
        recipes: which to plan. A line's other recipes enter its comparison with the reports they have.
    """
    with tempfile.TemporaryDirectory(prefix="negtraj-plan-") as folder:
        lineage = _dry_lineage(settings, Path(folder))
        planned: dict[str, Planned] = {}
        for asset in keys_in_order(recipes):
            planned[asset] = _plan(lineage, asset, planned)
        with_data = keys_in_order([recipe for recipe in recipes if not _lacks_data(lineage, recipe)])
        return [replace(asset, has_data=asset.asset in with_data) for asset in planned.values()]


def _lacks_data(lineage: Lineage, recipe: Recipe) -> bool:
    corpus = lineage.store.current(f"trajectory_corpus/{recipe.task}")
    return corpus is not None and corpus.is_empty


def _dry_lineage(settings: Settings, folder: Path) -> Lineage:
    """The stages over a store that sees the home and writes into `folder`, landing folder included."""
    dry = settings.model_copy(update={"planned_landing": folder / "landing"})
    return Lineage(Store(folder, base=settings.home, remote=settings.store_url), dry, _run_models_only)


def _run_models_only(module: str, config: Path, ranks: int, threads: int) -> None:
    if module != MAKES_MODELS:
        raise _WouldRunError(module)
    run_child(module, config, ranks=ranks, threads=threads)


def _plan(lineage: Lineage, asset: str, planned: dict[str, Planned]) -> Planned:
    waits = _not_known(lineage, asset, planned)
    if waits:
        return Planned(asset, True, (f"waits for {', '.join(waits)}",), _most_work(lineage, asset), is_run=False)
    try:
        published = lineage.build(asset)
    except _WouldRunError:
        return Planned(asset, True, lineage.store.last_why[asset], _known_work(lineage, asset), is_run=False)
    return Planned(asset, not published.reused, published.why, {name: n for name, n in published.work.items() if n})


def _is_known(lineage: Lineage, asset: str, planned: dict[str, Planned]) -> bool:
    return planned[asset].is_run if asset in planned else lineage.store.current(asset) is not None


def _not_known(lineage: Lineage, asset: str, planned: dict[str, Planned]) -> list[str]:
    """What an asset waits for: of all that it is made of and that has yet to run, the last ones."""
    waits = [asset_above for asset_above in upstream(lineage, asset) if not _is_known(lineage, asset_above, planned)]
    earlier = {above for asset_above in waits for above in upstream(lineage, asset_above)}
    return [asset_above for asset_above in waits if asset_above not in earlier]


def upstream(lineage: Lineage, asset: str) -> list[str]:
    """Keys of what an asset is made of."""
    kind, subject = parse_key(asset)
    if kind.is_of_recipe:
        return upstream_keys(kind.name, [lineage.recipes[subject]])
    field = kind.form.partition("{")[2].rstrip("}")
    return upstream_keys(
        kind.name, [recipe for recipe in lineage.recipes.values() if not field or getattr(recipe, field) == subject]
    )


def _most_work(lineage: Lineage, asset: str) -> dict[str, int]:
    """What an asset would compute whose inputs are not known yet."""
    kind, subject = parse_key(asset)
    if kind.name == "checkpoint":
        return {"steps_trained": lineage.recipes[subject].training.steps}
    if kind.name == "evaluation_report":
        suite = lineage.respondents.suite(lineage.recipes[subject])
        return {"questions_asked": len(suite.questions) * suite.trials}
    return {}


def _known_work(lineage: Lineage, asset: str) -> dict[str, int]:
    """What an asset would compute whose inputs are there: questions that are answered are not asked again."""
    kind, subject = parse_key(asset)
    if kind.name == "evaluation_report":
        return {"questions_asked": lineage.count_unasked(lineage.recipes[subject])}
    return _most_work(lineage, asset)


def describe(planned: Sequence[Planned]) -> list[dict[str, str]]:
    """Rows for a table: what would be done, and why."""
    return [
        {
            "asset": asset.asset,
            "state": ("stale" if asset.has_data else "no data") if asset.is_stale else "up to date",
            "would compute": ", ".join(f"{n} {_words(name)}" for name, n in sorted(_shown(asset.work).items())) or "-",
            "why": "; ".join(asset.why) or "-",
        }
        for asset in planned
    ]


VERDICTS = ("judged_", "scored_")


def _shown(work: dict[str, int]) -> dict[str, int]:
    """Counts worth a reader's time: verdicts are told by the largest count of any filter."""
    judged = [n for name, n in work.items() if name.startswith(VERDICTS)]
    counts = {name: n for name, n in work.items() if n and not name.startswith(VERDICTS)}
    return {**counts, **({"rows_judged": max(judged)} if any(judged) else {})}


def _words(name: str) -> str:
    return name.replace("_", " ")
