"""The engine's doctor names the cause: each is provoked, and no other is blamed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tied_model import its_tokenizer, varied
from transformers import PreTrainedModel
from typer.testing import CliRunner

from ludus.agents.engine import Completion, Sampling
from ludus.agents.engine_doctor import diagnose_engine
from ludus.agents.lora import save_merged
from ludus.agents.torch_engine import TorchEngine
from ludus.agents.vllm_engine import VLLMEngine
from ludus.cli import app


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    return varied(0)


class Wrapped:
    """An engine with another one's faults added."""

    def __init__(self, engine: Any) -> None:
        self.engine = engine

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)


class RawLogprobs(Wrapped):
    """Returns the log-probabilities of the whole distribution at temperature 1, whatever it sampled from."""

    def __init__(self, engine: Any, model: PreTrainedModel, only: str) -> None:
        super().__init__(engine)
        self.model, self.only = model, only

    def load_weights(self, model: PreTrainedModel, version: int) -> None:
        self.model = model
        self.engine.load_weights(model, version)

    async def generate(self, token_ids: list[int], sampling: Sampling, session: str | None = None) -> Completion:
        found = await self.engine.generate(token_ids, sampling)
        if (sampling.temperature == 1) if self.only == "temperature" else not sampling.top_k:
            return found
        ids = torch.tensor([[*token_ids, *found.token_ids]])
        with torch.no_grad():
            rows = torch.log_softmax(self.model(input_ids=ids).logits[0, len(token_ids) - 1 : -1], -1)
        raw = rows.gather(1, torch.tensor(found.token_ids)[:, None])[:, 0]
        return replace(found, logprobs=tuple(raw.tolist()), kept=None)


class ReadsText(Wrapped):
    """Encodes the text of its prompt anew, as an endpoint of text does."""

    async def generate(self, token_ids: list[int], sampling: Sampling, session: str | None = None) -> Completion:
        text = self.engine.tokenizer.decode(token_ids)
        return await self.engine.generate(self.engine.tokenizer.encode(text, add_special_tokens=False), sampling)


class OtherTemplate(Wrapped):
    """Has a tokenizer with a chat template of its own."""

    def __init__(self, engine: Any) -> None:
        super().__init__(engine)
        self.tokenizer = its_tokenizer()
        self.tokenizer.chat_template = "{% for m in messages %}[{{ m.role }}] {{ m.content }}{% endfor %}"


class Deaf(Wrapped):
    """Says that it took new weights, and goes on with the old ones."""

    def load_weights(self, model: PreTrainedModel, version: int) -> None:
        self.engine.version = version


def causes(engine: Any, model: PreTrainedModel) -> list[str]:
    return [finding.name for finding in diagnose_engine(engine, model, its_tokenizer()).findings]


@pytest.fixture
def own(model: PreTrainedModel) -> TorchEngine:
    return TorchEngine(model, its_tokenizer(), slots=16, max_length=96)


class TestOwnEngine:
    def test_a_sound_one_has_nothing(self, own: TorchEngine, model: PreTrainedModel) -> None:
        report = diagnose_engine(own, model, its_tokenizer())
        assert report.findings == ()
        assert set(report.gaps) == {
            "plain", "temperature", "truncation", "tokens", "new weights", "new weights, seen prompts"
        }  # fmt: skip
        assert max(report.gaps.values()) < 1e-4
        assert own.version == 0

    @pytest.mark.parametrize("cause", ["temperature", "truncation"])
    def test_raw_log_probabilities(self, own: TorchEngine, model: PreTrainedModel, cause: str) -> None:
        assert causes(RawLogprobs(own, model, cause), model) == [cause]

    def test_text_in_the_place_of_tokens(self, own: TorchEngine, model: PreTrainedModel) -> None:
        assert causes(ReadsText(own), model) == ["re-tokenisation"]

    def test_half_the_precision(self, model: PreTrainedModel) -> None:
        engine = TorchEngine(model, its_tokenizer(), slots=16, max_length=96, dtype=torch.bfloat16)
        assert causes(engine, model) == ["kernel precision"]

    def test_weights_that_never_change(self, own: TorchEngine, model: PreTrainedModel) -> None:
        assert causes(Deaf(own), model) == ["stale weights"]

    def test_weights_of_before(self, own: TorchEngine) -> None:
        assert causes(own, varied(1)) == ["stale weights"]

    def test_a_template_of_its_own(self, own: TorchEngine, model: PreTrainedModel) -> None:
        assert causes(OtherTemplate(own), model) == ["template"]

    def test_several_at_once(self, own: TorchEngine, model: PreTrainedModel) -> None:
        engine = OtherTemplate(ReadsText(RawLogprobs(own, model, "temperature")))
        assert causes(engine, model) == ["template", "temperature", "re-tokenisation"]


@pytest.mark.vllm
class TestVLLM:
    @pytest.fixture
    def engine(self, vllm_engine: VLLMEngine, model: PreTrainedModel) -> Iterator[VLLMEngine]:
        vllm_engine.load_weights(model, 0)
        yield vllm_engine
        vars(vllm_engine).pop("_salt", None)
        vars(vllm_engine).pop("_read", None)

    def test_a_sound_one_has_nothing(self, engine: VLLMEngine, model: PreTrainedModel) -> None:
        report = diagnose_engine(engine, model, its_tokenizer())
        assert report.findings == ()
        assert max(report.gaps.values()) < 1e-4

    def test_prefixes_of_old_weights(self, engine: VLLMEngine, model: PreTrainedModel) -> None:
        engine._salt = lambda version: "always the same"  # type: ignore[method-assign]
        assert causes(engine, model) == ["stale prefix cache"]

    def test_vllms_own_reload(self, engine: VLLMEngine, model: PreTrainedModel, tmp_path: Path) -> None:
        """Which leaves the output layer behind, and nobody asks for a proof."""

        async def plainly(sent: Any, message: bytes | None = None) -> None:
            await engine._llm.collective_rpc("reload_weights", kwargs={"weights_path": str(sent.path.parent)})

        engine._read = plainly  # type: ignore[method-assign, assignment]
        assert causes(engine, model) == ["stale weights"]


class TestCommand:
    def test_it_prints_what_it_measured(self, model: PreTrainedModel, tmp_path: Path) -> None:
        save_merged(model, tmp_path)
        its_tokenizer().save_pretrained(tmp_path)
        result = CliRunner().invoke(app, ["doctor", "--engine", "torch", "--model", str(tmp_path)])
        assert result.exit_code == 0, result.output
        assert "new weights, seen prompts" in result.output
        assert f"torch on {tmp_path}: nothing wrong" in result.output

    @pytest.mark.parametrize(
        "arguments", [[], ["--engine", "vllm"], ["--model", "x"], ["run", "--engine", "torch", "--model", "x"]]
    )
    def test_arguments_that_do_not_go_together(self, arguments: list[str]) -> None:
        result = CliRunner().invoke(app, ["doctor", *arguments])
        assert result.exit_code != 0
        assert "give either the folder of a run, or --engine" in str(result.exception)
