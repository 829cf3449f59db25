"""Models: tiny ones made on the spot, others from a directory, and one sentence for what is no model."""

from __future__ import annotations

import json
import shutil
import string
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, GPT2Config, GPTNeoXConfig, OPTConfig, Qwen2Config
from twins import write_qwen25_twin

from ludus.agents.config import ModelConfig, TinyModel
from ludus.agents.model import ModelError, character_tokenizer, create_tiny_model, load_model, prepare_model
from ludus.sandbox.errors import LudusError

SHAPE = TinyModel(hidden_size=32, layers=2, heads=2, kv_heads=1, intermediate_size=64)
PRINTABLE = "".join(c for c in string.printable if c == "\n" or c.isprintable())


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_qwen25_twin(tmp_path_factory.mktemp("twin"))


def copy_of(folder: Path, place: Path) -> Path:
    return Path(shutil.copytree(folder, place / "model"))


# The character tokenizer


@given(st.text(PRINTABLE, max_size=60))
def test_every_printable_character_is_one_token_and_comes_back(text: str) -> None:
    tokenizer = character_tokenizer()
    # Hypothesis also tries strings that it finds in the source, and a role's token spelled out is that one token.
    assume(not any(token in text for token in tokenizer.all_special_tokens))
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert len(ids) == len(text)
    assert tokenizer.decode(ids) == text


@given(st.lists(st.sampled_from(["<sum>", "</sum>", "<", "sum>", "a", " ", "1"]), max_size=12))
def test_a_tag_is_one_token_and_comes_back(pieces: list[str]) -> None:
    tokenizer, text = character_tokenizer(("<sum>", "</sum>")), "".join(pieces)
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert tokenizer.decode(ids) == text
    tags = text.count("<sum>") + text.count("</sum>")
    assert len(ids) == len(text) - 4 * text.count("<sum>") - 5 * text.count("</sum>")
    assert sum(i in tokenizer.convert_tokens_to_ids(["<sum>", "</sum>"]) for i in ids) == tags


@pytest.mark.parametrize("text", ["ä", "日本", "\t", "😀"])
def test_other_characters_become_the_unknown_token(text: str) -> None:
    tokenizer = character_tokenizer()
    unknown = tokenizer.convert_tokens_to_ids("<|unknown|>")
    assert tokenizer.encode(f"a{text}b", add_special_tokens=False)[1:-1] == [unknown] * len(text)


def test_the_template_is_a_role_token_the_text_and_the_end() -> None:
    tokenizer = character_tokenizer()
    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert text == "<|system|>s<|end|><|user|>q<|end|><|assistant|>"
    assert len(tokenizer.encode(text, add_special_tokens=False)) == 3 + 3 + 1
    assert tokenizer.eos_token == "<|end|>"


# Tiny models


def test_a_tiny_model_has_the_shape_that_was_asked_for() -> None:
    model, tokenizer = create_tiny_model(SHAPE, 0)
    config = model.config
    assert (config.model_type, config.hidden_size, config.num_hidden_layers) == ("qwen2", 32, 2)
    assert (config.num_attention_heads, config.num_key_value_heads, config.intermediate_size) == (2, 1, 64)
    assert model.lm_head.weight is not model.model.embed_tokens.weight, "untied"
    assert config.vocab_size == len(tokenizer) == model.lm_head.weight.shape[0]
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert not model.training


def test_the_default_tiny_model_has_one_to_two_million_parameters() -> None:
    model, _ = create_tiny_model(TinyModel(), 0)
    assert 0.5e6 < sum(p.numel() for p in model.parameters()) < 2e6


def test_the_same_seed_makes_the_same_weights_and_another_makes_others() -> None:
    first, again, other = (create_tiny_model(SHAPE, seed)[0].state_dict() for seed in (4, 4, 5))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["lm_head.weight"], other["lm_head.weight"])


def test_making_a_model_leaves_torch_s_own_generator_alone() -> None:
    before = torch.random.get_rng_state()
    create_tiny_model(SHAPE, 7)
    assert torch.equal(before, torch.random.get_rng_state())


def test_the_initial_weights_have_the_spread_that_was_asked_for() -> None:
    model, _ = create_tiny_model(SHAPE.model_copy(update={"initializer_range": 0.3}), 0)
    assert model.lm_head.weight.std().item() == pytest.approx(0.3, rel=0.05)


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_tokens_begin_by_attending_to_their_like_and_predicting_what_they_attend_to(kv_heads: int) -> None:
    model, _ = create_tiny_model(TinyModel(hidden_size=64, layers=3, heads=4, kv_heads=kv_heads), 0)
    groups = 4 // kv_heads
    attention = model.model.layers[1].self_attn
    queries = attention.q_proj.weight.view(4, 16, 64)
    assert torch.equal(queries[::groups], attention.k_proj.weight.view(kv_heads, 16, 64))
    # What all heads pass on of one token: a projection onto the space of the values, scaled like the layers' outputs.
    values = attention.v_proj.weight.view(kv_heads, 16, 64).repeat_interleave(groups, 0).flatten(0, 1)
    passed = attention.o_proj.weight @ values
    torch.testing.assert_close(passed @ passed, passed * 6**-0.5, atol=1e-5, rtol=0)
    assert torch.linalg.matrix_rank(passed, atol=1e-3) == 16 * kv_heads
    assert torch.equal(model.lm_head.weight, model.model.embed_tokens.weight)
    assert model.lm_head.weight.data_ptr() != model.model.embed_tokens.weight.data_ptr()


# From a directory


def test_a_saved_model_loads_with_its_weights_and_its_template(tmp_path: Path) -> None:
    model, tokenizer = create_tiny_model(SHAPE.model_copy(update={"tags": ("<sum>",)}), 3)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    loaded, its_tokenizer = load_model(str(tmp_path))
    assert all(torch.equal(tensor, loaded.state_dict()[name]) for name, tensor in model.state_dict().items())
    text = "<|user|>1<sum>2 = 3\n<|end|>"
    assert its_tokenizer.encode(text) == tokenizer.encode(text)
    assert its_tokenizer.decode(tokenizer.encode(text)) == text
    assert its_tokenizer.chat_template == tokenizer.chat_template
    assert its_tokenizer.eos_token_id == tokenizer.eos_token_id


def test_any_text_has_the_same_tokens_after_saving_and_loading(tmp_path: Path) -> None:
    model, tokenizer = create_tiny_model(SHAPE.model_copy(update={"tags": ("<sum>", "</sum>")}), 3)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    loaded = load_model(str(tmp_path))[1]

    pieces = st.lists(st.sampled_from([" <sum>", "</sum> ", " ", "\n", "é"])).map("".join)

    @given(st.one_of(st.text(PRINTABLE), st.text(), pieces))
    def same(text: str) -> None:
        ids = tokenizer.encode(text, add_special_tokens=False)
        assert loaded.encode(text, add_special_tokens=False) == ids
        assert loaded.decode(ids) == tokenizer.decode(ids)

    same()
    assert loaded is not tokenizer


def test_transformers_alone_reads_printable_text_as_ludus_does(tmp_path: Path) -> None:
    """Whoever takes a checkpoint elsewhere uses AutoTokenizer, which thinks of Qwen2 models in its own way."""
    from transformers import AutoTokenizer

    model, tokenizer = create_tiny_model(SHAPE.model_copy(update={"tags": ("<sum>", "</sum>")}), 3)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    for text in (
        PRINTABLE,
        "  two  spaces\n\nand I'm <sum>1 + 2</sum> 3,000.50 $ ",
        "<|user|> a \n<|end|><|assistant|>",
    ):
        assert theirs.encode(text, add_special_tokens=False) == tokenizer.encode(text, add_special_tokens=False)
        assert theirs.decode(theirs.encode(text)) == text


def test_tied_weights_stay_tied_and_are_float32(twin: Path) -> None:
    model, _ = load_model(str(twin))
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_another_chat_template_takes_the_place_of_the_model_s_own(twin: Path, tmp_path: Path) -> None:
    template = tmp_path / "template.jinja"
    template.write_text("{{ messages[0]['content'] }}<|im_end|>", encoding="utf-8")
    _, tokenizer = prepare_model(ModelConfig(path=str(twin), chat_template=str(template)), 0, "cpu")
    assert tokenizer.apply_chat_template([{"role": "user", "content": "q"}], tokenize=False) == "q<|im_end|>"


def test_the_seed_and_the_device_of_a_recipe_reach_the_model() -> None:
    model, _ = prepare_model(ModelConfig(tiny=SHAPE), 4, "cpu")
    assert torch.equal(model.lm_head.weight, create_tiny_model(SHAPE, 4)[0].lm_head.weight)
    assert model.device.type == "cpu"
    auto, _ = prepare_model(ModelConfig(tiny=SHAPE), 4, "auto")
    assert auto.device.type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_gradient_checkpointing_is_switched_on_where_it_is_asked_for() -> None:
    plain, _ = prepare_model(ModelConfig(tiny=SHAPE), 0, "cpu")
    saving, _ = prepare_model(ModelConfig(tiny=SHAPE, gradient_checkpointing=True), 0, "cpu")
    assert (plain.is_gradient_checkpointing, saving.is_gradient_checkpointing) == (False, True)


# What is no model


def one_sentence(error: pytest.ExceptionInfo[LudusError]) -> str:
    text = str(error.value)
    assert text and "\n" not in text
    return text


@pytest.mark.parametrize(
    "config",
    [
        GPT2Config(n_embd=32, n_layer=2, n_head=2, resid_pdrop=0.3, embd_pdrop=0.3, attn_pdrop=0.3),
        OPTConfig(
            hidden_size=32, num_hidden_layers=2, num_attention_heads=2, ffn_dim=48, word_embed_proj_dim=32,
            dropout=0.3, attention_dropout=0.3,
        ),
        GPTNeoXConfig(
            hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48, hidden_dropout=0.3,
            attention_dropout=0.3,
        ),
        Qwen2Config(
            hidden_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2, intermediate_size=48,
            attention_dropout=0.3,
        ),
    ],
    ids=lambda config: config.model_type,
)  # fmt: skip
def test_a_model_with_dropout_is_trained_without(config: Any, tmp_path: Path) -> None:
    """It computes the same in training as in evaluation; its configuration keeps what it says."""
    tokenizer = character_tokenizer()
    config.vocab_size = len(tokenizer)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    ids = torch.arange(5, 25)[None]
    as_it_was, _ = load_model(str(tmp_path))
    assert not torch.allclose(as_it_was.train()(input_ids=ids).logits, as_it_was.eval()(input_ids=ids).logits)
    model, _ = prepare_model(ModelConfig(path=str(tmp_path)), 0, "cpu")
    assert torch.equal(model.train()(input_ids=ids).logits, model.eval()(input_ids=ids).logits)
    assert 0.3 in model.config.to_dict().values()


def test_a_gpu_that_is_not_there_is_one_sentence() -> None:
    if torch.cuda.is_available():
        assert prepare_model(ModelConfig(tiny=SHAPE), 0, "cuda")[0].device.type == "cuda"
        return
    with pytest.raises(ModelError, match="PyTorch sees no GPU; set device: cpu"):
        prepare_model(ModelConfig(tiny=SHAPE), 0, "cuda")


def test_a_path_that_is_no_model_directory_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("not a model")
    for name, says in (("gone", "is not a directory"), ("file", "is not a directory"), ("empty", "has no config.json")):
        with pytest.raises(ModelError, match=says) as caught:
            load_model(str(tmp_path / name))
        assert one_sentence(caught).startswith(str(tmp_path / name))


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "tokenizer.json"])
@pytest.mark.parametrize("fault", ["torn", "missing", "no JSON"])
def test_a_damaged_model_directory_is_one_sentence(twin: Path, tmp_path: Path, file: str, fault: str) -> None:
    model = copy_of(twin, tmp_path)
    if fault == "torn":
        (model / file).write_bytes((model / file).read_bytes()[:100])
    elif fault == "missing":
        (model / file).unlink()
        (model / "tokenizer_config.json").unlink(missing_ok=True)
    else:
        (model / file).write_text("<html>404</html>")
    with pytest.raises(ModelError) as caught:
        load_model(str(model))
    assert str(model) in one_sentence(caught)


def test_a_model_that_lacks_weights_is_one_sentence(twin: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    model = copy_of(twin, tmp_path)
    weights = load_file(model / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks 1 weights, such as model\.layers\.1\.mlp\.up_proj\.weight") as caught:
        load_model(str(model))
    assert one_sentence(caught)


def test_an_architecture_that_nobody_knows_is_one_sentence(twin: Path, tmp_path: Path) -> None:
    model = copy_of(twin, tmp_path)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "model_type": "qwen99"}))
    with pytest.raises(ModelError, match="qwen99") as caught:
        load_model(str(model))
    assert one_sentence(caught)


def test_weights_of_another_shape_than_the_config_says_are_one_sentence(twin: Path, tmp_path: Path) -> None:
    model = copy_of(twin, tmp_path)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "intermediate_size": 96}))
    with pytest.raises(ModelError) as caught:
        load_model(str(model))
    assert str(model) in one_sentence(caught)


def test_a_chat_template_that_is_not_there_is_one_sentence(twin: Path, tmp_path: Path) -> None:
    config = ModelConfig(path=str(twin), chat_template=str(tmp_path / "none.jinja"))
    with pytest.raises(LudusError, match=r"none\.jinja") as caught:
        prepare_model(config, 0, "cpu")
    assert one_sentence(caught)
