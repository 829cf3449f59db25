"""Settings of the trainers: the parts of a recipe that this room reads."""

from __future__ import annotations

from pydantic import Field

from ..agents.config import Section


class OptimizerConfig(Section):
    """AdamW with linear warm-up, then a constant or linearly falling rate, and clipping of the gradient norm."""

    lr: float = Field(1e-3, gt=0.0)
    muon_lr: float | None = Field(
        None, gt=0.0, description="rate of Muon, which then steps the matrices of the hidden layers; lr is for the rest"
    )
    final_lr_fraction: float = Field(1.0, ge=0.0, le=1.0, description="share of lr towards which it falls")
    betas: tuple[float, float] = (0.9, 0.99)
    eps: float = Field(1e-8, gt=0.0)
    weight_decay: float = Field(0.0, ge=0.0)
    warmup_steps: int = Field(0, ge=0)
    max_grad_norm: float = Field(1.0, gt=0.0)


class SFTConfig(Section):
    """Supervised fine-tuning on demonstrations, loss on the assistant's tokens only unless told otherwise."""

    steps: int = Field(gt=0)
    batch_size: int = Field(64, gt=0, description="demonstrations in one optimiser step")
    micro_batch_tokens: int = Field(8192, gt=0, description="padded tokens in one forward pass")
    demonstrations: int = Field(4096, gt=0, description="how many demonstrations are made before the first step")
    per_task: int = Field(1, gt=0, description="demonstrations of the same task, in the same batch")
    flaw_rate: float = Field(0.0, ge=0.0, le=1.0, description="share of demonstrations that make a typical mistake")
    train_on_prompt: bool = Field(
        False, description="loss on what the policy reads, too; helps a model made on the spot to learn the language"
    )
    optimizer: OptimizerConfig = OptimizerConfig()
    max_seconds: float | None = Field(None, gt=0, description="stop earlier, after so many seconds (not reproducible)")


class PolicyConfig(Section):
    """Policy optimisation from verified rewards."""

    algorithm: str = Field("grpo", description="a preset of ludus.trainers.algorithms")
    options: dict[str, object] = Field(
        default_factory=dict, description="changes to the preset, such as clip_high: 0.28"
    )
    steps: int = Field(gt=0)
    groups: int = Field(8, gt=0, description="tasks in one step")
    group_size: int = Field(8, gt=0, description="episodes of each task")
    minibatches: int = Field(1, gt=0, description="optimiser steps made from one rollout")
    micro_batch_tokens: int = Field(8192, gt=0, description="padded tokens in one forward pass")
    concurrency: int | None = Field(
        None, gt=0, description="episodes in flight; as many as the engine has slots if unset"
    )
    optimizer: OptimizerConfig = OptimizerConfig()
    shuffle_rewards: bool = Field(False, description="control experiment: rewards are shuffled over the batch")


class EvalConfig(Section):
    """Greedy evaluation on the held-out split."""

    every: int = Field(50, gt=0, description="policy steps between evaluations")
    tasks: int = Field(200, gt=0, description="held-out tasks of each environment")
    final_tasks: int | None = Field(
        None, gt=0, description="held-out tasks before and after training; `tasks` if unset"
    )
    split: str = "test"


class CheckpointConfig(Section):
    """When to save and how many to keep."""

    every: int = Field(50, gt=0, description="steps between checkpoints")
    keep: int = Field(2, gt=0, description="checkpoints that stay on disk")
