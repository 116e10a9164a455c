"""A recipe's shards: which token rows it trains on, in which order and how often. The tokens themselves are shared."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from negtraj_dagster.conversations import read_conversations, read_places
from negtraj_dagster.errors import SettingsError, StoreError
from negtraj_dagster.schema import Question, digest
from negtraj_dagster.shards.conditioning import Recorded, condition_rows
from negtraj_dagster.shards.describe import (
    count_by_reason,
    encoders,
    proved,
    statistics,
    write_previews,
)
from negtraj_dagster.shards.remedies import remedies
from negtraj_dagster.shards.tokenize import KnownTokens, TokenRule, token_keys, tokenize
from negtraj_dagster.store import Built, Published, Store
from negtraj_dagster.strategies import Prompter, Strategy
from negtraj_dagster.tables import RowCache, digest_rows, frame_digest

SHARDS_VERSION = 4


@dataclass(frozen=True)
class Conditioning:
    """A strategy with the prompter it speaks through; `identity` names both for keys."""

    strategy: Strategy
    prompter: Prompter
    identity: str


@dataclass(frozen=True)
class Selected:
    """What a recipe's shards are made of."""

    selection: Published
    corpus: Published
    raw: Published
    questions: Sequence[Question]


def build_shards(store: Store, recipe: str, *, selected: Selected, conditioning: Conditioning, rule: TokenRule) -> Published:
    """The recipe's tokenized shards: only what no recipe has conditioned and tokenized under this rule is computed.

    Args:
        store: keeps token segments and the recipe's index.
        recipe: its name.
        selected: the selection, and where its conversations and questions are read.
        conditioning: the strategy.
        rule: the token rule.

    Raises:
        MaskError: a row's mask is not what should be trained.
        SettingsError: every row was rejected.
    """
    questions_digest = digest(*(f"{question.question_id} {question.question_hash}" for question in selected.questions))
    made_of = {
        "code": SHARDS_VERSION,
        "training_selection": selected.selection.version,
        "questions": questions_digest,
        "conditioning": conditioning.identity,
        "token_rule": rule.rule_key,
        "rows": f"reasoning: {rule.rows.reasoning}, ids: {rule.rows.ids}",
    }
    asset = f"{recipe}/tokenized_shards"
    return store.build(asset, made_of, lambda folder: _build(store, folder, recipe, selected, conditioning, rule))


def _build(store: Store, folder: Path, recipe: str, selected: Selected, conditioning: Conditioning, rule: TokenRule) -> Built:
    if selected.selection.is_empty:
        return Built(content=selected.selection.content)
    rows = _read_rows(store, selected, conditioning)
    cache = RowCache(store, f"conditioned/{rule.rows_key[:16]}", "condition_key", CONDITIONED_SCHEMA)
    work = _condition_missing(store, cache, rows, selected, conditioning, rule)
    conditioned = cache.rows(rows).unique(["condition_key", "row"]).sort("condition_key", "row")
    rows = rows.join(conditioned, on="condition_key", how="left", maintain_order="left_right")
    token_rows = rows.select("token_key").unique().join(token_keys(store, rule), on="token_key", how="left")
    if absent := token_rows.filter(pl.col("segment").is_null())["token_key"].to_list():
        work += _condition_again(store, rows.filter(pl.col("token_key").is_in(absent)), selected, conditioning, rule)
        token_rows = rows.select("token_key").unique().join(token_keys(store, rule), on="token_key", how="left")
    rows = rows.join(token_rows, on="token_key", how="left", maintain_order="left")
    index = _index(rows)
    refused = rows.filter(pl.col("reason") != "")
    if index.is_empty():
        reasons = refused["reason"].unique(maintain_order=True)
        raise SettingsError(
            f"recipe {recipe}: all {rows.height} rows were rejected ({count_by_reason(refused)}); the first one: "
            f"{refused['detail'][0]}. What mends them: {remedies(reasons)}{_longer(refused, rule)}"
        )
    segments = [store.folder(name) for name in sorted(token_rows["segment"].unique())]
    details = {**statistics(index, rows), **proved(store, segments)}
    index.rechunk().write_parquet(folder / "index.parquet")
    refused.select(REJECTED_COLUMNS).write_parquet(folder / "rejected.parquet")
    write_previews(folder, recipe, index=index, rows=rows, segments=segments, rule=rule, details=details)
    return Built(
        content={
            "index": frame_digest(index.select("token_key", "question_id", "class", "weight", "repeat")),
            "rule": rule.rule_key,
            "n_rows": index.height,
            "n_contaminated": selected.selection.content["n_contaminated"],
        },
        details={
            "segments": [store.name(segment) for segment in segments],
            "encoder": encoders(store, segments),
            "template": rule.template.name,
            "chat_template": rule.template.to_json(),
            "tokenizer_sha256": rule.tokenizer_sha256,
            **{name: selected.selection.details[name] for name in PASSED_ON if name in selected.selection.details},
            **details,
        },
        work=work.counts(),
        volatile=("preview.html",),
        refers=store.refer(segments),
        caches=tuple(store.name(segment) for segment in cache.segments()),
    )


CONDITIONED_SCHEMA = pl.Schema({"condition_key": pl.String, "row": pl.Int32, "token_key": pl.String})
"""What a rollout under a strategy, as a class, with its question becomes: the keys of its token rows, numbered from 0."""
PASSED_ON = ("contaminated_questions",)
"""What a selection's details say that reports want to know of the shards."""
BATCH_ROWS = 4096
"""Rows conditioned and tokenized at a time: bounds memory, and what a killed run has to do again."""


@dataclass
class _Work:
    """What one build computed."""

    rows_conditioned: int = 0
    rows_tokenized: int = 0
    tokens_computed: int = 0

    def __iadd__(self, other: "_Work") -> "_Work":
        self.rows_conditioned += other.rows_conditioned
        self.rows_tokenized += other.rows_tokenized
        self.tokens_computed += other.tokens_computed
        return self

    def counts(self) -> dict[str, int]:
        """By name."""
        return dict(vars(self))


def _read_rows(store: Store, selected: Selected, conditioning: Conditioning) -> pl.DataFrame:
    """The selected rows with what finds their conversation and question, and `condition_key`."""
    path = store.file(selected.selection.folder, "selection.parquet")
    selected_rows = (
        pl.read_parquet(path, glob=False).filter("selected").select("rollout_key", "question_id", "class", "weight", "repeat")
    )
    corpus = pl.read_parquet(
        store.file(selected.corpus.folder, "corpus.parquet"), columns=["rollout_key", "base_key"], glob=False
    )
    hashes = pl.DataFrame(
        [(question.question_id, question.question_hash) for question in selected.questions],
        schema={"question_id": pl.String, "question_hash": pl.String},
        orient="row",
    )
    rows = selected_rows.join(corpus, on="rollout_key", how="left", maintain_order="left")
    rows = rows.join(hashes, on="question_id", how="left", maintain_order="left")
    if (incomplete := rows.filter(pl.col("base_key").is_null() | pl.col("question_hash").is_null())).height:
        key, question_id = incomplete.select("rollout_key", "question_id").row(0)
        raise StoreError(
            f"rollout {key}: selected, but it or its question {question_id!r} is gone from the corpus; "
            f"materialize training_selection again"
        )
    keys = digest_rows(rows.select("rollout_key", "question_hash", "class"), prefix=f"conditioned {conditioning.identity}")
    return rows.with_columns(keys.alias("condition_key"))


def _condition_missing(
    store: Store, cache: RowCache, rows: pl.DataFrame, selected: Selected, conditioning: Conditioning, rule: TokenRule
) -> _Work:
    work, missing, known = _Work(), cache.missing(rows), KnownTokens(store, rule)
    places = read_places(store, selected.raw) if missing.height else None
    for batch in missing.iter_slices(_batch_rows(rule)):
        conditioned = _condition(store, batch, selected, conditioning, rule, places)
        done = tokenize(store, rule, {key: text for texts in conditioned.values() for key, text in texts}, known)
        answers = [(key, n, token_key) for key, texts in conditioned.items() for n, (token_key, _) in enumerate(texts)]
        answered = pl.DataFrame(answers, schema=CONDITIONED_SCHEMA, orient="row")
        cache.add(answered["condition_key"], answered)
        work += _Work(batch.height, done.n_rows, done.n_tokens)
    return work


def _condition_again(
    store: Store, rows: pl.DataFrame, selected: Selected, conditioning: Conditioning, rule: TokenRule
) -> _Work:
    """Token rows that were conditioned once but are gone from the store: make them again."""
    work, known = _Work(), KnownTokens(store, rule)
    for batch in rows.unique("condition_key", maintain_order=True).iter_slices(_batch_rows(rule)):
        conditioned = _condition(store, batch, selected, conditioning, rule)
        done = tokenize(store, rule, {key: text for texts in conditioned.values() for key, text in texts}, known)
        work += _Work(batch.height, done.n_rows, done.n_tokens)
    return work


def _longer(refused: pl.DataFrame, rule: TokenRule) -> str:
    is_too_long = (refused["reason"] == "over_length").any()
    return f" (shards.max_tokens is {rule.max_tokens})" if is_too_long else ""


def _batch_rows(rule: TokenRule) -> int:
    """Rollouts conditioned at a time: fewer where each becomes a row for every turn, with its context again and again."""
    return BATCH_ROWS // 32 if rule.rows.has_row_per_turn else BATCH_ROWS


def _condition(
    store: Store,
    rows: pl.DataFrame,
    selected: Selected,
    conditioning: Conditioning,
    rule: TokenRule,
    places: pl.DataFrame | None = None,
) -> dict[str, list[tuple[str, str]]]:
    """condition_key -> token keys and canonical conditioned conversations of its token rows."""
    columns = ("base_key", "conversation", "tools", "tokenizer")
    read = read_conversations(store, selected.raw, rows["base_key"], places).select(columns).rows()
    conversations = {base_key: rest for base_key, *rest in read}
    question_ids = set(rows["question_id"])
    questions = {question.question_id: question for question in selected.questions if question.question_id in question_ids}
    asked = rows.select("condition_key", "base_key", "question_id", "class").rows()
    for _, base_key, _, _ in asked:
        if base_key not in conversations:
            raise StoreError(
                f"conversation {base_key} is gone from the store; run `negtraj verify --repair`, then materialize again"
            )
    recorded = [
        Recorded(questions[question_id], class_name, *conversations[base_key]) for _, base_key, question_id, class_name in asked
    ]
    texts_of = condition_rows(recorded, conditioning.strategy, conditioning.prompter, rule.rows, keep_last_turns=rule.cuts_rows)
    return {
        key: [(rule.token_key(text), text) for text in texts] for (key, _, _, _), texts in zip(asked, texts_of, strict=True)
    }


INDEX_COLUMNS = ("position", "token_key", "rollout_key", "question_id", "class", "weight", "repeat", "n_tokens", "n_trained")

REJECTED_COLUMNS = ("rollout_key", "class", "row", "token_key", "reason", "detail")


def _index(rows: pl.DataFrame) -> pl.DataFrame:
    written_rows = rows.filter(pl.col("reason") == "")
    return written_rows.with_row_index("position").cast({"position": pl.Int64}).select(INDEX_COLUMNS)
