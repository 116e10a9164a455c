"""Every shipped filter on rows it must and must not catch, and the truths of the real data."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unicodedata import normalize

import polars as pl
import pytest

from negtraj_dagster import sql
from negtraj_dagster.conversations import INDEX_SCHEMA
from negtraj_dagster.errors import SqlContractError, StoreError
from negtraj_dagster.launch import run_child
from negtraj_dagster.lineage import Lineage
from negtraj_dagster.settings import Settings, WordtrapsSettings
from negtraj_dagster.store import Built, Published, Store
from negtraj_dagster.tasks import TASKS
from negtraj_dagster.tasks.question_sets import QUESTION_SCHEMA
from negtraj_dagster.trajectories.judging.judge import answer, verdict_rows
from negtraj_dagster.trajectories.judging.loading import load_conversations, load_row_tables, load_set_tables, make_model
from negtraj_dagster.trajectories.judging.rules import TaskRule
from negtraj_dagster.trajectories.labels import Labeller
from negtraj_dagster.trajectories.overrides import JUDGEMENT_SCHEMA
from negtraj_dagster.trajectories.quality import why_dropped
from negtraj_dagster.trajectories.signatures import find_pairs, find_quotes, sketch

REGISTRY = sql.load_registry()
RULE = TaskRule("strategyqa", "react", ("finish",), ("search", "finish"), min_chars=20, max_tokens=512)
SEARCH = "Thought: look.\nAction: search[x]"
FINISH = "Thought: done.\nAction: finish[Yes]"
LONG = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen"


def call(name: str, **arguments: Any) -> dict[str, Any]:
    return {"name": name, "arguments": json.dumps(arguments)}


def turn(said: Any) -> dict[str, Any]:
    """A text is an assistant turn, one that starts with `>` an observation, with `$` a tool's; a list holds calls."""
    if isinstance(said, list):
        return {"role": "assistant", "content": "", "tool_calls": said}
    if said.startswith(">"):
        return {"role": "user", "content": f"Observation: {said[1:]}"}
    return {"role": "tool", "content": said[1:]} if said.startswith("$") else {"role": "assistant", "content": said}


def rows(**conversations: list[Any]) -> list[dict[str, Any]]:
    """Rollouts by name, of the question q1. Suffix _neg: a failure."""
    made = []
    for sequence, (name, said) in enumerate(conversations.items()):
        row: dict[str, Any] = dict.fromkeys([*INDEX_SCHEMA, "tools"])
        row |= {"rollout_key": name, "task": "strategyqa", "question_id": "q1", "source": "", "teacher": "", "gold": "true"}
        row |= {"reward": not name.endswith("_neg"), "conversation": json.dumps([turn(each) for each in said]), "occurrence": 0}
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
    "repeated_action_negative": (
        rows(
            again_neg=[SEARCH, ">a", SEARCH, ">a", FINISH], won=[SEARCH, ">a", SEARCH, ">a", FINISH], fine_neg=[SEARCH, FINISH]
        ),
        {"again_neg"},
    ),
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
    "unpaired_results": (
        rows(orphan=[[call("search")], "$a", "$b", FINISH], fine=[[call("search")], "$a", FINISH]),
        {"orphan"},
    ),
    "empty_observation": (rows(down=[SEARCH, ">", FINISH], fine=[SEARCH, ">9", FINISH]), {"down"}),
    "no_tool_use": (
        rows(guess=[FINISH], native_guess=[[call("finish", answer="Yes")]], fine=[SEARCH, ">a", FINISH]),
        {"guess", "native_guess"},
    ),
    "label_mismatch": (
        rows(
            right_neg=[SEARCH, "Action: finish[Most likely yes]"],
            wrong=["Action: finish[No]"],
            hedge_neg=["Action: finish[There is no study of it]"],
            wrong_neg=["Action: finish[No]"],
            fine=[FINISH],
        ),
        {"right_neg", "wrong"},
    ),
    "invalid_answer": (
        rows(hedge_neg=["Action: finish[Uncertain]"], wrong_neg=["Action: finish[ no. ]"], silent_neg=[SEARCH]),
        {"hedge_neg"},
    ),
    "benchmark_leak": (
        rows(
            question=[SEARCH, ">1. Is the SKY above us blue today? Answer: yes", FINISH],
            fact=[SEARCH, ">It says rayleigh scattering makes it blue, always", FINISH],
            hidden=[SEARCH, ">1. Is the sk\u00ady above\u200b us blue today?", FINISH],
            fine=[SEARCH, ">The sky is above us", FINISH],
        ),
        {"question", "fact", "hidden"},
    ),
    "length_bounds": (
        rows(short=["Action: finish[no]"], long=["x" * (512 * 12 + 1)], fine=[FINISH], nothing=[]),
        {"short", "long"},
    ),
    "low_judgement": (rows(low=[FINISH], high=[FINISH], unjudged=[FINISH]), {"low"}),
    "quotes_evaluation": (
        rows(
            quotes=[SEARCH, f">He asked: {LONG.upper()}? And so on", FINISH],
            part=[SEARCH, ">one two three four five six seven eight", FINISH],
        ),
        {"quotes"},
    ),
    "near_duplicate": (
        rows(
            first=[f"Thought: {LONG} {LONG} {LONG}.\nAction: finish[Yes]"],
            second=[f"Thought: {LONG} {LONG} {LONG}!\nAction: finish[yes] "],
            failed_neg=[f"Thought: {LONG} {LONG} {LONG}.\nAction: finish[Yes]"],
            other=[FINISH],
        ),
        {"second"},
    ),
    "contrast_too_close": (
        rows(
            early_neg=[f"Thought: {LONG}.\nAction: finish[No]"],
            won=[f"Thought: {LONG}.\nAction: finish[Yes]"],
            late_neg=[f"Thought: {LONG} indeed.\nAction: finish[No]"],
            far_neg=[SEARCH, ">a", "Action: finish[No]"],
        ),
        {"early_neg", "late_neg"},
    ),
}
NATIVE = {
    "no_finish": (
        rows(
            waits=[[call("bash", cmd="ls")], "$a"],
            submits=[[call("finish")]],
            speaks=[[call("bash", cmd="ls")], "$a", "It is yes."],
        ),
        {"waits"},
    ),
    "unknown_action": (rows(invents=[[call("fly")]], fine=[[call("search", q="x")], "$a", [call("finish")]]), {"invents"}),
    "same_actions": (
        rows(
            first_neg=[[call("search", q="x")], "$a", [call("finish")]],
            again_neg=["I think.", [call("search", q="X")], "$b", [call("finish")]],
            other_neg=[[call("search", q="y")], "$a", [call("finish")]],
        ),
        set(),
    ),
    "exact_duplicate": (
        rows(
            first=[[call("search", q="x")], "$a", [call("finish")]],
            other=[[call("search", q="y")], "$a", [call("finish")]],
            again=[[call("search", q="x")], "$b", [call("finish")]],
        ),
        {"again"},
    ),
    "bad_format": (rows(native=[[call("search", q="x")], "$a", "Action: x\nAction: y\nObservation: z"]), set()),
    "missing_thought": (rows(native=[[call("search", q="x")], "$a", [call("finish")]]), set()),
    "tool_error": (rows(native=[[call("bash", cmd="ls")], "$Error: no such file", [call("finish")]]), set()),
    "empty_observation": (rows(native=[[call("bash", cmd="true")], "$", [call("finish")]]), set()),
    "repeated_action_positive": (
        rows(native=[[call("bash", cmd="pytest")], "$a", [call("bash", cmd="pytest")], "$b", [call("finish")]]),
        set(),
    ),
}
"""The same filters on rollouts with tool calls."""
JUDGEMENTS = pl.DataFrame([("low", "m", 0.2, ""), ("high", "m", 0.5, "fine")], schema=JUDGEMENT_SCHEMA, orient="row")
QUESTIONS = [
    (
        "strategyqa",
        "q1",
        "train",
        "Is the sky above us blue today?",
        "true",
        ["Rayleigh scattering makes it blue.", "It is blue."],
        "h1",
    ),
    ("strategyqa", "q2", "test", "Is the sky above us BLUE, today", "true", [], "h2"),
    ("strategyqa", "q3", "gate", LONG, "true", [], "h3"),
]


def labelled(
    rollouts: list[dict[str, Any]], session: sql.Session, questions: list[tuple[Any, ...]], *scorers: str
) -> pl.DataFrame:
    """Rollouts with facts and labels, the session holding the model's tables."""
    frame = pl.DataFrame(rollouts, schema={**INDEX_SCHEMA, "conversation": pl.String, "tools": pl.String})
    load_conversations(session, frame, [RULE])
    make_model(session, [REGISTRY.model(name) for name in sql.MODEL_ORDER])
    outcomes = session.query("select rollout_key, style, answer, last_words from outcomes")
    asked = questions[0]
    known = frame.with_columns(
        question=pl.lit(asked[3]),
        facts=pl.lit(asked[5], pl.List(pl.String)),
        question_hash=pl.lit(asked[6]),
        truth="gold",
        rule=pl.lit("r"),
    )
    labeller = Labeller(scorers or ("recorded",), TASKS, {}, JUDGEMENTS)
    return labeller.label(known.join(outcomes, on="rollout_key", maintain_order="left"))


def run(name: str, rollouts: list[dict[str, Any]], questions: list[tuple[Any, ...]] = QUESTIONS) -> pl.DataFrame:
    """A filter's verdicts on some rollouts."""
    filter_ = next(each for each in REGISTRY.filters if each.name == name)
    with sql.Session() as session:
        frame = labelled(rollouts, session, questions)
        if filter_.is_of_rows:
            load_row_tables(session, frame, JUDGEMENTS)
            return verdict_rows(filter_, answer(session, filter_, "verdicts"), frame)
        signatures = session.query("select rollout_key, said, actions from signatures")
        said = session.query("select rollout_key, said from texts")
        sketches = sketch(said["said"]).with_columns(said["rollout_key"])
        pairs = find_pairs(frame.join(sketches, on="rollout_key", how="left", maintain_order="left"))
        asked = pl.DataFrame(questions, schema=QUESTION_SCHEMA, orient="row")
        held_out = asked.filter(pl.col("split") != "train")
        quotes = find_quotes(frame["rollout_key"], frame["conversation"], held_out["question_id"], held_out["question"])
        load_set_tables(session, frame, signatures=signatures, pairs=pairs, quotes=quotes, rule=RULE, questions=asked)
        return verdict_rows(filter_, answer(session, filter_, "verdicts"), frame)


def test_every_shipped_filter_has_a_fixture() -> None:
    assert {filter_.name for filter_ in REGISTRY.filters} == set(FIXTURES)


@pytest.mark.parametrize("name", sorted(FIXTURES))
def test_a_filter_catches_what_it_must_and_nothing_else(name: str) -> None:
    rollouts, caught = FIXTURES[name]
    assert set(run(name, rollouts)["rollout_key"]) == caught


@pytest.mark.parametrize("name", sorted(NATIVE))
def test_a_filter_knows_tool_calls_or_does_not_apply_to_them(name: str) -> None:
    rollouts, caught = NATIVE[name]
    assert set(run(name, rollouts)["rollout_key"]) == caught


def test_the_tools_that_a_rollout_was_offered_count_before_the_tasks() -> None:
    mine = rows(fine=[[call("fly")]], invents=[[call("search", q="x")]])
    for row in mine:
        row["tools"] = json.dumps([{"type": "function", "function": {"name": "fly"}}])
    assert set(run("unknown_action", mine)["rollout_key"]) == {"invents"}


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
    "unpaired_results": (0, 0),
    "empty_observation": (0, 0),
    "repeated_action_positive": (41, 0),
    "repeated_action_negative": (0, 63),
    "no_tool_use": (17, 15),
    "label_mismatch": (0, 5),
    "invalid_answer": (0, 115),
    "benchmark_leak": (20, 18),
    "length_bounds": (0, 0),
    "low_judgement": (0, 0),
    "decontaminate": (245, 266),
    "exact_duplicate": (0, 1),
    "same_actions": (0, 143),
    "near_duplicate": (0, 1),
    "contrast_too_close": (0, 2),
}
LEFT = {"strict": (773, 850), "paper": (1070, 1256)}
NEAR = {0.8: 1, 0.7: 1, 0.6: 3, 0.5: 9, 0.4: 16, 0.3: 54}
"""Later rows of the same question and label whose 3-word shingles have at least this Jaccard similarity, by brute force."""
CONTRASTS = {0.5: 2, 0.3: 23}


def test_the_filters_find_the_known_defects_of_the_real_strategyqa_rollouts(
    store: Store, settings: Settings, nat_dir: Path
) -> None:
    settings = settings.model_copy(update={"nat_dir": nat_dir, "wordtraps": WordtrapsSettings(enabled=False)})
    corpus = corpus_of(store, settings)
    funnel = corpus.details["profiles"]["strict"]["funnel"]
    found = {row["filter"]: (row["n_positive"], row["n_negative"]) for row in funnel}
    print(truth_table(funnel))
    assert {name: found[name] for name in TRUTHS} == TRUTHS
    assert found.keys() - TRUTHS.keys() == {"quotes_evaluation"}  # all of which decontaminate drops, too
    assert next(row for row in funnel if row["filter"] == "quotes_evaluation")["n_negative_only_this"] == 0
    for profile, left in LEFT.items():
        last = corpus.details["profiles"][profile]["funnel"][-1]
        assert (last["left_positive"], last["left_negative"]) == left
    pairs = pl.read_parquet(corpus.folder / "pairs.parquet")
    rows = pl.read_parquet(corpus.folder / "corpus.parquet").select("rollout_key", "question_id", "label")
    near = pairs.filter("is_earlier").join(rows, on="rollout_key")
    near = near.join(rows.rename({"rollout_key": "other_key"}), on="other_key", suffix="_other")
    near = near.filter(pl.col("question_id") == pl.col("question_id_other"))
    alike, contrary = (near.filter((pl.col("label") == pl.col("label_other")) == same) for same in (True, False))
    assert {at: alike.filter(pl.col("similarity") >= at)["rollout_key"].n_unique() for at in NEAR} == NEAR
    assert {at: contrary.filter(pl.col("similarity") >= at).height for at in CONTRASTS} == CONTRASTS


def truth_table(funnel: list[dict[str, Any]]) -> str:
    """The funnel beside what is known, for `pytest -s`."""
    lines = ["", f"{'filter':28}{'found':>12}{'truth':>12}{'left':>12}"]
    for row in funnel:
        found, left = (row["n_positive"], row["n_negative"]), (row["left_positive"], row["left_negative"])
        lines.append(f"{row['filter']:28}{found!s:>12}{TRUTHS.get(row['filter'], '')!s:>12}{left!s:>12}")
    return "\n".join(lines)


def land(settings: Settings, name: str, *question_ids: str) -> None:
    folder = settings.landing / "strategyqa" / "negtraj"
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{"question_id": q, "messages": [{"role": "assistant", "content": FINISH}], "reward": True} for q in question_ids]
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))


def lineage_of(store: Store, settings: Settings) -> Lineage:
    return Lineage(store, settings, run_child)


def corpus_of(store: Store, settings: Settings) -> Published:
    lineage = lineage_of(store, settings)
    for asset in ("question_sets", "raw_rollouts", "scored_trajectories"):
        lineage.build(asset)
    return lineage.trajectory_corpus("strategyqa")


def test_only_what_the_agent_said_outside_of_its_text_is_kept_from_its_text() -> None:
    plain = rows(plain=[SEARCH, ">a", FINISH])[0]
    more = {"reasoning": "Action: finish[No]", "ranges": [{"field": "content"}], "token_ids": [1], "loss": 0.5}
    turns = [{**each, **more} for each in json.loads(plain["conversation"])]
    rich = {**plain, "rollout_key": "rich", "conversation": json.dumps(turns)}
    with sql.Session() as session:
        labelled([plain, rich], session, QUESTIONS)
        steps = session.query(
            "select count(*) as n, count(distinct (step, content, thought, action_type)) as n_unlike from steps"
        )
        reasons = session.query("select count(*) as n from steps where reasoning is not null")
    assert steps.row(0) == (4, 2)
    assert reasons.item() == 2


def test_the_rejected_samples_have_no_columns_but_the_text_of_a_conversation(store: Store, settings: Settings) -> None:
    land(settings, "a.jsonl", "nobody's")
    columns = pl.read_parquet(corpus_of(store, settings).folder / "rejected_samples.parquet").columns
    assert "conversation" in columns
    assert not {"tools", "tokenizer"} & set(columns)


def test_a_corpus_refuses_scores_that_were_made_of_other_rollouts(store: Store, settings: Settings) -> None:
    land(settings, "a.jsonl", "q1")
    corpus_of(store, settings)
    land(settings, "b.jsonl", "q2")
    lineage = lineage_of(store, settings)
    lineage.raw_rollouts()
    with pytest.raises(StoreError, match="made from other rollouts"):
        lineage.trajectory_corpus("strategyqa")


def scored_work(store: Store, settings: Settings) -> dict[str, int]:
    lineage = lineage_of(store, settings)
    for asset in ("question_sets", "raw_rollouts"):
        lineage.build(asset)
    return lineage.scored_trajectories().work


def test_new_rows_are_judged_alone_and_an_edited_model_judges_all_again(
    store: Store, settings: Settings, tmp_path: Path
) -> None:
    settings = settings.model_copy(update={"wordtraps": WordtrapsSettings(enabled=False)})
    land(settings, "a.jsonl", "q1", "q2", "q3")
    assert scored_work(store, settings)["judged_bad_format"] == 3
    land(settings, "b.jsonl", "q4")
    assert scored_work(store, settings)["judged_bad_format"] == 1
    mine = tmp_path / "sql" / "model" / "actions.sql"
    mine.parent.mkdir(parents=True)
    mine.write_text(
        REGISTRY.files["model"]["actions"].path.read_text().replace("as argument\nfrom steps", "as argument\nfrom  steps")
    )
    settings = settings.model_copy(update={"sql_dirs": (mine.parent.parent,)})
    assert not any(scored_work(store, settings).values())  # white space is no edit
    mine.write_text(mine.read_text().replace("action_type is not null", "action_type is not null and true"))
    work = scored_work(store, settings)
    assert (work["judged_unknown_action"], work["judged_bad_format"]) == (4, 0)


def test_a_filter_that_is_dropped_into_a_folder_is_judged_alone(store: Store, settings: Settings, tmp_path: Path) -> None:
    settings = settings.model_copy(update={"wordtraps": WordtrapsSettings(enabled=False)})
    land(settings, "a.jsonl", "q1", "q2", "q3")
    scored_work(store, settings)
    mine = tmp_path / "sql" / "filters" / "900_says_done.sql"
    mine.parent.mkdir(parents=True)
    mine.write_text(
        '/*\nname = "says_done"\nreason = "says done"\nscope = "row"\nseverity = "flag"\napplies_to = "both"\nstyle = "any"\n'
        "doc = \"d\"\n*/\nselect rollout_key, step, 'done' as detail from steps where contains(content, 'done')"
    )
    work = scored_work(store, settings.model_copy(update={"sql_dirs": (mine.parent.parent,)}))
    assert {name: n for name, n in work.items() if n} == {"judged_says_done": 3, "conversations_read": 3}


def test_rollouts_of_held_out_and_of_unknown_questions_are_dropped_with_a_reason(store: Store, settings: Settings) -> None:
    table = pl.DataFrame(QUESTIONS, schema=QUESTION_SCHEMA, orient="row")

    def write(folder: Path) -> Built:
        table.write_parquet(folder / "questions.parquet")
        return Built(content={"tasks": {"strategyqa": {"rows": "r", "asked": "a"}}})

    store.build("question_sets", {"made": "here"}, write)
    land(settings, "a.jsonl", "q1", "q2", "nobody's")
    lineage = lineage_of(store, settings)
    lineage.raw_rollouts()
    lineage.scored_trajectories()
    for profile in lineage.trajectory_corpus("strategyqa").details["profiles"].values():
        found = {row["filter"]: row["n_positive"] for row in profile["funnel"]}
        assert (found["unknown_question"], found["evaluation_question"]) == (1, 1)


def test_a_filter_that_fails_on_the_data_leaves_the_others_verdicts_standing(
    store: Store, settings: Settings, tmp_path: Path
) -> None:
    settings = settings.model_copy(update={"wordtraps": WordtrapsSettings(enabled=False)})
    land(settings, "a.jsonl", "q1", "q2", "q3")
    mine = tmp_path / "sql" / "filters" / "900_counts.sql"
    mine.parent.mkdir(parents=True)
    header = (
        '/*\nname = "counts"\nreason = "r"\nscope = "row"\nseverity = "flag"\napplies_to = "both"\nstyle = "any"\ndoc = "d"\n'
    )
    header += "*/\n"
    mine.write_text(f"{header}select rollout_key, cast(content as integer) as step, 'x' as detail from steps")
    settings = settings.model_copy(update={"sql_dirs": (mine.parent.parent,)})
    with pytest.raises(SqlContractError, match=r"900_counts\.sql.*Could not convert string"):
        scored_work(store, settings)
    mine.write_text(f"{header}select rollout_key, 1 as step, 'x' as detail from steps")
    work = scored_work(store, settings)
    assert {name: n for name, n in work.items() if n} == {"judged_counts": 3, "conversations_read": 3}


def filter_file(folder: Path, body: str, *, scope: str = "row", name: str = "mine", number: int = 900) -> Path:
    path = folder / "sql" / "filters" / f"{number}_{name}.sql"
    path.parent.mkdir(parents=True, exist_ok=True)
    header = f'name = "{name}"\nreason = "{name}"\nscope = "{scope}"\nseverity = "drop"\napplies_to = "both"\n'
    header += 'style = "any"\ndoc = "d"\n'
    path.write_text(f"/*\n{header}*/\n{body}")
    return path.parent.parent


BEYOND = {
    "a row filter with an average of all": (
        "row",
        "select rollout_key, 1 as step, 'x' as detail from texts qualify length(said) >= max(length(said)) over ()",
    ),
    "a row filter that counts": ("row", "select rollout_key, count(*) over () as step, 'x' as detail from rollouts"),
    "a group filter that counts all": (
        "group",
        "select rollout_key, count(*) over () as step, 'x' as detail, null::varchar as earlier_key from rollouts",
    ),
    "a pairs filter that counts all": (
        "pairs",
        "select rollout_key, count(*) over () as step, 'x' as detail, null::varchar as earlier_key from rollouts",
    ),
}


def land_many(settings: Settings, n_rows: int) -> None:
    folder = settings.landing / "strategyqa" / "negtraj"
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(n_rows):
        said = f"Thought: {'so ' * (number % 17)}it is {number}.\nAction: finish[Yes]"
        row = {"question_id": f"q{number // 2}", "messages": [{"role": "assistant", "content": said}], "reward": True}
        (folder / f"n{number:03}.jsonl").write_text(json.dumps(row) + "\n")


@pytest.mark.parametrize("name", BEYOND)
def test_a_filter_that_looks_beyond_its_scope_is_refused(store: Store, settings: Settings, tmp_path: Path, name: str) -> None:
    scope, body = BEYOND[name]
    folder = filter_file(tmp_path, body, scope=scope)
    settings = settings.model_copy(update={"wordtraps": WordtrapsSettings(enabled=False), "sql_dirs": (folder,)})
    land_many(settings, 90)
    with pytest.raises(SqlContractError, match=rf"900_mine\.sql: what it says of rollout .* changes .* scope {scope} allows"):
        corpus_of(store, settings)


def test_a_corpus_filter_sees_everything_and_is_asked_about_all_again(store: Store, settings: Settings, tmp_path: Path) -> None:
    body = "select rollout_key, count(*) over () as step, 'x' as detail, null::varchar as earlier_key from rollouts"
    folder = filter_file(tmp_path, body, scope="corpus")
    settings = settings.model_copy(update={"wordtraps": WordtrapsSettings(enabled=False), "sql_dirs": (folder,)})
    for n_rows in (50, 60):
        land_many(settings, n_rows)
        corpus = corpus_of(store, settings)
        verdicts = pl.read_parquet(corpus.folder / "verdicts.parquet").filter(pl.col("filter") == "mine")
        assert (verdicts.height, verdicts["step"].unique().to_list()) == (n_rows, [n_rows])
        assert corpus.work["judged_mine"] == n_rows


@pytest.mark.parametrize("key", ["'nonsense'", "rollout_key"], ids=["unknown", "itself"])
def test_a_twin_that_did_not_come_earlier_is_refused(store: Store, settings: Settings, tmp_path: Path, key: str) -> None:
    folder = filter_file(
        tmp_path, f"select rollout_key, 1 as step, 'x' as detail, {key} as earlier_key from rollouts", scope="group"
    )
    settings = settings.model_copy(update={"wordtraps": WordtrapsSettings(enabled=False), "sql_dirs": (folder,)})
    land(settings, "a.jsonl", "q1")
    with pytest.raises(SqlContractError, match=r"900_mine\.sql: names .* as the earlier twin of"):
        corpus_of(store, settings)


def test_a_verdict_that_does_not_fit_is_refused_by_name_and_the_others_stand(
    store: Store, settings: Settings, tmp_path: Path
) -> None:
    folder = filter_file(tmp_path, "select rollout_key, 3000000000::bigint as step, 'x' as detail from rollouts")
    settings = settings.model_copy(update={"wordtraps": WordtrapsSettings(enabled=False)})
    land(settings, "a.jsonl", "q1", "q2")
    with pytest.raises(SqlContractError, match=r"900_mine\.sql: a verdict does not fit"):
        scored_work(store, settings.model_copy(update={"sql_dirs": (folder,)}))
    work = scored_work(store, settings)
    assert not any(n for name, n in work.items() if name.startswith("judged_"))


def test_a_users_model_file_reads_no_file(store: Store, settings: Settings, tmp_path: Path) -> None:
    shipped = REGISTRY.files["model"]["texts"].path.read_text()
    path = tmp_path / "sql" / "model" / "texts.sql"
    path.parent.mkdir(parents=True)
    path.write_text(
        shipped.replace(
            "    rollout_key,\n", "    rollout_key || (select content from read_text('/etc/hostname')) as rollout_key,\n", 1
        )
    )
    settings = settings.model_copy(update={"sql_dirs": (path.parent.parent,)})
    land(settings, "a.jsonl", "q1")
    with pytest.raises(SqlContractError, match=r"texts\.sql.*disabled"):
        scored_work(store, settings)


def test_the_first_reason_of_the_funnel_is_the_one_that_is_told(nat_dir: Path, store: Store, settings: Settings) -> None:
    settings = settings.model_copy(update={"nat_dir": nat_dir, "wordtraps": WordtrapsSettings(enabled=False)})
    corpus = corpus_of(store, settings)
    rows, verdicts = (pl.read_parquet(corpus.folder / f"{name}.parquet") for name in ("corpus", "verdicts"))
    profile = sql.find_profile(REGISTRY, "strict")
    told = dict(why_dropped(rows, verdicts, profile)["why"].value_counts().rows())
    left = 2333
    for row in corpus.details["profiles"]["strict"]["funnel"]:
        if row["severity"] == "drop" and row["filter"] not in ("exact_duplicate", "same_actions", "near_duplicate"):
            n_here = left - row["left_positive"] - row["left_negative"]
            assert told.get(f"filter {row['filter']}", 0) == n_here
            left -= n_here


@pytest.mark.parametrize("text", ["天空今天在我们头顶上是蓝色的吗", "Ist der Himmel über Zürich heute blau?"])
@pytest.mark.parametrize(
    "hide", ["{}?".format, "\u00ad".join, lambda text: normalize("NFD", text)], ids=["mark", "soft", "nfd"]
)
def test_a_copied_question_in_any_script_is_contaminated(text: str, hide: Callable[[str], str]) -> None:
    questions = [
        ("strategyqa", "q1", "train", text, "true", [], "h1"),
        ("strategyqa", "q2", "test", hide(text), "true", [], "h2"),
    ]
    assert run("decontaminate", rows(mine=[FINISH]), questions).height == 1


def test_a_question_in_a_script_without_spaces_that_shares_a_name_only_is_not_contaminated() -> None:
    questions = [
        ("strategyqa", "q1", "train", "北京故宫博物院的第一任院长是在哪一年出生的", "true", [], "h1"),
        ("strategyqa", "q2", "test", "北京故宫博物院里有没有比长城更古老的建筑", "true", [], "h2"),
    ]
    assert run("decontaminate", rows(mine=[FINISH]), questions).is_empty()


@pytest.mark.parametrize(
    ("question", "is_found"), [("天空今天在我们头顶上是蓝色的吗", True), ("天空是蓝色的吗", False)], ids=["long", "short"]
)
def test_a_leaked_question_is_measured_by_what_its_script_writes(question: str, is_found: bool) -> None:
    questions = [("strategyqa", "q1", "train", question, "true", [], "h1")]
    leaked = rows(mine=[SEARCH, f">1. {question}", FINISH])
    assert (run("benchmark_leak", leaked, questions).height == 1) == is_found


def test_a_leaked_question_is_found_in_another_normal_form() -> None:
    questions = [("strategyqa", "q1", "train", "Ist der Himmel über Zürich heute blau?", "true", [], "h1")]
    leaked = rows(mine=[SEARCH, f">1. {normalize('NFD', questions[0][3])}", FINISH])
    assert run("benchmark_leak", leaked, questions).height == 1


def test_a_join_by_using_is_a_join(store: Store, settings: Settings, tmp_path: Path) -> None:
    body = (
        "with mine as (select * from rollouts) select rollout_key, step, 'x' as detail from mine join steps using (rollout_key)"
    )
    folder = filter_file(tmp_path, body)
    settings = settings.model_copy(update={"wordtraps": WordtrapsSettings(enabled=False), "sql_dirs": (folder,)})
    land(settings, "a.jsonl", "q1", "q2")
    assert scored_work(store, settings)["judged_mine"] == 2


@pytest.mark.parametrize("damage", ["flipped", "removed"])
def test_a_damaged_list_of_keys_is_asked_again_and_doubles_nothing(store: Store, settings: Settings, damage: str) -> None:
    settings = settings.model_copy(update={"wordtraps": WordtrapsSettings(enabled=False)})
    land(settings, "a.jsonl", "q1", "q2", "q3")
    corpus_of(store, settings)
    for path in (settings.home / "segments" / "asked").glob("*/keys.parquet"):
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
        if damage == "removed":
            shutil.rmtree(path.parent)
    fresh = Store(settings.home)
    land(settings, "b.jsonl", "q4")
    assert scored_work(fresh, settings)["judged_bad_format"] == 4
    again = corpus_of(Store(settings.home), settings)
    for name in ("verdicts", "scores"):
        table = pl.read_parquet(again.folder / f"{name}.parquet")
        assert table.height == table.unique().height
    whole = settings.model_copy(update={"home": settings.home.with_name("whole")})
    shutil.copytree(settings.landing, whole.landing)
    assert again.version == corpus_of(Store(whole.home), whole).version
