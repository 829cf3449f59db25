"""The Qwen2 family in plain PyTorch over a slotted KV cache: the forward pass of TorchEngine.

Invariant: a row's arithmetic depends on that row alone, not on which slot it has, on who else is decoded with it, or on
how far the cache is padded (tests/test_torch_engine.py). Matrix products therefore always see at least `MIN_ROWS` rows:
below that, CPU kernels take another order of summation (measured on x86: below 16 rows where the sum has 384 terms).
Nor do sums over keys have more than `SUMMED` terms, or else always 512: between, the padding decides their order.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..sandbox.errors import LudusError
from .lora import weight_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MIN_ROWS = 16
SUMMED = 384
FAMILIES = ("qwen2", "qwen3", "llama", "mistral")


class CacheTooLargeError(LudusError):
    """The memory does not hold so many slots of such a length."""


class UnsupportedModelError(LudusError):
    """The engine cannot run this architecture."""


class Decoder:
    """A fused copy of a transformers model's weights and a cache of `slots` sequences of `max_length` tokens.

    model: a causal language model of one of FAMILIES. dtype: of the copy; float32 on CPU, bfloat16 on GPUs.
    cache: [layers, 2, slots, kv_heads, max_length, head_dim], keys before values.
    """

    def __init__(self, model: PreTrainedModel, slots: int, max_length: int, dtype: torch.dtype) -> None:
        config: Any = model.config
        check_architecture(config)
        self.device = next(model.parameters()).device
        self.dtype = dtype
        self.heads: int = config.num_attention_heads
        self.kv_heads: int = config.num_key_value_heads
        self.head_dim = head_dim(config)
        self.eps: float = config.rms_norm_eps
        self.layers: int = config.num_hidden_layers
        self.slots = max(slots, MIN_ROWS)
        self.max_length = max_length
        shape = cache_shape(config, slots, max_length)
        length = shape[4]
        try:
            self.cache = torch.zeros(shape, dtype=dtype, device=self.device)
        except RuntimeError as error:
            size = math.prod(shape) * dtype.itemsize / 2**30
            raise CacheTooLargeError(
                f"There is no room for a cache of {size:,.0f} GiB; lower engine.slots or engine.max_length."
            ) from error
        positions = torch.arange(length, device=self.device)[None]
        cos, sin = model.model.rotary_emb(torch.zeros(1, dtype=torch.float32, device=self.device), positions)
        half = self.head_dim // 2
        # Queries are scaled where they are turned: [length, heads + kv_heads, half], complex.
        turns = torch.complex(cos[0, :, None, :half].float(), sin[0, :, None, :half].float())
        scales = torch.tensor([self.head_dim**-0.5] * self.heads + [1.0] * self.kv_heads, device=self.device)
        self.turns, self.scales = turns, scales[:, None]
        self.positions = positions[0]
        self.rows = torch.arange(self.slots, device=self.device)
        self.offsets = (self.rows[:, None] * self.kv_heads + torch.arange(self.kv_heads, device=self.device)) * length
        # Three kernels instead of the eight that rms_norm is on a CPU: x / hypot(|x|, sqrt(n * eps)) * sqrt(n).
        cpu, width = self.device.type == "cpu", config.hidden_size
        self.gain = width**0.5 if cpu else 1.0
        self.floor = torch.tensor((width * self.eps) ** 0.5) if cpu else None
        self.weights: list[dict[str, Any]] = []
        self.load(model)

    @torch.no_grad()
    def load(self, model: PreTrainedModel) -> None:
        """Copy the weights of `model`, adapters merged, fusing the projections that read the same input.

        Matrices are kept as [in, out], which CPU kernels multiply faster, with the weights of the norm before them. The
        two numbers that a rotation turns together stand half a head apart in the model and side by side here.
        """
        side_by_side = torch.arange(self.head_dim).view(2, -1).t().flatten()
        order = torch.arange((self.heads + 2 * self.kv_heads) * self.head_dim).view(-1, self.head_dim)
        order[: self.heads + self.kv_heads] = order[: self.heads + self.kv_heads, side_by_side]

        def fuse(*parts: Tensor | None, order: Tensor | None = None, norm: Tensor | None = None) -> Tensor | None:
            if any(part is None for part in parts):
                return None
            whole = torch.cat([part.detach().to(self.device) for part in parts if part is not None])
            whole = whole if order is None else whole[order.flatten().to(self.device)]
            whole = whole if norm is None else whole * (norm.detach().to(self.device) * self.gain)
            return (whole.t().contiguous() if whole.dim() == 2 else whole).to(self.dtype, copy=True)

        body: Any = model.model
        self.weights = []
        for layer in body.layers:
            attn, mlp = layer.self_attn, layer.mlp
            projections = (attn.q_proj, attn.k_proj, attn.v_proj)
            self.weights.append(
                {
                    "qkv": fuse(*map(weight_of, projections), order=order, norm=layer.input_layernorm.weight),
                    "qkv_bias": fuse(*(p.bias for p in projections), order=order),
                    "q_norm": fuse(attn.q_norm.weight, order=side_by_side) if hasattr(attn, "q_norm") else None,
                    "k_norm": fuse(attn.k_norm.weight, order=side_by_side) if hasattr(attn, "k_norm") else None,
                    "out": fuse(weight_of(attn.o_proj)),
                    "out_bias": fuse(attn.o_proj.bias),
                    "gate_up": fuse(
                        weight_of(mlp.gate_proj), weight_of(mlp.up_proj), norm=layer.post_attention_layernorm.weight
                    ),
                    "down": fuse(weight_of(mlp.down_proj)),
                }
            )
        self.embedding = body.embed_tokens.weight.detach().to(self.device, self.dtype, copy=True)
        head = fuse(model.lm_head.weight, norm=body.norm.weight)
        assert head is not None
        self.head: Tensor = head

    def _norm(self, hidden_NC: Tensor) -> Tensor:
        """Root-mean-square norm over `gain`; its weights are part of the matrix that follows."""
        if self.floor is None:
            return F.rms_norm(hidden_NC, hidden_NC.shape[-1:], None, self.eps)
        return hidden_NC / torch.hypot(torch.linalg.vector_norm(hidden_NC, dim=-1, keepdim=True), self.floor)

    def _head_norm(self, qk: Tensor, weight: Tensor) -> Tensor:
        return F.rms_norm(qk, (self.head_dim,), weight, self.eps)

    def _qkv(self, hidden_NC: Tensor, weights: dict[str, Any], turns_N: Tensor) -> tuple[Tensor, Tensor]:
        """Turned queries (scaled) and keys [N, heads + kv_heads, head_dim], and values [N, kv_heads, head_dim]."""
        norm_NC = self._norm(hidden_NC)
        if weights["qkv_bias"] is None:
            qkv = norm_NC @ weights["qkv"]
        else:
            qkv = torch.addmm(weights["qkv_bias"], norm_NC, weights["qkv"])
        qkv = qkv.view(hidden_NC.shape[0], -1, self.head_dim)
        qk, values = qkv.split((self.heads + self.kv_heads, self.kv_heads), 1)
        if weights["q_norm"] is not None:
            q = self._head_norm(qk[:, : self.heads], weights["q_norm"])
            qk = torch.cat((q, self._head_norm(qk[:, self.heads :], weights["k_norm"])), 1)
        pairs = torch.view_as_complex(qk.float().unflatten(-1, (-1, 2)))
        return torch.view_as_real(pairs * turns_N).flatten(-2).to(self.dtype), values

    def _finish(self, hidden_NC: Tensor, attended_NC: Tensor, weights: dict[str, Any]) -> Tensor:
        """Output projection, residual, feed-forward."""
        hidden_NC = torch.addmm(hidden_NC, attended_NC, weights["out"])
        if weights["out_bias"] is not None:
            hidden_NC += weights["out_bias"]
        gate, up = (self._norm(hidden_NC) @ weights["gate_up"]).chunk(2, -1)
        return hidden_NC.addmm_(F.silu(gate).mul_(up), weights["down"])

    @torch.no_grad()
    def decode(self, tokens_S: Tensor, lengths_S: Tensor, longest: int) -> Tensor:
        """Feed one token to each of the first S slots; returns the next token's logits_SV in float32.

        tokens_S: token ids. lengths_S: tokens already in each slot's cache, where the new one goes; S is at least
        MIN_ROWS. longest: an upper bound of lengths_S.
        """
        slots = tokens_S.shape[0]
        padded = min(_round_up(longest + 1, 32), self.cache.shape[4])
        hidden = F.embedding(tokens_S, self.embedding)
        turns = self.turns[lengths_S] * self.scales
        bias = torch.where(self.positions[:padded] <= lengths_S[:, None], 0.0, -torch.inf)
        bias = bias.to(self.dtype)[:, None, None]
        where = (self.offsets[:slots] + lengths_S[:, None]).flatten()
        for layer, weights in enumerate(self.weights):
            turned, fresh = self._qkv(hidden, weights, turns)
            keys, values = self._write(layer, where, turned[:, self.heads :], fresh)
            keys, values = (part[:slots, :, :padded].flatten(0, 1) for part in (keys, values))
            queries = turned[:, : self.heads].reshape(slots * self.kv_heads, -1, self.head_dim)
            scores = torch.bmm(queries, keys.transpose(1, 2))
            scores.view(slots, self.kv_heads, -1, padded).add_(bias)
            scores = torch.softmax(scores, -1)
            attended = torch.bmm(scores[..., :SUMMED], values[:, :SUMMED])
            for first in range(SUMMED, padded, SUMMED):
                attended += torch.bmm(scores[..., first : first + SUMMED], values[:, first : first + SUMMED])
            hidden = self._finish(hidden, attended.view(slots, -1), weights)
        return (self._norm(hidden) @ self.head).float()

    @torch.no_grad()
    def prefill(self, slots_N: Tensor, tokens_NL: Tensor, starts_N: Tensor, longest: int) -> None:
        """Write the keys and values of a chunk of tokens into the cache.

        slots_N: which slots. tokens_NL: padded on the right (padding is written and later overwritten or masked), L a
        multiple of MIN_ROWS. starts_N: tokens already in the cache; starts_N + L is at most SUMMED for all rows or for
        none. longest: an upper bound of starts_N.
        """
        count, length = tokens_NL.shape
        end = longest + length
        # The attention kernel sums over 512 keys at a time.
        padded = min(_round_up(end, 32 if end <= SUMMED else 512), self.cache.shape[4])
        at = (starts_N[:, None] + self.positions[:length]).clamp(max=self.cache.shape[4] - 1)
        hidden = F.embedding(tokens_NL.flatten(), self.embedding)
        turns = self.turns[at.flatten()] * self.scales
        where = (self.offsets[slots_N][:, None] + at[:, :, None]).flatten()
        seen = self.positions[:padded] <= at[:, :, None]
        groups = self.heads // self.kv_heads
        for layer, weights in enumerate(self.weights):
            turned, fresh = self._qkv(hidden, weights, turns)
            keys, values = self._write(layer, where, turned[:, self.heads :], fresh)
            if layer == self.layers - 1:
                return
            keys, values = keys[slots_N, :, :padded], values[slots_N, :, :padded]
            if groups > 1:
                keys, values = keys.repeat_interleave(groups, 1), values.repeat_interleave(groups, 1)
            queries = turned[:, : self.heads].unflatten(0, (count, length)).transpose(1, 2)
            attended = F.scaled_dot_product_attention(queries, keys, values, attn_mask=seen[:, None], scale=1.0)
            hidden = self._finish(hidden, attended.transpose(1, 2).reshape(count * length, -1), weights)

    def _write(self, layer: int, where: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Put keys and values of one layer into the cache, at positions of its flattened rows; that layer's cache."""
        cache = self.cache[layer]
        for part, fresh in zip(cache, (keys, values), strict=True):
            part.view(-1, self.head_dim).index_copy_(0, where, fresh.reshape(-1, self.head_dim))
        return cache

    @torch.no_grad()
    def copy_slot(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` cached tokens of one slot to another."""
        self.cache[:, :, target, :, :length] = self.cache[:, :, source, :, :length]

    @torch.no_grad()
    def save_slot(self, slot: int, length: int) -> Tensor:
        """A copy of a slot's first `length` cached tokens, on the CPU."""
        return self.cache[:, :, slot, :, :length].to("cpu", copy=True)

    @torch.no_grad()
    def restore_slot(self, slot: int, saved: Tensor) -> None:
        """Put back what `save_slot` returned."""
        self.cache[:, :, slot, :, : saved.shape[3]] = saved.to(self.device)


def check_architecture(config: Any) -> None:
    """UnsupportedModelError where the decoder cannot compute what a transformers model of this config does."""
    if config.model_type not in FAMILIES:
        raise UnsupportedModelError(
            f"TorchEngine runs models of the families {', '.join(FAMILIES)}, and this one is "
            f"'{config.model_type}'; choose such a model, or the engine vllm."
        )
    if getattr(config, "use_sliding_window", False) or (config.model_type == "mistral" and config.sliding_window):
        raise UnsupportedModelError(
            "TorchEngine has no sliding-window attention; choose a model without it, or the engine vllm."
        )
    if config.hidden_act != "silu" or getattr(config, "mlp_bias", False):
        raise UnsupportedModelError(
            f"TorchEngine computes gated SiLU layers without bias, and this model has hidden_act = "
            f"{config.hidden_act!r}, mlp_bias = {getattr(config, 'mlp_bias', False)}; choose another model, or the "
            "engine vllm."
        )


def head_dim(config: Any) -> int:
    """Width of one attention head of a transformers model."""
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def kv_heads(config: Any) -> int:
    """Heads of keys and values of a transformers model."""
    return getattr(config, "num_key_value_heads", None) or config.num_attention_heads


def is_mixture(config: Any) -> bool:
    """Whether a transformers model is a mixture of experts."""
    return any(getattr(config, name, None) for name in ("num_experts", "num_local_experts", "n_routed_experts"))


def cache_shape(config: Any, slots: int, max_length: int) -> tuple[int, int, int, int, int, int]:
    """[layers, 2, slots, kv_heads, length, head_dim] of the cache that serves so many sequences of such a length."""
    # Padded positions of a prefill chunk are written, too, so the cache has room for one chunk's padding.
    length = max_length + 64
    return config.num_hidden_layers, 2, max(slots, MIN_ROWS), kv_heads(config), length, head_dim(config)


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
