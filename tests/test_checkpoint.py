"""Checkpoints: whole or not there, kept in order, and models that anybody can load."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from mixture import mixture

from ludus.agents.config import TinyModel
from ludus.agents.model import create_tiny_model, load_model
from ludus.sandbox.errors import LudusError
from ludus.trainers.checkpoint import CheckpointError, list_checkpoints, load_weights, save_checkpoint, write_folder
from ludus.trainers.config import OptimizerConfig
from ludus.trainers.optimizer import apply_step, build_optimizer

SHAPE = TinyModel(hidden_size=32, layers=2, heads=2, kv_heads=1, intermediate_size=64)


def some_model(seed: int = 0) -> Any:
    return create_tiny_model(SHAPE, seed)


def save(folder: Path, phase: str, step: int, seed: int = 0, keep: int = 9, **state: Any) -> Path:
    return save_checkpoint(folder, phase, step, *some_model(seed), state, keep)


def names(folder: Path) -> list[str]:
    return [checkpoint.path.name for checkpoint in list_checkpoints(folder)]


def test_a_checkpoint_is_a_model_that_transformers_loads(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    path = save(tmp_path, "policy", 12)
    model, tokenizer = some_model()
    loaded = AutoModelForCausalLM.from_pretrained(path)
    assert all(torch.equal(tensor, loaded.state_dict()[name]) for name, tensor in model.state_dict().items())
    theirs = AutoTokenizer.from_pretrained(path)
    messages = [{"role": "user", "content": "1 + 2 = ?"}]
    prompt = theirs.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert prompt == tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    ids = theirs.encode(prompt)
    assert ids == tokenizer.encode(prompt)
    with torch.no_grad():
        assert torch.equal(model(torch.tensor([ids])).logits, loaded(torch.tensor([ids])).logits)


def test_checkpoints_come_by_phase_and_step_and_the_oldest_go(tmp_path: Path) -> None:
    for phase, step in (("sft", 50), ("sft", 400), ("policy", 9), ("policy", 10), ("policy", 100)):
        save(tmp_path, phase, step, keep=3)
    assert names(tmp_path) == ["policy-000009", "policy-000010", "policy-000100"]
    newest = list_checkpoints(tmp_path)[-1]
    assert (newest.phase, newest.step) == ("policy", 100)


def test_what_is_no_complete_checkpoint_is_not_listed(tmp_path: Path) -> None:
    save(tmp_path, "policy", 2)
    for name in ("policy-000004", ".policy-000006.partial", "reference", "other-000009", "policy-x"):
        shutil.copytree(tmp_path / "policy-000002", tmp_path / name)
    (tmp_path / "policy-000004" / "trainer_state.pt").unlink()
    assert names(tmp_path) == ["policy-000002"]


def test_the_optimiser_goes_on_as_if_it_had_never_stopped(tmp_path: Path) -> None:
    config = OptimizerConfig(lr=1e-2)

    def step(model: Any, optimizer: Any, number: int) -> None:
        inputs = torch.randint(7, 90, (4, 12), generator=torch.Generator().manual_seed(number))
        model(inputs, labels=inputs).loss.backward()
        apply_step(optimizer, config, config.lr)

    model, tokenizer = some_model()
    optimizer = build_optimizer(model, config)
    for number in range(3):
        step(model, optimizer, number)
    path = save_checkpoint(tmp_path, "policy", 3, model, tokenizer, {"optimizer": optimizer.state_dict()}, 1)
    step(model, optimizer, 3)

    again, _ = some_model(seed=5)
    load_weights(again, path)
    other = build_optimizer(again, config)
    other.load_state_dict(list_checkpoints(tmp_path)[-1].state()["optimizer"])
    step(again, other, 3)
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in model.state_dict().items())


def test_tied_weights_are_read_back_tied(tmp_path: Path) -> None:
    from twins import write_qwen25_twin

    twin = write_qwen25_twin(tmp_path / "twin")
    model, tokenizer = load_model(str(twin))
    with torch.no_grad():
        model.lm_head.weight.add_(1.0)
    path = save_checkpoint(tmp_path / "run", "policy", 1, model, tokenizer, {}, 1)
    other, _ = load_model(str(twin))
    load_weights(other, path)
    assert other.lm_head.weight is other.model.embed_tokens.weight
    assert torch.equal(other.lm_head.weight, model.lm_head.weight)


@pytest.mark.parametrize("file", ["trainer_state.pt", "model.safetensors"])
def test_a_damaged_checkpoint_is_one_sentence(tmp_path: Path, file: str) -> None:
    path = save(tmp_path, "policy", 2)
    (path / file).write_bytes((path / file).read_bytes()[:200])
    checkpoint = list_checkpoints(tmp_path)[-1]
    with pytest.raises(CheckpointError, match=r"policy-000002") as caught:
        checkpoint.state()
        load_weights(some_model()[0], path)
    assert "\n" not in str(caught.value)


def test_the_state_file_runs_no_code(tmp_path: Path) -> None:
    """A checkpoint may come from elsewhere; a pickle in it must not be able to do anything."""
    import pickle

    class Bomb:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "exploded"),)

    path = save(tmp_path, "policy", 2)
    (path / "trainer_state.pt").write_bytes(pickle.dumps(Bomb(), protocol=2))
    with pytest.raises(CheckpointError):
        list_checkpoints(tmp_path)[-1].state()
    assert not (tmp_path / "exploded").exists()


# Writing that fails


def test_a_failure_leaves_the_folder_that_was_there(tmp_path: Path) -> None:
    good = write_folder(tmp_path / "policy-000001", lambda place: (place / "file").write_text("good") and None)

    def fail(place: Path) -> None:
        (place / "file").write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(
        CheckpointError, match=r"No space left.*Free some space and continue with `ludus train --resume"
    ):
        write_folder(good, fail)
    assert (good / "file").read_text() == "good"
    assert os.listdir(tmp_path) == ["policy-000001"]


def test_rubble_of_a_killed_writer_is_no_hindrance(tmp_path: Path) -> None:
    rubble = tmp_path / ".policy-000004.partial"
    rubble.mkdir()
    (rubble / "model.safetensors").write_bytes(b"half")
    (rubble / "stranger").write_bytes(b"rubble")
    path = save(tmp_path, "policy", 4)
    assert not rubble.exists()
    assert not (path / "stranger").exists()
    load_weights(some_model(seed=1)[0], path)


FULL = """
import resource, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import test_checkpoint as t
model, tokenizer = t.create_tiny_model(t.TinyModel(hidden_size=64, layers=4, heads=2, kv_heads=1), 1)
state = {{"optimizer": model.state_dict()}}
for limit in map(int, sys.argv[1:]):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        t.save_checkpoint(Path({folder!r}), "policy", 4, model, tokenizer, state, 1)
    except t.LudusError as error:
        sys.stderr.write(f"{{error}}\\n")
"""


def test_a_disk_that_takes_no_more_leaves_the_last_good_checkpoint(tmp_path: Path) -> None:
    """The kernel refuses bytes beyond a limit, which is reached in one file or another; keep is 1."""
    folder, limits = tmp_path / "checkpoints", [1, 600, 3000, 100_000, 700_000]
    save(folder, "policy", 2, answer=42)
    code = FULL.format(tests=str(Path(__file__).parent), folder=str(folder))
    command = [sys.executable, "-c", code, *map(str, limits)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    told = [line for line in done.stderr.splitlines() if "policy-000004 could not be written" in line]
    assert len(told) == len(limits), done.stderr
    assert all(line.endswith("continue with `ludus train --resume`.") for line in told)
    assert os.listdir(folder) == ["policy-000002"]
    (checkpoint,) = list_checkpoints(folder)
    assert checkpoint.state() == {"answer": 42}
    load_weights(some_model(seed=1)[0], checkpoint.path)


WRITERS = """
import os, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import test_checkpoint as t
models = [t.some_model(seed) for seed in range(2)]
print("ready", flush=True)
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        for step in range(1, 100_000):
            model, tokenizer = models[step % 2]
            t.save_checkpoint(Path({folder!r}), "policy", step, model, tokenizer, {{"step": step}}, 2)
    print(child, flush=True)
    os.waitpid(child, 0)
    print("dead", flush=True)
"""


def half_written(folder: Path) -> list[str]:
    """The files of the checkpoint that is being written, if one is."""
    for place in folder.glob(".*.partial"):
        try:
            return os.listdir(place)
        except FileNotFoundError:  # it was finished in between
            return []
    return []


def test_a_killed_writer_leaves_only_complete_checkpoints(tmp_path: Path) -> None:
    """Killed again and again, as soon as something half written is seen that has so and so many files."""
    folder, expected = tmp_path / "checkpoints", [some_model(seed)[0].lm_head.weight for seed in range(2)]
    code = WRITERS.format(tests=str(Path(__file__).parent), folder=str(folder))
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    caught = 0
    with subprocess.Popen([sys.executable, "-c", code], bufsize=1, **pipes) as writers:
        assert writers.stdin is not None and writers.stdout is not None
        assert writers.stdout.readline() == "ready\n"
        for number in range(14):
            writers.stdin.write("another\n")
            writer, first = int(writers.stdout.readline()), time.monotonic()
            while time.monotonic() < first + 20:
                if len(half_written(folder)) > number % 7 and list_checkpoints(folder):
                    break
            os.kill(writer, signal.SIGKILL)
            assert writers.stdout.readline() == "dead\n"
            caught += bool(half_written(folder))
            found = list_checkpoints(folder)
            assert found, "at least the one before is there"
            for checkpoint in found:
                assert checkpoint.state() == {"step": checkpoint.step}
                model, _ = some_model(seed=7)
                load_weights(model, checkpoint.path)
                assert torch.equal(model.lm_head.weight, expected[checkpoint.step % 2])
            shutil.rmtree(folder)
        writers.stdin.close()
    assert caught >= 1, "no writer was caught in the act"


def test_a_model_of_another_shape_is_one_sentence(tmp_path: Path) -> None:
    path = save(tmp_path, "policy", 1)
    for change in ({"layers": 1}, {"layers": 3}, {"intermediate_size": 96}, {"tags": ("<a>",)}):
        other, _ = create_tiny_model(SHAPE.model_copy(update=change), 0)
        before = {name: tensor.clone() for name, tensor in other.state_dict().items()}
        with pytest.raises(LudusError, match=r"holds a model of another shape than the recipe's"):
            load_weights(other, path)
        assert all(torch.equal(tensor, before[name]) for name, tensor in other.state_dict().items()), "untouched"


def test_a_mixture_of_experts_comes_back_bit_for_bit(tmp_path: Path) -> None:
    """From files in which experts stand one by one; of another shape it is refused."""
    model, tokenizer = mixture(), create_tiny_model(SHAPE, 0)[1]
    path = save_checkpoint(tmp_path, "policy", 1, model, tokenizer, {}, 1)
    other = mixture(seed=1)
    load_weights(other, path)
    own, theirs = model.state_dict(), other.state_dict()
    assert own.keys() == theirs.keys() and all(torch.equal(own[name], theirs[name]) for name in own)
    for change in ({"num_experts": 3}, {"moe_intermediate_size": 64}, {"num_hidden_layers": 1}):
        with pytest.raises(LudusError, match=r"holds a model of another shape than the recipe's"):
            load_weights(mixture(**change), path)


def test_a_folder_without_weights_is_one_sentence(tmp_path: Path) -> None:
    path = save(tmp_path, "policy", 1)
    (path / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"policy-000001 holds no safetensors file"):
        load_weights(some_model()[0], path)
