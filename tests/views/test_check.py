"""`negtraj check`: what a file is, what passes, the first fault of each kind, whose questions it answers."""

import gzip
import json
import tomllib
from pathlib import Path

import pytest

from negtraj_dagster import cli, exit_codes
from negtraj_dagster.settings import Settings, load_settings
from negtraj_dagster.tasks import EMBEDDED, load_tasks
from negtraj_dagster.views.check import check_file
from tests.rollouts.test_read import line


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    (folder / "negtraj.toml").write_text("[wordtraps]\nn_train_questions = 20\nn_gate_questions = 5\nn_test_questions = 5\n")
    return folder


def write(tmp_path: Path, text: str, name: str = "a.jsonl") -> Path:
    path = tmp_path / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return path


def tree(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_a_file_that_passes_ends_well_and_writes_nothing(
    tmp_path: Path, home: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, line("q1", reward=True) + line("q2", reward=False) + line("q3"), name)
    before = tree(tmp_path)
    assert cli.main(["check", str(path)]) == exit_codes.SUCCESS
    printed = capsys.readouterr().out
    assert f"{path}: 3 records" in printed
    assert "3 rollouts are read as negtraj, 0 refused" in printed
    assert "Outcomes: 1 right, 1 wrong, 1 not recorded." in printed
    assert "no task here knows these ids ('q1', 'q2', 'q3', …)" in printed
    assert 'format = "negtraj"' in printed
    assert tree(tmp_path) == before


def test_each_kind_of_fault_is_told_once_by_its_first_place(tmp_path: Path, home: Path, settings: Settings) -> None:
    bad = [json.dumps({"question_id": f"q{n}"}) for n in range(7)] + ["{bad", "{worse"]
    path = write(tmp_path, line("q") * 2 + "\n".join(bad))
    checked = check_file(path, settings)
    assert not checked.is_whole
    assert (checked.best.name, checked.best.n_read, checked.best.n_documents) == ("negtraj", 2, 11)
    (missing,) = [kind for kind in checked.best.faults.values() if "messages" in kind[1]]
    assert (missing[0], missing[2]) == ("line 3", 7)
    assert sum(kind[2] for kind in checked.best.faults.values()) == 9


def test_a_record_that_is_not_read_is_a_failure_for_scripts(
    tmp_path: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["check", str(write(tmp_path, line("q1") + "{bad\n"))]) == exit_codes.FAILED
    assert "1 x  line 2: not JSON" in capsys.readouterr().out


def test_the_task_whose_questions_are_answered_is_found(tmp_path: Path, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = load_settings()
    identifier = EMBEDDED["wordtraps"].questions(settings)[0].question_id
    path = write(tmp_path, line(identifier) + line("elsewhere"))
    cli.main(["check", str(path)])
    printed = capsys.readouterr().out
    assert "Questions: 1 of 2 ids are questions of wordtraps." in printed
    assert "copy it to landing/wordtraps/negtraj/" in printed


def test_what_no_format_reads_is_told_by_what_each_finds(
    tmp_path: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["check", str(write(tmp_path, json.dumps({"rows": []})))]) == exit_codes.FAILED
    printed = capsys.readouterr().out
    assert "No format reads it." in printed
    assert "  openai: line 1: key 'messages' is missing; found ['rows']" in printed
    assert "  codex: file: no line of type session_meta" in printed


@pytest.mark.parametrize("indent", [None, 2], ids=["one line", "many lines"])
def test_the_format_of_a_file_is_found(tmp_path: Path, home: Path, indent: int | None, settings: Settings) -> None:
    record = {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}], "reward": 1}
    checked = check_file(write(tmp_path, json.dumps(record, indent=indent)), settings)
    assert (checked.best.name, checked.best.n_read, checked.best.n_with_prompt, checked.is_whole) == ("openai", 1, 1, True)
    assert checked.best.rewards == {True: 1}


@pytest.mark.parametrize(
    ("name", "message"),
    [("gone.jsonl", "No such file"), ("a.txt", "only .json, .json.gz, .json.zst, .jsonl, ")],
    ids=["missing", "suffix"],
)
def test_what_is_no_file_of_rollouts_is_refused_by_name(
    tmp_path: Path, home: Path, name: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["check", str(tmp_path / name)]) == exit_codes.FAILED
    assert message in capsys.readouterr().err


def test_an_unknown_task_is_refused(tmp_path: Path, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check", str(write(tmp_path, line("q"))), "--task", "wordtrap"]) == exit_codes.FAILED
    assert "no task 'wordtrap'; did you mean 'wordtraps'?" in capsys.readouterr().err


def test_the_real_nat_file_is_read_but_for_its_empty_records(nat_dir: Path, settings: Settings) -> None:
    checked = check_file(nat_dir / "strategyqa" / "strategyqa_gpt-3.5_positive.json", settings)
    assert (checked.best.name, checked.best.n_read, checked.best.n_documents) == ("nat", 1070, 1070)
    assert checked.best.rewards[True] == 1070


def chat(n_words: int = 1, **more: object) -> dict[str, object]:
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a " * n_words}]
    return {"traj": turns, "meta": json.dumps({"score": 0.9}), **more}


def test_chats_under_another_key_are_found_and_read_by_columns(
    tmp_path: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(write(tmp_path, json.dumps(chat())))
    assert cli.main(["check", path]) == exit_codes.FAILED
    assert f"try `negtraj check {path} --columns messages=traj`" in capsys.readouterr().out
    assert cli.main(["check", path, "--columns", "messages=traj", "--outcome", "meta.score >= 0.5"]) == exit_codes.SUCCESS
    printed = capsys.readouterr().out
    assert "Outcomes: 1 right, 0 wrong, 0 not recorded." in printed
    assert 'columns = {messages = "traj"}' in printed
    assert 'outcome = "meta.score >= 0.5"' in printed
    assert f'pattern = "{Path(path).name}"' in printed, "no other file of its folder is read with it"


def test_a_column_that_is_not_there_is_named(tmp_path: Path, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(write(tmp_path, json.dumps(chat())))
    assert cli.main(["check", path, "--columns", "messages=meta.messages"]) == exit_codes.FAILED
    assert "(and no 'meta.messages', which columns or outcome of the source names)" in capsys.readouterr().out


@pytest.mark.parametrize("pair", ["messages", "=x", "messages="])
def test_a_pair_of_columns_that_is_none_is_refused(
    tmp_path: Path, home: Path, pair: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["check", str(write(tmp_path, "{}")), "--columns", pair]) == exit_codes.FAILED
    assert f"--columns {pair}: expected a key of the format" in capsys.readouterr().err


def test_rollouts_that_a_run_would_refuse_fail_the_check(
    tmp_path: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    turns = [{"role": "system", "content": "s"}, {"role": "assistant", "content": "a"}]
    assert cli.main(["check", str(write(tmp_path, json.dumps({"messages": turns})))]) == exit_codes.FAILED
    assert "1 of 1 rollouts have no user turn before the agent's first one" in capsys.readouterr().out


def test_what_says_no_outcome_is_told_before_anything_runs(
    tmp_path: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(write(tmp_path, json.dumps(chat())))
    assert cli.main(["init-task", "own", "--from", path, "--columns", "messages=traj"]) == exit_codes.SUCCESS
    printed = capsys.readouterr().out
    assert "No rollout says whether it succeeded" in printed
    assert "overrides.csv" in printed
    source = load_settings().sources["own"]
    assert (source.columns, source.outcome) == ({"messages": "traj"}, None)


@pytest.mark.parametrize(("n_words", "max_tokens", "is_cut"), [(100, 512, False), (1200, 4096, False), (9000, 8192, True)])
def test_recipes_are_written_for_rollouts_of_this_length(
    tmp_path: Path, home: Path, n_words: int, max_tokens: int, is_cut: bool
) -> None:
    path = str(write(tmp_path, json.dumps(chat(n_words, reward=True))))
    assert cli.main(["init-task", "own", "--from", path, "--columns", "messages=traj"]) == exit_codes.SUCCESS
    recipe = tomllib.loads((home / "recipes" / "own_nat.toml").read_text())
    assert recipe["shards"]["max_tokens"] == max_tokens
    assert ("over_length" in recipe["shards"]) == is_cut


def test_the_call_that_ends_most_rollouts_ends_the_tasks_episodes(tmp_path: Path, home: Path) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "submit", "arguments": "{}"}}
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "", "tool_calls": [call]}]
    path = str(write(tmp_path, json.dumps({"messages": turns, "reward": True})))
    assert cli.main(["init-task", "own", "--from", path]) == exit_codes.SUCCESS
    task = load_tasks(load_settings())["own"]
    assert (task.terminal_action, task.allowed_actions) == ("submit", ())
    recipe = tomllib.loads((home / "recipes" / "own_nat.toml").read_text())
    assert (recipe["shards"]["chat_template"], recipe["shards"]["reasoning"]) == ("qwen3", "per_turn_rows")


@pytest.mark.parametrize(("answer", "style"), [("Thought: x\nAction: finish[1]", "react"), ("The answer is 1.", "native")])
def test_a_task_is_of_react_where_its_rollouts_write_actions(tmp_path: Path, home: Path, answer: str, style: str) -> None:
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": answer}]
    path = str(write(tmp_path, json.dumps({"messages": turns, "reward": True})))
    assert cli.main(["init-task", "own", "--from", path]) == exit_codes.SUCCESS
    assert load_tasks(load_settings())["own"].style == style


def test_reasoning_has_a_template_that_writes_it(tmp_path: Path, home: Path) -> None:
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a", "reasoning": "Hm."}]
    path = str(write(tmp_path, json.dumps({"messages": turns, "reward": True})))
    assert cli.main(["init-task", "own", "--from", path]) == exit_codes.SUCCESS
    assert tomllib.loads((home / "recipes" / "own_nat.toml").read_text())["shards"]["chat_template"] == "qwen3"


def test_what_the_options_name_and_no_record_has_fails_the_check(
    tmp_path: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(write(tmp_path, json.dumps(chat())))
    line = ["check", path, "--columns", "messages=traj", "--outcome", "pas == 1"]
    assert cli.main(line) == exit_codes.FAILED
    printed = capsys.readouterr().out
    assert "No record has pas, which --columns or --outcome names." in printed
    assert f"`negtraj init-task NAME --from {path} --columns messages=traj --outcome 'pas == 1'` writes it" in printed
    assert cli.main([*line[:4], "--columns", "messages=other"]) == exit_codes.FAILED
    assert "--columns messages=… stands twice" in capsys.readouterr().err


def test_a_list_of_messages_is_told_what_it_lacks(tmp_path: Path, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    assert cli.main(["check", str(write(tmp_path, json.dumps(turns), "a.json"))]) == exit_codes.FAILED
    assert 'a chat is a record `{"messages": [...]}` of them' in capsys.readouterr().out


def test_turns_whose_text_stands_elsewhere_are_not_read_as_empty(
    tmp_path: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    turns = [{"role": "user", "text": "two and two?"}, {"role": "assistant", "text": "four"}]
    path = write(tmp_path, json.dumps({"messages": turns, "label": True}))
    assert cli.main(["check", str(path)]) == exit_codes.FAILED
    assert "messages[0]: key 'content' is missing; found ['role', 'text']" in capsys.readouterr().out
