"""What a line's title is decided by: its candidates, the rules by which all are asked, the questions of the split `gate`."""

from collections.abc import Sequence

from negtraj_dagster.errors import SettingsError
from negtraj_dagster.recipes import Recipe
from negtraj_dagster.reports.champion import Contender, Gate, why_barred
from negtraj_dagster.reports.gate import GateRule
from negtraj_dagster.respondents import NOT_OF_THE_AGENT, Respondents
from negtraj_dagster.settings import GateSettings
from negtraj_dagster.store import Store

MAY_DIFFER = NOT_OF_THE_AGENT | {"batch_size", "threads", "server"}
"""Evaluation settings in which a line's candidates may differ."""


def line_gate(store: Store, settings: GateSettings, respondents: Respondents, line: str, recipes: Sequence[Recipe]) -> Gate:
    """The gate of a line that has candidates.

    Args:
        store: where checkpoints lie.
        settings: the line's.
        respondents: how models are asked.
        line: its name.
        recipes: of all lines.

    Raises:
        SettingsError: its candidates are to be asked by different rules.
        StoreError: a candidate has no checkpoint yet.
    """
    candidates = [recipe for recipe in recipes if (recipe.line, recipe.role) == (line, "candidate")]
    first = candidates[0]
    _refuse_unlike(line, candidates)
    challengers, barred = [], {}
    for recipe in candidates:
        checkpoint = store.require(f"{recipe.name}/checkpoint")
        if why := why_barred(respondents.tasks[recipe.task], checkpoint):
            barred[recipe.name] = why
        else:
            challengers.append(Contender(recipe.name, checkpoint.version, respondents.by_card(recipe, checkpoint)))

    def find(name: str, version: str) -> Contender | None:
        checkpoint = store.find(f"{name}/checkpoint", version)
        if checkpoint is None:
            return None
        asked_alike = first.model_copy(update={"name": name})
        return Contender(name, version, respondents.by_card(asked_alike, checkpoint))

    return Gate(
        line,
        challengers,
        barred,
        find,
        respondents.untrained(first),
        respondents.held_out(first.task, "gate"),
        respondents.tasks[first.task],
        GateRule(**settings.model_dump()),
    )


def _refuse_unlike(line: str, candidates: Sequence[Recipe]) -> None:
    first, rules = candidates[0], candidates[0].evaluation.model_dump(exclude=MAY_DIFFER)
    for other in candidates[1:]:
        other_rules = other.evaluation.model_dump(exclude=MAY_DIFFER)
        differing = [f"{name} ({rules[name]} and {other_rules[name]})" for name in rules if rules[name] != other_rules[name]]
        if differing:
            raise SettingsError(
                f"the candidates of line {line} cannot be judged alike: {first.name} and {other.name} differ in "
                f"{', '.join(differing)}; give them the same [evaluation] table"
            )
