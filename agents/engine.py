"""What an engine is: token ids in, sampled token ids with log-probabilities out; or messages in, a message out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from ..sandbox.errors import LudusError
from ..verifiers.repetition import Loop

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class StopReason(StrEnum):
    """Why a generation ended."""

    END = "end"
    """The policy sampled the end-of-turn token."""
    STOP = "stop"
    """The text ended with a stop sequence."""
    LOOP = "loop"
    """The text went round in circles."""
    LENGTH = "length"
    """max_tokens were sampled."""
    CONTEXT = "context"
    """The sequence reached the engine's longest length."""
    DEADLINE = "deadline"
    """The time given to this generation ran out."""
    INTERRUPTED = "interrupted"
    """New weights came; the turn goes on under them."""


EXPERT_TYPE = "<u2"
"""Of the number of an expert, as NumPy names types."""
LOWEST_TEMPERATURE = 1e-3
"""Below it, and above 0, scaled logits leave what float32 holds."""


@dataclass(frozen=True)
class Sampling:
    """How one generation samples.

    temperature 0 is greedy (log-probabilities are then those at temperature 1); others are LOWEST_TEMPERATURE or more.
    top_k 0 and top_p 1 truncate nothing.
    stop: sequences of text; the token that completes one is the last of the generation. seed: of this request alone.
    stop_on_loop: what counts as going round in circles, among the tokens of this generation; None never stops for it.
    deadline_s: seconds until the generation is cut with StopReason.DEADLINE. begun: the tokens at the end of the prompt
    that were sampled earlier in the same turn; stop sequences and loops reach back into them.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    max_tokens: int = 64
    stop: tuple[str, ...] = ()
    seed: int = 0
    deadline_s: float | None = None
    stop_on_loop: Loop | None = None
    begun: tuple[int, ...] = ()


class EngineError(LudusError):
    """A request that an engine cannot serve, or an engine that has failed."""


def check_request(token_ids: Sequence[int], sampling: Sampling, max_length: int) -> None:
    """EngineError where no engine could continue these tokens. max_length: of a sequence, prompt included."""
    if not token_ids:
        raise EngineError("A prompt needs at least one token.")
    if 0 < sampling.temperature < LOWEST_TEMPERATURE:
        raise EngineError(too_cold(sampling.temperature))
    if len(token_ids) >= max_length:
        raise EngineError(
            f"The prompt has {len(token_ids)} tokens and engine.max_length is {max_length}; "
            "raise engine.max_length or shorten the prompt."
        )


def too_cold(temperature: float) -> str:
    """What is wrong with a temperature between 0 and LOWEST_TEMPERATURE, in one sentence."""
    return f"temperature = {temperature} is too low to calculate with; give 0 (greedy) or {LOWEST_TEMPERATURE} or more."


@dataclass(frozen=True)
class Completion:
    """What was sampled, the end of the turn included: token_ids[n], logprobs[n]; kept[n] under top-p or top-k.

    experts: where an engine of a mixture of experts tells them, of each token of the prompt and then of those sampled,
    as far as they were read: the experts chosen in each layer, one layer after the other, as numbers of EXPERT_TYPE.
    """

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    stop_reason: StopReason
    version: int
    kept: tuple[tuple[int, ...], ...] | None = None
    experts: tuple[bytes, ...] | None = None


class TokenEngine(Protocol):
    """Anything that continues a token sequence.

    `session` names a conversation that only grows: the engine may keep its keys and values between calls until
    `release(session)`. Cancelling the awaiting task stops the generation.
    """

    version: int

    async def generate(self, token_ids: list[int], sampling: Sampling, session: str | None = None) -> Completion:
        """Sample a continuation of token_ids."""
        ...

    def release(self, session: str) -> None:
        """Forget a conversation; unknown names are ignored."""
        ...


class TrainingEngine(TokenEngine, Protocol):
    """An engine whose samples a policy learns from.

    An engine may besides say `exact = True`: its log-probabilities are those that the trainer computes, in the same
    precision. Samples of one that does not are weighed by the ratio of the two, see
    `ludus.trainers.algorithms.corrections.for_engine`.
    """

    @property
    def generated_tokens(self) -> int:
        """Sampled so far."""
        ...

    def load_weights(self, model: PreTrainedModel, version: int) -> None:
        """Serve the weights of `model` from now on; completions carry the version."""
        ...


def is_exact(engine: TokenEngine) -> bool:
    """Whether an engine says that it computes as the trainer does."""
    return bool(getattr(engine, "exact", False))


@runtime_checkable
class Sleeper(Protocol):
    """An engine that can leave its memory to others for a while. sleeps: whether it is to."""

    sleeps: bool

    def sleep(self) -> None:
        """Leave it; whatever is asked until `wake` is an EngineError."""
        ...

    def wake(self) -> None:
        """Take it again."""
        ...


@contextmanager
def resting(engine: TokenEngine) -> Iterator[None]:
    """For who learns: meanwhile an engine that is to sleep does, and afterwards it can be asked again."""
    if not (isinstance(engine, Sleeper) and engine.sleeps):
        yield
        return
    engine.sleep()
    try:
        yield
    except Exception:
        with suppress(EngineError):  # it is the other fault that is to be said
            engine.wake()
        raise
    engine.wake()


@dataclass(frozen=True)
class StructuredCall:
    """A tool call that an endpoint gives apart from the text. arguments: JSON text, as the model wrote it."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True)
class ChatCompletion:
    """One answer of a chat endpoint.

    text: without tool calls and reasoning. model: the name that the server gives itself. prompt_tokens,
    completion_tokens: as the server counts them. logprobs: of the sampled tokens as (text, log-probability), where they
    were asked for and given. attempts: requests sent for it.
    """

    text: str
    stop_reason: StopReason
    tool_calls: tuple[StructuredCall, ...] = ()
    reasoning: str = ""
    model: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    logprobs: tuple[tuple[str, float], ...] | None = None
    attempts: int = 1

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> ChatCompletion:
        """The inverse of `dataclasses.asdict`, also by way of JSON."""
        calls = tuple(StructuredCall(**call) for call in row["tool_calls"])
        logprobs = None if row["logprobs"] is None else tuple((text, value) for text, value in row["logprobs"])
        return cls(**{**row, "stop_reason": StopReason(row["stop_reason"]), "tool_calls": calls, "logprobs": logprobs})


@dataclass(frozen=True)
class Usage:
    """What was used of an endpoint. cost_usd: None where no prices are known."""

    requests: int
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float | None = None


NOT_ASKED = "not asked: "
"""How the error begins of what was not asked because a ChatEngine has stopped."""


class ChatEngine(Protocol):
    """Anything that answers a conversation without giving token ids: for evaluation, never for training.

    stopped: why nothing more is asked, such as a budget that is used up; None while it goes on.
    """

    @property
    def stopped(self) -> str | None: ...

    @property
    def usage(self) -> Usage: ...

    async def chat(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]], sampling: Sampling
    ) -> ChatCompletion:
        """The next message of the assistant. messages, tools: as in OpenAI's chat completions.

        Raises InfrastructureError where there is no answer. Where the conversation is too long to be answered, the
        answer is empty and its stop_reason CONTEXT.
        """
        ...
