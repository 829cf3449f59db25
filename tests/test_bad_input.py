"""Bad input: one clear sentence that names the fix, exit code 2, no traceback, nothing lost."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from twins import QWEN25_TEMPLATE, hub_template, write_qwen25_twin

RECIPE = """
name: small
model: {tiny: {hidden_size: 32, layers: 1, heads: 2, kv_heads: 1, intermediate_size: 32, initializer_range: 0.02}}
envs: [{name: ENV, options: OPTIONS}]
engine: {slots: 8, max_length: 400}
sampling: {max_tokens: 4}
policy: {algorithm: reinforce, steps: 1, groups: 2, group_size: 2}
eval: {tasks: 2}
"""
PLUGIN = '''
import gymnasium
from ludus.envs import JsonlSource, TextEnv
from ludus.verifiers.verdict import Verdict

class FromFile(TextEnv):
    """Tasks from a JSONL file."""

    def __init__(self, *, path: str, render_mode: str | None = None) -> None:
        super().__init__(JsonlSource(path, prompt_key="question", answer_key="answer"), render_mode=render_mode)

    def verify(self, task, response):
        return Verdict.correct("same") if response == task.answer else Verdict.wrong("other")

def register() -> None:
    gymnasium.register("file/FromFile-v0", entry_point=FromFile, disable_env_checker=True, order_enforce=False)
'''


def ludus(*arguments: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    if path is not None:
        environment["PYTHONPATH"] = str(path)
    command = [sys.executable, "-m", "ludus", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment)


def assert_one_sentence(done: subprocess.CompletedProcess[str], *says: str) -> None:
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    for text in says:
        assert text in line


def write_recipe(folder: Path, env: str = "ludus/WordMath-v0", options: str = "{}") -> Path:
    path = folder / "recipe.yaml"
    path.write_text(RECIPE.replace("ENV", env).replace("OPTIONS", options))
    return path


@pytest.fixture(scope="module")
def plugin(tmp_path_factory) -> Path:
    """The plug-in as pip would leave it: a module and its metadata with the entry point."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "from_file.py").write_text(PLUGIN)
    metadata = folder / "from_file-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: from-file\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text("[gymnasium.envs]\nfile = from_file:register\n")
    return folder


def test_unknown_environment(tmp_path: Path) -> None:
    done = ludus("train", str(write_recipe(tmp_path, "ludus/WordMat-v0")), "--out", str(tmp_path / "run"))
    assert_one_sentence(done, "ludus/WordMat-v0", "ludus/WordMath-v0")
    assert not (tmp_path / "run").exists()


def test_unknown_option_of_an_environment(tmp_path: Path) -> None:
    done = ludus("train", str(write_recipe(tmp_path, options="{levls: [1]}")), "--out", str(tmp_path / "run"))
    assert_one_sentence(done, "levls", "levels")


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("policy.group_szie=4", "policy.group_size"),
        ("policy.group_size=none", "policy.group_size"),
        ("policy.algorithm=grop", "grpo"),
        ("policy.options.clip_high=0.3", "clip_high"),
        ("eval.tasks=0", "eval.tasks"),
    ],
)
def test_a_wrong_key_or_value_of_a_recipe(override: str, says: str, tmp_path: Path) -> None:
    done = ludus("train", str(write_recipe(tmp_path)), override, "--out", str(tmp_path / "run"))
    assert_one_sentence(done, says)


def test_missing_recipe(tmp_path: Path) -> None:
    assert_one_sentence(ludus("train", str(tmp_path / "none.yaml")), "none.yaml", "does not exist")


def test_resuming_what_is_not_a_run(tmp_path: Path) -> None:
    assert_one_sentence(ludus("train", "--resume", str(tmp_path)), "recipe.yaml")


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ('{"question": "1+1", "answer": "2"}\n{"question": \n', "tasks.jsonl:2"),
        ('{"question": "1+1", "answer": "2"}\n{"question": "1+2"}\n', "answer"),
    ],
)
def test_a_malformed_line_and_a_task_without_an_answer_name_the_line(lines, says, plugin: Path, tmp_path: Path) -> None:
    tasks = tmp_path / "tasks.jsonl"
    tasks.write_text(lines)
    recipe = write_recipe(tmp_path, "file/FromFile-v0", f'{{path: "{tasks}"}}')
    done = ludus("train", str(recipe), "--out", str(tmp_path / "run"), path=plugin)
    assert_one_sentence(done, says, ":2")


def test_a_missing_file_of_tasks(plugin: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, "file/FromFile-v0", f'{{path: "{tmp_path / "none.jsonl"}"}}')
    assert_one_sentence(ludus("train", str(recipe), "--out", str(tmp_path / "run"), path=plugin), "none.jsonl")


def test_a_chat_template_that_rewrites_history(tmp_path: Path) -> None:
    twin = write_qwen25_twin(tmp_path / "twin")
    template = tmp_path / "template.jinja"
    template.write_text(hub_template("qwen3"), encoding="utf-8")
    recipe = write_recipe(tmp_path)
    text = recipe.read_text().replace(
        RECIPE.splitlines()[2],
        f'model: {{path: "{twin}", chat_template: "{template}"}}',
    )
    recipe.write_text(text)
    done = ludus("train", str(recipe), "--out", str(tmp_path / "run"))
    assert_one_sentence(done, "rewrites history", "<think>")


@pytest.mark.parametrize("what", ["missing", "empty", "file", "no weights"])
def test_a_model_directory_that_is_not_one(what: str, tmp_path: Path) -> None:
    model = tmp_path / "model"
    if what == "file":
        model.write_text("not a model")
    elif what != "missing":
        model.mkdir()
    if what == "no weights":
        write_qwen25_twin(model)
        (model / "model.safetensors").unlink()
    done = ludus("eval", "ludus/WordMath-v0", "--model", str(model), "--tasks", "2")
    assert_one_sentence(done, str(model))


def test_an_environment_that_always_fails_stops_the_run_with_its_reason(plugin: Path, tmp_path: Path) -> None:
    (tmp_path / "tasks.jsonl").write_text('{"question": "1+1", "answer": "2"}\n' * 4)
    site = tmp_path / "site"
    site.mkdir()
    for file in plugin.rglob("*"):
        if file.is_file():
            target = site / file.relative_to(plugin)
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(file.read_bytes().replace(b"return Verdict", b"raise KeyError('lost') #"))
    recipe = write_recipe(tmp_path, "file/FromFile-v0", f'{{path: "{tmp_path / "tasks.jsonl"}"}}')
    # The end-of-turn token must be reached for the answer to be judged, so turns are as long as the context.
    done = ludus("train", str(recipe), "sampling.max_tokens=300", "--out", str(tmp_path / "run"), path=site)
    assert_one_sentence(done, "KeyError", "lost")


# In this process, where starting another would show nothing more


def assert_refused(arguments: list[str], capsys: pytest.CaptureFixture[str], *says: str) -> None:
    from ludus.cli import main

    with pytest.raises(SystemExit) as left:
        main(arguments)
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert left.value.code == 2
    assert len(errors) == 1, errors
    for text in says:
        assert text in errors[0]


def recipe_for(folder: Path, model: str) -> Path:
    path = write_recipe(folder)
    tiny = RECIPE.splitlines()[2].removeprefix("model: ")
    assert tiny in path.read_text()
    path.write_text(path.read_text().replace(tiny, model))
    return path


def test_a_chat_template_that_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    twin, template = write_qwen25_twin(tmp_path / "twin"), tmp_path / "none.jinja"
    recipe = recipe_for(tmp_path, f'{{path: "{twin}", chat_template: "{template}"}}')
    arguments = ["train", str(recipe), "--out", str(tmp_path / "run")]
    assert_refused(arguments, capsys, str(template), "No such file or directory")
    assert not (tmp_path / "run").exists(), "nothing was begun, so nothing is left"


def test_an_architecture_that_the_engine_does_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel
    from twins import byte_tokenizer

    tokenizer = byte_tokenizer(QWEN25_TEMPLATE)
    size = len(tokenizer)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=size, n_positions=64, n_embd=16, n_layer=1, n_head=2))
    for part in (model, tokenizer):
        part.save_pretrained(tmp_path / "gpt2")
    recipe = recipe_for(tmp_path, f'{{path: "{tmp_path / "gpt2"}"}}')
    assert_refused(["train", str(recipe), "--out", str(tmp_path / "run")], capsys, "qwen2, qwen3, llama", "'gpt2'")


@pytest.mark.parametrize("file", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_torn_model(file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    twin = write_qwen25_twin(tmp_path / "twin")
    (twin / file).write_bytes((twin / file).read_bytes()[:60])
    assert_refused(["eval", "ludus/WordMath-v0", "--model", str(twin), "--tasks", "1"], capsys, str(twin))


def test_a_tokenizer_without_a_chat_template(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    twin = write_qwen25_twin(tmp_path / "twin")
    (twin / "chat_template.jinja").unlink()
    recipe = recipe_for(tmp_path, f'{{path: "{twin}"}}')
    arguments = ["train", str(recipe), "--out", str(tmp_path / "run")]
    assert_refused(arguments, capsys, "no chat template", "model.chat_template")


def test_a_learning_rate_that_breaks_the_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The run stops at the step that is not a number; what it logged stays."""
    recipe = write_recipe(tmp_path)
    text = recipe.read_text().replace(
        "policy: {", "sft: {steps: 50, batch_size: 2, demonstrations: 4, optimizer: {lr: 1.0e+30}}\npolicy: {"
    )
    recipe.write_text(text)
    assert_refused(["train", str(recipe), "--out", str(tmp_path / "run")], capsys, "no step was taken")
    assert (tmp_path / "run" / "metrics.jsonl").read_text().count("\n") >= 2


def test_a_file_without_a_task(tmp_path: Path, plugin: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "tasks.jsonl").write_text("\n\n")
    recipe = write_recipe(tmp_path, "file/FromFile-v0", f'{{path: "{tmp_path / "tasks.jsonl"}"}}')
    done = ludus("train", str(recipe), "--out", str(tmp_path / "run"), path=plugin)
    assert_one_sentence(done, "empty", "at least one task")


def test_an_empty_stop_sequence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["train", str(write_recipe(tmp_path)), 'sampling.stop=[""]', "--out", str(tmp_path / "run")]
    assert_refused(arguments, capsys, "sampling.stop")


def test_a_checkpoint_that_is_torn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from ludus.cli import main

    run = tmp_path / "run"
    with pytest.raises(SystemExit) as left:
        main(["train", str(write_recipe(tmp_path)), "--out", str(run)])
    assert left.value.code == 0
    capsys.readouterr()
    (newest,) = (run / "checkpoints").glob("policy-*")
    (newest / "trainer_state.pt").write_bytes(b"torn")
    assert_refused(["train", "--resume", str(run)], capsys, newest.name, "delete it to resume from the one before")
