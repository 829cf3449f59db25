"""The doctor: reads the curves of a run and says in plain words what is wrong and what to change.

Invariant: `diagnose` depends on the rows alone. A curve that is missing, has gaps or is no number silences the checks
that need it and no other, and a healthy run, however noisy, has no findings (tests/test_doctor.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from . import policy_checks, reward_checks
from .finding import Finding, Severity
from .watched_run import Row, WatchedRun

CHECKS: tuple[Callable[[WatchedRun], Finding | None], ...] = (
    policy_checks.non_finite,
    reward_checks.reward_constant,
    reward_checks.reward_flat,
    reward_checks.reward_oscillates,
    reward_checks.reward_falls,
    reward_checks.held_out_falls,
    policy_checks.kl_reference_grows,
    policy_checks.kl_sampler_large,
    policy_checks.entropy_collapses,
    policy_checks.entropy_explodes,
    policy_checks.length_explodes,
    policy_checks.answers_truncated,
    reward_checks.groups_without_spread,
    reward_checks.many_errors,
    reward_checks.many_undecided,
    policy_checks.much_clipped,
    policy_checks.ratio_extreme,
    policy_checks.gradient_spikes,
)
"""The checks, in the order in which findings of the same severity stand."""


def diagnose(rows: Sequence[Row]) -> list[Finding]:
    """What is wrong with a run, the serious first; empty for a healthy one. Each check has at most one finding.

    rows: those of metrics.jsonl (`RunFolder.metrics`), of a finished run or of one in progress. Only numbers that are
    there and finite are judged; that others are not is a finding of its own.
    """
    run = WatchedRun(rows)
    found = [finding for check in CHECKS if (finding := check(run)) is not None]
    return sorted(found, key=lambda finding: finding.severity is not Severity.SERIOUS)
