"""Turns conditioned conversations into token rows, once per distinct conversation and token rule; others are reused.

Token rows are append-only segments that all recipes share: `segments/tokens/<rule>/<key>/rows.arrow` beside the keys
they answer for and the rows they reject.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import polars as pl
import pyarrow as pa

from negtraj_dagster import _trajtok  # noqa: TID251 - the tokenizing stage
from negtraj_dagster.chat_templates import VERSIONS, ChatTemplate, reference_render, served_render
from negtraj_dagster.errors import MaskError, ModelError, SettingsError
from negtraj_dagster.schema import canonical_json, digest
from negtraj_dagster.shards.nat_tokenizer import describe_other_kind
from negtraj_dagster.shards.proof import Prover, is_beginning
from negtraj_dagster.shards.rows import DEFAULT_ROWS, RowSettings, blank_target, foreign_tokenizer, lacks_tools, left_reasoning
from negtraj_dagster.store import Built, Store, file_sha256

LOG = logging.getLogger(__name__)

MASK_RULE_VERSION = 2
"""Rises when other tokens are trained of the same rows, or other rows are refused."""
BATCH_ROWS = 4096


@dataclass(frozen=True)
class TokenRule:
    """Everything besides the conversation that decides a token row's bytes."""

    tokenizer_json: Path
    tokenizer_sha256: str
    template: ChatTemplate
    max_tokens: int
    over_length: str
    rows: RowSettings = DEFAULT_ROWS

    @cached_property
    def rule_key(self) -> str:
        """Identity of the rule."""
        template = self.template.identity(VERSIONS)
        versions = f"{_trajtok.TOKEN_FORMAT_VERSION} {MASK_RULE_VERSION}"
        allowed = ["tools may be missing"] if self.rows.missing_tools == "allow" else []
        return digest("tokens", self.tokenizer_sha256, template, f"{self.over_length} {self.max_tokens}", versions, *allowed)

    @cached_property
    def rows_key(self) -> str:
        """Identity of how a conversation becomes rows under the rule."""
        return digest("rows", self.rule_key, self.rows.reasoning, self.rows.ids)

    @property
    def cuts_rows(self) -> bool:
        """Whether rows are cut between any two tokens and always end with an end token, as the paper's are."""
        return self.template.jinja is None and self.template.name == "nat_exact"

    def token_key(self, conversation: str) -> str:
        """Identity of one token row: the canonical conditioned conversation under this rule."""
        return digest(self.rule_key, conversation)


def token_rule(
    base_folder: Path,
    template: ChatTemplate,
    max_tokens: int,
    over_length: str,
    rows: RowSettings = DEFAULT_ROWS,
) -> TokenRule:
    """The rule for a base model's tokenizer.

    Raises:
        ModelError: the folder has no tokenizer.json.
    """
    path = base_folder / "tokenizer.json"
    if not path.is_file():
        raise ModelError(
            f"{path}: missing; trajtok needs the tokenizer in Hugging Face's tokenizer.json form. Save it there with "
            f"AutoTokenizer.from_pretrained(…).save_pretrained({str(base_folder)!r})"
        )
    return TokenRule(path, file_sha256(path), template, max_tokens, over_length, rows)


@dataclass(frozen=True)
class TokenWork:
    """What one call computed."""

    n_rows: int = 0
    n_tokens: int = 0


def token_table(rule: TokenRule) -> str:
    """The segments' table of a token rule."""
    return f"tokens/{rule.rule_key[:16]}"


class KnownTokens:
    """The keys of conversations that are tokenized under a rule; each segment's are read once, by its name."""

    def __init__(self, store: Store, rule: TokenRule) -> None:
        self._store, self._table = store, token_table(rule)
        self._read: set[str] = set()
        self._keys: set[str] = set()

    def missing(self, keys: Iterable[str]) -> list[str]:
        """Those of the keys that are in no segment, sorted."""
        for folder in self._store.segments(self._table, check=("keys.parquet",), but=self._read):
            found = pl.read_parquet(folder / "keys.parquet", columns=["token_key"], glob=False)["token_key"]
            self._keys.update(found)
            self._read.add(folder.name)
        return sorted(key for key in keys if key not in self._keys)


def tokenize(store: Store, rule: TokenRule, conversations: Mapping[str, str], known: KnownTokens | None = None) -> TokenWork:
    """Make sure a token row (or a rejection) exists for every conversation.

    Args:
        store: keeps the segments.
        rule: the token rule.
        conversations: token_key -> canonical conditioned conversation.
        known: what was read of the segments before, of one build.

    Raises:
        MaskError: a new row fails its proof; nothing of it is published.
        SettingsError: trajtok refuses the tokenizer or the template.
    """
    if not conversations:
        return TokenWork()
    with store.lock(f"segments/{token_table(rule)}"):  # two recipes that want the same rows make them once
        new = (known or KnownTokens(store, rule)).missing(conversations)
        n_tokens = _tokenize_missing(store, rule, {key: conversations[key] for key in new}) if new else 0
    return TokenWork(len(new), n_tokens)


def token_keys(store: Store, rule: TokenRule) -> pl.DataFrame:
    """What is known of every conversation tokenized under the rule (`KEY_SCHEMA`), and its `segment`."""
    frames = [
        pl.read_parquet(folder / "keys.parquet", glob=False).with_columns(segment=pl.lit(store.name(folder)))
        for folder in store.segments(token_table(rule), check=("keys.parquet",))
    ]
    empty = KEY_SCHEMA.to_frame().with_columns(segment=pl.lit(""))
    rows = pl.concat([empty, *frames], how="diagonal").with_columns(pl.col("n_left_out").fill_null(0))
    # machines that share a store do not wait for each other: two may have made the same row
    return rows.unique("token_key", keep="first", maintain_order=True)


KEY_SCHEMA = pl.Schema(
    {
        "token_key": pl.String,
        "n_tokens": pl.Int32,
        "n_trained": pl.Int32,
        "reason": pl.String,
        "detail": pl.String,
        "n_left_out": pl.Int32,
    }
)
"""One row per tokenized or rejected conversation; `reason` is empty for a row that was written. `n_left_out` counts the last
messages of the conversation that a written row lacks."""


@lru_cache(maxsize=2)
def load_tokenizer(rule: TokenRule) -> _trajtok.Tokenizer:
    """trajtok's tokenizer for the rule, kept from call to call: a large vocabulary takes a second to load.

    Raises:
        SettingsError: trajtok refuses the tokenizer or the template.
    """
    try:
        tokenizer = rule.template.open_tokenizer(rule.tokenizer_json, max_tokens=rule.max_tokens, over_length=rule.over_length)
    except _trajtok.TrajtokError as error:
        raise SettingsError(f"trajtok cannot use {rule.tokenizer_json} with template {rule.template.name}: {error}") from error
    if tokenizer.encoder_note:
        LOG.warning(
            "%s is tokenized by the slower encoder %r: %s", rule.tokenizer_json, tokenizer.encoder, tokenizer.encoder_note
        )
    if rule.cuts_rows and (other_kind := describe_other_kind(rule.tokenizer_json)) is not None:
        LOG.warning(
            "%s: nat_exact makes the ids of the paper's code, LlamaTokenizer(legacy=True), by a file with the normalizer "
            "Prepend; found %s: ids and labels will be others. For the paper's rows save the tokenizer from "
            "LlamaTokenizerFast(legacy=True)",
            rule.tokenizer_json,
            other_kind,
        )
    return tokenizer


def _tokenize_missing(store: Store, rule: TokenRule, missing: Mapping[str, str]) -> int:
    tokenizer = load_tokenizer(rule)
    prover = _make_prover(rule, tokenizer)
    n_tokens, keys = 0, list(missing)
    for start in range(0, len(keys), BATCH_ROWS):
        batch_keys = keys[start : start + BATCH_ROWS]
        refused = _refuse(rule, batch_keys, missing)
        part = sorted(set(batch_keys) - {key for key, _, _ in refused})
        encoded = tokenizer.encode(part, [missing[key] for key in part])
        batch = pa.record_batch(encoded)
        n_kept_of = {key: n_kept for key, n_kept, _, _ in encoded.cut}
        # a row cut between any two tokens ends nowhere that a proof could be made of: it is held to its whole row instead
        if rule.cuts_rows and n_kept_of:
            _prove_cut_rows(rule, prover, batch, {key: missing[key] for key in n_kept_of})
            proof = prover.prove(_without(batch, set(n_kept_of)), missing, has_straddling=encoded.n_straddling > 0)
        else:
            proof = prover.prove(batch, missing, kept=n_kept_of, has_straddling=encoded.n_straddling > 0)
        batch = _without(batch, {key for key, _, _ in proof.rejected})
        n_tokens += proof.n_tokens
        rejected = [*refused, *encoded.rejected, *proof.rejected]
        described = _describe_keys(batch, rejected, _describe_cuts(encoded.cut, rule))
        content = {"n_straddling": encoded.n_straddling, "n_drifted": encoded.n_drifted, **proof.counts()}
        details = {
            "encoder": tokenizer.encoder,
            "encoder_note": tokenizer.encoder_note,
            "proved_by_reference": proof.n_by_reference,
        }
        store.publish_segment(token_table(rule), digest(*batch_keys), _segment_writer(batch, described, content, details))
    return n_tokens


def _make_prover(rule: TokenRule, tokenizer: _trajtok.Tokenizer) -> Prover:
    row_end = "</s>" if rule.cuts_rows else None
    render = reference_render(rule.template)
    if rule.template.as_served:
        render = served_render(render, tokenizer.control_tokens, tokenizer.end_of_turn)
    return Prover(
        tokenizer,
        rule.tokenizer_json,
        render,
        empty_think=rule.template.empty_think,
        row_end=row_end,
        max_tokens=rule.max_tokens,
        vouching=_open_vouching(rule, tokenizer),
        jinja_name=None if rule.template.jinja is None else rule.template.name,
    )


@lru_cache(maxsize=2)
def _open_vouching(rule: TokenRule, tokenizer: _trajtok.Tokenizer) -> _trajtok.RowProver | None:
    return _trajtok.RowProver.open(
        tokenizer,
        rule.tokenizer_json,
        template=rule.template.name if rule.template.jinja is None else None,
        enable_thinking=bool(rule.template.variables().get("enable_thinking", True)),
        masks_empty_think=rule.template.empty_think == "mask",
    )


def _prove_cut_rows(rule: TokenRule, prover: Prover, batch: pa.RecordBatch, conversations: Mapping[str, str]) -> None:
    """Rows that were cut between any two tokens: each is the beginning of a row that is proved.

    Raises:
        MaskError: one is not, or its whole row fails.
    """
    whole = rule.template.open_tokenizer(rule.tokenizer_json, max_tokens=2**31 - 1)
    encoded = pa.record_batch(whole.encode(list(conversations), list(conversations.values())))
    prover.prove(encoded, conversations)
    rows = {row["token_key"]: row for row in encoded.to_pylist()}
    for row in batch.to_pylist():
        if row["token_key"] in rows and not is_beginning(row, rows[row["token_key"]]):
            raise MaskError(f"token row {row['token_key']}: was cut, but is not the beginning of its whole row")


def _refuse(rule: TokenRule, keys: Sequence[str], conversations: Mapping[str, str]) -> list[tuple[str, str, str]]:
    """Rows that are not handed to trajtok: (token_key, reason, detail)."""
    refused = []
    for key in keys:
        if rule.rows.missing_tools == "refuse" and lacks_tools(conversations[key]):
            refused.append((key, "tools_missing", TOOLS_MISSING))
        elif (turn := blank_target(conversations[key])) is not None:
            detail = f"messages[{turn}]: the agent says nothing there, so that its end token alone would be trained"
            refused.append((key, "blank_turn", f'{detail}; leave the turn out of the rollout, or give it "loss": false'))
        elif rule.rows.reasoning == "drop" and (turn := left_reasoning(conversations[key])) is not None:
            detail = f"messages[{turn}]: its content has a tag of reasoning that is not one <think> before what was said"
            refused.append((key, "reasoning_left", f"{detail}; take the reasoning apart in the rollout, or keep it"))
        elif made_by := foreign_tokenizer(conversations[key], rule.tokenizer_sha256):
            detail = f"its token ids were made by {made_by}, this is {rule.tokenizer_sha256} (sha256 of tokenizer.json)"
            refused.append((key, "other_tokenizer", f'{detail}; set shards.ids = "retokenize", or name the same file'))
    return refused


TOOLS_MISSING = (
    "it calls tools, but no tool schemas came with it: a served model is given them. Add `tools` to the rollout, or set "
    'shards.missing_tools = "allow"'
)


def _segment_writer(
    batch: pa.RecordBatch, described: pl.DataFrame, content: Mapping[str, object], details: Mapping[str, object]
) -> Callable[[Path], Built]:
    def write(folder: Path) -> Built:
        with pa.OSFile(str(folder / "rows.arrow"), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
            writer.write_batch(batch)
        described.write_parquet(folder / "keys.parquet")
        rows = digest(*(canonical_json(row) for row in described.rows()))
        return Built(content={**content, "rows": rows}, details=dict(details))

    return write


def _without(batch: pa.RecordBatch, rejected: set[str]) -> pa.RecordBatch:
    if not rejected:
        return batch
    return batch.filter(pa.array([key not in rejected for key in batch.column("token_key").to_pylist()]))


def _describe_cuts(cut: Sequence[tuple[str, int, int, int]], rule: TokenRule) -> pl.DataFrame:
    """token_key, detail and n_left_out of every row that lacks the end of its conversation."""
    texts = [
        (
            key,
            f"cut: the last {n_all - n_kept} of {n_all} messages are left out; "
            f"all have {n_tokens} tokens, at most {rule.max_tokens} are allowed",
            n_all - n_kept,
        )
        for key, n_kept, n_all, n_tokens in cut
    ]
    schema = pl.Schema({name: KEY_SCHEMA[name] for name in ("token_key", "detail", "n_left_out")})
    return pl.DataFrame(texts, schema=schema, orient="row")


def _describe_keys(batch: pa.RecordBatch, rejected: Sequence[tuple[str, str, str]], cuts: pl.DataFrame) -> pl.DataFrame:
    written = pl.DataFrame(batch.select(["token_key", "n_tokens", "n_trained"])).with_columns(reason=pl.lit(""))
    written = written.join(cuts, on="token_key", how="left", maintain_order="left")  # type: ignore[arg-type]
    written = written.with_columns(pl.col("detail").fill_null(""), pl.col("n_left_out").fill_null(0))
    refused = pl.DataFrame(
        [(key, 0, 0, reason, detail, 0) for key, reason, detail in rejected], schema=KEY_SCHEMA, orient="row"
    )
    return pl.concat([written.select(KEY_SCHEMA.names()).cast(KEY_SCHEMA), refused])  # type: ignore[arg-type]
