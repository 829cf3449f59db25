"""Which environments there are: Gymnasium's own registry, filled by Ludus and by every installed plug-in.

A plug-in is a distribution with an entry point in the group `gymnasium.envs`, such as
`reverse = "reverse_env:register"`. Gymnasium 1.0 and later no longer reads that group, so importing `ludus.envs` does.
An environment is called what the plug-in registers it as; the name of the entry point plays no part.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib
import importlib.metadata
import inspect
import sys
import typing
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import gymnasium
import pydantic
from gymnasium.envs.registration import EnvSpec, load_env_creator

from ..sandbox.errors import LudusError
from .errors import EnvError, did_you_mean
from .text_env import TextEnv

GROUP = "gymnasium.envs"

BUILTIN = {
    "ludus/WordMath-v0": "ludus.envs.word_math:WordMath",
    "ludus/GSM8KSteps-v0": "ludus.envs.gsm8k_steps:GSM8KSteps",
    "ludus/GSM8K-v0": "ludus.envs.gsm8k:GSM8K",
    "ludus/HumanEval-v0": "ludus.envs.human_eval:HumanEval",
    "ludus/HumanEvalRepair-v0": "ludus.envs.human_eval:HumanEvalRepair",
    "ludus/Programs-v0": "ludus.envs.programs:Programs",
    "ludus/PythonMath-v0": "ludus.envs.python_math:PythonMath",
    "ludus/RepoRepair-v0": "ludus.envs.repo_repair:RepoRepair",
    "ludus/Shell-v0": "ludus.envs.shell:Shell",
}

_NO_LIST = ("list_type", "tuple_type", "sequence_str")
"""pydantic's names for a value that is no list; where a Sequence is wanted, a number has the error of every class."""

_loaded: set[tuple[str, str]] = set()


@dataclass(frozen=True)
class EnvInfo:
    """One environment: its registered name, the first line of its documentation, and its options' defaults."""

    name: str
    summary: str
    entry_point: str
    options: dict[str, Any]


def register_builtin() -> None:
    """Register the environments of Ludus; a second call does nothing."""
    for name, entry_point in BUILTIN.items():
        if name not in gymnasium.registry:
            gymnasium.register(id=name, entry_point=entry_point, disable_env_checker=True, order_enforce=False)


def load_plugins() -> None:
    """Call every entry point of the group once. One that fails costs a warning, not the others."""
    register_builtin()
    for entry in importlib.metadata.entry_points(group=GROUP):
        module = sys.modules.get(entry.module)
        half_imported = getattr(getattr(module, "__spec__", None), "_initializing", False)
        if (entry.name, entry.value) in _loaded or half_imported or entry.module == __name__:
            continue  # a plug-in that is importing Ludus right now is loaded at the next call
        _loaded.add((entry.name, entry.value))
        try:
            register = entry.load()
            if callable(register):
                register()
        except Exception as error:
            warnings.warn(
                f"The environment plug-in {entry.name} = {entry.value} failed ({type(error).__name__}: {error}); "
                "correct or uninstall it.",
                stacklevel=2,
            )


def _text_env_class(spec: EnvSpec) -> type[TextEnv] | None:
    """The class behind a registered name where it is a TextEnv. Importing it may raise anything."""
    creator: Any = spec.entry_point
    if isinstance(creator, str):
        if creator.startswith("gymnasium."):
            return None
        creator = load_env_creator(creator)
    return creator if inspect.isclass(creator) and issubclass(creator, TextEnv) else None


def _text_envs() -> dict[str, type[TextEnv]]:
    load_plugins()
    known: dict[str, type[TextEnv]] = {}
    for name, spec in sorted(gymnasium.registry.items()):
        with contextlib.suppress(Exception):  # another library's environment whose optional parts are missing
            if cls := _text_env_class(spec):
                known[name] = cls
    return known


def _find(name: str) -> tuple[EnvSpec, type[TextEnv]]:
    """What is registered as `name`. Raises EnvError with the nearest spelling and all names."""
    if name not in gymnasium.registry:
        load_plugins()
    spec = gymnasium.registry.get(name)
    try:
        cls = None if spec is None else _text_env_class(spec)
    except Exception as error:
        raise EnvError(f"The environment {name} cannot be loaded ({type(error).__name__}: {error}).") from error
    if spec is not None and cls is not None:
        return spec, cls
    known = _text_envs()
    spellings = {known_name.split("/")[-1].lower(): known_name for known_name in known}
    spellings |= {known_name.lower(): known_name for known_name in known}
    near = difflib.get_close_matches(name.lower()[:100], spellings, n=1, cutoff=0.6)
    hint = f" Did you mean {spellings[near[0]]!r}?" if near else ""
    what = "Unknown environment" if spec is None else "Not a text environment:"
    raise EnvError(f"{what} {name!r}.{hint} Known: {', '.join(known)}.")


def _options(cls: type[TextEnv]) -> dict[str, inspect.Parameter]:
    parameters = inspect.signature(cls.__init__).parameters
    return {name: p for name, p in list(parameters.items())[1:] if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}


def specs_of(names: Iterable[str]) -> list[EnvSpec]:
    """How environments are registered that Ludus does not bring along, for `learn_specs` in another process."""
    return [gymnasium.registry[name] for name in dict.fromkeys(names) if name not in BUILTIN]


def learn_specs(specs: Iterable[EnvSpec]) -> None:
    """Register what this process does not know yet, as where a script registered it by itself."""
    load_plugins()
    for spec in specs:
        gymnasium.registry.setdefault(spec.id, spec)


def list_envs() -> list[EnvInfo]:
    """Every registered environment that is a TextEnv, by name."""
    infos = []
    for name, cls in _text_envs().items():
        summary = (inspect.getdoc(cls) or "").split("\n")[0]
        options = {key: None if p.default is p.empty else p.default for key, p in _options(cls).items()}
        infos.append(EnvInfo(name, summary, f"{cls.__module__}:{cls.__qualname__}", options))
    return infos


def make_env(name: str, **options: Any) -> TextEnv:
    """The environment registered as `name`, without wrappers.

    Raises EnvError where the name is unknown, an option is bad, or the environment's own constructor fails.
    """
    spec, cls = _find(name)
    options = {**spec.kwargs, **options}
    _check_options(name, cls, options)
    try:
        env = cls(**options)
    except LudusError:
        raise
    except Exception as error:  # a third-party constructor may raise anything
        first = (str(error).splitlines() or [""])[0]
        raise EnvError(f"The environment {name} could not be made: {type(error).__name__}: {first}") from error
    env.spec = EnvSpec(
        id=name, entry_point=spec.entry_point, order_enforce=False, disable_env_checker=True, kwargs=options
    )
    return env


def _check_options(name: str, cls: type[TextEnv], options: dict[str, Any]) -> None:
    """Raise EnvError where an option is unknown, missing, or not what its type hint says; convert lists to tuples."""
    parameters = _options(cls)
    takes_any = any(p.kind is p.VAR_KEYWORD for p in inspect.signature(cls.__init__).parameters.values())
    for key in options:
        if key not in parameters and not takes_any:
            raise EnvError(f"{name} has no option {key!r}.{did_you_mean(key, parameters)}")
    for key, parameter in parameters.items():
        if parameter.default is parameter.empty and key not in options:
            raise EnvError(f"{name} needs the option {key!r}; give it a value.")
    try:
        hints = typing.get_type_hints(cls.__init__, include_extras=True)
    except NameError:  # hints that only a type checker can read
        return
    for key in [key for key in options if key in hints]:
        try:
            adapter = pydantic.TypeAdapter(hints[key])
        except pydantic.errors.PydanticUserError:  # a protocol or a class: the constructor checks it
            continue
        try:
            options[key] = adapter.validate_python(options[key])
        except pydantic.ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            if first["type"] in _NO_LIST or first.get("ctx", {}).get("class") == "Sequence":
                value = f"{key} = {options[key]!r}"
                raise EnvError(f"{name}: the option {value} must be a list, such as [{options[key]!r}].") from error
            raise EnvError(f"{name}: the option {key} = {options[key]!r} is wrong: {first['msg']}.") from error


def takes_option(name: str, option: str) -> bool:
    """Whether the environment registered as `name` has the option. Raises EnvError for an unknown name."""
    return option in _options(_find(name)[1])
