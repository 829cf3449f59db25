"""Engines that are not the training module: their samples are weighed, and without kept sets they are refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from test_train import Run, ended, one_turn

from ludus.agents.engine import Completion, Sampling
from ludus.agents.torch_engine import TorchEngine
from ludus.trainers.algorithms import AlgorithmError, get_algorithm
from ludus.trainers.policy import PolicyTrainer


class Rounding:
    """An engine around another, as a server would be one: what it says of its samples is a little off.

    off: added to every log-probability, in nats. kept: whether it returns the kept sets.
    """

    def __init__(self, inner: TorchEngine, off: float = 0.0, kept: bool = True) -> None:
        self.inner, self.off, self.kept = inner, off, kept
        self.max_length, self.end_id = inner.max_length, inner.end_id

    @property
    def version(self) -> int:
        return self.inner.version

    @property
    def generated_tokens(self) -> int:
        return self.inner.generated_tokens

    async def generate(self, token_ids: list[int], sampling: Sampling, session: str | None = None) -> Completion:
        found = await self.inner.generate(token_ids, sampling, session)
        logprobs = tuple(logprob + self.off for logprob in found.logprobs)
        return replace(found, logprobs=logprobs, kept=found.kept if self.kept else None)

    def release(self, session: str) -> None:
        self.inner.release(session)

    def load_weights(self, model: Any, version: int) -> None:
        self.inner.load_weights(model, version)


def behind(run: Run, engine: Rounding) -> None:
    """Let a run play on another engine."""
    parts = {name: getattr(run.trainer, name) for name in PolicyTrainer.__dataclass_fields__ if name[0] != "_"}
    run.rollout.engine = engine  # type: ignore[assignment]
    run.trainer = PolicyTrainer(**{**parts, "engine": engine})


def corrections(off: float | None, **options: Any) -> tuple[list[np.ndarray], dict[str, Any]]:
    """The factor of each sampled token in one step on an engine that is off by so much; None: on the trainer's own."""
    run = Run(("vowels", one_turn(), 1.0), algorithm="dapo", options={"dynamic_sampling": False, **options}, steps=1)
    with ended(run) as run:
        if off is not None:
            behind(run, Rounding(run.trainer.engine, off))  # type: ignore[arg-type]
        (row,) = run.train()
        masks = [np.array(t.mask) for episodes, _ in run.kept for e in episodes for t in e.trajectories]
        found = [part.correction for parts in run.gradients[0] for part in parts if part is not None]
        return [values[mask] for values, mask in zip(found, masks, strict=True)], row


def test_the_engine_in_the_trainer_s_process_says_that_it_is_exact() -> None:
    with ended(Run(("vowels", one_turn(), 1.0))) as run:
        assert run.trainer.engine.exact  # type: ignore[attr-defined]
        narrow = TorchEngine(run.model, run.trainer.engine.tokenizer, slots=16, max_length=32, dtype=torch.bfloat16)
        assert not narrow.exact


@pytest.mark.parametrize(("off", "expected"), [(0.25, np.exp(-0.25)), (-0.5, np.exp(0.5)), (-1.0, 2.0)])
def test_samples_of_another_engine_are_weighed_by_default(off: float, expected: float) -> None:
    """By exp(old - sampler), up to 2."""
    found, row = corrections(off)
    assert np.concatenate(found) == pytest.approx(expected, rel=1e-3)
    assert row["kl_sampler"] == pytest.approx(off, abs=1e-3)


def test_samples_of_the_trainer_s_own_weights_are_not_weighed() -> None:
    found, _ = corrections(None)
    assert (np.concatenate(found) == 1).all()


@pytest.mark.parametrize(
    ("algorithm", "options"),
    [("opd", {}), ("rloo", {"kl_coef": 0.1}), ("ppo", {"kl_coef": 0.1}), ("reinforce++", {"kl_coef": 0.1})],
)
def test_what_a_token_is_worth_does_not_depend_on_what_the_engine_says_of_it(
    algorithm: str, options: dict[str, Any]
) -> None:
    """The divergences from teacher and reference are the policy's, whose steps the same samples make alike."""
    found = []
    for off in (None, 0.5):
        run = Run(
            ("vowels", one_turn(), 1.0), algorithm=algorithm, options={**options, "tis": 0}, steps=1, minibatches=2
        )
        with ended(run) as run:
            if off is not None:
                behind(run, Rounding(run.trainer.engine, off))  # type: ignore[arg-type]
            (row,) = run.train()
            found.append(([a for _, advantages in run.kept for own in advantages for a in own], row))
    (plain, row), (seen, other) = found
    assert np.concatenate(seen) == pytest.approx(np.concatenate(plain), abs=1e-3)
    for name in ("loss", "grad_norm", "kl_teacher"):
        assert (name in other) == (name in row) and other.get(name) == pytest.approx(row.get(name), abs=1e-3)


def test_the_default_can_be_replaced_or_switched_off() -> None:
    assert (np.concatenate(corrections(-0.5, tis=0)[0]) == 1).all()
    assert np.concatenate(corrections(-0.5, tis=1.2)[0]) == pytest.approx(1.2)
    assert (np.concatenate(corrections(-1.0, mis_high=2.0)[0]) == 0).all()
    sums, _ = corrections(-0.01, tis=100.0, tis_level="sequence")
    assert all(values == pytest.approx(np.exp(0.01 * len(values)), rel=1e-3) for values in sums)


@pytest.mark.parametrize(("sampling", "named"), [({"top_p": 0.8}, "top_p = 0.8"), ({"top_k": 5}, "top_k = 5")])
def test_an_engine_without_kept_sets_is_refused_for_training_with_truncation(
    sampling: dict[str, Any], named: str
) -> None:
    with ended(Run(("vowels", one_turn(), 1.0), steps=1)) as run:
        behind(run, Rounding(run.trainer.engine, kept=False))  # type: ignore[arg-type]
        run.trainer.stream.sampling = replace(run.trainer.stream.sampling, **sampling)
        with pytest.raises(AlgorithmError, match=f"Rounding does not say which tokens .*{named}.* set sampling"):
            run.train()


@pytest.mark.parametrize("sampling", [{}, {"temperature": 0.7}])
def test_without_truncation_it_trains(sampling: dict[str, Any]) -> None:
    with ended(Run(("vowels", one_turn(), 1.0), steps=1)) as run:
        behind(run, Rounding(run.trainer.engine, kept=False))  # type: ignore[arg-type]
        run.trainer.stream.sampling = replace(run.trainer.stream.sampling, **sampling)
        assert len(run.train()) == 1


def test_the_trainer_keeps_what_the_preset_corrects_besides() -> None:
    with ended(Run(("vowels", one_turn(), 1.0), algorithm="v32", steps=1)) as run:
        behind(run, Rounding(run.trainer.engine))  # type: ignore[arg-type]
        assert len(run.trainer.algorithm.corrections) == len(get_algorithm("v32").corrections) + 1
