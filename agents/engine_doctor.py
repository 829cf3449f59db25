"""The engine's doctor: why an engine's log-probabilities are not the trainer's, one cause told from the other.

Each cause is looked for by an experiment of its own, whose outcome the others leave as it is: the same prompts with a
temperature, with truncation, as tokens that their text would not give again, and before and after new weights.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from .engine import Completion, Sampling, TrainingEngine
from .seeds import derive_seed
from .weights import TransferError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

EXACT = 1e-3
"""Nats a token may differ in float32; measured are 5e-7 to 3e-6."""
ROUNDED = 0.25
"""Nats a token may differ by rounding to bfloat16; more is something else."""
TEMPERATURE, TOP_K = 0.6, 4
PROMPTS, PROMPT_TOKENS, NEW_TOKENS = 8, 40, 12
LONG_PROMPT_TOKENS = 400
"""Prefix caches keep whole blocks: 16 tokens on GPUs, 128 on processors."""
PERTURBATION = 0.3
"""Standard deviation of what is added to each weight, in those of its matrix, to have other weights."""
MESSAGES = ({"role": "user", "content": "What is 2 + 3?"}, {"role": "assistant", "content": "5"})


@dataclass(frozen=True)
class EngineFinding:
    """name: the cause. wrong: one sentence with the figures. change: what to do."""

    name: str
    wrong: str
    change: str

    def __str__(self) -> str:
        return f"{self.name}: {self.wrong} {self.change}"


@dataclass(frozen=True)
class EngineReport:
    """gaps: by experiment, the largest difference of a token's log-probability from the trainer's, in nats."""

    gaps: dict[str, float]
    findings: tuple[EngineFinding, ...]


def diagnose_engine(
    engine: TrainingEngine, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, seed: int = 0
) -> EngineReport:
    """What tells the engine's log-probabilities from those of `model`, which it is to serve.

    tokenizer: the trainer's. Other weights are loaded for a while; in the end the engine serves `model` again.
    """
    return _Examination(engine, model, tokenizer, seed).report()


class _Examination:
    def __init__(self, engine: Any, model: PreTrainedModel, tokenizer: Any, seed: int) -> None:
        self.engine, self.model, self.tokenizer, self.seed = engine, model, tokenizer, seed
        self.gaps: dict[str, float] = {}
        self.findings: list[EngineFinding] = []
        self.allowed = EXACT

    def report(self) -> EngineReport:
        version = self.engine.version
        self.template()
        try:
            self.weights_as_they_are()
            self.temperature()
            self.truncation()
            self.tokens()
            self.new_weights(version)
        finally:
            if self.engine.version != version:
                self.engine.load_weights(self.model, version)
        return EngineReport(self.gaps, tuple(self.findings))

    # Experiments

    def template(self) -> None:
        """The same messages by the engine's tokenizer and by the trainer's."""
        own = getattr(self.engine, "tokenizer", None)
        if own is None or self.tokenizer.chat_template is None:
            return
        shown = own.apply_chat_template(list(MESSAGES), tokenize=False) if own.chat_template else None
        wanted = self.tokenizer.apply_chat_template(list(MESSAGES), tokenize=False)
        if shown != wanted:
            self._found(
                "template",
                f"The engine's chat template makes {shown!r} of the messages of which the trainer's makes {wanted!r}.",
                "Serve the model's own tokenizer, or give both the same model.chat_template.",
            )

    def weights_as_they_are(self) -> None:
        """Plain samples, at temperature 1; where they differ, once more after the weights were sent again."""
        gap = self.gaps["plain"] = self._gap(self.model, Sampling(max_tokens=NEW_TOKENS))
        if gap <= EXACT:
            return
        if not self._load(self.model, self.engine.version):
            return
        gap = self.gaps["plain, sent again"] = self._gap(self.model, Sampling(max_tokens=NEW_TOKENS))
        if gap <= EXACT:
            self._stale(f"they differed by {self.gaps['plain']:.3g} nats until the weights were sent again")
        elif gap <= ROUNDED:
            self.allowed = max(EXACT, 3 * gap)
            self._found(
                "kernel precision",
                f"Log-probabilities differ by up to {gap:.2g} nats, as those of bfloat16 and other kernels do.",
                "Leave the correction for samples of another engine on (it is by default), or let the engine compute"
                " in float32.",
            )
        else:
            self.allowed = float("inf")
            self._found(
                "another model",
                f"Log-probabilities differ by up to {gap:.3g} nats, also after the weights were sent again.",
                "See that the engine computes the model of that folder, with the same configuration.",
            )

    def temperature(self) -> None:
        """Samples at a temperature against the trainer's distribution at it, and at temperature 1."""
        sampling = Sampling(max_tokens=NEW_TOKENS, temperature=TEMPERATURE)
        found = self._sample(sampling, "temperature")
        gap = self.gaps["temperature"] = self._worst(self.model, found, TEMPERATURE)
        if gap > self.allowed and self._worst(self.model, found, 1.0) <= self.allowed:
            self._found(
                "temperature",
                f"At temperature {TEMPERATURE} the engine returns the log-probabilities of temperature 1, which differ"
                f" by up to {gap:.3g} nats.",
                "Have it return those that it sampled from; of vLLM: logprobs_mode: processed_logprobs.",
            )

    def truncation(self) -> None:
        """Samples of the likeliest tokens against the distribution over these, and over all."""
        found = self._sample(Sampling(max_tokens=NEW_TOKENS, top_k=TOP_K), "truncation")
        gap = self.gaps["truncation"] = self._worst(self.model, found, 1.0, TOP_K)
        if gap > self.allowed and self._worst(self.model, found, 1.0) <= self.allowed:
            self._found(
                "truncation",
                f"With top_k = {TOP_K} the engine returns log-probabilities over all tokens, which differ by up to "
                f"{gap:.3g} nats.",
                "Have it return those that it sampled from; of vLLM: logprobs_mode: processed_logprobs.",
            )

    def tokens(self) -> None:
        """A prompt whose text would be other tokens: whether the engine reads the tokens or the text."""
        prompt, other = self._twice_tokenised()
        if prompt is None or other is None:
            return
        (found,) = self._generate([prompt], [Sampling(max_tokens=1, seed=self.seed)])
        gap = self.gaps["tokens"] = self._worst(self.model, [(prompt, found)], 1.0)
        if gap > self.allowed and self._worst(self.model, [(other, found)], 1.0) <= self.allowed:
            self._found(
                "re-tokenisation",
                f"The engine answered a prompt of {len(prompt)} tokens as if it were the {len(other)} tokens that its"
                f" text gives, a difference of {gap:.3g} nats.",
                "Give the engine token ids and take token ids from it; never encode sampled text again.",
            )

    def new_weights(self, version: int) -> None:
        """Other weights: prompts that the engine has seen under the old ones, and new ones."""
        other = self._perturbed()
        self._sample(Sampling(max_tokens=NEW_TOKENS), "seen")
        if not self._load(other, version + 1):
            return
        fresh = self.gaps["new weights"] = self._gap(other, Sampling(max_tokens=NEW_TOKENS), "fresh")
        seen = self.gaps["new weights, seen prompts"] = self._gap(other, Sampling(max_tokens=NEW_TOKENS), "seen")
        if fresh > self.allowed:
            self._stale(f"after new weights they differ by up to {fresh:.3g} nats")
        elif seen > self.allowed:
            self._found(
                "stale prefix cache",
                f"After new weights, prompts that were seen under the old ones differ by up to {seen:.3g} nats, and new"
                f" ones by {fresh:.2g}.",
                "Clear the prefix cache with each change of weights, or salt it by version.",
            )

    # How it is done

    def _found(self, name: str, wrong: str, change: str) -> None:
        self.findings.append(EngineFinding(name, wrong, change))

    def _stale(self, how: str) -> None:
        self._found(
            "stale weights",
            f"The engine does not serve the weights that it was given: {how}.",
            "Load them as VLLMEngine does; of vLLM's own reload, an output layer that is the embeddings stays behind on"
            " a CPU.",
        )

    def _load(self, model: PreTrainedModel, version: int) -> bool:
        try:
            self.engine.load_weights(model, version)
        except TransferError as error:
            self._stale(f"the proof failed ({error})")
            return False
        return True

    def _gap(self, model: PreTrainedModel, sampling: Sampling, name: str = "plain") -> float:
        return self._worst(model, self._sample(sampling, name), sampling.temperature)

    def _sample(self, sampling: Sampling, name: str) -> list[tuple[list[int], Completion]]:
        """Answers to the prompts of a name, which are always the same."""
        prompts = self._prompts(name)
        samplings = [
            Sampling(**{**vars(sampling), "seed": derive_seed(self.seed, name, n)}) for n in range(len(prompts))
        ]
        return list(zip(prompts, self._generate(prompts, samplings), strict=True))

    def _generate(self, prompts: Sequence[list[int]], samplings: Sequence[Sampling]) -> list[Completion]:
        async def all_of_them() -> list[Completion]:
            pairs = zip(prompts, samplings, strict=True)
            return await asyncio.gather(*(self.engine.generate(prompt, sampling) for prompt, sampling in pairs))

        return asyncio.run(all_of_them())

    def _prompts(self, name: str) -> list[list[int]]:
        """Random text as its own tokens, so that an engine that reads text shows no fault here."""
        found = []
        room = getattr(self.engine, "max_length", LONG_PROMPT_TOKENS) - NEW_TOKENS - 1
        size = min(LONG_PROMPT_TOKENS if name in ("seen", "fresh") else PROMPT_TOKENS, room)
        for n in range(PROMPTS):
            generator = torch.Generator().manual_seed(derive_seed(self.seed, "prompt", name, n))
            ids = torch.randint(len(self.tokenizer), (size,), generator=generator).tolist()
            text = self.tokenizer.decode([i for i in ids if i not in self.tokenizer.all_special_ids])
            found.append(self.tokenizer.encode(text, add_special_tokens=False)[:size] or ids)
        return found

    def _twice_tokenised(self) -> tuple[list[int] | None, list[int] | None]:
        """Tokens, and the other ones that their text gives: a token of several characters, spelled out."""
        before = self._prompts("tokens")[0]
        for token in range(len(self.tokenizer)):
            parts = [self.tokenizer.encode(c, add_special_tokens=False) for c in self.tokenizer.decode([token])]
            prompt = [*before, *(i for part in parts for i in part)]
            other = self.tokenizer.encode(self.tokenizer.decode(prompt), add_special_tokens=False)
            if len(parts) > 1 and other != prompt:
                return prompt, other
        return None, None

    @torch.no_grad()
    def _worst(
        self, model: PreTrainedModel, found: Sequence[tuple[list[int], Completion]], temperature: float, top_k: int = 0
    ) -> float:
        """The largest difference of a token's log-probability from what the model gives it."""
        worst = 0.0
        device = next(model.parameters()).device
        model.eval()
        for prompt, answer in found:
            if not answer.token_ids:
                continue
            ids = torch.tensor([[*prompt, *answer.token_ids]], device=device)
            logits = model(input_ids=ids).logits[0, len(prompt) - 1 : -1].float() / temperature
            if top_k:
                least = logits.topk(min(top_k, logits.shape[-1])).values[:, -1:]
                logits = logits.masked_fill(logits < least, -torch.inf)
            rows = torch.log_softmax(logits, -1).gather(1, torch.tensor(answer.token_ids, device=device)[:, None])
            own = torch.tensor(answer.logprobs, device=device)
            worst = max(worst, float((rows[:, 0] - own).abs().nan_to_num(nan=torch.inf).max()))
        return worst

    @torch.no_grad()
    def _perturbed(self) -> PreTrainedModel:
        other = copy.deepcopy(self.model)
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "perturbed"))
        for weight in other.parameters():
            noise = torch.randn(weight.shape, generator=generator).to(weight)
            weight.add_(noise * weight.float().std(correction=0).clamp(min=1e-3) * PERTURBATION)
        return other
