"""The `negtraj` command: runs lines and recipes, foresees runs, and shows what was decided and made.

`run`, `demo` and `ui` run the lineage, `plan` foresees a run, `list` names rollouts, `show` prints training rows, `why` prints
all that was decided about a rollout, `try` what a filter would hit, `diff` what flipped between two runs, `catalog` and `query`
open the data to SQL, `verify` and `gc` look after a home.
"""

import argparse
import contextlib
import os
import select
import signal
import subprocess
import sys
import threading
from pathlib import Path

from negtraj_dagster import paths
from negtraj_dagster.errors import NegtrajError, SettingsError, UsageError
from negtraj_dagster.exit_codes import CLOSED_PIPE, FAILED, INTERRUPTED, STALE, SUCCESS, USAGE
from negtraj_dagster.printable import visible
from negtraj_dagster.schema import canonical_json
from negtraj_dagster.settings import Settings, did_you_mean, load_settings
from negtraj_dagster.store import Store, machine_fault, replace_text, writing

DEFAULT_PORT = 3000
UI_GRACE_S = 5.0
PATH_VARIABLES = ("NEGTRAJ_SETTINGS", "NEGTRAJ_NAT_DIR")
WORKSPACE = """\
load_from:
  - python_module:
      module_name: negtraj_dagster.definitions
      location_name: negtraj_dagster
"""


def main(arguments: list[str] | None = None) -> int:
    """Run a command; a user's mistake ends with a message, never a traceback. exit_codes.py says how a command ends."""
    options = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, _interrupt)
    return _end_output(_run_command(options))


def _run_command(options: argparse.Namespace) -> int:
    try:
        return int(options.run(options))
    except UsageError as error:
        return _refuse(f"{visible(str(error))}; see `negtraj {options.command} --help`", USAGE)
    except NegtrajError as error:
        return _refuse(visible(str(error)))
    except KeyboardInterrupt:
        return _refuse("interrupted; what was finished is kept", INTERRUPTED)
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _is_reader_gone():  # else the pipe of a child of ours
            return CLOSED_PIPE
        fault = machine_fault(error, paths.home())
        if fault is None:
            raise
        return _refuse(visible(str(fault)))


def _refuse(message: str, code: int = FAILED) -> int:
    with contextlib.suppress(BrokenPipeError):  # `2>&1 | head`: the code says it all the same
        print(f"negtraj: {message}", file=sys.stderr)
    return code


def _end_output(code: int) -> int:
    """Write what is still buffered; without a reader the command's own code stands, a lost output is a failure."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - the interpreter flushes it when it ends
    except OSError as error:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
        code = _refuse(
            f"the output cannot be written ({error.strerror}); free space there, or write it elsewhere", code or FAILED
        )
    try:
        sys.stderr.flush()
    except OSError:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    return code


def _is_reader_gone() -> bool:
    """Whether nobody reads stdout, or stderr, any more."""
    poll = select.poll()
    for descriptor in (1, 2):
        poll.register(descriptor, 0)
    return any(events & (select.POLLERR | select.POLLHUP) for _, events in poll.poll(0))


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="negtraj", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="bring a line, or one recipe, up to date and print how it did")
    run.add_argument("target", metavar="LINE|RECIPE", help="a line with all its arms, or one recipe up to its report")
    run.add_argument("--strict-checks", action="store_true", help="end with exit code 4 where any check failed")
    run.set_defaults(run=lambda options: _run(options.target, has_strict_checks=options.strict_checks))
    demo = commands.add_parser("demo", help="`run` of the embedded line, wordtraps")
    demo.add_argument("--line", default="wordtraps", help="another line (default: wordtraps)")
    demo.set_defaults(run=lambda options: _run(options.line))
    ui = commands.add_parser("ui", help="start the Dagster web UI on 127.0.0.1")
    ui.add_argument("--port", type=int, default=DEFAULT_PORT)
    ui.set_defaults(run=lambda options: _ui(options.port))
    plan = commands.add_parser("plan", help="say what a run would recompute, and why; changes nothing")
    plan.add_argument("recipe", nargs="*", help="recipes to plan")
    plan.add_argument("--all", action="store_true", help="plan every recipe")
    plan.add_argument("--line", metavar="L", help="plan every recipe of this line")
    plan.add_argument("--check", action="store_true", help="end with exit code 3 where anything with data is stale")
    plan.add_argument("--json", action="store_true", help="one JSON object a line")
    plan.set_defaults(run=_plan)
    _add_list(commands)
    show = commands.add_parser("show", help="print training rows as the trainer reads them, or why rows were rejected")
    show.add_argument("key", nargs="?", metavar="KEY", help="the beginning of a rollout_key or token_key, 6 digits at least")
    show.add_argument("--recipe", metavar="NAME", help="look in this recipe's shards only; without KEY: its first rows")
    show.add_argument("--no-colour", "--no-color", action="store_true", help="mark trained stretches with ⟦ ⟧ instead")
    show.add_argument("--html", type=Path, metavar="FILE", help="write the rows as a page instead")
    show.add_argument("--rejected", action="store_true", help="which rows were rejected, and why")
    show.add_argument("--reason", metavar="R", help="with --rejected: rows of one reason")
    show.add_argument("--limit", type=int, default=20, metavar="N", help="without KEY: rows to print (default: 20)")
    show.set_defaults(run=_show)
    _add_questions(commands)
    diff = commands.add_parser("diff", help="say which rollouts flipped between two runs' corpora, and why")
    for name in ("before", "after"):
        diff.add_argument(name, metavar="RUN", help="current, previous, or the beginning of an object_key, 6 digits at least")
    diff.add_argument("--task", metavar="T", help="whose corpus; may be left out where there is one only")
    diff.add_argument("--profile", default="strict", metavar="P", help="quality profile (default: strict)")
    diff.add_argument("--limit", type=int, default=20, metavar="N", help="rollouts to print (default: 20)")
    diff.set_defaults(run=_diff)
    verify = commands.add_parser("verify", help="hash every stored file again and follow every reference")
    verify.add_argument("--repair", action="store_true", help="set damaged folders aside, so that they are made again")
    verify.set_defaults(run=_verify)
    gc = commands.add_parser("gc", help="say what no kept object needs; --delete drops it")
    gc.add_argument("--keep-last", type=int, default=3, metavar="K", help="states of each asset to keep (default: 3)")
    gc.add_argument("--delete", action="store_true", help="drop it; without this nothing is changed")
    gc.set_defaults(run=_gc)
    return parser


def _add_list(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """`negtraj list`: keys to go on with."""
    parser = commands.add_parser("list", help="name rollouts: their keys, labels and what dropped them")
    parser.add_argument("--task", metavar="T", help="of this task only")
    parser.add_argument("--recipe", metavar="NAME", help="that this recipe selected only")
    parser.add_argument("--label", choices=("positive", "negative", "unknown"), help="of this label only")
    parser.add_argument("--source", metavar="S", help="of this source only")
    parser.add_argument("--dropped-by", metavar="FILTER", help="that this filter drops only")
    parser.add_argument("--profile", default="strict", metavar="P", help="quality profile (default: strict)")
    parser.add_argument("--limit", type=int, default=20, metavar="N", help="rollouts to print (default: 20)")
    parser.set_defaults(run=_list)


def _add_questions(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Commands that ask what the data holds and why."""
    why = commands.add_parser("why", help="print everything that was decided about a rollout")
    why.add_argument("key", metavar="KEY", help="the beginning of a rollout_key, 6 digits at least")
    why.add_argument("--profile", metavar="P", help="tell this quality profile only")
    why.set_defaults(run=_why)
    trial = commands.add_parser("try", help="run a filter file over the present rollouts; changes nothing")
    trial.add_argument("file", type=Path, metavar="FILTER.sql", help="lies anywhere; sql/README.md says what it holds")
    trial.add_argument("--task", metavar="T", help="try it on this task only")
    trial.add_argument("--limit", type=int, default=10, metavar="N", help="rollouts to show (default: 10)")
    trial.set_defaults(run=_try)
    catalog = commands.add_parser("catalog", help="write catalog.duckdb, views over everything, and name its ready queries")
    catalog.set_defaults(run=_catalog)
    query = commands.add_parser("query", help="print a ready query of the catalogue")
    query.add_argument("name", metavar="NAME", help="as `negtraj catalog` lists them")
    query.add_argument("--csv", action="store_true", help="comma-separated values")
    query.set_defaults(run=_query)


def _plan(options: argparse.Namespace) -> int:
    from negtraj_dagster.plan import describe, plan_recipes
    from negtraj_dagster.printable import text_table
    from negtraj_dagster.recipes import load_recipes

    settings = load_settings()
    recipes = load_recipes(settings)
    for name in options.recipe:
        if name not in recipes:
            raise SettingsError(f"no recipe {name!r}{did_you_mean(name, recipes)}")
    lines = {recipe.line for recipe in recipes.values()}
    if options.line and options.line not in lines:
        raise SettingsError(f"no line {options.line!r}{did_you_mean(options.line, lines)}")
    if not options.recipe and not options.all and not options.line:
        raise UsageError(f"name a recipe, --line or --all; recipes: {', '.join(recipes)}")
    names = [name for name, recipe in recipes.items() if options.all or recipe.line == options.line] + options.recipe
    chosen = [recipes[name] for name in dict.fromkeys(names)]
    planned = plan_recipes(settings, chosen)
    n_stale = sum(asset.is_stale and asset.has_data for asset in planned)
    if options.json:
        for each in planned:
            print(canonical_json(vars(each)))
    else:
        print(text_table(describe(planned)))
        print(f"\n{n_stale} of {len(planned)} assets are stale; nothing was changed")
    return STALE if options.check and n_stale else SUCCESS


def _list(options: argparse.Namespace) -> int:
    from negtraj_dagster.printable import text_table
    from negtraj_dagster.upkeep import present_lineage
    from negtraj_dagster.views.listing import Wanted, list_rollouts

    wanted = Wanted(options.task, options.recipe, options.label, options.source, options.dropped_by, options.profile)
    with present_lineage(load_settings()) as lineage:
        if options.recipe is not None and options.recipe not in lineage.recipes:
            raise SettingsError(f"no recipe {options.recipe!r}{did_you_mean(options.recipe, lineage.recipes)}")
        listing = list_rollouts(lineage.store, wanted, lineage.scoring.registry, max(options.limit, 0))
    print(text_table(listing.rows))
    print(f"\n{len(listing.rows)} of {listing.n_found} rollouts; `negtraj why KEY` tells all that was decided about one")
    return SUCCESS


def _show(options: argparse.Namespace) -> int:
    from negtraj_dagster.shards.page import rows_page
    from negtraj_dagster.shards.show import find_rejected, find_rows, first_rows, found_lines, rejected_lines
    from negtraj_dagster.upkeep import present_shards

    is_first = options.key is None and not options.rejected and options.recipe is not None
    if (options.key is None) == (not options.rejected and not is_first) or (options.key and options.rejected):
        raise UsageError("expected KEY, --recipe NAME, or --rejected [--reason R]")
    if (options.rejected and options.html) or (options.reason and not options.rejected):
        raise UsageError("--html goes with KEY or --recipe, --reason with --rejected")
    with present_shards(load_settings(), options.recipe) as opened:
        if options.rejected:
            print("\n".join(rejected_lines(find_rejected(opened, options.reason), max(options.limit, 0))))
            return SUCCESS
        found = first_rows(opened, max(options.limit, 0)) if is_first else find_rows(opened, options.key)
        if options.html is None:
            print("\n".join(found_lines(found, has_colour=_has_colour() and not options.no_colour)))
            return SUCCESS
    _write_page(options.html, rows_page(f"Rows of {options.key or options.recipe}", found.rows, found.rejected))
    return SUCCESS


def _diff(options: argparse.Namespace) -> int:
    from negtraj_dagster.printable import text_table
    from negtraj_dagster.upkeep import reading_store
    from negtraj_dagster.views.diff.runs import diff_runs
    from negtraj_dagster.views.diff.text import diff_lines

    with reading_store(load_settings()) as store:
        changes = diff_runs(store, (options.before, options.after), task=options.task, profile=options.profile)
    print("\n".join(diff_lines(changes, max(options.limit, 0), text_table)))
    return 0


def _has_colour() -> bool:
    """A terminal, unless the user says otherwise (https://no-color.org)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _write_page(file: Path, text: str) -> None:
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"{file} cannot be written ({error.strerror}); name another file") from error
    print(f"written: {file}")


def _why(options: argparse.Namespace) -> int:
    from negtraj_dagster.upkeep import present_lineage
    from negtraj_dagster.views.why.explain import explain_rollout
    from negtraj_dagster.views.why.text import explained_lines

    with present_lineage(load_settings()) as lineage:
        registry, recipes = lineage.scoring.registry, lineage.recipes
        explained = explain_rollout(lineage.store, options.key, registry, recipes, profile=options.profile)
    print("\n".join(explained_lines(explained)))
    return 0


def _try(options: argparse.Namespace) -> int:
    from negtraj_dagster.upkeep import present_lineage
    from negtraj_dagster.views.trial import trial_lines, try_filter

    with present_lineage(load_settings()) as lineage:
        n_samples = max(options.limit, 0)
        trial = try_filter(lineage.store, options.file, lineage.scoring, task=options.task, n_samples=n_samples)
    print("\n".join(trial_lines(trial)))
    return 0


def _catalog(options: argparse.Namespace) -> int:
    from negtraj_dagster import sql
    from negtraj_dagster.views.catalog.catalog import catalog_lines, write_catalog

    settings, store = _store_of_home()
    registry = sql.load_registry(settings.sql_dirs)
    print("\n".join(catalog_lines(write_catalog(store, registry), registry)))
    return 0


def _query(options: argparse.Namespace) -> int:
    from negtraj_dagster import sql
    from negtraj_dagster.printable import csv_text, frame_text
    from negtraj_dagster.views.catalog.catalog import run_report

    settings, store = _store_of_home()
    rows = run_report(store, sql.load_registry(settings.sql_dirs), options.name)
    print((csv_text if options.csv else frame_text)(rows))
    return 0


def _store_of_home() -> tuple[Settings, Store]:
    from negtraj_dagster.upkeep import existing_home

    settings = load_settings()
    return settings, Store(existing_home(settings.home), remote=settings.store_url)


def _verify(options: argparse.Namespace) -> int:
    from negtraj_dagster.upkeep import existing_home, verify_home

    home = existing_home(paths.home())
    found = verify_home(home, repair=options.repair)
    for fault in found.faults:
        print(f"{fault.name}: {fault.what}; {fault.remedy if options.repair else 'run `negtraj verify --repair`'}")
    print(f"{found.n_folders} objects and segments, {found.n_bytes / 1e6:.1f} MB hashed: {len(found.faults)} faults")
    return 0 if options.repair or not found.faults else 1


def _gc(options: argparse.Namespace) -> int:
    from negtraj_dagster.upkeep import collect_garbage, existing_home

    garbage = collect_garbage(existing_home(paths.home()), keep_last=options.keep_last, delete=options.delete)
    for name, n_bytes in garbage.dropped.items():
        print(f"{n_bytes:>12}  {name}")
    did = "dropped" if options.delete else "would be dropped (--delete does it)"
    print(f"{len(garbage.dropped)} of {len(garbage.dropped) + garbage.n_kept}, {garbage.n_bytes / 1e6:.1f} MB, {did}")
    return 0


def prepare_dagster_home() -> Path:
    """A persistent DAGSTER_HOME under NEGTRAJ_HOME (an exported one is respected), with our dagster.yaml in it.

    Relative paths in the environment become absolute, so that children may run in another folder.
    """
    os.environ["NEGTRAJ_HOME"] = str(paths.home())
    for name in PATH_VARIABLES:
        if os.environ.get(name):
            os.environ[name] = str(Path(os.environ[name]).expanduser().resolve())
    if recipes := os.environ.get("NEGTRAJ_RECIPES"):
        os.environ["NEGTRAJ_RECIPES"] = os.pathsep.join(str(Path(part).resolve()) for part in recipes.split(os.pathsep))
    folder = Path(os.environ.get("DAGSTER_HOME") or paths.home() / "dagster").expanduser().absolute()
    os.environ["DAGSTER_HOME"] = str(folder)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "dagster.yaml").exists():
            replace_text(folder / "dagster.yaml", (Path(__file__).parent / "dagster.yaml").read_text())
    return folder


def _run(target: str, *, has_strict_checks: bool = False) -> int:
    prepare_dagster_home()
    from negtraj_dagster.run import run_target  # late: the Dagster import takes a second that --help should not pay

    return run_target(target, has_strict_checks=has_strict_checks)


def _ui(port: int) -> int:
    folder = prepare_dagster_home()
    replace_text(folder / "workspace.yaml", WORKSPACE)
    scripts = Path(sys.executable).parent
    command = [str(scripts / "dagster"), "dev", "-w", "workspace.yaml", "-h", "127.0.0.1", "-p", str(port)]
    print(f"Dagster UI: http://127.0.0.1:{port}  (NEGTRAJ_HOME={paths.home()})", flush=True)
    env = {**os.environ, "PATH": f"{scripts}{os.pathsep}{os.environ.get('PATH', '')}"}
    # in DAGSTER_HOME: away from a checkout's own dagster.yaml and pyproject.toml, which are not this instance's
    services = subprocess.Popen(command, cwd=folder, env=env, start_new_session=True)
    is_stopping = threading.Event()

    def stop(*_: object) -> None:
        _end_group(services.pid, signal.SIGINT)
        if not is_stopping.is_set():  # a web server with an open page would wait for its browser
            is_stopping.set()
            late = threading.Timer(UI_GRACE_S, _end_group, (services.pid, signal.SIGKILL))
            late.daemon = True
            late.start()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    code = services.wait()
    _end_group(services.pid, signal.SIGKILL)
    return 0 if is_stopping.is_set() or code == 0 else 1


def _end_group(group: int, number: signal.Signals) -> None:
    """Signal every service of the UI; those that stay after their parent has gone get a SIGKILL."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)


if __name__ == "__main__":
    sys.exit(main())
