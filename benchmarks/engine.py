"""TorchEngine against transformers' `generate`: the same tiny model, the same prompts, temperature 1.

Two workloads. Equal lengths is what `generate` is made for. Episodes of several turns, each turn of another length, is
what agents do: there the peer takes all unfinished episodes as one batch padded on the left, generates up to the turn's
largest number of tokens, cuts each to its own, appends the observations, and starts again from the text of the next
turn. Only tokens that an episode asked for count, on both sides; on neither can an end token come early.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ludus.agents.engine import Sampling
from ludus.agents.torch_engine import TorchEngine

from .measure import in_turns, ratio, seconds_of
from .options import Options
from .table import Table, verdict
from .tiny import describe_model, tiny_model

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

SPECIAL = 16
"""Token ids below are special ones; prompts and observations have none of them."""
# Without an end token no processor forbids it and no criterion looks for it: the peer's best case.
FREE: dict[str, Any] = {
    "do_sample": True,
    "temperature": 1.0,
    "top_k": 0,
    "top_p": 1.0,
    "eos_token_id": None,
    "pad_token_id": 0,
}


@dataclass(frozen=True)
class Turn:
    """One turn: so many sampled tokens, then an observation."""

    new: int
    observation: tuple[int, ...]


@dataclass(frozen=True)
class Plan:
    """One episode, drawn before anything is timed."""

    opening: tuple[int, ...]
    turns: tuple[Turn, ...]

    @property
    def useful(self) -> int:
        """Sampled tokens that the episode asks for."""
        return sum(turn.new for turn in self.turns)


def equal_plans(count: int, prompt: int, new: int, vocabulary: int) -> list[Plan]:
    """`count` different prompts of `prompt` tokens, each continued once by `new` tokens."""
    rng = np.random.default_rng(0)
    return [Plan(_tokens(rng, prompt, vocabulary), (Turn(new, ()),)) for _ in range(count)]


def uneven_plans(count: int, vocabulary: int, seed: int = 0) -> list[Plan]:
    """Episodes with an opening of 60-100 tokens and 1-6 turns of 4-48 sampled and 4-12 observed tokens."""
    rng = np.random.default_rng(seed)
    plans = []
    for _ in range(count):
        opening = _tokens(rng, int(rng.integers(60, 101)), vocabulary)
        turns = tuple(
            Turn(int(rng.integers(4, 49)), _tokens(rng, int(rng.integers(4, 13)), vocabulary))
            for _ in range(int(rng.integers(1, 7)))
        )
        plans.append(Plan(opening, turns))
    return plans


def _tokens(rng: np.random.Generator, count: int, vocabulary: int) -> tuple[int, ...]:
    return tuple(rng.integers(SPECIAL, vocabulary, count).tolist())


def play_ludus(engine: TorchEngine, plans: Sequence[Plan]) -> int:
    """Play all plans as coroutines over one engine; the number of sampled tokens."""

    async def episode(index: int, plan: Plan) -> int:
        tokens, count = list(plan.opening), 0
        for number, turn in enumerate(plan.turns):
            sampling = Sampling(max_tokens=turn.new, seed=8 * index + number)
            completion = await engine.generate(tokens, sampling, session=str(index))
            count += len(completion.token_ids)
            tokens = [*tokens, *completion.token_ids, *turn.observation]
        engine.release(str(index))
        return count

    async def every() -> int:
        return sum(await asyncio.gather(*(episode(index, plan) for index, plan in enumerate(plans))))

    return asyncio.run(every())


def play_transformers(model: PreTrainedModel, plans: Sequence[Plan]) -> int:
    """Play all plans as one batch, turn by turn; the number of sampled tokens that were asked for."""
    sequences, count = [list(plan.opening) for plan in plans], 0
    for number in range(max(len(plan.turns) for plan in plans)):
        alive = [index for index, plan in enumerate(plans) if number < len(plan.turns)]
        new = max(plans[index].turns[number].new for index in alive)
        width = max(len(sequences[index]) for index in alive)
        rows = [[0] * (width - len(sequences[index])) + sequences[index] for index in alive]
        mask = [[0] * (width - len(sequences[index])) + [1] * len(sequences[index]) for index in alive]
        found = model.generate(  # type: ignore[operator]
            input_ids=torch.tensor(rows), attention_mask=torch.tensor(mask), max_new_tokens=new, **FREE
        )
        for row, index in zip(found[:, width:].tolist(), alive, strict=True):
            turn = plans[index].turns[number]
            sequences[index] += [*row[: turn.new], *turn.observation]
            count += min(len(row), turn.new)
    return count


def run(options: Options) -> list[Table]:
    """The table of both workloads."""
    model, tokenizer = tiny_model()
    sizes = (8,) if options.quick else (64, 128)
    new, episodes = (8, 8) if options.quick else (64, 128)
    columns = {
        "workload": "",
        "Ludus, tokens/s": ",.0f",
        "transformers, tokens/s": ",.0f",
        "ratio": ".2f",
        "target": "",
    }
    table = Table("TorchEngine against transformers' generate", columns)
    for size in sizes:
        plans = equal_plans(size, 80, new, model.config.vocab_size)
        name = f"equal lengths, batch {size}: {new} new tokens after 80"
        table.add(name, *_compare(model, tokenizer, plans, size, options, target=1.5))
    plans = uneven_plans(episodes, model.config.vocab_size)
    useful = sum(plan.useful for plan in plans)
    name = f"{episodes} episodes, 1-6 turns of 4-48 new tokens, {useful} in all"
    table.add(name, *_compare(model, tokenizer, plans, episodes, options, target=2.5))
    table.notes.append(describe_model(model))
    table.notes.append(f"Medians of {options.times(5)} turns (smallest to largest), one turn of warm-up.")
    table.notes.append("Ludus also returns the log-probability of every token; the peer is not asked for it.")
    return [table]


def _compare(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    plans: Sequence[Plan],
    slots: int,
    options: Options,
    target: float,
) -> tuple[Any, ...]:
    useful = sum(plan.useful for plan in plans)
    engine = TorchEngine(model, tokenizer, slots=slots, max_length=512)
    engine.end_id = -1

    def ludus() -> float:
        return useful / seconds_of(lambda: _check(play_ludus(engine, plans), useful))

    def transformers() -> float:
        return useful / seconds_of(lambda: _check(play_transformers(model, plans), useful))

    found = in_turns({"ludus": ludus, "transformers": transformers}, options.times(5))
    gain = ratio(found["ludus"], found["transformers"])
    return found["ludus"], found["transformers"], gain, verdict(gain, "at least", target)


def _check(count: int, useful: int) -> None:
    if count != useful:
        raise AssertionError(f"{count} tokens were sampled where {useful} were asked for")
