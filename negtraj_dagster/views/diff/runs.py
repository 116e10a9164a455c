"""Which two objects a person means, and what differs between them."""

from collections.abc import Sequence

from negtraj_dagster.errors import SettingsError, StoreError
from negtraj_dagster.settings import did_you_mean
from negtraj_dagster.sql import DEFAULT_PROFILE
from negtraj_dagster.store import Published, Store
from negtraj_dagster.views.diff.compare import Changes, compare_objects
from negtraj_dagster.views.diff.side import SHOWN_RUN_CHARS

MIN_RUN_CHARS = 6
MAX_LISTED_RUNS = 10


def diff_runs(store: Store, runs: tuple[str, str], *, task: str | None = None, profile: str = DEFAULT_PROFILE) -> Changes:
    """What differs between two runs' objects of `trajectory_corpus/<task>`.

    Args:
        store: is read.
        runs: before and after: `current`, `previous`, or the beginning of an object key.
        task: may be left out where there is one corpus only.
        profile: by name.

    Raises:
        SettingsError: there is no such task, run or profile, or a beginning fits several runs; names those there are.
        StoreError: an object was made under an older layout, or is damaged.
    """
    asset = f"trajectory_corpus/{_find_task(store, task)}"
    history = store.history(asset)
    before, after = (_load_run(store, asset, history, run) for run in runs)
    return compare_objects(store, before, after, profile)


def _find_task(store: Store, task: str | None) -> str:
    tasks_with_corpus = [asset.partition("/")[2] for asset in store.assets() if asset.startswith("trajectory_corpus/")]
    if not tasks_with_corpus:
        raise SettingsError("no trajectory_corpus has been materialized here; run `negtraj demo`, or materialize one")
    if task is None and len(tasks_with_corpus) > 1:
        raise SettingsError(f"several tasks have a corpus; name one with --task: {', '.join(tasks_with_corpus)}")
    if task is not None and task not in tasks_with_corpus:
        raise SettingsError(f"no corpus of task {task!r}{did_you_mean(task, tasks_with_corpus)}")
    return task or tasks_with_corpus[0]


def _load_run(store: Store, asset: str, history: Sequence[str], run: str) -> Published:
    key = find_run(history, run, asset)
    try:
        return store.load(asset, key)
    except StoreError as error:
        raise SettingsError(f"run {key[:SHOWN_RUN_CHARS]} of {asset} is no longer here (gc drops old runs): {error}") from error


def find_run(history: Sequence[str], run: str, asset: str) -> str:
    """The object key that `run` names.

    Args:
        history: keys, newest first.
        run: `current`, `previous`, or the beginning of a key.
        asset: for messages.

    Raises:
        SettingsError: it names none, or several; says which there are.
    """
    word = run.strip().lower()
    there = f"; there are: {_listed_runs(history)}"
    if word in ("current", "previous"):
        place = ("current", "previous").index(word)
        if place >= len(history):
            raise SettingsError(f"{asset} has no {word} run{there}")
        return history[place]
    if len(word) < MIN_RUN_CHARS or not set(word) <= set("0123456789abcdef"):
        raise SettingsError(
            f"{run!r} names no run; expected current, previous, or at least {MIN_RUN_CHARS} digits of an object_key{there}"
        )
    fits = [key for key in history if key.startswith(word)]
    if not fits:
        raise SettingsError(f"{asset} has no run that begins with {word!r}{there}")
    if len(fits) > 1:
        first_keys = ", ".join(key[: len(word) + 6] for key in fits[:MAX_LISTED_RUNS])
        raise SettingsError(f"{word!r} begins {len(fits)} runs of {asset} ({first_keys}); give more digits")
    return fits[0]


def _listed_runs(history: Sequence[str]) -> str:
    words = {0: " (current)", 1: " (previous)"}
    recent = [f"{key[:SHOWN_RUN_CHARS]}{words.get(n, '')}" for n, key in enumerate(history[:MAX_LISTED_RUNS])]
    rest = [f"{len(history) - MAX_LISTED_RUNS} older"] if len(history) > MAX_LISTED_RUNS else []
    return ", ".join([*recent, *rest]) or "none"
