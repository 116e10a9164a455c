"""What a format makes of a document's bytes, in one call."""

from negtraj_dagster.rollouts.documents import parse_document, read_parsed
from negtraj_dagster.rollouts.formats import Format, Reading


def read_document(format_: Format, task: str, raw: bytes, place: str) -> Reading:
    return read_parsed(format_, task, parse_document(format_, raw, place))
