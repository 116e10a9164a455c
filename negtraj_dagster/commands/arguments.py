"""Types of the commands' arguments."""

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from negtraj_dagster.rollouts.mapping import ColumnMap


def count(text: str) -> int:
    """A whole number from 0 on."""
    return _at_least(0, text)


def positive(text: str) -> int:
    """A whole number from 1 on."""
    return _at_least(1, text)


def _at_least(least: int, text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = least - 1
    if number < least:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a whole number, {least} or more")
    return number


def add_mapping_arguments(parser: argparse.ArgumentParser) -> None:
    """Columns and outcome of a source, on the command line."""
    parser.add_argument(
        "--columns",
        action="append",
        default=[],
        metavar="OURS=THEIRS",
        help="a key of the format, and where it stands; repeat it",
    )
    parser.add_argument("--outcome", metavar="RULE", help="what counts as success, as in 'score >= 0.5'")


def mapping_of(options: argparse.Namespace) -> "ColumnMap | None":
    """What `add_mapping_arguments` was given.

    Raises:
        SettingsError: no pair, or no rule.
    """
    from negtraj_dagster.errors import SettingsError
    from negtraj_dagster.rollouts.mapping import ColumnMap, parse_outcome

    pairs = [text.partition("=") for text in options.columns]
    if wrong := next((ours + sign + theirs for ours, sign, theirs in pairs if not (ours and theirs)), None):
        raise SettingsError(
            f"--columns {wrong}: expected a key of the format, = and where it stands, as in messages=conversation"
        )
    ours_named = [ours for ours, _, _ in pairs]
    if twice := next((ours for ours in ours_named if ours_named.count(ours) > 1), None):
        raise SettingsError(f"--columns {twice}=… stands twice, expected one place for each key; leave one out")
    if options.outcome is not None:
        parse_outcome(options.outcome)
    mapping = ColumnMap(tuple(sorted((ours, theirs) for ours, _, theirs in pairs)), options.outcome)
    return mapping if mapping != ColumnMap() else None
