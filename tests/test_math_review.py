"""What a hostile review made pass, and what honest answers it saw fail: none of it again."""

import pytest

from ludus.verifiers import MathVerifier, Outcome, verify_math

NOT_THE_ANSWER = [
    ("42", r"42 \text{ possibly 43}"),
    ("42", r"42 \text{ vs 43}"),
    ("42", "42 at most"),
    ("42", r"42 \text{ at least}"),
    ("42", "42 less"),
    ("42", "42 more"),
    ("42", r"42 \text{ is too small}"),
    ("42", r"42 \text{ false}"),
    ("42", r"42 \text{ Just kidding its 43}"),
    ("42", r"42 \text{ to 50}"),
    ("42", r"42 \text{ ou 43}"),
    ("42", r"42 \text{ rather 99}"),
    ("5", "5 is wrong"),
    ("5", r"5 \text{ is incorrect}"),
    ("5", "5 twelfths"),
    ("5", "5 millionths"),
    ("5", "5 factorial"),
    ("5", "5 quadrillion"),
    ("5", "5 score"),
    ("5", "5 gross"),
    ("5", "5 pairs"),
    ("5", "5 tens"),
    ("5", "5 basis points"),
    ("5", "5 root"),
    ("5", "5 percent"),
    ("5", "5 per cent"),
    ("5", "5 quince\nParis"),
    ("5", "5\nquince"),
    ("0.3", "0.3 repeating"),
    ("xy=6", "6"),
    ("6", "xy=6"),
    ("x=1,y=2", "2,1"),
    ("1,1,2", "1,2,2"),
    ("x>1, x<3", "x<3 or x>1"),
    ("(5,3)", "x<1 and x>2"),
    ("(0,0)", "x<0 and x>0"),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", "[1,2)"),
    (r"\vec{AB}", r"\vec{BA}"),
    (r"\overrightarrow{AB}", r"\overrightarrow{BA}"),
    (r"\angle ABC", r"\angle BAC"),
    ("g(f(x))", "f(g(x))"),
    (r"f\circ g", r"g\circ f"),
    ("f(2x)", "2f(x)"),
    ("f(x)+f(1)", "f(x+1)"),
    (r"\frac{y}{x}", r"\frac{dy}{dx}"),
    ("TFT", "TTF"),
    ("AC", "CA"),
    ("B", "(B) is wrong"),
    ("B", "B. definitely not this one"),
    ("B", "(B) or maybe K"),
    ("B", "(B) 42 or none of these"),
    ("-3", "(A)-3"),
    ("x+1", "(C)(x+1)"),
    ("x", "(F)x"),
    ("5", "A.5"),
    ("5", "C:5"),
    ("1,234", "1, 234"),
    ("20% of 50", "2.0% of 50"),
    ("from 1.5 to 2.5", "from 15 to 25"),
    ("2e+3", "2000"),
    ("5/2", r"\frac{4}{2}\frac{1}{2}"),
    ("7/2", r"(3)\frac{1}{2}"),
    ("x^{5/2}", r"x^2\frac{1}{2}"),
    ("e^{xy}", "e^xy"),
    (r"(\pm 1, \mp 1)", r"(\pm 1, \pm 1)"),
    (r"x=\pm 2, y=\mp 2", r"x=\pm 2, y=\pm 2"),
    ("1", r"\lim_{x\to 0}\frac{|x|}{x}"),
    ("1", r"\lim_{x\to 0}\sgn(x)"),
    (r"\frac{\pi^2}{6}", r"\sum_{k=1}^{\infty}\frac{\gcd(k,6)}{k^2}"),
    ("5 mg", "5 Mg"),
    ("3 mm", "3 MM"),
    ("120 square units", "120 cubic units"),
    ("x", r"x+1!\sin(\pi x)"),
    ("x", "1!|x|"),
    ("x", r"1!\lfloor x\rfloor"),
    ("n!x", "n!|x|"),
    ("x", r"x+\sin(1013\pi x)"),
    ("1", r"\tanh(200)"),
    ("1", r"\operatorname{erf}(20)"),
    ("(0,5)", r"(0,5)\setminus((1,a)\cup(2,b))"),
    ("x>2", r"\{y : x>2\}"),
    ("0", "0 (or (15,-29))"),
    ("4.5", "4.5\n\\text{Navin}"),
    (r"\frac{\sqrt{3}}{3}", "\\text{Navin}\n\\frac{\\sqrt{3}}{3}"),
    ("0", "0\n(15,-29)"),
]
HEDGED_OR_DENIED = [
    ("42", "I don't think the answer is 42."),
    ("42", "It is not true that the answer is 42."),
    ("42", "The answer is $42$ (or maybe $43$)."),
    ("42", "The answer is $42$ but it could be $43$."),
    ("42", "The answer is $42$. Or $43$."),
    ("42", "It is definitely not $42$."),
    ("42", "$42$ is wrong."),
    ("42", "Could it be $42$?"),
    ("42", r"<think>\boxed{42}</think> The answer is 43."),
    ("43", r"\boxed{42} \text{ or } \boxed{43}"),
    ("43", r"$\boxed{42} \text{ or } \boxed{43}$"),
    ("43", r"\boxed{42} \quad\text{or}\quad \boxed{43}"),
    ("43", r"\boxed{42} or perhaps \boxed{43}"),
    ("43", r"$\boxed{42}$ **or** $\boxed{43}$"),
    ("43", r"\boxed{42}\ \lor\ \boxed{43}"),
    ("43", r"\boxed{42} & \boxed{43}"),
    ("43", "$43$ vs $42$"),
    ("42", "The wrong answer is 42."),
    ("42", "I am not sure, but I doubt that the answer is 42."),
    ("42", "If the answer is 42, something is wrong."),
    ("42", "The number is not 41. It is not $42$."),
]
UNDER_OPTIONS = [
    ("1,2", r"\{2,1\}", {"ordered": True}),
    ("1,2", "x=2, x=1", {"ordered": True}),
    ("x=1, x=2", "2,1", {"ordered": True}),
    (r"\frac{\pi^2}{6}", r"\sum_{n=1}^{\infty}\frac1{n^2}", {"evaluated": True}),
    ("x=6", r"x=2\cdot 3", {"evaluated": True}),
    ("6 m", "(2+4) m", {"evaluated": True}),
    ("3.50", "3.54", {"rounding": "places"}),
    ("3.00", "3.4", {"rounding": "places"}),
    ("0", "0.4", {"rounding": 1}),
    ("10^{-400}", "0.001", {"rounding": 3}),
    ("1", "1/2", {"rounding": "places"}),
    ("20", "20\n1/2", {"rounding": "places"}),
]
THE_ANSWER = [
    (r"\frac13", r"\frac13\approx0.333"),
    (r"\frac13", r"0.333\approx\frac13"),
    ("5", "5 min"),
    ("5 minutes", "5 min"),
    ("e^{x+y}", "e^xe^y"),
    ("a^{n}b^{n}", "a^nb^n"),
    ("5", r"\text{Area}=5"),
    (r"\emptyset", "no solution"),
    ("-1,3", r"x\in\{-1,3\}"),
    (r"\frac{\ln 2}{3}", r"\ln 2/3"),
    ("5", "5 cm3"),
    ("21", "twenty-one"),
    ("100", "one hundred"),
    (r"\binom{n}{k}", r"\frac{n!}{k!(n-k)!}"),
    (r"\mathbb R", "all real numbers"),
    ("5", r"\underline{5}"),
    ("5", r"{\Large 5}"),
    ("2x", "f(x)=2x"),
    ("x=1,y=2", r"\begin{aligned} x&=1\\ y&=2\end{aligned}"),
    ("5", r"\begin{aligned} x&=2+3\\ &=5\end{aligned}"),
    ("(1,-1),(-1,1)", r"(\pm1,\mp1)"),
    (r"50\%", "50 percent"),
    (r"\frac12", "half"),
    (r"12 \text{ months}", r"1 \text{ year}"),
    ("5", "5 cookies"),
    ("x+1", "(B) x+1"),
    ("745", "*745"),
    ("745", "* 745"),
    ("745", "*745*"),
    ("745", "**745"),
    ("-745", "_-745_"),
]
RIGHT_42 = [
    "#### Conclusion\n\nThe answer is 42.",
    "#### Step 3: add 1\nThe final answer is $42$.",
    "The answer is 42, as shown above.",
    "The answer is 42 because 6*7=42.",
    "The answer is approximately 42.",
    "The answer to the question is 42.",
    "The answer is 42!",
    "The final answer is 42 (forty-two).",
    "### Answer\n42",
    r"\boxed 42",
    "<ANSWER>42</ANSWER>",
    "<think>the answer is 43</think> 42",
    "The answer is therefore 42.",
    "Since 7 is not prime, the answer is 42.",  # what another clause denies is another matter
    "If $x=2$, the answer is 42.",
    "If x = 2 then the answer is $42$.",
    "The first guess, 41, was wrong, so the answer is 42.",
    "There is no doubt that the answer is 42.",
    r"As $n \not= 3$ we get $42$.",
    "As 3.5 does not divide it, we get $42$.",
]
BREAKERS = [
    (r"x+\log{}+1", r"x+\log\{\}+1", {}),
    ("5", r"x>3 \pmod{5}", {}),
    ("x^2", r"x^{\frac{1e2000}{\frac{1e-2000}{1e2000}}}+y", {}),
    ("5", r"5\text{ m}^{\frac{1e2000}{\frac{1e-2000}{1e2000}}}", {}),
    ("10^{400}", "5", {"rounding": 3}),
    ("5", r"\sqrt[3]{10^{49000}+1}", {}),
    ("5", r"5\text{cm ①}", {}),  # ① is a digit to str.isdigit(), and no number to int()
]


@pytest.mark.parametrize(("gold", "answer"), NOT_THE_ANSWER)
def test_what_is_not_the_answer_does_not_pass(gold: str, answer: str) -> None:
    assert verify_math(gold, f"\\boxed{{{answer}}}", deadline_s=10).outcome is not Outcome.CORRECT


@pytest.mark.parametrize(("gold", "response"), HEDGED_OR_DENIED)
def test_a_hedge_a_denial_or_a_thought_does_not_pass(gold: str, response: str) -> None:
    assert verify_math(gold, response).outcome is not Outcome.CORRECT


@pytest.mark.parametrize(("gold", "answer", "options"), UNDER_OPTIONS)
def test_options_hold_whatever_way_an_answer_is_written(gold: str, answer: str, options: dict[str, object]) -> None:
    assert verify_math(gold, f"\\boxed{{{answer}}}", **options).outcome is not Outcome.CORRECT


@pytest.mark.parametrize(("gold", "answer"), THE_ANSWER)
def test_the_answer_in_another_form_passes(gold: str, answer: str) -> None:
    assert verify_math(gold, f"\\boxed{{{answer}}}", deadline_s=10).outcome is Outcome.CORRECT


@pytest.mark.parametrize("response", RIGHT_42)
def test_an_honest_sentence_passes(response: str) -> None:
    assert verify_math("42", response).outcome is Outcome.CORRECT


@pytest.mark.parametrize(("gold", "answer", "options"), BREAKERS)
def test_no_response_raises_or_takes_long(gold: str, answer: str, options: dict[str, object]) -> None:
    verdict = MathVerifier(**options).verify(gold, f"\\boxed{{{answer}}}")  # type: ignore[arg-type]
    assert verdict.outcome in (Outcome.WRONG, Outcome.UNDECIDED)
    assert "the comparison failed" not in verdict.reason
