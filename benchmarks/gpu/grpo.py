"""One GRPO step of a randomly initialised Qwen2 with TorchEngine: rollout, gradient, AdamW, weights to the engine.

float32 master weights, bfloat16 autocast, a bfloat16 copy in the engine. The reference for the rollout is
transformers' `generate` over a bfloat16 copy of the same model, with the same prompts and lengths. Rewards are drawn at
random: what a step costs does not depend on them.
"""

from __future__ import annotations

import asyncio
import copy
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import Qwen2Config, Qwen2ForCausalLM

from ludus.agents.engine import Completion, Sampling
from ludus.agents.torch_engine import TorchEngine
from ludus.agents.trajectory import Episode, Trajectory
from ludus.trainers.algorithms import Experience, get_algorithm
from ludus.trainers.policy_step import accumulate, build_rows

from ..measure import Sample, ratio
from ..table import Table
from .flops import datasheet_flops, forward_flops, measured_flops, synchronize


@dataclass(frozen=True)
class Size:
    """Shape of the model (Qwen2.5-0.5B's by default) and of the step."""

    hidden: int = 896
    layers: int = 24
    heads: int = 14
    kv_heads: int = 2
    intermediate: int = 4864
    vocabulary: int = 151936
    groups: int = 8
    group_size: int = 8
    prompt: int = 128
    new: int = 256
    micro_batch_tokens: int = 4096
    steps: int = 3
    matrix: int = 8192

    @property
    def episodes(self) -> int:
        """Episodes of a step."""
        return self.groups * self.group_size


SMOKE = Size(64, 2, 4, 2, 128, 512, groups=2, group_size=4, prompt=12, new=8, steps=1, matrix=256)
"""Sizes that a processor without a GPU runs in seconds."""


def build_model(size: Size, device: torch.device) -> Qwen2ForCausalLM:
    """The model in float32 with random weights and tied embeddings."""
    config = Qwen2Config(
        vocab_size=size.vocabulary,
        hidden_size=size.hidden,
        intermediate_size=size.intermediate,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.kv_heads,
        max_position_embeddings=32768,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=None,
    )
    torch.manual_seed(0)
    with device:
        return Qwen2ForCausalLM(config).float().eval()


class Bench:
    """Both sides and what was measured of them."""

    def __init__(self, size: Size, device: torch.device) -> None:
        self.size, self.device = size, device
        self.dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        self.model = build_model(size, device)
        self.peer: Any = copy.deepcopy(self.model).to(dtype=self.dtype)  # type: ignore[call-arg]
        # An end token that is never sampled; and no stop sequences, for which alone the engine needs a tokenizer.
        tokenizer: Any = SimpleNamespace(eos_token_id=-1)
        length = size.prompt + size.new
        self.engine = TorchEngine(self.model, tokenizer, slots=size.episodes, max_length=length, dtype=self.dtype)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-6, weight_decay=0.0, fused=True)
        self.algorithm = get_algorithm("grpo", kl_coef=0.0)
        self.rng = np.random.default_rng(0)
        self.taken = 0
        self.curves: dict[str, float] = {}

    def prompts(self) -> list[list[int]]:
        """New prompts, each as often as a group has episodes."""
        drawn = self.rng.integers(0, self.size.vocabulary, (self.size.groups, self.size.prompt)).tolist()
        return [prompt for prompt in drawn for _ in range(self.size.group_size)]

    def rollout(self, prompts: list[list[int]]) -> list[Completion]:
        """Ludus samples every completion."""

        async def every() -> list[Completion]:
            asked = [
                self.engine.generate(prompt, Sampling(max_tokens=self.size.new, seed=self.taken * 10_000 + index))
                for index, prompt in enumerate(prompts)
            ]
            return list(await asyncio.gather(*asked))

        return asyncio.run(every())

    def generate(self, prompts: list[list[int]]) -> None:
        """transformers samples every completion."""
        tokens = torch.tensor(prompts, device=self.device)
        with torch.no_grad():
            found = self.peer.generate(
                input_ids=tokens,
                attention_mask=torch.ones_like(tokens),
                max_new_tokens=self.size.new,
                do_sample=True,
                temperature=1.0,
                top_k=0,
                top_p=1.0,
                eos_token_id=None,
                pad_token_id=0,
            )
        if found.shape[1] != self.size.prompt + self.size.new:
            raise AssertionError(f"generate returned {found.shape[1]} tokens")

    def learn(self, prompts: list[list[int]], completions: list[Completion]) -> None:
        """Advantages, gradient and AdamW."""
        episodes = [self._episode(*pair, index) for index, pair in enumerate(zip(prompts, completions, strict=True))]
        groups = np.arange(len(episodes)) // self.size.group_size
        experience = Experience(episodes, self.rng.random(len(episodes)), groups)
        advantages, _ = self.algorithm.estimator(experience, {})
        rows = build_rows(self.algorithm, episodes, advantages)
        self.model.train()
        self.curves = accumulate(self.algorithm, self.model, rows, self.size.micro_batch_tokens)
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.model.eval()

    def hand_over(self) -> None:
        """The new weights go to the engine."""
        self.taken += 1
        self.engine.load_weights(self.model, self.taken)

    def _episode(self, prompt: list[int], completion: Completion, index: int) -> Episode:
        unsampled, new = len(prompt), len(completion.token_ids)
        trajectory = Trajectory(
            token_ids=(*prompt, *completion.token_ids),
            mask=(False,) * unsampled + (True,) * new,
            logprobs=(0.0,) * unsampled + completion.logprobs,
            versions=(-1,) * unsampled + (completion.version,) * new,
        )
        group = str(index // self.size.group_size)
        return Episode(
            id=str(index),
            env="random",
            task_id=group,
            group=group,
            seed=index,
            reward=0.0,
            rewards={},
            verdict=None,
            terminated=True,
            truncated=False,
            error=None,
            stop_reason="length",
            messages=(),
            trajectories=(trajectory,),
        )


def measure(size: Size, device: torch.device) -> list[Table]:
    """Take one step to warm up and size.steps that count; the sides take turns."""
    bench = Bench(size, device)
    seconds: dict[str, list[float]] = {}
    peak_gib: dict[str, float] = {}

    def timed(name: str, call: Callable[[], Any]) -> Any:
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        synchronize(device)
        start = time.perf_counter()
        found = call()
        synchronize(device)
        seconds.setdefault(name, []).append(time.perf_counter() - start)
        if device.type == "cuda":
            peak_gib[name] = max(peak_gib.get(name, 0.0), torch.cuda.max_memory_allocated(device) / 2**30)
        return found

    for _ in range(1 + size.steps):
        prompts = bench.prompts()
        completions = timed("rollout", partial(bench.rollout, prompts))
        timed("transformers", partial(bench.generate, prompts))
        timed("training", partial(bench.learn, prompts, completions))
        timed("weights", bench.hand_over)
    return [_table(bench, {name: Sample(tuple(found[1:])) for name, found in seconds.items()}, peak_gib)]


def _table(bench: Bench, seconds: dict[str, Sample], peak_gib: dict[str, float]) -> Table:
    size, device, config = bench.size, bench.device, bench.model.config
    sampled = size.episodes * size.new
    # Prompt and sampled tokens all pass once; a token sees half of the whole on average; training is thrice a forward.
    passed, length = size.episodes * (size.prompt + size.new), size.prompt + size.new
    work = {"rollout": forward_flops(config, passed, length / 2, sampled)}
    work["transformers"], work["training"] = work["rollout"], 3 * work["rollout"]
    best, stated = measured_flops(device, bench.dtype, size.matrix), datasheet_flops(device)
    columns = {"part": "", "tokens/s": ",.0f", "seconds": ".3f", "TFLOP/s": ".2f", "MFU of measured": ".2%"}
    table = Table("One GRPO step", {**columns, "MFU of datasheet": ".2%", "peak GiB": ".1f", "ratio": ".2f"})

    def rate(amount: float, name: str) -> Sample:
        return Sample(tuple(amount / value for value in seconds[name].values))

    gain = ratio(rate(1, "rollout"), rate(1, "transformers"))
    names = {
        "rollout": "rollout, TorchEngine",
        "transformers": "rollout, transformers' generate",
        "training": "training",
    }
    for name, shown in names.items():
        speed = rate(work[name], name).median
        of_stated = None if stated is None else speed / stated
        cells = (rate(sampled, name), seconds[name], speed / 1e12, speed / best, of_stated, peak_gib.get(name))
        table.add(shown, *cells, gain if name == "rollout" else None)
    table.add("weights to the engine", None, seconds["weights"], None, None, None, peak_gib.get("weights"), None)
    parts = ("rollout", "training", "weights")
    whole = Sample(tuple(sum(values) for values in zip(*(seconds[part].values for part in parts), strict=True)))
    table.add("whole step", Sample(tuple(sampled / s for s in whole.values)), whole, None, None, None, None, None)
    count = sum(parameter.numel() for parameter in bench.model.parameters()) / 1e6
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else "processor without a GPU"
    table.notes += [
        f"{where}; torch {torch.__version__}; {count:,.0f} M parameters, {str(bench.dtype).removeprefix('torch.')}.",
        f"{size.groups} prompts of {size.prompt} tokens, {size.group_size} completions of {size.new} tokens each; "
        f"tokens/s count sampled tokens. Micro-batches of {size.micro_batch_tokens} tokens.",
        f"Medians of {size.steps} steps (smallest to largest), one of warm-up.",
        f"Products of {size.matrix} x {size.matrix} matrices reach {best / 1e12:.1f} TFLOP/s here.",
        f"Sampler against trainer, log-probabilities: {bench.curves['kl_sampler']:.1e} nats a token apart on average.",
    ]
    return table
