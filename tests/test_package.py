"""The package as it is installed: names, contents of the wheel, what an import costs, and borders between rooms."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

ROOMS = ("sandbox", "verifiers", "envs", "agents", "trainers")


def settings_of(repository: Path) -> dict:
    return tomllib.loads((repository / "pyproject.toml").read_text())


def run_python(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter, so that nothing this process has imported or set counts."""
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=cwd, env=inherited | environment, capture_output=True, text=True, timeout=300)


# --- names ---------------------------------------------------------------------------------------------------------


def test_every_package_folder_is_listed_in_pyproject(repository: Path) -> None:
    setuptools = settings_of(repository)["tool"]["setuptools"]
    folders = {
        file.parent.relative_to(repository).as_posix()
        for top in ("ludus", *ROOMS)
        for file in (repository / top).rglob("__init__.py")
    }
    names = {
        folder: ("" if folder.split("/")[0] == "ludus" else "ludus.") + folder.replace("/", ".") for folder in folders
    }
    assert set(setuptools["packages"]) == set(names.values())
    assert setuptools["package-dir"] == {name: folder for folder, name in names.items()}


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_refuses_to_be_imported_under_its_folder_name(room: str, repository: Path) -> None:
    done = run_python("-c", f"import {room}", cwd=repository)
    assert done.returncode == 1
    sentence = f"This folder is installed as ludus.{room}: write 'import ludus.{room}' instead of 'import {room}'."
    assert done.stderr.splitlines()[-1] == f"ImportError: {sentence}"


def test_importing_ludus_loads_no_heavy_library(tmp_path: Path) -> None:
    heavy = ["torch", "transformers", "vllm", "ray", "sympy", "datasets", "tensorboard", "pyarrow"]
    code = f"import sys, ludus; print([name for name in {heavy} if name in sys.modules])"
    done = run_python("-c", code, cwd=tmp_path)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


# --- the wheel -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sources(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what a build reads: building in place would leave products in the source tree, and take old ones in."""
    place = tmp_path_factory.mktemp("sources")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(repository / name, place)
    for name in ("ludus", *ROOMS):
        shutil.copytree(repository / name, place / name, ignore=shutil.ignore_patterns("__pycache__"))
    return place


@pytest.fixture(scope="module")
def wheel(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    done = run_python("-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), cwd=sources)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder into which the wheel was installed, with none of its dependencies."""
    target = tmp_path_factory.mktemp("installed")
    options = ("--no-deps", "--no-index", "--no-compile", "--quiet", "--target", str(target))
    done = run_python("-m", "pip", "install", *options, str(wheel), cwd=target)
    assert done.returncode == 0, done.stdout + done.stderr
    return target


def test_wheel_holds_every_source_file_under_its_installed_name(wheel: Path, sources: Path) -> None:
    package_data = settings_of(sources)["tool"]["setuptools"]["package-data"]["*"]
    wanted = set()
    for top in ("ludus", *ROOMS):
        for pattern in ("*.py", *package_data):
            for file in (sources / top).rglob(pattern):
                name = file.relative_to(sources).as_posix()
                wanted.add(name if top == "ludus" else f"ludus/{name}")
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
        licences = [name for name in archive.namelist() if name.endswith(".dist-info/licenses/LICENSE")]
    assert held == wanted
    assert len(licences) == 1


def test_only_python_and_declared_package_data_stand_in_the_packages(sources: Path) -> None:
    # A template with another ending would work from the source tree and be missing from the wheel.
    patterns = ["*.py", *settings_of(sources)["tool"]["setuptools"]["package-data"]["*"]]
    files = [file for top in ("ludus", *ROOMS) for file in (sources / top).rglob("*") if file.is_file()]
    strangers = [file for file in files if not any(file.match(pattern) for pattern in patterns)]
    assert strangers == [], "add their endings to [tool.setuptools.package-data] in pyproject.toml"


def test_installed_package_imports_from_a_foreign_folder(installed: Path, tmp_path: Path) -> None:
    assert sorted(entry.name for entry in installed.iterdir() if not entry.name.endswith(".dist-info")) in (
        ["ludus"],
        ["bin", "ludus"],
    )
    code = "import ludus.envs.task as task; print(task.__file__)"
    done = run_python("-c", code, cwd=tmp_path, PYTHONPATH=str(installed))
    assert done.stdout.strip() == str(installed / "ludus" / "envs" / "task.py"), done.stderr


def entry_points() -> list[tuple[str, str, str]]:
    project = settings_of(Path(__file__).resolve().parent.parent)["project"]
    groups = {"console_scripts": project.get("scripts", {}), **project.get("entry-points", {})}
    return [(group, name, value) for group, named in groups.items() for name, value in named.items()]


@pytest.mark.parametrize(("group", "name", "value"), entry_points())
def test_every_entry_point_names_something_that_can_be_called(group: str, name: str, value: str) -> None:
    assert callable(EntryPoint(name=name, value=value, group=group).load())


# --- borders between rooms -----------------------------------------------------------------------------------------


def lint_imports(tree: Path, repository: Path) -> subprocess.CompletedProcess[str]:
    code = "import sys; from importlinter.cli import lint_imports_command; lint_imports_command()"
    config = str(repository / "pyproject.toml")
    return run_python("-c", code, "--config", config, "--no-cache", "--no-logo", cwd=tree, COLUMNS="200")


@pytest.fixture
def tree(repository: Path, tmp_path: Path) -> Path:
    """A copy of the package under its installed names."""
    shutil.copytree(repository / "ludus", tmp_path / "ludus", ignore=shutil.ignore_patterns("__pycache__"))
    for room in ROOMS:
        shutil.copytree(repository / room, tmp_path / "ludus" / room, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def test_the_contracts_name_every_room(repository: Path) -> None:
    settings = settings_of(repository)["tool"]
    layers, front_door = settings["importlinter"]["contracts"]
    rooms = [f"ludus.{room}" for room in ROOMS]
    assert layers["layers"] == rooms[::-1]
    assert set(front_door["source_modules"]) == set(rooms)
    assert set(front_door["ignore_imports"]) == {f"ludus.** -> {room}{part}" for room in rooms for part in ("", ".**")}
    assert {name for name in settings["setuptools"]["packages"] if name.count(".") == 1} >= set(rooms)


def test_no_room_imports_a_room_above_it(tree: Path, repository: Path) -> None:
    done = lint_imports(tree, repository)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("room", "line", "finding"),
    [
        ("sandbox", "from .. import verifiers", "ludus.sandbox is not allowed to import ludus.verifiers"),
        ("verifiers", "from ..envs import task", "ludus.verifiers is not allowed to import ludus.envs"),
        ("envs", "from ..agents import engine", "ludus.envs is not allowed to import ludus.agents"),
        ("agents", "def late():\n    import ludus.trainers", "ludus.agents is not allowed to import ludus.trainers"),
        ("trainers", "from .. import attic", "ludus.trainers is not allowed to import ludus.attic"),
        ("sandbox", "from ..attic import dust", "ludus.sandbox is not allowed to import ludus.attic"),
    ],
)
def test_an_arrow_to_a_room_above_is_found(room: str, line: str, finding: str, tree: Path, repository: Path) -> None:
    (tree / "ludus" / "attic.py").touch()  # a module of the front door that no contract knows by name
    (tree / "ludus" / room / "arrow.py").write_text(line + "\n")
    done = lint_imports(tree, repository)
    assert done.returncode == 1
    assert finding in done.stdout
