"""A recipe's shards: which token rows it trains on, in which order and how often. The tokens themselves are shared."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from negtraj_dagster.errors import SettingsError, StoreError
from negtraj_dagster.schema import Question, Turn, conditioned_json, digest, digest_json
from negtraj_dagster.shards.tokenize import Tokenized, TokenRule, tokenize
from negtraj_dagster.store import Built, Published, Store
from negtraj_dagster.strategies import Prompter, Strategy

SHARDS_VERSION = 1
N_PREVIEWS = 3


@dataclass(frozen=True)
class Conditioning:
    """A strategy with the prompter it speaks through; `identity` names both for keys."""

    strategy: Strategy
    prompter: Prompter
    identity: str


def build_shards(
    store: Store,
    recipe: str,
    *,
    selection: Published,
    corpus: Published,
    questions: Mapping[str, Question],
    conditioning: Conditioning,
    rule: TokenRule,
) -> Published:
    """The recipe's tokenized shards, tokenizing only what no recipe has tokenized under this rule.

    Args:
        store: keeps token segments and the recipe's index.
        recipe: its name.
        selection: the recipe's training selection.
        corpus: where the selected conversations are read.
        questions: question id -> question, of the recipe's task.
        conditioning: the strategy.
        rule: the token rule.

    Raises:
        MaskError: a row's mask is not what should be trained.
        SettingsError: every row was rejected.
    """
    asset = f"{recipe}/tokenized_shards"
    asked = digest_json({key: question.question_hash for key, question in questions.items()})
    key = digest("shards", str(SHARDS_VERSION), selection.version, asked, conditioning.identity, rule.rule_key)
    present = store.current(asset)
    if present and present.key == key and not all(store.has_segment(name) for name in present.details.get("segments", ())):
        store.discard(asset, key)  # its token rows are gone: make them again
    return store.build(
        asset, key, lambda folder: _build(store, folder, recipe, selection, corpus, questions, conditioning, rule)
    )


def _build(
    store: Store,
    folder: Path,
    recipe: str,
    selection: Published,
    corpus: Published,
    questions: Mapping[str, Question],
    conditioning: Conditioning,
    rule: TokenRule,
) -> Built:
    if selection.is_empty:
        return Built(content=selection.content)
    store.verify(selection.folder)
    selected = pl.read_parquet(selection.folder / "selection.parquet", glob=False).filter("selected")
    turns_of = _read_conversations(store, corpus, selected)
    rows, conversations = _condition(selected, turns_of, questions, conditioning, rule)
    tokenized = tokenize(store, rule, conversations)
    index = _index(rows, tokenized)
    if index.is_empty():
        raise SettingsError(
            f"recipe {recipe}: all {len(rows)} rows were rejected ({dict(Counter(tokenized.rejected.values()))}); "
            f"raise shards.max_tokens (now {rule.max_tokens}) or choose other rollouts"
        )
    index.write_parquet(folder / "index.parquet")
    previews = _previews(index, conversations)
    (folder / "previews.json").write_text(json.dumps(previews, ensure_ascii=False), encoding="utf-8")
    identity = index.select("token_key", "class", "weight", "repeat").rows()
    return Built(
        content={
            "index": digest_json(identity),
            "rule": rule.rule_key,
            "n_rows": index.height,
            "n_contaminated": selection.content["n_contaminated"],
        },
        details={"segments": list(tokenized.segments), **_statistics(index, tokenized, rows)},
        work={"rows_tokenized": tokenized.n_tokenized, "tokens_computed": tokenized.n_tokens_computed},
    )


def _read_conversations(store: Store, corpus: Published, selected: pl.DataFrame) -> dict[str, list[Turn]]:
    store.verify(corpus.folder)
    wanted = selected.select("rollout_key")
    table = pl.scan_parquet(corpus.folder / "corpus.parquet", glob=False).select("rollout_key", "conversation")
    rows = table.join(wanted.lazy(), on="rollout_key", how="semi").collect()
    return {key: json.loads(text) for key, text in rows.rows()}


def _condition(
    selected: pl.DataFrame,
    turns_of: Mapping[str, list[Turn]],
    questions: Mapping[str, Question],
    conditioning: Conditioning,
    rule: TokenRule,
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    rows, conversations = [], {}
    for row in selected.iter_rows(named=True):
        if row["rollout_key"] not in turns_of or row["question_id"] not in questions:
            raise StoreError(
                f"rollout {row['rollout_key']}: selected, but it or its question {row['question_id']!r} is gone from "
                f"the corpus; materialize training_selection again"
            )
        question = questions[row["question_id"]]
        turns = conditioning.strategy.condition(conditioning.prompter, question, turns_of[row["rollout_key"]], row["class"])
        text = conditioned_json(turns)
        token_key = rule.token_key(text)
        conversations[token_key] = text
        rows.append({**{name: row[name] for name in ("rollout_key", "class", "weight", "repeat")}, "token_key": token_key})
    return rows, conversations


INDEX_COLUMNS = ("position", "token_key", "rollout_key", "class", "weight", "repeat", "n_tokens", "n_trained")


def _index(rows: Sequence[Mapping[str, Any]], tokenized: Tokenized) -> pl.DataFrame:
    frame = pl.DataFrame(rows, schema_overrides={"weight": pl.Float32, "repeat": pl.Int32})
    written = tokenized.rows.filter(pl.col("reason") == "").select("token_key", "n_tokens", "n_trained")
    kept = frame.join(written, on="token_key", how="inner", maintain_order="left")
    return kept.with_row_index("position").cast({"position": pl.Int64}).select(INDEX_COLUMNS)


def _statistics(index: pl.DataFrame, tokenized: Tokenized, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    epoch = index.select(
        tokens=(pl.col("n_tokens") * pl.col("repeat")).sum(), trained=(pl.col("n_trained") * pl.col("repeat")).sum()
    ).row(0)
    rejected = Counter(tokenized.rejected[row["token_key"]] for row in rows if row["token_key"] in tokenized.rejected)
    return {
        "n_rejected": sum(rejected.values()),
        "rejected": dict(rejected.most_common()),
        "rows_per_epoch": int(index["repeat"].sum()),
        "tokens_per_epoch": int(epoch[0]),
        "trained_tokens_per_epoch": int(epoch[1]),
        "trained_share": round(epoch[1] / epoch[0], 4),
        "max_row_tokens": int(index["n_tokens"].max() or 0),  # type: ignore[arg-type]
        "rows_by_class": dict(index["class"].value_counts().sort("class").rows()),
    }


def _previews(index: pl.DataFrame, conversations: Mapping[str, str]) -> list[dict[str, Any]]:
    """The first rows of each class as text, for people to look at."""
    sample = index.group_by("class", maintain_order=True).head(N_PREVIEWS)
    return [
        {"class": name, "rollout_key": key, **json.loads(conversations[token_key])}
        for name, key, token_key in sample.select("class", "rollout_key", "token_key").rows()
    ]
