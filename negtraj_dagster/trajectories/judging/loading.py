"""Loads a session with the tables of contract.py: rollouts with conversations for row files, narrow ones for set-level ones."""

from collections.abc import Iterable, Sequence

import polars as pl

from negtraj_dagster import sql
from negtraj_dagster.comparable import extract_words
from negtraj_dagster.schema import EVALUATION_SPLITS
from negtraj_dagster.trajectories.judging.contract import NARROW, ROW_TABLES, SET_TABLES, TURN, create_model, show_table
from negtraj_dagster.trajectories.judging.rules import TaskRule, task_table

TURNS_JSON = (
    '[{"role":"VARCHAR","content":"VARCHAR","reasoning":"VARCHAR",'
    '"tool_calls":[{"id":"VARCHAR","name":"VARCHAR","arguments":"VARCHAR"}],"tool_call_id":"VARCHAR"}]'
)
SHOWN = ("rollouts", "signatures", "pairs", "quotes")
RENAMED = {"is_strictly_right": "task_strict", "is_leniently_right": "task_lenient", "gold": "truth"}


def load_conversations(session: sql.Session, rollouts: pl.DataFrame, rules: Iterable[TaskRule]) -> None:
    """Start a session over some rollouts: the table `rollouts` without what is said of them, and `tasks`; then lock it.

    Args:
        session: emptied first.
        rollouts: rollout_key, task, conversation (JSON text), tools.
        rules: one per task.
    """
    session.reset()
    session.load(
        "spoken",
        rollouts.select("rollout_key", "task", "tools", "conversation"),
        f"rollout_key, task, tools, cast(from_json(conversation, '{TURNS_JSON}') as {TURN}[]) as conversation",
    )
    session.load("tasks", task_table(rules))
    session.execute("create view rollouts as select * from spoken")
    session.lock()


def make_model(session: sql.Session, files: Iterable[sql.SqlFile]) -> None:
    """Make model tables, in their order."""
    for file in files:
        create_model(session, file)


def load_row_tables(session: sql.Session, labelled: pl.DataFrame, judgements: pl.DataFrame) -> None:
    """Give `rollouts` what labels and questions say of them.

    Args:
        session: with conversations and the model's tables.
        labelled: the same rollouts with labels, question and facts.
        judgements: of any rollouts.
    """
    columns = (*NARROW, "question", "facts")
    session.load("told", labelled.select(pl.col(RENAMED.get(name, name)).alias(name) for name in columns))
    present_judgements = judgements.join(labelled.select("rollout_key"), on="rollout_key", how="semi")
    session.load("all_judgements", present_judgements.select(*ROW_TABLES["judgements"]))
    session.execute(
        "create table all_rollouts as select told.*, spoken.tools, spoken.conversation from told inner join spoken "
        "using (rollout_key)"
    )
    session.execute("create or replace view rollouts as select * from all_rollouts")
    session.execute("create view judgements as select * from all_judgements")
    session.execute("create table wanted (rollout_key varchar)")


def load_set_tables(
    session: sql.Session,
    labelled: pl.DataFrame,
    *,
    signatures: pl.DataFrame,
    pairs: pl.DataFrame,
    quotes: pl.DataFrame,
    rule: TaskRule,
    questions: pl.DataFrame,
) -> None:
    """Load what set-level filters see of one task, and lock the session."""
    session.reset()
    narrow = labelled.select(*(pl.col(RENAMED.get(name, name)).alias(name) for name in NARROW), "ingest_seq")
    session.load("all_rollouts", narrow.sort("ingest_seq"))
    session.load("all_signatures", signatures.select(*SET_TABLES["signatures"]))
    session.load("all_pairs", pairs.select(*SET_TABLES["pairs"]))
    session.load("all_quotes", quotes.select(*SET_TABLES["quotes"]))
    session.load("tasks", task_table([rule]))
    worded = questions.with_columns(extract_words(questions["question"]).alias("words"))
    session.load("all_questions", worded.select(*SET_TABLES["questions"]))
    session.execute("create table wanted (rollout_key varchar)")
    show_all(session, SHOWN)
    show_questions(session, has_held_out=True)
    session.lock()


def show_questions(session: sql.Session, *, has_held_out: bool) -> None:
    """Let set-level files see the questions of the rollouts they see; those of scope `reference` all held-out ones, too."""
    of_rollouts = "question_id in (select question_id from rollouts)"
    held_out = ", ".join(f"'{split}'" for split in EVALUATION_SPLITS)
    condition = f"split in ({held_out}) or {of_rollouts}" if has_held_out else f"split not in ({held_out}) and {of_rollouts}"
    session.execute(f"create or replace view questions as select * from all_questions where {condition}")


def show_all(session: sql.Session, tables: Sequence[str]) -> None:
    """Let files see every row of these tables."""
    for name in tables:
        show_table(session, name)


def show_only(session: sql.Session, tables: Sequence[str], keys: pl.Series) -> None:
    """Let files see the rows of some rollouts only."""
    session.load("wanted", pl.DataFrame({"rollout_key": keys.unique()}))
    for name in tables:
        show_table(session, name, "semi join wanted using (rollout_key)")
