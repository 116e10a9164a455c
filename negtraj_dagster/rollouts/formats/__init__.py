"""Registry of rollout file formats.

To add one: a module beside this with a reader, a line in FORMATS, a section in docs/rollout_formats.md, tests on real records.
"""

from negtraj_dagster.rollouts.formats import (
    adp,
    agentinstruct,
    atif,
    claude_code,
    codex,
    fireact,
    inspect_log,
    langfuse,
    llamafactory,
    nat,
    nebius,
    negtraj,
    openai,
    openhands,
    session_trace,
    spans,
    swe_agent,
    verifiers,
)
from negtraj_dagster.rollouts.formats.base import Format, Reading

FORMATS: dict[str, Format] = {
    format_.name: format_
    for format_ in (
        Format("nat", 2, nat.read_records),
        Format("negtraj", 5, negtraj.read_records),
        Format("openai", 3, openai.read_record, unit="object"),
        Format("atif", 2, atif.read_record, unit="object"),
        Format("swe_agent", 2, swe_agent.read_file, unit="file", sidecar=swe_agent.SIDECAR),
        Format("claude_code", 2, claude_code.read_file, unit="file", is_verified=False),
        Format("codex", 2, codex.read_file, unit="file", is_verified=False),
        Format("session_trace", 2, session_trace.read_file, unit="file", is_verified=False),
        Format("otel_genai", 2, spans.read_otel, unit="file"),
        Format("openinference", 4, spans.read_openinference, unit="file"),
        Format("adp", 3, adp.read_record, unit="object"),
        Format("nebius", 2, nebius.read_record, unit="object"),
        Format("openhands", 2, openhands.read_file, unit="file"),
        Format("agentinstruct", 3, agentinstruct.read_record, unit="object"),
        Format("fireact", 1, fireact.read_file, unit="file"),
        Format("llamafactory", 3, llamafactory.read_record, unit="object"),
        Format("inspect", 4, inspect_log.read_file, unit="file"),
        Format("verifiers", 3, verifiers.read_record, unit="object", is_verified=False),
        Format("langfuse", 3, langfuse.read_file, unit="file", is_verified=False),
    )
}
FORMAT_VERSIONS: dict[str, int] = {name: format_.version for name, format_ in FORMATS.items()}

__all__ = ["FORMATS", "FORMAT_VERSIONS", "Format", "Reading"]
