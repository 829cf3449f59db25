"""What every test shares: thread limits, hypothesis settings, datasets, sandboxes, servers of models."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
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

# Two threads, as on the smallest machine that Ludus promises to serve, and one where two halves of the suite run beside
# each other; read by torch when it is first imported.
os.environ.setdefault("OMP_NUM_THREADS", "1" if "PYTEST_XDIST_WORKER" in os.environ else "2")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
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
    from ludus.agents.vllm_package import MissingVLLMError, import_vllm

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

    # Small blocks and passes, so that the prefix of a short prompt is kept, too, and some prompts are many.
    shape: dict[str, Any] = {
        "slots": 16,
        "max_length": 96,
        "settings": {"block_size": 32, "max_num_batched_tokens": 96},
    }
    with VLLMEngine(varied(0), its_tokenizer(), **shape, threads=1) as engine:
        yield engine


CALL = '{"name": "calculator", "arguments": {"expression": "3*4"}}'


@pytest.fixture(scope="session")
def tiny_model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved Qwen2 model with its tokenizer: it calls the calculator every other time, and else says 1 or 2."""
    from bigram import calling_model

    from ludus.agents.model import character_tokenizer

    folder = tmp_path_factory.mktemp("tiny_model")
    tokenizer = character_tokenizer(("<tool_call>", CALL, "</tool_call>"))
    calling_model(tokenizer, CALL, "12").save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@dataclass(frozen=True)
class VLLMServer:
    """A running `vllm serve`. model: the name under which it serves what lies in `folder`."""

    url: str
    model: str
    folder: Path
    pid: int


@pytest.fixture(scope="session")
def vllm_server(vllm: Any, tiny_model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VLLMServer]:
    """vLLM's server on this machine, with tool calls. Skipped or failed as `vllm` is."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("vllm_server") / "log.txt"
    command = [
        *(sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--host", "127.0.0.1", "--port", str(port)),
        *("--model", str(tiny_model_folder), "--served-model-name", "tiny", "--dtype", "float32", "--enforce-eager"),
        *("--max-model-len", "512", "--enable-auto-tool-choice", "--tool-call-parser", "hermes"),
        # vLLM 0.32 on a CPU dies of a seeded request whose prompt it reads in chunks.
        "--no-enable-chunked-prefill",
    ]
    offline = {"HF_HUB_OFFLINE": "1", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1"}
    with log.open("wb") as file:
        # A session of its own: whatever the server starts is in its process group and ends with it.
        process = subprocess.Popen(
            command, env={**os.environ, **offline}, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        _wait_until_ready(f"http://127.0.0.1:{port}/health", process, log)
        yield VLLMServer(f"http://127.0.0.1:{port}/v1", "tiny", tiny_model_folder, process.pid)
    finally:
        _end_group(process)


def _wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path, limit_s: float = 300) -> None:
    until = time.monotonic() + limit_s
    while time.monotonic() < until and process.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5) as answer:
            if answer.status == 200:
                return
        time.sleep(0.2)
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-30:])
    pytest.fail(f"vllm serve did not become ready (exit code {process.poll()}):\n{tail}")


def _end_group(process: subprocess.Popen[bytes], grace_s: float = 30) -> None:
    """End a process and all that it started: by asking once, then by force."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGINT)
        until = time.monotonic() + grace_s
        while True:
            process.poll()  # a child that is not waited for stays in its group
            os.killpg(process.pid, 0 if time.monotonic() < until else signal.SIGKILL)
            time.sleep(0.1)
