#!/usr/bin/env bash
# Two tiny arms through Dagster, twice, on a home without any history: the first run must train and evaluate, the second
# must recompute nothing. `SMOKE_HOME=<empty folder>` keeps the home; otherwise it is temporary.
set -euo pipefail
cd "$(dirname "$0")/../.."
bin=$PWD/.venv/bin
here=$PWD/examples/ci

if [[ -n "${SMOKE_HOME:-}" ]]; then
    mkdir -p "$SMOKE_HOME"
    if [[ -n "$(ls -A "$SMOKE_HOME")" ]]; then
        echo "smoke: SMOKE_HOME=$SMOKE_HOME is not empty; name a new folder, or the first run has nothing to do" >&2
        exit 1
    fi
    NEGTRAJ_HOME=$(cd "$SMOKE_HOME" && pwd)
else
    NEGTRAJ_HOME=$(mktemp -d)
    trap 'rm -rf "$NEGTRAJ_HOME"' EXIT
fi
unset NEGTRAJ_NAT_DIR
export NEGTRAJ_HOME
export NEGTRAJ_SETTINGS=$here/negtraj.toml NEGTRAJ_RECIPES=$here/recipes
export DAGSTER_HOME=$NEGTRAJ_HOME/dagster DAGSTER_DISABLE_TELEMETRY=1
mkdir -p "$DAGSTER_HOME"
cp negtraj_dagster/dagster.yaml "$DAGSTER_HOME"

# Plain keys only. Where an expression (tag:…, key:…) matches nothing, Dagster runs every asset and ends 0.
assets=(question_sets base_model/wordtraps raw_rollouts scored_trajectories trajectory_corpus/wordtraps)
for arm in smoke_nat smoke_nut; do
    assets+=("$arm/training_selection" "$arm/tokenized_shards" "$arm/checkpoint" "$arm/evaluation_report")
done
assets+=(recipe_comparison/smoke champion/smoke)
selection=$(IFS=,; echo "${assets[*]}")

# materialize <name>: run the selection, the log into a file that is shown when the run fails
materialize() {
    local log=$NEGTRAJ_HOME/$1.log started=$SECONDS
    if ! "$bin/dagster" asset materialize -m negtraj_dagster.definitions --select "$selection" >"$log" 2>&1; then
        tail -n 60 "$log" >&2
        echo "smoke: the $1 run failed" >&2
        exit 1
    fi
    echo "smoke: $1 run took $((SECONDS - started)) s"
}

materialize first
"$bin/python" "$here/check_run.py" worked "${assets[@]}"
materialize second
"$bin/python" "$here/check_run.py" reused "${assets[@]}"
