"""Results of asset checks: numbers, and where a check failed, what to do."""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from negtraj_dagster.store import Published


def judged(
    *,
    passed: bool,
    numbers: Mapping[str, Any],
    remedy: str,
    severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.ERROR,
) -> dg.AssetCheckResult:
    """A check's result; the remedy stands beside the numbers where it failed, in the UI and in the shell."""
    metadata = dict(numbers) if passed else {**numbers, "remedy": remedy}
    return dg.AssetCheckResult(passed=passed, severity=severity, metadata=metadata)


def without_data(published: Published) -> dg.AssetCheckResult:
    """What a check says of an asset that had nothing to work on."""
    return dg.AssetCheckResult(passed=True, metadata={"status": "no_data", "reason": published.content["reason"]})
