"""Mixtures of experts served by vLLM: their weights, the experts that it says it chose, and a run that learns so."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mixture import CHOSEN, LAYERS, mixture, own_choice
from test_expert_replay import batch_of
from test_vllm_engine import PROMPT, generate
from tied_model import its_tokenizer, varied
from transformers import PreTrainedModel

from ludus.agents.engine import EXPERT_TYPE, Completion, EngineError, Sampling, StopReason
from ludus.agents.trajectory import Trajectory
from ludus.agents.vllm_engine import VLLMEngine
from ludus.agents.weights import TransferError
from ludus.run_folder import read_metrics
from ludus.trainers.expert_replay import ExpertReplay
from ludus.trainers.scoring import score

pytestmark = [pytest.mark.vllm, pytest.mark.slow]
VOCABULARY = len(its_tokenizer())


def served(family: str = "qwen3", **options: Any) -> tuple[PreTrainedModel, VLLMEngine]:
    model = mixture(family, vocab_size=VOCABULARY)
    return model, VLLMEngine(model, its_tokenizer(), slots=8, max_length=160, threads=1, keep_routing=True, **options)


@pytest.fixture(scope="module")
def engine(vllm: Any) -> Iterator[VLLMEngine]:
    _, found = served()
    with found:
        yield found


@pytest.fixture
def model(engine: VLLMEngine) -> PreTrainedModel:
    """The one that is served."""
    found = mixture(vocab_size=VOCABULARY)
    engine.load_weights(found, 0)
    return found


def told(completion: Completion) -> torch.Tensor:
    """The experts, [T, layers, K]."""
    assert completion.experts is not None
    rows = [np.frombuffer(one, EXPERT_TYPE).astype(np.int64) for one in completion.experts]
    return torch.from_numpy(np.stack(rows)).view(-1, LAYERS, CHOSEN)


def same_choice(completion: Completion, model: PreTrainedModel, prompt: list[int] = PROMPT) -> bool:
    """Whether all tokens but the last, which nobody read, have the experts that the model itself would choose."""
    tokens, found = [*prompt, *completion.token_ids], told(completion)
    assert len(tokens) - 1 <= len(found) <= len(tokens)
    own = own_choice(model, tokens)[: len(tokens) - 1]
    return torch.equal(found[: len(own)].sort(-1)[0], own.sort(-1)[0])


class TestExperts:
    def test_are_those_that_the_model_itself_would_choose(self, engine: VLLMEngine, model: PreTrainedModel) -> None:
        """Of many requests at once, more than there are slots, each with its own length."""
        samplings = [Sampling(max_tokens=4 + 3 * seed, seed=seed) for seed in range(20)]
        found = generate(engine, *samplings)
        assert all(same_choice(one, model) for one in found)
        assert len({tuple(told(one)[:, 0, 0].tolist()) for one in found}) > 10

    def test_however_a_turn_ends(self, engine: VLLMEngine, model: PreTrainedModel) -> None:
        letters = its_tokenizer().decode(list(range(20, 40)))
        ways = [Sampling(max_tokens=3), Sampling(max_tokens=150), Sampling(max_tokens=150, stop=tuple(letters))]
        found = [generate(engine, way)[0] for way in ways]
        assert [one.stop_reason for one in found] == [StopReason.LENGTH, StopReason.END, StopReason.STOP]
        found = generate(engine, *(Sampling(max_tokens=150, seed=seed, deadline_s=0.03) for seed in range(8)))
        assert StopReason.DEADLINE in {one.stop_reason for one in found}
        # Of a prompt that had not been read yet there is none.
        assert all(same_choice(one, model) if one.experts else not one.token_ids for one in found)

    def test_of_a_prompt_that_was_read_before(self, engine: VLLMEngine, model: PreTrainedModel) -> None:
        prompt = [*range(4, 60), *range(4, 60)]
        for seed in range(3):
            (found,) = generate(engine, Sampling(max_tokens=10, seed=seed), prompt=prompt)
            assert same_choice(found, model, prompt)

    def test_follow_new_weights(self, engine: VLLMEngine, model: PreTrainedModel) -> None:
        """Which are proven to be served, packed for the processor's kernels once more."""
        other = mixture(vocab_size=VOCABULARY, seed=1)
        for version in (1, 2):
            engine.load_weights(other, version)
            (found,) = generate(engine, Sampling(max_tokens=30, seed=5))
            assert same_choice(found, other) and not same_choice(found, model)

    def test_of_requests_that_were_given_up_are_in_nobodys_way(self, engine: VLLMEngine, model: Any) -> None:
        async def some_cancelled() -> list[Completion]:
            tasks = [
                asyncio.ensure_future(engine.generate(PROMPT, Sampling(max_tokens=100, seed=seed)))
                for seed in range(12)
            ]
            await asyncio.sleep(0.1)
            for task in tasks[::2]:
                task.cancel()
            return await asyncio.gather(*tasks[1::2])

        assert all(same_choice(one, model) for one in asyncio.run(some_cancelled()))

    def test_are_not_kept_of_other_models(self, vllm: Any) -> None:
        with pytest.raises(EngineError, match=r"is no mixture of experts.*remove engine\.keep_routing"):
            VLLMEngine(varied(0), its_tokenizer(), slots=8, max_length=160, threads=1, keep_routing=True)

    def test_need_prompts_that_are_read_whole(self, vllm: Any) -> None:
        with pytest.raises(EngineError, match=r"remove engine\.vllm\.enable_prefix_caching"):
            served(settings={"enable_prefix_caching": True})


@pytest.mark.parametrize("family", ["qwen2", "mixtral"])
def test_other_families(vllm: Any, family: str) -> None:
    model, engine = served(family)
    with engine:
        assert engine.proof is not None and engine.proof.gap < 1e-4
        (found,) = generate(engine, Sampling(max_tokens=30, seed=1))
        assert same_choice(found, model)


def test_experts_that_vllm_passes_over_are_said(vllm: Any) -> None:
    """It goes on with the old ones: all digests are right, and in bfloat16 no probe sees one step."""
    with pytest.raises(TransferError, match=r"passes over new weights of model\.layers\.0\.mlp\.experts"):
        served("gpt-oss", dtype=torch.bfloat16)


def test_with_the_samplers_experts_the_trainer_is_nearer_to_it(vllm: Any) -> None:
    """In bfloat16 the sampler chooses other experts now and then, which makes more of a difference than rounding."""
    model, engine = served(dtype=torch.bfloat16)
    with engine:
        found = generate(engine, *(Sampling(max_tokens=100, seed=seed) for seed in range(8)))
    gaps = {"own": [], "kept": []}  # type: dict[str, list[torch.Tensor]]
    for one in found:
        count, experts = len(one.token_ids), one.experts
        assert experts is not None
        path = Trajectory(
            token_ids=(*PROMPT, *one.token_ids),
            mask=(False,) * len(PROMPT) + (True,) * count,
            logprobs=(0.0,) * len(PROMPT) + one.logprobs,
            versions=(0,) * (len(PROMPT) + count),
            experts=(*experts, None)[: len(PROMPT) + count],
        )
        batch = batch_of(path)
        gaps["own"].append((score(model, batch)[0] - batch.logprobs_N).abs().detach())
        with ExpertReplay(model) as replay:
            gaps["kept"].append((score(model, batch)[0] - batch.logprobs_N).abs().detach())
            assert replay.choices
    own, kept = (torch.cat(gaps[name]) for name in ("own", "kept"))
    assert kept.max() < own.max() / 2


RECIPE = """
name: mixture
threads: 1
model: {path: policy}
envs: [{name: ludus/WordMath-v0, options: {system_prompt: ""}}]
engine: {kind: vllm, slots: 8, max_length: 160, keep_routing: true}
sampling: {max_tokens: 12}
policy: {algorithm: v32, steps: 3, groups: 2, group_size: 4}
eval: {every: 1000, tasks: 4}
trackers: {tensorboard: false}
"""


@pytest.mark.parametrize("placement", ["in_process", pytest.param("ray", marks=pytest.mark.ray)])
def test_a_run_keeps_them_and_learns_with_them(vllm: Any, request: Any, placement: str, tmp_path: Path) -> None:
    if placement == "ray":
        request.getfixturevalue("ray_cluster")
    tokenizer = its_tokenizer()
    mixture(vocab_size=VOCABULARY, eos_token_id=tokenizer.eos_token_id).save_pretrained(tmp_path / "policy")
    tokenizer.save_pretrained(tmp_path / "policy")
    (tmp_path / "small.yaml").write_text(RECIPE)
    more = [] if placement == "in_process" else ["rollout.placement=ray", "rollout.cpus_per_worker=0.5"]
    command = [sys.executable, "-m", "ludus", "train", "small.yaml", *more, "--out", "run"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [row for row in read_metrics(tmp_path / "run") if row["phase"] == "policy"]
    assert len(rows) == 3
    assert all(row["experts_replaced"] < 0.01 and abs(row["kl_sampler"]) < 1e-4 for row in rows)


def test_a_run_whose_critic_learns_first(vllm: Any, tmp_path: Path) -> None:
    """Meanwhile the policy chooses nothing, though the sampler told its experts."""
    tokenizer = its_tokenizer()
    mixture(vocab_size=VOCABULARY, eos_token_id=tokenizer.eos_token_id).save_pretrained(tmp_path / "policy")
    tokenizer.save_pretrained(tmp_path / "policy")
    (tmp_path / "small.yaml").write_text(RECIPE)
    more = ["policy.algorithm=ppo", "policy.steps=2", "policy.critic.warmup_steps=1"]
    command = [sys.executable, "-m", "ludus", "train", "small.yaml", *more, "--out", "run"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    first, second = (row for row in read_metrics(tmp_path / "run") if row["phase"] == "policy")
    assert "experts_replaced" not in first and second["experts_replaced"] < 0.01


def test_models_whose_routing_cannot_be_kept_are_refused_before_anything_starts(vllm: Any, tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(RECIPE)
    shape = "{hidden_size: 64, layers: 2, heads: 2, kv_heads: 2, intermediate_size: 96, max_length: 160}"
    command = [sys.executable, "-m", "ludus", "train", "small.yaml", "model.path=null", f"model.tiny={shape}"]
    done = subprocess.run([*command, "--out", "run"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    said = done.stdout + done.stderr
    assert "Traceback" not in said
    assert "is no mixture of experts whose routing could be kept; remove engine.keep_routing" in said
