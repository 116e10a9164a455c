"""Children: what they leave behind, and what is said when they fail."""

import io
import json
import os
import sys
import time
from pathlib import Path

import pytest

from negtraj_dagster.errors import ChildRunError
from negtraj_dagster.launch import has_gpu, run_child


def child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> tuple[str, Path]:
    """A module with this body, and a config that names an output folder."""
    (tmp_path / "some_child.py").write_text(
        f"import json, os, subprocess, sys\nconfig = json.load(open(sys.argv[1]))\n{body}\n"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]))
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"out": str(tmp_path / "out.json")}))
    return "some_child", config


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks /proc")
def test_what_a_child_left_running_is_ended_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = "process = subprocess.Popen(['sleep', '300'])\nopen(config['out'], 'w').write(str(process.pid))"
    run_child(*child(tmp_path, monkeypatch, left))
    pid = int((tmp_path / "out.json").read_text())
    deadline = time.monotonic() + 5
    while is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_running(pid)


def test_a_failing_child_is_told_with_its_exit_code_and_last_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ChildRunError, match=r"(?s)\Aout of luck\nsome_child: rank 0 ended with exit code 3"):
        run_child(*child(tmp_path, monkeypatch, "print('out of luck', file=sys.stderr)\nsys.exit(3)"))


def test_an_error_of_ours_in_a_child_is_its_message_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    body = "from negtraj_dagster.errors import TrainingError\nraise TrainingError('no row is left; land more')"
    with pytest.raises(ChildRunError, match=r"\Ano row is left; land more\n\(some_child: rank 0 ended with exit code 1\)\Z"):
        run_child(*child(tmp_path, monkeypatch, body))
    assert capfd.readouterr().err == "negtraj: no row is left; land more\n"


def test_any_other_error_of_a_child_is_told_before_its_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ChildRunError, match=r"(?s)\AZeroDivisionError: division by zero\n.*Traceback"):
        run_child(*child(tmp_path, monkeypatch, "1 / 0"))


def test_a_child_that_publishes_nothing_has_failed_whatever_its_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ChildRunError, match=r"out\.json is missing"):
        run_child(*child(tmp_path, monkeypatch, "pass"), result_path=tmp_path / "out.json")


def test_hidden_gpus_are_no_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert not has_gpu()


def test_a_child_whose_words_nobody_reads_any_more_still_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Closed(io.StringIO):
        def write(self, text: str, /) -> int:
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stderr", Closed())
    run_child(*child(tmp_path, monkeypatch, "print('x' * 1_000_000, file=sys.stderr)\nopen(config['out'], 'w').write('end')"))
    assert (tmp_path / "out.json").read_text() == "end"


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("warning about negtraj: nothing\nout of luck\n", r"\Aout of luck\nsome_child: rank 0"),
        ("ValueError: negtraj: quoted\n", r"\AValueError: negtraj: quoted\nsome_child: rank 0"),
        ("negtraj: mend it\n", r"\Amend it\n\(some_child"),
        ("progress\nnegtraj: mend it\nsay negtraj: twice\n", r"\Amend it\nsay negtraj: twice\n\(some_child"),
    ],
    ids=["within a line", "quoted by an error", "the first line", "behind others"],
)
def test_a_childs_message_counts_at_the_beginning_of_a_line(
    written: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ChildRunError, match=expected):
        run_child(*child(tmp_path, monkeypatch, f"sys.stderr.write({written!r})\nsys.exit(3)"))
