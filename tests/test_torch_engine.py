"""TorchEngine: what it samples is what transformers' own module says, and depends on nothing but the request."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest
import torch
from bigram import bigram_model, chain, writing_model
from hypothesis import given, settings
from hypothesis import strategies as st

from ludus.agents.config import TinyModel
from ludus.agents.decoder import MIN_ROWS, UnsupportedModelError
from ludus.agents.engine import Completion, EngineError, Sampling, StopReason
from ludus.agents.model import character_tokenizer, create_tiny_model
from ludus.agents.torch_engine import TorchEngine
from ludus.verifiers.repetition import Loop, LoopDetector

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

TOKENIZER = character_tokenizer(("<calculator>", "</calculator>"))
SIZE = len(TOKENIZER)
MAX_LENGTH = 200
SLOTS = MIN_ROWS
"""The fewest slots that an engine has."""

FAMILIES = ("qwen2", "qwen2-tied", "qwen3", "llama", "llama-tied", "llama-biases", "mistral")


@cache
def family(name: str) -> PreTrainedModel:
    """A tiny model of an architecture, every parameter random: none of the ones and zeros that hide mistakes."""
    import transformers

    kind, _, variant = name.partition("-")
    shape: dict[str, Any] = {
        "vocab_size": SIZE,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "tie_word_embeddings": variant == "tied",
        "eos_token_id": TOKENIZER.eos_token_id,
        "pad_token_id": TOKENIZER.pad_token_id,
        "bos_token_id": None,
    }
    if kind == "qwen3":
        shape["head_dim"] = 16  # not hidden_size / heads
    if kind == "mistral":
        shape["sliding_window"] = None
    if variant == "biases":
        shape["attention_bias"] = True
    title = {"qwen2": "Qwen2", "qwen3": "Qwen3", "llama": "Llama", "mistral": "Mistral"}[kind]
    config = getattr(transformers, f"{title}Config")(**shape)
    return randomised(getattr(transformers, f"{title}ForCausalLM")(config))


def randomised(model: PreTrainedModel, seed: int = 0) -> PreTrainedModel:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(1 + 0.2 * noise if "norm" in name else 0.25 * noise)
    return model.float().eval()


def another(name: str, seed: int) -> PreTrainedModel:
    """A model like `family(name)` with other weights."""
    return randomised(type(family(name))(family(name).config), seed)


def engine_of(model: PreTrainedModel, slots: int = SLOTS, tokenizer: Any = None, max_length: int = MAX_LENGTH) -> Any:
    return TorchEngine(model, tokenizer or TOKENIZER, slots=slots, max_length=max_length)


def complete(engine: TorchEngine, tokens: Sequence[int], **sampling: Any) -> Completion:
    return asyncio.run(engine.generate(list(tokens), Sampling(**sampling)))


@torch.no_grad()
def module_logprobs(
    model: PreTrainedModel, prompt: Sequence[int], completion: Completion, temperature: float
) -> list[float]:
    """The sampled tokens' log-probabilities by the transformers module, over the kept sets that were stored."""
    ids = torch.tensor([[*prompt, *completion.token_ids]])
    logits = model(input_ids=ids).logits[0, len(prompt) - 1 : -1].float() / (temperature or 1.0)
    if completion.kept is not None:
        for row, kept in zip(logits, completion.kept, strict=True):
            dropped = torch.ones(logits.shape[1], dtype=torch.bool)
            dropped[list(kept)] = False
            row[dropped] = -torch.inf
    logprobs = torch.log_softmax(logits, -1)
    return logprobs.gather(1, torch.tensor(completion.token_ids)[:, None])[:, 0].tolist()


def some_tokens(count: int, seed: int) -> list[int]:
    rng = random.Random(seed)
    return [rng.randrange(3, SIZE) for _ in range(count)]


# Log-probabilities


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("temperature", [0.0, 0.5, 1.0, 1.7])
def test_logprobs_are_those_of_the_transformers_module(name: str, temperature: float) -> None:
    model = family(name)
    engine = engine_of(model)

    async def run() -> list[Completion]:
        sampling = [Sampling(temperature=temperature, max_tokens=20, seed=i) for i in range(6)]
        return await asyncio.gather(*(engine.generate(some_tokens(1 + 9 * i, i), sampling[i]) for i in range(6)))

    for i, completion in enumerate(asyncio.run(run())):
        expected = module_logprobs(model, some_tokens(1 + 9 * i, i), completion, temperature)
        assert completion.logprobs == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("name", ["qwen2", "qwen3", "llama-tied"])
@pytest.mark.parametrize(("top_p", "top_k"), [(0.7, 0), (1.0, 5), (0.9, 12)])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7])
def test_truncated_logprobs_are_renormalised_over_the_stored_kept_set(
    name: str, top_p: float, top_k: int, temperature: float
) -> None:
    model = family(name)
    prompt = some_tokens(13, 1)
    found = complete(engine_of(model), prompt, temperature=temperature, top_p=top_p, top_k=top_k, max_tokens=24, seed=5)
    assert found.kept is not None and len(found.kept) == len(found.token_ids)
    assert all(token in kept for token, kept in zip(found.token_ids, found.kept, strict=True))
    assert all(len(kept) <= (top_k or SIZE) for kept in found.kept)
    assert min(map(len, found.kept)) < SIZE
    assert found.logprobs == pytest.approx(module_logprobs(model, prompt, found, temperature), abs=1e-4)


def test_the_kept_set_is_the_one_that_the_module_would_keep() -> None:
    model, prompt = family("qwen2"), some_tokens(9, 3)
    found = complete(engine_of(model), prompt, top_p=0.6, max_tokens=10, seed=1)
    assert found.kept is not None
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[*prompt, *found.token_ids]])).logits[0, len(prompt) - 1 : -1]
    for row, kept in zip(torch.softmax(logits.double(), -1), found.kept, strict=True):
        inside = row[list(kept)]
        assert inside.sum() >= 0.6 - 1e-5, "the set reaches top_p"
        assert inside.sum() - inside.min() < 0.6 + 1e-5, "and its least likely token was needed"
        assert inside.min() >= row.sort(descending=True).values[len(kept) - 1] - 1e-6, "and nothing likelier is outside"


def test_greedy_takes_the_module_s_likeliest_token() -> None:
    model, prompt = family("qwen3"), some_tokens(21, 4)
    found = complete(engine_of(model), prompt, temperature=0.0, max_tokens=15, seed=99)
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[*prompt, *found.token_ids]])).logits[0, len(prompt) - 1 : -1]
    assert found.token_ids == tuple(logits.argmax(-1).tolist())


def test_sampling_follows_the_module_s_distribution() -> None:
    model, prompt, draws = family("qwen2"), some_tokens(6, 2), 3000
    engine = engine_of(model, slots=64)

    async def run() -> list[Completion]:
        return await asyncio.gather(
            *(engine.generate(prompt, Sampling(max_tokens=1, seed=seed)) for seed in range(draws))
        )

    counts = torch.bincount(torch.tensor([c.token_ids[0] for c in asyncio.run(run())]), minlength=SIZE).double()
    with torch.no_grad():
        expected = torch.softmax(model(input_ids=torch.tensor([prompt])).logits[0, -1].double(), -1) * draws
    likely = expected >= 5
    observed = torch.cat([counts[likely], counts[~likely].sum()[None]])
    wanted = torch.cat([expected[likely], expected[~likely].sum()[None]])
    chi_square, freedom = ((observed - wanted) ** 2 / wanted).sum().item(), len(wanted) - 1
    # Wilson and Hilferty's approximation of the value that chi-square exceeds with a probability of 1e-4.
    limit = freedom * (1 - 2 / (9 * freedom) + 3.719 * (2 / (9 * freedom)) ** 0.5) ** 3
    assert freedom > 20
    assert chi_square < limit


# The same request, whatever happens around it


@dataclass(frozen=True)
class Conversation:
    """Turns of one session: what is appended before each, and how each is sampled."""

    name: str
    parts: tuple[tuple[int, ...], ...]
    sampling: Sampling


def conversations() -> list[Conversation]:
    """More of them than slots, of one to three turns; some open alike, one truncates, one is greedy."""
    rng = random.Random(7)
    found = []
    for i in range(SLOTS + 5):
        shared = some_tokens(40, 0)
        opening = shared if i % 3 == 0 else some_tokens(rng.choice([1, 2, 7, 30, 70]), i)
        parts = [tuple(opening)]
        parts += [tuple(some_tokens(rng.choice([1, 5, 9]), 50 + i)) for _ in range(i % 3)]
        sampling = Sampling(max_tokens=rng.choice([3, 9, 17]), seed=i)
        if i == 4:
            sampling = replace(sampling, top_p=0.8)
        if i == 5:
            sampling = replace(sampling, temperature=0.0)
        found.append(Conversation(f"c{i}", tuple(parts), sampling))
    return found


CONVERSATIONS = conversations()


async def play(engine: TorchEngine, conversation: Conversation, delays: Sequence[int] = (0, 0, 0)) -> list[Completion]:
    tokens: list[int] = []
    done: list[Completion] = []
    for turn, part in enumerate(conversation.parts):
        for _ in range(delays[turn]):
            await asyncio.sleep(0)
        tokens += part
        sampling = replace(conversation.sampling, seed=conversation.sampling.seed * 10 + turn)
        done.append(await engine.generate(list(tokens), sampling, session=conversation.name))
        tokens += done[-1].token_ids
    engine.release(conversation.name)
    return done


@cache
def alone() -> list[list[Completion]]:
    """Each conversation by itself, on an engine of its own."""
    return [asyncio.run(play(engine_of(family("qwen2")), conversation)) for conversation in CONVERSATIONS]


@settings(max_examples=25)
@given(data=st.data())
def test_no_schedule_changes_a_bit(data: st.DataObject) -> None:
    count = len(CONVERSATIONS)
    assert count > SLOTS
    slots = data.draw(st.sampled_from([SLOTS, SLOTS + 1, SLOTS + 4, 32, 40]), label="slots")
    order = data.draw(st.permutations(range(count)), label="order of arrival")
    delay = st.lists(st.integers(0, 25), min_size=3, max_size=3)
    delays = data.draw(st.lists(delay, min_size=count, max_size=count), label="ticks before each turn")
    company = data.draw(
        st.lists(st.tuples(st.integers(1, 90), st.integers(0, 40), st.integers(0, 60)), max_size=5),
        label="strangers: length, arrival, cancelled after so many ticks",
    )
    engine = engine_of(family("qwen2"), slots=slots)

    async def stranger(length: int, arrival: int, patience: int) -> None:
        for _ in range(arrival):
            await asyncio.sleep(0)
        task = asyncio.ensure_future(engine.generate(some_tokens(length, 99), Sampling(max_tokens=100, seed=3)))
        for _ in range(patience):
            await asyncio.sleep(0)
        task.cancel()

    async def run() -> dict[int, list[Completion]]:
        async with asyncio.TaskGroup() as group:
            for numbers in company:
                group.create_task(stranger(*numbers))
            tasks = {i: group.create_task(play(engine, CONVERSATIONS[i], delays[i])) for i in order}
        return {i: task.result() for i, task in tasks.items()}

    for i, turns in asyncio.run(run()).items():
        assert turns == alone()[i], f"conversation {i}"


def test_conversations_that_were_swapped_out_go_on_bit_for_bit() -> None:
    """Every conversation takes a turn before any takes its second, with more of them than slots."""
    model, count = family("qwen2"), 3 * SLOTS
    openings = [some_tokens(20 + i, i) for i in range(count)]

    async def first(engine: TorchEngine, i: int) -> Completion:
        return await engine.generate(openings[i], Sampling(max_tokens=12, seed=i), session=str(i))

    async def second(engine: TorchEngine, i: int, before: Completion) -> Completion:
        tokens = [*openings[i], *before.token_ids, *some_tokens(6, 100 + i)]
        return await engine.generate(tokens, Sampling(max_tokens=12, seed=500 + i), session=str(i))

    async def crowded() -> list[tuple[Completion, Completion]]:
        engine = engine_of(model)
        firsts = await asyncio.gather(*(first(engine, i) for i in range(count)))
        seconds = await asyncio.gather(*(second(engine, i, firsts[i]) for i in reversed(range(count))))
        return list(zip(firsts, reversed(seconds), strict=True))

    async def lonely(i: int) -> tuple[Completion, Completion]:
        engine = engine_of(model)
        before = await first(engine, i)
        return before, await second(engine, i, before)

    assert asyncio.run(crowded()) == [asyncio.run(lonely(i)) for i in range(count)]


@pytest.mark.parametrize("threads", [1, 2])
def test_no_company_changes_a_bit_at_the_size_of_the_default_recipe(threads: int) -> None:
    """Wider layers take other kernels: with 384 inputs, one thread sums 8 rows otherwise than 64."""
    shape = TinyModel(
        layers=2, kv_heads=2, max_length=320, initializer_range=0.08, tags=("<calculator>", "</calculator>")
    )
    model, tokenizer = create_tiny_model(shape, 0)
    prompts = [some_tokens(3 + 9 * (i % 7), i) for i in range(64)]

    async def run(which: Sequence[int]) -> list[Completion]:
        engine = engine_of(model, slots=64, tokenizer=tokenizer, max_length=320)
        sampling = [Sampling(max_tokens=8 + i % 20, seed=i) for i in range(64)]
        return await asyncio.gather(*(engine.generate(prompts[i], sampling[i]) for i in which))

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        together = asyncio.run(run(range(64)))
        alone = {i: asyncio.run(run([i]))[0] for i in range(0, 64, 7)}
    finally:
        torch.set_num_threads(before)
    assert {i: together[i] for i in alone} == alone


@pytest.mark.parametrize("threads", [1, 2])
def test_no_company_changes_a_bit_of_a_long_conversation(threads: int) -> None:
    """With several hundred keys, the order of a sum over them depends on how far they are padded."""
    model, lengths = family("qwen2"), [20, 250, 290, 330, 370, 380, 400, 500, 560]
    openings = [some_tokens(length, i) for i, length in enumerate(lengths)]

    async def talk(engine: TorchEngine, i: int, delay: int) -> list[Completion]:
        for _ in range(delay):
            await asyncio.sleep(0)
        first = await engine.generate(openings[i], Sampling(max_tokens=30, seed=i), session=str(i))
        tokens = [*openings[i], *first.token_ids, *some_tokens(11, 70 + i)]
        return [first, await engine.generate(tokens, Sampling(max_tokens=30, seed=40 + i), session=str(i))]

    async def together(delays: Sequence[int]) -> list[list[Completion]]:
        engine = engine_of(model, max_length=660)
        return await asyncio.gather(*(talk(engine, i, delay) for i, delay in enumerate(delays)))

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        alone = [asyncio.run(talk(engine_of(model, max_length=660), i, 0)) for i in range(len(lengths))]
        for delays in ([0] * 9, list(range(0, 45, 5)), list(range(45, 0, -5))):
            assert asyncio.run(together(delays)) == alone
    finally:
        torch.set_num_threads(before)


def test_a_session_of_many_turns_equals_one_computation_over_all_of_it() -> None:
    model = family("qwen2")
    engine = engine_of(model)

    async def run() -> list[tuple[list[int], Completion]]:
        tokens, turns = some_tokens(11, 0), []
        for turn in range(5):
            completion = await engine.generate(list(tokens), Sampling(max_tokens=9, seed=turn), session="one")
            turns.append((list(tokens), completion))
            tokens += [*completion.token_ids, *some_tokens(4, turn)]
        return turns

    for prompt, completion in asyncio.run(run()):
        assert completion.logprobs == pytest.approx(module_logprobs(model, prompt, completion, 1.0), abs=1e-4)


def test_a_session_whose_history_was_rewritten_is_computed_anew() -> None:
    model = family("qwen2")
    engine = engine_of(model)

    async def run() -> list[tuple[list[int], Completion]]:
        turns = []
        for tokens in (some_tokens(30, 0), [*some_tokens(10, 0), *some_tokens(30, 1)], some_tokens(5, 0)):
            turns.append((tokens, await engine.generate(tokens, Sampling(max_tokens=8), session="one")))
        return turns

    for prompt, completion in asyncio.run(run()):
        assert completion.logprobs == pytest.approx(module_logprobs(model, prompt, completion, 1.0), abs=1e-4)


def test_another_seed_gives_other_tokens_and_the_same_seed_the_same() -> None:
    engine, prompt = engine_of(family("qwen2")), some_tokens(10, 0)
    found = [complete(engine, prompt, max_tokens=30, seed=seed).token_ids for seed in (1, 2, 1)]
    assert found[0] == found[2] != found[1]


def test_more_tokens_allowed_continue_the_same_text() -> None:
    engine, prompt = engine_of(family("llama")), some_tokens(10, 0)
    long, short = (complete(engine, prompt, max_tokens=count, seed=3) for count in (40, 7))
    assert long.token_ids[:7] == short.token_ids
    assert long.logprobs[:7] == short.logprobs


# Why a generation ends

LETTERS = TOKENIZER.convert_tokens_to_ids(list("abcdefghij"))


def ids(text: str) -> list[int]:
    return TOKENIZER.encode(text, add_special_tokens=False)


@pytest.fixture(scope="module")
def alphabet() -> TorchEngine:
    """Greedy, it writes the alphabet from a to j, and then ends its turn."""
    return engine_of(writing_model(TOKENIZER, chain(LETTERS)))


def written(completion: Completion) -> str:
    return TOKENIZER.decode(completion.token_ids)


def test_the_end_token_ends_a_turn_and_belongs_to_it(alphabet: TorchEngine) -> None:
    found = complete(alphabet, ids("g"), temperature=0.0)
    assert (written(found), found.stop_reason) == ("hij<|end|>", StopReason.END)
    assert found.token_ids[-1] == TOKENIZER.eos_token_id
    assert len(found.logprobs) == 4


@pytest.mark.parametrize(
    ("stop", "text"),
    [(("d",), "bcd"), (("ef",), "bcdef"), (("bcdefg",), "bcdefg"), (("x", "fg", "de"), "bcde"), (("j",), "bcdefghij")],
)
def test_a_stop_sequence_ends_a_turn_and_stays_in_its_text(
    alphabet: TorchEngine, stop: tuple[str, ...], text: str
) -> None:
    found = complete(alphabet, ids("a"), temperature=0.0, stop=stop)
    assert (written(found), found.stop_reason) == (text, StopReason.STOP)


def test_a_stop_sequence_does_not_begin_in_the_prompt(alphabet: TorchEngine) -> None:
    found = complete(alphabet, ids("gh"), temperature=0.0, stop=("hi",))
    assert (written(found), found.stop_reason) == ("ij<|end|>", StopReason.END)


@pytest.mark.parametrize("stop", ["culat", "b<calc", ">", "<calculator>"])
def test_a_stop_sequence_may_end_inside_a_token(stop: str) -> None:
    engine = engine_of(writing_model(TOKENIZER, chain(ids("ab<calculator>cd"))))
    found = complete(engine, ids("a"), temperature=0.0, stop=(stop,))
    assert (written(found), found.stop_reason) == ("b<calculator>", StopReason.STOP)


def byte_tokenizer() -> PreTrainedTokenizerBase:
    """One token for each byte, as the fallback of byte-level tokenizers has them."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: i for i, letter in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>", pad_token="<|pad|>")


@pytest.mark.parametrize("stop", ["é", "。", "x。", "xé。"])
def test_a_stop_sequence_may_consist_of_characters_cut_into_bytes(stop: str) -> None:
    tokenizer = byte_tokenizer()
    path = tokenizer.encode("axé。z")
    model = writing_model(tokenizer, chain(path))
    expected = "axé。z"[1 : "axé。z".index(stop[-1]) + 1]
    if stop == "x。":
        path = tokenizer.encode("ax。z")
        model, expected = writing_model(tokenizer, chain(path)), "x。"
    found = complete(engine_of(model, tokenizer=tokenizer), path[:1], temperature=0.0, stop=(stop,))
    assert (tokenizer.decode(found.token_ids), found.stop_reason) == (expected, StopReason.STOP)


def test_a_long_stop_sequence_of_many_bytes_is_seen_whole() -> None:
    tokenizer = byte_tokenizer()
    stop = "𝄞漢é"  # 4 + 3 + 2 bytes, all of them different tokens
    path = tokenizer.encode(f"a{stop}z")
    found = complete(
        engine_of(writing_model(tokenizer, chain(path)), tokenizer=tokenizer), path[:1], temperature=0.0, stop=(stop,)
    )
    assert (tokenizer.decode(found.token_ids), found.stop_reason) == (stop, StopReason.STOP)


def test_max_tokens_end_a_turn(alphabet: TorchEngine) -> None:
    found = complete(alphabet, ids("a"), temperature=0.0, max_tokens=3)
    assert (written(found), found.stop_reason) == ("bcd", StopReason.LENGTH)


def test_what_ends_with_the_last_allowed_token_has_ended_and_was_not_cut(alphabet: TorchEngine) -> None:
    assert complete(alphabet, ids("h"), temperature=0.0, max_tokens=3).stop_reason is StopReason.END
    assert complete(alphabet, ids("a"), temperature=0.0, max_tokens=3, stop=("cd",)).stop_reason is StopReason.STOP


def test_the_longest_sequence_ends_a_turn() -> None:
    engine = engine_of(writing_model(TOKENIZER, chain(LETTERS)), max_length=9)
    found = complete(engine, ids("cccccca"), temperature=0.0)
    assert (written(found), found.stop_reason) == ("bc", StopReason.CONTEXT)
    found = complete(engine, ids("ccccccca"), temperature=0.0)
    assert (written(found), found.stop_reason) == ("b", StopReason.CONTEXT)


# Going round in circles

CIRCLE = Loop(max_period=5, repeats=3, min_tokens=6)


@pytest.fixture(scope="module")
def circling() -> TorchEngine:
    """Greedy, it writes a to e and then c, d, e for ever."""
    follows = chain(LETTERS[:5]) | {LETTERS[4]: LETTERS[2]}
    return engine_of(writing_model(TOKENIZER, follows))


def test_a_text_that_goes_round_in_circles_is_cut_at_the_token_that_closes_the_loop(circling: TorchEngine) -> None:
    found = complete(circling, ids("a"), temperature=0.0, max_tokens=60, stop_on_loop=CIRCLE)
    assert (written(found), found.stop_reason) == ("bcdecdecde", StopReason.LOOP)
    whole = complete(circling, ids("a"), temperature=0.0, max_tokens=60)
    assert (len(whole.token_ids), whole.stop_reason) == (60, StopReason.LENGTH)
    assert (whole.token_ids[:10], whole.logprobs[:10]) == (found.token_ids, found.logprobs)


def test_a_loop_is_told_before_the_limit_of_length_and_after_a_stop_sequence(circling: TorchEngine) -> None:
    for limit, reason in ((9, StopReason.LENGTH), (10, StopReason.LOOP)):
        found = complete(circling, ids("a"), temperature=0.0, max_tokens=limit, stop_on_loop=CIRCLE)
        assert (len(found.token_ids), found.stop_reason) == (limit, reason)
    found = complete(circling, ids("a"), temperature=0.0, max_tokens=60, stop=("cdecdecde",), stop_on_loop=CIRCLE)
    assert (len(found.token_ids), found.stop_reason) == (10, StopReason.STOP)


def test_a_loop_does_not_begin_in_the_prompt_or_in_an_earlier_turn(circling: TorchEngine) -> None:
    circle = Sampling(temperature=0.0, max_tokens=8, stop_on_loop=CIRCLE)

    async def run() -> list[Completion]:
        tokens, turns = ids("abcdecdecde"), []
        for _ in range(3):
            turns.append(await circling.generate(list(tokens), circle, session="one"))
            tokens += turns[-1].token_ids
        circling.release("one")
        return turns

    assert [(len(turn.token_ids), turn.stop_reason) for turn in asyncio.run(run())] == [(8, StopReason.LENGTH)] * 3


def test_looking_for_loops_changes_no_bit_and_no_company_changes_where_one_is_found() -> None:
    """Three letters in any order loop soon: every row is cut just where its own tokens say, whatever its slot."""
    logits = torch.full((SIZE, SIZE), -30.0)
    logits[:, LETTERS[:3]] = 0.0
    model = bigram_model(logits)
    loop = Loop(max_period=4, repeats=3, min_tokens=5)
    plain = [Sampling(max_tokens=40 + i, seed=i) for i in range(5 * SLOTS)]
    watched = [sampling if i % 7 == 0 else replace(sampling, stop_on_loop=loop) for i, sampling in enumerate(plain)]

    async def run(engine: TorchEngine, samplings: list[Sampling]) -> list[Completion]:
        return await asyncio.gather(*(engine.generate(ids("a"), sampling) for sampling in samplings))

    whole = asyncio.run(run(engine_of(model, slots=3 * SLOTS), plain))
    cut = asyncio.run(run(engine_of(model, slots=2 * SLOTS), watched))
    for i, (before, after) in enumerate(zip(whole, cut, strict=True)):
        detector = LoopDetector(loop)
        end = next((n for n, token in enumerate(before.token_ids, 1) if detector.push(token)), None)
        if i % 7 == 0 or end is None:
            assert after == before
        else:
            assert after.stop_reason is StopReason.LOOP
            assert (after.token_ids, after.logprobs) == (before.token_ids[:end], before.logprobs[:end])
    assert sum(completion.stop_reason is StopReason.LOOP for completion in cut) > len(cut) // 2
    assert cut[3] == complete(engine_of(model), ids("a"), max_tokens=43, seed=3, stop_on_loop=loop)


def test_a_deadline_cuts_one_generation_and_no_other() -> None:
    engine = engine_of(family("qwen2"))

    async def run() -> list[Completion]:
        late = Sampling(max_tokens=100, seed=1, deadline_s=1e-9)
        return await asyncio.gather(
            engine.generate(some_tokens(5, 1), late),
            engine.generate(some_tokens(5, 1), replace(late, deadline_s=None)),
            engine.generate(some_tokens(5, 1), replace(late, deadline_s=1e9)),
        )

    cut, whole, other = asyncio.run(run())
    assert cut.stop_reason is StopReason.DEADLINE
    assert 1 <= len(cut.token_ids) == len(cut.logprobs) < len(whole.token_ids)
    assert whole.token_ids[: len(cut.token_ids)] == cut.token_ids, "what was sampled till then stays"
    assert whole == other


# Cancellation, release, weights, and what goes wrong


async def ticks_until(awaitable: Awaitable[Any]) -> int:
    """How often the event loop went round before `awaitable` was done."""
    task, ticks = asyncio.ensure_future(awaitable), 0
    while not task.done():
        await asyncio.sleep(0)
        ticks += 1
    await task
    return ticks


async def all_slots_at_once(engine: TorchEngine) -> int:
    """Ticks that as many generations as there are slots take together: twice as many if one slot is not free."""
    tokens = 60
    sampling = [Sampling(max_tokens=tokens, seed=i, temperature=1.0) for i in range(SLOTS)]
    return await ticks_until(asyncio.gather(*(engine.generate(ids("a"), s) for s in sampling)))


@pytest.fixture(scope="module")
def endless() -> PreTrainedModel:
    """Writes a to j in any order and never ends its turn."""
    logits = torch.full((SIZE, SIZE), -30.0)
    logits[:, LETTERS] = torch.randn(SIZE, len(LETTERS), generator=torch.Generator().manual_seed(0))
    return bigram_model(logits)


@settings(max_examples=15)
@given(
    ticks=st.lists(st.integers(0, 12), min_size=12, max_size=12),
    sessions=st.lists(st.booleans(), min_size=12, max_size=12),
)
def test_a_cancelled_generation_frees_its_slot_and_harms_nobody(ticks: list[int], sessions: list[bool]) -> None:
    """More are cancelled than there are slots: some while they wait, some when admitted, some while they run."""
    engine = engine_of(family("qwen2"))
    expected = complete(engine, some_tokens(12, 0), max_tokens=40, seed=1)

    async def run() -> Completion:
        doomed = [
            asyncio.ensure_future(
                engine.generate(some_tokens(3 + i, i), Sampling(max_tokens=150), session=f"d{i}" if keep else None)
            )
            for i, keep in enumerate(sessions)
        ]
        survivor = asyncio.ensure_future(engine.generate(some_tokens(12, 0), Sampling(max_tokens=40, seed=1)))
        for tick in range(13):
            for task, last in zip(doomed, ticks, strict=True):
                if last == tick:
                    task.cancel()
            await asyncio.sleep(0)
        found = await survivor
        outcomes = await asyncio.gather(*doomed, return_exceptions=True)
        assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes)
        return found

    assert asyncio.run(run()) == expected


def test_slots_of_cancelled_generations_are_all_there_again(endless: PreTrainedModel) -> None:
    async def cancel_many(engine: TorchEngine) -> None:
        for patience in range(12):
            tasks = [
                asyncio.ensure_future(engine.generate(ids("abc"), Sampling(max_tokens=90), session=f"{patience}-{i}"))
                for i in range(2 * SLOTS)
            ]
            for _ in range(patience):
                await asyncio.sleep(0)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def run() -> tuple[int, int]:
        engine = engine_of(endless)
        before = await all_slots_at_once(engine)
        await cancel_many(engine)
        return before, await all_slots_at_once(engine)

    before, after = asyncio.run(run())
    assert after == before


def test_a_cancellation_at_any_tick_harms_nobody(endless: PreTrainedModel) -> None:
    """Also at the tick at which the last token is sampled."""
    engine = engine_of(endless)
    expected = complete(engine, ids("ab"), max_tokens=20, seed=1)

    async def run(patience: int) -> Completion:
        doomed = asyncio.ensure_future(engine.generate(ids("a"), Sampling(max_tokens=6)))
        other = asyncio.ensure_future(engine.generate(ids("ab"), Sampling(max_tokens=20, seed=1)))
        for _ in range(patience):
            await asyncio.sleep(0)
        doomed.cancel()
        await asyncio.gather(doomed, return_exceptions=True)
        return await other

    assert [asyncio.run(run(patience)) for patience in range(12)] == [expected] * 12


def test_a_cancelled_generation_stops_being_computed(endless: PreTrainedModel) -> None:
    engine = engine_of(endless)

    async def run() -> int:
        task = asyncio.ensure_future(engine.generate(ids("a"), Sampling(max_tokens=150)))
        for _ in range(10):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await engine.generate(ids("a"), Sampling(max_tokens=20))
        return engine.generated_tokens

    assert asyncio.run(run()) <= 10 + 20


def test_a_session_goes_on_rightly_after_one_of_its_turns_was_cancelled() -> None:
    model = family("qwen2")
    engine = engine_of(model)

    async def run() -> tuple[list[int], Completion]:
        opening = some_tokens(15, 0)
        first = await engine.generate(opening, Sampling(max_tokens=10), session="one")
        tokens = [*opening, *first.token_ids, *some_tokens(5, 1)]
        task = asyncio.ensure_future(engine.generate(tokens, Sampling(max_tokens=100, seed=1), session="one"))
        for _ in range(6):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return tokens, await engine.generate(tokens, Sampling(max_tokens=10, seed=2), session="one")

    prompt, found = asyncio.run(run())
    assert found.logprobs == pytest.approx(module_logprobs(model, prompt, found, 1.0), abs=1e-4)


def test_released_sessions_leave_nothing_behind() -> None:
    engine = engine_of(family("qwen2"))

    async def run() -> None:
        for batch in range(4):
            names = [f"{batch}-{i}" for i in range(2 * SLOTS)]
            await asyncio.gather(
                *(engine.generate(some_tokens(5, 0), Sampling(max_tokens=3), session=name) for name in names)
            )
            for name in [*names, "never heard of"]:
                engine.release(name)

    asyncio.run(run())
    assert not engine._sessions and not engine._owner
    assert sorted(engine._free) == list(range(engine.slots))


def test_a_session_released_while_it_generates_leaves_nothing_behind_either() -> None:
    engine = engine_of(family("qwen2"))

    async def run() -> Completion:
        task = asyncio.ensure_future(engine.generate(some_tokens(5, 0), Sampling(max_tokens=9), session="one"))
        for _ in range(4):
            await asyncio.sleep(0)
        engine.release("one")
        return await task

    assert len(asyncio.run(run()).token_ids) > 0
    assert not engine._owner and sorted(engine._free) == list(range(engine.slots))


def test_a_name_can_be_used_again_after_its_release() -> None:
    model = family("qwen2")
    engine = engine_of(model)

    async def run() -> Completion:
        await engine.generate(some_tokens(30, 0), Sampling(max_tokens=5), session="one")
        engine.release("one")
        return await engine.generate(some_tokens(12, 1), Sampling(max_tokens=9, seed=4), session="one")

    assert asyncio.run(run()) == complete(engine_of(model), some_tokens(12, 1), max_tokens=9, seed=4)


def test_new_weights_change_what_is_sampled_and_the_version() -> None:
    old, new, prompt = family("qwen2"), another("qwen2", 5), some_tokens(8, 0)
    engine = engine_of(old)
    before = complete(engine, prompt, max_tokens=20)
    engine.load_weights(new, 7)
    after = complete(engine, prompt, max_tokens=20)
    assert (before.version, after.version) == (0, 7)
    assert before.token_ids != after.token_ids
    assert after.logprobs == pytest.approx(module_logprobs(new, prompt, after, 1.0), abs=1e-4)


def test_the_engine_keeps_its_weights_until_it_is_given_new_ones() -> None:
    model = another("qwen2", 6)
    engine, prompt = engine_of(model), some_tokens(8, 0)
    before = complete(engine, prompt, max_tokens=10)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    assert complete(engine, prompt, max_tokens=10) == before
    engine.load_weights(model, 1)
    assert complete(engine, prompt, max_tokens=10).logprobs != before.logprobs


def test_sessions_that_are_older_than_the_weights_are_computed_anew() -> None:
    """Those in a slot as well as those that were copied out of theirs."""
    old, count = family("qwen2"), 2 * SLOTS
    new = another("qwen2", 8)
    engine = engine_of(old)

    async def turn(tokens: list[list[int]]) -> list[Completion]:
        sampling = Sampling(max_tokens=6)
        return await asyncio.gather(*(engine.generate(t, sampling, session=str(i)) for i, t in enumerate(tokens)))

    prompts = [some_tokens(10 + i, i) for i in range(count)]
    firsts = asyncio.run(turn(prompts))
    engine.load_weights(new, 1)
    longer = [[*p, *c.token_ids, *some_tokens(3, 9)] for p, c in zip(prompts, firsts, strict=True)]
    for prompt, completion in zip(longer, asyncio.run(turn(longer)), strict=True):
        assert completion.version == 1
        assert completion.logprobs == pytest.approx(module_logprobs(new, prompt, completion, 1.0), abs=1e-4)


def test_weights_do_not_change_in_the_middle_of_a_generation() -> None:
    model = family("qwen2")
    engine = engine_of(model)
    expected = complete(engine, some_tokens(5, 0), max_tokens=20, seed=2)

    async def run() -> Completion:
        task = asyncio.ensure_future(engine.generate(some_tokens(5, 0), Sampling(max_tokens=20, seed=2)))
        for patience in (0, 1, 3):
            for _ in range(patience):
                await asyncio.sleep(0)
            if patience:
                with pytest.raises(EngineError, match="Weights cannot change while the engine generates"):
                    engine.load_weights(another("qwen2", 9), 1)
        return await task

    assert asyncio.run(run()) == expected


def test_an_empty_prompt_and_one_that_is_too_long_are_refused_in_one_sentence() -> None:
    engine = engine_of(family("qwen2"), max_length=20)
    with pytest.raises(EngineError, match=r"^A prompt needs at least one token\.$"):
        complete(engine, [])
    with pytest.raises(EngineError, match=r"^The prompt has 20 tokens and engine\.max_length is 20; raise .*prompt\.$"):
        complete(engine, some_tokens(20, 0))
    assert complete(engine, some_tokens(19, 0)).stop_reason in (StopReason.CONTEXT, StopReason.END)


def test_a_session_generates_one_thing_at_a_time() -> None:
    engine = engine_of(family("qwen2"))

    async def run() -> Completion:
        first = asyncio.ensure_future(engine.generate(some_tokens(5, 0), Sampling(max_tokens=9), session="one"))
        await asyncio.sleep(0)
        with pytest.raises(EngineError, match=r"^Session 'one' already has a generation under way; await it first\.$"):
            await engine.generate(some_tokens(6, 0), Sampling(max_tokens=9), session="one")
        return await first

    assert asyncio.run(run()) == complete(engine_of(family("qwen2")), some_tokens(5, 0), max_tokens=9)


def gpt2() -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(GPT2Config(vocab_size=SIZE, n_positions=32, n_embd=16, n_layer=1, n_head=2))


def windowed() -> Any:
    from transformers import MistralConfig, MistralForCausalLM

    return MistralForCausalLM(
        MistralConfig(
            vocab_size=SIZE, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
            num_key_value_heads=2, sliding_window=4,
        )
    )  # fmt: skip


def llama_with(**settings: Any) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=SIZE, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, bos_token_id=None, eos_token_id=None, **settings,
    )  # fmt: skip
    return randomised(LlamaForCausalLM(config))


def test_an_architecture_that_the_engine_does_not_know_is_refused() -> None:
    with pytest.raises(UnsupportedModelError, match=r"families qwen2, qwen3, llama, mistral, and this one is 'gpt2'"):
        engine_of(gpt2())
    with pytest.raises(UnsupportedModelError, match="no sliding-window attention"):
        engine_of(windowed())


@pytest.mark.parametrize("settings_", [{"mlp_bias": True}, {"hidden_act": "gelu"}])
def test_a_variant_that_the_engine_would_compute_wrongly_is_refused(settings_: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedModelError):
        engine_of(llama_with(**settings_))


def test_an_error_in_the_loop_reaches_everyone_who_waits_and_the_engine_lives_on(endless: PreTrainedModel) -> None:
    engine = engine_of(endless)
    expected = complete(engine, ids("a"), max_tokens=9)

    async def run() -> list[Any]:
        def ask(name: str, tokens: list[int]) -> asyncio.Task[Completion]:
            return asyncio.ensure_future(engine.generate(tokens, Sampling(max_tokens=150), session=name))

        running = [ask(f"running {i}", ids("a")) for i in range(SLOTS)]
        for _ in range(5):
            await asyncio.sleep(0)
        bad = ask("bad", [SIZE + 1000, 5])
        waiting = [ask(f"waiting {i}", ids("a")) for i in range(3)]
        await asyncio.sleep(0)
        running[0].cancel()
        return await asyncio.wait_for(asyncio.gather(*running, bad, *waiting, return_exceptions=True), 60)

    cancelled, *others = asyncio.run(run())
    assert isinstance(cancelled, asyncio.CancelledError)
    assert len(others) == SLOTS - 1 + 1 + 3
    assert all(isinstance(outcome, IndexError) for outcome in others)
    assert complete(engine, ids("a"), max_tokens=9) == expected


def test_one_engine_serves_one_event_loop_after_another() -> None:
    engine, prompt = engine_of(family("qwen2")), some_tokens(5, 0)

    async def abandoned() -> None:
        asyncio.ensure_future(engine.generate(prompt, Sampling(max_tokens=100)))  # noqa: RUF006
        for _ in range(5):
            await asyncio.sleep(0)

    first = complete(engine, prompt, max_tokens=9)
    asyncio.run(abandoned())
    assert complete(engine, prompt, max_tokens=9) == first
    with asyncio.Runner() as runner:
        assert runner.run(engine.generate(prompt, Sampling(max_tokens=9))) == first


def test_two_event_loops_may_take_turns_with_one_engine() -> None:
    """The first loop is still open, and its generation was left half done."""
    engine, prompt = engine_of(family("qwen2")), some_tokens(5, 0)
    expected = complete(engine, prompt, max_tokens=9)

    async def interrupted() -> None:
        asyncio.ensure_future(engine.generate(prompt, Sampling(max_tokens=100)))  # noqa: RUF006
        for _ in range(5):
            await asyncio.sleep(0)

    async def patient() -> Completion:
        return await asyncio.wait_for(engine.generate(prompt, Sampling(max_tokens=9)), 20)

    with asyncio.Runner() as first:
        first.run(interrupted())
        again = asyncio.run(patient())
        assert again == expected
