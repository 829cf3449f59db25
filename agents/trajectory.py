"""Episode and Trajectory: what a rollout hands to the trainer.

Invariant: the token ids of a trajectory are exactly what the engine consumed and produced, in order, and only tokens
that the policy sampled carry mask, log-probability and version (tests/test_rollout.py).
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

from ..sandbox.errors import LudusError
from ..verifiers.verdict import Verdict
from .engine import ChatCompletion

if TYPE_CHECKING:
    from ..envs.task import Message


@dataclass(frozen=True)
class Step:
    """One action of the policy: its sampled tokens are token_ids[start:end] and earned `reward`."""

    start: int
    end: int
    reward: float
    rewards: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Trajectory:
    """One flat token sequence of length T, as the trainer will use it.

    token_ids[T]. mask[T]: true where the policy sampled the token. logprobs[T]: of sampled tokens, under the
    distribution that they were really drawn from, 0.0 elsewhere. versions[T]: policy version that sampled the token, -1
    elsewhere. kept[T]: where sampling was truncated, the token ids that were kept (None where the
    token was not sampled), else None. experts[T]: of a mixture of experts, where they are kept, those that the sampler
    chose as it read the token, see `Completion.experts` (None where that is not known), else None.
    """

    token_ids: tuple[int, ...]
    mask: tuple[bool, ...]
    logprobs: tuple[float, ...]
    versions: tuple[int, ...]
    steps: tuple[Step, ...] = ()
    kept: tuple[tuple[int, ...] | None, ...] | None = None
    experts: tuple[bytes | None, ...] | None = None
    temperature: float = 1.0
    seat: int = 0
    parent: int | None = None
    fork_token: int | None = None
    attachments: tuple[dict[str, Any], ...] = ()

    def __post_init__(self) -> None:
        lengths = {len(self.token_ids), len(self.mask), len(self.logprobs), len(self.versions)}
        lengths |= {len(known) for known in (self.kept, self.experts) if known is not None}
        if len(lengths) != 1:
            raise ValueError(
                f"token_ids, mask, logprobs, versions (and kept, experts) differ in length: {sorted(lengths)}."
            )

    def to_json(self) -> dict[str, Any]:
        """A dictionary of plain JSON types; the experts of a token as base64."""
        row = asdict(self)
        if self.experts is not None:
            row["experts"] = [None if one is None else b64encode(one).decode() for one in self.experts]
        return row

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> Trajectory:
        """The inverse of `to_json`."""
        known = {f.name: row[f.name] for f in fields(cls) if f.name in row}
        for name in ("token_ids", "mask", "logprobs", "versions", "attachments"):
            known[name] = tuple(known.get(name, ()))
        known["steps"] = tuple(Step(**step) for step in known.get("steps", ()))
        if known.get("kept") is not None:
            known["kept"] = tuple(None if ids is None else tuple(ids) for ids in known["kept"])
        if known.get("experts") is not None:
            known["experts"] = tuple(None if one is None else b64decode(one) for one in known["experts"])
        return cls(**known)


@dataclass(frozen=True)
class Episode:
    """One try at one task.

    group: tries at the same task that share a baseline. reward: sum over steps; None where the infrastructure failed.
    rewards: sums over steps by name; a part of the verdict has its path, such as "style/length". verdict: None where no
    answer was judged; ERROR where judging failed, with parts that say what did. seconds: from its first request to its
    end. verify_seconds: of these, those in the environment's step that judged the final answer.
    Exactly one of terminated, truncated, error holds; stop_reason says why in one word or sentence. replies: where a
    chat endpoint played, what it answered turn by turn; such an episode has no trajectories.
    """

    id: str
    env: str
    task_id: str
    group: str
    seed: int
    reward: float | None
    rewards: dict[str, float]
    verdict: Verdict | None
    terminated: bool
    truncated: bool
    error: str | None
    stop_reason: str
    messages: tuple[Message, ...]
    trajectories: tuple[Trajectory, ...]
    seconds: float = 0.0
    verify_seconds: float = 0.0
    replies: tuple[ChatCompletion, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """A dictionary of plain JSON types."""
        row = {f.name: getattr(self, f.name) for f in fields(self)}
        if self.replies:
            row["replies"] = [asdict(reply) for reply in self.replies]
        else:
            del row["replies"]
        row["verdict"] = None if self.verdict is None else self.verdict.to_json()
        row["trajectories"] = [trajectory.to_json() for trajectory in self.trajectories]
        row["messages"] = [dict(message) for message in self.messages]
        return row

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> Episode:
        """The inverse of `to_json`."""
        known = {f.name: row[f.name] for f in fields(cls) if f.name in row}
        known["verdict"] = None if row["verdict"] is None else Verdict.from_json(row["verdict"])
        known["trajectories"] = tuple(Trajectory.from_json(t) for t in row["trajectories"])
        known["messages"] = tuple(row["messages"])
        known["replies"] = tuple(ChatCompletion.from_json(reply) for reply in row.get("replies", ()))
        return cls(**known)


class NoTokensError(LudusError):
    """Episodes to learn from that hold no tokens."""


def check_tokens(episodes: Sequence[Episode]) -> None:
    """NoTokensError where a chat endpoint played one of the episodes: there is nothing in it to learn from."""
    for episode in episodes:
        if episode.replies:
            raise NoTokensError(
                f"The episode {episode.id} was played on a chat endpoint and holds no tokens to learn from; endpoints "
                "are for evaluation, so train with an engine that returns the tokens it samples."
            )
