"""The Qwen2 family in plain PyTorch over a slotted KV cache: the forward pass of TorchEngine.

Invariant: a row's arithmetic depends on that row alone, not on which slot it has, on who else is decoded with it, or on
how far the cache is padded (tests/test_torch_engine.py). Matrix products therefore always see at least `MIN_ROWS` rows:
below that, CPU kernels take another order of summation (measured on x86: below 16 rows where the sum has 384 terms).
Nor do sums over keys have more than `SUMMED` terms, or else always 512: between, the padding decides their order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..sandbox.errors import LudusError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MIN_ROWS = 16
SUMMED = 384
FAMILIES = ("qwen2", "qwen3", "llama", "mistral")


class UnsupportedModelError(LudusError):
    """The engine cannot run this architecture."""


class Decoder:
    """A fused copy of a transformers model's weights and a cache of `slots` sequences of `max_length` tokens.

    model: a causal language model of one of FAMILIES. dtype: of the copy; float32 on CPU, bfloat16 on GPUs.
    cache: [layers, 2, slots, kv_heads, max_length, head_dim], keys before values.
    """

    def __init__(self, model: PreTrainedModel, slots: int, max_length: int, dtype: torch.dtype) -> None:
        config: Any = model.config
        if config.model_type not in FAMILIES:
            raise UnsupportedModelError(
                f"TorchEngine runs models of the families {', '.join(FAMILIES)}, and this one is "
                f"'{config.model_type}'; choose such a model."
            )
        if getattr(config, "use_sliding_window", False) or (config.model_type == "mistral" and config.sliding_window):
            raise UnsupportedModelError("TorchEngine has no sliding-window attention; choose a model without it.")
        if config.hidden_act != "silu" or getattr(config, "mlp_bias", False):
            raise UnsupportedModelError(
                f"TorchEngine computes gated SiLU layers without bias, and this model has hidden_act = "
                f"{config.hidden_act!r}, mlp_bias = {getattr(config, 'mlp_bias', False)}; choose such a model."
            )
        self.device = next(model.parameters()).device
        self.dtype = dtype
        self.heads: int = config.num_attention_heads
        self.kv_heads: int = config.num_key_value_heads
        self.head_dim: int = getattr(config, "head_dim", None) or config.hidden_size // self.heads
        self.eps: float = config.rms_norm_eps
        self.layers: int = config.num_hidden_layers
        self.slots = max(slots, MIN_ROWS)
        self.max_length = max_length
        # Padded positions of a prefill chunk are written, too, so the cache has room for one chunk's padding.
        length = max_length + 64
        self.cache = torch.zeros(
            self.layers, 2, self.slots, self.kv_heads, length, self.head_dim, dtype=dtype, device=self.device
        )
        positions = torch.arange(length, device=self.device)[None]
        cos, sin = model.model.rotary_emb(torch.zeros(1, dtype=torch.float32, device=self.device), positions)
        self.cos, self.sin = cos[0].to(dtype)[:, None], sin[0].to(dtype)[:, None]
        self.positions = positions[0]
        self.rows = torch.arange(self.slots, device=self.device)
        self.scale = self.head_dim**-0.5
        self.weights: list[dict[str, Any]] = []
        self.load(model)

    @torch.no_grad()
    def load(self, model: PreTrainedModel) -> None:
        """Copy the weights of `model`, fusing the projections that read the same input."""

        def copy(weight: Tensor) -> Tensor:
            return weight.detach().to(self.device, self.dtype, copy=True)

        def fuse(*parts: Tensor | None) -> Tensor | None:
            if any(part is None for part in parts):
                return None
            return torch.cat([part.detach().to(self.device, self.dtype) for part in parts if part is not None])

        body: Any = model.model
        self.weights = []
        for layer in body.layers:
            attn, mlp = layer.self_attn, layer.mlp
            projections = (attn.q_proj, attn.k_proj, attn.v_proj)
            self.weights.append(
                {
                    "norm1": fuse(layer.input_layernorm.weight),
                    "qkv": fuse(*(p.weight for p in projections)),
                    "qkv_bias": fuse(*(p.bias for p in projections)),
                    "q_norm": fuse(attn.q_norm.weight) if hasattr(attn, "q_norm") else None,
                    "k_norm": fuse(attn.k_norm.weight) if hasattr(attn, "k_norm") else None,
                    "out": fuse(attn.o_proj.weight),
                    "out_bias": fuse(attn.o_proj.bias),
                    "norm2": fuse(layer.post_attention_layernorm.weight),
                    "gate_up": fuse(mlp.gate_proj.weight, mlp.up_proj.weight),
                    "down": fuse(mlp.down_proj.weight),
                }
            )
        self.embedding = copy(body.embed_tokens.weight)
        self.norm = copy(body.norm.weight)
        self.head = copy(model.lm_head.weight)

    def _qkv(self, hidden_NC: Tensor, weights: dict[str, Any], cos_N: Tensor, sin_N: Tensor) -> Tensor:
        """Rotated queries and keys, and values: [N, heads + 2 * kv_heads, head_dim]."""
        norm_NC = F.rms_norm(hidden_NC, hidden_NC.shape[-1:], weights["norm1"], self.eps)
        qkv = F.linear(norm_NC, weights["qkv"], weights["qkv_bias"]).view(hidden_NC.shape[0], -1, self.head_dim)
        rotated = self.heads + self.kv_heads
        turning = qkv[:, :rotated]
        if weights["q_norm"] is not None:
            q = F.rms_norm(qkv[:, : self.heads], (self.head_dim,), weights["q_norm"], self.eps)
            k = F.rms_norm(qkv[:, self.heads : rotated], (self.head_dim,), weights["k_norm"], self.eps)
            turning = torch.cat((q, k), 1)
        half = self.head_dim // 2
        swapped = torch.cat((-turning[..., half:], turning[..., :half]), -1)
        qkv[:, :rotated] = torch.addcmul(turning * cos_N, swapped, sin_N)
        return qkv

    def _finish(self, hidden_NC: Tensor, attended_NC: Tensor, weights: dict[str, Any]) -> Tensor:
        """Output projection, residual, feed-forward."""
        hidden_NC = hidden_NC + F.linear(attended_NC, weights["out"], weights["out_bias"])
        norm_NC = F.rms_norm(hidden_NC, hidden_NC.shape[-1:], weights["norm2"], self.eps)
        gate, up = F.linear(norm_NC, weights["gate_up"]).chunk(2, -1)
        return hidden_NC + F.linear(F.silu(gate) * up, weights["down"])

    @torch.no_grad()
    def decode(self, tokens_S: Tensor, lengths_S: Tensor, longest: int) -> Tensor:
        """Feed one token to each of the first S slots; returns the next token's logits_SV in float32.

        tokens_S: token ids. lengths_S: tokens already in each slot's cache, where the new one goes; S is at least
        MIN_ROWS. longest: an upper bound of lengths_S.
        """
        slots = tokens_S.shape[0]
        padded = min(_round_up(longest + 1, 32), self.cache.shape[4])
        hidden = F.embedding(tokens_S, self.embedding)
        cos, sin = self.cos[lengths_S], self.sin[lengths_S]
        bias = torch.where(self.positions[:padded] <= lengths_S[:, None], 0.0, -torch.inf)
        bias = bias.to(self.dtype)[:, None, None]
        rows = self.rows[:slots]
        for layer, weights in enumerate(self.weights):
            qkv = self._qkv(hidden, weights, cos, sin)
            cache = self.cache[layer]
            cache[:, rows, :, lengths_S] = qkv[:, self.heads :].view(slots, 2, self.kv_heads, self.head_dim)
            keys, values = cache[:, :slots, :, :padded]
            queries = qkv[:, : self.heads].reshape(slots, self.kv_heads, -1, self.head_dim)
            scores = torch.softmax((queries * self.scale) @ keys.transpose(2, 3) + bias, -1)
            attended = scores[..., :SUMMED] @ values[:, :, :SUMMED]
            for first in range(SUMMED, padded, SUMMED):
                attended += scores[..., first : first + SUMMED] @ values[:, :, first : first + SUMMED]
            hidden = self._finish(hidden, attended.reshape(slots, -1), weights)
        hidden = F.rms_norm(hidden, hidden.shape[-1:], self.norm, self.eps)
        return F.linear(hidden, self.head).float()

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
        where = (starts_N[:, None] + self.positions[:length]).clamp(max=self.cache.shape[4] - 1)
        hidden = F.embedding(tokens_NL.reshape(-1), self.embedding)
        cos, sin = self.cos[where.reshape(-1)], self.sin[where.reshape(-1)]
        seen = self.positions[:padded] <= where[:, :, None]
        groups = self.heads // self.kv_heads
        for layer, weights in enumerate(self.weights):
            qkv = self._qkv(hidden, weights, cos, sin).view(count, length, -1, self.head_dim)
            cache = self.cache[layer]
            fresh = qkv[:, :, self.heads :].view(count, length, 2, self.kv_heads, self.head_dim)
            cache[:, slots_N[:, None], :, where] = fresh
            if layer == self.layers - 1:
                return
            keys, values = cache[:, slots_N, :, :padded]
            if groups > 1:
                keys, values = keys.repeat_interleave(groups, 1), values.repeat_interleave(groups, 1)
            attended = F.scaled_dot_product_attention(
                qkv[:, :, : self.heads].transpose(1, 2), keys, values, attn_mask=seen[:, None], scale=self.scale
            )
            hidden = self._finish(hidden, attended.transpose(1, 2).reshape(count * length, -1), weights)

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


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
