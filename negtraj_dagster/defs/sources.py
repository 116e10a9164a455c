"""The lineage's roots that are not rollouts: the tasks' question sets and the base models."""

import dagster as dg

from negtraj_dagster import base_models
from negtraj_dagster.defs.resources import Workspace
from negtraj_dagster.defs.versions import code_version, per_row_schema, result, table, upstream_asset_keys
from negtraj_dagster.schema import QUESTION_COLUMNS
from negtraj_dagster.tasks.question_sets import QUESTION_SETS_VERSION


@dg.asset(
    group_name="data",
    kinds={"parquet", "polars"},
    tags={"stage": "questions"},
    deps=upstream_asset_keys("question_sets"),
    code_version=code_version("question_sets", QUESTION_SETS_VERSION),
)
def question_sets(workspace: Workspace) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """Typed questions of every task by split (train, practice, gate, test), with a hash each, those that rollouts bring, too.

    Tasks without data in this deployment are listed with what they need.
    """
    published = workspace.lineage().question_sets()
    tasks = [{"task": name, **counts} for name, counts in published.content["tasks"].items()]
    missing = [{"task": name, "remedy": hint} for name, hint in published.details["without_data"].items()]
    columns = ("task", "n_train", "n_gate", "n_test")
    return result(
        published,
        {
            "dagster/row_count": published.details["n_questions"],
            "dagster/column_schema": per_row_schema(QUESTION_COLUMNS),
            "tasks": table(tasks, columns),
            "without_data": table(missing),
        },
    )


def build_base_model_asset(name: str) -> dg.AssetsDefinition:
    """The asset `base_model/<name>`: a model made here from a tiny configuration, or a local folder's."""

    @dg.asset(
        key=["base_model", name],
        group_name="data",
        kinds={"huggingface", "pytorch"},
        tags={"stage": "base_model"},
        code_version=code_version("base_model", base_models.BASE_MODEL_VERSION, name),
        description=f"Tokenizer and initial weights of the base model `{name}`, with a hash over both.",
    )
    def base_model(workspace: Workspace) -> dg.MaterializeResult:  # type: ignore[type-arg]
        published = workspace.lineage().base_model(name)
        return result(published, published.details)

    return base_model
