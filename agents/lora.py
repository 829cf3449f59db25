"""LoRA: low-rank adapters in the linear layers of a transformer's blocks, through the package peft.

Invariant: a layer computes with `weight_of(layer)`, so that engine, trainer and merged model are one policy
(tests/test_lora.py). Source: LoRA (arXiv:2106.09685), equation 3.
"""

from __future__ import annotations

import copy
import json
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..sandbox.errors import LudusError
from .seeds import derive_seed

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from .config import LoraConfig

ADAPTER_FILE = "adapter_config.json"
ADAPTER = "default"
"""The name that peft gives to an adapter that is alone."""
BASE_BESIDE = "../base"
"""Where, seen from a checkpoint, the base of a model lies that was made on the spot."""
HOMES = (("recipe.yaml", "checkpoints"), ("chain.yaml", "stages"))
"""What a folder of a run holds, and that of a chain: within them paths are relative, so that they can be moved."""


class LoraError(LudusError):
    """Adapters that cannot be made or read."""


def import_peft() -> Any:
    """The package peft. LoraError says how to install it."""
    try:
        import peft
    except ImportError as error:
        raise LoraError(
            f"Adapters (LoRA) need the package peft; install it with: pip install 'ludus[lora]' ({error})"
        ) from None
    return peft


def add_lora(model: PreTrainedModel, config: LoraConfig, seed: int, path: str | None = None) -> None:
    """Freeze a model and give it adapters, the same for the same seed; with them it computes what it did before.

    path: where the model came from, to be written beside the adapters; None if it was made on the spot.
    LoraError where a target is no linear layer of the model's blocks.
    """
    from .config import ALL_LINEAR  # here, for the engine runs without pydantic, too

    peft = import_peft()
    known = sorted({name.rpartition(".")[2] for name, _ in _linear_layers(model)})
    if not known:
        raise LoraError(
            "model.lora adapts the linear layers of `layers`, and this model has none; choose another model."
        )
    wanted = known if ALL_LINEAR in config.targets else config.targets
    for target in config.targets:
        if target not in (*known, ALL_LINEAR):
            raise LoraError(
                f"model.lora.targets has {target!r}, and the linear layers in the blocks of this model are "
                f"{', '.join(known)}; choose of these, or all-linear."
            )
    settings = peft.LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        target_modules=list(wanted),
        task_type="CAUSAL_LM",
        base_model_name_or_path=_base_name(path),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "lora"))
        peft.inject_adapter_in_model(settings, model)


def _linear_layers(model: nn.Module) -> list[tuple[str, nn.Linear]]:
    """The linear layers of the blocks; embeddings and output layer, which may be one matrix, are not among them."""
    found = model.named_modules()
    return [(name, layer) for name, layer in found if isinstance(layer, nn.Linear) and ".layers." in name]


def _base_name(path: str | None) -> str:
    """What a checkpoint calls the model below its adapters: a hub name, an absolute path, or BASE_BESIDE."""
    if path is None:
        return BASE_BESIDE
    return str(Path(path).absolute()) if Path(path).exists() else path


def has_lora(model: nn.Module) -> bool:
    """Whether a model has adapters."""
    return hasattr(model, "peft_config")


def weight_of(layer: nn.Module) -> Tensor:
    """The matrix [out, in] that a linear layer computes with: W, or `W + alpha / rank * B A`. Without gradient."""
    weight: Tensor = layer.weight.detach()  # type: ignore[operator]
    if not hasattr(layer, "get_delta_weight"):
        return weight
    with torch.no_grad():
        return weight + layer.get_delta_weight(ADAPTER)  # type: ignore[operator]


def adapter_weights(model: nn.Module) -> dict[str, Tensor]:
    """The weights of the adapters, by the names that peft writes."""
    found = ((name, p) for name, p in model.named_parameters() if f".{ADAPTER}." in name)
    return {f"base_model.model.{name.replace(f'.{ADAPTER}.', '.')}": p.detach() for name, p in found}


def merged_weights(model: nn.Module) -> dict[str, Tensor]:
    """The state of the model without adapters that computes the same, on the CPU."""
    adapted = {name: layer for name, layer in model.named_modules() if hasattr(layer, "get_delta_weight")}
    plain = {
        name.replace(".base_layer.", "."): tensor
        for name, tensor in model.state_dict().items()
        if f".{ADAPTER}." not in name
    }
    return {name: tensor.cpu() for name, tensor in plain.items()} | {
        f"{name}.weight": weight_of(layer).cpu() for name, layer in adapted.items()
    }


def save_merged(model: PreTrainedModel, folder: Path) -> None:
    """Write the policy without adapters, in Hugging Face format, for programs that know none."""
    with torch.device("meta"):
        plain = type(model)(model.config)
    plain.generation_config = model.generation_config
    plain.save_pretrained(folder, state_dict=merged_weights(model))


def save_adapters(model: PreTrainedModel, folder: Path) -> None:
    """Write the adapters as peft does, without asking the hub whether the base has changed.

    A base in the same run or chain is written down as seen from the folder, so that both can be moved together.
    """
    from safetensors.torch import save_file

    all_settings: Any = model.peft_config
    settings = copy.copy(all_settings[ADAPTER])
    settings.base_model_name_or_path = seen_from(folder, settings.base_model_name_or_path)
    settings.save_pretrained(str(folder))
    weights = {name: tensor.contiguous() for name, tensor in adapter_weights(model).items()}
    save_file(weights, folder / "adapter_model.safetensors", metadata={"format": "pt"})


def seen_from(folder: Path, path: str) -> str:
    """A model's path as it is to be written down in a folder: relative where one run or chain holds both."""
    here, there = folder.absolute(), Path(path)
    for home in here.parents if there.is_absolute() else ():
        holds = any((home / file).is_file() and (home / part).is_dir() for file, part in HOMES)
        if holds and there.is_relative_to(home):
            return os.path.relpath(there, here)
    return path


def path_from(folder: Path, name: str) -> str:
    """The model that `seen_from` wrote down in a folder."""
    return os.path.normpath(folder / name) if name.startswith("..") else name


def base_of(folder: Path) -> str:
    """The model below the adapters in a folder: a directory or a hub name. LoraError where none is written there."""
    try:
        name = json.loads((folder / ADAPTER_FILE).read_text(encoding="utf-8"))["base_model_name_or_path"]
    except (OSError, ValueError, KeyError, TypeError):
        name = None
    if not isinstance(name, str) or not name:
        raise LoraError(f"{folder / ADAPTER_FILE} does not say to which model its adapters belong; write it there.")
    return path_from(folder, name)


def merge_into(base: PreTrainedModel, folder: Path) -> PreTrainedModel:
    """The base with the adapters of a folder merged into its weights."""
    peft = import_peft()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers 5 for names of old
        return peft.PeftModel.from_pretrained(base, str(folder)).merge_and_unload()
