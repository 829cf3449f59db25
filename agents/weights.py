"""Weights on their way from the trainer to engines in other processes, and the proof that they arrived.

Invariant: what an engine is said to serve is what the trainer wrote: each tensor's digest, taken where the engine runs,
is that of the file, and the likelihoods of a fixed sequence are those that the trainer computes. Both are needed: a
digest cannot see a kernel's own copy that stayed behind, and in bfloat16 a probe cannot see one step (tests/
test_weights.py, tests/test_vllm_engine.py).
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import math
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..sandbox.errors import LudusError
from .decoder import is_mixture
from .lora import has_lora, merged_weights
from .seeds import derive_seed

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SHARED_MEMORY = Path("/dev/shm")
PROBE_TOKENS = 48
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.25, torch.float16: 0.05}
"""How far the log-probability of any token of the probe may be from the trainer's, in nats, by the engine's precision.
Measured in float32: 5e-7. Of half the precision a probe sees weights that are far off, and no more than that."""
OTHERWISE = 10
"""One token in so many may be further off where an engine rounds and a mixture of experts then chooses others. Measured
of random ones in bfloat16: up to 0.84 nats at the worst token, where the median was 0.03."""
FILE = "model.safetensors"
PREFIX = "ludus-weights-"
JUST_MADE_S = 10.0
"""A folder that is younger may not be locked yet."""


class TransferError(LudusError):
    """Weights that did not arrive, or others than were sent."""


@dataclass(frozen=True)
class Probe:
    """A sequence, and what the trainer says of it: logprobs[n - 1] of token_ids[1:], in nats, at temperature 1.

    mixture: of a mixture of experts, of which an engine in half the precision chooses others now and then.
    """

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    mixture: bool = False


@dataclass(frozen=True)
class Sent:
    """Weights in a file that engines read. digests: of each tensor, by its name in Hugging Face format."""

    path: Path
    version: int
    digests: Mapping[str, str]
    probe: Probe


@dataclass(frozen=True)
class Proof:
    """What an engine showed of the version it serves. tensors: digests compared; gap: of the probe, in nats."""

    version: int
    tensors: int
    gap: float


class WeightFolder:
    """Where versions of a model's weights lie for engines on this machine: in shared memory where there is room.

    near: the folder to use instead; without one, where shared memory is too small, that of TMPDIR. Use as a context
    manager, or `close` it: nothing of it stays. What a process that was killed has left there is deleted by the next
    one.
    """

    def __init__(self, near: Path | None = None) -> None:
        self._near = near
        self._folder: Path | None = None
        self._lock: int | None = None

    def __enter__(self) -> WeightFolder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Delete all versions."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def send(self, model: PreTrainedModel, version: int, weights: Mapping[str, Tensor] | None = None) -> Sent:
        """Write the weights, adapters merged. TransferError where there is no room for them.

        weights: the `plain_weights` of the model, where they are known.
        """
        weights = plain_weights(model) if weights is None else weights
        if self._folder is None:
            self._make(self._place(weights))
        place = None
        try:
            # Of its own, for a version may be sent again with other weights, after a roll-back.
            place = Path(tempfile.mkdtemp(prefix=f"{version:08d}-", dir=self._folder))
            _save(weights, place / FILE)
        except Exception as error:  # safetensors raises its own for a full disk
            if place is not None:
                shutil.rmtree(place, ignore_errors=True)
            raise TransferError(
                f"The weights of version {version} could not be written to {self._folder} ({error}); free some space "
                f"there, or choose another folder by {self._setting}."
            ) from error
        return Sent(place / FILE, version, digests(weights), probe_of(model))

    def forget(self, sent: Sent) -> None:
        """Delete a version that nobody serves any more."""
        shutil.rmtree(sent.path.parent, ignore_errors=True)

    def _make(self, home: str | None) -> None:
        """The folder of all versions."""
        place = Path(home or tempfile.gettempdir())
        try:
            self._folder, self._lock = own_folder(place, PREFIX)
        except OSError as error:
            raise TransferError(
                f"The weights cannot be written to {place} ({error.strerror}); make that a folder to write to, or "
                f"choose another by {self._setting}."
            ) from error

    @property
    def _setting(self) -> str:
        """What chooses the folder."""
        return "TMPDIR" if self._near is None else "rollout.weights_dir"

    def _place(self, weights: Mapping[str, Tensor]) -> str | None:
        """Two versions are there at a time, so twice the room is wanted, and a little more."""
        if self._near is not None:
            return str(self._near)
        wanted = 2.2 * sum(tensor.nbytes for tensor in weights.values())
        fits = SHARED_MEMORY.is_dir() and shutil.disk_usage(SHARED_MEMORY).free > wanted
        return str(SHARED_MEMORY) if fits else None


def own_folder(home: Path, prefix: str) -> tuple[Path, int]:
    """A new folder whose name begins with `prefix`, and the handle by which it is locked for as long as it is used.

    Those that processes which were killed have left there are deleted.
    """
    _sweep(home, prefix)
    folder = Path(tempfile.mkdtemp(prefix=f"{prefix}{os.getpid()}-", dir=home))
    handle = os.open(folder, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    return folder, handle


def _sweep(home: Path, prefix: str) -> None:
    """Delete the folders whose process is gone: nobody holds their lock. Those of other users stay."""
    for folder in home.glob(f"{prefix}*"):
        with contextlib.suppress(OSError):
            if folder.stat().st_uid != os.getuid() or time.time() - folder.stat().st_mtime < JUST_MADE_S:
                continue
            handle = os.open(folder, os.O_RDONLY)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(handle)


def plain_weights(model: PreTrainedModel) -> dict[str, Tensor]:
    """The weights without adapters, as `save_pretrained` writes them; one that is two things stands there once."""
    found = merged_weights(model) if has_lora(model) else dict(model.state_dict())
    tied = getattr(model, "all_tied_weights_keys", None) or getattr(model, "_tied_weights_keys", None) or ()
    seen: dict[int, str] = {}
    for name, tensor in found.items():
        if name not in tied:
            seen.setdefault(tensor.data_ptr(), name)
    return as_written(
        model, {name: t.detach() for name, t in found.items() if name not in tied or t.data_ptr() not in seen}
    )


def as_written(model: PreTrainedModel, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a model by the names and in the shapes of its files.

    transformers 5 computes with all experts in one tensor, which files, and those who read them, have one by one.
    """
    try:
        from transformers.core_model_loading import revert_weight_conversion
    except ImportError:  # transformers 4
        return weights
    return dict(revert_weight_conversion(model, weights))


def _save(weights: Mapping[str, Tensor], path: Path) -> None:
    from safetensors.torch import save_file

    save_file({name: tensor.cpu().contiguous() for name, tensor in weights.items()}, path, metadata={"format": "pt"})


def read_weights(path: Path | str) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a file, one after the other."""
    from safetensors import safe_open

    with safe_open(str(path), framework="pt") as file:
        for name in file.keys():  # noqa: SIM118  this is no dictionary
            yield name, file.get_tensor(name)


def digests(weights: Mapping[str, Tensor]) -> dict[str, str]:
    """The digest of each tensor, by name."""
    return {name: digest(tensor) for name, tensor in weights.items()}


def digest(tensor: Tensor) -> str:
    """SHA-256 of a tensor's type, shape and bytes, in hexadecimal digits."""
    found = hashlib.sha256(f"{tensor.dtype} {tuple(tensor.shape)} ".encode())
    found.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def probe_of(model: PreTrainedModel) -> Probe:
    """A sequence of tokens drawn from the model's vocabulary, always the same ones, and their likelihoods."""
    generator = torch.Generator().manual_seed(derive_seed(0, "probe"))
    length = min(PROBE_TOKENS, getattr(model.config, "max_position_embeddings", PROBE_TOKENS))
    token_ids = torch.randint(int(model.config.vocab_size), (length,), generator=generator).tolist()
    return Probe(tuple(token_ids), tuple(logprobs_of(model, token_ids)), is_mixture(model.config))


@torch.no_grad()
def logprobs_of(model: PreTrainedModel, token_ids: Sequence[int]) -> list[float]:
    """The log-probability of each token but the first, in nats, at temperature 1, as the trainer computes it."""
    trains = model.training
    model.eval()  # dropout would make another number of it each time
    ids = torch.tensor([list(token_ids)], device=next(model.parameters()).device)
    logits = model(input_ids=ids, use_cache=False).logits[0, :-1].float()
    model.train(trains)
    return torch.log_softmax(logits, -1).gather(1, ids[0, 1:, None])[:, 0].tolist()


def prove(
    sent: Sent, version: int, arrived: Mapping[str, str], logprobs: Sequence[float], dtype: torch.dtype, who: str
) -> Proof:
    """The proof that an engine serves what was sent. TransferError says what differs.

    version: that the engine says it serves. arrived: digests taken where the engine runs. logprobs: of the probe, as
    the engine computes them. dtype: in which it does. who: the engine's name in sentences.
    """
    start = f"{who} does not serve the weights of version {sent.version}"
    if version != sent.version:
        raise TransferError(
            f"{start}: it says that it serves version {version}; start the run again from its checkpoint."
        )
    other = [name for name in sent.digests if arrived.get(name) != sent.digests[name]]
    if other:
        raise TransferError(
            f"{start}: {len(other)} of {len(sent.digests)} tensors arrived otherwise than they were sent, the first of "
            f"them {other[0]}; see whether memory or disk are full, and resume the run."
        )
    gaps = [abs(own - theirs) for own, theirs in zip(logprobs, sent.probe.logprobs, strict=True)]
    gaps = [math.inf if math.isnan(gap) else gap for gap in gaps]
    left_out = len(gaps) // OTHERWISE if sent.probe.mixture and dtype != torch.float32 else 0
    gap = sorted(gaps)[-1 - left_out] if gaps else 0.0
    if gap > TOLERANCE[dtype]:
        raise TransferError(
            f"{start}, though all tensors arrived: the log-probability of token {gaps.index(gap) + 1} of a fixed "
            f"sequence differs from the trainer's by {gap:.3g} nats, where {TOLERANCE[dtype]:g} is allowed; `ludus "
            "doctor --engine` finds out why."
        )
    return Proof(version, len(sent.digests), gap)
