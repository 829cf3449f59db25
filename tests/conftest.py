"""What every test shares: thread limits, hypothesis settings, datasets, a judge's server, a sandbox."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from judge_server import Behaviour, ScriptedServer

from ludus.sandbox.bubblewrap import Bubblewrap
from ludus.sandbox.docker_engine import Docker, docker_client
from ludus.sandbox.docker_image import make_image
from ludus.sandbox.errors import SandboxError
from ludus.trainers.ray_cluster import RayCluster, RayError, import_ray
from ludus.verifiers.openai_completer import OpenAICompleter

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


@pytest.fixture(scope="session")
def bubblewrap() -> Iterator[Bubblewrap]:
    """An open bubblewrap sandbox. Where there can be none the test is skipped, in continuous integration it fails."""
    try:
        sandbox = Bubblewrap()
    except SandboxError as error:
        if IN_CI:
            pytest.fail(str(error))
        pytest.skip(str(error))
    with sandbox:
        yield sandbox


@pytest.fixture(scope="session")
def docker() -> Iterator[Docker]:
    """An open Docker sandbox, whose image is made where there is none. Skipped or failed as `bubblewrap` is."""
    try:
        make_image(docker_client())
        sandbox = Docker()
    except SandboxError as error:
        if IN_CI:
            pytest.fail(str(error))
        pytest.skip(str(error))
    with sandbox:
        yield sandbox


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[RayCluster]:
    """A local Ray cluster that all pools of the session use. Without Ray the test is skipped, in CI it fails."""
    try:
        import_ray()
    except RayError as error:
        if IN_CI:
            pytest.fail(str(error))
        pytest.skip(str(error))
    cluster = RayCluster(None, 1, 0.0, 0.0)
    yield cluster
    cluster.close()


@pytest.fixture
def serve() -> Iterator[Callable[..., ScriptedServer]]:
    """Starts servers that answer a judge by the given script."""
    servers: list[ScriptedServer] = []

    def start(*script: Behaviour) -> ScriptedServer:
        server = ScriptedServer(list(script))
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return server

    yield start
    for server in servers:
        server.release.set()
        server.shutdown()
        server.server_close()


@pytest.fixture
def ask() -> Iterator[Callable[..., OpenAICompleter]]:
    """Makes completers that ask such a server."""
    with contextlib.ExitStack() as stack:

        def make(server: ScriptedServer, **options: Any) -> OpenAICompleter:
            settings = {"timeout_s": 5.0, "backoff_s": 0.01, **options}
            return stack.enter_context(OpenAICompleter("judge-1", server.url, **settings))

        yield make


@pytest.fixture(scope="session")
def vllm() -> Any:
    """The package vllm. Where it is not installed the test is skipped, in continuous integration it fails."""
    from ludus.agents.vllm_engine import MissingVLLMError, import_vllm

    try:
        return import_vllm()
    except MissingVLLMError as error:
        if IN_CI:
            pytest.fail(str(error))
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def vllm_engine(vllm: Any) -> Iterator[Any]:
    """A VLLMEngine of the model `tied_model.varied(0)`; who uses it loads the weights it wants first."""
    from tied_model import its_tokenizer, varied

    from ludus.agents.vllm_engine import VLLMEngine

    # Small blocks, so that the prefix of a short prompt is kept, too.
    shape: dict[str, Any] = {"slots": 16, "max_length": 96, "settings": {"block_size": 32}}
    with VLLMEngine(varied(0), its_tokenizer(), **shape, threads=1) as engine:
        yield engine
