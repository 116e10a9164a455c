"""Registry of rollout file formats: name -> a function from one parsed record to a rollout.

To add one: a module beside this with a `read_record`, a line in FORMATS, and tests on real records.
"""

from collections.abc import Callable
from typing import Any

from negtraj_dagster.rollouts.formats import nat, negtraj
from negtraj_dagster.schema import Rollout

RecordReader = Callable[[str, dict[str, Any]], Rollout]
"""(task, record) -> rollout; raises RolloutFormatError with what was expected and what was found."""

FORMATS: dict[str, RecordReader] = {"nat": nat.read_record, "negtraj": negtraj.read_record}
FORMAT_VERSIONS: dict[str, int] = {"nat": 2, "negtraj": 3}
