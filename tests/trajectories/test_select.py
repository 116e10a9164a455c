from pathlib import Path

import polars as pl
import pytest

from negtraj_dagster import sql
from negtraj_dagster.errors import ContaminationError, SettingsError
from negtraj_dagster.schema import digest
from negtraj_dagster.store import Built, Published, Store
from negtraj_dagster.tasks.question_sets import QUESTION_SCHEMA
from negtraj_dagster.trajectories.judging.judge import VERDICT_SCHEMA
from negtraj_dagster.trajectories.quality import QUALITY_SCHEMA
from negtraj_dagster.trajectories.select import ClassLimit, SelectionRule, select_rollouts

REGISTRY = sql.load_registry()
VERSIONS = {each.name: each.version for each in REGISTRY.filters}

QUESTIONS = [("t", f"q{i}", "train", f"question {i}?", "1", [], f"h{i}") for i in range(9)]


def rule(**changes: object) -> SelectionRule:
    changes["profile"] = sql.find_profile(REGISTRY, str(changes.get("profile", "strict")))
    choice = REGISTRY.one("selection", "choice").with_parameters({"seed": str(changes.pop("seed", 0))})
    values = {
        "recipe": "mine",
        "choice": choice,
        "classes": ("positive", "negative"),
        "limits": {"positive": ClassLimit(), "negative": ClassLimit()},
        "min_quality": 0.0,
        "allow_contaminated": False,
    }
    return SelectionRule(**{**values, **changes})  # type: ignore[arg-type]


def select(
    store: Store,
    labels: str,
    verdicts: list[tuple[str, str, str | None]] = (),  # type: ignore[assignment]
    questions: list[tuple[object, ...]] = QUESTIONS,
    question: str | None = None,
    **changes: object,
) -> Published:
    """Rollouts r0, r1, … with labels p, n or u; verdicts as (rollout, filter, earlier)."""
    words = {"p": "positive", "n": "negative", "u": "unknown"}
    corpus_rows = [
        {"rollout_key": f"r{i}", "ingest_seq": i, "question_id": question or f"q{i}", "label": words[letter]}
        for i, letter in enumerate(labels)
    ]
    verdict_rows = [
        {
            "rollout_key": key,
            "filter": name,
            "version": VERSIONS.get(name, "1"),
            "reason": "",
            "severity": "drop",
            "step": None,
            "detail": "",
            "earlier_key": earlier,
        }
        for key, name, earlier in verdicts
    ]

    def write_corpus(folder: Path) -> Built:
        pl.DataFrame(corpus_rows).write_parquet(folder / "corpus.parquet")
        pl.DataFrame(verdict_rows, schema=VERDICT_SCHEMA).write_parquet(folder / "verdicts.parquet")
        keys = [row["rollout_key"] for row in corpus_rows]
        rows = [(profile, key, 1.0) for profile in ("paper", "strict") for key in keys]
        pl.DataFrame(rows, schema=QUALITY_SCHEMA, orient="row").write_parquet(folder / "qualities.parquet")
        return Built(content={"rows": labels, "verdicts": [list(v) for v in verdicts], "question": question})

    def write_questions(folder: Path) -> Built:
        pl.DataFrame(questions, schema=QUESTION_SCHEMA, orient="row").write_parquet(folder / "questions.parquet")
        return Built(content={"tasks": {"t": {"rows": digest(str(questions))}}})

    corpus = store.build(
        "trajectory_corpus/t", {"labels": labels, "verdicts": str(verdicts), "question": question}, write_corpus
    )
    asked = store.build("question_sets", {"questions": str(questions)}, write_questions)
    return select_rollouts(store, corpus, asked, rule(**changes), "t")


def chosen(selection: Published) -> list[str]:
    return pl.read_parquet(selection.folder / "selection.parquet").filter("selected")["rollout_key"].to_list()


def reasons(selection: Published) -> dict[str, str]:
    return dict(pl.read_parquet(selection.folder / "selection.parquet").select("rollout_key", "why_not").rows())


def test_a_row_without_a_label_is_in_neither_class(store: Store) -> None:
    assert chosen(select(store, "pun")) == ["r0", "r2"]


def test_limits_take_the_first_arrivals_so_an_append_keeps_the_old_choice(store: Store) -> None:
    limits = {"positive": ClassLimit(max_rows=2), "negative": ClassLimit(max_rows=1)}
    before, after = select(store, "pnpn", limits=limits), select(store, "pnpnpp", limits=limits)
    assert chosen(before) == chosen(after) == ["r0", "r1", "r2"]


def test_a_dropped_row_says_which_filter_dropped_it(store: Store) -> None:
    assert reasons(select(store, "pp", [("r0", "no_finish", None)]))["r0"] == "filter no_finish"


def test_a_duplicate_is_admitted_again_when_its_earlier_twin_is_dropped(store: Store) -> None:
    twins = [("r1", "exact_duplicate", "r0"), ("r2", "exact_duplicate", "r1"), ("r3", "exact_duplicate", "r2")]
    assert chosen(select(store, "nnnn", twins)) == ["r0"]
    assert chosen(select(store, "nnnn", [*twins, ("r0", "no_finish", None)])) == ["r1"]
    assert chosen(select(store, "nnnn", [*twins, ("r1", "no_finish", None)])) == ["r0"]
    assert reasons(select(store, "nnnn", [*twins, ("r1", "no_finish", None)]))["r3"] == "filter exact_duplicate: of r0"


def test_a_filter_that_names_all_twins_drops_by_those_alone(store: Store) -> None:
    twins = [("r1", "near_duplicate", "r0"), ("r2", "near_duplicate", "r1")]
    assert chosen(select(store, "nnn", twins)) == ["r0", "r2"]


def test_a_rate_keeps_every_old_choice_when_rollouts_are_added(store: Store) -> None:
    limits = {"positive": ClassLimit(), "negative": ClassLimit(rate=0.5)}
    questions = [("t", f"q{i}", "train", f"question {i}?", "1", [], f"h{i}") for i in range(300)]
    before = chosen(select(store, "n" * 200, questions=questions, limits=limits))
    after = chosen(select(store, "n" * 300, questions=questions, limits=limits))
    assert 60 < len(before) < 140
    assert after[: len(before)] == before
    assert chosen(select(store, "n" * 200, questions=questions, limits=limits, seed=1)) != before
    assert reasons(select(store, "n" * 200, questions=questions, limits=limits))["r0"] in ("", "mix: not drawn at rate 0.5")


def test_a_question_gives_as_many_rows_as_its_limit_says_in_order_of_arrival(store: Store) -> None:
    limits = {"positive": ClassLimit(), "negative": ClassLimit(max_per_question=2)}
    selection = select(store, "nnnpn", limits=limits, question="q0")
    assert chosen(selection) == ["r0", "r1", "r3"]
    assert reasons(selection)["r4"] == "mix: 2 negative rows of its question are enough"


def test_the_paper_profile_ignores_all_filters_but_the_empty_one(store: Store) -> None:
    verdicts = [("r0", "no_finish", None), ("r1", "empty_trajectory", None)]
    assert chosen(select(store, "nnn", verdicts, profile="paper")) == ["r0", "r2"]


def test_vanilla_leaves_failures_out_and_says_so(store: Store) -> None:
    selection = select(store, "pn", classes=("positive",))
    assert chosen(selection) == ["r0"]
    assert reasons(selection)["r1"] == "class negative: not trained by this strategy"


@pytest.mark.parametrize("split", ["gate", "test"])
def test_a_selected_row_that_asks_an_evaluation_question_stops_the_run(store: Store, split: str) -> None:
    questions = [*QUESTIONS, ("t", "e", split, "Question  0?", "1", [], "h")]
    with pytest.raises(ContaminationError, match=f"1 selected rollouts ask questions of the {split} split"):
        select(store, "pn", questions=questions)


def test_contamination_with_the_test_split_can_be_allowed_and_is_counted_but_not_with_the_gate(store: Store) -> None:
    in_test = [*QUESTIONS, ("t", "e", "test", "question 0?", "1", [], "h")]
    in_gate = [*QUESTIONS, ("t", "e", "gate", "question 0?", "1", [], "h")]
    assert select(store, "pn", questions=in_test, allow_contaminated=True).content["n_contaminated"] == 1
    with pytest.raises(ContaminationError):
        select(store, "pn", questions=in_gate, allow_contaminated=True)


def test_an_empty_selection_is_an_error_that_says_why(store: Store) -> None:
    with pytest.raises(SettingsError, match=r"no rollout of 2 is selected.*no_finish"):
        select(store, "pp", [("r0", "no_finish", None), ("r1", "no_finish", None)])


def test_an_unknown_profile_is_refused_with_the_nearest(store: Store) -> None:
    with pytest.raises(SettingsError, match=r"unknown quality profile 'strickt'; did you mean 'strict'\?"):
        select(store, "p", profile="strickt")


def test_a_twin_that_its_strategy_does_not_train_pushes_nothing_out(store: Store) -> None:
    twins = [("r1", "exact_duplicate", "r0")]
    assert chosen(select(store, "np", twins, classes=("positive",))) == ["r1"]


@pytest.mark.parametrize("text", ["QUESTION 0 ?", "Ques\u00adtion 0", "Question \uff10?"], ids=["case", "hyphen", "width"])
def test_no_way_of_writing_hides_an_evaluation_question(store: Store, text: str) -> None:
    questions = [*QUESTIONS, ("t", "e", "gate", text, "1", [], "h")]
    with pytest.raises(ContaminationError):
        select(store, "pn", questions=questions)


def test_questions_without_words_are_compared_as_they_are(store: Store) -> None:
    questions = [("t", "q0", "train", "?", "1", [], "h"), *QUESTIONS[1:], ("t", "e", "gate", "!", "1", [], "h")]
    assert chosen(select(store, "pn", questions=questions)) == ["r0", "r1"]
