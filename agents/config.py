"""Settings of the model, the engine, and sampling: the parts of a recipe that this room reads."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from ..verifiers.repetition import MAX_PERIOD, Loop


class Section(BaseModel):
    """A part of a recipe: unknown keys are errors, values are frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class TinyModel(Section):
    """Shape of a randomly initialised Qwen2 model with a character-level tokenizer, created on the spot."""

    hidden_size: int = Field(128, gt=0, description="width of the residual stream")
    layers: int = Field(4, gt=0, description="transformer blocks")
    heads: int = Field(4, gt=0, description="attention heads")
    kv_heads: int = Field(4, gt=0, description="key and value heads; divides `heads`")
    intermediate_size: int = Field(384, gt=0, description="width of the feed-forward layer")
    max_length: int = Field(1024, gt=0, description="longest sequence the model is meant for")
    initializer_range: float = Field(0.08, gt=0.0, description="standard deviation of the random weights")
    tags: tuple[Annotated[str, Field(min_length=2)], ...] = Field(
        (), description="strings that become one token each, such as <calculator>"
    )

    @field_validator("tags")
    @classmethod
    def _new_tokens(cls, tags: tuple[str, ...]) -> tuple[str, ...]:
        taken = [tag for i, tag in enumerate(tags) if tag in tags[:i] or re.fullmatch(r"<\|\w+\|>", tag)]
        if taken:
            raise ValueError(f"the tag {taken[0]} is a token already; leave it out")
        return tags


ALL_LINEAR = "all-linear"


class LoraConfig(Section):
    """Low-rank adapters, which are trained instead of the weights: `W + alpha / rank * B A` (arXiv:2106.09685)."""

    rank: int = Field(16, gt=0, description="rows of A and columns of B")
    alpha: float = Field(32.0, gt=0.0, description="how much an adapter counts is alpha / rank")
    targets: tuple[str, ...] = Field(
        (ALL_LINEAR,),
        min_length=1,
        description="linear layers of the blocks, such as q_proj; all-linear: all of them",
    )

    @field_validator("targets", mode="before")
    @classmethod
    def _one_is_a_list(cls, targets: object) -> object:
        if targets == []:
            raise ValueError("name at least one layer, or leave it out for all of them")
        # Behind a validator a list is no tuple to pydantic.
        return (targets,) if isinstance(targets, str) else tuple(targets) if isinstance(targets, list) else targets


class ModelConfig(Section):
    """Which model: exactly one of `path` (a directory or a hub name) and `tiny`."""

    path: str | None = None
    tiny: TinyModel | None = None
    lora: LoraConfig | None = Field(None, description="train adapters and freeze the weights; {} for the usual shape")
    chat_template: str | None = Field(None, description="a Jinja file that replaces the tokenizer's own template")
    gradient_checkpointing: bool = False
    on_rewrite: Literal["refuse", "segment"] = Field(
        "refuse", description="what to do with a chat template that rewrites history: segment trains turn by turn"
    )

    @model_validator(mode="after")
    def _one_source(self) -> ModelConfig:
        if (self.path is None) == (self.tiny is None):
            raise ValueError("give exactly one of model.path and model.tiny")
        if self.tiny is not None and self.chat_template is not None:
            raise ValueError("model.tiny has its own chat template; leave model.chat_template out")
        return self


class EngineConfig(Section):
    """What samples, Ludus's own engine or vLLM: how many sequences at once, and how long they may get."""

    kind: Literal["torch", "vllm"] = Field("torch", description="vllm: in processes of its own, with its own kernels")
    slots: int = Field(64, gt=0, le=2**16, description="sequences decoded together")
    max_length: int = Field(512, gt=0, le=2**24, description="tokens a sequence may reach, prompt included")
    deadline_s: float | None = Field(None, gt=0, description="seconds one generation may take")
    timeout_s: float = Field(600.0, gt=0, description="vllm: seconds that its start, or new weights, may take")
    transfer: Literal["auto", "file", "ipc"] = Field(
        "auto", description="vllm: new weights by a file, or handed over on the GPU (ipc), as auto does where it can"
    )
    sleep: bool = Field(False, description="vllm, in process: leave the GPU to the trainer while it learns")
    keep_routing: bool = Field(
        False, description="vllm: the policy learns with the experts that vLLM chose, where it is a mixture of experts"
    )
    vllm: dict[str, object] = Field(
        default_factory=dict, description="vllm: arguments of its engine, such as gpu_memory_utilization: 0.4"
    )

    @model_validator(mode="after")
    def _settings_belong_to_the_kind(self) -> EngineConfig:
        for name in ("timeout_s", "transfer", "sleep", "keep_routing", "vllm") if self.kind == "torch" else ():
            if name in self.model_fields_set and getattr(self, name) != EngineConfig().__dict__[name]:
                raise ValueError(
                    f"{name} is a setting of vllm and engine.kind is torch; set kind: vllm, or leave it out"
                )
        return self


class LoopConfig(Section):
    """When a turn is cut because its tokens go round in circles, see `ludus.verifiers.repetition.Loop`."""

    max_period: int = Field(Loop.max_period, gt=0, le=MAX_PERIOD, description="tokens of the longest block looked for")
    repeats: int = Field(Loop.repeats, ge=2, description="how often the block stands there, one after the other")
    min_tokens: int = Field(Loop.min_tokens, gt=0, description="tokens that all of it has at least")


class SamplingConfig(Section):
    """How the policy samples."""

    temperature: float = Field(1.0, ge=0.0, description="0 is greedy")
    top_p: float = Field(1.0, gt=0.0, le=1.0)
    top_k: int = Field(0, ge=0, description="0 keeps every token")
    max_tokens: int = Field(64, gt=0, description="sampled tokens a turn may have")
    stop: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        (), description="strings that end a turn, kept in the text"
    )
    stop_on_loop: LoopConfig | None = Field(
        None, description="cut a turn that goes round in circles; {} for the usual limits"
    )


class EnvConfig(Section):
    """One environment of a run: its registered name, its share of the groups, and the arguments of its constructor."""

    name: str
    weight: float = Field(1.0, gt=0.0)
    options: dict[str, object] = Field(default_factory=dict)


Device = Literal["auto", "cpu", "cuda"]
