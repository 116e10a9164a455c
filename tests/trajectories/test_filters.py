"""Every shipped filter on rows it must and must not catch, and the truths of the real data."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from negtraj_dagster import sql
from negtraj_dagster.conversations import INDEX_SCHEMA
from negtraj_dagster.errors import SqlContractError, StoreError
from negtraj_dagster.rollouts.read import read_landed_files
from negtraj_dagster.settings import Settings
from negtraj_dagster.store import Built, Store
from negtraj_dagster.tasks import TASKS
from negtraj_dagster.tasks.question_sets import QUESTION_SCHEMA, build_question_sets
from negtraj_dagster.trajectories.corpus import build_corpus
from negtraj_dagster.trajectories.judge import TaskRule, load_row_tables, load_set_tables, set_wanted
from negtraj_dagster.trajectories.labels import label_rollouts
from negtraj_dagster.trajectories.score import score_rollouts

ROW_SCHEMA = {**INDEX_SCHEMA, "conversation": pl.String}
RULE = TaskRule("strategyqa", "finish", ("search", "finish"))
SEARCH = "Thought: look.\nAction: search[x]"
FINISH = "Thought: done.\nAction: finish[Yes]"


def rows(**conversations: list[str]) -> list[dict[str, Any]]:
    """Rollouts by name; a text is an assistant turn, one that starts with `>` an observation. Suffix _neg: a failure."""
    made = []
    for sequence, (name, texts) in enumerate(conversations.items()):
        turns = [
            {"role": "user", "content": f"Observation: {text[1:]}"}
            if text.startswith(">")
            else {"role": "assistant", "content": text}
            for text in texts
        ]
        row = dict.fromkeys(ROW_SCHEMA)
        row |= {"rollout_key": name, "task": "strategyqa", "question_id": "q1", "source": "", "teacher": ""}
        row |= {"reward": not name.endswith("_neg"), "conversation": json.dumps(turns), "occurrence": 0}
        made.append({**row, "ingest_seq": sequence})
    return made


FIXTURES: dict[str, tuple[list[dict[str, Any]], set[str]]] = {
    "empty_trajectory": (rows(nothing=[], only_user=[">hi"], fine=[FINISH]), {"nothing", "only_user"}),
    "no_finish": (
        rows(searching=[SEARCH, ">a"], mumbling=["Hm."], fine=[SEARCH, ">a", FINISH], nothing=[]),
        {"searching", "mumbling"},
    ),
    "bad_format": (
        rows(
            two=["Action: It seems\nAction: search[x]", ">a", FINISH],
            after=["Action: finish[No]\n\nBased on that"],
            imitates=["Thought: a\nAction: search[x]\nObservation: y", FINISH],
            newline_only=["Thought: a\nAction: finish[x]\n"],
            fine=[SEARCH, ">the word Action stands here", FINISH],
        ),
        {"two", "after", "imitates"},
    ),
    "missing_thought": (
        rows(
            most=["Action: search[x]", ">a", "Action: search[y]", ">b", FINISH],
            half=["Action: search[x]", ">a", FINISH],
        ),
        {"most"},
    ),
    "unknown_action": (
        rows(calculates=["Thought: a\nAction: calculate[1+1]", ">2", FINISH], fine=[SEARCH, ">a", FINISH]),
        {"calculates"},
    ),
    "tool_error": (
        rows(failed=[SEARCH, ">Error: timeout", FINISH], fine=[SEARCH, ">Trial and error is terror", FINISH]),
        {"failed"},
    ),
    "repeated_action_positive": (
        rows(
            again=[SEARCH, ">a", SEARCH.upper().replace("ACTION", "Action").replace("SEARCH", "search"), ">a", FINISH],
            fine=[SEARCH, FINISH],
        ),
        {"again"},
    ),
    "repeated_action_negative": (rows(again=[SEARCH, ">a", SEARCH, ">a", FINISH], fine=[SEARCH, FINISH]), {"again"}),
    "exact_duplicate": (
        rows(first=[SEARCH, ">a", FINISH], second=[SEARCH, ">other observation", FINISH], third=[FINISH]),
        {"second"},
    ),
    "same_actions": (
        rows(
            first_neg=[SEARCH, ">a", FINISH],
            second_neg=["Thought: other words.\nAction: search[X]", ">a", FINISH],
            won=[SEARCH, FINISH],
        ),
        {"second_neg"},
    ),
    "decontaminate": (rows(asks_test=[FINISH]), {"asks_test"}),
}
QUESTIONS = [
    ("strategyqa", "q1", "train", "Is the sky above us blue today?", "true", [], "h1"),
    ("strategyqa", "q2", "test", "Is the sky above us BLUE, today", "true", [], "h2"),
]


def run(name: str, rollouts: list[dict[str, Any]], questions: list[tuple[Any, ...]] = QUESTIONS) -> pl.DataFrame:
    filter_ = next(each for each in sql.load_filters() if each.name == name)
    frame = label_rollouts(pl.DataFrame(rollouts, schema=ROW_SCHEMA))
    expect = {"rollout_key": "VARCHAR", "step": "INTEGER", "detail": "VARCHAR"}
    if filter_.scope == "group":
        expect["earlier_key"] = "VARCHAR"
    with sql.connect() as connection:
        load_row_tables(connection, frame, [RULE])
        set_wanted(connection, frame["rollout_key"])
        if filter_.scope == "row":
            return sql.select(connection, filter_, expect=expect)
        expect_signatures = {"rollout_key": "VARCHAR", "said": "VARCHAR", "actions": "VARCHAR"}
        signatures = sql.select(connection, sql.load_one("model/signatures.sql"), expect=expect_signatures)
    with sql.connect() as connection:
        asked = pl.DataFrame(questions, schema=QUESTION_SCHEMA, orient="row")
        load_set_tables(connection, frame, signatures, RULE, asked)
        set_wanted(connection, frame["rollout_key"])
        return sql.select(connection, filter_, expect=expect)


def test_every_shipped_filter_has_a_fixture() -> None:
    assert {filter_.name for filter_ in sql.load_filters()} == set(FIXTURES)


@pytest.mark.parametrize("name", sorted(FIXTURES))
def test_a_filter_catches_what_it_must_and_nothing_else(name: str) -> None:
    rollouts, caught = FIXTURES[name]
    assert set(run(name, rollouts)["rollout_key"]) == caught


def test_a_question_that_shares_a_name_only_is_not_contaminated() -> None:
    questions = [
        QUESTIONS[0],
        ("strategyqa", "q2", "test", "Is the sky on Mars above the dunes red?", "true", [], "h2"),
    ]
    assert run("decontaminate", rows(mine=[FINISH]), questions).is_empty()


def test_group_filters_name_the_nearest_earlier_twin() -> None:
    twins = run("exact_duplicate", rows(a=[FINISH], b=[FINISH], c=[FINISH]))
    assert twins.select("rollout_key", "earlier_key").rows() == [("b", "a"), ("c", "b")]


TRUTHS = {
    "empty_trajectory": (0, 7),
    "no_finish": (0, 13),
    "bad_format": (6, 5),
    "missing_thought": (10, 14),
    "unknown_action": (1, 2),
    "tool_error": (1, 1),
    "repeated_action_positive": (41, 0),
    "repeated_action_negative": (0, 63),
    "decontaminate": (245, 266),
    "exact_duplicate": (0, 1),
    "same_actions": (0, 143),
}


def test_the_filters_find_the_known_defects_of_the_real_strategyqa_rollouts(
    store: Store, settings: Settings, nat_dir: Path
) -> None:
    settings = settings.model_copy(update={"nat_dir": nat_dir})
    raw, questions = read_landed_files(store, settings), build_question_sets(store, settings)
    rules = {name: TaskRule(name, task.terminal_action, task.allowed_actions) for name, task in TASKS.items()}
    scored = score_rollouts(store, raw, rules)
    corpus = build_corpus(store, raw, scored, questions, rules["strategyqa"])
    found = {row["filter"]: (row["n_positive"], row["n_negative"]) for row in corpus.details["funnel"]}
    assert {name: found[name] for name in TRUTHS} == TRUTHS
    assert found["unknown_question"] == (0, 0)


def land(settings: Settings, name: str, *question_ids: str) -> None:
    folder = settings.landing / "strategyqa" / "negtraj"
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{"question_id": q, "messages": [{"role": "assistant", "content": FINISH}], "reward": True} for q in question_ids]
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_filters_see_role_and_content_and_no_other_key_of_a_turn() -> None:
    row = rows(plain=[SEARCH, ">a", FINISH])[0]
    call = {"name": "f", "arguments": "{}"}
    weight = {"field": "content", "start": 0, "end": 1, "weight": 0.5}
    more = {"reasoning": "Action: finish[No]", "tool_calls": [call], "ranges": [weight], "token_ids": [1], "loss": 0.5}
    rich = {**row, "rollout_key": "rich", "conversation": json.dumps([{**t, **more} for t in json.loads(row["conversation"])])}
    with sql.connect() as connection:
        load_row_tables(connection, label_rollouts(pl.DataFrame([row, rich], schema=ROW_SCHEMA)), [RULE])
        set_wanted(connection, pl.Series(["plain", "rich"]))
        seen = connection.execute(
            "select count(distinct conversation), any_value(replace(typeof(conversation), '\"', '')) from rollouts"
        ).fetchall()
        steps = connection.execute(
            "select count(*), count(distinct (step, content, thought, observation)) from steps"
        ).fetchall()
    assert seen == [(1, "STRUCT(role VARCHAR, content VARCHAR)[]")]
    assert steps == [(4, 2)]


def test_the_rejected_samples_have_no_columns_but_the_text_of_a_conversation(store: Store, settings: Settings) -> None:
    land(settings, "a.jsonl", "nobody's")
    raw = read_landed_files(store, settings)
    scored = score_rollouts(store, raw, {"strategyqa": RULE})
    corpus = build_corpus(store, raw, scored, build_question_sets(store, settings), RULE)
    columns = pl.read_parquet(corpus.folder / "rejected_samples.parquet").columns
    assert "conversation" in columns
    assert not {"tools", "tokenizer"} & set(columns)


def test_a_corpus_refuses_scores_that_were_made_of_other_rollouts(store: Store, settings: Settings) -> None:
    questions = build_question_sets(store, settings)
    land(settings, "a.jsonl", "q1")
    scored = score_rollouts(store, read_landed_files(store, settings), {"strategyqa": RULE})
    land(settings, "b.jsonl", "q2")
    with pytest.raises(StoreError, match="made from other rollouts"):
        build_corpus(store, read_landed_files(store, settings), scored, questions, RULE)


def test_new_rows_are_judged_alone_and_an_edited_model_judges_all_again(
    store: Store, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    land(settings, "a.jsonl", "q1", "q2", "q3")
    score_rollouts(store, read_landed_files(store, settings), {"strategyqa": RULE})
    land(settings, "b.jsonl", "q4")
    raw = read_landed_files(store, settings)
    assert score_rollouts(store, raw, {"strategyqa": RULE}).work["judged_bad_format"] == 1
    monkeypatch.setattr(sql, "model_digest", lambda _: "another model")
    assert score_rollouts(store, raw, {"strategyqa": RULE}).work["judged_bad_format"] == 4


def test_rollouts_of_held_out_and_of_unknown_questions_are_dropped_with_a_reason(store: Store, settings: Settings) -> None:
    table = pl.DataFrame(QUESTIONS, schema=QUESTION_SCHEMA, orient="row")

    def write(folder: Path) -> Built:
        table.write_parquet(folder / "questions.parquet")
        return Built(content={"tasks": {"strategyqa": {"rows": "r"}}})

    questions = store.build("question_sets", {"made": "here"}, write)
    land(settings, "a.jsonl", "q1", "q2", "nobody's")
    raw = read_landed_files(store, settings)
    corpus = build_corpus(store, raw, score_rollouts(store, raw, {"strategyqa": RULE}), questions, RULE)
    found = {row["filter"]: row["n_positive"] for row in corpus.details["funnel"]}
    assert (found["unknown_question"], found["evaluation_question"]) == (1, 1)


HEADER = '/*\nname = "x"\nreason = "r"\nscope = "row"\nseverity = "drop"\napplies_to = "both"\ndoc = "d"\n*/\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("select 1", "no header"),
        (HEADER + "select 1; select 2", "found 2 statements"),
        (HEADER + "drop table all_rollouts", r"found 1 statements \(DROP\), expected one SELECT"),
        (HEADER + "copy all_rollouts to '/tmp/x.csv'", "expected one SELECT"),
        (HEADER + "select $x as rollout_key", r"uses parameters \['x'\], the header declares \[\]"),
        (HEADER + "select rollout_key from rollouts", "returns .*expected"),
        (HEADER + "select * from read_text('/etc/passwd')", "disabled"),
        (HEADER + "select nope from rollouts", "nope"),
    ],
    ids=["header", "two", "drop", "copy", "parameter", "columns", "file", "column"],
)
def test_a_sql_file_that_breaks_the_contract_is_refused_by_name(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "filters" / "900_x.sql"
    path.parent.mkdir()
    path.write_text(text)
    frame = label_rollouts(pl.DataFrame(rows(a=[FINISH]), schema=ROW_SCHEMA))
    columns = {"rollout_key": "VARCHAR", "step": "INTEGER", "detail": "VARCHAR"}
    with sql.connect() as connection:
        load_row_tables(connection, frame, [RULE])
        with pytest.raises(SqlContractError, match=message) as caught:
            sql.select(connection, sql.load_sql(path), expect=columns)
    assert "900_x.sql" in str(caught.value)


def test_a_query_that_runs_for_ever_is_stopped_at_its_deadline(tmp_path: Path) -> None:
    path = tmp_path / "900_x.sql"
    path.write_text(HEADER + "select sum(a.range * b.range) as total from range(1000000) as a, range(1000000) as b")
    with pytest.raises(SqlContractError, match=r"stopped after its deadline of 0\.5 s"), sql.connect() as connection:
        sql.select(connection, sql.load_sql(path), expect={"total": "HUGEINT"}, deadline_s=0.5)
