"""A mixture of experts learns with the experts that the sampler chose."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from mixture import CHOSEN, EXPERTS, LAYERS, mixture, own_choice
from tied_model import varied
from torch import Tensor

from ludus.agents.engine import EXPERT_TYPE, Completion, Sampling, StopReason
from ludus.agents.model import character_tokenizer
from ludus.agents.rollout import Arena, EpisodeRequest, Rollout
from ludus.agents.trajectory import Trajectory
from ludus.envs.source import ProceduralSource
from ludus.envs.task import Task
from ludus.envs.text_env import TextEnv
from ludus.trainers.batch import Row, collate, pack_rows
from ludus.trainers.critic import Critic, token_values
from ludus.trainers.expert_replay import ExpertReplay, ExpertReplayError, routers
from ludus.trainers.scoring import score
from ludus.verifiers.verdict import Verdict

PROMPT = [5, 6, 7, 8]


def as_bytes(chosen: Tensor) -> tuple[bytes, ...]:
    """Experts [T, layers, K] as trajectories hold them."""
    return tuple(row.numpy().astype(EXPERT_TYPE).tobytes() for row in chosen)


def trajectory(answer: Sequence[int], experts: Sequence[bytes | None] | None) -> Trajectory:
    count, tokens = len(answer), (*PROMPT, *answer)
    mask = (False,) * len(PROMPT) + (True,) * count
    blank = (0.0,) * len(tokens)
    return Trajectory(tokens, mask, blank, (0,) * len(tokens), experts=None if experts is None else tuple(experts))


def batch_of(*trajectories: Trajectory, share: bool = True) -> Any:
    rows = [Row(one, np.zeros(len(one.token_ids)), 1.0) for one in trajectories]
    return collate(rows, pack_rows(rows, share), 60, torch.device("cpu"))


def by_token(batch: Any, values_N: Tensor) -> dict[tuple[int, int], float]:
    return {(row, place): v for (row, place), v in zip(batch.source_N2.tolist(), values_N.tolist(), strict=True)}


def chosen_at_random(length: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(length, LAYERS, EXPERTS, generator=generator).argsort(-1)[..., :CHOSEN]


def told_to_choose(model: Any, chosen: Tensor) -> Any:
    """Another model that sees only some experts at each token: the logits of all others are minus infinity."""
    other = copy.deepcopy(model)
    for layer, block in enumerate(other.model.layers):

        def forward(states: Tensor, layer: int = layer, router: Any = block.mlp.gate) -> Any:
            logits = states.reshape(-1, states.shape[-1]) @ router.weight.T
            seen = torch.full_like(logits, -torch.inf).scatter(1, chosen[:, layer], 0.0)
            weights, indices = torch.softmax(logits + seen, -1).topk(CHOSEN)
            return logits, weights, indices

        block.mlp.gate.forward = forward
    return other


@pytest.mark.parametrize("family", ["qwen3", "qwen3, weights of all", "qwen2", "mixtral", "olmoe", "gpt-oss"])
def test_its_own_choice_changes_nothing_and_another_does(family: str) -> None:
    model, answer = mixture(family), [9, 10, 11, 12, 13, 14]
    tokens = [*PROMPT, *answer]
    alone, _ = score(model, batch_of(trajectory(answer, None)))
    with ExpertReplay(model) as replay:
        kept, _ = score(model, batch_of(trajectory(answer, as_bytes(own_choice(model, tokens)))))
        assert (replay.replaced, replay.choices) == (0, len(tokens) * LAYERS * CHOSEN)
        replay.rest()
        others, _ = score(model, batch_of(trajectory(answer, as_bytes(chosen_at_random(len(tokens), 1)))))
        assert 0 < replay.replaced < replay.choices
    assert torch.allclose(kept, alone, atol=1e-5)
    assert (others - alone).abs().max() > 0.01
    assert torch.equal(score(model, batch_of(trajectory(answer, None)))[0], alone)  # nothing is left of it


def test_experts_are_those_of_the_sampler_and_their_weights_those_of_the_trainer() -> None:
    """Log-probabilities and all gradients, the routers' among them, are those of a model that sees no others."""
    model, answer = mixture(), [9, 10, 11, 12, 13, 14]
    chosen = chosen_at_random(len(PROMPT) + len(answer), 2)
    other = told_to_choose(model, chosen)
    expected, _ = score(other, batch_of(trajectory(answer, None)))
    expected.sum().backward()  # type: ignore[no-untyped-call]
    with ExpertReplay(model):
        found, _ = score(model, batch_of(trajectory(answer, as_bytes(chosen))))
        found.sum().backward()  # type: ignore[no-untyped-call]
    assert torch.allclose(found, expected, atol=1e-5)
    theirs = dict(other.named_parameters())
    for name, weight in model.named_parameters():
        assert torch.allclose(weight.grad, theirs[name].grad, atol=1e-4), name
    assert all(layer.mlp.gate.weight.grad.abs().max() > 1e-3 for layer in model.model.layers)  # type: ignore[union-attr]


def test_blocks_that_are_computed_again_choose_the_same() -> None:
    """Gradient checkpointing runs them once more in the backward pass."""
    gradients = []
    for again in (False, True):
        model, answer = mixture().train(), [9, 10, 11, 12, 13]
        if again:
            model.gradient_checkpointing_enable()
        chosen = as_bytes(chosen_at_random(len(PROMPT) + len(answer), 3))
        with ExpertReplay(model):
            found, _ = score(model, batch_of(trajectory(answer, chosen)))
            found.sum().backward()  # type: ignore[no-untyped-call]
        gradients.append({name: weight.grad for name, weight in model.named_parameters()})
    for name, gradient in gradients[0].items():
        assert torch.allclose(gradient, gradients[1][name], atol=1e-5), name


def test_where_nothing_is_known_the_model_chooses() -> None:
    model, answer = mixture(), [9, 10, 11, 12, 13, 14]
    tokens, known = [*PROMPT, *answer], [True, False, True, True, False, True, False, True, True, False]
    others = chosen_at_random(len(tokens), 4)
    partial = [one if there else None for one, there in zip(as_bytes(others), known, strict=True)]
    with ExpertReplay(model) as replay:
        found, _ = score(model, batch_of(trajectory(answer, partial)))
        assert replay.choices == sum(known) * LAYERS * CHOSEN
        used = own_choice(model, tokens)  # while it follows
        whole, _ = score(model, batch_of(trajectory(answer, as_bytes(used))))
    assert torch.equal(used[known], others[known])
    assert not torch.equal(used, others)
    assert torch.allclose(found, whole, atol=1e-6)


def test_rows_that_share_a_prompt_keep_their_own_experts() -> None:
    """Packed and one by one, with rows of which nothing is known between them."""
    model = mixture()
    prompt = chosen_at_random(len(PROMPT), 5)
    paths = []
    for seed, answer in enumerate([[9, 10], [11, 12, 13], [14], [15, 16, 17, 18]]):
        own = torch.cat([prompt, chosen_at_random(len(answer), 10 + seed)])
        paths.append(trajectory(answer, as_bytes(own)))
    packed = batch_of(*paths)
    assert packed.segments_BT is not None and packed.experts_BTM.shape == (*packed.token_ids_BT.shape, LAYERS * CHOSEN)
    with ExpertReplay(model):
        together = by_token(packed, score(model, packed)[0])
        for row, path in enumerate(paths):
            alone = batch_of(path)
            for (_, place), value in by_token(alone, score(model, alone)[0]).items():
                assert together[row, place] == pytest.approx(value, abs=1e-5)


def test_a_batch_is_made_of_its_own_rows() -> None:
    """Those of other micro-batches are neither looked through nor in the way."""
    wide, narrow = (as_bytes(chosen_at_random(len(PROMPT) + 2, seed)) for seed in (7, 8))
    rows = [
        Row(trajectory(answer, experts), np.zeros(6), 1.0)
        for answer, experts in ([[9, 10], wide], [[11, 12], [one[:4] for one in narrow]], [[13, 14], None])
    ]
    batches = [collate(rows, [pack], 60, torch.device("cpu")) for pack in pack_rows(rows, share=False)]
    assert [None if b.experts_BTM is None else b.experts_BTM.shape[2] for b in batches] == [4, 2, None]


def test_a_copy_of_the_model_and_what_else_reads_it_choose_by_themselves() -> None:
    model, answer = mixture(), [9, 10, 11]
    reference = copy.deepcopy(model)
    chosen = as_bytes(chosen_at_random(len(PROMPT) + len(answer), 6))
    alone, _ = score(model, batch_of(trajectory(answer, None)))
    with ExpertReplay(model) as replay:
        score(model, batch_of(trajectory(answer, chosen)))
        assert torch.equal(score(reference, batch_of(trajectory(answer, chosen)))[0], alone)
        replay.rest()
        ids = torch.tensor([[*PROMPT, *answer, 20, 21]])  # of another length than the batch
        assert torch.equal(model(input_ids=ids).logits, reference(input_ids=ids).logits)


def test_a_critic_beside_it_chooses_by_itself() -> None:
    """It reads one token more than the trajectory has."""
    model, answer = mixture(), [9, 10, 11]
    critic = Critic(model)
    torch.nn.init.normal_(critic.head.weight)
    chosen = as_bytes(chosen_at_random(len(PROMPT) + len(answer), 6))
    with ExpertReplay(model):
        found = [
            token_values(critic, [Row(trajectory(answer, experts), np.zeros(7), 1.0)], 200)[0]
            for experts in (chosen, None)
        ]
    assert np.array_equal(*found) and found[0].any()


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (lambda: varied(0), "is no mixture of experts whose routing could be kept"),
        (lambda: mixture("deepseek", first_k_dense_replace=0), "How DeepseekV3TopkRouter weighs the experts"),
    ],
    ids=["dense", "deepseek"],
)
def test_models_whose_experts_cannot_be_chosen_are_refused(model: Any, says: str) -> None:
    with pytest.raises(ExpertReplayError, match=f"{says}.*remove engine.keep_routing"):
        routers(model())


def test_experts_of_another_model_are_refused() -> None:
    short = [one[:4] for one in as_bytes(chosen_at_random(len(PROMPT) + 1, 7))]
    model = mixture()
    with ExpertReplay(model), pytest.raises(ExpertReplayError, match=r"2 experts a token.*and the model has 4"):
        score(model, batch_of(trajectory([9], short)))


def test_they_come_through_json() -> None:
    path = trajectory([9, 10], [*as_bytes(chosen_at_random(5, 8)), None])
    again = Trajectory.from_json(json.loads(json.dumps(path.to_json())))
    assert again == path
    with pytest.raises(ValueError, match="differ in length"):
        trajectory([9, 10], as_bytes(chosen_at_random(5, 8)))


class Twice(TextEnv):
    """Two turns."""

    def __init__(self) -> None:
        super().__init__(ProceduralSource(lambda rng, i: Task(str(i), f"say {int(rng.integers(10))}", None)))

    def respond(self, task: Task, action: str) -> str | None:
        return "more" if self.turn < 2 else None

    def verify(self, task: Task, response: str) -> Verdict:
        return Verdict.correct("said")


class Telling:
    """Says "a" and ends the turn, and tells of each token that it read in which call that was."""

    version, max_length, generated_tokens, exact = 0, 100, 0, True

    def __init__(self, end_id: int) -> None:
        self.calls, self.end_id = 0, end_id

    async def generate(self, token_ids: list[int], sampling: Sampling, session: str | None = None) -> Completion:
        self.calls += 1
        sampled = ((10, self.end_id) * 50)[: sampling.max_tokens][:2]
        reason = StopReason.END if sampled[-1] == self.end_id else StopReason.LENGTH
        experts = (bytes([self.calls, 0]),) * (len(token_ids) + len(sampled) - 1)
        return Completion(sampled, (-1.0,) * len(sampled), reason, 0, experts=experts)

    def release(self, session: str) -> None:
        """Nothing is kept."""


@pytest.mark.parametrize("budget", [None, 1, 3])
def test_a_token_has_the_experts_of_the_call_that_read_it_first(budget: int | None) -> None:
    """The end of a turn is read by the next call. A pause changes nothing of what is known."""
    tokenizer = character_tokenizer()
    engine = Telling(tokenizer.eos_token_id)
    arenas = {"twice": Arena.build("twice", Twice, tokenizer)}
    with Rollout(engine, arenas) as rollout:  # type: ignore[arg-type]
        task = arenas["twice"].task(0)
        request = EpisodeRequest("e", "twice", task, "g", 0, Sampling(max_tokens=4), budget=budget)
        (episode,) = rollout.run([request])
        while episode.stop_reason == "paused":
            (episode,) = rollout.run(
                [EpisodeRequest("e", "twice", task, "g", 0, Sampling(max_tokens=4), begun=episode)]
            )
    (path,) = episode.trajectories
    assert path.experts is not None and len(path.experts) == len(path.token_ids)
    calls = [None if one is None else one[0] for one in path.experts]
    first = path.mask.index(True)
    whole = [*[1] * (first + 1), *[2] * (len(calls) - first - 2), None]
    if budget is None:
        assert calls == whole
    else:
        assert calls[:first] == [1] * first and calls[-1] is None and None not in calls[:-1]
        assert sorted(calls[:-1]) == calls[:-1]  # none is told anew
