"""The SQL files a deployment has: those that ship in sql/, and a user's folders that add files and replace some by name."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from negtraj_dagster import paths
from negtraj_dagster.errors import SettingsError, SqlContractError
from negtraj_dagster.schema import FIXED_VERDICTS, digest_json
from negtraj_dagster.settings import did_you_mean
from negtraj_dagster.sql.files import NUMBERED, Filter, Kind, Score, SqlFile, load_file

FOLDERS: tuple[Kind, ...] = ("model", "filters", "scores", "selection", "reports")
MODEL_ORDER = ("turns", "steps", "actions", "observations", "outcomes", "texts", "signatures")
"""Model files in the order they are made; a later one may read the earlier ones."""


@dataclass(frozen=True)
class Registry:
    """All SQL files by kind and name.

    Args:
        folders: the shipped one first; of two files of one name the later folder's counts.
    """

    folders: tuple[Path, ...]

    @cached_property
    def files(self) -> Mapping[Kind, Mapping[str, SqlFile]]:
        """Every file, in the order of file names.

        Raises:
            SqlContractError: a file breaks the contract, or two files share a name, a number or a reason.
        """
        return {kind: self._load(kind) for kind in FOLDERS}

    @cached_property
    def filters(self) -> tuple[Filter, ...]:
        """In funnel order."""
        read = [file for file in self.files["filters"].values() if isinstance(file, Filter)]
        ordered = sorted((replace(file, model=self._model_of(file)) for file in read), key=lambda filter_: filter_.number)
        for filter_ in ordered:
            if filter_.name in FIXED_VERDICTS:
                raise SqlContractError(
                    f"{filter_.path}: {filter_.name} is a verdict of the pipeline's own; give the filter another name"
                )
        for noun, of in (("number", lambda filter_: filter_.number), ("reason", lambda filter_: filter_.header.reason)):
            _check_unique(ordered, noun, of)
        return tuple(ordered)

    @cached_property
    def scores(self) -> tuple[Score, ...]:
        """All scores."""
        read = [file for file in self.files["scores"].values() if isinstance(file, Score)]
        score_files = tuple(replace(file, model=self._model_of(file)) for file in read)
        if doubled := sorted({other.name for other in score_files} & {other.name for other in self.filters}):
            raise SqlContractError(
                f"{self.files['scores'][doubled[0]].path}: a filter has the name {doubled[0]!r}, too; rename one"
            )
        return score_files

    def one(self, kind: Kind, name: str) -> SqlFile:
        """A file by its name, with the digest of the model it reads.

        Raises:
            SqlContractError: there is none.
        """
        if name not in self.files[kind]:
            raise SqlContractError(
                f"{self.folders[0] / kind}: no file of the name {name!r}{did_you_mean(name, self.files[kind])}"
            )
        file = self.files[kind][name]
        return replace(file, model=self._model_of(file))

    def model(self, name: str) -> SqlFile:
        """A file of sql/model; its version covers what it reads."""
        return self.one("model", name)

    @cached_property
    def replaced(self) -> tuple[tuple[str, str], ...]:
        """(file, the shipped file whose place it takes), for reports."""
        shipped = _paths(self.folders[:1])
        return tuple(
            (str(file.path), str(shipped[kind, name]))
            for kind in FOLDERS
            for name, file in self.files[kind].items()
            if (kind, name) in shipped and shipped[kind, name] != file.path
        )

    def _load(self, kind: Kind) -> dict[str, SqlFile]:
        by_name: dict[str, SqlFile] = {}
        for folder in self.folders:
            of_folder: dict[str, SqlFile] = {}
            for path in sorted((folder / kind).glob("*.sql")):
                file = load_file(path, kind)
                if file.name in of_folder:
                    raise SqlContractError(
                        f"{path}: the name {file.name!r} is that of {of_folder[file.name].path}, too; rename one"
                    )
                _check_file_name(file)
                of_folder[file.name] = file
            by_name |= of_folder
        return dict(sorted(by_name.items(), key=lambda pair: pair[1].path.name))

    def _model_of(self, file: SqlFile) -> str:
        """Digest of the model files that decide what a file sees."""
        return digest_json([[model.name, model.normalised] for model in self.model_files(file)])

    def model_files(self, file: SqlFile) -> list[SqlFile]:
        """The model files that a file reads, and those that they read, in the order they are made."""
        needed: set[str] = set()
        reading = [file]
        while reading:
            reader = reading.pop()
            for name in MODEL_ORDER:
                if name not in needed and name != reader.name and reader.reads(name):
                    needed.add(name)
                    reading.append(self.files["model"][name])
        return [self.files["model"][name] for name in MODEL_ORDER if name in needed]


def load_registry(user_folders: Iterable[Path] = ()) -> Registry:
    """The registry of the shipped folder and a user's.

    Raises:
        SettingsError: a folder is not there.
    """
    folders = tuple(user_folders)
    for folder in folders:
        if not folder.is_dir():
            raise SettingsError(
                f"sql_dirs names {folder}, which is no folder; create it or take it out (NEGTRAJ_SQL, negtraj.toml)"
            )
        if unknown := sorted(
            entry.name for entry in folder.iterdir() if entry.is_dir() and entry.name not in (*FOLDERS, "profiles")
        ):
            raise SettingsError(f"{folder}: unknown folder {unknown[0]!r}{did_you_mean(unknown[0], (*FOLDERS, 'profiles'))}")
        if loose := sorted(entry.name for entry in folder.glob("*.sql")):
            raise SettingsError(f"{folder / loose[0]}: a file belongs into one of the folders {', '.join(FOLDERS)}")
    return Registry((paths.shipped("sql"), *folders))


def _paths(folders: Sequence[Path]) -> dict[tuple[Kind, str], Path]:
    return {
        (kind, load_file(path, kind).name): path
        for folder in folders
        for kind in FOLDERS
        for path in (folder / kind).glob("*.sql")
    }


def _check_file_name(file: SqlFile) -> None:
    stem = file.path.stem
    if file.kind == "filters":
        match = NUMBERED.match(stem)
        if not match or match[2] != file.name:
            raise SqlContractError(
                f"{file.path}: rename it to NNN_{file.name}.sql; NNN, three digits, is its place in the funnel"
            )
    elif stem.lstrip("_") != file.name:
        raise SqlContractError(f"{file.path}: rename it to {file.name}.sql, or its header's name to {stem}")
    if file.kind == "model" and file.name not in MODEL_ORDER:
        raise SqlContractError(f"{file.path}: no model table {file.name!r}{did_you_mean(file.name, MODEL_ORDER)}")


def _check_unique(filters: Sequence[Filter], noun: str, of: Callable[[Filter], str]) -> None:
    first_of: dict[str, Filter] = {}
    for file in filters:
        other = first_of.setdefault(of(file), file)
        if other is not file:
            raise SqlContractError(f"{file.path}: {noun} {of(file)!r} is that of {other.path}, too; give each filter its own")
