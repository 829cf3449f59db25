"""How rollout cost grows: with the number of episodes, and with the tokens of each."""

from __future__ import annotations

import torch

from ludus.agents.engine import Sampling
from ludus.agents.rollout import Arena, EpisodeRequest, Rollout
from ludus.agents.seeds import derive_seed
from ludus.envs.registration import make_env

from .measure import Sample, in_turns, seconds_of
from .options import Options
from .step import FullLengthEngine
from .table import Table, verdict
from .tiny import describe_model, tiny_model

SLOTS = 64
ENV = "ludus/WordMath-v0"


def rollout(max_length: int) -> Rollout:
    """The untrained model on word problems. Every answer has its full length and is then judged by the environment."""
    model, tokenizer = tiny_model(max_length)
    engine = FullLengthEngine(model, tokenizer, slots=SLOTS, max_length=max_length)
    arena = Arena.build(ENV, lambda: make_env(ENV, split="train", system_prompt="", max_turns=1), tokenizer)
    return Rollout(engine, {ENV: arena}, concurrency=SLOTS)


def requests(player: Rollout, count: int, new: int) -> list[EpisodeRequest]:
    """`count` episodes, each on a task of its own and `new` tokens long."""
    source = player.arenas[ENV].env.source
    return [
        EpisodeRequest(str(i), ENV, source.task(i), str(i), derive_seed(0, "scaling", i), Sampling(max_tokens=new))
        for i in range(count)
    ]


def run(options: Options) -> list[Table]:
    """One table by episodes and one by tokens."""
    repetitions = options.times(3)
    counts = (8, 16) if options.quick else (64, 256, 1024, 4096)
    lengths = (8, 16) if options.quick else (64, 128, 256, 512)
    short, batch = (4, 8) if options.quick else (32, SLOTS)
    by_count = _measure({count: (count, short) for count in counts}, 320, repetitions)
    by_length = _measure({length: (batch, length) for length in lengths}, 768, repetitions)

    episodes = Table(
        f"Rollout by episodes: {ENV}, one answer of {short} tokens each, {SLOTS} slots",
        {"episodes": ",d", "seconds": ".3f", "milliseconds an episode": ".2f"},
    )
    for count, sample in by_count.items():
        episodes.add(count, sample, 1e3 * sample.median / count)
    first, last = counts[0], counts[-1]
    growth = (by_count[last].median / last) / (by_count[first].median / first)
    episodes.notes.append(f"An episode among {last} costs {growth:.2f} times one among {first}.")
    episodes.notes.append(f"Linear growth is 1; {verdict(growth, 'at most', 1.2)}.")

    tokens = Table(
        f"Rollout by tokens: {batch} episodes of one answer, all of them in the engine at once",
        {"new tokens each": ",d", "seconds": ".3f", "microseconds a token": ".1f"},
    )
    for length, sample in by_length.items():
        tokens.add(length, sample, 1e6 * sample.median / (batch * length))
    first, last = lengths[0], lengths[-1]
    growth = (by_length[last].median / last) / (by_length[first].median / first)
    tokens.notes.append(f"A token of {last} costs {growth:.2f} times one of {first}, the prompt's share included.")
    tokens.notes.append("Linear growth is 1; attention over a longer text adds to it.")
    tokens.notes.append(describe_model(tiny_model()[0]))
    for table in (episodes, tokens):
        table.notes.append(f"Medians of {repetitions} turns (smallest to largest).")
    return [episodes, tokens]


def _measure(sizes: dict[int, tuple[int, int]], max_length: int, repetitions: int) -> dict[int, Sample]:
    """Seconds for each size, given as (episodes, new tokens)."""
    player = rollout(max_length)

    def timed(count: int, new: int) -> float:
        asked = requests(player, count, new)

        def play() -> None:
            episodes = player.run(asked)
            sampled = {sum(episode.trajectories[0].mask) for episode in episodes}
            if len(episodes) != count or sampled != {new} or any(episode.error for episode in episodes):
                raise AssertionError(f"{count} episodes of {new} tokens were asked for and others came back")

        return seconds_of(play)

    with player, torch.no_grad():
        sides = {str(key): lambda count=count, new=new: timed(count, new) for key, (count, new) in sizes.items()}
        next(iter(sides.values()))()
        found = in_turns(sides, repetitions, warmups=0)
    return {key: found[str(key)] for key in sizes}
