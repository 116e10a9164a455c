"""Every format against files that the recording systems wrote: what came in, what was refused and why."""

from collections import Counter
from pathlib import Path

import pytest

from negtraj_dagster.rollouts.formats import FORMATS
from negtraj_dagster.settings import Settings
from negtraj_dagster.views.check import check_file
from tests.conftest import SAMPLE_DATA

EXPECTED = {  # by folder and file: the format, rollouts, refused
    "adp_v1/agenttuning_os_sample_std.json": ("adp", 5, 0),
    "adp_v1/toucan_sample_std.json": ("adp", 1, 0),
    "adp_v1/toucan_sample_std_v1.5.0.first1.json": ("adp", 1, 0),
    "agentinstruct_agentgym/agentgym_readme_example.json": ("agentinstruct", 1, 0),
    "agentinstruct_agentgym/agenttuning_os_sample_raw.json": ("agentinstruct", 5, 0),
    "agentinstruct_agentgym/agenttuning_webshop_sample_raw.json": ("agentinstruct", 5, 0),
    "atif/adp_agenttuning_db_atif_v1.7.first2.json": ("atif", 2, 0),
    "atif/harbor_openhands_hello-world.trajectory.json": ("atif", 1, 0),
    "atif/harbor_terminus2_context-summarization.trajectory.json": ("atif", 1, 1),  # what follows the summary
    "atif/harbor_terminus2_linear-history.cont-1.trajectory.json": ("atif", 1, 0),
    "eto_dpo/eto_readme_dpo_example.json": ("agentinstruct", 2, 0),
    "eto_sft/eto_sample_raw.json": ("agentinstruct", 3, 0),
    "llamafactory_sharegpt/dpo_en_demo.first10.json": ("llamafactory", 20, 0),
    "llamafactory_sharegpt/glaive_toolcall_en_demo.first20.json": ("llamafactory", 20, 0),
    "llamafactory_sharegpt/kto_en_demo.first10.json": ("llamafactory", 10, 0),
    "llamafactory_sharegpt/v1_sft_demo.first10.jsonl": ("llamafactory", 10, 0),
    "ms_swift/agent_support_doc_examples.jsonl": ("llamafactory", 1, 1),  # an image
    "ms_swift/custom_dataset_doc_loss_examples.jsonl": ("openai", 2, 0),  # the same layout
    "ms_swift/tests_chatml.jsonl": ("openai", 3, 0),
    "nebius_swe_agent/nebius_sample_raw.first3.json": ("nebius", 3, 0),
    "nebius_swe_agent/nebius_sample_raw_negative.first1.json": ("nebius", 1, 0),
    "openai_messages/mini_coder_sample_raw.json": ("openai", 1, 0),
    "openai_messages/swesmith_ft_xml_example.first1.jsonl": ("openai", 1, 0),
    "openai_tool_calls/swegym_openhands_adpweb.mypy-11632.json": ("openai", 1, 0),
    "openai_tool_calls/swegym_openhands_sample_raw.first1.json": ("openai", 1, 0),
    "openai_tool_calls/toucan_sample_raw.json": ("openai", 1, 0),
    "openhands_events/harbor_rfc_openhands_trajectory.json": ("openhands", 1, 0),
    "openhands_events/openhands_adpweb.194.json": ("openhands", 1, 0),
    "openhands_events/openhands_feedback_2024-10.first2.json": ("openhands", 2, 0),
    "openinference/openinference_client_span_tool_calls.json": ("openinference", 1, 0),
    "openinference/phoenix_pxi_turn_trace.json": ("openinference", 1, 0),
    "otel_genai/otel_genai_client_span_tool_calls.json": ("otel_genai", 1, 0),
    "otel_genai/vercel_ai_generateText_spans.json": ("otel_genai", 2, 0),
    "swe_agent_traj/6e44b9__sweagenttestrepo-1c2844.traj": ("swe_agent", 1, 0),
    "swe_agent_traj/pandas_pr_53652.first4steps.traj": ("swe_agent", 1, 0),
    "swe_agent_traj/swe-agent__test-repo-i1.traj": ("swe_agent", 1, 0),
}


@pytest.fixture
def formats() -> Path:
    folder = SAMPLE_DATA / "formats"
    if not folder.is_dir():
        pytest.skip("no sample data")
    return folder


@pytest.mark.parametrize("name", EXPECTED)
def test_a_real_file_is_recognised_and_read(formats: Path, settings: Settings, name: str) -> None:
    checked = check_file(formats / name, settings)
    best = checked.best
    print(f"{name}: {best.n_documents} documents, {best.n_read} rollouts as {best.name}, {best.n_refused} refused")
    assert (best.name, best.n_read, best.n_refused) == EXPECTED[name], best.faults
    assert best.n_with_prompt == best.n_read
    assert FORMATS[best.name].is_verified


@pytest.mark.parametrize(
    ("part", "n_rollouts", "n_right"), [("gpt-3.5-turbo", 465, 200), ("llama-2-13b", 499, 172)], ids=["gpt", "llama"]
)
def test_all_rollouts_of_fireact_come_in_with_their_f1(settings: Settings, part: str, n_rollouts: int, n_right: int) -> None:
    paths = sorted((SAMPLE_DATA / "fireact" / "trajs").glob(f"*{part}*"))
    if not paths:
        pytest.skip("no sample data")
    best = check_file(paths[0], settings).best
    assert (best.name, best.n_read, best.n_refused, best.n_scored) == ("fireact", n_rollouts, 0, n_rollouts)
    assert best.rewards == Counter({True: n_right, False: n_rollouts - n_right})
