"""Writes the parts of docs/scorecard.md from what the cheats, the attacks and the mutations do here and now.

    python scripts/scorecard.py             all parts, in about seven minutes on two cores
    python scripts/scorecard.py attacks     one of cheats, attacks, mutations

Cheats and attacks run on each back end that isolates and that this machine can open; the mutations need HumanEval, see
`ludus.envs.human_eval`. Ends with 1 where a cheat passes or an attack gets through.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import numpy as np

from ludus.agents.statistics import wilson_interval
from ludus.envs.dataset_folder import dataset_folder
from ludus.envs.human_eval import load_functions
from ludus.envs.mutations import mutations
from ludus.sandbox import Limits, Sandbox, SandboxError, check_sandbox, open_sandbox
from ludus.sandbox.attack import Attack
from ludus.sandbox.attacks_on_host import REACHING, READING, WRITING
from ludus.sandbox.attacks_on_kernel import RISING
from ludus.sandbox.attacks_on_limits import CONFUSING, STAYING, TAKING
from ludus.sandbox.check import LIMITS as ATTACK_LIMITS
from ludus.verifiers import CodeVerifier, Outcome

REPOSITORY = Path(__file__).resolve().parent.parent
PAGE = REPOSITORY / "docs" / "scorecard.md"
sys.path.insert(0, str(REPOSITORY / "tests"))
from cheats import CHEATS, TESTS, Cheat  # noqa: E402

BACK_ENDS = {"bubblewrap": "bubblewrap", "docker": "Docker"}
GROUPS: dict[str, tuple[Attack, ...]] = {
    "taking": TAKING,
    "staying": STAYING,
    "reading": READING,
    "writing": WRITING,
    "reaching": REACHING,
    "rising": RISING,
    "confusing": CONFUSING,
}
CHEAT_LIMITS = Limits(wall_s=2, cpu_s=2)
MUTATION_LIMITS = Limits(wall_s=3, cpu_s=3)
MOST_MUTATIONS = 1_500
"""Of more than these a sample is taken, with seed 0."""
NOT_OPENED = "not measured"
NO_REWARD = "no reward; twin passes"


def main(parts: list[str]) -> int:
    """Measure the parts and write them into the page."""
    unknown = set(parts) - set(PARTS)
    if unknown:
        sys.exit(f"Unknown part {min(unknown)!r}; choose from {', '.join(PARTS)}.")
    held = True
    for part in parts or PARTS:
        lines, good = PARTS[part]()
        held &= good
        PAGE.write_text(with_part(PAGE.read_text(), part, lines))
    return 0 if held else 1


def with_part(page: str, part: str, lines: list[str]) -> str:
    """The page with what stands between the marks of a part replaced."""
    begin, end = f"<!-- {part} -->", f"<!-- end of {part} -->"
    new, found = re.subn(
        f"{begin}\n.*?{end}", lambda _: "\n".join([begin, *lines, end]), page, count=1, flags=re.DOTALL
    )
    if not found:
        sys.exit(f"{PAGE} has no {begin} … {end}; put these two lines where the part belongs.")
    return new


def cheats() -> tuple[list[str], bool]:
    """A row for each cheat."""
    results: dict[str, list[str]] = {}
    with back_ends(CHEAT_LIMITS) as opened, ThreadPoolExecutor(2) as pool:
        for box, sandbox in opened.items():
            results[box] = list(pool.map(partial(cheat_result, sandbox), CHEATS.values()))
    rows = [
        [name, cheat.tries, ", ".join(cheat.forms)]
        + [results[box][number] if box in results else NOT_OPENED for box in BACK_ENDS]
        for number, (name, cheat) in enumerate(CHEATS.items())
    ]
    good = all(result == NO_REWARD for column in results.values() for result in column)
    return table(["cheat", "what it tries", "tests", *BACK_ENDS.values()], rows), good


def cheat_result(sandbox: Sandbox, cheat: Cheat) -> str:
    """What came of a cheat and its honest twin, on all its forms of tests."""
    judge = CodeVerifier(sandbox, limits=CHEAT_LIMITS)
    for form in cheat.forms:
        if judge.verify(TESTS[form], cheat.program).outcome is not Outcome.WRONG:
            return f"**passes** ({form})"
        if judge.verify(TESTS[form], cheat.honest).outcome is not Outcome.CORRECT:
            return f"no reward; **twin fails** ({form})"
    return NO_REWARD


def attacks() -> tuple[list[str], bool]:
    """A row for each group of attacks."""
    with back_ends(ATTACK_LIMITS) as opened:
        reports = {name: check_sandbox(sandbox) for name, sandbox in opened.items()}

    def held(box: str, group: tuple[Attack, ...]) -> str:
        if box not in reports:
            return NOT_OPENED
        count = sum(reports[box].row(attack.name).status == "passed" for attack in group)
        return "all held" if count == len(group) else f"**{count} of {len(group)} held**"

    rows = [
        [name, str(len(group)), "; ".join(attack.name for attack in group), *(held(box, group) for box in BACK_ENDS)]
        for name, group in GROUPS.items()
    ]
    whole = tuple(attack for group in GROUPS.values() for attack in group)
    rows.append(["**all**", str(len(whole)), "", *(held(box, whole) for box in BACK_ENDS)])
    heads = ["group", "attacks", "names", *BACK_ENDS.values()]
    return table(heads, rows), all(report.passed for report in reports.values())


def mutants() -> tuple[list[str], bool]:
    """How many single mutations of HumanEval's solutions its own tests catch."""
    tasks = load_functions(dataset_folder("humaneval", None, "HumanEval.jsonl.gz"))
    made = [
        (task, one)
        for task in tasks
        for one in mutations(task.data["prompt"] + task.data["solution"])
        if one.line > task.data["prompt"].count("\n")
    ]
    chosen = made
    if len(made) > MOST_MUTATIONS:
        picked = np.random.default_rng(0).choice(len(made), MOST_MUTATIONS, replace=False)
        chosen = [made[index] for index in sorted(picked)]
    with open_sandbox(limits=MUTATION_LIMITS) as sandbox, ThreadPoolExecutor(2) as pool:
        judge = CodeVerifier(sandbox, limits=MUTATION_LIMITS)
        outcomes = list(pool.map(lambda pair: judge.verify(pair[0].answer, pair[1].source).outcome, chosen))
    judged = [outcome for outcome in outcomes if outcome is not Outcome.ERROR]
    caught = judged.count(Outcome.WRONG)
    low, high = wilson_interval(caught, len(judged))
    missed = {task.id for (task, _), outcome in zip(chosen, outcomes, strict=True) if outcome is Outcome.CORRECT}
    rows = [
        ["mutations of the solutions' bodies", f"{len(made):,}"],
        ["judged" + ("" if chosen is made else " (a sample, seed 0)"), f"{len(judged):,}"],
        ["caught by HumanEval's own tests", f"{caught:,}"],
        ["share caught, with its 95 % interval", f"{caught / len(judged):.3f} [{low:.3f}, {high:.3f}]"],
        ["tasks with a mutation in their body", f"{len({task.id for task, _ in chosen})}"],
        ["of these with one that is not caught", f"{len(missed)}"],
    ]
    return table(["", "count"], rows), True


@contextmanager
def back_ends(limits: Limits) -> Iterator[dict[str, Sandbox]]:
    """Those that this machine can open, by name."""
    with ExitStack() as stack:
        opened = {}
        for name in BACK_ENDS:
            try:
                opened[name] = stack.enter_context(open_sandbox(name, limits=limits))
            except SandboxError as error:
                print(f"{name}: {error}", file=sys.stderr)
        if not opened:
            sys.exit("No back end that isolates can be opened; see docs/sandbox.md.")
        yield opened


def table(heads: list[str], rows: list[list[str]]) -> list[str]:
    """A table in Markdown."""
    cells = [heads, ["---"] * len(heads), *rows]
    return ["| " + " | ".join(one.replace("|", "\\|") for one in row) + " |" for row in cells]


PARTS: dict[str, Callable[[], tuple[list[str], bool]]] = {"cheats": cheats, "attacks": attacks, "mutations": mutants}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
