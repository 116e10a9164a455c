"""Every exit code of the table in docs/commands.md, by a command that ends so."""

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from negtraj_dagster import cli, exit_codes
from negtraj_dagster.commands import upkeep
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


BAD_NUMBERS = [("gc", "--keep-last", "0"), ("gc", "--keep-last", "-1"), ("list", "--limit", "-3"), ("try", "x", "--limit", "a")]


@pytest.mark.parametrize(
    "arguments", [(), ("nope",), ("plan", "--nope"), ("gc", "--keep-last", "x"), *BAD_NUMBERS], ids=" ".join
)
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
    command = "import sys; from negtraj_dagster import cli; cli.upkeep.verify = wait; sys.exit(cli.main(['verify']))"
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


END_WITHOUT_READER = """
import sys
from negtraj_dagster import cli
from negtraj_dagster.errors import SettingsError
def verify(options):
    {body}
cli.upkeep.verify = verify
sys.stdin.readline()  # until the reader has gone
sys.exit(cli.main(["verify"]))
"""


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("print('few words'); return 1", exit_codes.FAILED),
        ("print('few words'); return 0", exit_codes.SUCCESS),
        ("print('word ' * 100_000); return 1", exit_codes.CLOSED_PIPE),
        ("print('few words'); raise SettingsError('bad')", exit_codes.FAILED),
        ("raise KeyboardInterrupt", exit_codes.INTERRUPTED),
    ],
    ids=["failed", "done", "still printing", "refused", "interrupted"],
)
@pytest.mark.parametrize("has_errors", [True, False], ids=["stderr is read", "2>&1"])
def test_a_closed_pipe_hides_no_commands_code(body: str, code: int, has_errors: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    process = subprocess.Popen(
        [sys.executable, "-c", END_WITHOUT_READER.format(body=body)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE if has_errors else subprocess.STDOUT,
        text=True,
        cwd=ROOT,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdout.close()
    process.stdin.write("\n")
    process.stdin.close()
    if process.stderr is not None:
        assert "Error" not in process.stderr.read()
    assert process.wait(60) == code


def test_the_broken_pipe_of_a_child_is_not_taken_for_the_readers(monkeypatch: pytest.MonkeyPatch) -> None:
    def verify(_: object) -> int:
        raise BrokenPipeError

    monkeypatch.setattr(upkeep, "verify", verify)
    with pytest.raises(BrokenPipeError):
        cli.main(["verify"])


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="writes to /dev/full")
def test_an_output_that_cannot_be_written_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    script = END_WITHOUT_READER.format(body="print('few words'); return 0")
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [sys.executable, "-c", script], input="\n", stdout=full, stderr=subprocess.PIPE, text=True, cwd=ROOT, check=False
        )
    assert ended.returncode == exit_codes.FAILED
    assert ended.stderr == (
        "negtraj: the output cannot be written (No space left on device); free space there, or write it elsewhere\n"
    )
