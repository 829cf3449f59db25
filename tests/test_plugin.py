"""A distribution adds its environments by being installed: the example, and what `ludus new env` writes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ludus.run_folder import read_metrics
from ludus.scaffold import ScaffoldError, new_env


def install(distribution: Path, place: Path) -> None:
    """Install a copy into a folder of its own, without network and without touching this environment."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    command += ["--disable-pip-version-check", "--target", str(place), str(distribution)]
    subprocess.run(command, check=True, capture_output=True, text=True)


def run(place: Path, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(place)}
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=environment, cwd=cwd)


@pytest.fixture(scope="module")
def reverse(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    source, place = tmp_path_factory.mktemp("source") / "reverse_env", tmp_path_factory.mktemp("site")
    shutil.copytree(repository / "examples" / "reverse_env", source)
    install(source, place)
    return place


@pytest.mark.parametrize(
    "code",
    [
        "import gymnasium, ludus.envs; gymnasium.make('reverse/Reverse-v0')",
        "from ludus.envs import make_env; make_env('reverse/Reverse-v0', letters=3)",
        "from ludus.envs import list_envs; assert 'reverse/Reverse-v0' in [env.name for env in list_envs()]",
        "import reverse_env, ludus.envs; ludus.envs.make_env('reverse/Reverse-v0')",
        "import reverse_env; from ludus.envs import list_envs; assert 'reverse/Reverse-v0' in str(list_envs())",
    ],
)
def test_the_example_is_found_once_it_is_installed(reverse: Path, tmp_path: Path, code: str) -> None:
    result = run(reverse, "-W", "error", "-c", code, cwd=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")


def test_the_examples_own_test_passes(reverse: Path, tmp_path: Path, repository: Path) -> None:
    test = shutil.copy(repository / "examples" / "reverse_env" / "test_reverse_env.py", tmp_path)
    result = run(reverse, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(test), cwd=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "1 passed" in result.stdout


def test_without_the_distribution_its_environment_is_unknown() -> None:
    code = "from ludus.envs import make_env; make_env('reverse/Reverse-v0')"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "EnvError: Unknown environment 'reverse/Reverse-v0'" in result.stderr


def test_a_broken_plugin_costs_a_warning_and_not_the_others(reverse: Path, tmp_path: Path) -> None:
    (tmp_path / "broken_env.py").write_text("raise RuntimeError('half written')\n")
    info = tmp_path / "broken_env-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-env\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[gymnasium.envs]\nbroken = broken_env:register\n")
    code = "from ludus.envs import make_env; print(make_env('reverse/Reverse-v0'))"
    result = run(tmp_path, "-c", f"import sys; sys.path.append({str(reverse)!r}); {code}", cwd=tmp_path)
    assert "<Reverse<reverse/Reverse-v0>>" in result.stdout
    assert "The environment plug-in broken = broken_env:register failed (RuntimeError: half written)" in result.stderr


RECIPE = """
name: small
model:
  tiny: {hidden_size: 32, layers: 1, heads: 2, kv_heads: 1, intermediate_size: 64}
envs: [{name: reverse/Reverse-v0}]
engine: {slots: 8, max_length: 512}
sampling: {max_tokens: 8}
rollout: {placement: ray, workers: 2, cpus_per_worker: 0.5}
policy: {steps: 1, groups: 2, group_size: 2}
eval: {every: 1000, tasks: 2}
"""


@pytest.mark.ray
@pytest.mark.slow
def test_workers_of_ray_play_what_is_installed(ray_cluster: object, reverse: Path, tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(RECIPE)
    done = run(reverse, "-m", "ludus", "train", "small.yaml", "--out", "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = {row["phase"]: row for row in read_metrics(tmp_path / "run")}
    assert rows["policy"]["episodes"] == 4 and rows["policy"]["errors"] == 0
    assert rows["eval"]["tasks"] == 2 and rows["eval"]["errors"] == 0


def test_a_new_environment_works_at_once(tmp_path: Path) -> None:
    folder = new_env("word-chess", tmp_path)
    assert folder == tmp_path / "word-chess"
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["README.md", "pyproject.toml", "test_word_chess.py", "word_chess.py"]
    place = tmp_path / "site"
    install(folder, place)
    test = shutil.copy(folder / "test_word_chess.py", tmp_path)
    result = run(place, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", str(test), cwd=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "7 passed" in result.stdout
    code = "from ludus.envs import list_envs; print([env.name for env in list_envs()])"
    assert "word-chess/WordChess-v0" in run(place, "-c", code, cwd=tmp_path).stdout


def test_what_is_written_is_clean(tmp_path: Path, repository: Path) -> None:
    folder = new_env("word_chess", tmp_path)
    config = ["--config", str(repository / "pyproject.toml")]
    for command in (["check", *config], ["format", "--check", *config]):
        result = subprocess.run([sys.executable, "-m", "ruff", *command, folder], capture_output=True, text=True)
        assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("", "cannot name an environment"),
        ("Word Chess", "use lower-case letters, digits and hyphens, such as word-chess"),
        ("9lives", "cannot name an environment"),
        ("../up", "cannot name an environment"),
        ("a--b", "cannot name an environment"),
        ("a" * 61, "cannot name an environment"),
        ("class", "is already the name of a Python module; choose another, such as my-class."),
        ("true", "'true' means something else to Python, pytest or the new files; choose another, such as my-true."),
        ("none", "choose another, such as my-none."),
        ("task", "choose another, such as my-task."),
        ("text_env", "choose another, such as my-text_env."),
        ("verdict", "choose another, such as my-verdict."),
        ("procedural-source", "choose another, such as my-procedural-source."),
        ("math-verifier", "choose another, such as my-math-verifier."),
        ("test-x", "choose another, such as my-test-x."),
        ("setup", "choose another, such as my-setup."),
        ("conftest", "choose another, such as my-conftest."),
        ("json", "is already the name of a Python module"),
        ("ludus", "is already the name of a Python module"),
    ],
)
def test_a_name_that_cannot_be_used_is_refused_and_nothing_written(tmp_path: Path, name: str, sentence: str) -> None:
    with pytest.raises(ScaffoldError, match=re.escape(sentence)):
        new_env(name, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["my-class", "my-test", "my-true", "my-task", "my-text_env", "my-test-x", "my-setup"])
def test_a_name_that_a_refusal_proposes_works(tmp_path: Path, name: str) -> None:
    folder = new_env(name, tmp_path)
    module = name.replace("-", "_")
    code = f"import {module} as m; m.register(); import ludus.envs as e; e.make_env({{}}, largest=1).reset()"
    env_id = re.findall(r'^"""(\S+):', (folder / f"{module}.py").read_text())[0]
    result = run(folder, "-c", code.format(repr(env_id)), cwd=tmp_path)
    assert result.returncode == 0, result.stderr


def test_a_folder_that_is_already_there_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "word-chess").mkdir()
    with pytest.raises(ScaffoldError, match="is already there; choose another name or folder"):
        new_env("word-chess", tmp_path)
    assert not list((tmp_path / "word-chess").iterdir())


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ScaffoldError, match="choose a folder that can be written"):
        new_env("word-chess", tmp_path / "file")
