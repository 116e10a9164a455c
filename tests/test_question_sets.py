"""Question files that are broken: the task they belong to stops, by name, and no other."""

import errno
import os
from pathlib import Path

import pytest

from negtraj_dagster.errors import QuestionSetError
from negtraj_dagster.lineage import Lineage
from negtraj_dagster.schema import Question
from negtraj_dagster.settings import Settings, WordtrapsSettings
from negtraj_dagster.store import Store
from negtraj_dagster.tasks import EMBEDDED
from tests.support import deployment as dep


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    questions = tmp_path / "nat" / "strategyqa"
    questions.mkdir(parents=True)
    dep.write_lines(questions / "train.jsonl", [dep.question(n, "train") for n in range(4)])
    dep.write_lines(questions / "test_random_500.jsonl", [dep.question(n, "test") for n in range(2)])
    (questions / "none_positive.json").write_text("[]")
    sizes = WordtrapsSettings(n_train_questions=20, n_gate_questions=4, n_test_questions=4)
    return Settings(home=tmp_path / "home", nat_dir=tmp_path / "nat", wordtraps=sizes)


def train_file(settings: Settings) -> Path:
    assert settings.nat_dir is not None
    return settings.nat_dir / "strategyqa" / "train.jsonl"


BROKEN = {
    "no JSON": (lambda file: file.write_text("stones\n"), "train.jsonl, line 1: not JSON"),
    "an id twice": (lambda file: file.write_text(file.read_text() * 2), "question id 'train-0' stands twice"),
    "no answer": (lambda file: file.write_text('{"id": "a", "question": "b"}\n'), "train.jsonl, line 1: expected id"),
    "no UTF-8": (lambda file: file.write_bytes(b'{}\n{"id": "\xff"}\n'), "train.jsonl, line 2: not UTF-8"),
    "missing": (lambda file: file.unlink(), "train.jsonl"),
    "a folder": (lambda file: (file.unlink(), file.mkdir()), "train.jsonl"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_question_file_stops_its_task_and_no_other(settings: Settings, name: str) -> None:
    spoil, message = BROKEN[name]
    spoil(train_file(settings))
    lineage = Lineage(Store(settings.home), settings, dep.counting_child)
    published = lineage.question_sets()
    assert list(published.content["tasks"]) == ["wordtraps"]
    assert message in published.content["broken"]["strategyqa"]
    lineage.raw_rollouts()
    lineage.scored_trajectories()
    assert not lineage.trajectory_corpus("wordtraps").is_empty
    with pytest.raises(QuestionSetError, match="train"):
        lineage.trajectory_corpus("strategyqa")


def test_a_mended_file_is_read_by_the_next_run(settings: Settings) -> None:
    file = train_file(settings)
    whole = file.read_text()
    before = Lineage(Store(settings.home), settings, dep.counting_child).question_sets()
    file.write_text("stones\n")
    assert "broken" in Lineage(Store(settings.home), settings, dep.counting_child).question_sets().content
    file.write_text(whole)
    os.utime(file)
    assert Lineage(Store(settings.home), settings, dep.counting_child).question_sets().version == before.version


@pytest.mark.parametrize("is_wrapped", [False, True], ids=["as it is", "in the task's words"])
def test_what_the_machine_refused_is_asked_again_by_the_next_run(
    settings: Settings, is_wrapped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = OSError(errno.EIO, "Input/output error", "train.jsonl")

    def refuse(_: object) -> list[Question]:
        if is_wrapped:
            raise QuestionSetError("train.jsonl cannot be read (Input/output error)") from error
        raise error

    for _ in range(2):  # the second run finds the first one's answer under its key
        with monkeypatch.context() as during:
            during.setattr(EMBEDDED["strategyqa"], "questions", refuse)
            lineage = Lineage(Store(settings.home), settings, dep.counting_child)
            published = lineage.question_sets()
        assert list(published.content["tasks"]) == ["wordtraps"]
        assert "Input/output error" in published.content["broken"]["strategyqa"]
        lineage.raw_rollouts()
        lineage.scored_trajectories()
        with pytest.raises(QuestionSetError, match="Input/output error"):
            lineage.trajectory_corpus("strategyqa")
    mended = Lineage(Store(settings.home), settings, dep.counting_child).question_sets()
    assert sorted(mended.content["tasks"]) == ["strategyqa", "wordtraps"]
    assert "broken" not in mended.content


def test_questions_of_unknown_files_are_never_published(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object) -> None:
        raise OSError(errno.EIO, "Input/output error", "train.jsonl")

    monkeypatch.setattr(EMBEDDED["strategyqa"], "fingerprint", refuse)
    published = Lineage(Store(settings.home), settings, dep.counting_child).question_sets()
    assert list(published.content["tasks"]) == ["wordtraps"]
    assert "Input/output error" in published.content["broken"]["strategyqa"]
