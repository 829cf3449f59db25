"""What every test shares: thread limits, hypothesis settings, and the datasets beside the repository."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import hypothesis
import pytest

# A shell that starts a job in the background has it ignore Ctrl-C, and every process that the tests start would, too.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Two threads, as on the smallest machine that Ludus promises to serve; read by torch when it is first imported.
os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

REPOSITORY = Path(__file__).resolve().parent.parent
IN_CI = bool(os.environ.get("CI"))

# The same examples in every run, so that the suite fails only where something changed; new ones are looked for on
# purpose, with HYPOTHESIS_EXPLORE=1.
hypothesis.settings.register_profile("explore", deadline=None)
hypothesis.settings.register_profile("steady", deadline=None, derandomize=True, database=None, print_blob=True)
hypothesis.settings.load_profile("explore" if os.environ.get("HYPOTHESIS_EXPLORE") else "steady")


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the source tree."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of public datasets (gsm8k/, math500/, humaneval/) that lies beside the repository.

    Without it the test is skipped; in continuous integration, where it must be there, the test fails.
    """
    place = REPOSITORY.parent / "shared" / "data"
    if not place.is_dir():
        reason = "the datasets are not at ../shared/data, beside the repository"
        if IN_CI:
            pytest.fail(reason)
        pytest.skip(reason)
    return place
