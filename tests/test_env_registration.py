"""Environments are found by name in Gymnasium's registry, and a wrong name or option is told in one sentence."""

from __future__ import annotations

import pickle
import subprocess
import sys

import gymnasium
import pytest

import ludus.envs
from ludus.envs import EnvError, TextEnv, list_envs, make_env
from ludus.envs.registration import BUILTIN, register_builtin, takes_option


def test_the_builtin_environments_are_listed_with_a_summary_and_options() -> None:
    infos = {info.name: info for info in list_envs()}
    assert set(BUILTIN) <= set(infos)
    assert all(infos[name].summary.endswith(".") for name in BUILTIN)
    assert infos["ludus/WordMath-v0"].options["split"] == "train"
    assert "CartPole-v1" not in infos


def test_registering_again_changes_nothing(recwarn: pytest.WarningsRecorder) -> None:
    before = dict(gymnasium.registry)
    register_builtin()
    ludus.envs.load_plugins()
    assert gymnasium.registry == before
    assert not recwarn.list


@pytest.mark.parametrize(
    "statement",
    [
        "import gymnasium, ludus.envs; env = gymnasium.make('ludus/WordMath-v0')",
        "import ludus.envs, gymnasium; env = gymnasium.make('ludus/WordMath-v0')",
        "import gymnasium; env = gymnasium.make('ludus.envs:ludus/WordMath-v0')",
    ],
)
def test_gymnasium_makes_them_in_a_fresh_process(statement: str) -> None:
    code = f"{statement}; print(env.unwrapped is env, env.spec.id)"
    result = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
    assert (result.stdout.strip(), result.stderr) == ("True ludus/WordMath-v0", "")


def test_importing_the_environments_loads_no_model_library() -> None:
    heavy = ("torch", "transformers", "pyarrow", "datasets")
    code = "import sys; from ludus.envs import make_env; make_env('ludus/WordMath-v0')"
    code += f"; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("ludus/WordMth-v0", {}, "Unknown environment 'ludus/WordMth-v0'. Did you mean 'ludus/WordMath-v0'? Known: "),
        ("wordmath", {}, "Did you mean 'ludus/WordMath-v0'?"),
        ("", {}, "Unknown environment ''. Known: "),
        ("CartPole-v1", {}, "Not a text environment: 'CartPole-v1'. Known: "),
        ("ludus/WordMath-v0", {"spilt": "test"}, "has no option 'spilt'. Did you mean 'split'?"),
        (
            "ludus/WordMath-v0",
            {"split": "tset"},
            "the option split = 'tset' is wrong: Input should be 'train' or 'test'.",
        ),
        ("ludus/WordMath-v0", {"max_turns": "many"}, "the option max_turns = 'many' is wrong"),
        ("ludus/WordMath-v0", {"max_turns": 0}, "max_turns = 0 leaves no turn to answer in"),
        ("ludus/WordMath-v0", {"templates": ["gian"]}, "Unknown template 'gian'. Did you mean 'gain'?"),
        ("ludus/WordMath-v0", {"levels": 3}, "the option levels = 3 must be a list, such as [3]."),
        ("ludus/WordMath-v0", {"templates": "gain"}, "the option templates = 'gain' must be a list, such as ['gain']."),
        ("ludus/WordMath-v0", {"levels": ["x"]}, "the option levels = ['x'] is wrong: Input should be a valid integer"),
        ("ludus/WordMath-v0", {"levels": [4]}, "No template has the levels"),
        ("ludus/WordMath-v0", {"seed": -1}, "give a seed of 0 or more"),
    ],
)
def test_a_wrong_name_or_option_is_told_in_one_sentence(name: str, options: dict[str, object], sentence: str) -> None:
    with pytest.raises(EnvError) as caught:
        make_env(name, **options)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_environment_survives_pickling() -> None:
    env = make_env("ludus/WordMath-v0", levels=[2])
    again = pickle.loads(pickle.dumps(env))
    assert again.reset(options={"index": 3}) == env.reset(options={"index": 3})
    assert again.step("<calculator>3*4</calculator>")[0] == "12"


def test_gymnasium_runs_environments_in_other_processes() -> None:
    envs = gymnasium.make_vec(
        "ludus/WordMath-v0", num_envs=2, vectorization_mode="async", vector_kwargs={"shared_memory": False}
    )
    try:
        observations, _ = envs.reset(seed=1)
        assert len(observations) == 2 and all(isinstance(text, str) and text for text in observations)
    finally:
        envs.close()


def test_an_environment_can_be_asked_for_its_options() -> None:
    assert takes_option("ludus/WordMath-v0", "split")
    assert not takes_option("ludus/WordMath-v0", "splits")
    with pytest.raises(EnvError, match="Did you mean 'ludus/WordMath-v0'"):
        takes_option("ludus/WordMath", "split")


class Broken(TextEnv):
    def __init__(self, error: str = "") -> None:
        raise EnvError("mine") if error == "mine" else ValueError("no such\nfile")


def test_an_environment_whose_constructor_fails_says_why() -> None:
    gymnasium.register("broken/Broken-v0", entry_point=Broken)
    try:
        with pytest.raises(
            EnvError, match=r"^The environment broken/Broken-v0 could not be made: ValueError: no such$"
        ) as caught:
            make_env("broken/Broken-v0")
        assert isinstance(caught.value.__cause__, ValueError)
        with pytest.raises(EnvError, match=r"^mine$"):
            make_env("broken/Broken-v0", error="mine")
    finally:
        del gymnasium.registry["broken/Broken-v0"]


def test_an_environment_that_cannot_be_imported_says_why() -> None:
    gymnasium.register("broken/Broken-v0", entry_point="ludus.no_such_module:Broken")
    try:
        with pytest.raises(
            EnvError, match=r"broken/Broken-v0 cannot be loaded .*No module named 'ludus\.no_such_module'"
        ):
            make_env("broken/Broken-v0")
        assert "broken/Broken-v0" not in {info.name for info in list_envs()}
    finally:
        del gymnasium.registry["broken/Broken-v0"]
