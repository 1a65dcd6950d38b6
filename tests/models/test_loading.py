"""Loading, promises:

1. A folder or GGUF file gives the model and tokenizer that were saved.
2. Missing, damaged or incomplete files are one line for the user; no weight is ever drawn at random instead.
"""

import json
import shutil

import gguf
import pytest
import torch
from safetensors.torch import load_file, save_file

from actfocus.config import ModelConfig
from actfocus.errors import ModelError
from actfocus.models.loading import load, skeleton
from tests.fixtures import fresh_tokenizer, lively_weights, random_ids

QUERY = "model.layers.1.self_attn.q_proj.weight"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("saved")
    lively_weights().save_pretrained(path)
    fresh_tokenizer().save_pretrained(path)
    return path


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "model")


def logits(model):
    with torch.no_grad():
        return model(random_ids(300, 2, 12), use_cache=False).logits


def test_a_saved_folder_loads_bit_for_bit(folder):
    model, chat = load(ModelConfig(name=str(folder)))
    assert torch.equal(logits(model.model), logits(lively_weights()))
    assert chat.tokenizer.get_vocab() == fresh_tokenizer().get_vocab()
    assert chat.opening("a", "b") == load(ModelConfig(), path=folder)[1].opening("a", "b")
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())


def test_a_folder_in_the_home_directory(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder.parent))
    load(ModelConfig(name="~/model"))


def test_a_skeleton_has_the_shape_and_no_weights(folder):
    found = skeleton(ModelConfig(name=str(folder)))
    assert {p.device.type for p in found.parameters()} == {"meta"}
    assert sum(p.numel() for p in found.parameters()) == sum(p.numel() for p in lively_weights().parameters())
    adapters = skeleton(ModelConfig(name=str(folder), lora_rank=2))
    loaded = load(ModelConfig(name=str(folder), lora_rank=2))[0]
    trained = [tuple(p.shape) for p in adapters.parameters() if p.requires_grad]
    assert trained == [tuple(p.shape) for p in loaded.parameters()]


def change_weights(folder, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


DAMAGE = {
    "truncated": lambda f: (f / "model.safetensors").write_bytes(
        (f / "model.safetensors").read_bytes()[:-1000]
    ),
    "header": lambda f: (f / "model.safetensors").write_bytes(b"\xff" * 1000),
    "empty": lambda f: (f / "model.safetensors").write_bytes(b""),
    "no weights": lambda f: (f / "model.safetensors").unlink(),
    "config": lambda f: (f / "config.json").write_text("{"),
    "no tokenizer": lambda f: [path.unlink() for path in f.glob("token*")],
    "unknown type": lambda f: (f / "config.json").write_text('{"model_type": "xyzzy"}'),
    "one missing": lambda f: change_weights(f, lambda tensors: tensors.pop(QUERY)),
    "one misshapen": lambda f: change_weights(f, lambda tensors: tensors.update({QUERY: torch.zeros(3, 3)})),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damaged_files_are_one_line(folder, kind):
    DAMAGE[kind](folder)
    with pytest.raises(ModelError) as caught:
        load(ModelConfig(name=str(folder)))
    message = str(caught.value)
    assert message.startswith(f"cannot load the model {folder}: ") and "\n" not in message
    if kind.startswith("one"):
        assert QUERY in message


def test_weights_that_are_not_finite_are_refused(folder):
    change_weights(folder, lambda tensors: tensors["model.norm.weight"].fill_(float("nan")))
    with pytest.raises(ModelError, match="not finite"):
        load(ModelConfig(name=str(folder)))


# GGUF. --------------------------------------------------------------------------------------------------


def interleaved(weight, heads):
    """Query and key rows in the order of GGUF's rotary embedding."""
    return weight.reshape(heads, 2, -1, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)


def write_gguf(path, model, tokenizer):
    config = model.config
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(config.vocab_size)
    tokens = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    special = {"<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"}
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token in special else 1 for token in tokens])
    writer.add_token_merges([f"{a} {b}" for a, b in merges(tokenizer)])
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_bos_token_id(tokenizer.eos_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight":
            continue
        if "q_proj" in name:
            tensor = interleaved(tensor, config.num_attention_heads)
        if "k_proj" in name:
            tensor = interleaved(tensor, config.num_key_value_heads)
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight",)), tensor.contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def merges(tokenizer):
    return json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]


def test_a_gguf_file_loads(tmp_path):
    path = tmp_path / "model.gguf"
    write_gguf(path, lively_weights(), fresh_tokenizer())
    model, chat = load(ModelConfig(name=str(path)))
    torch.testing.assert_close(logits(model.model), logits(lively_weights()), rtol=1e-4, atol=1e-4)
    assert {p.device.type for p in skeleton(ModelConfig(name=str(path))).parameters()} == {"meta"}
    assert chat.end_ids == {fresh_tokenizer().eos_token_id}
    assert chat.decode(chat.encode_reply("Down || Left 🙂"))[0] == "Down || Left 🙂"


def test_a_model_from_a_gguf_file_can_be_saved_and_read_again(tmp_path):
    """As every warm start and every checkpoint does."""
    path = tmp_path / "model.gguf"
    write_gguf(path, lively_weights(), fresh_tokenizer())
    model, chat = load(ModelConfig(name=str(path)))
    model.model.save_pretrained(tmp_path / "saved")
    chat.tokenizer.save_pretrained(tmp_path / "saved")
    again, _ = load(ModelConfig(name=str(tmp_path / "saved")))
    assert torch.equal(logits(again.model), logits(model.model))


def test_a_damaged_gguf_file_is_one_line(tmp_path):
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF" + b"\xff" * 100)
    with pytest.raises(ModelError) as caught:
        load(ModelConfig(name=str(path)))
    assert str(caught.value).startswith(f"cannot load the model {path}: ") and "\n" not in str(caught.value)
