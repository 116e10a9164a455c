"""`negtraj verify` and `gc`: look after a home."""

import argparse

from negtraj_dagster import paths
from negtraj_dagster.commands.arguments import positive
from negtraj_dagster.exit_codes import FAILED, SUCCESS


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Its arguments."""
    verify_parser = commands.add_parser("verify", help="hash every stored file again and follow every reference")
    verify_parser.add_argument("--repair", action="store_true", help="set damaged folders aside, so that they are made again")
    verify_parser.set_defaults(run=verify)
    gc_parser = commands.add_parser("gc", help="say what no kept object needs; --delete drops it")
    gc_parser.add_argument(
        "--keep-last", type=positive, default=3, metavar="K", help="states of each asset to keep (default: 3)"
    )
    gc_parser.add_argument("--delete", action="store_true", help="drop it; without this nothing is changed")
    gc_parser.set_defaults(run=collect)


def verify(options: argparse.Namespace) -> int:
    """Hash all files and print faults."""
    from negtraj_dagster.upkeep import existing_home, verify_home

    home = existing_home(paths.home())
    verified = verify_home(home, repair=options.repair)
    for fault in verified.faults:
        print(f"{fault.name}: {fault.what}; {fault.remedy if options.repair else 'run `negtraj verify --repair`'}")
    print(f"{verified.n_folders} objects and segments, {verified.n_bytes / 1e6:.1f} MB hashed: {len(verified.faults)} faults")
    return SUCCESS if options.repair or not verified.faults else FAILED


def collect(options: argparse.Namespace) -> int:
    """Print what nothing needs, or drop it."""
    from negtraj_dagster.upkeep import collect_garbage, existing_home

    garbage = collect_garbage(existing_home(paths.home()), keep_last=options.keep_last, delete=options.delete)
    for name, n_bytes in garbage.dropped.items():
        print(f"{n_bytes:>12}  {name}")
    did = "dropped" if options.delete else "would be dropped (--delete does it)"
    print(f"{len(garbage.dropped)} of {len(garbage.dropped) + garbage.n_kept}, {garbage.n_bytes / 1e6:.1f} MB, {did}")
    return SUCCESS
