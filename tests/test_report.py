"""The report's numbers and files: what stands in a run folder is what the page says."""

from __future__ import annotations

import json
import math
import random
import re
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ludus.agents.evaluate import EvalResult
from ludus.agents.statistics import wilson_interval
from ludus.agents.trajectory import Episode, Step, Trajectory
from ludus.curves import Chart, Series, draw, frame_of, moving_mean, ticks
from ludus.evaluation_folder import write_evaluation
from ludus.recipe import Recipe, make_recipe
from ludus.report import write_curve_svg, write_report
from ludus.report_data import accuracy_chart, curves, env_scores, tiles, unfinished
from ludus.report_episodes import pack_episode, pack_episodes, page_json
from ludus.run_folder import RunFolder, RunFolderError
from ludus.verifiers.constraint import Constraint
from ludus.verifiers.rubric import Gate, WeightedSum
from ludus.verifiers.verdict import Verdict

WORDS, STEPS = "ludus/WordMath-v0", "ludus/GSM8KSteps-v0"
POISON = "</script><script>window.poisoned = 1</script><img src=x onerror='window.poisoned = 2'>&lt;b&gt;"


def small_recipe(**changes: Any) -> Recipe:
    data: dict[str, Any] = {
        "name": "wordmath",
        "model": {"tiny": {"tags": ["<calculator>", "</calculator>"]}},
        "envs": [{"name": WORDS, "weight": 2.0}, {"name": STEPS, "options": {"setting": "copy"}}],
        "sft": {"steps": 120},
        "policy": {"steps": 300, "groups": 8, "group_size": 8},
    }
    return make_recipe({**data, **changes}, "data")


def episode_row(
    rng: random.Random, env: str, group: str, right: bool, advantage: float | None, answer: str = ""
) -> dict[str, Any]:
    """One episode over two turns with a tool, character by character, as the trainer stores it."""
    a, b = rng.randint(11, 99), rng.randint(11, 99)
    messages = [
        {"role": "system", "content": "Use the calculator: <calculator>1+1</calculator>. Then give the answer."},
        {"role": "user", "content": f"Mira packs {a} boxes with {b} pears each.\nHow many pears are that?"},
        {"role": "assistant", "content": f"<calculator>{a}*{b}</calculator>"},
        {"role": "tool", "content": str(a * b)},
        {"role": "assistant", "content": answer or f"#### {a * b if right else a + b}"},
    ]
    tokens: list[str] = []
    mask: list[bool] = []
    steps = []
    for message in messages:
        own = message["role"] == "assistant"
        opening = [f"<|{message['role']}|>"]
        body = [*re.findall(r"</?calculator>|[^<]|<", message["content"]), "<|end|>", "\n"]
        if own:
            steps.append(Step(len(tokens) + 1, len(tokens) + len(body), 0.0))
        tokens += opening + body
        mask += [False] + [own] * (len(body) - 1) + [False]
    steps[-1] = Step(steps[-1].start, steps[-1].end, float(right))
    logprobs = [math.log(rng.uniform(0.05, 1.0)) if own else 0.0 for own in mask]
    trajectory = Trajectory(
        token_ids=tuple(ord(text[0]) + len(text) for text in tokens),
        mask=tuple(mask),
        logprobs=tuple(logprobs),
        versions=tuple(rng.choice([40, 41]) if own else -1 for own in mask),
        steps=tuple(steps),
    )
    verdict = Verdict.correct("equal to 1,240", found="1240") if right else Verdict.wrong("110 is not 1,240")
    episode = Episode(
        id=f"{group}/{rng.random()}",
        env=env,
        task_id=f"task-{a}",
        group=group,
        seed=rng.randint(0, 9),
        reward=float(right),
        rewards={"correct": float(right), "tool": 1.0},
        verdict=verdict,
        terminated=True,
        truncated=False,
        error=None,
        stop_reason="answer",
        messages=tuple(messages),
        trajectories=(trajectory,),
        seconds=0.41,
    )
    per_token = None if advantage is None else [[advantage if own else 0.0 for own in mask]]
    gradients = None if per_token is None else [gradients_of(per_token[0], mask)]
    return {**episode.to_json(), "tokens": [tokens], "advantages": per_token, "gradients": gradients}


def gradients_of(advantages: list[float], mask: list[bool]) -> dict[str, list[float]]:
    """As of a clipped loss without a KL term, at a ratio of 1.5."""
    terms = {"weight": 0.01, "ratio": 1.5, "correction": 1.0, "kl": 0.0}
    gradients: dict[str, list[float]] = {name: [value * own for own in mask] for name, value in terms.items()}
    gradients["clip"] = [float(own and value > 0) for own, value in zip(mask, advantages, strict=True)]
    return {**gradients, "gradient": [-0.01 * value for value in advantages]}


def log_eval(run: RunFolder, stage: str, step: int, shares: dict[str, float], n: int = 200) -> None:
    for env, share in shares.items():
        low, high = wilson_interval(round(share * n), n)
        baselines = {"regular expression": 0.9645} if env == STEPS else {}
        right = round(share * n) / n
        run.log("eval", step, stage=stage, env=env, accuracy=right, low=low, high=high, tasks=n, baselines=baselines)


def build_run(path: Path, recipe: Recipe | None = None, poison: str = POISON) -> Path:
    """A finished run of two environments, made with the calls that a trainer makes."""
    rng = random.Random(3)
    recipe = recipe or small_recipe()
    with RunFolder.create(recipe, path) as run:
        log_eval(run, "start", 0, {WORDS: 0.0, STEPS: 0.005})
        for step in range(1, 121):
            run.log("sft", step, loss=0.2 + 2.4 * math.exp(-step / 25) + rng.gauss(0, 0.03), grad_norm=1.0, lr=1e-3)
        log_eval(run, "after_sft", 0, {WORDS: 0.43, STEPS: 0.52})
        for step in range(1, 301):
            level = 0.85 - 0.42 * math.exp(-step / 70)
            run.log(
                "policy",
                step,
                loss=rng.gauss(0, 0.01),
                reward=level + rng.gauss(0, 0.06),
                **{f"reward/{WORDS}": level + rng.gauss(0, 0.08), f"reward/{STEPS}": level - 0.1 + rng.gauss(0, 0.08)},
                entropy=0.5 * math.exp(-step / 150) + rng.gauss(0, 0.02),
                kl_sampler=abs(rng.gauss(0, 0.0004)),
                length=30 + 9 * math.exp(-step / 60) + rng.gauss(0, 1.5),
                grad_norm=float("nan") if step == 100 else abs(rng.gauss(0.6, 0.2)),
                episodes=64.0,
                errors=0.0,
                rollout_tokens_per_second=5200 + rng.gauss(0, 300),
                lr=1e-3,
            )
            if step % 50 == 0 and step < 300:
                log_eval(run, "during", step, {WORDS: level, STEPS: level - 0.04})
            if step % 100 == 0:
                rows = []
                for group in range(2):
                    rights = [rng.random() < level for _ in range(8)]
                    mean = sum(rights) / 8
                    env = (WORDS, STEPS)[group]
                    rows += [episode_row(rng, env, f"{step}/{group}", right, right - mean) for right in rights]
                run.write_episodes(f"policy-{step:06d}", rows)
        log_eval(run, "final", 300, {WORDS: 0.94, STEPS: 0.915})
        rows = [episode_row(rng, WORDS, f"eval/{i}", i % 4 > 0, None) for i in range(11)]
        run.write_episodes("eval-final", [*rows, episode_row(rng, WORDS, "eval/12", False, None, poison)])
    return path


class Marked:
    """Right where the line after #### is the gold answer."""

    def verify(self, gold: Any, response: str, *, prompt: str = "") -> Verdict:
        found = response.rpartition("####")[2].split()[:1]
        if "####" not in response or found != [gold]:
            return Verdict.wrong("The number is not right.")
        return Verdict.correct("The number is right.", extracted=found[0])


class Counts:
    """How many words the response has."""

    def verify(self, gold: Any, response: str, *, prompt: str = "") -> Verdict:
        words = len(response.split())
        return Verdict.partial(words, f"{words} words", words=words)


class Polite:
    """Right with a thank-you; with markup it cannot tell; "crash" breaks it."""

    def verify(self, gold: Any, response: str, *, prompt: str = "") -> Verdict:
        if "crash" in response:
            return Verdict.error("the grader is gone")
        if "<" in response:
            return Verdict.undecided(f"cannot read {response}")
        return Verdict.correct("It thanks.") if "thank" in response else Verdict.wrong("It does not thank.")


def rubric(at_most: float = 6) -> Gate:
    length = Constraint(Counts(), at_most=at_most, learning_rate=0.01, max_multiplier=1.0)
    style = WeightedSum({"polite": (Polite(), 0.2), "length": length})
    return Gate("format", {"format": Marked(), "answer": Marked(), "style": style})


def rubric_row(response: str, gold: str = "18", advantage: float | None = None) -> dict[str, Any]:
    """An episode of one turn that the rubric judged."""
    row = episode_row(random.Random(0), WORDS, "g", True, advantage, response)
    verdict = rubric().verify(gold, response)
    named = {path: part.value for path, part in verdict.walk() if part.value is not None}
    lost = verdict.outcome == "error"
    return {
        **row,
        "verdict": verdict.to_json(),
        "reward": None if lost else verdict.reward,
        "rewards": {} if lost else {**named, "correct": verdict.reward, "style/length/charge": -0.25},
        "error": verdict.reason if lost else None,
        "terminated": not lost,
        "stop_reason": "error" if lost else "answer",
    }


RESPONSES = (
    "thank you\n#### 18",
    "It is, as anybody can see by counting them all, a good eighteen of them.\n#### 18",
    "17",
    "#### 18 crash",
    f"{POISON}\n#### 18",
)


def build_rubric_run(path: Path) -> Path:
    """A finished run whose verdicts have parts, with the rows that a trainer logs."""
    rng = random.Random(3)
    with RunFolder.create(small_recipe(envs=[{"name": WORDS}], sft=None), path) as run:
        for stage, step, share in (("start", 0, 0.2), ("final", 100, 0.85)):
            low, high = wilson_interval(round(share * 40), 40)
            counts = {"judged": 40, "undecided": 0, "errors": 0, "not_asked": 0}
            answer = {"mean": share, "low": low, "high": high, **counts}
            parts = {
                "format": answer,
                "answer": {**answer, "not_asked": 3},
                "style": {**answer, "mean": 0.1 + share / 10, "low": None, "high": None},
                "style/polite": {**answer, "undecided": 2, "errors": 1},
                "style/length": answer,
                "style/length/measured": {**answer, "mean": 14.25, "low": None, "high": None},
            }
            run.log("eval", step, stage=stage, env=WORDS, accuracy=share, low=low, high=high, tasks=40, parts=parts)
        for step in range(1, 101):
            kept, words = 1 - math.exp(-step / 40), 6 + 8 * math.exp(-step / 40)
            run.log(
                "policy", step, reward=kept + rng.gauss(0, 0.05), episodes=64.0,
                **{
                    "reward_part/correct": kept,
                    "reward_part/style/length/charge": -0.1 * kept,
                    "verifier/format": min(1.0, kept + 0.1),
                    "verifier/format/undecided": 0.0,
                    "verifier/style/polite": kept,
                    "verifier/style/polite/undecided": float(step % 3),
                    "verifier/style/length/measured": words,
                    "constraint/style/length/multiplier": 0.4 * kept,
                    "constraint/style/length/value": words,
                    "constraint/style/length/violation": words - 6,
                },
            )  # fmt: skip
        run.write_episodes(
            "policy-000100", [rubric_row(text, advantage=0.5 - i / 4) for i, text in enumerate(RESPONSES)]
        )
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_run(tmp_path_factory.mktemp("runs") / "wordmath-1")


def page(run: Path) -> str:
    return write_report(run).read_text(encoding="utf-8")


def test_the_page_loads_nothing_from_anywhere(run: Path) -> None:
    text = page(run).replace('xmlns="http://www.w3.org/2000/svg"', "").replace('"http://www.w3.org/2000/svg"', "")
    assert "http://" not in text and "https://" not in text
    assert not re.search(r"<(link|iframe|img|object|embed)\b", text)
    assert "default-src 'none'" in text


def test_what_a_model_wrote_cannot_leave_its_place(run: Path) -> None:
    text = page(run)
    assert "window.poisoned = 1<" not in text
    assert text.count("<script") == 2 and text.count("</script>") == 2
    assert "\\u003c/script\\u003e" in text


def test_names_and_reasons_are_escaped(tmp_path: Path) -> None:
    name = "<img src=x onerror=alert(1)>/\"X'-v0"
    with RunFolder.create(small_recipe(envs=[{"name": name}]), tmp_path / "run") as run:
        log_eval(run, "start", 0, {name: 0.2})
        log_eval(run, "final", 300, {name: 0.6})
        for step in (1, 2):
            run.log("policy", step, reward=0.5, **{f"reward/{name}": 0.1, "<b>odd": 1.0})
        text = page(run.path)
    assert "<img" not in text and "<b>odd" not in text


def test_tiles_say_before_and_after(run: Path) -> None:
    rows = RunFolder(run).metrics()
    found = {tile.title: tile for tile in tiles(rows, RunFolder(run).recipe)}
    words = found[f"Held-out accuracy, {WORDS}"]
    assert (words.before, words.value) == ("43.0%", "94.0%")
    assert words.note == "after training: 89.8% to 96.5%, 200 tasks"
    assert found["Training episodes"].value == "19,200"
    assert found["Duration"].note == "120 of 120 sft steps, 300 of 300 policy steps"


def test_the_table_holds_every_stage_with_its_baselines(run: Path) -> None:
    words, steps = env_scores(RunFolder(run).metrics())
    assert [words.scores[name].accuracy for name in ("start", "after_sft", "final")] == [0.0, 0.43, 0.94]
    assert (words.baselines, steps.baselines) == ({}, {"regular expression": 0.9645})
    text = re.sub(r"\s+", " ", page(run))
    assert "regular expression <b>96.5%</b>" in text
    assert "+51.0 points" in text


def test_the_accuracy_curve_begins_after_the_supervised_start(run: Path) -> None:
    chart = accuracy_chart(RunFolder(run).metrics())
    assert chart is not None
    assert chart.series[0].x == (0.0, 50.0, 100.0, 150.0, 200.0, 250.0, 300.0)
    assert chart.series[0].y[0] == 0.43 and chart.series[0].y[-1] == 0.94
    assert chart.levels == {f"{STEPS}: regular expression": 0.9645}


def test_every_metric_has_a_curve_and_parts_share_one(run: Path) -> None:
    first, others = curves(RunFolder(run).metrics())
    titles = [chart.title for chart in first]
    assert titles[:3] == ["Training reward", "Entropy", "KL to the sampler"]
    assert {"Completion length", "Gradient norm", "Supervised loss"} <= set(titles)
    assert [series.name for series in first[0].series] == ["mean", WORDS, STEPS]
    assert {"loss", "lr", "episodes", "rollout tokens per second"} <= {chart.title for chart in others}


def test_a_number_that_was_not_finite_leaves_a_gap(run: Path) -> None:
    first, _ = curves(RunFolder(run).metrics())
    norm = next(chart for chart in first if chart.title == "Gradient norm")
    assert norm.series[0].y[99] is None
    assert draw(norm, 420, 220, "k").count("M") >= 2


def test_parts_of_verdicts_have_charts_by_kind_and_counts_that_stay_zero_have_none() -> None:
    def row(step: int) -> dict[str, Any]:
        values = {
            "verifier/answer": 0.5, "verifier/answer/undecided": 0.0, "verifier/answer/error": 0.0,
            "verifier/style/length": 1.0, "verifier/style/length/undecided": float(step),
            "verifier/style/length/measured": 9.0, "verifier/style/length/measured/undecided": 0.0,
            "constraint/style/length/multiplier": 0.1, "constraint/style/length/value": 9.0,
            "constraint/style/length/violation": 3.0,
        }  # fmt: skip
        return {"phase": "policy", "step": step, "reward": 0.0, **values}

    first, others = curves([row(step) for step in (1, 2, 3)])
    lines = {chart.title: [series.name for series in chart.series] for chart in [*first, *others]}
    assert lines == {
        "Training reward": ["reward"],
        "Parts of the verdict": ["answer", "style/length"],
        "Constraint violation": ["style/length"],
        "Constraint multiplier": ["style/length"],
        "verifier undecided": ["style/length"],
        "verifier measured": ["style/length"],
        "constraint value": ["style/length"],
    }
    notes = {chart.title: chart.note for chart in first}
    assert notes["Constraint multiplier"].startswith("style/length: reward per unit")
    assert notes["Training reward"] == "mean over the episodes of a step"


def test_an_episode_is_packed_with_each_part_at_its_depth() -> None:
    parts = pack_episode("policy-000001", rubric_row(RESPONSES[1]))["parts"]
    assert [(p["path"], p["depth"], p["outcome"], p["value"]) for p in parts] == [
        ("format", 0, "correct", 1.0),
        ("answer", 0, "correct", 1.0),
        ("style", 0, "wrong", 0.0),
        ("style/polite", 1, "wrong", 0.0),
        ("style/length", 1, "wrong", 0.0),
        ("style/length/measured", 2, "partial", 17.0),
    ]
    shut = pack_episode("policy-000001", rubric_row(RESPONSES[2]))["parts"]
    assert [(p["path"], p["outcome"], p["reason"]) for p in shut[1:]] == [
        ("answer", "not asked", ""),
        ("style", "not asked", ""),
    ]


def test_the_table_of_parts_shows_intervals_of_shares_and_what_was_not_judged(tmp_path: Path) -> None:
    text = page(build_rubric_run(tmp_path / "run"))
    table = text[text.index('id="parts"') : text.index("Means over the tasks")]
    words = re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", table))
    assert "answer 20.0% 10.5 to 34.8%, 3 not asked 85.0% 70.9 to 92.9%, 3 not asked" in words
    assert "polite 20.0% 10.5 to 34.8%, 2 undecided, 1 lost to errors" in words
    assert "measured 14.25 14.25" in words


def test_the_picture_for_a_readme_is_an_image_of_its_own(run: Path, tmp_path: Path) -> None:
    path = write_curve_svg(run, tmp_path / "curve.svg")
    root = ElementTree.parse(path).getroot()
    assert root.get("viewBox") == "0 0 860 380"
    text = "".join(root.itertext())
    assert "Held-out accuracy" in text and WORDS in text and "regular expression 96.5%" in text


def test_a_run_that_has_just_begun_has_a_page(tmp_path: Path) -> None:
    with RunFolder.create(small_recipe(), tmp_path / "run") as run:
        assert "No episodes are stored yet." in page(run.path)
        assert "This run has not finished (no step was logged)." in page(run.path)
        with pytest.raises(RunFolderError, match=r"run holds fewer than two evaluations; a curve needs two"):
            write_curve_svg(run.path, tmp_path / "curve.svg")


def test_a_run_in_its_middle_shows_its_latest_score(tmp_path: Path) -> None:
    with RunFolder.create(small_recipe(sft=None), tmp_path / "run") as run:
        log_eval(run, "start", 0, {WORDS: 0.1})
        run.log("policy", 50, reward=0.2, episodes=64)
        log_eval(run, "during", 50, {WORDS: 0.3})
        (scores,) = env_scores(run.metrics())
        assert scores.after is not None and scores.after.label == "after step 50"
        assert unfinished(run.metrics(), run.recipe) == "This run has not finished (50 of 300 policy steps)."
        assert "30.0%" in page(run.path)


def test_a_supervised_run_needs_no_policy(tmp_path: Path) -> None:
    with RunFolder.create(small_recipe(policy=None), tmp_path / "run") as run:
        log_eval(run, "start", 0, {WORDS: 0.1})
        for step in (1, 2, 3):
            run.log("sft", step, loss=1.0 / step)
        log_eval(run, "after_sft", 0, {WORDS: 0.6})
        text = page(run.path)
    assert "Supervised loss" in text and "+50.0 points" in text and "has not finished" not in text


def test_an_episode_without_tokens_or_verdict_is_still_shown(tmp_path: Path) -> None:
    row = episode_row(random.Random(0), WORDS, "g", True, None)
    row |= {"trajectories": [], "tokens": None, "verdict": None, "error": "the sandbox died", "reward": None}
    with RunFolder.create(small_recipe(), tmp_path / "run") as run:
        run.write_episodes("eval-start", [row])
        assert "the sandbox died" in page(run.path)


def test_an_evaluation_alone_has_a_page(tmp_path: Path) -> None:
    settings = {"env": WORDS, "model": "some/model", "tasks": 12}
    with RunFolder.create_for_evaluation(settings, tmp_path / "evaluation") as run:
        log_eval(run, "final", 0, {WORDS: 0.5})
        run.write_episodes("eval-final", [episode_row(random.Random(0), WORDS, "g", True, None)])
        text = page(run.path)
        assert f"{WORDS}: some/model" in text
        with pytest.raises(RunFolderError, match="holds an evaluation, which cannot be resumed"):
            RunFolder.resume(run.path)


def test_an_evaluation_shows_tokens_as_the_model_s_own_tokenizer_writes_them(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast, Qwen2Config

    tokenizer = Tokenizer(models.WordLevel({"?": 0, "pêche": 1}, unk_token="?"))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="?").save_pretrained(tmp_path / "model")
    Qwen2Config().save_pretrained(tmp_path / "model")  # beside it, transformers would read a byte-level tokenizer
    trajectory = Trajectory((1,), (True,), (-0.5,), (0,), (Step(0, 1, 1.0),))
    row = episode_row(random.Random(0), WORDS, "g", True, None)
    episode = replace(Episode.from_json(row), trajectories=(trajectory,))
    result = EvalResult(WORDS, 1, 1.0, 0.2, 1.0, 1.0, {}, {}, 0, 0.1, [episode])
    write_evaluation(tmp_path / "evaluation", {"env": WORDS, "model": str(tmp_path / "model")}, result)
    assert RunFolder(tmp_path / "evaluation").read_episodes("eval-final")[0]["tokens"] == [["pêche"]]


def test_a_run_of_another_version_still_has_a_page(tmp_path: Path) -> None:
    with RunFolder.create(small_recipe(), tmp_path / "run") as run:
        (run.path / "recipe.yaml").write_text("name: older\nforgotten_key: 1\n")
        assert "<h1>older</h1>" in page(run.path)


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("environment.json", b'{"python"', r"environment\.json is not a JSON object; restore or remove it"),
        ("environment.json", b"[]", r"environment\.json is not a JSON object; restore or remove it"),
        ("metrics.jsonl", b"[1]\n", r"metrics\.jsonl, line 1 is not a whole row of metrics"),
        ("recipe.yaml", b"name: \xff\n", r"recipe\.yaml is not UTF-8 text \(byte 6\); restore it"),
        ("recipe.yaml", b"name: x\nmodel: [1\n", r"recipe\.yaml: line 3, column 1: .*; correct the YAML"),
        ("recipe.yaml", b"- a\n", r"recipe\.yaml is no section of `key: value` lines; restore it"),
        ("recipe.yaml", b"", r"recipe\.yaml is no section of `key: value` lines; restore it"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, name: str, content: bytes, sentence: str) -> None:
    with RunFolder.create(small_recipe(), tmp_path / "run") as run:
        (run.path / name).write_bytes(content)
        with pytest.raises(RunFolderError, match=sentence):
            write_report(run.path)


@pytest.mark.parametrize("damage", [{}, [], None, {"trajectories": 1}, {"trajectories": [{}]}, {"verdict": "wrong"}])
def test_an_episode_that_lacks_something_is_named(tmp_path: Path, damage: Any) -> None:
    whole = episode_row(random.Random(0), WORDS, "g", True, None)
    with RunFolder.create(small_recipe(), tmp_path / "run") as run:
        run.write_episodes("eval-start", [whole, {**whole, **damage} if damage else damage])
        with pytest.raises(RunFolderError, match=r"eval-start\.jsonl\.gz, line 2 is not an episode; remove that file"):
            write_report(run.path)


def test_an_environment_that_says_little_still_has_a_page(tmp_path: Path) -> None:
    with RunFolder.create(small_recipe(), tmp_path / "run") as run:
        (run.path / "environment.json").write_text('{"python": "3.99"}')
        assert "3.99" in page(run.path)


@given(st.text())
def test_text_in_the_page_data_is_neither_changed_nor_markup(text: str) -> None:
    written = page_json([text])
    assert json.loads(written) == [text]
    assert not set("<>&\u2028\u2029") & set(written)


numbers = st.floats(-1e9, 1e9, allow_nan=False).map(lambda value: round(value, 6))


@given(st.lists(st.none() | numbers, min_size=2, max_size=90))
def test_any_line_can_be_drawn(values: list[float | None]) -> None:
    series = Series("<s>", tuple(map(float, range(len(values)))), tuple(values))
    chart = Chart("a & b", (series,))
    root = ElementTree.fromstring(draw(chart, 420, 220, "k"))
    assert "nan" not in ElementTree.tostring(root, encoding="unicode").lower().replace("nance", "")
    frame = frame_of(chart, 420, 220)
    if not chart.smoothed:
        assert all(frame.top - 0.1 <= frame.y(v) <= 220 - frame.bottom + 0.1 for v in values if v is not None)


@given(low=numbers, size=st.floats(1e-6, 1e9))
@example(low=-562949953.542969, size=1e-06)
def test_ticks_are_round_ordered_and_inside(low: float, size: float) -> None:
    found = ticks(low, low + size, 4)
    assert 1 <= len(found) <= 10
    assert found == sorted(found)
    assert low - size * 1e-3 <= found[0] and found[-1] <= low + size * 1.001


def test_the_moving_mean_keeps_gaps() -> None:
    assert moving_mean([1.0, None, 3.0, 5.0], 1) == [1.0, None, 4.0, 4.0]


def test_the_page_keeps_a_size_that_opens_at_once(tmp_path: Path) -> None:
    with RunFolder.create(small_recipe(), tmp_path / "run") as run:
        rows = [episode_row(random.Random(i), WORDS, "g", True, 0.5) for i in range(8)]
        for label in ("policy-000001", "policy-000002"):
            run.write_episodes(label, rows)
        packed, left_out = pack_episodes(run.path, most_episodes=10)
        assert ([episode["at"] for episode in packed], left_out) == (["policy, step 1"] * 5 + ["policy, step 2"] * 5, 6)
        packed, left_out = pack_episodes(run.path, most_tokens=1)
        assert (len(packed), left_out) == (2, 14)
