"""The SQL files of a deployment: what each declares in its header, and the version that says when its answers are stale."""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import duckdb
from pydantic import Field, field_validator

from negtraj_dagster.errors import SettingsError, SqlContractError
from negtraj_dagster.schema import digest_json
from negtraj_dagster.settings import Strict, did_you_mean, parse

Kind = Literal["model", "filters", "scores", "selection", "reports"]
Scope = Literal["row", "group", "reference", "pairs", "corpus"]
Severity = Literal["drop", "flag"]
Applies = Literal["both", "positive", "negative"]
Style = Literal["react", "native", "any"]

HEADER = re.compile(r"\A\s*/\*(.*?)\*/", re.DOTALL)
NOISE = re.compile(r"""(?P<kept>'(?:[^']|'')*'|"[^"]*")|(?:--[^\n]*|/\*.*?\*/|\s)+""", re.DOTALL)
QUOTES = re.compile(r"""(?P<odd>\b[a-zA-Z](?=')|\$\w*\$)|'(?:[^']|'')*'|"[^"]*"|--[^\n]*|/\*.*?\*/""", re.DOTALL)
NAME = re.compile(r"[a-z][a-z0-9_]*\Z")
NUMBERED = re.compile(r"(\d{3})_(.+)\Z")
UNSTABLE_HASH = re.compile(r"\bhash\s*\(", re.IGNORECASE)
"""DuckDB's hash() differs between its versions, so the version of a file that calls it holds DuckDB's."""
CONVERSIONS: dict[str, tuple[type, ...]] = {
    "INTEGER": (int,),
    "DOUBLE": (int, float),
    "VARCHAR": (str,),
    "BOOLEAN": (bool,),
    "VARCHAR[]": (list,),
}


class Parameter(Strict):
    """A `$name` of a file: its type and the value it has unless a profile says otherwise."""

    type: Literal["INTEGER", "DOUBLE", "VARCHAR", "BOOLEAN", "VARCHAR[]"]
    default: Any

    def accepts(self, value: object) -> bool:
        """Whether a value is of the parameter's type."""
        return isinstance(value, CONVERSIONS[self.type]) and (self.type == "BOOLEAN") == isinstance(value, bool)


class Header(Strict):
    """What every file says of itself."""

    name: str
    doc: str
    params: Mapping[str, Parameter] = {}

    @field_validator("name")
    @classmethod
    def _a_name(cls, value: str) -> str:
        if not NAME.match(value):
            raise ValueError("lower-case letters, digits and _ only")
        return value

    @field_validator("params")
    @classmethod
    def _defaults_of_their_types(cls, value: Mapping[str, Parameter]) -> Mapping[str, Parameter]:
        for name, parameter in value.items():
            if not parameter.accepts(parameter.default):
                raise ValueError(f"the default of {name}, {parameter.default!r}, is no {parameter.type}")
        return value


class FilterHeader(Header):
    """A filter's effect. `twins`: of a set-level filter, whether `earlier_key` is the nearest twin, whose twins are its own."""

    reason: str = Field(min_length=1)
    scope: Scope
    severity: Severity
    applies_to: Applies
    style: Style
    twins: Literal["nearest", "all"] = "all"


class ScoreHeader(Header):
    """What a score is part of: quality is the mean of the scores that apply, each with its weight."""

    applies_to: Applies = "both"
    style: Style = "any"
    weight: float = Field(1.0, ge=0)


HEADERS: dict[str, type[Header]] = {"filters": FilterHeader, "scores": ScoreHeader}


@dataclass(frozen=True)
class SqlFile:
    """A SQL file with its header; `parameters` are the values it runs with, `model` the digest of the model files it reads."""

    path: Path
    kind: Kind
    header: Header
    text: str
    parameters: Mapping[str, Any]
    model: str = ""

    @property
    def name(self) -> str:
        """Unique among the files of its kind."""
        return self.header.name

    @cached_property
    def body(self) -> str:
        """The SQL without its header."""
        return HEADER.sub("", self.text).strip()

    @cached_property
    def normalised(self) -> str:
        """The SQL without comments and with single spaces, texts in quotes untouched: a reformatted file is the same."""
        return NOISE.sub(lambda match: match["kept"] or " ", self.body).strip()

    @cached_property
    def version(self) -> str:
        """Hash of the SQL, its parameters' values, what the header says of its effect, and the model it reads."""
        effect = self.header.model_dump(mode="json", exclude={"doc", "params", "severity", "reason", "weight"})
        engine = [duckdb.__version__] if UNSTABLE_HASH.search(self.normalised) else []
        return digest_json([effect, self.normalised, dict(self.parameters), self.model, *engine])

    @cached_property
    def odd_quote(self) -> str:
        """The first quote that is none of '…' and "…" (E'…', $$…$$), whose text the version would not see as it is."""
        odd_quotes = (match["odd"] for match in QUOTES.finditer(self.body) if match["odd"])
        return next(odd_quotes, "")

    def reads(self, table: str) -> bool:
        """Whether the SQL mentions a table (or column) of this name, outside of quoted texts."""
        return table in self.words

    @cached_property
    def words(self) -> frozenset[str]:
        """Every name the SQL mentions, in lower case."""
        return frozenset(re.findall(r"[a-z_][a-z0-9_]*", re.sub(r"'(?:[^']|'')*'", "''", self.normalised).lower()))

    def with_parameters(self, values: Mapping[str, Any], source: Path | None = None) -> "SqlFile":
        """The same file with some values replaced.

        Raises:
            SqlContractError: a parameter the header does not declare, or a value of another type.
        """
        where = f"{source or self.path}: filter {self.name}"
        for key, value in values.items():
            if key not in self.header.params:
                raise SqlContractError(f"{where}: no parameter {key!r}{did_you_mean(key, self.header.params)}")
            if not self.header.params[key].accepts(value):
                raise SqlContractError(f"{where}: {key} = {value!r}, expected {self.header.params[key].type}")
        return replace(self, parameters={**self.parameters, **values})


@dataclass(frozen=True)
class Filter(SqlFile):
    """A filter: selects the rollouts it rejects, or marks."""

    header: FilterHeader

    @property
    def number(self) -> str:
        """Its place in the funnel."""
        return self.path.name[:3]

    @property
    def scope(self) -> Scope:
        """What a verdict depends on: the row, its question's rows, the evaluation questions, rows that resemble it, or all."""
        return self.header.scope

    @property
    def severity(self) -> Severity:
        """drop: the rollout is not trained on. flag: it is marked and loses quality."""
        return self.header.severity

    @property
    def names_nearest_twin(self) -> bool:
        """Whether `earlier_key` is the nearest earlier twin, whose own twins are this row's as well; else each is named."""
        return self.header.twins == "nearest"

    @property
    def is_of_rows(self) -> bool:
        """Whether it sees one rollout at a time, with its conversation."""
        return self.scope == "row"

    def with_severity(self, severity: Severity) -> "Filter":
        """The same filter with another effect."""
        return replace(self, header=self.header.model_copy(update={"severity": severity}))


@dataclass(frozen=True)
class Score(SqlFile):
    """A score of 0 to 1 per rollout, 1 = best."""

    header: ScoreHeader


def load_file(path: Path, kind: Kind) -> SqlFile:
    """Parse one SQL file.

    Raises:
        SqlContractError: no header, a header that is not TOML, a key or value it cannot have; names the file and the line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SqlContractError(f"{path}: cannot be read as UTF-8 text ({error})") from error
    match = HEADER.match(text)
    if not match:
        raise SqlContractError(f"{path}: no header; begin the file with a /* … */ comment that holds TOML (see sql/README.md)")
    try:
        values = tomllib.loads(match[1])
    except tomllib.TOMLDecodeError as error:
        raise SqlContractError(f"{path}: the header is not TOML, counting lines from its /*: {error}") from error
    header = HEADERS.get(kind, Header)
    if kind == "filters" and isinstance(values.get("doc"), str) and not values["doc"].strip():
        raise SqlContractError(f"{path}: doc is empty; say why, where the threshold is from, and what is and is not caught")
    try:
        parsed = parse(header, values, path)
    except SettingsError as error:
        raise SqlContractError(f"{error}\n  (in the header; see sql/README.md)") from None
    file_type: type[SqlFile] = {"filters": Filter, "scores": Score}.get(kind, SqlFile)
    defaults = {name: parameter.default for name, parameter in parsed.params.items()}
    return file_type(path, kind, parsed, text, defaults)  # type: ignore[arg-type]
