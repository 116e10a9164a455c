"""Everything that was decided about one rollout, read from the present objects; nothing is judged anew.

`explain_text` writes it for a terminal.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import polars as pl

from negtraj_dagster import sql
from negtraj_dagster.conversations import read_conversations, read_index
from negtraj_dagster.errors import SettingsError
from negtraj_dagster.recipes import Recipe
from negtraj_dagster.schema import FIXED_VERDICTS
from negtraj_dagster.settings import did_you_mean
from negtraj_dagster.store import Published, Store
from negtraj_dagster.trajectories.fixed_verdicts import OVERRULED
from negtraj_dagster.trajectories.judging.judge import applicable
from negtraj_dagster.trajectories.overrides import read_decisions
from negtraj_dagster.trajectories.quality import why_dropped

MIN_KEY_CHARS = 6
MAX_LISTED_KEYS = 5
HEX_DIGITS = frozenset("0123456789abcdef")

State = Literal["hit", "overruled", "passed", "not applicable", "not judged"]


@dataclass(frozen=True)
class Hit:
    """One place a filter hit: the agent's step from 1, None for the whole rollout."""

    step: int | None
    detail: str
    earlier_key: str | None


@dataclass(frozen=True)
class FilterOutcome:
    """What one variant of a filter says of the rollout.

    Attributes:
        number: its place in the funnel; empty for verdicts that no SQL file makes.
        why: of a filter that is not applicable, or has not judged.
        effects: profile -> drop or flag; profiles that do not use this variant are absent.
    """

    name: str
    number: str
    reason: str
    state: State
    why: str
    hits: tuple[Hit, ...]
    effects: Mapping[str, str]


@dataclass(frozen=True)
class ProfileSaid:
    """What a profile makes of it: `why_dropped` is empty where the rollout survives, None where there is no corpus yet."""

    name: str
    why_dropped: str | None
    quality: float | None


@dataclass(frozen=True)
class ScoreSaid:
    """A score, or why there is none (`why`); `weights` by profile."""

    name: str
    score: float | None
    why: str
    weights: Mapping[str, float]


@dataclass(frozen=True)
class Twin:
    """A rollout that this one resembles."""

    key: str
    similarity: float
    is_earlier: bool
    label: str
    source: str
    question_id: str


@dataclass(frozen=True)
class SelectionSaid:
    """What a recipe makes of it; `why_not` is empty where it is selected."""

    recipe: str
    profile: str
    is_selected: bool
    why_not: str
    repeat: int


@dataclass(frozen=True)
class Explained:
    """One rollout with all that was decided about it.

    Attributes:
        rollout: its row of `raw_rollouts` (`INDEX_SCHEMA`).
        question: its row of `question_sets`; None where there is none.
        label: its row of labels (`LABEL_SCHEMA`); None where it was not labelled yet.
        judgements: judge, score and note.
        turns: of the conversation, as recorded.
        notes: what is not up to date.
    """

    rollout: Mapping[str, Any]
    question: Mapping[str, Any] | None
    label: Mapping[str, Any] | None
    judgements: tuple[tuple[str, float, str], ...]
    filters: tuple[FilterOutcome, ...]
    scores: tuple[ScoreSaid, ...]
    profiles: tuple[ProfileSaid, ...]
    twins: tuple[Twin, ...]
    selections: tuple[SelectionSaid, ...]
    turns: tuple[Mapping[str, Any], ...]
    notes: tuple[str, ...]


def explain_rollout(
    store: Store, key: str, registry: sql.Registry, recipes: Mapping[str, Recipe], *, profile: str | None = None
) -> Explained:
    """All that was decided about the rollout whose key begins so.

    Args:
        store: is read.
        key: the beginning of a rollout_key.
        registry: the present SQL files; versions that did not run yet are told as such.
        recipes: whose selections are told, by name.
        profile: tell this one only.

    Raises:
        SettingsError: the key is too short, fits none or several, or there is no such profile.
        StoreError: nothing was materialized, or an object is damaged.
    """
    profiles = sql.load_profiles(registry)
    if profile is not None and profile not in profiles:
        raise SettingsError(f"unknown quality profile {profile!r}{did_you_mean(profile, profiles)}")
    wanted_profiles = {name: profile_of_name for name, profile_of_name in profiles.items() if profile in (None, name)}
    raw = store.require("raw_rollouts")
    index = read_index(store, raw)
    rollout = find_rollout(index, key)
    return _Explainer(store, raw, index, rollout, registry, wanted_profiles).explain(recipes)


def find_rollout(index: pl.DataFrame, key: str) -> dict[str, Any]:
    """The one row of the index whose rollout_key begins so.

    Raises:
        SettingsError: it is no beginning of a key, fits none, or fits several.
    """
    key = key.strip().lower()
    if len(key) < MIN_KEY_CHARS or not HEX_DIGITS.issuperset(key):
        raise SettingsError(
            f"{key!r} begins no key; expected at least {MIN_KEY_CHARS} of the hex digits of a rollout_key, as the catalogue, "
            f"samples and `negtraj show` have them"
        )
    matches = index.filter(pl.col("rollout_key").str.starts_with(key))
    if matches.height > 1:
        first_keys = ", ".join(full_key[: len(key) + 6] for full_key in matches["rollout_key"].sort().head(MAX_LISTED_KEYS))
        ellipsis = ", …" if matches.height > MAX_LISTED_KEYS else ""
        raise SettingsError(
            f"{key!r} begins the keys of {matches.height} rollouts ({first_keys}{ellipsis}); give more of its digits"
        )
    if matches.is_empty():
        raise SettingsError(
            f"no rollout has a key that begins with {key!r}; of {index.height} rollouts in raw_rollouts. A record that could "
            f"not be read is in its quarantine (`negtraj catalog`), one that a tombstone names is nowhere"
        )
    return matches.row(0, named=True)


class _Explainer:
    def __init__(
        self,
        store: Store,
        raw: Published,
        index: pl.DataFrame,
        rollout: Mapping[str, Any],
        registry: sql.Registry,
        profiles: Mapping[str, sql.Profile],
    ) -> None:
        self.store, self.raw, self.index, self.rollout = store, raw, index, rollout
        self.registry, self.profiles = registry, profiles
        self.key, self.task = str(rollout["rollout_key"]), str(rollout["task"])
        self.scored = store.current("scored_trajectories")
        corpus = store.current(f"trajectory_corpus/{self.task}")
        self.corpus = corpus if corpus and not corpus.is_empty else None

    def explain(self, recipes: Mapping[str, Recipe]) -> Explained:
        label = next(self._mine(self.scored, "labels").iter_rows(named=True), None)
        verdicts = self._mine(self.corpus or self.scored, "verdicts")
        texts = read_conversations(self.store, self.raw, pl.Series([self.rollout["base_key"]]))
        judgements = read_decisions(self.store, self.index["rollout_key"]).judgements.filter(pl.col("rollout_key") == self.key)
        return Explained(
            rollout=self.rollout,
            question=self._question(),
            label=label,
            judgements=tuple(judgements.select("judge", "score", "note").rows()),
            filters=tuple(self._filters(verdicts, label)),
            scores=tuple(self._scores(label)),
            profiles=tuple(self._profiles()),
            twins=tuple(self._twins()),
            selections=tuple(self._selections(recipes)),
            turns=tuple(json.loads(texts["conversation"][0])),
            notes=tuple(self._notes(label)),
        )

    def _table(self, published: Published | None, name: str) -> pl.DataFrame | None:
        if published is None:
            return None
        return pl.read_parquet(self.store.file(published.folder, f"{name}.parquet"), glob=False)

    def _mine(self, published: Published | None, name: str) -> pl.DataFrame:
        """This rollout's rows of a table; none where there is no table."""
        table = self._table(published, name)
        return pl.DataFrame() if table is None else table.filter(pl.col("rollout_key") == self.key)

    def _question(self) -> dict[str, Any] | None:
        table = self._table(self.store.current("question_sets"), "questions")
        if table is None:
            return None
        asks = (pl.col("task") == self.task) & (pl.col("question_id") == self.rollout["question_id"])
        return next(table.filter(asks).iter_rows(named=True), None)

    def _filters(self, verdicts: pl.DataFrame, label: Mapping[str, Any] | None) -> Iterator[FilterOutcome]:
        """Every verdict: what no profile switches off first, then the funnel, then what no present SQL file says."""
        variants = [file for file in sql.filter_variants(self.registry) if self._effects(file)]
        acting = {(file.name, file.version) for file in variants}
        rows = list(verdicts.iter_rows(named=True))
        for name, reason in FIXED_VERDICTS.items():
            if hits := [row for row in rows if row["filter"] == name and row["version"] == "1"]:
                yield FilterOutcome(name, "", reason, "hit", "", _hits(hits), dict.fromkeys(self.profiles, "drop"))
        for file in variants:
            hits = [row for row in rows if (row["filter"], row["version"]) == (file.name, file.version)]
            state, why = self._state(file, hits, label)
            yield FilterOutcome(file.name, file.number, file.header.reason, state, why, _hits(hits), self._effects(file))
        fixed = {(name, "1") for name in FIXED_VERDICTS}
        in_use = {(file.name, file.version) for file in sql.filter_variants(self.registry)}
        for row in rows:
            if (variant := (row["filter"], row["version"])) not in acting | fixed | in_use:
                why = f"by version {row['version'][:8]}, which the present SQL files do not have"
                yield FilterOutcome(variant[0], "", row["reason"], "hit", why, _hits([row]), {})

    def _effects(self, file: sql.Filter) -> dict[str, str]:
        acting = {name: profile.acting().get((file.name, file.version)) for name, profile in self.profiles.items()}
        return {name: severity for name, severity in acting.items() if severity}

    def _state(self, file: sql.Filter, hits: list[dict[str, Any]], label: Mapping[str, Any] | None) -> tuple[State, str]:
        if hits:
            return ("overruled" if all(row["severity"] == OVERRULED for row in hits) else "hit"), ""
        if label is None:
            return "not judged", "the rollout was not labelled yet"
        if why := _why_not_applicable(file, label):
            return "not applicable", why
        judge = self.scored if file.is_of_rows else self.corpus
        if judge is None:
            return "not judged", f"trajectory_corpus/{self.task} was not materialized yet"
        if f"sql/{file.name}/{file.version[:8]}" not in judge.made_of:
            return "not judged", f"{judge.asset} was made with another version of it"
        return "passed", ""

    def _scores(self, label: Mapping[str, Any] | None) -> Iterator[ScoreSaid]:
        score_of = dict(self._mine(self.scored, "scores").select("score_name", "score").rows()) if self.scored else {}
        for file in self.registry.scores:
            weights = {name: profile.weights[file.name] for name, profile in self.profiles.items()}
            why = "not scored yet" if label is None else _why_not_applicable(file, label) or "it says nothing of this rollout"
            yield ScoreSaid(file.name, score_of.get(file.name), "" if file.name in score_of else why, weights)

    def _profiles(self) -> Iterator[ProfileSaid]:
        rows, verdicts = self._table(self.corpus, "corpus"), self._table(self.corpus, "verdicts")
        if rows is None or verdicts is None or self.key not in rows["rollout_key"]:
            yield from (ProfileSaid(name, None, None) for name in self.profiles)
            return
        qualities = dict(self._mine(self.corpus, "qualities").select("profile", "quality").rows())
        for name, profile in self.profiles.items():
            judged = why_dropped(rows.select("rollout_key", "ingest_seq"), verdicts, profile)
            why = judged.filter(pl.col("rollout_key") == self.key)["why"][0]
            yield ProfileSaid(name, why, qualities.get(name))

    def _twins(self) -> Iterator[Twin]:
        if self.corpus is None:
            return
        labels = self._table(self.corpus, "corpus")
        assert labels is not None
        descriptions = labels.select("label", "source", "question_id", other_key="rollout_key")
        pairs = self._mine(self.corpus, "pairs").join(descriptions, on="other_key", how="inner")
        for row in pairs.sort(["is_earlier", "similarity", "other_key"], descending=[True, True, False]).iter_rows(named=True):
            yield Twin(row["other_key"], row["similarity"], row["is_earlier"], row["label"], row["source"], row["question_id"])

    def _selections(self, recipes: Mapping[str, Recipe]) -> Iterator[SelectionSaid]:
        for name, recipe in recipes.items():
            profile = recipe.selection.profile
            if recipe.task != self.task or profile not in self.profiles:
                continue
            present = self.store.current(f"{name}/training_selection")
            if present is None or present.is_empty:
                yield SelectionSaid(name, profile, False, "nothing was selected yet", 0)
                continue
            row = next(self._mine(present, "selection").iter_rows(named=True), None)
            if row is None:
                yield SelectionSaid(name, profile, False, "the present selection was made without it", 0)
                continue
            is_old = self.corpus is not None and present.made_of.get("trajectory_corpus") != self.corpus.version
            old = " (selected from an earlier corpus)" if is_old else ""
            yield SelectionSaid(name, profile, row["selected"], row["why_not"] + old, row["repeat"])

    def _notes(self, label: Mapping[str, Any] | None) -> Iterator[str]:
        if self.scored is None:
            yield "scored_trajectories was not materialized yet: there is no label and no verdict"
        elif label is None:
            yield "scored_trajectories was made before this rollout was read; materialize it again"
        elif self.scored.details.get("raw_version") != self.raw.version:
            yield "scored_trajectories was made from other rollouts than the present ones; materialize it again"
        if self.scored and self.corpus and self.corpus.made_of.get("scored_trajectories") != self.scored.version:
            yield f"{self.corpus.asset} was made from other labels and verdicts than the present ones; materialize it again"


def _hits(rows: Iterable[Mapping[str, Any]]) -> tuple[Hit, ...]:
    return tuple(Hit(row["step"], row["detail"] or "", row["earlier_key"]) for row in rows)


def _why_not_applicable(file: sql.Filter | sql.Score, label: Mapping[str, Any]) -> str:
    """Empty where a filter or score is about a rollout of this class and style."""
    label_row = pl.DataFrame({"label": [label["label"]], "style": [label["style"]]})
    if applicable(file, label_row).height:
        return ""
    header = file.header
    if header.applies_to not in ("both", label["label"]):
        return f"it is about {header.applies_to} rollouts"
    return f"it is about agents that speak {header.style}"
