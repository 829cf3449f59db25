"""train_recipe: one run from its recipe to its report, resumable at any moment.

Invariant: everything a run does next follows from its recipe and its newest checkpoint, so a killed run that is resumed
ends with the weights of one that was not (tests/test_resume.py).
"""

from __future__ import annotations

import itertools
import re
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from .agents.config import ModelConfig
from .agents.engine import resting
from .agents.evaluate import EvalResult, evaluate
from .agents.lora import BASE_BESIDE, path_from, save_merged, seen_from
from .agents.model import choose_device, copy_trained, prepare_model
from .agents.renderer import Renderer
from .agents.seeds import derive_seed
from .agents.trajectory import Episode
from .algorithm_choice import chosen_algorithm, sampling_of
from .arenas import EnvMakers
from .doctor import diagnose
from .memory_plan import memory_limit, plan_memory
from .newest_model import newest_model
from .placement import place_rollout
from .recipe import Recipe
from .report import write_report
from .run_folder import RunFolder
from .trainers.algorithms import AlgorithmError
from .trainers.checkpoint import (
    PHASES,
    Checkpoint,
    CheckpointError,
    list_checkpoints,
    load_weights,
    put_weights,
    save_checkpoint,
    save_weights,
    trained_weights,
    write_folder,
)
from .trainers.config import PolicyConfig
from .trainers.critic import Critic
from .trainers.curriculum import Curriculum
from .trainers.demonstrations import Demonstrations
from .trainers.expert_replay import ExpertReplay, routers
from .trainers.in_flight import Background, InFlight
from .trainers.ledger import Ledger
from .trainers.optimizer import AnyOptimizer, NonFiniteError, SpikeError, adamw_class, build_optimizer, load_state
from .trainers.pair_file import read_labelled, read_pairs
from .trainers.policy import PolicyTrainer
from .trainers.preference import Examples, check_examples, train_preference
from .trainers.preference_rounds import PreferenceRounds
from .trainers.recorder import Show
from .trainers.sft import train_sft
from .trainers.star import StarRounds
from .trainers.task_stream import TaskStream
from .trainers.token_gradients import TokenGradients
from .trainers.unfinished import Unfinished
from .wandb_log import WandbLog, wandb_package

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MERGED = "model"
"""Folder of a finished run that trained adapters: the policy with them merged, for programs that know none."""


def train_recipe(recipe: Recipe, run: RunFolder, *, resume: bool = False, display: Show) -> list[EvalResult]:
    """Run a recipe into a folder and return its last evaluation, one result for each environment.

    resume: continue from the newest checkpoint in the folder, or from the start where there is none yet.
    Everything a user can get wrong is a LudusError.
    """
    if recipe.threads is not None:
        torch.set_num_threads(recipe.threads)
    if recipe.trackers.wandb is not None:
        wandb_package()  # that it is missing is said before a model loads
    with _Session(recipe, run, display) as session, session.tracked():
        return session.run_all(resume)


class _Session:
    """The parts of one run, put together."""

    def __init__(self, recipe: Recipe, run: RunFolder, display: Show) -> None:
        self.recipe, self.run, self.display = recipe, run, display
        if recipe.policy is not None:
            self.algorithm = chosen_algorithm(recipe.policy, recipe.sampling.max_tokens, recipe.rollout.placement)
        makers = EnvMakers.of(recipe)  # the environments first: they fail sooner than a model loads
        self._plan_memory()
        self.model, self.tokenizer = prepare_model(recipe.model, recipe.seed, recipe.device)
        for optimizer in recipe.optimizers().values():
            adamw_class(optimizer.kind, self.model.device)  # a phase that cannot begin is not found after hours
        self.teacher = self._teacher()
        arenas = makers.arenas(self.tokenizer)
        for note in arenas.notes:
            self.display.note(note)
        self.held_out, self.weights = arenas.held_out, arenas.weights
        self.sampling = sampling_of(recipe.sampling, recipe.engine.deadline_s)
        self.examples = self._examples()
        self.learner = self._learner()
        if recipe.engine.keep_routing:
            routers(self.model)
        # Last, since it may start processes, which a fault above would leave behind.
        self.rollout, self.engine = place_rollout(recipe, self.model, self.tokenizer, arenas, display)

    def _plan_memory(self) -> None:
        """Say what the run will take, and what to change where that is more than there is."""
        device = choose_device(self.recipe.device)
        algorithm = self.algorithm if self.recipe.policy is not None else None
        learner = not (self.run.checkpoints / "reference_star").exists()
        plan = plan_memory(self.recipe, algorithm, device, newest_model, learner=learner)
        limit = memory_limit(device)
        self.display.note(plan.line(limit))
        warning = plan.warning(limit, self.recipe)
        if warning is not None:
            self.display.note(warning)

    def _examples(self) -> Examples | None:
        """The file of the preference phase, where it has one."""
        config = self.recipe.preference
        if config is None or config.path is None:
            return None
        # Only conversations of several turns need a template that appends; each of them is checked for itself.
        renderer = Renderer(self.tokenizer, roles=())
        read = read_labelled if config.method == "kto" else read_pairs
        examples: Examples = read(config.path, renderer, self.recipe.engine.max_length)
        check_examples(examples, config, None if config.method == "orpo" else self.model)
        return examples

    def _teacher(self) -> PreTrainedModel | None:
        """The model from which the algorithm distils, where it does."""
        policy = self.recipe.policy
        if policy is None or policy.teacher is None:
            return None
        chosen = self.run.checkpoints / "teacher.txt"  # a run that trains on has other checkpoints tomorrow
        if not chosen.exists():
            chosen.parent.mkdir(exist_ok=True)
            teacher = Path(newest_model(policy.teacher))  # of a hub name there is no such folder
            name = seen_from(chosen.parent, str(teacher.absolute())) if teacher.exists() else policy.teacher
            chosen.write_text(name, encoding="utf-8")
        path = path_from(chosen.parent, chosen.read_text(encoding="utf-8"))
        return self._with_our_tokens(path, f"teacher {policy.teacher}").eval().requires_grad_(False)

    def _learner(self) -> PreTrainedModel | None:
        """The model that STaR fine-tunes in the place of the policy; None without one, or where it is kept already."""
        star = self.recipe.star
        if star is None or star.learner is None or (self.run.checkpoints / "reference_star").exists():
            return None
        learner = self._with_our_tokens(newest_model(star.learner), f"learner {star.learner}")
        own, other = ({n: t.shape for n, t in m.state_dict().items()} for m in (self.model, learner))
        if own != other:
            raise AlgorithmError(
                f"The learner {star.learner} has another shape than the policy, whose place it takes; choose "
                "one of the same."
            )
        return learner

    def _with_our_tokens(self, path: str, what: str) -> PreTrainedModel:
        """Another model, whose tokens must be those of the policy."""
        model, tokenizer = prepare_model(ModelConfig(path=path), 0, self.recipe.device)
        if tokenizer.get_vocab() != self.tokenizer.get_vocab():
            raise AlgorithmError(
                f"The {what} has another vocabulary than the policy; choose one in which every token means the same."
            )
        return model

    def __enter__(self) -> _Session:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.rollout.close()
        finally:
            close = getattr(self.engine, "close", None)  # of an engine with processes of its own
            if close is not None:
                close()

    def tracked(self) -> AbstractContextManager[None]:
        """The trackers that the recipe wants, Weights & Biases for as long as the run goes."""
        self.run.trackers.tell = self.display.note
        if not self.recipe.trackers.tensorboard:
            self.run.trackers.remove("TensorBoard")
        config = self.recipe.trackers.wandb
        if config is None:
            return nullcontext()
        name, group = self.run.name_and_group
        log = WandbLog(self.run.path, config, self.recipe.model_dump(mode="json"), name, group)
        self.display.note(f"W&B: {log.place}")
        return self.run.trackers.also("W&B", log)

    def run_all(self, resume: bool) -> list[EvalResult]:
        """The phases in order, from where the newest checkpoint stands."""
        base = self.run.checkpoints / Path(BASE_BESIDE).name
        if self.recipe.model.lora and self.recipe.model.tiny and not base.exists():
            write_folder(base, self._write_merged)  # the adapters have learnt nothing yet
        start = self._restore() if resume else _Start()
        recipe = self.recipe
        results: list[EvalResult] = []
        if start.phase == "sft" and recipe.sft is not None and not start.finished:
            if start.step == 0:
                self.evaluate("start", 0)
            self._sft(start)
            start = _Start("sft", recipe.sft.steps, finished=True)
        if start.phase == "sft":
            results = self.evaluate("after_sft" if recipe.sft else "start", 0)
            start = _Start("star", 0)
        if start.phase == "star":
            if recipe.star is not None:
                if not start.finished:
                    self._star(start)
                results = self.evaluate("after_star", 0)
            start = _Start("preference", 0)
        if start.phase == "preference":
            if recipe.preference is not None:
                if not start.finished:
                    self._preference(start)
                results = self.evaluate("after_preference", 0)
            start = _Start("policy", 0)
        if recipe.policy is not None:
            self._policy(start)
            results = self.evaluate("final", recipe.policy.steps)
            self._consult_the_doctor(recipe.policy.steps)
        self._finish()
        return results

    # Phases

    def _sft(self, start: _Start) -> None:
        config = self.recipe.sft
        assert config is not None
        optimizer = build_optimizer(self.model, config.optimizer)
        if start.optimizer is not None:
            self._load(optimizer, start.optimizer)
        demonstrations = Demonstrations(
            self.weights,
            config.demonstrations,
            config.flaw_rate,
            derive_seed(self.recipe.seed, "sft"),
            self.recipe.engine.max_length,
            config.per_task,
        )
        self.display.phase("cold start", config.steps)

        def after_step(step: int) -> None:
            if step % self.recipe.checkpoint.every == 0 and step < config.steps:
                self._save("sft", step, optimizer, {"finished": False})

        with resting(self.engine):
            done = train_sft(
                self.model,
                optimizer,
                demonstrations,
                config,
                first_step=start.step,
                recorder=self.run,
                show=self.display,
                after_step=after_step,
            )
        self._save("sft", done, optimizer, {"finished": True})

    def _star(self, start: _Start) -> None:
        recipe, config = self.recipe, self.recipe.star
        assert config is not None
        optimizer = build_optimizer(self.model, config.optimizer)
        seed = derive_seed(recipe.seed, "star")
        stream = TaskStream(self.weights, seed, config.group_size, self.sampling)
        if start.optimizer is not None:
            self._load(optimizer, start.optimizer)
            stream.restore(start.extra["stream"])
        first = None
        if config.restart:
            first = dict(self._reference(start.step, "reference_star", self.learner).state_dict())
            self.learner = None
        self.engine.load_weights(self.model, start.step)
        rounds = StarRounds(
            model=self.model,
            optimizer=optimizer,
            engine=self.engine,
            rollout=self.rollout,
            stream=stream,
            config=config,
            seed=seed,
            recorder=self.run,
            show=self.display,
            first=first,
            keep_episodes=partial(self._keep_round, "star"),
        )
        self.display.phase("STaR", config.rounds)

        def after_round(number: int) -> None:
            finished = number == config.rounds
            self._save("star", number, rounds.optimizer, {"finished": finished, "stream": stream.state()})

        rounds.train(start.step, after_round)

    def _preference(self, start: _Start) -> None:
        recipe, config = self.recipe, self.recipe.preference
        assert config is not None
        optimizer = build_optimizer(self.model, config.optimizer)
        seed = derive_seed(recipe.seed, "preference")
        stream = TaskStream(self.weights, seed, config.group_size, self.sampling)
        if start.optimizer is not None:
            self._load(optimizer, start.optimizer)
            stream.restore(start.extra["stream"])
        measures = config.method != "orpo" and config.reference == "start"
        reference = self._reference(start.step, "reference_preference") if measures else None
        self.display.phase(config.method, config.steps)

        def after_step(step: int) -> None:
            if self.examples is None or step % recipe.checkpoint.every == 0 or step == config.steps:
                self._save("preference", step, optimizer, {"finished": step == config.steps, "stream": stream.state()})

        if self.examples is not None:
            with resting(self.engine):
                train_preference(
                    self.model,
                    optimizer,
                    self.examples,
                    config,
                    reference=reference,
                    seed=seed,
                    first_step=start.step,
                    recorder=self.run,
                    show=self.display,
                    after_step=after_step,
                )
            return
        self.engine.load_weights(self.model, start.step)
        PreferenceRounds(
            model=self.model,
            optimizer=optimizer,
            engine=self.engine,
            rollout=self.rollout,
            stream=stream,
            config=config,
            seed=seed,
            recorder=self.run,
            show=self.display,
            reference=reference,
            keep_episodes=partial(self._keep_round, "preference"),
        ).train(start.step, after_step)

    def _policy(self, start: _Start) -> None:
        """The policy phase; after a step that spoils the policy again from the last checkpoint, with other tasks."""
        config = self.recipe.policy
        assert config is not None
        while True:
            stream = self._stream(config)
            try:
                return self._policy_from(start, stream)
            except (NonFiniteError, SpikeError) as error:
                done = start.extra.get("rollbacks", 0)
                found = list_checkpoints(self.run.checkpoints)
                if done >= config.rollbacks or not found:
                    raise
                if found[-1].phase == "policy":
                    start = self._restore()
                else:  # the phase began with these weights
                    load_weights(self.model, found[-1].path)
                    self.run.truncate_metrics(self._begun)
                    start = _Start("policy", 0)
                self.model.zero_grad(set_to_none=True)
                if stream.ledger is not None:
                    stream.ledger.roll_back(start.extra.get("ledger", Ledger().state()))
                    start.extra["ledger"] = stream.ledger.state()
                start.extra.pop("unfinished", None)  # the same episodes would spoil the policy once more
                start.extra |= {"stream": stream.state(), "rollbacks": done + 1}
                self.display.note(f"{error} Roll-back {done + 1} of {config.rollbacks}, to step {start.step}.")
                self.run.log("rollback", start.step, reason=str(error), number=done + 1)

    def _stream(self, config: PolicyConfig) -> TaskStream:
        curriculum = None if config.curriculum is None else Curriculum(config.curriculum)
        seed = derive_seed(self.recipe.seed, "policy")
        return TaskStream(self.weights, seed, config.group_size, self.sampling, curriculum)

    def _policy_from(self, start: _Start, stream: TaskStream) -> None:
        recipe, config = self.recipe, self.recipe.policy
        assert config is not None
        if start.step == 0:
            self._begun = self.run.metrics_offset()
        optimizer = build_optimizer(self.model, config.optimizer)
        if start.optimizer is not None:
            self._load(optimizer, start.optimizer)
        if "stream" in start.extra:
            stream.restore(start.extra["stream"])
        self.engine.load_weights(self.model, start.step)
        unfinished = self._unfinished(start)
        trainer = PolicyTrainer(
            model=self.model,
            optimizer=optimizer,
            engine=self.engine,
            rollout=self.rollout,
            stream=stream,
            algorithm=self.algorithm,
            config=config,
            seed=recipe.seed,
            recorder=self.run,
            show=self.display,
            reference=self._policy_reference(start),
            teacher=self.teacher,
            state=start.extra.get("algorithm"),
            keep_episodes=self._keep_episodes if recipe.trajectories.episodes else None,
            multipliers=start.extra.get("multipliers", {}),
            norms=start.extra.get("norms", []),
            unfinished=unfinished,
            ledger=Ledger.restored(start.extra.get("ledger"), [] if unfinished is None else unfinished.names()),
            **self._critic(start),
        )
        self.display.phase(config.algorithm, config.steps)

        def after_step(step: int) -> None:
            if step % recipe.eval.every == 0 and step < config.steps:
                self.evaluate("during", step)
                self._consult_the_doctor(step)
                self.display.phase(config.algorithm, config.steps)
            if step % recipe.checkpoint.every == 0 or step == config.steps:
                save(step)

        def save(step: int) -> None:
            extra = {"finished": step == config.steps, "stream": stream.state(), "algorithm": trainer.state}
            extra |= {"norms": trainer.norms, "rollbacks": start.extra.get("rollbacks", 0)}
            if trainer.critic is not None and trainer.critic_optimizer is not None:
                extra["critic"] = {
                    "weights": trainer.critic.trained_state(),
                    "optimizer": trainer.critic_optimizer.state_dict(),
                }
            extra["ledger"] = trainer.ledger.state()
            if trainer.unfinished is not None:
                extra["unfinished"] = trainer.unfinished.state()
            if config.reference_every is not None and trainer.reference is not None:
                extra["reference"] = trained_weights(trainer.reference)
            self._save("policy", step, optimizer, {**extra, "multipliers": trainer.multipliers})

        if config.rollbacks and not list_checkpoints(self.run.checkpoints):
            save(0)  # else there would be nothing to go back to
        replay = ExpertReplay(self.model) if recipe.engine.keep_routing else nullcontext()
        try:
            with replay as trainer.replay:
                trainer.train(start.step, after_step)
        finally:
            if isinstance(trainer.unfinished, InFlight):
                trainer.unfinished.close()

    def _unfinished(self, start: _Start) -> Unfinished | InFlight | None:
        """The episodes that the policy of the checkpoint left to the next, where it may leave any."""
        config, rollout = self.recipe.policy, self.recipe.rollout
        unfinished: Unfinished | InFlight
        if rollout.placement == "ray_async":
            steps = None if config is None else config.steps
            unfinished = InFlight(cast(Background, self.rollout), rollout.max_staleness, steps)
        elif config is not None and config.partial_tokens is not None:
            unfinished = Unfinished(config.partial_tokens, config.max_staleness)
        else:
            return None
        if "unfinished" in start.extra:
            unfinished.restore(start.extra["unfinished"], self.sampling)
        return unfinished

    def _policy_reference(self, start: _Start) -> PreTrainedModel | None:
        """What the KL term measures from: the policy before the phase, or at the last renewal before the checkpoint."""
        if "reference" not in self.algorithm.needs:
            return None
        reference = self._reference(start.step, "reference")
        if "reference" in start.extra:
            put_weights(reference, start.extra["reference"])
        return reference

    def _critic(self, start: _Start) -> dict[str, Any]:
        """The critic and its optimizer, where the algorithm needs values, as the checkpoint left them."""
        assert self.recipe.policy is not None
        if "values" not in self.algorithm.needs:
            return {}
        critic = Critic(self.model)
        optimizer = build_optimizer(critic, self.recipe.policy.critic.optimizer)
        kept = start.extra.get("critic")
        if kept is not None:
            critic.load_state_dict(kept["weights"], strict=False)
            self._load(optimizer, kept["optimizer"])
        return {"critic": critic.eval(), "critic_optimizer": optimizer}

    def _load(self, optimizer: AnyOptimizer, state: dict[str, Any]) -> None:
        try:
            load_state(optimizer, state)
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"The optimizer in {self.run.checkpoints} is not the one of {self.run.path / 'recipe.yaml'} ({error}); "
                "undo the change of the recipe or start a new run."
            ) from error

    def _reference(self, step: int, name: str, origin: PreTrainedModel | None = None) -> PreTrainedModel:
        """A frozen copy of the policy as it was before the first step of a phase, kept in the run folder.

        Where the policy trains adapters, these are copied and the frozen weights below them shared. origin: the model
        that is kept instead, from the first step on.
        """
        folder = self.run.checkpoints / name
        if not folder.exists():
            if step:
                what = {"reference": "the KL term measures", "reference_star": "each round begins"}
                raise CheckpointError(
                    f"{folder} is missing, the policy as it was before step 1, from which "
                    f"{what.get(name, 'the preference loss measures')}; put it back or start a new run."
                )
            write_folder(folder, partial(save_weights, self.model if origin is None else origin))
        reference = copy_trained(self.model).eval().requires_grad_(False)
        load_weights(reference, folder)
        return reference

    def evaluate(self, stage: str, step: int) -> list[EvalResult]:
        """Greedy accuracy on the held-out split of every environment, logged."""
        config = self.recipe.eval
        count = config.tasks if stage == "during" else config.final_tasks or config.tasks
        self.model.eval()
        self.engine.load_weights(self.model, self.engine.version)
        sampling = sampling_of(self.recipe.sampling, self.recipe.engine.deadline_s, greedy=True)
        results = []
        for name, arena in self.held_out.items():
            size = arena.size
            self.display.phase("evaluation", count if size is None else min(count, size))
            progress = itertools.count(1)
            result = evaluate(
                self.rollout,
                name,
                tasks=count,
                sampling=sampling,
                seed=self.recipe.seed if config.seed is None else config.seed,
                on_episode=lambda _, progress=progress: self.display.update(next(progress)),  # type: ignore[misc]
            )
            shown = name.removeprefix("held-out/")
            self.run.log(
                "eval",
                step,
                stage=stage,
                env=shown,
                accuracy=result.accuracy,
                low=result.low,
                high=result.high,
                tasks=result.tasks,
                errors=result.errors,
                mean_reward=result.mean_reward,
                baselines=result.baselines,
                parts={path: asdict(score) for path, score in result.parts.items()},
                eval_seconds=result.seconds,
            )
            beside = "".join(f", {key} {value:.3f}" for key, value in result.baselines.items())
            self.display.note(
                f"{shown}, {stage.replace('_', ' ')}, step {step}: held-out accuracy {result.accuracy:.3f} "
                f"[{result.low:.3f}, {result.high:.3f}] of {result.tasks}{beside}"
            )
            kept = result.episodes[: self.recipe.trajectories.eval_episodes]
            suffix = "" if len(self.held_out) == 1 else "." + re.sub(r"[^A-Za-z0-9._-]", "_", shown)
            label = f"eval{suffix}-{step:06d}" if stage == "during" else f"eval{suffix}-{stage}"
            self.run.write_episodes(label, [self._row(episode, None, step) for episode in kept])
            results.append(result)
        return results

    def _consult_the_doctor(self, step: int) -> None:
        """Say and log what is found for the first time in this run."""
        rows = self.run.metrics()
        known = {row["name"] for row in rows if row["phase"] == "doctor"}
        for finding in diagnose(rows):
            if finding.name not in known:
                self.run.log("doctor", step, **finding.to_json())
                self.display.note(f"Doctor: {finding}")

    # Keeping

    def _keep_episodes(
        self,
        step: int,
        episodes: list[Episode],
        advantages: list[list[np.ndarray]],
        gradients: list[list[TokenGradients | None]],
    ) -> None:
        config = self.recipe.trajectories
        if config.episodes and (step == 1 or step % config.every == 0):
            chosen = list(zip(episodes, advantages, gradients, strict=True))[: config.episodes]
            rows = [
                {**self._row(e, a, step), "gradients": [None if one is None else one.to_json() for one in g]}
                for e, a, g in chosen
            ]
            self.run.write_episodes(f"policy-{step:06d}", rows)

    def _keep_round(self, phase: str, step: int, episodes: list[Episode]) -> None:
        config = self.recipe.trajectories
        if config.episodes and (step == 1 or step % config.every == 0):
            rows = [self._row(episode, None, step) for episode in episodes[: config.episodes]]
            self.run.write_episodes(f"{phase}-{step:06d}", rows)

    def _row(self, episode: Episode, advantages: list[np.ndarray] | None, step: int) -> dict[str, Any]:
        tokens = [[self.tokenizer.decode([i]) for i in t.token_ids] for t in episode.trajectories]
        rounded = None if advantages is None else [[round(float(a), 6) for a in part] for part in advantages]
        return {**episode.to_json(), "tokens": tokens, "advantages": rounded, "step": step}

    def _save(self, phase: str, step: int, optimizer: AnyOptimizer, extra: dict[str, Any]) -> None:
        state = {"optimizer": optimizer.state_dict(), "metrics_offset": self.run.metrics_offset(), **extra}
        keep = self.recipe.checkpoint.keep
        save_checkpoint(self.run.checkpoints, phase, step, self.model, self.tokenizer, state, keep)

    def _restore(self) -> _Start:
        found = list_checkpoints(self.run.checkpoints)
        if not found:
            incomplete = [
                path
                for path in self.run.checkpoints.glob("*-*")
                if path.name.startswith(tuple(f"{phase}-" for phase in PHASES))
            ]
            if incomplete:
                raise CheckpointError(
                    f"{self.run.checkpoints} holds no complete checkpoint, but {incomplete[0].name}; "
                    "put its files back, or move it away to begin anew."
                )
            self.display.note("No checkpoint yet: the run begins anew.")
            self.run.truncate_metrics(0)
            return _Start()
        newest: Checkpoint = found[-1]
        state = newest.state()
        needed = {"optimizer", "metrics_offset", "finished", *(("stream",) if newest.phase != "sft" else ())}
        if not needed <= set(state):
            raise CheckpointError(
                f"{newest.path / 'trainer_state.pt'} lacks {', '.join(sorted(needed - set(state)))}; "
                "delete that checkpoint to resume from the one before."
            )
        load_weights(self.model, newest.path)
        self.run.truncate_metrics(state["metrics_offset"])
        self.display.note(f"Resuming from {newest.path}.")
        finished = bool(state["finished"])
        left = None if finished and newest.phase != "policy" else state["optimizer"]
        return _Start(newest.phase, newest.step, finished, left, state)

    def _finish(self) -> None:
        path = write_report(self.run.path)
        found = list_checkpoints(self.run.checkpoints)
        model = f" The model: {found[-1].path}." if found else ""
        if self.recipe.model.lora is not None:
            merged = write_folder(self.run.path / MERGED, self._write_merged)
            model = f" The adapters: {found[-1].path}. The model with them merged: {merged}."
        self.display.note(f"Report: {path}.{model}")

    def _write_merged(self, place: Path) -> None:
        """The policy as a model without adapters, and its tokenizer."""
        save_merged(self.model, place)
        self.tokenizer.save_pretrained(place)


@dataclass
class _Start:
    """Where a run begins: after `step` steps of `phase`."""

    phase: str = "sft"
    step: int = 0
    finished: bool = False
    optimizer: dict[str, Any] | None = None
    extra: dict[str, Any] = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        self.extra = self.extra or {}
