"""Checks the newest run in DAGSTER_HOME's event log against the assets it should have materialized.

    python examples/ci/check_run.py worked <asset> ...    it trained steps and evaluated questions
    python examples/ci/check_run.py reused <asset> ...    it recomputed nothing

Ends 1 with every fault named. Reads what Dagster recorded, so it holds of any run of any recipes.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence

import dagster as dg

MUST_WORK = ("steps_trained", "questions_evaluated")

Metadata = Mapping[str, object]


def read_newest_run(instance: dg.DagsterInstance) -> tuple[dg.DagsterRun, dict[str, Metadata]]:
    """The newest run and the metadata of each asset it materialized, by key.

    Raises:
        SystemExit: the instance has no run.
    """
    records = instance.get_run_records(limit=1)
    if not records:
        raise SystemExit("check_run: no run in DAGSTER_HOME's event log; run `dagster asset materialize` first")
    run = records[0].dagster_run
    found: dict[str, Metadata] = {}
    for entry in instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION):
        event = entry.dagster_event
        assert event is not None
        made = event.step_materialization_data.materialization
        found[made.asset_key.to_user_string()] = {name: value.value for name, value in made.metadata.items()}
    return run, found


def find_faults(expected: Sequence[str], found: Mapping[str, Metadata]) -> list[str]:
    """What holds of every run: each expected asset was materialized, no other one was, and each says what it did."""
    faults = [f"{key}: not materialized" for key in expected if key not in found]
    faults += [f"{key}: materialized, though not selected" for key in found if key not in expected]
    faults += [f"{key}: no data ({made.get('reason')})" for key, made in found.items() if made.get("status") != "ok"]
    faults += [f"{key}: does not say whether it was reused" for key, made in found.items() if "reused" not in made]
    return faults


def count_work(found: Mapping[str, Metadata]) -> dict[tuple[str, str], int]:
    """Every `work_…` number by asset and kind."""
    counts = {}
    for key, made in found.items():
        for name, value in made.items():
            if name.startswith("work_"):
                assert isinstance(value, int), f"{key}: {name} = {value!r} is no count"
                counts[key, name.removeprefix("work_")] = value
    return counts


def find_idleness(work: Mapping[tuple[str, str], int]) -> list[str]:
    """Kinds of work that a first run must do and this one did not."""
    totals = {kind: sum(n for (_, other), n in work.items() if other == kind) for kind in MUST_WORK}
    print("check_run:", ", ".join(f"{n} {kind.replace('_', ' ')}" for kind, n in totals.items()))
    return [f"no {kind.replace('_', ' ')}" for kind, n in totals.items() if n == 0]


def find_recomputed(found: Mapping[str, Metadata], work: Mapping[tuple[str, str], int]) -> list[str]:
    """Assets that a second run made again, or worked for."""
    again = [f"{key}: made again" for key, made in found.items() if made.get("reused") is not True]
    return again + [f"{key}: {n} {kind.replace('_', ' ')}" for (key, kind), n in work.items() if n != 0]


def main() -> int:
    """Check the newest run; 0 when it is as expected."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("expected", choices=("worked", "reused"))
    parser.add_argument("assets", nargs="+", metavar="asset")
    options = parser.parse_args()
    with dg.DagsterInstance.get() as instance:
        run, found = read_newest_run(instance)
    work = count_work(found)
    faults = [] if run.is_success else [f"run {run.run_id} ended {run.status.value}"]
    faults += find_faults(options.assets, found)
    faults += find_idleness(work) if options.expected == "worked" else find_recomputed(found, work)
    for fault in faults:
        print(f"check_run: {fault}", file=sys.stderr)
    if not faults:
        print(f"check_run: {len(found)} assets, as expected of a run that {options.expected}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
