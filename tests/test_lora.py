"""LoRA: engine, trainer and merged model are one policy, adapters alone learn, and runs go on exactly."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from test_preference_rounds import BASE, back_to, ending_model, train
from test_train import Vowels
from twins import write_qwen25_twin

from ludus.agents.config import LoraConfig, ModelConfig, TinyModel
from ludus.agents.engine import Sampling
from ludus.agents.lora import LoraError, adapter_weights, add_lora, save_adapters, save_merged, weight_of
from ludus.agents.model import ModelError, copy_trained, create_tiny_model, load_model, load_tokenizer, prepare_model
from ludus.agents.torch_engine import TorchEngine
from ludus.envs.task import Task
from ludus.evaluate import evaluate_model
from ludus.recipe import RecipeError, make_recipe
from ludus.trainers.checkpoint import CheckpointError, list_checkpoints, load_weights, save_weights
from ludus.trainers.config import OptimizerConfig
from ludus.trainers.critic import Critic
from ludus.trainers.optimizer import build_optimizer

pytest.importorskip("peft", reason="peft is in the extra 'lora'")

SHAPE = TinyModel(hidden_size=32, layers=2, heads=4, kv_heads=2, intermediate_size=48, initializer_range=0.2)
PROMPT = list(range(10, 25))


def learnt(model: Any, seed: int = 0) -> Any:
    """The model with adapters that compute something: B begins as zeros."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in adapter_weights(model).values():
            tensor.copy_(0.2 * torch.randn(tensor.shape, generator=generator))
    return model


def adapted(seed: int = 0, **lora: Any) -> tuple[Any, Any]:
    model, tokenizer = create_tiny_model(SHAPE, seed)
    add_lora(model, LoraConfig(rank=3, **lora), seed)
    return model, tokenizer


@torch.no_grad()
def logits(model: Any, ids: list[int] = PROMPT) -> torch.Tensor:
    return model(input_ids=torch.tensor([ids])).logits[0]


# --- one policy ----------------------------------------------------------------------------------------------------


def test_new_adapters_change_nothing_and_alone_are_trained() -> None:
    plain, _ = create_tiny_model(SHAPE, 0)
    model, _ = adapted()
    assert torch.equal(logits(model), logits(plain))
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained and all(".lora_" in name for name in trained)
    assert len(trained) == 2 * 7 * SHAPE.layers == len(adapter_weights(model))
    again, _ = adapted()
    other, _ = create_tiny_model(SHAPE, 0)
    add_lora(other, LoraConfig(rank=3), 1)
    for name, tensor in adapter_weights(model).items():
        assert torch.equal(tensor, adapter_weights(again)[name])
        assert torch.equal(tensor, adapter_weights(other)[name]) == ("lora_B" in name)


@pytest.mark.parametrize("targets", [("all-linear",), ("q_proj", "down_proj")])
def test_the_engine_serves_what_the_model_with_its_adapters_computes(targets: tuple[str, ...]) -> None:
    model, tokenizer = adapted(targets=targets)
    engine = TorchEngine(model, tokenizer, slots=16, max_length=64)
    learnt(model)
    engine.load_weights(model, 1)
    found = asyncio.run(engine.generate(PROMPT, Sampling(max_tokens=12, seed=2)))
    expected = torch.log_softmax(logits(model, [*PROMPT, *found.token_ids])[len(PROMPT) - 1 : -1], -1)
    sampled = expected.gather(1, torch.tensor(found.token_ids)[:, None])[:, 0].tolist()
    assert found.logprobs == pytest.approx(sampled, abs=1e-4)
    plain, _ = create_tiny_model(SHAPE, 0)
    assert (logits(plain) - logits(model)).abs().max() > 0.1, "else the adapters could be left out"


def test_a_layer_s_weight_is_w_and_alpha_over_rank_b_a() -> None:
    model, _ = adapted(alpha=6.0)
    learnt(model)
    layer = model.model.layers[1].mlp.up_proj
    b, a = layer.lora_B["default"].weight, layer.lora_A["default"].weight
    torch.testing.assert_close(weight_of(layer), layer.base_layer.weight + 2.0 * b @ a)
    assert weight_of(model.lm_head) is not None and torch.equal(weight_of(model.lm_head), model.lm_head.weight)


def test_saved_adapters_and_the_merged_model_load_as_the_same_policy(tmp_path: Path) -> None:
    from peft import AutoPeftModelForCausalLM
    from transformers import AutoModelForCausalLM

    twin = write_qwen25_twin(tmp_path / "twin")  # its output layer is its embedding
    model, tokenizer = prepare_model(ModelConfig(path=str(twin), lora=LoraConfig(rank=4)), 0, "cpu")
    learnt(model)
    save_adapters(model, tmp_path)
    save_merged(model, tmp_path / "merged")
    merged, report = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    assert merged.config.tie_word_embeddings
    ours, its_tokenizer = load_model(str(tmp_path))
    assert its_tokenizer.get_vocab() == tokenizer.get_vocab() == load_tokenizer(str(tmp_path)).get_vocab()
    assert not any(".lora_" in name for name, _ in ours.named_parameters())
    for other in (merged, ours, AutoPeftModelForCausalLM.from_pretrained(tmp_path)):
        torch.testing.assert_close(logits(other.eval()), logits(model), atol=1e-5, rtol=1e-4)
    size = (tmp_path / "adapter_model.safetensors").stat().st_size
    assert size < (tmp_path / "merged" / "model.safetensors").stat().st_size / 2


def test_adapters_can_be_trained_on_top_of_adapters(tmp_path: Path) -> None:
    twin, config = write_qwen25_twin(tmp_path / "twin"), LoraConfig(rank=4)
    below, tokenizer = prepare_model(ModelConfig(path=str(twin), lora=config), 0, "cpu")
    save_adapters(learnt(below), tmp_path / "below")
    above, _ = prepare_model(ModelConfig(path=str(tmp_path / "below"), lora=config), 0, "cpu")
    torch.testing.assert_close(logits(above), logits(below), atol=1e-5, rtol=1e-4)
    save_adapters(learnt(above, seed=1), tmp_path / "above")
    found, its_tokenizer = load_model(str(tmp_path / "above"))
    torch.testing.assert_close(logits(found), logits(above), atol=1e-5, rtol=1e-4)
    assert its_tokenizer.get_vocab() == tokenizer.get_vocab()


def test_copies_share_the_frozen_weights_and_have_adapters_of_their_own() -> None:
    model, _ = adapted()
    reference, critic = copy_trained(learnt(model)), Critic(model)
    before = logits(reference)
    learnt(model, seed=5)
    assert torch.equal(logits(reference), before) and not torch.equal(logits(model), before)
    own = {p.data_ptr() for p in model.parameters()}
    for copy in (reference, critic):
        for name, p in copy.named_parameters():
            assert (p.data_ptr() in own) != p.requires_grad, name
    assert set(critic.trained_state()) == {name for name, p in critic.named_parameters() if p.requires_grad}


def test_gradient_checkpointing_changes_no_gradient() -> None:
    found = []
    for checkpointing in (False, True):
        config = ModelConfig(tiny=SHAPE, lora=LoraConfig(rank=3), gradient_checkpointing=checkpointing)
        model, _ = prepare_model(config, 0, "cpu")
        learnt(model).train()
        model(input_ids=torch.tensor([PROMPT]), use_cache=False).logits.logsumexp(-1).sum().backward()
        found.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert len(found[0]) == 2 * 7 * SHAPE.layers and found[0].keys() == found[1].keys()
    for name, gradient in found[0].items():
        assert gradient.abs().max() > 0
        torch.testing.assert_close(gradient, found[1][name])


# --- whole runs ----------------------------------------------------------------------------------------------------


class Shown(Vowels):
    """Vowels that can be demonstrated."""

    def demonstrate(self, task: Task, rng: np.random.Generator, flaw_rate: float = 0.0) -> list[str]:
        return ["".join(rng.choice(list("aeioubcdfg"), size=4))]


gymnasium.register(id="test/Adapted-v0", entry_point=Shown)
POLICY = {"steps": 4, "groups": 4, "group_size": 3, "optimizer": {"lr": 0.01}}
RUNS: dict[str, dict[str, Any]] = {
    "sft": {
        "envs": [{"name": "test/Adapted-v0"}],
        "sft": {"steps": 4, "batch_size": 4, "demonstrations": 16, "optimizer": {"lr": 0.01}},
        "policy": POLICY,
    },
    "ppo": {"policy": {**POLICY, "algorithm": "ppo"}},
    "renewed": {"policy": {**POLICY, "reference_every": 1, "options": {"kl_coef": 0.1}}},
    "trpo": {"policy": {**POLICY, "algorithm": "trpo", "options": {"critic": False}}},
    "star": {
        "star": {"rounds": 3, "groups": 6, "group_size": 2, "steps": 2, "rationalise": False},
        "preference": {"steps": 3, "groups": 4, "group_size": 6},
        "policy": {**POLICY, "steps": 1},
    },
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that ends its turns."""
    place = tmp_path_factory.mktemp("model")
    for part in ending_model():
        part.save_pretrained(place)
    return place


def adapters(run: Path) -> dict[str, torch.Tensor]:
    return load_file(list_checkpoints(run / "checkpoints")[-1].path / "adapter_model.safetensors")


@pytest.mark.parametrize(
    ("name", "stop"),
    [
        ("sft", "sft-000002"),
        ("sft", "policy-000002"),
        ("ppo", "policy-000002"),
        ("renewed", "policy-000002"),
        ("trpo", "policy-000002"),
        ("star", "star-000002"),
        ("star", "preference-000002"),
    ],
)
def test_a_run_that_stopped_ends_with_the_adapters_of_one_that_did_not(
    name: str, stop: str, base: Path, tmp_path: Path
) -> None:
    model = {"path": str(base), "lora": {"rank": 4, "alpha": 8.0}}
    recipe = make_recipe({**BASE, "model": model, **RUNS[name]}, "small.yaml")
    whole = tmp_path / "whole"
    train(recipe, whole)
    again = back_to(whole, stop, tmp_path / "again")
    train(recipe, again, resume=True)
    assert all(torch.equal(tensor, adapters(whole)[key]) for key, tensor in adapters(again).items())
    first, last = adapters(whole), list_checkpoints(whole / "checkpoints")[0].path / "adapter_model.safetensors"
    assert any(not torch.equal(tensor, first[key]) for key, tensor in load_file(last).items()), "something was learnt"
    if name == "renewed":
        state = list_checkpoints(whole / "checkpoints")[-1].state()
        assert state["reference"].keys() == adapters(whole).keys()
    rows = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    assert all(abs(row["kl_sampler"]) < 1e-4 for row in rows if "kl_sampler" in row)
    measured = [row["kl_reference"] for row in rows if "kl_reference" in row]
    if name == "sft":
        # The reference is the policy as the supervised start left it, not the base.
        assert abs(measured[0]) < 1e-6 < 1e-4 < abs(measured[-1])
    saved = load_file(whole / "model" / "model.safetensors")
    plain = load_file(base / "model.safetensors")
    assert saved.keys() == plain.keys()
    changed = {key for key in plain if not torch.equal(plain[key], saved[key])}
    assert changed and all("_proj.weight" in key for key in changed)


def test_a_model_made_on_the_spot_is_kept_below_its_adapters(tmp_path: Path) -> None:
    tiny = {"hidden_size": 32, "layers": 1, "heads": 2, "kv_heads": 1, "intermediate_size": 64}
    recipe = make_recipe(
        {**BASE, "model": {"tiny": tiny, "lora": {}}, "policy": {**POLICY, "steps": 2}}, "small.yaml"
    )  # fmt: skip
    train(recipe, tmp_path / "first")
    run = (tmp_path / "first").rename(tmp_path / "moved")
    kept, _ = load_model(str(run / "checkpoints" / "base"))
    original, _ = create_tiny_model(recipe.model.tiny, recipe.seed)
    assert all(torch.equal(tensor, kept.state_dict()[key]) for key, tensor in original.state_dict().items())
    settings: dict[str, Any] = {"tasks": 6, "max_tokens": 8, "temperature": 1.0, "seed": 3}
    by_adapters, by_merged = (evaluate_model("test/Vowels-v0", str(p), **settings) for p in (run, run / "model"))
    said = [[e.trajectories[0].token_ids for e in result.episodes] for result in (by_adapters, by_merged)]
    assert said[0] == said[1] and by_adapters.accuracy == by_merged.accuracy


# --- what is refused -----------------------------------------------------------------------------------------------


def test_targets_that_are_no_linear_layers_are_named() -> None:
    model, _ = create_tiny_model(SHAPE, 0)
    for wrong in ("q_prj", "lm_head", "embed_tokens", "q_pro"):
        with pytest.raises(LoraError, match=f"targets has '{wrong}'.* are down_proj, gate_proj, .*; choose of these"):
            add_lora(model, LoraConfig(targets=("q_proj", wrong)), 0)
    with pytest.raises(LoraError, match="targets has 'foo'"):
        add_lora(model, LoraConfig(targets=("all-linear", "foo")), 0)
    assert all(p.requires_grad for p in model.parameters())


def test_one_target_may_stand_alone() -> None:
    model = {"tiny": {}, "lora": {"targets": "all-linear"}}
    recipe = make_recipe({**BASE, "model": model, "policy": {"steps": 1}}, "small.yaml")
    assert recipe.model.lora == LoraConfig()


@pytest.mark.parametrize(
    ("lora", "sentence"),
    [
        ({"rank": 0}, "model.lora.rank = 0 must be greater than 0"),
        ({"alpha": -1.0}, "model.lora.alpha = -1.0 must be greater than 0.0"),
        ({"targets": []}, "model.lora.targets: name at least one layer"),
        ({"targets": [3]}, "model.lora.targets.0 = 3 must be text"),
        ({"targets": 3}, "model.lora.targets = 3 must be a list"),
        ({"dropout": 0.1}, "model.lora.dropout is not a known key"),
    ],
)
def test_settings_that_make_no_sense_are_refused(lora: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RecipeError) as error:
        make_recipe({**BASE, "model": {"tiny": {}, "lora": lora}, "policy": {"steps": 1}}, "small.yaml")
    assert sentence in str(error.value)


@pytest.mark.parametrize("key", ["optimizer", "critic"])
def test_muon_is_refused_beside_adapters(key: str) -> None:
    section: dict[str, Any] = {"muon_lr": 0.02}
    policy = {"steps": 1, key: section if key == "optimizer" else {"optimizer": section}}
    model = {"tiny": {"max_length": 1024}, "lora": {}}
    with pytest.raises(RecipeError, match=r"optimizer\.muon_lr = 0\.02 is for whole matrices.*leave it out"):
        make_recipe({**BASE, "model": model, "policy": policy}, "small.yaml")
    optimizer = build_optimizer(adapted()[0], OptimizerConfig())
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 2 * 7 * SHAPE.layers


def test_another_learner_is_refused_beside_adapters() -> None:
    star = {"rounds": 1, "steps": 1, "learner": "other"}
    with pytest.raises(RecipeError, match=r"star\.learner puts another model.*leave one of them out"):
        make_recipe({**BASE, "model": {"tiny": {}, "lora": {}}, "star": star}, "small.yaml")


def test_without_peft_the_install_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(LoraError, match=r"pip install 'ludus\[lora\]'"):
        adapted()


def test_adapters_of_another_rank_or_without_a_base_are_refused(tmp_path: Path) -> None:
    model, _ = adapted()
    save_weights(model, tmp_path)
    other, _ = create_tiny_model(SHAPE, 0)
    add_lora(other, LoraConfig(rank=2), 0)
    with pytest.raises(CheckpointError, match="another shape"):
        load_weights(other, tmp_path)
    with pytest.raises(ModelError, match="is not a directory"):  # the base of a model made on the spot is beside it
        load_model(str(tmp_path))
    for text in ("{}", "not JSON", '{"base_model_name_or_path": null}'):
        (tmp_path / "adapter_config.json").write_text(text)
        with pytest.raises(LoraError, match="does not say to which model its adapters belong"):
            load_model(str(tmp_path))
