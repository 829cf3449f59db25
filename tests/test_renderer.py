"""Renderer: appending gives the tokens of rendering the whole conversation, or the template is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twins import QWEN25_TEMPLATE, byte_tokenizer

from ludus.agents.model import TINY_TEMPLATE, character_tokenizer
from ludus.agents.renderer import Renderer, TemplateError

THINK_DROPPING = QWEN25_TEMPLATE.replace(
    "+ message['content'] + '<|im_end|>\\n' }}", "+ message['content'].split('</think>')[-1] + '<|im_end|>\\n' }}"
)
STRIPPING = TINY_TEMPLATE.replace("message['content'] +", "message['content'] | trim +").replace(
    "'<|' + message['role'] + '|>' + message['content'] | trim + '<|end|>'",
    "'<|' + message['role'] + '|>' + (message['content'] | trim) + '<|end|>'",
)

TOKENIZERS = {
    "tiny": character_tokenizer(("<calculator>", "</calculator>")),
    "qwen2.5": byte_tokenizer(QWEN25_TEMPLATE),
}
texts = st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), max_size=20)


@pytest.mark.parametrize("name", TOKENIZERS)
@given(turns=st.lists(st.tuples(texts, st.sampled_from(["tool", "user"]), texts), min_size=1, max_size=4))
def test_appending_gives_the_text_of_rendering_everything_at_once(name, turns) -> None:
    tokenizer = TOKENIZERS[name]
    renderer = Renderer(tokenizer)
    messages = [{"role": "user", "content": "start"}]
    tokens = renderer.open(messages)
    for answer, role, seen in turns:
        messages.append({"role": "assistant", "content": answer})
        tokens += [*tokenizer.encode(answer, add_special_tokens=False), renderer.end_id]
        messages.append({"role": role, "content": seen})
        tokens += renderer.append([messages[-1]], ended=True)
    whole = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert tokenizer.decode(tokens) == whole
    renderer.check_episode(messages)


def test_a_turn_that_was_cut_gets_its_end_from_the_renderer() -> None:
    renderer = Renderer(TOKENIZERS["tiny"])
    message = {"role": "tool", "content": "7"}
    assert renderer.append([message], ended=False) == [renderer.end_id, *renderer.append([message], ended=True)]


def test_several_tool_results_are_rendered_as_the_template_groups_them() -> None:
    tokenizer = TOKENIZERS["qwen2.5"]
    results = [{"role": "tool", "content": "1"}, {"role": "tool", "content": "2"}]
    text = tokenizer.decode(Renderer(tokenizer).append(results, ended=True))
    assert text.count("<|im_start|>user") == 1
    assert text.count("<tool_response>") == 2


def test_tools_are_announced_where_the_template_does_so() -> None:
    schema = {"type": "function", "function": {"name": "add", "description": "Add.", "parameters": {}}}
    renderer = Renderer(TOKENIZERS["qwen2.5"], tools=[schema])
    assert '"name": "add"' in renderer.tokenizer.decode(renderer.open([{"role": "user", "content": "1+1"}]))


@pytest.mark.parametrize(
    ("template", "shows"), [(THINK_DROPPING, "<think>"), (STRIPPING, "spaced")], ids=["thoughts", "spaces"]
)
def test_a_template_that_rewrites_history_is_refused_with_the_differing_text(template: str, shows: str) -> None:
    tokenizer = byte_tokenizer(template) if "im_start" in template else character_tokenizer()
    tokenizer.chat_template = template
    with pytest.raises(TemplateError, match="rewrites history") as caught:
        Renderer(tokenizer)
    assert shows in str(caught.value)
    assert not Renderer(tokenizer, on_rewrite="segment").append_only


def test_a_finished_episode_is_checked_once_more() -> None:
    tokenizer = character_tokenizer()
    # Rewrites only what the proof at construction does not think of.
    tokenizer.chat_template = TINY_TEMPLATE.replace("message['content'] +", "message['content'].replace('42', '43') +")
    renderer = Renderer(tokenizer)
    fine = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "41"}]
    renderer.check_episode(fine)
    with pytest.raises(TemplateError, match=r"'2<.*'3<"):
        renderer.check_episode([fine[0], {"role": "assistant", "content": "42"}])


def test_missing_parts_are_named_in_one_sentence() -> None:
    without_template, without_end = character_tokenizer(), character_tokenizer()
    without_template.chat_template = None
    without_end.eos_token = None
    for tokenizer, says in ((without_template, "no chat template"), (without_end, "end-of-turn")):
        with pytest.raises(TemplateError, match=says):
            Renderer(tokenizer)


def test_a_template_that_fails_names_the_roles() -> None:
    tokenizer = character_tokenizer()
    tokenizer.chat_template = "{% if messages[-1]['role'] == 'tool' %}{{ raise_exception('no tools') }}{% endif %}" + (
        TINY_TEMPLATE
    )
    with pytest.raises(TemplateError, match=r"roles .*tool: no tools"):
        Renderer(tokenizer)
