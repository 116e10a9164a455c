"""Base models made from scratch."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from negtraj_dagster.errors import ModelError
from negtraj_dagster.modeling import CHAT_TEMPLATE, CONTROL_TOKENS, check_base_model, make_base_model, train_bpe

REPOSITORY = Path(__file__).parents[2]
TEXTS = [f"Thought: add {i} and {i + 7}.\nAction: calculator[{i}+{i + 7}]\nObservation: {2 * i + 7}" for i in range(60)]
FORMAT_STRINGS = ["Thought: ", ".\nAction: calculator[", "Observation: ", "user\n", "assistant\n", "\n"]


@pytest.fixture(scope="module")
def bpe():
    return train_bpe(TEXTS, FORMAT_STRINGS)


@pytest.fixture(scope="module")
def made_by_a_child(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    (folder / "texts.jsonl").write_text("".join(f"{json.dumps(text)}\n" for text in TEXTS))
    config = {
        "spec": "wordtraps",
        "out_dir": str(folder / "child"),
        "texts_file": str(folder / "texts.jsonl"),
        "format_strings": FORMAT_STRINGS,
    }
    (folder / "config.json").write_text(json.dumps(config))
    command = [sys.executable, "-m", "negtraj_dagster.modeling", str(folder / "config.json")]
    done = subprocess.run(command, check=True, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True)
    (folder / "stderr.txt").write_text(done.stderr)
    return folder / "child"


def test_same_inputs_give_same_bytes_in_another_process(made_by_a_child, tmp_path):
    make_base_model("wordtraps", tmp_path / "here", texts=TEXTS, format_strings=FORMAT_STRINGS)
    files = sorted(path.name for path in made_by_a_child.iterdir())
    expected = ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
    assert files == expected
    assert all((made_by_a_child / name).read_bytes() == (tmp_path / "here" / name).read_bytes() for name in files)


def test_the_chat_template_is_the_project_s_chatml(made_by_a_child):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(made_by_a_child)
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    rendered = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert tokenizer.chat_template == CHAT_TEMPLATE
    assert rendered == "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.parametrize("text", FORMAT_STRINGS, ids=repr)
def test_each_format_string_is_one_token_of_the_ordinary_vocabulary(bpe, text):
    assert len(bpe.encode(text, add_special_tokens=False).ids) == 1
    assert text not in [token.content for token in bpe.get_added_tokens_decoder().values()]


def test_a_format_string_that_training_never_saw_is_one_token_too():
    tokenizer = train_bpe(["few words"], ["never seen: [", "\n"])
    assert len(tokenizer.encode("never seen: [").ids) == 1


def test_the_content_after_a_role_line_starts_a_new_token(bpe):
    tokens = bpe.encode("assistant\nThought: add 3", add_special_tokens=False).tokens
    assert tokens[:2] == ["assistantĊ", "Thought:Ġ"]


def test_control_tokens_have_the_first_ids(bpe):
    assert [bpe.token_to_id(token) for token in CONTROL_TOKENS] == [0, 1, 2]
    assert CONTROL_TOKENS == ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


def test_a_run_of_digits_is_one_pre_token(bpe):
    pieces = [piece for piece, _ in bpe.pre_tokenizer.pre_tokenize_str("has 1234567, 89 left")]
    assert pieces == ["has", "Ġ", "1234567", ",", "Ġ", "89", "Ġleft"]


def test_a_known_number_is_one_token(bpe):
    assert bpe.encode("57", add_special_tokens=False).tokens == ["57"]


def test_any_text_survives_encoding(bpe):
    text = "Ünïcode 🌍\t<|im_start|x> 12,5\r\n"
    assert bpe.decode(bpe.encode(text, add_special_tokens=False).ids) == text


def test_the_byte_tokenizer_has_one_token_per_byte(tmp_path):
    from tokenizers import Tokenizer

    make_base_model("bytes", tmp_path, texts=[], format_strings=["\n"])
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    text = "naïve\n🌍"
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    assert len(ids) == len(text.encode())
    assert tokenizer.decode(ids) == text
    assert tokenizer.get_vocab_size() == 259


def test_a_folder_without_weights_is_refused_by_name(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match=r"missing tokenizer.json, model.safetensors .*; found config.json; save"):
        check_base_model(tmp_path)


def write_safetensors(path: Path, tensors: dict[str, tuple[int, int]], n_data: int) -> None:
    header = {
        name: {"dtype": "U8", "shape": [end - start], "data_offsets": [start, end]} for name, (start, end) in tensors.items()
    }
    raw = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    path.write_bytes(len(raw).to_bytes(8, "little") + raw + bytes(n_data))


@pytest.fixture
def users_folder(tmp_path) -> Path:
    """A folder as a user brings it: two shards, the second with two tensors."""
    (tmp_path / "config.json").write_text('{"model_type": "llama", "vocab_size": 300}')
    (tmp_path / "tokenizer.json").write_text('{"model": {"type": "BPE"}}')
    write_safetensors(tmp_path / "a.safetensors", {"w": (0, 4)}, 4)
    write_safetensors(tmp_path / "b.safetensors", {"y": (3, 5), "x": (0, 3)}, 5)
    index = {"weight_map": {"w": "a.safetensors", "x": "b.safetensors", "y": "b.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    return tmp_path


def test_a_whole_folder_passes(users_folder):
    check_base_model(users_folder)


def test_a_hidden_file_is_no_weight(users_folder):
    (users_folder / "._a.safetensors").write_bytes(b"a copying tool's own notes")
    check_base_model(users_folder)


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("config.json", "model_type: llama", r"it is not JSON \(.*\) and begins with b'model_type: llama'"),
        ("config.json", "[]", "it is a JSON list; expected a JSON object"),
        ("config.json", '{"vocab_size": 300}', "model_type = None; expected the architecture's name"),
        ("config.json", '{"model_type": "llama"}', "vocab_size = None; expected a number of tokens above 0"),
        ("config.json", '{"model_type": "llama", "vocab_size": "300"}', "vocab_size = '300'; expected a number"),
        ("tokenizer.json", "", r"it is not JSON \(.*\) and begins with b''"),
        ("tokenizer.json", '{"version": "1.0"}', "version, without an object `model`; expected a fast tokenizer's file"),
        ("model.safetensors.index.json", "{}", "weight_map = None; expected an object that gives each tensor's file"),
        (
            "model.safetensors.index.json",
            '{"weight_map": {"w": "a.safetensors", "x": "c.safetensors", "y": "../b.safetensors"}}',
            r"2 of 3 shards it names are not beside it \(../b.safetensors, c.safetensors\); expected every shard",
        ),
        (
            "model.safetensors.index.json",
            '{"weight_map": {"w": "a.safetensors", "z": "b.safetensors"}}',
            r"b.safetensors does not hold 'z' \(1 tensors in all\); expected every tensor",
        ),
    ],
    ids=[
        "config not JSON",
        "config no object",
        "no model_type",
        "no vocab_size",
        "vocab_size of another type",
        "tokenizer empty",
        "tokenizer without model",
        "index without map",
        "index with missing shards",
        "index with a missing tensor",
    ],
)
def test_a_wrong_json_file_is_refused_with_what_was_found_expected_and_the_remedy(users_folder, name, text, found):
    (users_folder / name).write_text(text)
    with pytest.raises(ModelError, match=f"{name}: {found}") as caught:
        check_base_model(users_folder)
    assert str(caught.value).startswith(f"base model file {users_folder / name}: ")
    assert "copy the file again, or save" in str(caught.value)


def header(text: str) -> bytes:
    return len(text).to_bytes(8, "little") + text.encode()


@pytest.mark.parametrize(
    ("raw", "found"),
    [
        (b"", r"0 bytes that begin with b''; expected safetensors"),
        (b"version https://git-lfs.github.com/spec/v1\n", r"43 bytes that begin with b'version '; expected safetensors"),
        (header("{}")[:-1], "9 bytes that begin with"),
        (header("no JSON at all"), r"its header is not JSON \(.*\) and begins with b'no JSON at all'; expected a JSON object"),
        (header("[1]"), "its header is a JSON list"),
        (header("{}"), "no tensors; expected the model's weights"),
        (header('{"w": {"data_offsets": [4, 0]}}'), r"tensor 'w' with data_offsets \[4, 0\]; expected two byte places"),
        (header('{"w": 1}'), "tensor 'w' with data_offsets None"),
        (
            header('{"w": {"data_offsets": [0, 4]}}') + bytes(3),
            r"3 bytes of data \(the file is cut\); expected 4, as its header says",
        ),
        (header('{"w": {"data_offsets": [0, 4]}}') + bytes(9), r"9 bytes of data \(something was appended\); expected 4"),
        (
            header('{"w": {"data_offsets": [0, 4]}, "x": {"data_offsets": [2, 6]}}') + bytes(6),
            "a tensor's data begins at byte 2, after byte 4; expected no gap, no overlap",
        ),
    ],
    ids=[
        "empty",
        "git-lfs pointer",
        "cut in the header",
        "junk header",
        "header no object",
        "no tensors",
        "offsets reversed",
        "no offsets",
        "cut in the data",
        "appended",
        "overlap",
    ],
)
def test_a_wrong_weights_file_is_refused_with_what_was_found_expected_and_the_remedy(users_folder, raw, found):
    (users_folder / "b.safetensors").write_bytes(raw)
    with pytest.raises(ModelError, match=f"b.safetensors: {found}.*; copy the file again, or save"):
        check_base_model(users_folder)


def test_the_maker_draws_no_progress_bar(made_by_a_child):
    assert "Writing model shards" not in (made_by_a_child.parent / "stderr.txt").read_text()


def test_an_unknown_model_is_refused(tmp_path):
    with pytest.raises(ModelError, match="'gpt9' is not defined; expected one of wordtraps, bytes"):
        make_base_model("gpt9", tmp_path, texts=[], format_strings=[])


def test_importing_the_module_loads_no_torch():
    code = (
        "import sys, negtraj_dagster.modeling, negtraj_dagster.launch, negtraj_dagster.progress, negtraj_dagster.reports.stats;"
        "assert not {'torch', 'transformers', 'tokenizers', 'dagster_pipes'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=REPOSITORY)
