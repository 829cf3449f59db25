"""RewardModelScorer: a sequence-classification checkpoint says how good a response is.

Invariant: a score is that of the whole text and of that text alone. What is too long is not cut but left UNDECIDED, and
the rows of a batch do not show in one another's scores beyond rounding.
"""

from __future__ import annotations

import inspect
import json
import os
import re
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from .errors import VerifierError
from .verdict import Verdict

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Score = Literal["raw", "sigmoid", "softmax"]
"""How a logit becomes a value: as it is, between 0 and 1 by itself, or its share of 1 among all labels."""
UNLIMITED = 10**9
"""Tokenizers without a limit carry a number above this."""


@runtime_checkable
class Scorer(Protocol):
    """Says how good responses are, many at once. It may be called from any thread."""

    def score_many(self, pairs: Sequence[tuple[str, str]]) -> list[Verdict]:
        """A verdict for each (prompt, response), in their order: PARTIAL, UNDECIDED or ERROR."""
        ...


class RewardModelScorer:
    """Scores a response to a prompt with a reward model in Hugging Face format: PARTIAL with the score.

    model: a checkpoint folder, a name on the hub, or a loaded model, whose tokenizer is then needed too. score: see
    `Score`. label: which output counts, by name or number, where the model has several. max_length: longest input in
    tokens; by default as long as model and tokenizer allow. batch_size: texts in one forward pass. device: where a
    checkpoint is loaded to, in float32 on "cpu" and as it was saved elsewhere; a loaded model stays where it is.

    Where the tokenizer has a chat template, prompt and response are a user's and an assistant's turn; otherwise the two
    parts of a text pair. Special tokens that a text spells out are broken by a space, so that no response can close
    its turn. Source: Qwen2ForSequenceClassification and its like score at the last token that is not padding.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase | None = None,
        *,
        score: Score = "raw",
        label: int | str | None = None,
        max_length: int | None = None,
        batch_size: int = 16,
        device: str = "cpu",
    ) -> None:
        if score not in ("raw", "sigmoid", "softmax"):
            raise VerifierError(f"score = {score!r} is unknown; choose 'raw', 'sigmoid' or 'softmax'.")
        if batch_size < 1:
            raise VerifierError(f"batch_size = {batch_size} is below 1; give 1 or more.")
        if isinstance(model, str | os.PathLike):
            self._model, loaded = _load(os.fspath(model), device)
            tokenizer = tokenizer or loaded
            self.name = os.fspath(model)
        else:
            self._model = model
            self.name = str(getattr(model.config, "_name_or_path", "") or type(model).__name__)
        if tokenizer is None:
            raise VerifierError("A loaded reward model needs its tokenizer; hand it in as the second argument.")
        self._tokenizer: Any = tokenizer
        self._lock = threading.Lock()
        self._label = _label_index(self._model.config, label, score)
        self._label_name = _label_names(self._model.config)[self._label]
        self._special = _special_tokens(tokenizer)
        self._takes_use_cache = "use_cache" in inspect.signature(self._model.forward).parameters
        self.score = score
        self.batch_size = batch_size
        self.max_length = _longest_input(self._model, tokenizer, max_length)
        self._max_chars = self.max_length * max(map(len, tokenizer.get_vocab()))
        self._check()

    def verify(self, gold: Any, response: str, *, prompt: str = "") -> Verdict:
        """PARTIAL with the score of `response` as an answer to `prompt`; gold is not looked at."""
        return self.score_many([(prompt, response)])[0]

    def score_many(self, pairs: Sequence[tuple[str, str]]) -> list[Verdict]:
        """See `Scorer.score_many`. UNDECIDED: too long, or nothing to score. ERROR: no finite score came out."""
        verdicts: dict[int, Verdict] = {}
        inputs: dict[int, dict[str, list[int]]] = {}
        for index, (prompt, response) in enumerate(pairs):
            encoded = self._encode(prompt, response)
            if isinstance(encoded, Verdict):
                verdicts[index] = encoded
            else:
                inputs[index] = encoded
        # Texts of like length together, so that little is padded.
        order = sorted(inputs, key=lambda index: len(inputs[index]["input_ids"]))
        size = 1 if self._pad_id is None else self.batch_size
        for start in range(0, len(order), size):
            chosen = order[start : start + size]
            verdicts |= zip(chosen, self._forward([inputs[index] for index in chosen]), strict=True)
        return [verdicts[index] for index in range(len(pairs))]

    def _encode(self, prompt: str, response: str) -> dict[str, list[int]] | Verdict:
        """The model's inputs for one text, or why there are none."""
        chars = len(prompt) + len(response)
        if chars > self._max_chars:
            return Verdict.undecided(
                f"The text is too long for the reward model: {chars} characters cannot be {self.max_length} tokens.",
                model=self.name,
            )
        with self._lock:  # Tokenizers in Rust refuse a second thread.
            encoded = self._tokenize(self._plain(prompt), self._plain(response))
        length = len(encoded["input_ids"])
        if length > self.max_length:
            return Verdict.undecided(
                f"The text is too long for the reward model: {length} tokens, and it reads {self.max_length}.",
                model=self.name,
                tokens=length,
            )
        if length == 0:
            return Verdict.undecided("There is nothing to score: prompt and response are empty.", model=self.name)
        return encoded

    def _tokenize(self, prompt: str, response: str) -> dict[str, list[int]]:
        whole = {"truncation": False, "padding": False, "verbose": False}
        if self._tokenizer.chat_template is None:
            encoded = self._tokenizer(prompt, response, **whole)
            return {name: encoded[name] for name in ("input_ids", "token_type_ids") if name in encoded}
        encoded = self._tokenizer(self._render(prompt, response), add_special_tokens=False, **whole)
        return {"input_ids": encoded["input_ids"]}

    def _render(self, prompt: str, response: str) -> str:
        messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]
        return self._tokenizer.apply_chat_template(messages, tokenize=False)

    def _plain(self, text: str) -> str:
        """Without unpaired surrogates, and with the special tokens in it broken by a space after their first letter."""
        text = text.encode("utf-8", "replace").decode("utf-8")
        return self._special.sub(lambda found: found[0] + " ", text)

    @property
    def _pad_id(self) -> int | None:
        """The token that the model takes for padding; without one it scores texts one by one."""
        return self._model.config.get_text_config().pad_token_id

    def _forward(self, rows: list[dict[str, list[int]]]) -> list[Verdict]:
        import torch

        width = max(len(row["input_ids"]) for row in rows)
        padding = {"input_ids": self._pad_id or 0, "token_type_ids": 0}
        inputs = {
            name: torch.tensor([row[name] + [padding[name]] * (width - len(row[name])) for row in rows])
            for name in rows[0]
        }
        lengths = [len(row["input_ids"]) for row in rows]
        inputs["attention_mask"] = (torch.arange(width) < torch.tensor(lengths)[:, None]).long()
        options = {"use_cache": False} if self._takes_use_cache else {}
        try:
            with self._lock, torch.inference_mode():
                self._model.eval()
                on_device = {name: tensor.to(self._model.device) for name, tensor in inputs.items()}
                logits = self._model(**on_device, **options).logits.double().cpu()
        except RuntimeError as error:  # Out of memory, above all.
            reason = f"The reward model failed: {(str(error).splitlines() or [type(error).__name__])[0][:200]}"
            return [Verdict.error(reason, model=self.name) for _ in rows]
        return [self._judge(row, length) for row, length in zip(logits, lengths, strict=True)]

    def _judge(self, logits: torch.Tensor, tokens: int) -> Verdict:
        """logits: of one text, [labels]."""
        import torch

        logit = float(logits[self._label])
        evidence = {"model": self.name, "label": self._label_name, "score": self.score, "tokens": tokens}
        if not bool(torch.isfinite(logits).all()):
            return Verdict.error(f"The reward model's score is {logit}, which is no number to go by.", **evidence)
        value = {
            "raw": lambda: logit,
            "sigmoid": lambda: float(torch.sigmoid(logits[self._label])),
            "softmax": lambda: float(torch.softmax(logits, 0)[self._label]),
        }[self.score]()
        return Verdict.partial(value, f"The reward model gives {value:.6g}.", logit=logit, **evidence)

    def _check(self) -> None:
        """Refuse what could not be scored rightly, before the first response."""
        import torch

        parameter = next(self._model.parameters())
        if parameter.device.type == "cpu" and parameter.dtype is not torch.float32:
            raise VerifierError(
                f"The reward model {self.name} is on the CPU in {parameter.dtype}; load it with dtype=torch.float32."
            )
        embeddings: Any = self._model.get_input_embeddings()
        if len(self._tokenizer) > embeddings.weight.shape[0]:
            raise VerifierError(
                f"The tokenizer has {len(self._tokenizer)} tokens and the reward model {self.name} knows "
                f"{embeddings.weight.shape[0]}; give the tokenizer that belongs to it."
            )
        if self._tokenizer.chat_template is None:
            return
        question, answer = "What is two and two?", "It is four."
        try:
            text = self._render(question, answer)
        except Exception as error:  # Templates raise whatever they like.
            raise VerifierError(
                f"The chat template of {self.name} cannot show a question and an answer: {error}"
            ) from None
        if not (question in text and answer in text):
            raise VerifierError(
                f"The chat template of {self.name} leaves out the question or the answer; give another."
            )


def _load(path: str, device: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A checkpoint with all its weights, and its tokenizer exactly as it was saved."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedTokenizerFast

    folder = Path(path).expanduser()
    looks_local = folder.exists() or path.startswith((".", "/", "~")) or path.count("/") > 1
    if not path or (looks_local and not (folder / "config.json").is_file()):
        raise VerifierError(
            f"The reward model {path!r} is no folder with a config.json; give a checkpoint in Hugging Face format or "
            "the name of one on the hub."
        )
    place = str(folder) if looks_local else path
    config = folder / "tokenizer_config.json"
    try:
        saved = json.loads(config.read_text("utf-8")) if config.is_file() else {}
        # Of a tokenizer without a class of its own, AutoTokenizer would make the one that is usual beside the model.
        own = saved.get("tokenizer_class") not in ("TokenizersBackend", "PreTrainedTokenizerFast")
        tokenizer = (AutoTokenizer if own else PreTrainedTokenizerFast).from_pretrained(place)
        dtype: Any = torch.float32 if device == "cpu" else "auto"
        # Asked for its loading information, it returns a pair, which its type hints do not say.
        loaded: Any = AutoModelForSequenceClassification.from_pretrained(place, dtype=dtype, output_loading_info=True)
        model, report = loaded
        model = model.to(device)
    except Exception as error:  # transformers, tokenizers and safetensors each raise their own and undocumented ones
        first = (str(error).strip().splitlines() or [""])[0] or type(error).__name__
        raise VerifierError(f"The reward model {path!r} cannot be loaded: {first}") from error
    if report["missing_keys"]:
        missing = ", ".join(sorted(report["missing_keys"])[:3])
        raise VerifierError(
            f"{path!r} is no reward model: it lacks weights, such as {missing}; give one trained to score."
        )
    return model, tokenizer


def _label_names(config: Any) -> list[str]:
    return [str(config.id2label.get(index, index)) for index in range(config.num_labels)]


def _label_index(config: Any, label: int | str | None, score: Score) -> int:
    """Which output counts."""
    names = _label_names(config)
    if score == "softmax" and len(names) == 1:
        raise VerifierError("score = 'softmax' of a model with one output is always 1; choose 'raw' or 'sigmoid'.")
    if label is None:
        if len(names) > 1:
            raise VerifierError(f"The reward model has {len(names)} outputs; choose one as label: {', '.join(names)}.")
        return 0
    if isinstance(label, str) and label in names:
        return names.index(label)
    if isinstance(label, int) and 0 <= label < len(names):
        return label
    raise VerifierError(f"label = {label!r} is unknown; choose one of {', '.join(names)} or its number from 0.")


def _special_tokens(tokenizer: PreTrainedTokenizerBase) -> re.Pattern[str]:
    """Matches the first letter of each special token that a text spells out."""
    added: dict[int, Any] = getattr(tokenizer, "added_tokens_decoder", {})
    special = {token.content for token in added.values() if token.special} | set(tokenizer.all_special_tokens)
    spelled = "|".join(re.escape(token) for token in sorted(special, key=len, reverse=True) if len(token) > 1)
    return re.compile(f"(?={spelled}).", re.DOTALL) if spelled else re.compile(r"(?!)")


def _longest_input(model: Any, tokenizer: PreTrainedTokenizerBase, max_length: int | None) -> int:
    """How many tokens fit, of the model's positions, the tokenizer's limit, and what was asked for."""
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    limits = [limit for limit in (positions, tokenizer.model_max_length) if limit is not None and limit < UNLIMITED]
    longest = min(limits, default=None)
    if max_length is None:
        if longest is None:
            raise VerifierError("Neither model nor tokenizer says how long a text may be; give max_length in tokens.")
        return int(longest)
    if max_length < 1 or (longest is not None and max_length > longest):
        raise VerifierError(
            f"max_length = {max_length} must be from 1 to the {longest or 'number of'} tokens it reads."
        )
    return max_length
