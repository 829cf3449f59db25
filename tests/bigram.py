"""Models whose every answer is known beforehand: the next token depends on the last one alone, as a table says."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def bigram_model(logits_VV: Tensor, multiple: int = 8) -> PreTrainedModel:
    """A Qwen2 model with logits logits_VV[last token] at every position: attention and feed-forward add nothing.

    multiple: the hidden size is one of it; each of the two heads has half of that.
    """
    from transformers import Qwen2Config, Qwen2ForCausalLM

    size = logits_VV.shape[0]
    hidden = -(-size // multiple) * multiple
    config = Qwen2Config(
        vocab_size=size,
        hidden_size=hidden,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=512,
        tie_word_embeddings=False,
    )
    model = Qwen2ForCausalLM(config).float().eval()
    with torch.no_grad():
        model.model.layers[0].self_attn.o_proj.weight.zero_()
        model.model.layers[0].mlp.down_proj.weight.zero_()
        model.model.embed_tokens.weight.copy_(torch.eye(size, hidden))
        # The normed embedding of token v is sqrt(hidden) in place v and 0 elsewhere.
        model.lm_head.weight.zero_()
        model.lm_head.weight[:, :size] = logits_VV.T / hidden**0.5
    return model


def writing_model(tokenizer: PreTrainedTokenizerBase, follows: Mapping[int, int]) -> PreTrainedModel:
    """Greedy, it writes follows[t] after the token t, and the end of its turn after any other."""
    logits_VV = torch.zeros(len(tokenizer), len(tokenizer))
    logits_VV[:, tokenizer.eos_token_id] = 20.0
    for before, after in follows.items():
        logits_VV[before] = 0.0
        logits_VV[before, after] = 20.0
    return bigram_model(logits_VV)


def chain(tokens: Sequence[int]) -> dict[int, int]:
    """The table of a model that goes through `tokens` in order; each may stand there once."""
    assert len(set(tokens)) == len(tokens), "a token that stands twice would have two followers"
    return dict(itertools.pairwise(tokens))


def drifting_model(tokenizer: PreTrainedTokenizerBase, end: float, seed: int = 0) -> PreTrainedModel:
    """Writes random printable characters; each token ends the turn with the probability `end`."""
    size, end_id = len(tokenizer), tokenizer.eos_token_id
    generator = torch.Generator().manual_seed(seed)
    logits_VV = torch.randn(size, size, generator=generator) * 0.5
    first = tokenizer.convert_tokens_to_ids("0")
    logits_VV[:, :first] = -30.0
    others: Any = torch.logsumexp(logits_VV[:, first:], -1)
    logits_VV[:, end_id] = others + torch.logit(torch.tensor(end))
    return bigram_model(logits_VV)


def calling_model(tokenizer: PreTrainedTokenizerBase, call: str, answers: str) -> PreTrainedModel:
    """Writes one of the letters of `answers`, or, as often as both of two, <tool_call>, `call` and </tool_call>.

    The tokenizer has one token for each of these three.
    """
    ids: Any = tokenizer.convert_tokens_to_ids(["<|assistant|>", "<tool_call>", call, "</tool_call>", *answers])
    begin, opening, body, closing, *letters = ids
    logits_VV = torch.full((len(tokenizer), len(tokenizer)), -30.0)
    logits_VV[:, tokenizer.eos_token_id] = 0.0
    for before, after in ((begin, [opening, *letters]), (opening, [body]), (body, [closing])):
        logits_VV[before] = -30.0
        logits_VV[before, after] = 0.0
    logits_VV[begin, opening] = torch.log(torch.tensor(2.0))
    return bigram_model(logits_VV, multiple=128)  # vLLM on a CPU wants a head of 64
