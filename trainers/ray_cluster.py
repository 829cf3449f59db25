"""RayCluster: a Ray cluster to place workers on, joined or started for one run, and left as it was found.

Invariant: what was started here is gone after `close`: processes, ports, shared memory (tests/test_ray_faults.py).
"""

from __future__ import annotations

import contextlib
import os
import socket
from typing import Any

from ..sandbox.errors import LudusError
from ..sandbox.interrupts import interrupted_afterwards

OLDEST = (2, 50)
STORE_BYTES = 128 * 2**20
"""Of the object store of a cluster started here; episodes and requests hardly use it."""
RESERVE_S = 60.0
ANSWER_S = 10.0
"""How long a connection to a cluster may take."""


class RayError(LudusError):
    """Ray is missing, or cannot give what a run needs."""


def import_ray(alone: bool = True) -> Any:
    """The package, quiet. RayError says how to get it. alone: clusters started here listen to this machine only."""
    if alone:  # Ray's only switch for it, made for systems with other firewalls, and read when it is imported
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else it warns of a default that will change
    try:
        import ray
    except ImportError as error:
        raise RayError(f"Ray is not installed ({error}); run: pip install 'ludus[ray]'.") from error
    numbers = tuple(int(part) for part in ray.__version__.split(".")[:2] if part.isdecimal())
    if numbers < OLDEST:
        wanted = ".".join(map(str, OLDEST))
        raise RayError(f"Ray {ray.__version__} is older than {wanted}; run: pip install --upgrade 'ludus[ray]'.")
    return ray


class RayCluster:
    """Places `workers` actors, each with so many CPUs and GPUs.

    address: of a running cluster; None starts one on this machine, unless this process is connected already.
    """

    def __init__(self, address: str | None, workers: int, cpus: float, gpus: float) -> None:
        self.ray = import_ray(alone=address is None)
        self.started = not self.ray.is_initialized()
        self._group: Any = None
        try:
            if self.started:
                with interrupted_afterwards():  # half a cluster is not ended by Ray's own shutdown
                    self._connect(address, workers, cpus)
            self._reserve(workers, cpus, gpus)
        except BaseException:
            self.close()
            raise

    def actor(self, cls: type, index: int, concurrency: int) -> Any:
        """A new actor in the place number `index`. concurrency: calls that it takes at once."""
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        place = PlacementGroupSchedulingStrategy(self._group, placement_group_bundle_index=index)
        need = self._group.bundle_specs[index]
        return (
            self.ray.remote(cls)
            .options(
                num_cpus=need.get("CPU", 0),
                num_gpus=need.get("GPU", 0),
                max_concurrency=concurrency,
                max_restarts=0,
                scheduling_strategy=place,
            )
            .remote()
        )

    def close(self) -> None:
        """Give back what was reserved, and end the cluster where it was started here."""
        if self._group is not None:
            with contextlib.suppress(Exception):  # the cluster may be gone
                self.ray.util.remove_placement_group(self._group)
            self._group = None
        if self.started:
            self.ray.shutdown()
            self.started = False

    def _connect(self, address: str | None, workers: int, cpus: float) -> None:
        settings: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
        if address is None:
            settings |= {
                "address": "local",
                "num_cpus": max(os.cpu_count() or 1, int(-(-workers * cpus // 1))),
                "include_dashboard": False,
                "object_store_memory": STORE_BYTES,
                "_system_config": {"worker_niceness": 0},  # by default workers stand back behind the learner
            }
        else:
            check_answers(address)
            settings["address"] = address
        try:
            self.ray.init(**settings)
        except Exception as error:  # of many types, by address and version
            where = "No Ray cluster could be started on this machine" if address is None else f"No Ray at {address}"
            fix = (
                "see to that" if address is None else "start one with `ray start --head`, or unset rollout.ray_address"
            )
            raise RayError(f"{where} ({first_line(error)}); {fix}.") from error

    def _reserve(self, workers: int, cpus: float, gpus: float) -> None:
        """Set room aside for all workers at once, so that a run has all or does not begin."""
        need = {name: value for name, value in (("CPU", cpus), ("GPU", gpus)) if value} or {"CPU": 0.001}
        self._group = self.ray.util.placement_group([need] * workers, strategy="PACK")
        try:
            placed = self._group.wait(timeout_seconds=RESERVE_S)
        except self.ray.exceptions.RayError as error:
            raise RayError(f"Ray does not answer ({first_line(error)}); start it anew, and the run.") from error
        if not placed:
            has = self.ray.available_resources()
            there = ", ".join(f"{has.get(name, 0):g} {name}" for name in ("CPU", "GPU"))
            wants = " and ".join(f"{value:g} {name}" for name, value in need.items())
            raise RayError(
                f"Ray has no room for rollout.workers = {workers} of {wants} each (free: {there}); lower"
                " rollout.workers, rollout.cpus_per_worker or rollout.gpus_per_worker."
            )


def check_answers(address: str) -> None:
    """RayError where the address has a host and a port at which nothing answers; Ray tries for minutes, unstoppably."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_S).close()
    except (OSError, OverflowError, UnicodeError) as error:
        raise RayError(
            f"No Ray at {address} ({first_line(error)}); start one with `ray start --head`, or unset"
            " rollout.ray_address."
        ) from error


def first_line(error: BaseException) -> str:
    """What an error says, as far as it is one line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
