"""One GRPO step, end to end, against TRL's GRPOTrainer: the same tiny model, prompts, sizes and optimiser.

A step is everything from prompts to the next policy: rollout, rewards, advantages, gradient, AdamW, and, for Ludus, the
weights back in the engine. TRL generates with its own transformers generation (its default on a machine without vLLM),
in float32, without gradient checkpointing, and trains on micro-batches of the size at which it was fastest. Every
completion has its full length on both sides. TRL's loop calls back after each of its steps; Ludus takes its step there,
so the two take turns in one process.
"""

from __future__ import annotations

import tempfile
import time
import warnings
from dataclasses import replace
from typing import Any

import numpy as np

from ludus.agents.engine import Completion, Sampling, StopReason
from ludus.agents.rollout import Arena, Rollout
from ludus.agents.torch_engine import TorchEngine
from ludus.envs.source import ListSource
from ludus.envs.task import Task
from ludus.envs.text_env import TextEnv
from ludus.trainers.algorithms import get_algorithm
from ludus.trainers.config import OptimizerConfig, PolicyConfig
from ludus.trainers.optimizer import build_optimizer
from ludus.trainers.policy import PolicyTrainer
from ludus.trainers.task_stream import TaskStream
from ludus.verifiers.verdict import Outcome, Verdict

from .measure import BenchmarkError, Sample, ratio
from .options import Options
from .table import Table, verdict
from .tiny import describe_model, tiny_model

PROMPT_CHARS = 78
"""With the chat template's three tokens around it a prompt has about 80 tokens."""
GROUPS, GROUP_SIZE = 8, 8
MICRO_BATCH_TOKENS, TRL_MICRO_BATCH = 2048, 16
"""Of Ludus in tokens, as in the default recipe; of TRL in completions, which are 2,304 tokens."""
ADAMW = OptimizerConfig(lr=3e-4, betas=(0.9, 0.98), eps=1e-8, weight_decay=0.0, max_grad_norm=1.0)


def digit_share(text: str) -> float:
    """The reward on both sides: which share of the characters are digits."""
    return sum(character.isdigit() for character in text) / max(len(text), 1)


def prompts(count: int) -> list[str]:
    """`count` different texts of letters and spaces."""
    rng = np.random.default_rng(0)
    return ["".join(rng.choice(list("abcdefghij klmnop"), PROMPT_CHARS)) for _ in range(count)]


class DigitShare(TextEnv):
    """One turn; the reward is the share of digits in the answer."""

    def __init__(self, texts: list[str]) -> None:
        super().__init__(ListSource([Task(str(index), text, "") for index, text in enumerate(texts)]))

    def verify(self, task: Task, response: str) -> Verdict:
        """Judge by digits."""
        return Verdict(Outcome.PARTIAL, digit_share(response), "share of digits")


class FullLengthEngine(TorchEngine):
    """A TorchEngine without an end token, for which the limit is the end of the turn, so that the answer is judged."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.end_id = -1

    async def generate(self, token_ids: list[int], sampling: Sampling, session: str | None = None) -> Completion:
        """Sample exactly sampling.max_tokens tokens."""
        return replace(await super().generate(token_ids, sampling, session), stop_reason=StopReason.STOP)


class Silence:
    """A recorder and a display that keep nothing but the last metrics."""

    def __init__(self) -> None:
        self.last: dict[str, Any] = {}

    def log(self, phase: str, step: int, **values: Any) -> None:
        """Keep the last row."""
        self.last = values

    def write_episodes(self, label: str, rows: list[dict[str, Any]]) -> None:
        """Nothing."""

    def metrics_offset(self) -> int:
        """Nothing was written."""
        return 0

    def phase(self, name: str, total: int) -> None:
        """Nothing."""

    def update(self, step: int, **shown: object) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""


class LudusSide:
    """Ludus with its own copy of the model; each call of `step` is one step."""

    def __init__(self, texts: list[str], steps: int, new: int) -> None:
        self.model, tokenizer = tiny_model()
        size = GROUPS * GROUP_SIZE
        engine = FullLengthEngine(self.model, tokenizer, slots=size, max_length=256)
        arena = Arena.build("digits", lambda: DigitShare(texts), tokenizer)
        self.rollout = Rollout(engine, {"digits": arena}, concurrency=size)
        self.silence = Silence()
        self.taken = 0
        self.trainer = PolicyTrainer(
            model=self.model,
            optimizer=build_optimizer(self.model, ADAMW),
            engine=engine,
            rollout=self.rollout,
            stream=TaskStream([(arena, 1.0)], 0, GROUP_SIZE, Sampling(max_tokens=new)),
            algorithm=get_algorithm("grpo", kl_coef=0.0),
            config=PolicyConfig(
                steps=steps,
                groups=GROUPS,
                group_size=GROUP_SIZE,
                micro_batch_tokens=MICRO_BATCH_TOKENS,
                optimizer=ADAMW,
            ),
            seed=0,
            recorder=self.silence,
            show=self.silence,
        )

    def step(self) -> tuple[float, float]:
        """Take one step; its seconds, and how many of them the rollout took."""
        start = time.perf_counter()
        self.trainer.step(self.taken)
        seconds = time.perf_counter() - start
        self.taken += 1
        return seconds, self.silence.last["rollout_seconds"]


def alternate(steps: int, new: int) -> tuple[list[float], list[float], list[float]]:
    """Seconds of each step of Ludus, of its rollout within it, and of each step of TRL, taken in turns."""
    trl = _import_trl()
    import datasets
    import transformers

    texts = prompts(GROUPS * steps)
    side = LudusSide(texts, steps, new)
    model, tokenizer = tiny_model()
    ludus_s: list[float] = []
    rollout_s: list[float] = []
    trl_s: list[float] = []

    class Turns(transformers.TrainerCallback):
        """Times TRL from the end of one callback to the beginning of the next."""

        start = 0.0

        def on_train_begin(self, *_: Any, **__: Any) -> None:
            self.start = time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            trl_s.append(time.perf_counter() - self.start)
            whole, rollout = side.step()
            ludus_s.append(whole)
            rollout_s.append(rollout)
            self.start = time.perf_counter()

    def reward(completions: list[list[dict[str, str]]], **_: Any) -> list[float]:
        return [digit_share(messages[0]["content"]) for messages in completions]

    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        # TRL 1.16 says gradient_checkpointing, for which transformers 5.23 has another word.
        warnings.simplefilter("ignore", FutureWarning)
        settings = trl.GRPOConfig(
            output_dir=folder,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            per_device_train_batch_size=TRL_MICRO_BATCH,
            gradient_accumulation_steps=GROUPS * GROUP_SIZE // TRL_MICRO_BATCH,
            num_generations=GROUP_SIZE,
            max_completion_length=new,
            generation_kwargs={"min_new_tokens": new},
            temperature=1.0,
            beta=0.0,
            num_iterations=1,
            loss_type="grpo",
            scale_rewards="group",
            max_steps=steps,
            learning_rate=ADAMW.lr,
            lr_scheduler_type="constant",
            optim="adamw_torch_fused",
            adam_beta1=ADAMW.betas[0],
            adam_beta2=ADAMW.betas[1],
            adam_epsilon=ADAMW.eps,
            weight_decay=ADAMW.weight_decay,
            max_grad_norm=ADAMW.max_grad_norm,
            logging_strategy="no",
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
        )
        rows = [{"prompt": [{"role": "user", "content": text}]} for text in texts]
        trainer = trl.GRPOTrainer(
            model=model,
            reward_funcs=reward,
            args=settings,
            train_dataset=datasets.Dataset.from_list(rows),
            processing_class=tokenizer,
            callbacks=[Turns()],
        )
        trainer.remove_callback(transformers.PrinterCallback)
        trainer.train()
    side.rollout.close()
    return ludus_s, rollout_s, trl_s


def run(options: Options) -> list[Table]:
    """The table of one step."""
    new, warmups = (8, 1) if options.quick else (64, 3)
    steps = options.times(15)
    ludus_s, rollout_s, trl_s = (found[warmups:] for found in alternate(warmups + steps, new))
    tokens = GROUPS * GROUP_SIZE * new
    ours, theirs = (Sample(tuple(tokens / s for s in found)) for found in (ludus_s, trl_s))
    gain = ratio(ours, theirs)
    columns = {"side": "", "tokens/s": ",.0f", "seconds a step": ".3f", "of these, rollout": ".3f", "ratio": ".2f"}
    table = Table("One GRPO step against TRL", {**columns, "target": ""})
    rate = verdict(gain, "at least", 1.5)
    table.add("Ludus", ours, Sample(tuple(ludus_s)), Sample(tuple(rollout_s)), gain, rate)
    table.add(f"TRL {_import_trl().__version__}", theirs, Sample(tuple(trl_s)), None, None, None)
    table.notes.append(f"{GROUPS} prompts of about 80 tokens, {GROUP_SIZE} completions of {new} tokens each.")
    table.notes.append(f"Medians of {steps} steps (smallest to largest), {warmups} of warm-up.")
    table.notes.append(describe_model(tiny_model()[0]))
    return [table]


def _import_trl() -> Any:
    try:
        import datasets  # noqa: F401
        import trl
    except ImportError as error:
        raise BenchmarkError(
            f"TRL is measured beside Ludus; install it with: pip install 'ludus[bench]' ({error})"
        ) from None
    return trl
