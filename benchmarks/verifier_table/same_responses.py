"""Whole responses that end in the right answer, as teachers and language models write them; and gold against itself."""

from __future__ import annotations

import re
from collections.abc import Callable
from random import Random

from .golds import Gold, Golds
from .pair import Draft, Drafts, Generator, same

FORMS = {
    "in a box": "The answer is $\\boxed{{{}}}$.",
    'after "The answer is"': "The answer is ${}$.",
    "bare": "{}",
    "after ####": "So that is what we get.\n#### {}",
    "in <answer>": "<answer>{}</answer>",
}
STEPS = (
    "First, let's rewrite the equation. Dividing both sides by $2$ gives $x + 3 = 17$.",
    "Note that $2^3 = 8$ and $5 \\cdot 7 = 35$, so the sum is $43$.",
    "By symmetry we can assume $a \\le b$; there are $12$ such cases.",
    "We factor: $n^2 - 1 = (n-1)(n+1)$.",
    "Step 1: Draw the figure. Its area is $\\frac{1}{2} \\cdot 6 \\cdot 9 = 27$.",
    "Wait, let me check this again. If $k = 4$ then $3k - 1 = 11$, which is prime.",
    "Substituting, $$y = \\frac{3}{4}(8) - 5 = 1.$$",
    "Adding these, 14 + 23 = 37, and 10% of 37 is 3.7.",
)
"""What stands before an answer; none of it claims to be one."""


def itself(form: str, rows: Callable[[Golds], tuple[Gold, ...]]) -> Generator:
    """Every gold in one form of a response."""

    def generate(golds: Golds, rng: Random) -> Drafts:
        for gold in rows(golds):
            yield Draft(gold.text, gold.text, gold.source, FORMS[form].format(gold.text))

    return generate


for _form in FORMS:
    same(f"MATH-500 gold itself, {_form}", whole=True)(itself(_form, lambda golds: golds.math))
for _form in FORMS:
    same(f"GSM8K gold itself, {_form}", whole=True)(itself(_form, lambda golds: golds.gsm8k))


def reasoning(rng: Random, least: int = 1) -> str:
    """A few steps."""
    return "\n\n".join(rng.choices(STEPS, k=rng.randint(least, least + 3)))


def another_number(rng: Random, gold: str) -> str:
    """A number that is not in the gold."""
    while (text := str(rng.randint(2, 99))) in gold:
        pass
    return text


def respond(name: str, *forms: str, latex: bool = True, integers: bool = False) -> None:
    """Register a type of response. In a form stand {steps}, {gold}, {other} (another number) and {more} (steps).

    latex: whether golds that need LaTeX are asked, too. integers: only integers.
    """

    def generate(golds: Golds, rng: Random) -> Drafts:
        for gold in golds.shuffled(rng):
            number = re.fullmatch(r"-?\d+", gold.text)
            if (integers and not number) or (not latex and re.search(r"\\(?!frac\{\d)", gold.text)):
                continue
            form = rng.choice(forms)
            for mark, text in (
                ("{steps}", reasoning(rng)),
                ("{more}", reasoning(rng)),
                ("{other}", another_number(rng, gold.text)),
                ("{gold}", gold.text),
            ):
                form = form.replace(mark, text)
            yield Draft(gold.text, gold.text, gold.source, form)

    same(name)(generate)


respond(
    "response: reasoning, then the box",
    "{steps}\n\nTherefore, the answer is $\\boxed{{gold}}$.",
    "{steps} Thus \\boxed{{gold}}",
)
respond(
    "response: several boxes, the last one right",
    "{steps} This gives \\boxed{{other}} for the first part.\n\n{more} Hence the final answer is $\\boxed{{gold}}$.",
    "$\\boxed{{other}}$? No: one case was forgotten.\n\n{steps}\n\n$\\boxed{{gold}}$",
)
respond("response: box in $$ $$", "{steps}\n\n$$\\boxed{{gold}}$$", "{steps}\n$$\n\\boxed{{gold}}\n$$\n")
respond("response: box in \\[ \\]", "{steps}\n\n\\[\\boxed{{gold}}\\]", "{steps}\n\\[\n\\boxed{{gold}}.\n\\]")
respond("response: box in \\( \\)", "{steps} So the value is \\(\\boxed{{gold}}\\).")
respond(
    "response: box in an aligned environment",
    "{steps}\n\\begin{align*}\nS &= {other} + T \\\\\n&= \\boxed{{gold}}.\n\\end{align*}",
    "{steps}\n$$\\begin{aligned} a &= {other} \\\\ S &= \\boxed{{gold}} \\end{aligned}$$",
)
respond(
    "response: punctuation after the box",
    "{steps} We get $\\boxed{{gold}}.$",
    "\\boxed{{gold}}!",
    "It is $\\boxed{{gold}}$ .",
    "$\\boxed{{gold}}$, done.",
)
respond("response: full stop inside the box", "{steps} We get $\\boxed{{gold}.}$", "\\[ \\boxed{{gold}.} \\]")
respond(
    "response: spaces inside or before the box",
    "{steps} $\\boxed{ {gold} }$",
    "$\\boxed {{gold}}$",
    "\\boxed{\n{gold}\n}",
)
respond("response: \\fbox", "{steps} The answer is $\\fbox{{gold}}$.", "{steps}\n\n\\fbox{${gold}$}")
respond("response: dollars inside the box", "{steps} The answer is \\boxed{${gold}$}.")
respond(
    "response: text after the box",
    "{steps} $\\boxed{{gold}}$\n\nThis agrees with the check above, where both sides were {other}.",
)
respond(
    "response: bold heading Final Answer",
    "{steps}\n\n**Final Answer**\n\nThe final answer is $\\boxed{{gold}}$",
    "{steps}\n\n**Final Answer:** $\\boxed{{gold}}$",
    "{steps}\n\n### Final Answer\n\n$$\\boxed{{gold}}$$",
)
respond(
    "response: bold answer without a box",
    "{steps}\n\n**Answer: ${gold}$**",
    "{steps}\n\n**Answer:** ${gold}$",
    "{steps}\n\nThe answer is **${gold}$**.",
)
respond(
    "response: bold number in a sentence",
    "{steps}\n\nThe answer is **{gold}**.",
    "{steps}\n\n**Answer:** {gold}",
    integers=True,
)
respond("response: Minerva's phrase", "{steps}\nFinal Answer: The final answer is ${gold}$. I hope it is correct.")
respond(
    "response: Answer: at the end",
    "{steps}\nAnswer: ${gold}$",
    "{steps}\n\nANSWER: ${gold}$",
    "{steps}\n\nFinal answer: ${gold}$.",
)
respond("response: Answer: and plain text", "{steps}\nAnswer: {gold}", "{steps}\nThe answer is: {gold}", latex=False)
respond("response: #### after reasoning", "{steps}\n#### {gold}", "{steps}\n\n#### {gold}\n")
respond(
    "response: <think> with another box, then the right one",
    "<think>\n{steps} Maybe \\boxed{{other}}?\n</think>\n\n{more}\n\n$\\boxed{{gold}}$",
)
respond(
    "response: <think>, then <answer>",
    "<think>{steps} Perhaps {other}.</think>\n<answer>{gold}</answer>",
    "<think>{steps}</think> <answer> ${gold}$ </answer>",
)
respond("response: box inside <answer>", "<think>{steps}</think>\n<answer>$\\boxed{{gold}}$</answer>")
respond(
    "response: named value in the box",
    "{steps} $\\boxed{x = {gold}}$",
    "{steps} Hence \\[ \\boxed{N = {gold}} \\]",
    integers=True,
)
respond(
    "response: box after an equals sign",
    "{steps} So $2 + {other} + S = \\boxed{{gold}}$.",
    "{steps} $S = \\boxed{{gold}}$",
)
respond(
    "response: box in a list or a quotation",
    "1. {steps}\n2. Result:\n   - $\\boxed{{gold}}$",
    "> {steps}\n>\n> $\\boxed{{gold}}$",
)
respond("response: Windows line ends", "We simplify.\r\n\r\nSo the answer is $\\boxed{{gold}}$.\r\n")
respond(
    'response: "Therefore" and the last formula',
    "{steps}\n\nTherefore, the value is ${gold}$.",
    "{steps}\n\nSo our final result is \\({gold}\\).",
)
respond("response: 30,000 characters, then the box", "{steps}\n\n" * 60 + "$\\boxed{{gold}}$")
respond(
    "response: tokens of a chat template after it",
    "{steps} $\\boxed{{gold}}$<|im_end|>",
    "{steps} $\\boxed{{gold}}$</s>",
    "{steps} $\\boxed{{gold}}$<|endoftext|>",
)
