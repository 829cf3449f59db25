"""How full episodes with a slow tool keep the engine, by how many of them are in flight."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch

from ludus.agents.engine import Completion, Sampling
from ludus.agents.rollout import Arena, EpisodeRequest, Rollout
from ludus.agents.seeds import derive_seed
from ludus.agents.trajectory import Episode
from ludus.envs.source import ListSource
from ludus.envs.task import Task
from ludus.envs.text_env import TextEnv
from ludus.verifiers import Verdict

from .measure import in_turns, ratio
from .options import Options
from .step import FullLengthEngine
from .table import Table, verdict
from .tiny import describe_model, tiny_model

SLOTS = 64
SLOWEST_S = 2.0
MAX_LENGTH = 384


class UnevenEngine(FullLengthEngine):
    """Each turn has a length of its own, drawn evenly between `shortest` and sampling.max_tokens."""

    shortest = 24

    async def generate(self, token_ids: list[int], sampling: Sampling, session: str | None = None) -> Completion:
        """Sample as many tokens as were drawn for this turn."""
        new = int(np.random.default_rng(sampling.seed).integers(self.shortest, sampling.max_tokens + 1))
        return await super().generate(token_ids, replace(sampling, max_tokens=new), session)


class SlowTool(TextEnv):
    """A conversation that is answered after a time drawn evenly between 0 and `slowest_s`, by episode and turn."""

    def __init__(self, slowest_s: float, turns: int) -> None:
        self.slowest_s = slowest_s
        super().__init__(ListSource([Task("slow", "What does the slow tool say?", None)]), max_turns=turns)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Draw how long each turn takes."""
        self.sleeps = np.random.default_rng(seed).uniform(0.0, self.slowest_s, self.max_turns).tolist()
        return super().reset(seed=seed, options=options)

    def respond(self, task: Task, action: str) -> str | None:
        """Wait, then say something."""
        if self.slowest_s:
            time.sleep(self.sleeps[self.turn - 1])
        return "The tool says: 42."

    def verify(self, task: Task, response: str) -> Verdict:
        """Every conversation ends at its last turn."""
        return Verdict.wrong("There is no question.")


def tokens_per_second(slowest_s: float, in_flight: int, options: Options) -> float:
    """Sampled tokens a second while `in_flight` episodes are being played, without the beginning and the end of it."""
    turns, longest = (2, 32) if options.quick else (4, 72)
    model, tokenizer = tiny_model(MAX_LENGTH)
    engine = UnevenEngine(model, tokenizer, slots=8 if options.quick else SLOTS, max_length=MAX_LENGTH)
    arena = Arena.build("slow", partial(SlowTool, slowest_s, turns), tokenizer)
    count = 3 * in_flight
    asked = [
        EpisodeRequest(
            str(i), "slow", Task("slow", "What?", None), str(i), derive_seed(0, i), Sampling(max_tokens=longest)
        )
        for i in range(count)
    ]
    marks: list[tuple[float, int]] = []

    def note(episode: Episode) -> None:
        if episode.error or len(episode.trajectories[0].steps) != turns:
            raise AssertionError(f"an episode ended early: {episode.error or episode.stop_reason}")
        marks.append((time.perf_counter(), engine.generated_tokens))

    with Rollout(engine, {"slow": arena}, concurrency=in_flight) as player, torch.no_grad():
        player.run(asked, on_episode=note)
    (begun, first), (ended, last) = marks[in_flight - 1], marks[count - in_flight - 1]
    return (last - first) / (ended - begun)


def run(options: Options) -> list[Table]:
    """One table: the engine without tools, then with the slow one and more and more episodes in flight."""
    slots, slowest_s = (8, 0.02) if options.quick else (SLOTS, SLOWEST_S)
    counts = (8, 16) if options.quick else (64, 256, 384, 512)
    sides = {"none": partial(tokens_per_second, 0.0, 2 * slots, options)}
    sides |= {str(count): partial(tokens_per_second, slowest_s, count, options) for count in counts}
    found = in_turns(sides, options.times(3), warmups=0)
    columns = {"tool": "", "episodes in flight": ",d", "tokens/s": ",.0f", "share of the engine's": ".2f", "target": ""}
    table = Table(f"{slots} slots and a tool that sleeps 0-{slowest_s:g} s at random in each turn", columns)
    table.add("none", 2 * slots, found["none"], None, None)
    enough = None
    for count in counts:
        share = ratio(found[str(count)], found["none"])
        if enough is None and share.median >= 0.9:
            enough = count
        table.add("sleeps", count, found[str(count)], share, verdict(share, "at least", 0.9))
    table.notes.append(f"Fewest episodes in flight that keep 0.9: {enough or 'none of these'}.")
    table.notes.append(f"Medians of {options.times(3)} (smallest to largest), in turns; filling and emptying left out.")
    table.notes.append(describe_model(tiny_model()[0]))
    return [table]
