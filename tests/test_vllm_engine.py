"""VLLMEngine against vLLM itself, in its build for the CPU: tokens, likelihoods, stops, weights with their proof."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from tied_model import ALSO_ENDS, SHAPE, its_tokenizer, varied
from transformers import CodeGenConfig, CodeGenForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from ludus.agents.engine import Completion, EngineError, Sampling, StopReason
from ludus.agents.lora import save_merged
from ludus.agents.model import create_tiny_model
from ludus.agents.vllm_engine import VLLMEngine
from ludus.agents.vllm_package import MissingVLLMError, import_vllm
from ludus.agents.weights import Sent, TransferError, logprobs_of, prove
from ludus.verifiers.repetition import Loop

pytestmark = pytest.mark.vllm
PROMPT = [5, 6, 7, 8]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return its_tokenizer()


@pytest.fixture
def model() -> PreTrainedModel:
    return varied(0)


@pytest.fixture
def engine(vllm_engine: VLLMEngine, model: PreTrainedModel) -> VLLMEngine:
    vllm_engine.load_weights(model, 0)
    return vllm_engine


def generate(engine: VLLMEngine, *samplings: Sampling, prompt: list[int] = PROMPT) -> list[Completion]:
    async def all_of_them() -> list[Completion]:
        return await asyncio.gather(*(engine.generate(prompt, sampling) for sampling in samplings))

    return asyncio.run(all_of_them())


def distribution(model: PreTrainedModel, token_ids: list[int], temperature: float) -> torch.Tensor:
    """log softmax(logits / temperature) after each token, [T, V]."""
    with torch.no_grad():
        logits = model.eval()(input_ids=torch.tensor([token_ids])).logits[0]
    return torch.log_softmax(logits.double() / temperature, -1)


class TestSampling:
    @pytest.mark.parametrize(
        "options",
        [{}, {"temperature": 0.7}, {"temperature": 0.0}, {"top_k": 3}, {"top_p": 0.8, "temperature": 1.3}],
        ids=str,
    )
    def test_likelihoods_are_those_of_the_distribution_that_was_sampled_from(
        self, engine: VLLMEngine, model: PreTrainedModel, options: dict[str, float]
    ) -> None:
        sampling = Sampling(max_tokens=24, seed=3, **options)  # type: ignore[arg-type]
        (found,) = generate(engine, sampling)
        full = distribution(model, [*PROMPT, *found.token_ids], sampling.temperature or 1.0)[len(PROMPT) - 1 : -1]
        truncates = "top_k" in options or "top_p" in options
        assert (found.kept is not None) == truncates
        if found.kept is not None:
            for row, kept, token in zip(full, found.kept, found.token_ids, strict=True):
                assert token in kept
                assert len(kept) <= options.get("top_k", 10**6)
                others = torch.ones(len(row), dtype=torch.bool)
                others[list(kept)] = False
                assert row[list(kept)].min() >= row[others].max() - 1e-5  # the likeliest are kept
                row[others] = -torch.inf
            full = torch.log_softmax(full, -1)
        expected = full.gather(1, torch.tensor(found.token_ids)[:, None])[:, 0]
        assert torch.allclose(torch.tensor(found.logprobs).double(), expected, atol=1e-4)
        if sampling.temperature == 0:
            assert list(found.token_ids) == full.argmax(-1).tolist()

    def test_a_request_has_a_seed_of_its_own(self, engine: VLLMEngine) -> None:
        samplings = [Sampling(max_tokens=12, seed=seed) for seed in range(10)]
        together = generate(engine, *samplings)
        assert [one.token_ids for one in together] == [generate(engine, s)[0].token_ids for s in samplings]
        assert len({one.token_ids for one in together}) > 5

    def test_more_prompts_than_one_pass_reads(self, engine: VLLMEngine, model: PreTrainedModel) -> None:
        prompts = [[*range(4, 84), n] for n in range(20, 40)]

        async def all_of_them() -> list[Completion]:
            return await asyncio.gather(*(engine.generate(p, Sampling(max_tokens=8, seed=p[-1])) for p in prompts))

        for prompt, found in zip(prompts, asyncio.run(all_of_them()), strict=True):
            own = logprobs_of(model, [*prompt, *found.token_ids])[len(prompt) - 1 :]
            assert max(abs(a - b) for a, b in zip(found.logprobs, own, strict=True)) < 1e-4

    def test_tokens_are_counted(self, engine: VLLMEngine) -> None:
        before = engine.generated_tokens
        found = generate(engine, Sampling(max_tokens=5), Sampling(max_tokens=7, seed=1))
        assert engine.generated_tokens - before == sum(len(one.token_ids) for one in found) > 0


class TestEnds:
    def test_at_the_bound_of_tokens_and_of_the_sequence(self, engine: VLLMEngine) -> None:
        long = list(range(4, 94))
        for prompt in (PROMPT, long[:80]):
            (found,) = generate(engine, Sampling(max_tokens=6, temperature=0.0), prompt=prompt)
            assert (len(found.token_ids), found.stop_reason) == (6, StopReason.LENGTH)
        (found,) = generate(engine, Sampling(max_tokens=50, temperature=0.0), prompt=long)
        assert (len(found.token_ids), found.stop_reason) == (6, StopReason.CONTEXT)

    def test_with_the_token_that_ends_a_turn(
        self, engine: VLLMEngine, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
    ) -> None:
        with torch.no_grad():
            model.model.embed_tokens.weight[tokenizer.eos_token_id] *= 30  # now likely, or most unlikely
        engine.load_weights(model, 1)
        found = generate(engine, *[Sampling(max_tokens=40, seed=seed) for seed in range(20)])
        ended = [one for one in found if one.stop_reason is StopReason.END]
        assert ended
        for one in found:
            assert tokenizer.eos_token_id not in one.token_ids[:-1]
            assert (one.token_ids[-1] == tokenizer.eos_token_id) == (one.stop_reason is StopReason.END)

    def test_with_no_other_token(self, engine: VLLMEngine) -> None:
        """vLLM also stops at those that the model's generation_config.json names, unless told not to."""
        found = generate(engine, *[Sampling(max_tokens=40, seed=seed) for seed in range(20)])
        assert any(ALSO_ENDS & set(one.token_ids[:-1]) for one in found)
        assert all(len(one.token_ids) == 40 for one in found if one.stop_reason is StopReason.LENGTH)

    def test_with_the_token_that_completes_a_stop_sequence(
        self, engine: VLLMEngine, tokenizer: PreTrainedTokenizerBase
    ) -> None:
        (free,) = generate(engine, Sampling(max_tokens=30, seed=5))
        stop = tokenizer.decode(free.token_ids[6:9])
        (found,) = generate(engine, Sampling(max_tokens=30, seed=5, stop=(stop,)))
        end = next(n for n in range(1, 31) if stop in tokenizer.decode(free.token_ids[:n]))
        assert found.stop_reason is StopReason.STOP
        assert found.token_ids == free.token_ids[:end]
        assert len(found.logprobs) == end

    def test_where_it_goes_round_in_circles(self, engine: VLLMEngine, model: PreTrainedModel) -> None:
        loop = Loop(max_period=30, repeats=2, min_tokens=4)
        found = generate(engine, *[Sampling(max_tokens=80, temperature=0.0, stop_on_loop=loop)])[0]
        (whole,) = generate(engine, Sampling(max_tokens=80, temperature=0.0))
        assert found.stop_reason is StopReason.LOOP
        assert found.token_ids == whole.token_ids[: len(found.token_ids)]
        assert len(found.token_ids) < len(whole.token_ids)

    def test_at_its_deadline(self, engine: VLLMEngine) -> None:
        (found,) = generate(engine, Sampling(max_tokens=80, deadline_s=1e-4))
        assert found.stop_reason is StopReason.DEADLINE
        assert len(found.token_ids) < 80

    def test_when_who_waits_for_it_is_cancelled(self, engine: VLLMEngine) -> None:
        async def cancel() -> int:
            tasks = [asyncio.create_task(engine.generate(PROMPT, Sampling(max_tokens=80, seed=n))) for n in range(8)]
            await asyncio.sleep(0.02)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for _ in range(200):
                left = engine._llm.get_num_unfinished_requests()
                if not left:
                    break
                await asyncio.sleep(0.02)
            return int(left)

        assert asyncio.run(cancel()) == 0
        assert generate(engine, Sampling(max_tokens=4))[0].token_ids


class TestWeights:
    def test_new_ones_are_served_and_proven(self, engine: VLLMEngine) -> None:
        for version in (1, 2):
            other = varied(version)
            engine.load_weights(other, version)
            assert engine.proof is not None
            assert (engine.proof.version, engine.version) == (version, version)
            assert engine.proof.gap < 1e-4
            (found,) = generate(engine, Sampling(max_tokens=20, seed=1))
            assert found.version == version
            own = logprobs_of(other, [*PROMPT, *found.token_ids])[len(PROMPT) - 1 :]
            assert max(abs(a - b) for a, b in zip(found.logprobs, own, strict=True)) < 1e-4

    @pytest.mark.parametrize("version", [0, 1])
    def test_nothing_cached_under_the_old_ones_is_used(self, engine: VLLMEngine, version: int) -> None:
        """Nor where the version stays, as between phases of training."""
        prompt = list(range(4, 84))  # as long as some blocks of the cache
        generate(engine, Sampling(max_tokens=4), prompt=prompt)
        other = varied(1)
        engine.load_weights(other, version)
        (found,) = generate(engine, Sampling(max_tokens=8), prompt=prompt)
        own = logprobs_of(other, [*prompt, *found.token_ids])[len(prompt) - 1 :]
        assert max(abs(a - b) for a, b in zip(found.logprobs, own, strict=True)) < 1e-4

    def test_the_output_layer_that_vllm_itself_leaves_behind_is_seen(self, engine: VLLMEngine, tmp_path: Path) -> None:
        """vLLM 0.32 on a CPU keeps the old output layer where it is the embeddings, and says nothing."""
        other = varied(1)
        save_merged(other, tmp_path)
        sent: Sent = engine._weights.send(other, 1)

        async def plainly() -> list[float]:
            await engine._llm.collective_rpc("reload_weights", kwargs={"weights_path": str(tmp_path)})
            return await engine._score(list(sent.probe.token_ids), "afterwards")

        shown = engine._do(plainly(), "the weights")
        with pytest.raises(TransferError, match="though all tensors arrived"):
            prove(sent, 1, sent.digests, shown, engine.dtype, "vLLM")
        assert engine.take(sent).gap < 1e-4  # as Ludus loads them, it is not

    def test_others_than_were_sent_are_refused_and_the_last_good_ones_stay(
        self, engine: VLLMEngine, model: PreTrainedModel
    ) -> None:
        sent = engine._weights.send(varied(1), 1)
        other = engine._weights.send(varied(2), 2)
        sent.path.write_bytes(other.path.read_bytes())
        with pytest.raises(TransferError, match=r"version 1: \d+ of \d+ tensors arrived otherwise"):
            engine.take(sent)
        assert engine.version == 0
        ids = [*PROMPT, *generate(engine, Sampling(max_tokens=20))[0].token_ids]
        own = logprobs_of(model, ids)
        assert max(abs(a - b) for a, b in zip(engine.logprobs(ids), own, strict=True)) < 1e-4

    def test_a_file_that_is_gone_is_said_and_the_last_good_ones_stay(
        self, engine: VLLMEngine, model: PreTrainedModel
    ) -> None:
        sent = engine._weights.send(varied(1), 1)
        sent.path.unlink()
        with pytest.raises(TransferError, match=r"could not take in the weights of version 1 \(.*\); see its messages"):
            engine.take(sent)
        assert engine.version == 0
        ids = [*PROMPT, *generate(engine, Sampling(max_tokens=20))[0].token_ids]
        assert engine.logprobs(ids) == pytest.approx(logprobs_of(model, ids), abs=1e-4)

    @pytest.mark.parametrize("count", [6, 40])
    def test_generations_under_way_are_interrupted(self, engine: VLLMEngine, count: int) -> None:
        """Those too that wait in vLLM for one of its 16 slots."""

        async def meanwhile() -> list[Completion]:
            sampling = [Sampling(max_tokens=90, seed=n) for n in range(count)]
            tasks = [asyncio.create_task(engine.generate(PROMPT, one)) for one in sampling]
            await asyncio.sleep(0.01)
            await asyncio.to_thread(engine.load_weights, varied(1), 1)
            return await asyncio.gather(*tasks)

        for found in asyncio.run(meanwhile()):
            model = varied(found.version)
            own = logprobs_of(model, [*PROMPT, *found.token_ids])[len(PROMPT) - 1 :]
            assert max((abs(a - b) for a, b in zip(found.logprobs, own, strict=True)), default=0.0) < 1e-4
            assert found.version == 1 or found.stop_reason in (
                StopReason.INTERRUPTED,
                StopReason.END,
                StopReason.LENGTH,
            )


class TestBadInput:
    @pytest.mark.parametrize(
        ("prompt", "sampling", "sentence"),
        [
            ([], Sampling(), "at least one token"),
            (list(range(4, 104)), Sampling(), "engine.max_length is 96"),
            (PROMPT, Sampling(temperature=1e-5), "too low"),
        ],
    )
    def test_requests_that_cannot_be_served(
        self, engine: VLLMEngine, prompt: list[int], sampling: Sampling, sentence: str
    ) -> None:
        with pytest.raises(EngineError, match=sentence):
            generate(engine, sampling, prompt=prompt)

    def test_heads_that_its_kernels_do_not_know(self, vllm: Any, tokenizer: PreTrainedTokenizerBase) -> None:
        narrow = create_tiny_model(SHAPE.model_copy(update={"heads": 4, "kv_heads": 4}), 0)[0]
        with pytest.raises(MissingVLLMError, match="this model's have 16; choose another number of heads"):
            VLLMEngine(narrow, tokenizer, max_length=96)

    def test_a_model_that_vllm_does_not_know(self, vllm: Any, tokenizer: PreTrainedTokenizerBase) -> None:
        shape = {"vocab_size": len(tokenizer), "n_embd": 64, "n_layer": 1, "n_head": 2, "rotary_dim": 16}
        unknown = CodeGenForCausalLM(CodeGenConfig(**shape, n_positions=160))
        with pytest.raises(MissingVLLMError, match=r"know models of the architecture CodeGenForCausalLM; choose"):
            VLLMEngine(unknown, tokenizer, max_length=96)

    def test_sequences_longer_than_the_model_reads(
        self, vllm: Any, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
    ) -> None:
        with pytest.raises(EngineError, match=r"reads 160 tokens and engine\.max_length is 161; lower it"):
            VLLMEngine(model, tokenizer, max_length=161)

    @pytest.mark.parametrize(
        ("package", "says"),
        [
            ("__version__ = '0.8.5'", r"^vLLM 0\.8\.5 is older than 0\.20; run: pip install --upgrade 'ludus\[vllm\]'"),
            (
                "raise AttributeError('no such operator')",
                r"^vLLM is installed and cannot be imported \(AttributeError:",
            ),
            ("import nothing_of_this_name", r"^This engine needs vLLM; install it with: pip install 'ludus\[vllm\]'"),
        ],
    )
    def test_a_vllm_that_is_too_old_or_broken(self, package: str, says: str, tmp_path: Path, monkeypatch: Any) -> None:
        (tmp_path / "vllm.py").write_text(package)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "vllm", raising=False)
        try:
            with pytest.raises(MissingVLLMError, match=says):
                import_vllm()
        finally:
            sys.modules.pop("vllm", None)

    def test_what_vllm_refuses_is_one_sentence_and_leaves_nothing(
        self, vllm: Any, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, tmp_path: Path, monkeypatch: Any
    ) -> None:
        monkeypatch.setenv("TMPDIR", str(tmp_path))
        monkeypatch.setattr("tempfile.tempdir", None)
        with pytest.raises(MissingVLLMError, match=r"vLLM did not start: .*speed"):
            VLLMEngine(model, tokenizer, max_length=96, settings={"speed": 3})
        assert list(tmp_path.iterdir()) == []


def test_a_killed_engine_is_said_and_leaves_nothing(vllm: Any, repository: Path, tmp_path: Path) -> None:
    """In a process of its own: what ends there cannot disturb the other tests."""
    code = """
import asyncio, json, os, signal, sys
from tied_model import SHAPE, its_tokenizer, varied
from ludus.agents.engine import Sampling
from ludus.agents.engine import EngineError
from ludus.agents.vllm_engine import VLLMEngine
import psutil
if __name__ == "__main__":
    engine = VLLMEngine(varied(0), its_tokenizer(), slots=4, max_length=96, threads=1)
    children = psutil.Process().children(recursive=True)
    [core] = [one for one in children if "EngineCore" in " ".join(one.cmdline()) or "EngineCore" in one.name()]
    async def kill():
        task = asyncio.create_task(engine.generate([5, 6, 7], Sampling(max_tokens=90, temperature=0.0)))
        os.kill(core.pid, signal.SIGKILL)
        try:
            await task
            await engine.generate([5, 6, 7], Sampling(max_tokens=90))
        except EngineError as error:
            return str(error)
    said = asyncio.run(kill())
    engine.close()
    children = [one.pid for one in children]
    folders = [str(engine._folder), str(engine._weights._folder)]
    print(json.dumps({"said": said, "children": children, "folders": folders}))
"""
    (tmp_path / "kill.py").write_text(code)
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(repository / "tests"), os.environ.get("PYTHONPATH", "")]),
    }
    result = subprocess.run(
        [sys.executable, "kill.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout.strip().splitlines()[-1])
    assert found["said"] is not None
    assert "process has ended" in found["said"]
    assert found["children"]
    deadline = time.monotonic() + 30
    while any(Path(f"/proc/{pid}").exists() for pid in found["children"]):
        assert time.monotonic() < deadline, "processes are left"
        time.sleep(0.1)
    assert not any(Path(folder).exists() for folder in found["folders"])


@pytest.mark.parametrize("seconds", [0.5, 4.0])
def test_ctrl_c_while_it_starts_leaves_nothing(vllm: Any, repository: Path, tmp_path: Path, seconds: float) -> None:
    """No process, no folder, and not a word of vLLM's: it hears nothing of what the terminal sends to all."""
    code = """
import os, signal, sys, threading, time
from tied_model import its_tokenizer, varied
from ludus.agents.vllm_engine import VLLMEngine
import psutil
def interrupt():
    while not psutil.Process().children():
        time.sleep(0.01)
    time.sleep(float(sys.argv[1]))
    os.killpg(0, signal.SIGINT)
if __name__ == "__main__":
    threading.Thread(target=interrupt).start()
    try:
        VLLMEngine(varied(0), its_tokenizer(), slots=4, max_length=96, threads=1)
    except KeyboardInterrupt:
        print("interrupted", [one.pid for one in psutil.Process().children() if "tracker" not in str(one.cmdline())])
"""
    (tmp_path / "pressed.py").write_text(code)
    path = os.pathsep.join([str(repository / "tests"), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen(
        [sys.executable, "pressed.py", str(seconds)], cwd=tmp_path, env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    said, errors = process.communicate(timeout=300)
    assert said == "interrupted []\n", errors
    assert "Traceback" not in errors and "ERROR" not in errors
    for place in ("/dev/shm", tempfile.gettempdir()):
        assert not list(Path(place).glob(f"ludus-*-{process.pid}-*"))


@pytest.mark.parametrize("when", ["starts", "serves"])
def test_an_engine_ends_with_the_process_that_started_it(
    vllm: Any, repository: Path, tmp_path: Path, when: str
) -> None:
    """Which SIGKILL leaves no time to close it."""
    code = """
import os, signal, sys, threading, time
from tied_model import its_tokenizer, varied
from ludus.agents.vllm_engine import VLLMEngine
import psutil
def children():
    return [one.pid for one in psutil.Process().children(recursive=True)]
def end():
    print(*children(), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
def wait_for_them():
    while not children():
        time.sleep(0.01)
    time.sleep(1.0)
    end()
if __name__ == "__main__":
    if sys.argv[1] == "starts":
        threading.Thread(target=wait_for_them).start()
    engine = VLLMEngine(varied(0), its_tokenizer(), slots=4, max_length=96, threads=1)
    end()
"""
    (tmp_path / "killed.py").write_text(code)
    path = os.pathsep.join([str(repository / "tests"), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "killed.py", when]
    with (tmp_path / "out").open("w") as out:
        process = subprocess.Popen(command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": path}, stdout=out)
        assert process.wait(300) == -signal.SIGKILL
    pids = (tmp_path / "out").read_text().split()
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        assert pids and time.monotonic() < deadline, "processes are left"
        time.sleep(0.1)
    if when == "serves":
        assert not list(Path(tempfile.gettempdir()).glob(f"ludus-vllm-{process.pid}-*"))


def test_a_kill_of_all_its_processes_leaves_no_semaphore(vllm: Any, repository: Path, tmp_path: Path) -> None:
    """Nobody is left then to remove what has a name, so that nothing may have one. Shared memory is a folder here."""
    code = """
import time
from tied_model import its_tokenizer, varied
from ludus.agents.vllm_engine import VLLMEngine
if __name__ == "__main__":
    engine = VLLMEngine(varied(0), its_tokenizer(), slots=4, max_length=96, threads=1)
    print("up", flush=True)
    time.sleep(300)
"""
    (tmp_path / "up.py").write_text(code)
    (tmp_path / "shm").mkdir()
    path = os.pathsep.join([str(repository / "tests"), os.environ.get("PYTHONPATH", "")])
    apart = ["bwrap", "--dev-bind", "/", "/", "--bind", str(tmp_path / "shm"), "/dev/shm"]
    process = subprocess.Popen(
        [*apart, sys.executable, "up.py"], cwd=tmp_path, env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert "up\n" in iter(process.stdout.readline, "")
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    left = [place.name for place in (tmp_path / "shm").iterdir()]
    assert [name.split("-")[0] for name in left] == ["ludus"]  # weights, which the next run sweeps
