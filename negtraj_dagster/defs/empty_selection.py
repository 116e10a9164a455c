"""Refuses a selection that names nothing: Dagster takes it for *everything* and would start every recipe."""

import contextlib
from collections.abc import Iterator, Sequence

import dagster as dg

from negtraj_dagster.errors import SettingsError
from negtraj_dagster.settings import did_you_mean

OPTION = "--select"


def refuse_empty_selection(definitions: dg.Definitions, arguments: Sequence[str]) -> None:
    """Hold the `--select` of a `dagster` command against the assets there are.

    Args:
        definitions: of the code location.
        arguments: of this process, as in `sys.argv`.

    Raises:
        SettingsError: it is an expression that no asset fits; names the nearest keys.
    """
    graph = definitions.resolve_asset_graph()
    for expression in _selections(arguments):
        selected = None
        with contextlib.suppress(Exception):  # a plain key that there is not, bad syntax: Dagster refuses these itself
            selected = dg.AssetSelection.from_coercible(expression.split(",")).resolve(graph)
        if selected is not None and not selected:
            keys = {key.to_user_string() for key in graph.get_all_asset_keys()}
            word = expression.strip("+*").partition(":")[2].strip("\"'+* ") or expression
            raise SettingsError(
                f"{OPTION} {expression!r} selects no asset, and Dagster would run all of them{did_you_mean(word, keys)}"
            )


def _selections(arguments: Sequence[str]) -> Iterator[str]:
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=True):
        if argument == OPTION:
            yield following
        elif argument.startswith(f"{OPTION}="):
            yield argument.removeprefix(f"{OPTION}=")
