"""Studies: what is trained of several seeds, what is shared between cells, and what is told of the differences."""

from collections.abc import Mapping
from pathlib import Path

import polars as pl
import pytest

from negtraj_dagster.errors import SettingsError
from negtraj_dagster.lineage import Lineage
from negtraj_dagster.recipes import load_recipes
from negtraj_dagster.reports.study import Outcome, difference, mean_over_seeds, negatives_plot, replace_marked, summarize_study
from negtraj_dagster.settings import load_settings
from negtraj_dagster.store import Store
from negtraj_dagster.studies import cells, load_studies
from tests.support import deployment as dep

STUDY = """
description = "tiny"
seeds = [0, 1]
split = "test"
pairs = [["nat", "shuffled"], ["incorrect", "nat"]]
[vary.selection]
positive_rate = 0.5
negative_rate = 0.5
[arms.nat]
recipe = "tiny_nat"
[arms.shuffled]
recipe = "tiny_nat"
shuffle_labels = true
[arms.incorrect]
like = "nat"
asked_for = "negative"
[negatives]
arms = ["nat"]
none = "shuffled"
counts = [20, 40]
n_seeds = 1
"""


@pytest.fixture
def root(base_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    made = dep.make_deployment(tmp_path, base_model)
    for name, value in dep.environment(made).items():
        monkeypatch.setenv(name, value)
    (made / "home" / "studies").mkdir()
    (made / "home" / "studies" / "tiny_effect.toml").write_text(STUDY)
    return made


def built(root: Path) -> Lineage:
    lineage = Lineage(Store(root / "home"), load_settings(), dep.counting_child)
    for asset in ("raw_rollouts", "question_sets", "base_model/tiny", "scored_trajectories", "trajectory_corpus/strategyqa"):
        lineage.build(asset)
    return lineage


def test_a_study_trains_every_cell_once_and_goes_on_where_it_was_ended(root: Path) -> None:
    lineage = built(root)
    study, begun = lineage.studies["tiny_effect"], []

    def tell(line: str) -> None:
        begun.append(line)
        if len(begun) == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        lineage.study(study, tell)
    trained: list[str] = []

    def count(module: str, config: Path, ranks: int, threads: int) -> None:
        trained.append(module.rpartition(".")[2])
        dep.counting_child(module, config, ranks, threads)

    lineage.run_child = count
    published = lineage.study(study)
    # 2 seeds of nat and shuffled, nat with 20 and 40 failures of seed 0; the first seed's two were trained before
    assert trained.count("train") == 4
    assert trained.count("evaluate") == 5
    summary = published.content
    assert {name: len(figures["by_seed"]) for name, figures in summary["arms"].items()} == {
        "nat": 2,
        "shuffled": 2,
        "incorrect": 2,
    }
    assert [point["count"] for point in summary["negatives"]["nat"]] == [0, 20, 40]
    assert (published.folder / "study.html").is_file()
    assert lineage.study(study).reused


def test_a_study_counts_anew_where_a_right_answer_changes(root: Path) -> None:
    lineage = built(root)
    before = lineage.study(lineage.studies["tiny_effect"]).content["arms"]["nat"]["mean"]
    path = root / "nat" / "strategyqa" / "test_random_500.jsonl"
    dep.write_lines(path, [{**row, "answer": not row["answer"]} for row in dep.read_lines(path)])
    lineage.build("question_sets")
    published = lineage.study(lineage.studies["tiny_effect"])
    assert published.content["arms"]["nat"]["mean"] == pytest.approx(1 - before)


def test_shuffled_labels_keep_the_rows_and_the_number_of_each_class(root: Path) -> None:
    lineage = built(root)
    of_study = cells(lineage.studies["tiny_effect"], lineage.recipes)
    by_arm = {cell.arm: cell for cell in of_study if (cell.seed, cell.n_negatives) == (0, None)}
    tables = {}
    for arm in ("nat", "shuffled"):
        published = lineage.training_selection(by_arm[arm].recipe)
        table = pl.read_parquet(published.folder / "selection.parquet").filter("selected").sort("rollout_key")
        tables[arm] = table
    nat, shuffled = tables["nat"], tables["shuffled"]
    assert nat["rollout_key"].to_list() == shuffled["rollout_key"].to_list()
    assert sorted(nat["class"]) == sorted(shuffled["class"])
    n_moved = (nat["class"] != shuffled["class"]).sum()
    assert 0.3 * nat.height < n_moved < 0.7 * nat.height


def test_seeds_draw_other_rollouts(root: Path) -> None:
    lineage = built(root)
    study = lineage.studies["tiny_effect"]
    selections = {
        cell.seed: lineage.training_selection(cell.recipe).version
        for cell in cells(study, lineage.recipes)
        if (cell.arm, cell.n_negatives) == ("nat", None)
    }
    assert len(set(selections.values())) == 2


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('recipe = "tiny_nat"', 'recipe = "tiny_nut"', "arms.nat.recipe = 'tiny_nut'; did you mean 'tiny_nat'"),
        ('like = "nat"', 'like = "nut"', "no arm 'nut'; did you mean 'nat'"),
        ('asked_for = "negative"', "", "either recipe, what is trained; or like"),
        ("positive_rate = 0.5", "positive_rate = 25", "positive_rate = 25: expected less than or equal to 1"),
        ("positive_rate", "positiv_rate", "vary.selection.positiv_rate; did you mean 'positive_rate'"),
        ("seeds = [0, 1]", "seeds = [0]", "seeds"),
    ],
)
def test_a_study_that_is_wrong_is_refused_by_name(root: Path, old: str, new: str, message: str) -> None:
    file = root / "home" / "studies" / "tiny_effect.toml"
    file.write_text(STUDY.replace(old, new, 1))
    settings = load_settings()
    with pytest.raises(SettingsError, match=r"tiny_effect\.toml") as caught:
        load_studies(settings, load_recipes(settings))
    assert message in str(caught.value)


def test_a_study_is_written_between_its_marks_and_nowhere_else() -> None:
    document = "before\n<!-- study s -->\nold\n<!-- end of study s -->\nafter\n"
    written = replace_marked(document, "s", "| new |")
    assert written == "before\n<!-- study s -->\n\n| new |\n\n<!-- end of study s -->\nafter\n"
    assert replace_marked(written, "s", "| new |") == written
    for wrong in ("nothing", "<!-- end of study s --> <!-- study s -->", document + document):
        with pytest.raises(SettingsError, match="lacks a line <!-- study s -->"):
            replace_marked(wrong, "s", "text")


def outcome(arm: str, seed: int, right: Mapping[str, bool], n_negatives: int | None = None) -> Outcome:
    return Outcome(arm, n_negatives, seed, right, dict.fromkeys(right, "sums"))


def test_a_mean_over_seeds_has_students_interval() -> None:
    figures = mean_over_seeds([0.1, 0.2, 0.3, 0.4, 0.5])
    assert figures["mean"] == pytest.approx(0.3)
    assert figures["stderr"] == pytest.approx(0.0707107, abs=1e-6)  # sd 0.158114 / sqrt 5
    assert figures["low"] == pytest.approx(0.3 - 2.776 * 0.0707107, abs=1e-6)
    assert mean_over_seeds([0.5])["low"] is None


def test_a_difference_is_paired_by_seed_and_question() -> None:
    first = [outcome("a", seed, {"p": True, "q": True, "only a": True}) for seed in (0, 1, 2)]
    second = [outcome("b", seed, {"p": True, "q": seed == 0, "only b": True}) for seed in (0, 1)]
    figures = difference(first, second)
    assert figures["by_seed"] == [0.0, 0.5]
    assert figures["n_questions"] == 2
    assert figures["low_both"] <= figures["mean"] <= figures["high_both"]


def test_equal_arms_differ_by_nothing_and_have_no_width() -> None:
    arms = [outcome("a", seed, {"p": True, "q": False}) for seed in (0, 1)]
    figures = difference(arms, arms)
    assert (figures["mean"], figures["low"], figures["high_both"]) == (0.0, 0.0, 0.0)


def test_the_figure_has_a_point_for_each_number_of_failures() -> None:
    outcomes = [
        outcome(arm, seed, {"p": seed == 0, "q": True}, n)
        for seed in (0, 1)
        for arm, n in (("vanilla", None), ("nat", None), ("nat", 10))
    ]
    summary = summarize_study(
        outcomes, pairs=[("nat", "vanilla")], none="vanilla", counts={"nat": [10, 20]}, own_counts={"nat": 20}
    )
    assert [point["count"] for point in summary["negatives"]["nat"]] == [0, 10, 20]
    assert negatives_plot(summary).count("<circle") == 3
    assert summary["families"] == {"sums": {"vanilla": 0.75, "nat": 0.75}}
