"""Every exit code of the table in docs/commands.md, by a command that ends so."""

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from negtraj_dagster import cli, exit_codes
from negtraj_dagster.plan import Planned

ROOT = Path(__file__).resolve().parents[1]


def test_the_documented_table_has_every_code_and_no_other() -> None:
    table = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8").partition("## Exit codes")[2]
    documented = {int(code) for code in re.findall(r"^\| `(\d+)` \|", table, re.MULTILINE)}
    assert documented == {value for name, value in vars(exit_codes).items() if name.isupper()}


@pytest.mark.parametrize(
    "arguments",
    [
        ("plan",),
        ("show",),
        ("show", "abcdef", "--rejected"),
        ("show", "abcdef", "--reason", "x"),
        ("show", "--rejected", "--html", "x"),
    ],
    ids=" ".join,
)
def test_a_command_line_that_says_too_little_or_too_much_is_bad_usage(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(list(arguments)) == exit_codes.USAGE
    assert f"see `negtraj {arguments[0]} --help`" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [(), ("nope",), ("plan", "--nope"), ("gc", "--keep-last", "x")], ids=" ".join)
def test_what_argparse_refuses_ends_with_the_same_code(arguments: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(list(arguments))
    assert ended.value.code == exit_codes.USAGE


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "nope"),
        ("plan", "nope"),
        ("plan", "--line", "nope"),
        ("why", "abcdef"),
        ("list",),
        ("verify",),
        ("gc",),
        ("query", "x"),
    ],
    ids=" ".join,
)
def test_what_is_wrong_in_the_world_fails_with_a_message_and_no_traceback(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(list(arguments)) == exit_codes.FAILED
    message = capsys.readouterr().err
    assert message.startswith("negtraj: ")
    assert "Traceback" not in message


@pytest.mark.parametrize(
    ("planned", "code"),
    [
        ((Planned("a", is_stale=True),), exit_codes.STALE),
        ((Planned("a", is_stale=True, has_data=False),), exit_codes.SUCCESS),
        ((Planned("a", is_stale=False),), exit_codes.SUCCESS),
    ],
    ids=["stale", "stale, but without data", "up to date"],
)
def test_plan_check_ends_by_what_is_stale(
    planned: tuple[Planned, ...], code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("negtraj_dagster.plan.plan_recipes", lambda settings, recipes: list(planned))
    assert cli.main(["plan", "--all", "--check"]) == code
    assert f"{int(code == exit_codes.STALE)} of 1 assets are stale" in capsys.readouterr().out


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
def test_an_interrupted_command_says_so(number: signal.Signals) -> None:
    command = "import sys; from negtraj_dagster import cli; cli._verify = wait; sys.exit(cli.main(['verify']))"
    script = f"import time\ndef wait(options):\n    print('ready', flush=True)\n    time.sleep(60)\n{command}"
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    began = time.monotonic()
    process.send_signal(number)
    _, message = process.communicate(timeout=10)
    assert process.returncode == exit_codes.INTERRUPTED
    assert message == "negtraj: interrupted; what was finished is kept\n"
    assert time.monotonic() - began < 5
