"""Models: a tiny one made on the spot, or any causal language model that transformers loads."""

from __future__ import annotations

import copy
import json
import string
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import torch
from torch import nn

from ..sandbox.errors import LudusError
from .config import ModelConfig, TinyModel
from .lora import ADAPTER_FILE, add_lora, base_of, merge_into

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

ROLES = ("system", "user", "assistant", "tool")
TINY_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


Module = TypeVar("Module", bound=nn.Module)
BYTE_LEVEL = {" ": "Ġ", "\n": "Ċ"}
"""How byte-level tokenizers write what cannot be seen; every other printable ASCII character stands for itself."""


class ModelError(LudusError):
    """A model that cannot be loaded."""


def character_tokenizer(tags: tuple[str, ...] = ()) -> PreTrainedTokenizerBase:
    """A tokenizer with one token for each printable ASCII character, newline, each role, and each of `tags`.

    A character outside the alphabet becomes <|unknown|>. In the chat template a message is a role token, the text and
    <|end|>.

    Beside a Qwen2 model, transformers 5 reads whatever tokenizer is saved as a byte-level one. The vocabulary is
    therefore written as such: of printable ASCII text, AutoTokenizer then makes the same tokens as this one.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = ["<|pad|>", "<|unknown|>", "<|end|>", *(f"<|{role}|>" for role in ROLES)]
    alphabet = [c for c in string.printable if c == "\n" or c.isprintable()]
    letters = [BYTE_LEVEL.get(c, c) for c in alphabet]
    vocabulary = {token: index for index, token in enumerate([*special, *tags, *letters])}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token="<|unknown|>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Replace(c, letter) for c, letter in BYTE_LEVEL.items()])
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Sequence(
        [*(decoders.Replace(letter, c) for c, letter in BYTE_LEVEL.items()), decoders.Fuse()]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|pad|>",
        unk_token="<|unknown|>",
        eos_token="<|end|>",
        additional_special_tokens=special[3:],
        clean_up_tokenization_spaces=False,
    )
    from tokenizers import AddedToken

    fast.add_tokens([AddedToken(tag, normalized=False, special=False) for tag in tags])
    fast.chat_template = TINY_TEMPLATE
    return fast


def _tiny_config(shape: TinyModel, tokenizer: PreTrainedTokenizerBase) -> Any:
    from transformers import Qwen2Config

    return Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        max_position_embeddings=shape.max_length,
        tie_word_embeddings=False,
        initializer_range=shape.initializer_range,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        attention_dropout=0.0,
    )


def create_tiny_model(shape: TinyModel, seed: int) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A Qwen2 model with untied embeddings and random weights, the same for the same seed, and its tokenizer.

    The random weights are mimetic (`_make_mimetic`), so that small models soon learn to copy what they read.
    """
    from transformers import Qwen2ForCausalLM

    tokenizer = character_tokenizer(shape.tags)
    config = _tiny_config(shape, tokenizer)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen2ForCausalLM(config).float()
        _make_mimetic(model)
    return model.eval(), tokenizer


@torch.no_grad()
def _make_mimetic(model: PreTrainedModel) -> None:
    """Give random attention layers the structure that trained ones have (after arXiv:2305.09828).

    Keys begin as the queries of their group, so that a token attends to its like; values and output begin as
    orthogonal inverses of one another, and the output embedding as the input embedding, so that what is attended to is
    what is predicted. Matrices that write to the residual stream are scaled by 1 / sqrt(2 layers), as in GPT-2.
    """
    config: Any = model.config
    groups = config.num_attention_heads // config.num_key_value_heads
    scale = (2 * config.num_hidden_layers) ** -0.5
    for layer in cast(Any, model).model.layers:
        attention = layer.self_attn
        heads = attention.q_proj.weight.view(config.num_attention_heads, -1, config.hidden_size)
        attention.k_proj.weight.copy_(heads[::groups].flatten(0, 1))
        values = torch.nn.init.orthogonal_(attention.v_proj.weight)
        inverse = values.view(config.num_key_value_heads, -1, config.hidden_size).repeat_interleave(groups, 0)
        attention.o_proj.weight.copy_(inverse.flatten(0, 1).t() * (scale / groups))
        layer.mlp.down_proj.weight.mul_(scale)
    cast(Any, model).lm_head.weight.copy_(cast(Any, model).model.embed_tokens.weight)


def load_model(path: str, chat_template: str | None = None) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load float32 weights and tokenizer from a directory or a hub name; ModelError says what is missing.

    A directory with adapters (LoRA) gives the model to which they belong, with the adapters merged into its weights.
    """
    from transformers import AutoModelForCausalLM

    check_place(path)
    if (Path(path) / ADAPTER_FILE).is_file():
        return _load_adapted(path, chat_template)
    try:
        tokenizer = load_tokenizer(path)
        # Asked for its loading information, it returns a pair, which its type hints do not say.
        loaded: Any = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, output_loading_info=True)
        model, report = loaded
    except Exception as error:  # transformers, tokenizers and safetensors each raise their own and undocumented ones
        raise _unloadable(path, error) from error
    if report["missing_keys"]:
        missing = ", ".join(sorted(report["missing_keys"])[:3])
        raise ModelError(f"The model {path!r} lacks {len(report['missing_keys'])} weights, such as {missing}.")
    if not tokenizer.encode("a", add_special_tokens=False):
        raise ModelError(f"The model {path!r} has no tokenizer; put its tokenizer.json there.")
    if chat_template is not None:
        tokenizer.chat_template = read_template(chat_template)
    return model.eval(), tokenizer


def check_place(path: str) -> None:
    """ModelError where a name is empty, or that of a folder without a model."""
    if not path:
        raise ModelError("The model's name is empty; give a model directory or the name of one on the hub.")
    folder = Path(path)
    looks_local = folder.exists() or path.startswith((".", "/", "~")) or path.count("/") > 1
    if looks_local and not any((folder / name).is_file() for name in ("config.json", ADAPTER_FILE)):
        what = "has no config.json" if folder.is_dir() else "is not a directory"
        raise ModelError(f"{path} {what}; give a model directory in Hugging Face format or the name of one on the hub.")


def _load_adapted(path: str, chat_template: str | None) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model below the adapters in a directory, with them merged; the tokenizer that lies beside them, if any."""
    model, tokenizer = load_model(base_of(Path(path)), chat_template)
    try:
        model = merge_into(model, Path(path))
        if (Path(path) / "tokenizer_config.json").is_file():
            template = tokenizer.chat_template if chat_template is not None else None
            tokenizer = load_tokenizer(path)
            tokenizer.chat_template = template or tokenizer.chat_template
    except LudusError:
        raise
    except Exception as error:  # peft and safetensors each raise their own
        first = (str(error).strip().splitlines() or [""])[0] or type(error).__name__
        raise ModelError(f"The adapters in {path!r} cannot be loaded: {first}") from error
    return model.eval(), tokenizer


def load_tokenizer(path: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a directory or a hub name, exactly as it was saved."""
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    config = Path(path) / "tokenizer_config.json"
    if not config.is_file() and (Path(path) / ADAPTER_FILE).is_file():
        return load_tokenizer(base_of(Path(path)))
    saved = json.loads(config.read_text(encoding="utf-8")) if config.is_file() else {}
    # Of a tokenizer without a class of its own, AutoTokenizer would make the one that is usual beside the model.
    own = saved.get("tokenizer_class") not in ("TokenizersBackend", "PreTrainedTokenizerFast")
    return (AutoTokenizer if own else PreTrainedTokenizerFast).from_pretrained(path)


def read_template(path: str) -> str:
    """A Jinja file. ModelError where it cannot be read."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise ModelError(f"model.chat_template = {path} cannot be read: {reason}.") from None


def outline_model(config: ModelConfig) -> PreTrainedModel:
    """The model of a recipe without its numbers: every weight has its shape and takes no memory.

    ModelError where there is no such model.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    if config.tiny is not None:
        shape = _tiny_config(config.tiny, character_tokenizer(config.tiny.tags))
    else:
        assert config.path is not None
        path = config.path
        check_place(path)
        while (Path(path) / ADAPTER_FILE).is_file():
            path = base_of(Path(path))
            check_place(path)
        try:
            shape = AutoConfig.from_pretrained(path)
        except Exception as error:  # transformers raises its own and undocumented ones
            raise _unloadable(config.path, error) from error
    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(shape)
    except Exception as error:
        raise _unloadable(config.path or "tiny", error) from error
    if config.lora is not None:
        add_lora(model, config.lora, 0)
    return model


def _unloadable(path: str, error: Exception) -> ModelError:
    first = (str(error).strip().splitlines() or [""])[0] or type(error).__name__
    return ModelError(f"The model {path!r} cannot be loaded: {first}")


def choose_device(device: str) -> str:
    """cpu or cuda, for auto whichever is there. ModelError for a GPU that is not."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise ModelError("device is cuda and PyTorch sees no GPU; set device: cpu or install a CUDA build of PyTorch.")
    return device


def prepare_model(config: ModelConfig, seed: int, device: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model and tokenizer of a recipe, on `device`: auto, cpu or cuda. It is trained without dropout."""
    device = choose_device(device)
    if config.tiny is not None:
        model, tokenizer = create_tiny_model(config.tiny, seed)
    else:
        assert config.path is not None
        model, tokenizer = load_model(config.path, config.chat_template)
        remove_dropout(model)
    if config.lora is not None:
        add_lora(model, config.lora, seed, config.path)
    if config.gradient_checkpointing:
        model.gradient_checkpointing_enable()
        if config.lora is not None:
            # A block whose input has no gradient would not be computed again, and its adapters would learn nothing.
            model.enable_input_require_grads()
    return model.to(device), tokenizer  # type: ignore[arg-type]


def remove_dropout(model: nn.Module) -> None:
    """Have a model compute the same in training as in evaluation, as samplers do; its configuration stays as it is.

    Whether it has layers for dropout, or says a module's share of it by a number whose name has "drop" in it.
    """
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name, value in list(vars(module).items()):
            if "drop" in name and isinstance(value, float):
                setattr(module, name, 0.0)


def copy_trained(module: Module) -> Module:
    """A copy with weights of its own where they are trained; frozen ones are shared with the original."""
    return copy.deepcopy(module, {id(p): p for p in module.parameters() if not p.requires_grad})
