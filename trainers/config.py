"""Settings of the trainers: the parts of a recipe that this room reads."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from ..agents.config import Section

PHASES = ("sft", "star", "preference", "policy")
"""The phases of training, in their order; the sections of a recipe that set them are called the same."""


class OptimizerConfig(Section):
    """AdamW with linear warm-up, then a constant or linearly falling rate, and clipping of the gradient norm."""

    kind: Literal["adamw", "adamw_8bit", "paged_adamw_8bit"] = Field(
        "adamw",
        description="8bit: states of 2 instead of 8 bytes a weight (bitsandbytes); paged: moved out of full GPUs",
    )
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


class CriticConfig(Section):
    """The critic of algorithms that need values: a copy of the policy's body with a head of its own."""

    optimizer: OptimizerConfig = OptimizerConfig()
    clip: float | None = Field(0.2, gt=0.0, description="how far one phase may move a value; null: as far as it likes")
    warmup_steps: int = Field(0, ge=0, description="policy steps at the start in which only the critic learns")


class CurriculumConfig(Section):
    """Which tasks are played: several candidates are drawn for each group, and one of them is chosen."""

    rule: Literal["band", "self_paced"] = Field(
        description="band: kinds that are solved neither too seldom nor too often; self_paced: easy kinds first"
    )
    key: str | None = Field(
        description="entry of task.data that names a task's kind, such as template; null: each task"
    )
    candidates: int = Field(4, ge=2, description="tasks from which one is chosen")
    low: float = Field(0.2, ge=0.0, le=1.0, description="band: lowest share of solved episodes")
    high: float = Field(
        0.8,
        ge=0.0,
        le=1.0,
        description="band: highest share of solved episodes; self_paced: share that widens the reach",
    )
    reach: float = Field(
        0.5, ge=0.0, le=1.0, description="self_paced: share of failed episodes at which a kind is played"
    )
    pace: float = Field(0.05, gt=0.0, le=1.0, description="self_paced: how much further it reaches, step by step")
    outside: float = Field(0.05, gt=0.0, le=1.0, description="weight of tasks that are not wanted now, beside 1")
    memory: float = Field(
        0.8, ge=0.0, lt=1.0, description="share of a kind's rate that one more group leaves as it was"
    )

    @model_validator(mode="after")
    def _some_band(self) -> CurriculumConfig:
        if self.low >= self.high:
            raise ValueError(f"low = {self.low} must be below high = {self.high}")
        return self


class PolicyConfig(Section):
    """Policy optimisation from verified rewards."""

    algorithm: str = Field("grpo", description="a preset of ludus.trainers.algorithms")
    options: dict[str, object] = Field(
        default_factory=dict, description="changes to the preset, such as clip_high: 0.28"
    )
    steps: int = Field(gt=0)
    groups: int = Field(8, gt=0, description="tasks in one step")
    group_size: int = Field(8, gt=0, description="episodes of each task")
    minibatches: int = Field(1, gt=0, description="optimiser steps made from one rollout in each epoch")
    epochs: int = Field(1, gt=0, description="how often the rollout is gone through; each time in other minibatches")
    micro_batch_tokens: int = Field(8192, gt=0, description="padded tokens in one forward pass")
    concurrency: int | None = Field(
        None, gt=0, description="episodes in flight; as many as the engine has slots if unset"
    )
    optimizer: OptimizerConfig = OptimizerConfig()
    critic: CriticConfig = CriticConfig()
    curriculum: CurriculumConfig | None = Field(None, description="chooses tasks by how often their kind was solved")
    teacher: str | None = Field(
        None,
        description="model from which to distil, with the policy's tokenizer: a directory, a run or a hub name, in a"
        " chain a stage or `start`",
    )
    partial_tokens: int | None = Field(
        None, gt=0, description="tokens that an episode may sample in one step; the next policy goes on where they end"
    )
    max_staleness: int = Field(
        4, gt=0, description="partial_tokens: steps after which an episode is played to its end, however long"
    )
    reference_every: int | None = Field(
        None, gt=0, description="steps after which the reference becomes the policy as it is; unset: it never moves"
    )
    spike: float | None = Field(
        None, gt=1.0, description="a gradient norm of so many times the median of the last 20 steps stops the run"
    )
    rollbacks: int = Field(
        0, ge=0, description="how often a stopped run goes back to its last checkpoint and on with other tasks"
    )
    shuffle_rewards: bool = Field(False, description="control experiment: what episodes were paid is shuffled")

    @model_validator(mode="after")
    def _staleness_belongs_to_pauses(self) -> PolicyConfig:
        if self.partial_tokens is None and self.max_staleness != type(self).model_fields["max_staleness"].default:
            raise ValueError("max_staleness bounds what partial_tokens pauses; set partial_tokens, or leave it out")
        return self


class PreferenceConfig(Section):
    """Learning from pairs of answers, or answers with labels: those of a file, or played and labelled by the verifier.

    With `path` a step is one batch from the file. Without it a step is a round: the policy plays, the best and the
    worst answer to each task become a pair, and `minibatches` optimiser steps are made of them.
    """

    method: Literal["dpo", "ipo", "kto", "orpo"] = "dpo"
    beta: float = Field(0.1, gt=0.0, description="price of leaving the reference; of orpo: weight of the odds ratio")
    label_smoothing: float = Field(0.0, ge=0.0, lt=0.5, description="dpo: share of pairs believed the wrong way round")
    average: bool | None = Field(
        None, description="log-probability of an answer: mean over its tokens or sum; unset: mean for ipo and orpo"
    )
    desirable_weight: float = Field(1.0, gt=0.0, description="kto: weight of desirable answers")
    undesirable_weight: float = Field(1.0, gt=0.0, description="kto: weight of the others")
    like: Literal["trl"] | None = Field(None, description="orpo with TRL's likelihood: over prompts, too, by tokens")
    reference: Literal["start", "last"] = Field(
        "start", description="what a policy may not leave: itself before training, or before each round"
    )
    steps: int = Field(gt=0)
    path: str | None = Field(None, description="JSONL of prompt, chosen, rejected; of kto: prompt, completion, label")
    batch_size: int = Field(32, gt=0, description="pairs, of kto answers, from the file in one optimiser step")
    groups: int = Field(16, gt=0, description="tasks played in one round")
    group_size: int = Field(4, gt=1, description="episodes of each task")
    minibatches: int = Field(1, gt=0, description="optimiser steps made from one round")
    micro_batch_tokens: int = Field(8192, gt=0, description="padded tokens in one forward pass")
    optimizer: OptimizerConfig = OptimizerConfig()

    @property
    def mean_tokens(self) -> bool:
        """Whether an answer's log-probability is the mean over its tokens and not the sum."""
        return self.method in ("ipo", "orpo") if self.average is None else self.average

    @model_validator(mode="after")
    def _settings_belong_to_the_method(self) -> PreferenceConfig:
        fields = type(self).model_fields
        owners = {"label_smoothing": "dpo", "desirable_weight": "kto", "undesirable_weight": "kto", "like": "orpo"}
        for name, owner in owners.items():
            if self.method != owner and getattr(self, name) != fields[name].default:
                raise ValueError(f"{name} is a setting of {owner} and method is {self.method}; leave it out")
        if self.reference == "last" and (self.method == "orpo" or self.path is not None):
            reason = "orpo has no reference" if self.method == "orpo" else "a file has no rounds"
            raise ValueError(f"reference = last makes no sense here, since {reason}; leave it out")
        for name in ("groups", "group_size", "minibatches"):
            if self.path is not None and getattr(self, name) != fields[name].default:
                raise ValueError(f"{name} is a setting of rounds, and a file (path) has none; leave it out")
        if self.method == "kto" and self.path is not None and self.batch_size == 1:
            raise ValueError("kto compares answers of one step; raise batch_size = 1 to 2 or more")
        return self


class StarConfig(Section):
    """STaR, and rejection sampling: play, keep what verifies, fine-tune on it, and again."""

    rounds: int = Field(gt=0)
    groups: int = Field(64, gt=0, description="tasks played in one round")
    group_size: int = Field(4, gt=0, description="episodes of each task")
    keep: int = Field(1, gt=0, description="different right answers to each task that are learnt from")
    rationalise: bool = Field(True, description="play tasks that were never solved again, with the answer as a hint")
    hint: str = Field("(The answer is {answer}.)", description="what the hint says; it stands behind the prompt")
    restart: bool = Field(
        True, description="each round fine-tunes the weights before the first one, as in the paper; false: those it has"
    )
    learner: str | None = Field(
        None,
        description="model whose weights each round fine-tunes, in the place of those before the first one; the policy"
        " still plays the first round. A directory, a run or a hub name, in a chain a stage or `start`",
    )
    steps: int = Field(gt=0, description="optimiser steps of each round")
    batch_size: int = Field(32, gt=0, description="answers in one optimiser step")
    micro_batch_tokens: int = Field(8192, gt=0, description="padded tokens in one forward pass")
    optimizer: OptimizerConfig = OptimizerConfig()

    @model_validator(mode="after")
    def _the_hint_has_the_answer(self) -> StarConfig:
        if "{answer}" not in self.hint:
            raise ValueError(f"hint = {self.hint!r} must hold {{answer}}, which stands for the answer")
        return self

    @model_validator(mode="after")
    def _a_learner_is_returned_to(self) -> StarConfig:
        if self.learner is not None and not self.restart:
            raise ValueError(
                "star.learner is what each round returns to, and star.restart is false; leave one of them out"
            )
        return self


class RewardHeadConfig(Section):
    """How one head of a reward model learns from its pairs."""

    weight: float = Field(1.0, gt=0.0, description="of its loss in the sum over heads")
    margin: float = Field(0.0, ge=0.0, description="how much of a pair's margin the rewards must differ by; 0: none")
    centring: float = Field(0.0, ge=0.0, description="weight of the squared sum of a pair's rewards")


class RewardModelConfig(Section):
    """Training a reward model on pairs."""

    steps: int = Field(gt=0)
    heads: dict[str, RewardHeadConfig] = Field({"reward": RewardHeadConfig()}, min_length=1)
    batch_size: int = Field(32, gt=0, description="pairs of each head in one optimiser step")
    micro_batch_tokens: int = Field(8192, gt=0, description="padded tokens in one forward pass")
    optimizer: OptimizerConfig = OptimizerConfig()


class RolloutConfig(Section):
    """Where episodes are played: in the learner's process, or by Ray actors, each with an engine and environments."""

    placement: Literal["in_process", "ray", "ray_async"] = Field(
        "in_process", description="ray: the learner waits for each rollout; ray_async: it learns while others play"
    )
    workers: int = Field(1, gt=0, le=4096, description="Ray actors")
    cpus_per_worker: float = Field(1.0, ge=0.0, description="cores that Ray reserves for each")
    gpus_per_worker: float = Field(0.0, ge=0.0, description="GPUs that Ray reserves for each; 0 computes on the CPU")
    max_staleness: int = Field(
        2, ge=0, description="ray_async: how many versions old the beginning of an episode may be that is learnt from"
    )
    step_deadline_s: float = Field(60.0, gt=0.0, description="seconds that one step of an environment may take")
    reply_deadline_s: float = Field(120.0, gt=0.0, description="silence after which a worker is replaced by another")
    ray_address: str | None = Field(
        None, description="a Ray cluster to use, such as auto or ray://host:10001; unset: one is started for the run"
    )
    weights_dir: str | None = Field(
        None, description="folder that all workers see, through which they get weights; unset: /dev/shm or TMPDIR"
    )

    @model_validator(mode="after")
    def _settings_belong_to_the_placement(self) -> RolloutConfig:
        fields = type(self).model_fields
        anywhere = {"placement", "step_deadline_s"}
        for name in [name for name in fields if name not in anywhere]:
            owners = ("ray_async",) if name == "max_staleness" else ("ray", "ray_async")
            if self.placement not in owners and getattr(self, name) != fields[name].default:
                raise ValueError(
                    f"{name} is a setting of {' and '.join(owners)} and placement is {self.placement}; set placement:"
                    f" {owners[0]}, or leave it out"
                )
        return self


class EvalConfig(Section):
    """Greedy evaluation on the held-out split."""

    every: int = Field(50, gt=0, description="policy steps between evaluations")
    tasks: int = Field(200, gt=0, description="held-out tasks of each environment")
    final_tasks: int | None = Field(
        None, gt=0, description="held-out tasks before and after training; `tasks` if unset"
    )
    split: str = "test"
    seed: int | None = Field(
        None, ge=0, lt=2**63, description="decides which held-out tasks are taken; the recipe's seed if unset"
    )


class CheckpointConfig(Section):
    """When to save and how many to keep."""

    every: int = Field(50, gt=0, description="steps between checkpoints")
    keep: int = Field(2, gt=0, description="checkpoints that stay on disk")
