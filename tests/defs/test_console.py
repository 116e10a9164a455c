"""What Dagster's own commands print of a failure: its message and remedy, no traceback of ours."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from negtraj_dagster.defs.console import PLAIN_RECORDS, check_text, speak_plainly
from negtraj_dagster.defs.empty_selection import refuse_empty_selection
from negtraj_dagster.errors import SettingsError, StoreError

ROOT = Path(__file__).resolve().parents[2]
DAGSTER = Path(sys.executable).parent / "dagster"


def materialize(selection: str) -> subprocess.CompletedProcess[str]:
    command = [str(DAGSTER), "asset", "materialize", "-m", "negtraj_dagster.definitions", "--select", selection]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env={**os.environ}, check=False)


def test_a_failed_step_is_its_message(tmp_path: Path) -> None:
    done = materialize("wordtraps_nat/training_selection")
    said = done.stderr + done.stdout
    assert done.returncode == 1
    assert "wordtraps_nat__training_selection failed: trajectory_corpus/wordtraps has not been materialized in" in said
    assert "--select trajectory_corpus/wordtraps" in said
    assert "`negtraj run LINE|RECIPE` makes all that is missing" in said
    assert "Traceback" not in said
    assert "Stack Trace" not in said


def test_settings_that_do_not_load_are_told_by_their_message(tmp_path: Path) -> None:
    home = Path(os.environ["NEGTRAJ_HOME"])
    home.mkdir()
    (home / "negtraj.toml").write_text("max_quarantined_shar = 1\n")
    done = materialize("raw_rollouts")
    assert done.returncode == 1
    assert done.stderr.rstrip().endswith("unknown key 'max_quarantined_shar'; did you mean 'max_quarantined_share'?")
    assert "Traceback" not in done.stderr


def run_failing(error: Exception) -> list[str]:
    """What a console says of a run whose one asset raises."""
    said: list[str] = []

    class Recorder(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    @dg.logger
    def console(_: dg.InitLoggerContext) -> logging.Logger:
        logger = logging.Logger("console")
        logger.addHandler(Recorder())
        return logger

    @dg.asset
    def broken(context: dg.AssetExecutionContext) -> None:
        speak_plainly(context.log)
        raise error

    definitions = dg.Definitions([broken], loggers={"console": console})
    job = definitions.resolve_implicit_global_asset_job_def()
    outcome = job.execute_in_process(raise_on_error=False, run_config={"loggers": {"console": {"config": {}}}})
    assert not outcome.success
    return said


def test_an_error_of_ours_has_no_stack_and_any_other_keeps_it() -> None:
    assert "broken failed: stones are missing; land some" in run_failing(StoreError("stones are missing; land some"))
    other = next(text for text in run_failing(ZeroDivisionError("by zero")) if "STEP_FAILURE" in text)
    assert "ZeroDivisionError: by zero" in other
    assert "Stack Trace" in other


def test_a_message_cannot_command_the_terminal() -> None:
    assert r"broken failed: \x1b[31mred" in run_failing(StoreError("\x1b[31mred"))


def test_a_failed_check_is_a_warning_or_an_error_with_numbers_and_remedy() -> None:
    @dg.asset
    def stones() -> None:
        """Nothing."""

    @dg.asset_check(asset=stones)
    def enough() -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=False, metadata={"share": 0.123456, "remedy": "land more"})

    outcome = dg.materialize([stones, enough])
    (check,) = outcome.get_asset_check_evaluations()
    assert check_text(check) == "enough of stones (share = 0.1235): land more"
    assert PLAIN_RECORDS.filter(logging.LogRecord("x", logging.INFO, "f", 1, "kept as it is", (), None))


@pytest.mark.parametrize(
    "expression", ['+key:"wordtraps_nat/evaluation_reprot"', "tag:recipe=wordtraps_mat", 'key:"nope"', "group:nope"]
)
def test_a_selection_of_nothing_is_refused(expression: str) -> None:
    from negtraj_dagster.definitions import build_definitions

    definitions = build_definitions()
    with pytest.raises(SettingsError, match="selects no asset, and Dagster would run all of them"):
        refuse_empty_selection(definitions, ["dagster", "asset", "materialize", "--select", expression])
    with pytest.raises(SettingsError, match="selects no asset"):
        refuse_empty_selection(definitions, ["dagster", f"--select={expression}"])


@pytest.mark.parametrize("expression", ["*", "raw_rollouts", '+key:"wordtraps_nat/checkpoint"', "raw_rollouts,question_sets"])
def test_a_selection_of_something_is_let_through(expression: str) -> None:
    from negtraj_dagster.definitions import build_definitions

    refuse_empty_selection(build_definitions(), ["dagster", "asset", "materialize", "--select", expression])
