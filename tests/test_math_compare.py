"""What counts as the same mathematical answer, and what never does."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ludus.verifiers.math.compare import compare
from ludus.verifiers.math.errors import TooMuchWork
from ludus.verifiers.math.finding import Finding, Match, Rules
from ludus.verifiers.math.work import Work


def found(gold: str, response: str, **rules: object) -> Finding:
    return compare(gold, response, Rules(**rules), Work(200_000))  # type: ignore[arg-type]


SAME = [
    ("x=5", "5"),
    ("5", "x=5"),
    ("1,-2", "-2,1"),
    ("1,-2", r"x=1 \text{ or } x=-2"),
    ("1,-2", r"\{-2, 1\}"),
    (r"1 \pm \sqrt{19}", r"1+\sqrt{19}, 1-\sqrt{19}"),
    ("(3,4]", r"3 < x \le 4"),
    (r"(2,\infty)", "x>2"),
    (r"x \in [-2,7]", "[-2,7]"),
    (r"x \in [-2,7]", r"-2 \le x \le 7"),
    (r"(-\infty, 2) \cup (3, \infty)", r"x<2 \text{ or } x>3"),
    (r"(-\infty, 2) \cup (3, \infty)", r"(3,\infty)\cup(-\infty,2)"),
    (r"(0,9) \cup (9,36)", "(9,36) ∪ (0,9)"),
    ("5x - 7y + 11z + 4 = 0", "-5x+7y-11z-4=0"),
    ("y = 2x + 3", "2x+3"),
    ("y = 2x + 3", "y-2x=3"),
    ("y=2x+3", "2x - y + 3 = 0"),
    (r"90^\circ", "90"),
    (r"90^\circ", r"\frac{\pi}{2}"),
    (r"90^\circ", "90 degrees"),
    (r"864 \mbox{ inches}^2", "864"),
    (r"864 \mbox{ inches}^2", "864 square inches"),
    (r"864 \mbox{ inches}^2", r"864\text{ in}^2"),
    (r"15\mbox{ cm}^2", "15 cm^2"),
    (r"15\mbox{ cm}^2", "15"),
    (r"5.4 \text{ cents}", "5.4"),
    (r"5.4 \text{ cents}", "5.4¢"),
    (r"\$18.90", "18.90"),
    (r"\$18.90", "18.9 dollars"),
    (r"\$32,\!348", "32348"),
    (r"\$32,\!348", "$32,348$"),
    ("58,500", "58500"),
    ("58,500", "58{,}500"),
    (r"10,\!080", "10080"),
    ("10080", "10,080"),
    (r"\text{(C)}", "C"),
    (r"\text{(C)}", "(C)"),
    (r"\text{(C)}", r"\text{C}"),
    (r"\text{Evelyn}", "Evelyn"),
    (r"\text{east}", "East."),
    ("52_8", "52_{8}"),
    ("4210_{5}", "4210_5"),
    (r"\frac43", "4/3"),
    (r"\frac43", r"1\frac13"),
    (r"1\frac{4}{5}", "1.8"),
    (r"137 \frac{1}{2}", "137.5"),
    (r"137 \frac{1}{2}", "137 1/2"),
    (".35625", "0.35625"),
    ("0.15", r"15\%"),
    (r"15\%", "0.15"),
    (r"15\%", "15"),
    (r"\left[ \frac{\pi^2}{8}, \frac{5 \pi^2}{4} \right]", "[pi^2/8, 5pi^2/4]"),
    (r"\begin{pmatrix} 1/5 \\ -18/5 \end{pmatrix}", r"\begin{bmatrix} 0.2 \\ -3.6 \end{bmatrix}"),
    (r"\begin{pmatrix} 1/5 \\ -18/5 \end{pmatrix}", "(1/5, -18/5)"),
    (r"\{1\pm\sqrt{5},-2\}", r"-2, 1+\sqrt5, 1-\sqrt5"),
    (r"3\sqrt{13}", "3√13"),
    (r"3\sqrt{13}", r"\sqrt{117}"),
    (r"3\sqrt{13}", "3*sqrt(13)"),
    (r"3\sqrt{13}", r"3\cdot13^{1/2}"),
    ("6 - 5i", "-5i+6"),
    (r"\frac{\sqrt{3}}{3}", r"1/\sqrt{3}"),
    (r"\cot x", r"\frac{1}{\tan x}"),
    ("x^5 - x^4 + x^3 - x^2 + x - 1", "(x-1)(x^4+x^2+1)"),
    ("(a+5)(b+2)", "(b+2)(a+5)"),
    ("6r^2-4r-24", "2(3r^2-2r-12)"),
    ("3R^2", "3R²"),
    ("(1,-16,-4,43)", "1,-16,-4,43"),
    (r"\frac{20000}{\pi}", "20000/pi"),
    (r"11,\! 111,\! 111,\! 100", "11111111100"),
    (r"11,\! 111,\! 111,\! 100", "11,111,111,100"),
    (".0000672", r"6.72 \times 10^{-5}"),
    ("(8,-2)", "(x,y)=(8,-2)"),
    (r"\frac{11+9a}{20}", "0.55+0.45a"),
    ("2k+2", "2(k+1)"),
    ("5", "5.0"),
    ("5", r"\text{5 apples}"),
    ("5", "5 apples"),
    ("18", "$18"),
    ("18", r"18\text{ eggs}"),
    ("x=2,y=3", "y=3, x=2"),
    (r"(-\infty,3)\cup(3,\infty)", r"x\ne 3"),
    (r"(-\infty,3)\cup(3,\infty)", r"\mathbb{R}\setminus\{3\}"),
    ("x^2+y^2=1", "y^2+x^2-1=0"),
    ("x+y<3", "3>y+x"),
    ("5", "five"),
    (r"\emptyset", r"\{\}"),
    ("f(x)=x^2+1", "x^2+1"),
    ("7", "3+4=7"),
    ("5", "x = 10/2 = 5"),
    ("1/3", r"0.\overline{3}"),
    ("2^{99}", "633825300114114700748351602688"),
    ("10^{12}", "1e12"),
    ("3:4", "3/4"),
    (r"\log_2 8", "3"),
    ("100", "10^2"),
    (r"-\frac{35}{9}", r"\frac{-35}{9}"),
    ("8", r"\boxed{8}"),
    ("3, 5, 7", "3,5,7"),
    ("100, 200, 300", "100,200,300"),
    ("5", r"5\text{ m}"),
    (r"30 \text{ miles per hour}", "30 mph"),
    (r"1 \text{ m}", "100 cm"),
    ("72", "72."),
    (r"\begin{pmatrix} -1 & 0 \\ 0 & -1 \end{pmatrix}", r"\left(\begin{array}{cc} -1 & 0 \\ 0 & -1\end{array}\right)"),
    (r"\frac{1}{2}+\frac{\sqrt{3}}{2}i", r"e^{i\pi/3}"),
    (r"\sqrt{2}\operatorname{cis}(\pi/4)", "1+i"),
    (r"x=3\text{ cm}", "3"),
    ("4", r"\left|-4\right|"),
    (r"\lfloor 3.7\rfloor", "3"),
    (r"\binom{5}{2}", "10"),
    (r"(2,\infty)", r"\{x : x > 2\}"),
    (r"[-2,7]", r"\{x \mid -2 \le x \le 7\}"),
    ("5!", "120"),
    (r"\sum_{k=1}^{10} k", "55"),
    ("n(n+1)/2", r"\sum_{k=1}^n k"),
    (r"\frac{3}{4}", r"{3 \over 4}"),
    (r"1\frac{4}{5}", r"1{4 \over 5}"),
    (r"-\frac{35}{9}", r"-3\frac{8}{9}"),
    ("6 - 5i", r"6 - 5\mathrm{i}"),
    ("1+2i", r"1 + 2\,i"),
    ("17+4i", "17 + i4"),
    ("13:5", r"13\colon 5"),
    ("13:5", "13{:}5"),
    ("7:2", r"7 \text{ to } 2"),
    ("(3,4]", r"\{x \in \mathbb{R} : 3 < x \le 4\}"),
    (r"\begin{pmatrix} -2 \\ -14 \end{pmatrix}", r"\begin{pmatrix} -2\\[4pt]-14 \end{pmatrix}"),
    ("49", r"\textcolor{red}{49}"),
    ("9901", r"\bf 9901"),
    ("120", r"\text{\$120}"),
    ("6", r"\text{USD }6"),
    ("|3x - 7| + 6", r"\vert 3x - 7\vert + 6"),
    ("52_8", "{52}_8"),
    (r"\dbinom{6}{2}", r"\frac{6!}{2!4!}"),
    ("337 km/h", r"337\text{ km/h}"),
    (r"4.4\text{ hrs}", r"4.4\text{ h}"),
    ("890 m³", r"890\text{ m}^3"),
    ("0", "\\ 0\\"),
    ("p - q", r"p\ -\ q"),
    (r"\log_5 125", "3"),
    ("7.4 m³", "7.4"),
    ("7r^2t", "7tr^2"),
    ("8t^2a", "8at^2"),
    ("5r^2y", "5yr^2"),
    ("B", r"\textbf{(B) } 42"),
    (r"\text{(B)}", "(B) 42"),
    ("42", "(B) 42"),
    ("42", r"\textbf{(B) } 42"),
    ("x=2,y=3", "(2,3)"),
    ("xyz", "zxy"),
    ("abc", r"a \cdot bc"),
]
DIFFERENT = [
    ("1/2^{98}", "1/2^{99}"),
    ("1+1/e", "1-1/e"),
    ("1/2006!", "1/2004!"),
    ("1,3,...,2n-1", "1,2,...,n"),
    ("3x+4y+14=0", "3x-y+13=0"),
    ("42", "42 or 43"),
    ("42", "42, 43"),
    ("42", "42 or 43 or 44"),
    ("42", "not 42"),
    ("42", "42 43"),
    ("5", "5x"),
    ("5", "5 million"),
    ("5", "5 minus one"),
    ("5", r"\pm 5"),
    ("1,-2", "1"),
    ("1,-2", "1,-2,3"),
    ("1,-2", "(1,-2)"),
    ("(3,4]", "[3,4]"),
    ("(3,4]", "(3,4)"),
    ("(3,4]", "(3,5]"),
    ("(-2,1)", "(1,-2)"),
    ("(-2,1)", "[-2,1]"),
    ("52_8", "52_7"),
    ("52_8", "53_8"),
    ("x=5", "y=5"),
    (r"90^\circ", "90 rad"),
    (r"5.4 \text{ cents}", "5.4 dollars"),
    (r"15\mbox{ cm}^2", "15 cm"),
    (r"15\mbox{ cm}^2", "15 m^2"),
    (r"\text{(C)}", "(D)"),
    (r"\text{(C)}", "A, B, C, D"),
    (r"\text{Evelyn}", "Evelyn or Navin"),
    (r"\text{even}", "neve"),
    ("3R^2", "3r^2"),
    (r"\pi", "3.14159"),
    ("7.4 m³", "7.4 m²"),
    ("7.4 m³", "7.5"),
    ("5m^3", "5"),
    ("dog", "god"),
    ("12", "1 2"),
    ("B", "(B) or (C)"),
    ("B", "(C) B"),
    ("42", "(B) 43"),
    ("y=2,x=3", "(2,3)"),
    ("x=2,y=3", "[2,3]"),
    ("|x + 18|", "x + 18"),
    ("|x - 39|", "39 - x"),
    (r"\pi", r"\pi+10^{-80}"),
    ("x", "|x|"),
    ("y=2x+3", "y=2x-3"),
    ("x+y<3", "x+y>3"),
    ("x+y<3", r"x+y\le 3"),
    ("50", r"50\%"),
    ("6-5i", "6+5i"),
    (r"\frac{3}{5}", r"\frac{5}{3}"),
    ("2", "0=0"),
    ("y=2x", "0=0"),
    ("y=2x", "x=x"),
    ("x>2", r"x\ge2"),
    ("x>2", "x<2"),
    ("5", "I think it is 5, but maybe 6"),
    ("5", ""),
    ("5", "?"),
    ("5", "5=6"),
    ("2k", "2"),
    ("5m", "5"),
    (r"\$18.90", "€18.90"),
    ("7", "3+4=8"),
    (r"(2,\infty)", r"[2,\infty)"),
    (r"\infty", r"-\infty"),
    (r"\infty", "5"),
    ("5", r"\infty"),
    ("0", r"\sin(10^{-300})"),
    ("1", r"\cos(10^{-300})"),
    ("1", "1+10^{-1000}"),
    ("4", r"\{4,5\}"),
    (r"\{1,2\}", r"\{1,2,3\}"),
    ("C", "c"),
    (r"1 \pm \sqrt{19}", r"1+\sqrt{19}"),
    ("5", "any number"),
    ("5", "5 squared"),
    ("5", "5/0"),
    ("x=1,y=2", "x=2,y=1"),
    ("(1,2)", "2,1"),
    ("2", "2i"),
    ("8", "8_9"),
    (r"\frac{\pi}{2}", "90"),
    ("1:2", "2:1"),
]


@pytest.mark.parametrize(("gold", "response"), SAME)
def test_the_same_answer_written_otherwise_is_the_same(gold: str, response: str) -> None:
    assert found(gold, response).match is Match.SAME


@pytest.mark.parametrize(("gold", "response"), DIFFERENT)
def test_another_answer_is_different(gold: str, response: str) -> None:
    assert found(gold, response).match is Match.DIFFERENT


STAGES = [
    ("42", "42", "text"),
    ("3.50", "7/2", "exact"),
    (r"1/2^{98}", r"1/2^{99}", "exact"),
    (r"\sqrt{2}+x", r"x+\sqrt{2}", "structure"),
    (r"\sqrt{12}", r"2\sqrt{3}", "numeric"),
    (r"1-1/e", r"1+1/e", "numeric"),
]


@pytest.mark.parametrize(("gold", "response", "stage"), STAGES)
def test_the_cheapest_stage_that_can_decides(gold: str, response: str, stage: str) -> None:
    assert found(gold, response).stage == stage


HUGE = [
    ("((20)!)!", "factorial"),
    ("(10^8)!", "factorial"),
    ("9^{9^{9^9}}", "bits"),
    ("{" * 5_000, "nested"),
    (r"\frac{1}{" * 500 + "2" + "}" * 500, "nested"),
    (r"\sqrt{2+" * 60 + "2" + "}" * 60, "nested"),
    ("9" * 5_000, "digits"),
    ("1e999999999", "exponent"),
    ("1" + "+1" * 4_500, "parts"),
    (r"\begin{pmatrix}" + r"\\".join(["&".join("1" * 30)] * 30) + r"\end{pmatrix}", "entries"),
    (",".join(["1"] * 100), "answers"),
    ("x" + r"\pm 1" * 5, "signs"),
    ("9" * 20_000, "characters"),
]


@pytest.mark.parametrize(("response", "reason"), HUGE, ids=range(len(HUGE)))
def test_a_guard_stops_before_the_work_and_says_which(response: str, reason: str) -> None:
    finding = found("42, 43" if reason == "answers" else "42", response)
    assert finding.match is Match.UNSURE or reason == "answers"
    assert reason in finding.reason


@pytest.mark.parametrize("response", [r"\foo{42}", r"\begin{foo} 42 \end{foo}", r"\{x^2 \mid x > 42\}"])
def test_notation_that_is_not_known_is_no_wrong_answer(response: str) -> None:
    assert found("42", response).match is Match.UNSURE


@pytest.mark.parametrize("gold", [r"\foo{42}", "{" * 100])
def test_a_right_answer_that_cannot_be_read_is_right_only_as_it_is_written(gold: str) -> None:
    assert found(gold, gold + " ").match is Match.SAME
    assert found(gold, "42").match is Match.UNSURE


def test_computer_algebra_is_asked_only_where_numbers_cannot_decide() -> None:
    with pytest.raises(TooMuchWork, match="only computer algebra"):
        found(r"\frac{\pi^2}{6}", r"\sum_{k=1}^\infty \frac{1}{k^2}")


def test_several_answers_may_have_to_be_in_order() -> None:
    assert found("1, 2", "2, 1").match is Match.SAME
    assert found("1, 2", "2, 1", ordered=True).match is Match.DIFFERENT
    assert found("1, 2", "1, 2", ordered=True).match is Match.SAME


def test_units_may_be_required() -> None:
    assert found(r"5\text{ cm}", "5").match is Match.SAME
    assert found(r"5\text{ cm}", "5", units=False).match is Match.DIFFERENT
    assert found(r"5\text{ cm}", "50 mm", units=False).match is Match.SAME
    assert found("5", "5 cm", units=False).match is Match.DIFFERENT


def test_a_percent_sign_divides_unless_it_is_a_unit() -> None:
    assert found("0.5", "50%").match is Match.SAME
    assert found("50", "50%").match is Match.DIFFERENT
    assert found("50", "50%", percent="unit").match is Match.SAME
    assert found("0.5", "50%", percent="unit").match is Match.DIFFERENT


ROUNDED = [
    ("3.33", "10/3", "places", Match.SAME),
    ("3.33", "3.334", "places", Match.SAME),
    ("3.33", "3.336", "places", Match.DIFFERENT),
    ("3.33", "10/3", "exact", Match.DIFFERENT),
    (r"\sqrt{2}", "1.41421", 6, Match.SAME),
    (r"\sqrt{2}", "1.4142", 6, Match.DIFFERENT),
    ("123456", "123456.4", 6, Match.SAME),
    ("123456", "123457", 6, Match.DIFFERENT),
    ("0.000123456", "0.000123457", 6, Match.DIFFERENT),
]


@pytest.mark.parametrize(("gold", "response", "rounding", "match"), ROUNDED)
def test_decimals_are_rounded_only_by_the_rule_asked_for(
    gold: str, response: str, rounding: object, match: Match
) -> None:
    assert found(gold, response, rounding=rounding).match is match


numbers = st.fractions(max_denominator=1000, min_value=-1000, max_value=1000)


@given(numbers, numbers)
def test_fractions_are_the_same_exactly_where_they_are_equal(a: object, b: object) -> None:
    assert (found(f"{a}", f"{b}").match is Match.SAME) == (a == b)


@given(st.lists(st.integers(-50, 50), min_size=1, max_size=5, unique=True), st.randoms(use_true_random=False))
def test_answers_in_any_order_are_the_same_and_one_less_is_not(answers: list[int], rng: object) -> None:
    shuffled = list(answers)
    rng.shuffle(shuffled)  # type: ignore[attr-defined]
    gold = ", ".join(map(str, answers))
    assert found(gold, ", ".join(map(str, shuffled))).match is Match.SAME
    assert found(gold, r"\{" + ", ".join(map(str, shuffled)) + r"\}").match is Match.SAME
    if len(answers) > 1:
        assert found(gold, ", ".join(map(str, shuffled[1:]))).match is Match.DIFFERENT


ends = st.integers(-20, 20)


@given(ends, ends, st.booleans(), st.booleans())
def test_an_interval_is_its_inequality_and_not_one_with_another_end(a: int, b: int, low: bool, high: bool) -> None:
    assume(a < b)
    interval = f"{'[' if low else '('}{a}, {b}{']' if high else ')'}"
    signs = {True: r"\le", False: "<"}
    chain = f"{a} {signs[low]} x {signs[high]} {b}"
    other = f"{a} {signs[not low]} x {signs[high]} {b}"
    assert found(interval, chain).match is Match.SAME
    assert found(interval, other).match is Match.DIFFERENT


@given(st.lists(st.integers(-9, 9), min_size=3, max_size=5), st.integers(-9, 9))
def test_a_polynomial_is_the_same_expanded_and_by_its_roots(roots: list[int], shift: int) -> None:
    import sympy

    x = sympy.Symbol("x")
    product = sympy.prod(x - root for root in roots)
    factors = "".join(f"(x - {root})" if root >= 0 else f"(x + {-root})" for root in roots)
    expanded = str(sympy.expand(product)).replace("**", "^").replace("*", "")
    assert found(expanded, factors).match is Match.SAME
    if shift:
        assert found(expanded, f"{factors} + {shift}").match is Match.DIFFERENT


TINY = [r"10^{-80}", r"e^{-1000}", r"\left(\frac{1}{7}\right)^{400}", r"\sin(10^{-90})", r"(\pi-\frac{355}{113})^{60}"]


@pytest.mark.parametrize("tiny", TINY)
@pytest.mark.parametrize("gold", [r"\pi", "42", r"\sqrt{2}+1", "x+1"])
def test_a_difference_too_small_to_see_is_a_difference(gold: str, tiny: str) -> None:
    assert found(gold, f"{gold}+{tiny}").match is Match.DIFFERENT
