"""Recipes: what loads is kept, what is wrong is said in one sentence that names the fix."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import assume, given
from hypothesis import strategies as st
from test_train import Notes

from ludus.agents.config import TinyModel
from ludus.agents.model import create_tiny_model
from ludus.algorithm_choice import chosen_algorithm, sampling_of
from ludus.complaints import keys_of
from ludus.recipe import Recipe, RecipeError, dump_recipe, load_recipe, make_recipe, parse_setting
from ludus.run_folder import RunFolder
from ludus.train import train_recipe
from ludus.trainers.algorithms import AlgorithmError
from ludus.trainers.config import PolicyConfig
from ludus.verifiers.repetition import Loop
from ludus.yaml_core import dump, parse

BASE = """\
name: wordmath
model:
  tiny: {hidden_size: 64, heads: 2, kv_heads: 2}
envs:
  - name: ludus/WordMath-v0
    weight: 2
sft:
  steps: 10
policy:
  steps: 20
  optimizer: {lr: 1e-3}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(BASE)
    return path


def fault(path: Path, *overrides: str) -> str:
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, overrides)
    return str(caught.value).replace(str(path), "small.yaml")


def test_a_recipe_fills_in_what_the_file_leaves_out(file: Path) -> None:
    recipe = load_recipe(file)
    assert recipe.name == "wordmath"
    assert recipe.device == "auto"
    assert recipe.sft is not None and recipe.sft.steps == 10


def test_a_number_in_exponent_form_without_a_dot_is_a_number(file: Path) -> None:
    recipe = load_recipe(file, ["sft.optimizer.lr=3e-4"])
    assert recipe.policy is not None and recipe.policy.optimizer.lr == 1e-3
    assert recipe.sft is not None and recipe.sft.optimizer.lr == 3e-4


def test_overrides_reach_sections_list_items_and_free_options(file: Path) -> None:
    recipe = load_recipe(
        file,
        ["envs.0.weight=3", "envs.0.options.levels=[1, 2]", "policy.options.clip.high=0.28", "sft=null", "seed=7"],
    )
    assert recipe.envs[0].weight == 3.0
    assert recipe.envs[0].options == {"levels": [1, 2]}
    assert recipe.policy is not None and recipe.policy.options == {"clip": {"high": 0.28}}
    assert recipe.sft is None
    assert recipe.seed == 7


def test_loops_are_cut_where_a_recipe_asks_for_it_and_never_else(file: Path) -> None:
    assert sampling_of(load_recipe(file).sampling, None).stop_on_loop is None
    recipe = load_recipe(file, ["sampling.max_tokens=200", "sampling.stop_on_loop.repeats=3"])
    for greedy in (False, True):
        assert sampling_of(recipe.sampling, None, greedy).stop_on_loop == Loop(max_period=64, repeats=3, min_tokens=64)
    file.write_text(dump_recipe(recipe), encoding="utf-8")
    assert load_recipe(file) == recipe


def test_a_later_override_wins(file: Path) -> None:
    assert load_recipe(file, ["seed=1", "seed=2"]).seed == 2


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("policy.group_szie=3", "policy.group_szie is not a known key; did you mean policy.group_size?"),
        ("polcy.steps=3", "polcy is not a known key; did you mean policy?"),
        ("envs.0.wieght=2", "envs.0.wieght is not a known key; did you mean envs.0.weight?"),
        (
            "lr=1",
            "lr is not a known key; did you mean sft.optimizer.lr or star.optimizer.lr or preference.optimizer.lr?",
        ),
        ("sampling.zebra=1", "known here: temperature, top_p, top_k, max_tokens, stop, stop_on_loop."),
        ("device=cud", "device = 'cud' is not one of 'auto', 'cpu' or 'cuda'; did you mean cuda?"),
        ("policy.steps=0", "policy.steps = 0 must be greater than 0."),
        ("policy.steps=ten", "policy.steps = 'ten' must be a whole number."),
        ("policy.steps=true", "policy.steps = true must be a whole number."),
        ("policy.steps=1e3", "policy.steps = 1000.0 must be a whole number; write 1000."),
        ("model.gradient_checkpointing=1", "model.gradient_checkpointing = 1 must be true or false."),
        ("policy.optimizer.lr=.nan", "policy.optimizer.lr = nan must be a finite number."),
        ("envs.0.options.share=-.inf", "envs.0.options.share = -inf must be a finite number."),
        ("sampling.top_p=1.5", "sampling.top_p = 1.5 must be at most 1.0."),
        ("sampling.stop=</a>", "sampling.stop = '</a>' must be a list, such as [first, second]."),
        ("sampling.stop_on_loop.repeats=1", "sampling.stop_on_loop.repeats = 1 must be at least 2."),
        ("sampling.stop_on_loop.max_period=0", "sampling.stop_on_loop.max_period = 0 must be greater than 0."),
        ("sampling.stop_on_loop.min_tokens=0", "sampling.stop_on_loop.min_tokens = 0 must be greater than 0."),
        (
            "sampling.stop_on_loop=true",
            "stop_on_loop = true must be a section with the keys max_period",
        ),
        ("sampling.stop_on_loop.period=3", "did you mean sampling.stop_on_loop.max_period?"),
        ("name=3", "name = 3 must be text: put it in quotes."),
        ("name=../up", "name = '../up' is not allowed: what the run folder is called"),
        ("envs.3.weight=2", "envs is a list without an entry 3; its last entry is envs.0."),
        ("envs=[]", "envs = [] needs at least 1 (it has 0)."),
        ("name.first=3", "name is 'wordmath' and has no keys below it."),
        ("model=tiny", "model = 'tiny' must be a section with the keys path, tiny"),
        ("preference={steps: 2, method: ipo, label_smoothing: 0.1}", "label_smoothing is a setting of dpo"),
        ("preference={steps: 2, beta: 0}", "preference.beta = 0 must be greater than 0"),
        ("seed", "write it as key=value, for instance seed=3."),
        ("policy..steps=3", "write it as key=value, for instance seed=3."),
        ("seed=[1", "the value is not YAML"),
    ],
)
def test_a_wrong_override_is_named_with_its_value_and_its_cure(file: Path, override: str, sentence: str) -> None:
    text = fault(file, override)
    assert text.startswith(f"override {override}: ")
    assert sentence in text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["policy=null", "sft=null"], "nothing would be trained; give a section sft, star, preference or policy."),
        (["model.path=some/folder"], "give exactly one of model.path and model.tiny."),
        (["model.tiny=null"], "give exactly one of model.path and model.tiny."),
        (["engine.max_length=60"], "sampling.max_tokens = 64 leaves no room for a prompt in engine.max_length = 60"),
        (["engine.max_length=2000"], "engine.max_length = 2000 exceeds model.tiny.max_length = 1024"),
        (["engine.sleep=true"], "sleep is a setting of vllm and engine.kind is torch; set kind: vllm, or leave it out"),
        (["engine.transfer=ipc"], "transfer is a setting of vllm and engine.kind is torch; set kind: vllm"),
        (
            ["engine.kind=vllm", "engine.sleep=true", "rollout.placement=ray_async"],
            "engine.sleep = true is for an engine that shares the trainer's GPU, and rollout.placement = ray_async",
        ),
        (
            ["engine.kind=vllm", "engine.transfer=ipc", "rollout.placement=ray"],
            "engine.transfer = ipc is for an engine that shares the trainer's GPU, and rollout.placement = ray plays",
        ),
        (["model.tiny.hidden_size=65"], "must be an even multiple of model.tiny.heads = 2; take 68."),
        (["model.tiny.kv_heads=3"], "model.tiny.kv_heads = 3 must divide model.tiny.heads = 2."),
        (
            ["sampling.stop_on_loop={}"],
            "sampling.stop_on_loop.min_tokens = 64 is not below sampling.max_tokens = 64, so that no loop would ever",
        ),
        (["sampling.temperature=0"], "sampling.temperature = 0 makes all episodes of a group equal"),
        (
            ["sampling.temperature=1.0e-40"],
            "sampling.temperature = 1e-40 is too low to calculate with; give 0 (greedy) or",
        ),
        (["preference={steps: 2, groups: 4, minibatches: 5}"], "preference.minibatches = 5 exceeds the 4 pairs"),
        (["preference={steps: 2}", "policy=null", "sampling.temperature=0"], "so that preference finds no pairs"),
        (["policy.minibatches=100"], "policy.minibatches = 100 exceeds the 64 episodes of a step"),
        (["sft.optimizer.betas=[0.9, 1]"], "sft.optimizer.betas = [0.9, 1.0] must lie in [0, 1)"),
        (["envs=[{name: a}, {name: a}]"], "envs.1 repeats a with the same options"),
    ],
)
def test_values_that_do_not_fit_together_are_refused(file: Path, overrides: list[str], sentence: str) -> None:
    text = fault(file, *overrides)
    assert text.startswith("small.yaml: ")
    assert sentence in text


def test_every_fault_of_a_file_gets_its_own_sentence(file: Path) -> None:
    file.write_text(BASE.replace("steps: 20", "stps: 20").replace("weight", "wight"))
    assert fault(file).splitlines() == [
        "small.yaml: envs.0.wight is not a known key; did you mean envs.0.weight?",
        "small.yaml: policy.steps is missing; add it.",
        "small.yaml: policy.stps is not a known key; did you mean policy.steps?",
    ]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "small.yaml is empty; a recipe needs at least name, model and envs."),
        ("# only a comment\n", "small.yaml is empty; a recipe needs at least name, model and envs."),
        ("- a\n- b\n", "small.yaml: a recipe is a section of `key: value` lines, not ['a', 'b']."),
        ("name: x\nmodel: [1\n", "small.yaml: line 3, column 1: expected ',' or ']'"),
        ("name: x\n\tmodel: 1\n", "small.yaml: line 2, column 1: found character '\\t' that cannot start any token"),
        ("name: x\nseed: 1\nname: y\n", "small.yaml: line 3, column 1: the key name stands here twice"),
        ("name: \x07\n", "small.yaml: line 1: the character '\\x07' is not allowed in YAML"),
        ("[" * 5000, "small.yaml: it is nested too deeply"),
        ("name: &again [*again]\n", "small.yaml: name.0 contains itself"),
        ("name: x\n3: 4\n", "small.yaml: the recipe has the key 3, which is not text; put it in quotes."),
        ("name: !!python/name:os.system\n", "could not determine a constructor for the tag"),
        ('name: "\\ud800"\n', "small.yaml: name holds half of a surrogate pair"),
        ("seed: " + "9" * 5000, "small.yaml: Exceeds the limit"),
    ],
)
def test_a_file_that_is_not_a_recipe_is_described(file: Path, text: str, sentence: str) -> None:
    file.write_text(text)
    assert sentence in fault(file)
    assert "\n" not in fault(file)


def test_a_missing_file_names_its_neighbour(file: Path) -> None:
    missing = file.with_name("smal.yaml")
    assert fault(missing) == f"small.yaml does not exist; did you mean {file}?"


def test_a_folder_is_not_a_recipe(file: Path) -> None:
    assert "is a folder; name the YAML file in it." in fault(file.parent)


def test_a_file_in_another_encoding_is_refused(file: Path) -> None:
    file.write_bytes("name: Zürich".encode("latin-1"))
    assert "small.yaml is not UTF-8 text (byte 7); save it as UTF-8." in fault(file)


def test_a_recipe_written_down_loads_as_an_equal_one(file: Path) -> None:
    recipe = load_recipe(file, ["sampling.stop=['</calculator>', '1e-3', 'on', 'é\\n', 'null']"])
    file.write_text(dump_recipe(recipe), encoding="utf-8")
    assert load_recipe(file) == recipe


scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(values)
def test_what_dump_writes_parse_reads(value: object) -> None:
    assert parse(dump(value)) == value


@given(st.dictionaries(st.text(min_size=1), values, max_size=4))
def test_free_options_survive_being_written_down(options: dict[str, object]) -> None:
    data = yaml.safe_load(BASE.replace("1e-3", "0.001"))
    data["envs"][0]["options"] = options
    recipe = make_recipe(data, "data")
    assert make_recipe(parse(dump_recipe(recipe)), "again") == recipe


LEAVES = [key for key in keys_of(Recipe) if "options" not in key and len(key.rpartition(".")[2]) > 4]


@given(key=st.sampled_from(LEAVES), data=st.data())
def test_a_key_with_one_letter_gone_is_recognised(key: str, data: st.DataObject) -> None:
    section, dot, leaf = key.rpartition(".")
    gone = data.draw(st.integers(0, len(leaf) - 1))
    wrong = leaf[:gone] + leaf[gone + 1 :]
    recipe: dict[str, object] = {}
    here = recipe
    parts = [*section.split("."), wrong] if section else [wrong]
    assume(all(wrong != known.rpartition(".")[2] for known in keys_of(Recipe)))
    for part, following in zip(parts, [*parts[1:], ""], strict=True):
        if part == "0":
            continue
        inner: dict[str, object] = {}
        here[part] = 1 if part == wrong else [inner] if following == "0" else inner
        here = inner
    with pytest.raises(RecipeError) as caught:
        make_recipe(recipe, "x.yaml")
    sentence = next(line for line in str(caught.value).splitlines() if f" {section}{dot}{wrong} is not a known" in line)
    assert key in sentence.partition("did you mean ")[2].rstrip("?").split(" or ")


def test_an_empty_value_is_the_empty_text_since_a_shell_takes_its_quotes_away() -> None:
    assert parse_setting("system_prompt=") == ("system_prompt", "")
    assert parse_setting("system_prompt=null") == ("system_prompt", None)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"algorithm": "grpo", "group_size": 1}, "grpo compares episodes of one task; raise policy.group_size"),
        ({"algorithm": "ppo_kl"}, "raise policy.minibatches or policy.epochs above 1"),
        ({"algorithm": "opd"}, "opd learns from a teacher; set policy.teacher"),
        ({"algorithm": "trpo", "minibatches": 2, "steps": 2}, "takes one step from each rollout"),
        ({"algorithm": "ppo", "shuffle_rewards": True, "steps": 2}, "would be no control"),
        ({"algorithm": "grpo", "critic": {"warmup_steps": 1}}, "grpo has no critic; remove policy.critic"),
        ({"algorithm": "ppo", "critic": {"warmup_steps": 2}, "steps": 2}, "leaves none of policy.steps = 2"),
        ({"algorithm": "grpo", "teacher": "somewhere"}, "grpo has no teacher; remove policy.teacher"),
    ],
)
def test_an_algorithm_without_what_it_needs_is_refused(settings: dict[str, object], sentence: str) -> None:
    with pytest.raises(AlgorithmError, match=sentence):
        chosen_algorithm(PolicyConfig(**{"steps": 1, **settings}))  # type: ignore[arg-type]


def test_a_teacher_with_another_vocabulary_is_refused_before_anything_is_played(tmp_path: Path) -> None:
    model, tokenizer = create_tiny_model(TinyModel(hidden_size=8, layers=1, heads=1, kv_heads=1), 0)
    tokenizer.add_tokens(["<|another|>"])
    model.save_pretrained(tmp_path / "teacher")
    tokenizer.save_pretrained(tmp_path / "teacher")
    (tmp_path / "recipe.yaml").write_text(
        "name: small\nmodel: {tiny: {hidden_size: 8, layers: 1, heads: 1, kv_heads: 1}}\n"
        "envs: [{name: ludus/WordMath-v0}]\n"
        f"policy: {{algorithm: opd, steps: 1, teacher: {tmp_path / 'teacher'}}}\n"
    )
    recipe = load_recipe(tmp_path / "recipe.yaml")
    run = RunFolder.create(recipe, tmp_path / "run")
    with run, pytest.raises(AlgorithmError, match="has another vocabulary than the policy"):
        train_recipe(recipe, run, display=Notes())
