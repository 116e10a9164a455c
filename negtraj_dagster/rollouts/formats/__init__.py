"""Registry of rollout file formats.

To add one: a module beside this with a reader, a line in FORMATS, a section in docs/rollout_formats.md, tests on real records.
"""

from negtraj_dagster.rollouts.formats import nat, negtraj, openai
from negtraj_dagster.rollouts.formats.base import Format, Reading

FORMATS: dict[str, Format] = {
    each.name: each
    for each in (
        Format("nat", 2, nat.read_records),
        Format("negtraj", 3, negtraj.read_records),
        Format("openai", 1, openai.read_record, unit="object"),
    )
}
FORMAT_VERSIONS: dict[str, int] = {name: each.version for name, each in FORMATS.items()}

__all__ = ["FORMATS", "FORMAT_VERSIONS", "Format", "Reading"]
