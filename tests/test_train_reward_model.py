"""Training reward models: heads that learn from their own pairs, reports of what they go by, ensembles, checkpoints."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_policy_gradient import SHAPE, make_episodes
from test_preference import letters, pair_up
from test_train import Notes
from twins import QWEN25_TEMPLATE, byte_tokenizer

from ludus.agents.model import create_tiny_model
from ludus.agents.renderer import Renderer
from ludus.envs.task import Message
from ludus.trainers.config import OptimizerConfig, RewardHeadConfig, RewardModelConfig
from ludus.trainers.optimizer import build_optimizer
from ludus.trainers.pair_file import answer_trajectory
from ludus.trainers.pairs import Pair, PreferenceError
from ludus.trainers.reward_model import create_reward_model, heads_of, reward_step, rewards_of, train_reward_model
from ludus.trainers.reward_report import correlation, higher, reward_reports
from ludus.verifiers.errors import VerifierError
from ludus.verifiers.reward_ensemble import RewardEnsemble, combine_rewards
from ludus.verifiers.reward_model import RewardModelScorer, Scorer
from ludus.verifiers.verdict import Outcome, Verdict
from ludus.verifiers.verifier import Verifier

HEADS = ("helpful", "harmless")
CONFIG = RewardModelConfig(
    steps=25,
    batch_size=12,
    heads={"helpful": RewardHeadConfig(margin=0.5), "harmless": RewardHeadConfig(centring=0.01)},
    optimizer=OptimizerConfig(lr=3e-3),
)


def fresh(heads: tuple[str, ...] = ("reward",), seed: int = 0, tokenizer: Any = None) -> tuple[Any, Any]:
    policy, own = create_tiny_model(SHAPE.model_copy(update={"initializer_range": 0.1}), 0)
    return create_reward_model(policy, tokenizer or own, heads, seed), own


def turned(pairs: list[Pair]) -> list[Pair]:
    return [Pair(pair.rejected, pair.chosen, pair.margin) for pair in pairs]


def train(model: Any, pairs: dict[str, list[Pair]], config: RewardModelConfig, seed: int = 0) -> list[dict[str, Any]]:
    notes = Notes()
    optimizer = build_optimizer(model, config.optimizer)
    done = lambda step: None  # noqa: E731
    train_reward_model(model, optimizer, pairs, config, seed=seed, recorder=notes, show=notes, after_step=done)
    return notes.rows


def test_the_reward_is_what_the_scorer_says_of_the_same_prompt_and_response() -> None:
    """Of a template that ends after the end of the turn with a newline, at which the classifier is read, too."""
    tokenizer = byte_tokenizer(QWEN25_TEMPLATE)
    shape = SHAPE.model_copy(update={"max_length": 512})
    policy, _ = create_tiny_model(shape, 0)
    policy.resize_token_embeddings(len(tokenizer))
    model = create_reward_model(policy, tokenizer)
    scorer = RewardModelScorer(model, tokenizer)
    renderer = Renderer(tokenizer, roles=())
    for prompt, response in (("What is 2 + 2?", "It is 4."), ("Why?", "Because, because."), ("Count.", "")):
        asked = [Message(role="user", content=prompt)]
        answer = answer_trajectory(renderer, asked, [Message(role="assistant", content=response)])
        assert float(rewards_of(model, [answer])[0, 0]) == pytest.approx(
            scorer.verify(None, response, prompt=prompt).value, abs=1e-5
        )


def test_a_reward_depends_on_its_answer_alone() -> None:
    model, _ = fresh(HEADS)
    answers = [t for e in make_episodes(0) for t in e.trajectories]
    together = rewards_of(model, answers, 100_000)
    alone = torch.cat([rewards_of(model, [answer], 1) for answer in answers])
    assert together.shape == (len(answers), 2)
    assert torch.allclose(together, alone, atol=1e-5)


@pytest.mark.parametrize("tokens", [1, 100])
def test_the_gradient_does_not_depend_on_how_the_step_is_cut(tokens: int) -> None:
    model, _ = fresh(HEADS)
    pairs = {"helpful": pair_up(3), "harmless": turned(pair_up(4))}
    found = []
    for size in (100_000, tokens):
        model.zero_grad()
        reward_step(model, pairs, CONFIG.model_copy(update={"micro_batch_tokens": size}))
        found.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    assert torch.allclose(*found, atol=2e-5 * float(found[0].abs().max()))


def test_each_head_learns_its_own_pairs_and_the_checkpoint_scores_the_same(tmp_path: Path) -> None:
    """What helps is what harms here, so only heads of their own can be right on both."""
    model, tokenizer = fresh(HEADS)
    held_out = {"helpful": letters(24, 1), "harmless": turned(letters(24, 1))}
    before = reward_reports(model, held_out, CONFIG)
    rows = train(model, {"helpful": letters(48, 0), "harmless": turned(letters(48, 0))}, CONFIG)
    after = reward_reports(model, held_out, CONFIG)
    for head in HEADS:
        assert after[head].accuracy > 0.95
        assert after[head].loss < before[head].loss
        assert after[head].position_bias == 0.0
    assert {"loss", "accuracy/helpful", "margin/harmless", "grad_norm", "lr"} <= rows[-1].keys()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    scorer = RewardModelScorer(tmp_path, label="helpful")
    better, worse = (scorer.verify(None, text, prompt="abcde").value for text in ("xx", "yy"))
    assert better > worse
    assert heads_of(scorer._model) == list(HEADS)
    answers = [pair.chosen for pair in held_out["helpful"]]
    assert torch.equal(rewards_of(scorer._model, answers), rewards_of(model, answers))


def test_an_epoch_shows_every_pair_once_and_a_run_goes_on_where_it_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = {"reward": letters(6, 0)}
    config = RewardModelConfig(steps=6, batch_size=2, optimizer=OptimizerConfig(lr=3e-3))
    shown: list[Pair] = []

    def spy(model: Any, part: Any, config: Any) -> dict[str, float]:
        shown.extend(part["reward"])
        return reward_step(model, part, config)

    monkeypatch.setattr("ludus.trainers.reward_model.reward_step", spy)
    whole, again = fresh()[0], fresh()[0]
    train(whole, pairs, config)
    epochs = shown[:6], shown[6:]
    assert all({id(pair) for pair in epoch} == {id(pair) for pair in pairs["reward"]} for epoch in epochs)
    assert epochs[0] != epochs[1]
    optimizer, notes = build_optimizer(again, config.optimizer), Notes()
    stop = config.model_copy(update={"steps": 4})
    for first, settings in ((0, stop), (4, config)):
        train_reward_model(
            again,
            optimizer,
            pairs,
            settings,
            first_step=first,
            recorder=notes,
            show=notes,
            after_step=lambda step: None,
        )
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in whole.state_dict().items())


def test_margins_part_rewards_and_centring_holds_them_around_zero() -> None:
    pairs, held_out = [replace(pair, margin=30.0) for pair in letters(48, 0)], letters(24, 1)
    apart, sums = {}, {}
    for name, settings in (
        ("plain", RewardHeadConfig()),
        ("margin", RewardHeadConfig(margin=1.0)),
        ("centred", RewardHeadConfig(centring=0.1)),
    ):
        model, _ = fresh()
        train(model, {"reward": pairs}, CONFIG.model_copy(update={"heads": {"reward": settings}}))
        chosen = rewards_of(model, [pair.chosen for pair in held_out])[:, 0]
        rejected = rewards_of(model, [pair.rejected for pair in held_out])[:, 0]
        apart[name], sums[name] = float((chosen - rejected).mean()), float((chosen + rejected).square().mean())
    assert apart["margin"] > apart["plain"] + 5
    assert sums["centred"] < 0.5 * sums["plain"]


def test_a_model_that_goes_by_length_is_found_out() -> None:
    """The longer answer is always the chosen one, whatever it says."""

    def by_length(pairs: list[Pair]) -> list[Pair]:
        pairs = [p for p in pairs if len(p.chosen.mask) != len(p.rejected.mask)]
        return [p if sum(p.chosen.mask) > sum(p.rejected.mask) else Pair(p.rejected, p.chosen) for p in pairs]

    model, _ = fresh()
    config = CONFIG.model_copy(update={"heads": {"reward": RewardHeadConfig()}})
    train(model, {"reward": by_length(letters(80, 0))}, config)
    report = reward_reports(model, {"reward": letters(40, 1)}, config)["reward"]
    assert report.length_bias > 0.8 and report.length_correlation > 0.8
    assert 0.3 < report.longer_chosen < 0.7 and report.accuracy < 0.8


def test_shares_and_correlations_by_hand() -> None:
    assert higher(np.array([1.0, 2.0, 3.0]), np.array([0.0, 2.0, 4.0])) == pytest.approx(0.5)
    assert correlation(np.array([1.0, 2.0, 3.0]), np.array([2.0, 4.0, 6.0])) == pytest.approx(1.0)
    assert correlation(np.array([1.0, 1.0]), np.array([0.0, 2.0])) == 0.0


def test_wrong_heads_are_refused_with_the_fix() -> None:
    policy, tokenizer = create_tiny_model(SHAPE, 0)
    with pytest.raises(PreferenceError, match="one or more different names"):
        create_reward_model(policy, tokenizer, ["a", "a"])
    model, _ = fresh(HEADS)
    with pytest.raises(PreferenceError, match="name the same in all three"):
        train(model, {"helpful": letters(2, 0)}, CONFIG)
    with pytest.raises(PreferenceError, match="'harmless' has no pairs; give some"):
        train(model, {"helpful": letters(2, 0), "harmless": []}, CONFIG)
    with pytest.raises(PreferenceError, match="no head 'honest'; name one of helpful, harmless"):
        reward_reports(model, {"honest": letters(2, 0)}, CONFIG)


# --- ensembles -----------------------------------------------------------------------------------------------------


class Says:
    """A scorer with one verdict for everything."""

    def __init__(self, verdict: Verdict) -> None:
        self.verdict = verdict

    def score_many(self, pairs: Any) -> list[Verdict]:
        return [self.verdict for _ in pairs]


def test_the_lower_bound_by_hand() -> None:
    """1, 2, 3: mean 2, standard deviation over the three sqrt(2/3)."""
    assert combine_rewards([1.0, 2.0, 3.0]) == 2.0
    assert combine_rewards([1.0, 2.0, 3.0], "lower_bound", 1.5) == pytest.approx(2 - 1.5 * math.sqrt(2 / 3))
    assert combine_rewards([5.0], "lower_bound") == 5.0


def test_an_ensemble_scores_where_all_its_members_do() -> None:
    members = [Says(Verdict.partial(value, "so")) for value in (1.0, 3.0)]
    ensemble = RewardEnsemble(members, how="lower_bound", k=0.5)
    assert isinstance(ensemble, Scorer) and isinstance(ensemble, Verifier)
    verdict = ensemble.verify(None, "x", prompt="y")
    assert (verdict.outcome, verdict.value, verdict.evidence["rewards"]) == (Outcome.PARTIAL, 1.5, [1.0, 3.0])
    lost, away = Says(Verdict.undecided("too long")), Says(Verdict.error("out of memory"))
    assert RewardEnsemble([*members, lost]).verify(None, "x") == Verdict.undecided("too long")
    assert RewardEnsemble([lost, *members, away]).verify(None, "x") == Verdict.error("out of memory")
    assert ensemble.score_many([]) == []


def test_members_that_began_from_other_seeds_disagree_and_the_lower_bound_charges_for_it() -> None:
    models = [fresh(seed=seed)[0] for seed in range(3)]
    config = RewardModelConfig(steps=12, batch_size=12, optimizer=OptimizerConfig(lr=3e-3))
    for seed, model in enumerate(models):
        train(model, {"reward": letters(48, 0)}, config, seed)
    known = [pair.chosen for pair in letters(16, 1)]
    rewards = torch.stack([rewards_of(model, known)[:, 0] for model in models])
    assert (rewards.std(0) > 0).all()
    tokenizer = fresh()[1]
    ensemble = RewardEnsemble([RewardModelScorer(model, tokenizer) for model in models], how="lower_bound")
    verdict = ensemble.verify(None, "xx", prompt="abcde")
    assert verdict.value is not None and verdict.value < np.mean(verdict.evidence["rewards"])


def test_wrong_ensembles_are_refused_with_the_fix() -> None:
    with pytest.raises(VerifierError, match="no members; give at least one"):
        RewardEnsemble([])
    with pytest.raises(VerifierError, match="choose 'mean' or 'lower_bound'"):
        RewardEnsemble([Says(Verdict.partial(0.0, ""))], how="max")  # type: ignore[arg-type]
    with pytest.raises(VerifierError, match="must be 0 or more"):
        RewardEnsemble([Says(Verdict.partial(0.0, ""))], k=-1.0)
