"""The Rust crate `rust/trajtok`: conditioned conversations into token ids, a loss mask and packing bins.

The invariant: control tokens come from the template alone. No text from a message ever becomes one, whatever it says.
"""

import os
from collections.abc import Iterator, Sequence
from typing import Final, Protocol, Self, final, type_check_only

__all__ = [
    "TEMPLATES",
    "TOKEN_FORMAT_VERSION",
    "EncodedBatch",
    "JinjaTemplate",
    "PackError",
    "RecordBatch",
    "RecordReader",
    "RowProver",
    "TemplateError",
    "Tokenizer",
    "TokenizerError",
    "TrajtokError",
    "__version__",
    "canonical_json",
    "condition",
    "contaminated",
    "digest",
    "has_infinity",
    "json_as_recorded",
    "minhash",
    "ngrams",
    "pack",
    "pack_flat",
    "prepare",
    "read_plain",
    "read_records",
    "similar_pairs",
]

__version__: Final[str]
"""The crate's version."""

TOKEN_FORMAT_VERSION: Final[int]
"""Changes when, and only when, the same input yields other bytes."""

TEMPLATES: Final[tuple[str, ...]]
"""The names of the chat templates that are rendered natively."""

@final
class JinjaTemplate:
    """A Hugging Face chat template (Jinja), rendered as transformers renders it, in a sandbox.

    It reads nothing but what it is given, runs on fuel, and may write 1 MiB and 16 times its input. Where the text would
    depend on what is not supported here (attributes of Python's objects, whole numbers of more than 128 bits, some of Python's
    methods) it is refused, not approximated.
    """

    def __new__(cls, source: str, *, origin: str = "the chat template") -> Self:
        """Compiles a template.

        Args:
            source: the template's text, at most 262,144 bytes.
            origin: names it in messages.

        Raises:
            TemplateError: it is too large or not Jinja; the line is named.
        """

    def render(
        self, messages: str, *, tools: str | None = None, add_generation_prompt: bool = False, settings: str = "{}"
    ) -> str:
        """The text for a conversation.

        Args:
            messages: a JSON array of messages; keys keep their order.
            tools: a JSON array of tool schemas.
            add_generation_prompt: write the start of an assistant's turn at the end.
            settings: a JSON object of what else the template sees: special tokens, `enable_thinking`, and `today`
                ("2026-01-31") for templates that write the date.

        Raises:
            TemplateError: the template raises an exception, needs what is not supported, or exceeds a limit; the input is
                not JSON or would be read otherwise by Python.
        """

class TrajtokError(ValueError):
    """Root of this module's errors; raised itself for settings and arguments that make no sense."""

class TokenizerError(TrajtokError):
    """The tokenizer file is missing, malformed or not supported, or its tokenizer has no tokens for a text."""

class TemplateError(TrajtokError):
    """The template is unknown, or the tokenizer lacks one of its control tokens or matches it in an unsupported way."""

class PackError(TrajtokError):
    """A row fits no bin."""

@final
class Tokenizer:
    """Turns conditioned conversations into token rows, with one tokenizer and one chat template.

    A conversation is JSON text, `{"messages": [{"role": ..., "content": ..., "weight": ...}], "tools": ...}`: role system,
    user, assistant or tool; weight 0 is context, above 0 a target (assistant only, as a 32-bit float). `tools` is JSON text of
    a list of tool schemas. An assistant's message may have `reasoning`, `tool_calls` (name, arguments as JSON text, id) and
    `ranges` (field, start, end, weight: characters with a weight of their own) or `token_ids` (which then stand for its text,
    its end token added where they lack it; `tokenizer` beside `messages` names their maker and is not read), a tool's `name`
    and `tool_call_id`; no other keys. What a template does not write (tools for `chatml`, say) rejects the row.
    Ids equal those of Hugging Face `tokenizers` 0.23 on the same rendered text, as far as no content holds the text of an
    added token; where one does, it is tokenized as ordinary text here.
    """

    def __new__(
        cls,
        tokenizer_json: str | os.PathLike[str],
        *,
        template: str,
        max_tokens: int,
        over_length: str = "drop",
        jinja: str | None = None,
        settings: str = "{}",
        empty_think: str = "mask",
        as_served: bool = False,
    ) -> Self:
        """Reads the tokenizer and binds it to the template.

        Args:
            tokenizer_json: a tokenizer in Hugging Face's tokenizer.json form. Its truncation, padding and post-processor
                are not applied.
            template: one of `TEMPLATES`; with `jinja`, what names that template in messages.
            max_tokens: the most tokens a row may have, at least 1.
            over_length: what happens to a longer row. `drop` rejects it; `cut_at_turn` ends it with the last target that
                fits, and rejects it where none does. Rows of `nat_exact` are cut at the right, between any two tokens.
            jinja: the text of a Hugging Face chat template.
            settings: a JSON object of what else the template sees: special tokens, `enable_thinking`, `today`.
            empty_think: whether the empty `<think></think>` that some templates write before a turn without reasoning is
                trained: `mask` or `train`.
            as_served: a conversation that ends with an assistant's turn is what a served model is given before it and the
                answer, where a Jinja template writes another beginning.

        Raises:
            TokenizerError: the file is missing or malformed; or its ids cannot be promised: it sets BPE dropout, or an
                added token is white space.
            TemplateError: the template is unknown or cannot be used; a control token of it is not among the added tokens, or
                is declared with lstrip, rstrip, single_word, or normalized beside a normalizer; no token is found by which
                an assistant's turn ends.
            TrajtokError: max_tokens is below 1, or over_length or empty_think is unknown.
        """

    @property
    def encoder(self) -> str:
        """The encoder that runs, for reports: `fastokens llama3`, `fastokens qwen2`, `fastokens gpt2`,
        `fastokens deepseek`, `trajtok smollm`, `trajtok sentencepiece`, or `tokenizers`, the slower one that covers all
        other files."""

    @property
    def encoder_note(self) -> str | None:
        """Why `tokenizers` has to run: what the native encoder does not cover, or the probe on which the two differed when
        the tokenizer was loaded. None where the native encoder runs."""

    @property
    def control_tokens(self) -> dict[str, int]:
        """The control tokens that the template may write (all added tokens, for a Jinja template) and their ids; a new dict
        each time."""

    @property
    def end_of_turn(self) -> list[str]:
        """The control tokens by which an assistant's turn ends."""

    def encode(self, keys: Sequence[str], conversations: Sequence[str]) -> EncodedBatch:
        """Tokenizes rows on all cores, with the interpreter lock released.

        Every row is in the batch or among its rejected, both in input order.

        Args:
            keys: one per row, carried through; not checked for duplicates.
            conversations: JSON text, one per row.

        Raises:
            TrajtokError: the lists differ in length, or the batch exceeds Arrow's 32-bit offsets (2147483647 tokens).
            TokenizerError: the tokenizer has no tokens for a text (a vocabulary without an unknown token).
        """

    def encode_text(self, text: str) -> list[int]:
        """The ids of ordinary text at the start of a conversation; whatever it says, no added token is matched.

        Returns:
            ids: int [n_tokens]

        Raises:
            TokenizerError: as for `encode`.
            TrajtokError: the model's own vocabulary turns the text into an added token.
        """

    def encode_texts(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode_text` of many texts, on all cores, with the interpreter lock released.

        Raises:
            TokenizerError, TrajtokError: as for `encode_text`.
        """

    def render(self, conversation: str, *, add_generation_prompt: bool = False) -> list[tuple[str, bool, float]]:
        """The rendered text in pieces: text, whether it is a control token, loss weight.

        The pieces concatenate to the rendered text. A target's content and its end token carry its weight, all else 0.0.

        Raises:
            TrajtokError: the conversation is refused; the message begins with the reason.
        """

    def prompt_ids(self, conversation: str) -> list[int]:
        """The ids that a served model is given: the conversation and the generation prompt. `max_tokens` does not apply.

        Returns:
            ids: int [n_tokens]

        Raises:
            TrajtokError: the conversation is refused; the message begins with the reason.
            TokenizerError: as for `encode`.
        """

@final
class RowProver:
    """Proves token rows by the crate `rust/trajproof`, which shares no code with what made them.

    It vouches for rows or it does not: what it leaves, `shards.proof` looks at, and says what is wrong.
    """

    @staticmethod
    def open(
        tokenizer: Tokenizer,
        tokenizer_json: str | os.PathLike[str],
        *,
        template: str | None,
        enable_thinking: bool,
        masks_empty_think: bool,
    ) -> RowProver | None:
        """A prover of rows by a template; None where it cannot read the tokenizer's ids or does not know the template.

        Args:
            tokenizer: what serves.
            tokenizer_json: its file, read anew for what its ids stand for.
            template: a native template's name; None where the texts are handed over.
            enable_thinking: whether its generation prompt leaves the thinking to the model (`qwen3`).
            masks_empty_think: whether an empty `<think></think>` before an answer without reasoning is context.

        Raises:
            OSError: the file cannot be read.
        """

    def prove(
        self,
        rows: _ArrowArray,
        conversations: Sequence[str],
        n_kept: Sequence[int | None],
        texts: Sequence[Sequence[tuple[int, bool, str]] | None] | None = None,
    ) -> list[int | None]:
        """By row the number of its trained turns, all proved; None where the row is not vouched for.

        Args:
            rows: columns as `EncodedBatch` has them.
            conversations: the canonical conditioned conversation of every row.
            n_kept: of a row that lacks the end of its conversation the number of its messages.
            texts: where `template` is None, what the template writes: of so many messages, with the generation prompt or
                without it; of the whole, and of the prompt before each trained turn and the conversation that ends with it.

        Raises:
            ValueError: other columns, or not one conversation for each row.
        """

@final
class EncodedBatch:
    """Token rows as an Arrow record batch, and the rows that were refused.

    `pyarrow.record_batch(batch)` and `polars.DataFrame(batch)` read it without copying. Columns:

    - token_key: utf8, not null
    - input_ids: list<int32> [n_tokens], the rendered conversation, or its beginning if it was cut
    - span_start, span_end: list<int32> [n_spans], a half-open range of tokens per stretch of one weight, in order, not
      overlapping: one per target, but where ranges have weights of their own
    - span_weight: list<float32> [n_spans]
    - n_tokens: int32
    - n_trained: int32, tokens inside of spans

    A span goes from the token that holds the first byte of the target's content to the token that holds the last byte of
    its end token: a token on both sides of a border is trained (Hugging Face's `return_assistant_tokens_mask`).
    """

    @property
    def n_rows(self) -> int:
        """Rows in the batch, without the rejected ones."""

    @property
    def n_straddling(self) -> int:
        """Trained tokens, over all rows, that also cover text outside of their target."""

    @property
    def n_drifted(self) -> int:
        """Turns, over all rows, that were given as `token_ids` which are not what the tokenizer makes of their text."""

    @property
    def rejected(self) -> list[tuple[str, str, str]]:
        """Key, reason and detail of every refused row, in input order.

        Reasons, in the order they are tried: invalid_conversation, invalid_weight, nothing_trained; of the template
        invalid_arguments (a tool call's are no JSON object), template_refuses (it raises an exception), template_reads_content
        (it does more with a text than write it), not_rendered (it leaves out what was said), prompt_differs and target_differs
        (the row is not what a served model is given, or writes), no_end_of_turn; then no_token, control_token_in_content,
        over_length. No_token means that the tokenizer has none for a byte of the text,
        which would be lost; control_token_in_content, that the model's own vocabulary turned text into an added token, which
        only some kinds of model do.
        """

    @property
    def cut(self) -> list[tuple[str, int, int, int]]:
        """The rows that lack the end of their conversation, in input order: key, how many messages from the first on the
        row has, how many the conversation has, how many tokens all of them would have."""

    def __arrow_c_schema__(self) -> object:
        """The Arrow C data interface's schema capsule."""

    def __arrow_c_array__(self, requested_schema: object | None = None) -> tuple[object, object]:
        """The Arrow C data interface's schema and array capsules; `requested_schema` is ignored, as the protocol allows."""

@type_check_only
class _ArrowArray(Protocol):
    def __arrow_c_array__(self, requested_schema: object | None = None) -> tuple[object, object]: ...

@type_check_only
class _ArrowStream(Protocol):
    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object: ...

@type_check_only
class _Buffer(Protocol):
    def __buffer__(self, flags: int, /) -> memoryview: ...

def pack(lengths: Sequence[int] | _Buffer | _ArrowArray | _ArrowStream, capacity: int) -> list[list[int]]:
    """Packs rows into bins by best-fit decreasing; the same lengths always give the same bins.

    Args:
        lengths: tokens per row, each from 1 to capacity: a list, a one-dimensional array of whole numbers with the buffer
            protocol (numpy), or an Arrow array, chunked array or polars series of them. Arrays are copied once, as a whole.
        capacity: tokens a bin holds.

    Returns:
        bins: row indices per bin; bins by age, rows in the order of their placing (longest first, ties by index).

    Raises:
        PackError: a length is below 1 or above capacity (the message names its index), or capacity is below 1.
        TypeError: lengths are no whole numbers, or hold nulls.
    """

def pack_flat(lengths: Sequence[int] | _Buffer | _ArrowArray | _ArrowStream, capacity: int) -> RecordBatch:
    """The bins of `pack` without a Python object per row.

    Returns:
        bins: a record batch of one column, `rows`: large_list<int64>, one list per bin. Read without copying,

            rows = pyarrow.record_batch(pack_flat(lengths, 4096))["rows"]
            offsets, indices = rows.offsets.to_numpy(), rows.values.to_numpy()

        gives int64 [n_bins + 1] and int64 [n_rows]: bin b holds `indices[offsets[b]:offsets[b + 1]]`.

    Raises:
        PackError: as for `pack`.
        TypeError: as for `pack`.
    """

@final
class RecordBatch:
    """An Arrow record batch; `pyarrow.record_batch(batch)` and `polars.DataFrame(batch)` read it without copying."""

    @property
    def n_rows(self) -> int:
        """Rows in the batch."""

    def __arrow_c_schema__(self) -> object:
        """The Arrow C data interface's schema capsule."""

    def __arrow_c_array__(self, requested_schema: object | None = None) -> tuple[object, object]:
        """The Arrow C data interface's schema and array capsules; `requested_schema` is ignored, as the protocol allows."""

def minhash(
    texts: _ArrowArray | _ArrowStream,
    *,
    n_words: int = 5,
    permutations: int = 128,
    bands: int = 16,
    rows: int = 8,
    seed: int = 0,
) -> RecordBatch:
    """MinHash signatures over word n-grams, and LSH band hashes for a join; on all cores, with the interpreter lock released.

    Texts are lowercased and split at every character that is not alphanumeric. Same texts and settings, same numbers: in
    every later version, on any machine, with any number of threads. Fast similarity sketching (arXiv 1704.04370).

    Args:
        texts: an Arrow column of strings (utf8, large_utf8 or utf8_view): a polars series, a pyarrow array or chunked array.
        n_words: words per n-gram. A text with fewer words is one n-gram of all its words.
        permutations: numbers per signature. The share of equal numbers of two rows estimates their Jaccard similarity J, with
            a standard deviation of at most sqrt(J (1 - J) / permutations).
        bands: band hashes per row.
        rows: numbers per band; two texts share a band hash with odds of 1 - (1 - J^rows)^bands: by default 0.95 at J = 0.8,
            0.06 at J = 0.5.
        seed: chooses the permutations; rows of different settings cannot be compared.

    Returns:
        signatures: one row per text; columns `signature`: fixed_size_list<uint32> [permutations], and `bands`:
            fixed_size_list<uint64> [bands]. A band's place is part of its hash: unnest `bands` and join on equal hashes. Both
            are null where the text is null or holds no word. Of two texts with a and b n-grams, expect a b / 2^32 to be taken
            for shared by chance.

    Raises:
        TypeError: texts are no Arrow column of strings.
        TrajtokError: a setting is below 1, bands * rows is above permutations, or permutations above 65536.
    """

def ngrams(texts: _ArrowArray | _ArrowStream, *, n_words: int = 13) -> RecordBatch:
    """The distinct 64-bit hashes of each text's word n-grams; words as for `minhash`.

    Two different n-grams have equal hashes with odds of 2^-64: 3 in 10^8 that there is such a pair among a million.

    Returns:
        ngrams: one row per text; column `ngrams`: list<uint64>, ascending, null where the text is null. A text with fewer than
            n_words words is one n-gram of all its words.

    Raises:
        TypeError: texts are no Arrow column of strings.
        TrajtokError: n_words is below 1, or there are more than 2147483647 n-grams.
    """

def contaminated(
    texts: _ArrowArray | _ArrowStream,
    references: _ArrowArray | _ArrowStream,
    *,
    n_words: int = 13,
    min_words: int = 13,
) -> RecordBatch:
    """Which references stand in which texts, in whole word n-grams, without keeping the texts' n-grams.

    Args:
        texts: what is searched; an Arrow column of strings as for `minhash`.
        references: what must not be in it, such as the questions of a test set.
        n_words: words per n-gram.
        min_words: a reference of fewer than n_words words is one n-gram of all its words, found wherever these stand in a
            row; one of fewer than min_words words is never found.

    Returns:
        hits: one row per text and reference that share an n-gram, in this order; columns, all int64: `text` and `reference`,
            places from 0; `n_shared`, how many distinct n-grams of the reference stand in the text; `n_ngrams`, how many it
            has, so that `n_shared / n_ngrams` is the share that leaked. A chance hit has odds of about 2^-64 per pair of
            n-grams.

    Raises:
        TypeError: a column is no Arrow column of strings.
        TrajtokError: n_words or min_words is below 1.
    """

def similar_pairs(
    sketches: _ArrowArray | _ArrowStream,
    bands: _ArrowArray | _ArrowStream,
    groups: _ArrowArray | _ArrowStream,
    *,
    at: _ArrowArray | _ArrowStream | None = None,
    sketch_size: int = 512,
    min_similarity: float = 0.3,
    n_group: int = 32,
    n_bucket: int = 8,
) -> RecordBatch:
    """Pairs of rows whose texts are alike, of rows in order of arrival; on one core, with the interpreter lock released.

    What is said of a row depends on it and on the rows before it: rows that are appended change nothing that was said. A row
    is compared with at most 2 n_group + 2 n_bucket * bands others, however many share its group or a band hash: time and
    memory grow with the rows, not with their pairs. A row whose sketch is null or empty is in no pair and counts nowhere.

    Args:
        sketches: the distinct n-gram hashes of each text, ascending, as `ngrams` returns them, but of each text no more than
            the sketch_size least (a bottom-k sketch); an Arrow column of list, large_list or fixed_size_list<uint64>.
        bands: LSH band hashes as `minhash` returns them, null for none; a column of the same kinds. Rows meet by equal hashes.
        groups: an Arrow column of uint32 that related rows share, such as the number of the row's question.
        at: an Arrow column of uint32, where sketches and bands stand in another order: by row the place of its lists, null for
            a row without any. They are not copied.
        sketch_size: the most hashes of a row. A sketch of so many is taken for a part of a larger set.
        min_similarity: the least Jaccard similarity of a pair that is kept, 0 to 1.
        n_group: a row is compared with the first n_group and the last n_group earlier rows of its group; 0 for none.
        n_bucket: for each of its band hashes, it is compared with the first n_bucket and the last n_bucket earlier rows
            that have it; 0 for none.

    Returns:
        pairs: each once, by `later` and then by `earlier`; columns `later` and `earlier`: uint32, row numbers from 0;
            `similarity`: float32, the Jaccard similarity J. It is exact where both sketches hold fewer than sketch_size
            hashes; else, of the sketch_size least distinct hashes of both, the share that stands in both, which estimates J
            with a standard deviation of at most sqrt(J (1 - J) / sketch_size).

    Raises:
        TypeError: a column is of another type, a row's hashes hold a null, or groups do.
        TrajtokError: the columns differ in length; sketch_size is below 1 or min_similarity not from 0 to 1; a sketch is not
            strictly ascending, or longer than sketch_size.
    """

def read_records(
    path: str | os.PathLike[str], *, batch_bytes: int = 8388608, max_record_bytes: int = 100000000
) -> RecordReader:
    """Reads the records of a file, JSON lines or one JSON array, strictly; what is refused comes with its place and reason.

    A record is one JSON object in UTF-8. Refused are also: a key that stands twice in one object, NaN and Infinity, lone
    surrogates, floats beyond 64 bits, whole numbers of more than 4300 digits, and more than 512 levels of nesting.

    Args:
        path: the file; its first character that is no blank tells an array from lines.
        batch_bytes: how much is read at a time, with the interpreter lock released; memory does not grow with the file.
        max_record_bytes: a longer record is refused without being kept.

    Raises:
        TrajtokError: the file cannot be opened or read, or a setting is not from 1 to 536870912.
    """

@final
class RecordReader(Iterator[RecordBatch]):
    """Record batches in the order of the file, at least one row each. Columns:

    - place: utf8, not null; `line 3` from 1, `index 17` from 0, or `file` for what is wrong around an array
    - record_sha256: fixed_size_binary[32], of the record's own bytes; null where there are none or too many
    - record: utf8, the record's own bytes; null where it is refused
    - fault: utf8, why it is refused; null where it is good

    An array that cannot be read to its end says so in its last row.
    """

    def __iter__(self) -> Self:
        """Itself: a file is read once."""

    def __next__(self) -> RecordBatch:
        """The next batch.

        Raises:
            TrajtokError: the file cannot be read any further.
        """

def read_plain(
    documents: Sequence[bytes], *, layout: str, task: str, has_recorded_questions: bool, is_redacted: bool, is_file: bool
) -> list[tuple[tuple[dict[str, str | float | bool | None], dict[str, str | None], list[str]] | None, str | None]]:
    """Rollouts of the records that leave one way to read them, and the texts that documents hold.

    Args:
        documents: their bytes, each a JSON object.
        layout: a format's name; records of formats but `nat`, `negtraj`, `openai`, `adp` and `llamafactory` are never plain.
        task: whose rollouts they are.
        has_recorded_questions: whether the question is the recorded prompt.
        is_redacted: whether secrets are looked for: a record with a name that may be a secret's is not plain then.
        is_file: whether a document is a file: an object, a list of objects, or a line for each. It is never plain.

    Returns:
        seen: by document the rollout's columns of `RECORD_SCHEMA` and of `CONVERSATION_SCHEMA`, with the unknown keys that are
            not null and that `openai` has to hold against misspellings, None where the readers in Python have to look at it;
            and, where secrets are looked for, the texts to look for them in, a line each, None where a name tells of a secret
            or the document is not JSON beyond doubt.
    """

def canonical_json(value: object) -> str | None:
    """JSON text with sorted keys, no spaces and UTF-8 kept, as `schema.canonical_json` has it.

    Args:
        value: of exactly JSON's types, and tuples.

    Returns:
        text: None for what Python's encoder has to judge: another type, a whole number of more than 64 bits, NaN, a lone
            surrogate, more than 100 levels.
    """

def json_as_recorded(value: object) -> str | None:
    """JSON text with keys in their order, Python's spaces and UTF-8 kept, as `schema.json_as_recorded` has it.

    Args:
        value: see `canonical_json`.

    Returns:
        text: None where `canonical_json` returns it.
    """

def condition(conversations: Sequence[tuple[str, str, str | None]], *, keeps_last_turns: bool) -> list[str | None]:
    """Recorded conversations as they are trained, as `Strategy.condition` and `conditioned_json` make them.

    Args:
        conversations: canonical JSON of the recorded turns, of the conditioned turns before them, and JSON text of the tools.
        keeps_last_turns: whether turns behind the agent's last one stay.

    Returns:
        conditioned: canonical JSON, recorded token ids left out; None where a turn has to be looked at.
    """

def has_infinity(value: object) -> bool:
    """Whether a float in a value of JSON's types is infinite, as 1e999 is when it was read."""

def digest(*parts: str | bytes) -> str:
    """sha256 over length-prefixed parts, as `schema.digest` has it.

    Raises:
        UnicodeEncodeError: a lone surrogate stands in a part.
    """

def prepare(
    input: str | os.PathLike[str],
    output: str | os.PathLike[str],
    tokenizer: Tokenizer,
    capacity: int,
    *,
    n_threads: int | None = None,
) -> dict[str, int]:
    """From a file of conditioned conversations to token rows on disk, in one pass and in memory bounded by a batch.

    Reads JSON lines or one JSON array of records `{"messages": [{"role", "content", "loss"}]}` (also `conversations`,
    `from`/`value`; a message without `loss` or `weight` is trained if it is the assistant's) and writes four files, which
    get their names when all are whole:

    - rows.arrow: an Arrow IPC file with the columns of `EncodedBatch`; token_key is the record's place ("line 3")
    - bins.arrow: rows: list<int64>, the row numbers of each bin, best-fit decreasing over all rows
    - rejected.jsonl: place, reason and detail of every record that is no row
    - cut.jsonl: place, n_kept, n_messages and n_tokens of every row that lacks the end of its conversation

    Args:
        input: the file.
        output: the folder; made if it is not there, its files replaced if it is.
        tokenizer: tokenizer, template and length rule.
        capacity: tokens per bin, at least `max_tokens` of the tokenizer.
        n_threads: 1 to 1024; all processors by default.

    Returns:
        n_records, n_rows, n_rejected, n_cut, n_tokens, n_trained, n_straddling, n_bins

    Raises:
        TrajtokError: the file cannot be read or the folder cannot be written; n_threads is out of range.
        TokenizerError: as for `Tokenizer.encode`.
        PackError: capacity is below 1 or below the tokenizer's max_tokens.
    """
