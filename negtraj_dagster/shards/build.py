"""A recipe's shards: which token rows it trains on, in which order and how often. The tokens themselves are shared."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from negtraj_dagster.conversations import read_conversations
from negtraj_dagster.errors import SettingsError, StoreError
from negtraj_dagster.schema import Question, Turn, conditioned_json, digest
from negtraj_dagster.shards.tokenize import TokenRule, token_keys, tokenize
from negtraj_dagster.store import Built, Published, Store
from negtraj_dagster.strategies import Prompter, Strategy
from negtraj_dagster.tables import RowCache, digest_rows, frame_digest

SHARDS_VERSION = 1
N_PREVIEWS = 3


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
    asked = digest(*(f"{question.question_id} {question.question_hash}" for question in selected.questions))
    made_of = {
        "code": SHARDS_VERSION,
        "training_selection": selected.selection.version,
        "questions": asked,
        "conditioning": conditioning.identity,
        "token_rule": rule.rule_key,
    }
    asset = f"{recipe}/tokenized_shards"
    return store.build(asset, made_of, lambda folder: _build(store, folder, recipe, selected, conditioning, rule))


def _build(store: Store, folder: Path, recipe: str, selected: Selected, conditioning: Conditioning, rule: TokenRule) -> Built:
    if selected.selection.is_empty:
        return Built(content=selected.selection.content)
    rows = _read_rows(store, selected, conditioning)
    cache = RowCache(store, f"conditioned/{rule.rule_key[:16]}", "condition_key", CONDITIONED_SCHEMA)
    work = _condition_missing(store, cache, rows, selected, conditioning, rule)
    rows = rows.join(cache.rows(rows).unique("condition_key"), on="condition_key", how="left", maintain_order="left")
    known = rows.select("token_key").unique().join(token_keys(store, rule), on="token_key", how="left")
    if lost := known.filter(pl.col("segment").is_null())["token_key"].to_list():
        work += _condition_again(store, rows.filter(pl.col("token_key").is_in(lost)), selected, conditioning, rule)
        known = rows.select("token_key").unique().join(token_keys(store, rule), on="token_key", how="left")
    rows = rows.join(known, on="token_key", how="left", maintain_order="left")
    index = _index(rows)
    rejected = _count_rejected(rows)
    if index.is_empty():
        raise SettingsError(
            f"recipe {recipe}: all {rows.height} rows were rejected ({rejected}); "
            f"raise shards.max_tokens (now {rule.max_tokens}) or choose other rollouts"
        )
    index.rechunk().write_parquet(folder / "index.parquet")
    previews = _previews(store, index, rows, selected, conditioning)
    (folder / "previews.json").write_text(json.dumps(previews, ensure_ascii=False), encoding="utf-8")
    segments = [store.folder(name) for name in sorted(known["segment"].unique())]
    return Built(
        content={
            "index": frame_digest(index.select("token_key", "class", "weight", "repeat")),
            "rule": rule.rule_key,
            "n_rows": index.height,
            "n_contaminated": selected.selection.content["n_contaminated"],
        },
        details={
            "segments": [store.name(each) for each in segments],
            "encoder": _encoders(store, segments),
            "n_cut": rows.filter(pl.col("n_left_out") > 0).height,
            **_statistics(index, rejected),
        },
        work=work.counts(),
        refers=store.refer(segments),
        caches=tuple(store.name(each) for each in cache.segments()),
    )


CONDITIONED_SCHEMA = pl.Schema({"condition_key": pl.String, "token_key": pl.String})
"""What a rollout under a strategy, as a class, with its question becomes: the key of its token row."""
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
    chosen = (
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
    rows = chosen.join(corpus, on="rollout_key", how="left", maintain_order="left")
    rows = rows.join(hashes, on="question_id", how="left", maintain_order="left")
    if (lost := rows.filter(pl.col("base_key").is_null() | pl.col("question_hash").is_null())).height:
        key, question_id = lost.select("rollout_key", "question_id").row(0)
        raise StoreError(
            f"rollout {key}: selected, but it or its question {question_id!r} is gone from the corpus; "
            f"materialize training_selection again"
        )
    keys = digest_rows(rows.select("rollout_key", "question_hash", "class"), prefix=f"conditioned {conditioning.identity}")
    return rows.with_columns(keys.alias("condition_key"))


def _condition_missing(
    store: Store, cache: RowCache, rows: pl.DataFrame, selected: Selected, conditioning: Conditioning, rule: TokenRule
) -> _Work:
    work, missing = _Work(), cache.missing(rows)
    for batch in missing.iter_slices(BATCH_ROWS):
        conversations = _condition(store, batch, selected, conditioning)
        made = [(key, rule.token_key(text)) for key, text in conversations.items()]
        done = tokenize(store, rule, {rule.token_key(text): text for text in conversations.values()})
        answered = pl.DataFrame(made, schema=CONDITIONED_SCHEMA, orient="row")
        cache.add(answered["condition_key"], answered)
        work += _Work(batch.height, done.n_rows, done.n_tokens)
    return work


def _condition_again(
    store: Store, rows: pl.DataFrame, selected: Selected, conditioning: Conditioning, rule: TokenRule
) -> _Work:
    """Token rows that were conditioned once but are gone from the store: make them again."""
    work = _Work()
    for batch in rows.iter_slices(BATCH_ROWS):
        conversations = _condition(store, batch, selected, conditioning)
        done = tokenize(store, rule, {rule.token_key(text): text for text in conversations.values()})
        work += _Work(batch.height, done.n_rows, done.n_tokens)
    return work


def _condition(store: Store, rows: pl.DataFrame, selected: Selected, conditioning: Conditioning) -> dict[str, str]:
    """condition_key -> canonical conditioned conversation."""
    texts = dict(read_conversations(store, selected.raw, rows["base_key"]).select("base_key", "conversation").rows())
    wanted = set(rows["question_id"])
    questions = {question.question_id: question for question in selected.questions if question.question_id in wanted}
    made = {}
    for key, base_key, question_id, class_name in rows.select("condition_key", "base_key", "question_id", "class").rows():
        if base_key not in texts:
            raise StoreError(
                f"conversation {base_key} is gone from the store; run `negtraj verify --repair`, then materialize again"
            )
        turns: list[Turn] = json.loads(texts[base_key])
        conditioned = conditioning.strategy.condition(conditioning.prompter, questions[question_id], turns, class_name)
        made[key] = conditioned_json(conditioned)
    return made


INDEX_COLUMNS = ("position", "token_key", "rollout_key", "class", "weight", "repeat", "n_tokens", "n_trained")


def _index(rows: pl.DataFrame) -> pl.DataFrame:
    kept = rows.filter(pl.col("reason") == "")
    return kept.with_row_index("position").cast({"position": pl.Int64}).select(INDEX_COLUMNS)


def _count_rejected(rows: pl.DataFrame) -> dict[str, int]:
    refused = rows.filter(pl.col("reason") != "")
    return dict(refused["reason"].value_counts().sort(["count", "reason"], descending=[True, False]).rows())


def _encoders(store: Store, segments: Sequence[Path]) -> str:
    """Which encoders made the rows, and why not a faster one."""
    made = [store.details(segment) for segment in segments]
    names = {(each.get("encoder") or "tokenizers", each.get("encoder_note") or "") for each in made}
    return "; ".join(f"{name} ({note})" if note else name for name, note in sorted(names))


def _statistics(index: pl.DataFrame, rejected: Mapping[str, int]) -> dict[str, Any]:
    epoch = index.select(
        tokens=(pl.col("n_tokens") * pl.col("repeat")).sum(), trained=(pl.col("n_trained") * pl.col("repeat")).sum()
    ).row(0)
    return {
        "n_rejected": sum(rejected.values()),
        "rejected": dict(rejected),
        "rows_per_epoch": int(index["repeat"].sum()),
        "tokens_per_epoch": int(epoch[0]),
        "trained_tokens_per_epoch": int(epoch[1]),
        "trained_share": round(epoch[1] / epoch[0], 4),
        "max_row_tokens": int(index["n_tokens"].max() or 0),  # type: ignore[arg-type]
        "rows_by_class": dict(index["class"].value_counts().sort("class").rows()),
    }


def _previews(
    store: Store, index: pl.DataFrame, rows: pl.DataFrame, selected: Selected, conditioning: Conditioning
) -> list[dict[str, Any]]:
    """The first rows of each class as text, for people to look at."""
    sample = index.group_by("class", maintain_order=True).head(N_PREVIEWS).select("rollout_key", "class")
    wanted = sample.join(rows, on=["rollout_key", "class"], how="left", maintain_order="left")
    conversations = _condition(store, wanted, selected, conditioning)
    columns = ("class", "rollout_key", "condition_key", "n_left_out")
    return [
        {"class": name, "rollout_key": key, "n_left_out": n_left_out, **_beginning(conversations[condition_key], n_left_out)}
        for name, key, condition_key, n_left_out in wanted.select(columns).rows()
    ]


def _beginning(conversation: str, n_left_out: int) -> dict[str, Any]:
    """A conditioned conversation without its last messages."""
    whole: dict[str, Any] = json.loads(conversation)
    return {**whole, "messages": whole["messages"][: len(whole["messages"]) - n_left_out]}
