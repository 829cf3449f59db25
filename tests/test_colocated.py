"""vLLM beside its trainer on one device: weights handed over where they lie, and sleep while the trainer learns.

Where there is no GPU the tensors lie in shared memory, see `shared_memory_handover`; all else is as with a GPU.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from shared_memory_handover import WORKER, Faulty
from tied_model import its_tokenizer, varied
from transformers import PreTrainedModel

from ludus.agents.config import EngineConfig, LoraConfig
from ludus.agents.engine import Completion, EngineError, Sampling, StopReason, resting
from ludus.agents.engines import choose_handover
from ludus.agents.handover import ON_THE_GPU
from ludus.agents.lora import add_lora
from ludus.agents.vllm_engine import VLLMEngine
from ludus.agents.weights import TransferError, logprobs_of

PROMPT = list(range(4, 84))
"""Longer than two blocks of the cache."""


@pytest.fixture(scope="module")
def way() -> Faulty:
    return Faulty()


@pytest.fixture(scope="module")
def its_engine(vllm: Any, way: Faulty) -> Iterator[VLLMEngine]:
    settings = {"block_size": 32, "max_num_batched_tokens": 96, "worker_extension_cls": WORKER}
    shape: dict[str, Any] = {"slots": 8, "max_length": 96, "threads": 1, "settings": settings}
    with VLLMEngine(varied(0), its_tokenizer(), **shape, handover=way.handover, sleeps=True) as engine:
        yield engine


@pytest.fixture
def engine(its_engine: VLLMEngine, way: Faulty) -> VLLMEngine:
    way.fault = None
    its_engine.wake()
    its_engine.load_weights(varied(0), 0)
    return its_engine


def generate(engine: VLLMEngine, **sampling: Any) -> Completion:
    return asyncio.run(engine.generate(PROMPT, Sampling(max_tokens=8, seed=1, **sampling)))


def serves(engine: VLLMEngine, model: PreTrainedModel) -> bool:
    """Whether what it generates is as likely as the model says, and what it says is the model's."""
    found = generate(engine)
    own = torch.tensor(logprobs_of(model, [*PROMPT, *found.token_ids]))
    theirs = torch.tensor(engine.logprobs([*PROMPT, *found.token_ids]))
    sampled = torch.tensor(found.logprobs)
    return bool((own - theirs).abs().max() < 1e-4 and (own[len(PROMPT) - 1 :] - sampled).abs().max() < 1e-4)


def taken(engine: VLLMEngine) -> int:
    """How many tensors came by the handover so far."""
    return engine._do(engine._llm.collective_rpc("taken"), "a test")[0]


@pytest.mark.vllm
class TestHandover:
    def test_weights_are_proven_and_served_with_an_output_layer_that_is_the_embeddings(
        self, engine: VLLMEngine
    ) -> None:
        for version in (1, 2):
            before = taken(engine)
            engine.load_weights(varied(version), version)
            assert engine.proof is not None
            assert taken(engine) - before == engine.proof.tensors > 20
            assert (engine.proof.version, engine.version) == (version, version)
            assert engine.proof.gap < 1e-4
            assert serves(engine, varied(version))
            assert generate(engine).version == version

    def test_adapters_arrive_merged(self, engine: VLLMEngine) -> None:
        model = varied(1)
        add_lora(model, LoraConfig(rank=2), 0)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if "lora_B" in name:
                    weight.copy_(torch.randn(weight.shape, generator=generator) * 0.1)
        engine.load_weights(model, 1)
        assert serves(engine, model)
        assert not serves(engine, varied(1))

    @pytest.mark.parametrize(
        ("fault", "sentence"),
        [
            (
                "altered",
                r"version 2: 1 of \d+ tensors arrived otherwise .*, the first of them model\.",
            ),
            ("breaks off", r"could not take in the weights of version 2 .*; set engine\.transfer: file, and resume"),
        ],
    )
    def test_what_goes_wrong_on_the_way_is_refused_and_the_version_before_is_served_by_its_file(
        self, engine: VLLMEngine, way: Faulty, fault: str, sentence: str
    ) -> None:
        engine.load_weights(varied(1), 1)
        way.fault, before = fault, taken(engine)
        with pytest.raises(TransferError, match=sentence):
            engine.load_weights(varied(2), 2)
        assert engine.proof is not None
        came = taken(engine) - before
        assert came == engine.proof.tensors if fault == "altered" else 0 < came < engine.proof.tensors
        assert engine.version == 1
        assert serves(engine, varied(1))
        way.fault = None
        engine.load_weights(varied(3), 3)  # and nothing of the failed one is left in the way
        assert serves(engine, varied(3))

    def test_a_file_still_is_another_way(self, engine: VLLMEngine) -> None:
        before = taken(engine)
        sent = engine._weights.send(varied(1), 1)
        engine.take(sent)
        assert taken(engine) == before
        assert serves(engine, varied(1))
        engine.load_weights(varied(2), 2)
        assert not sent.path.exists()


@pytest.mark.vllm
def test_where_the_first_handover_fails_and_none_is_insisted_on_files_do(vllm: Any) -> None:
    def refused(weights: object) -> Any:
        raise RuntimeError("CUDA error: invalid argument")

    handover = replace(Faulty().handover, handles=refused, insisted=False)
    settings = {"worker_extension_cls": WORKER}
    with (
        pytest.warns(UserWarning, match=r"by a file, for .* version 0 \(CUDA error: invalid argument\); set engine"),
        VLLMEngine(
            varied(0), its_tokenizer(), max_length=96, threads=1, settings=settings, handover=handover
        ) as engine,
    ):
        engine.load_weights(varied(1), 1)
        assert engine.proof is not None and engine.proof.version == 1
        assert taken(engine) == 0
        assert serves(engine, varied(1))


class TestChoice:
    @pytest.mark.parametrize(
        ("transfer", "device", "settings", "handed"),
        [
            ("auto", "cpu", {}, False),
            ("auto", "cuda", {}, True),
            ("auto", "cuda:0", {"tensor_parallel_size": 1}, True),
            ("auto", "cuda:1", {}, False),
            ("auto", "cuda:0", {"tensor_parallel_size": 2}, False),
            ("file", "cuda:0", {}, False),
            ("file", "cpu", {}, False),
            ("ipc", "cuda:0", {}, True),
        ],
    )
    def test_weights_are_handed_over_on_a_gpu_that_is_shared(
        self, transfer: str, device: str, settings: dict[str, object], handed: bool
    ) -> None:
        config = EngineConfig.model_validate({"kind": "vllm", "transfer": transfer, "vllm": settings})
        found = choose_handover(config, torch.device(device))
        assert found == (replace(ON_THE_GPU, insisted=config.transfer == "ipc") if handed else None)

    @pytest.mark.parametrize(
        ("device", "settings", "sentence"),
        [
            ("cpu", {}, r"and the model is on cpu; set engine\.transfer: auto\."),
            ("cuda:1", {}, r"and the model is on cuda:1; set engine\.transfer: auto\."),
            ("cuda:0", {"data_parallel_size": 2}, r"and engine\.vllm\.data_parallel_size spreads vLLM over several"),
        ],
    )
    def test_where_none_is_shared_it_cannot_be_had(
        self, device: str, settings: dict[str, object], sentence: str
    ) -> None:
        config = EngineConfig.model_validate({"kind": "vllm", "transfer": "ipc", "vllm": settings})
        with pytest.raises(EngineError, match=sentence):
            choose_handover(config, torch.device(device))


@pytest.mark.vllm
class TestSleep:
    def test_it_serves_what_it_served_before_and_then_new_weights(self, engine: VLLMEngine) -> None:
        before = generate(engine)
        with resting(engine):
            pass
        assert generate(engine) == before
        with resting(engine):
            pass
        engine.load_weights(varied(1), 1)
        assert serves(engine, varied(1))

    def test_what_is_asked_of_a_sleeping_engine_is_refused(self, engine: VLLMEngine) -> None:
        with resting(engine):
            for ask in (
                lambda: generate(engine),
                lambda: engine.logprobs(PROMPT),
                lambda: engine.load_weights(varied(1), 1),
            ):
                with pytest.raises(EngineError, match=r"vLLM sleeps .*; call wake\(\) before it is asked"):
                    ask()
        assert engine.version == 0
        assert serves(engine, varied(0))

    def test_generations_under_way_end_as_interrupted(self, engine: VLLMEngine) -> None:
        async def meanwhile() -> list[Completion]:
            asked = [Sampling(max_tokens=90, seed=n) for n in range(12)]  # more than it has slots
            tasks = [asyncio.create_task(engine.generate([5, 6], sampling)) for sampling in asked]
            await asyncio.sleep(0.01)
            await asyncio.to_thread(engine.sleep)
            return await asyncio.gather(*tasks)

        found = asyncio.run(meanwhile())
        engine.wake()
        ended = (StopReason.END, StopReason.LENGTH)
        assert any(one.stop_reason is StopReason.INTERRUPTED for one in found)
        assert all(one.stop_reason in (StopReason.INTERRUPTED, *ended) for one in found)
        assert all(len(one.token_ids) == 90 for one in found if one.stop_reason is StopReason.LENGTH)

    def test_it_wakes_where_learning_fails(self, engine: VLLMEngine) -> None:
        with pytest.raises(ZeroDivisionError), resting(engine):
            raise ZeroDivisionError
        assert generate(engine).token_ids

    def test_one_that_is_not_to_sleep_does_not(self, engine: VLLMEngine) -> None:
        engine.sleeps = False
        try:
            with resting(engine):
                assert generate(engine).token_ids
        finally:
            engine.sleeps = True
