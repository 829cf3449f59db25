"""Where an answer stands in a response: the first rule that applies decides, and says from where."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ludus.verifiers.errors import VerifierError
from ludus.verifiers.extraction import LENIENT, STRICT, USUAL, Rule, check_order, extract_answer

FOUND: list[tuple[str, Rule, str]] = [
    (r"so \boxed{42}.", "boxed", "42"),
    (r"\boxed{\frac{1}{2}}", "boxed", r"\frac{1}{2}"),
    (r"\boxed{\{1, 2\}}", "boxed", r"\{1, 2\}"),
    (r"\boxed{\left\{ x \right\}}", "boxed", r"\left\{ x \right\}"),
    (r"first \boxed{41}, no: \boxed{42}", "boxed", "42"),
    (r"\boxed{\boxed{42}}", "boxed", r"\boxed{42}"),
    (r"\fbox{42}", "boxed", "42"),
    (r"\boxed {42}", "boxed", "42"),
    (r"\boxed{1} and \boxed{-2}", "boxed", "1 , -2"),
    (r"$\boxed{1}$, $\boxed{2}$ or $\boxed{3}$", "boxed", "1 , 2 , 3"),
    (r"\boxed{42", "boxed", ""),
    ("<answer>\n42\n</answer>", "tag", "42"),
    ("<answer>41</answer> <answer>42</answer>", "tag", "42"),
    ("steps\n#### 42\n", "hash", "42"),
    ("#### 41\n#### 42", "hash", "42"),
    ("The answer is 42.", "phrase", "42"),
    ("the answer is: 3.14.", "phrase", "3.14"),
    ("The final answer is $\\frac{1}{2}$. I hope it is correct.", "phrase", r"\frac{1}{2}"),
    ("**Final Answer**: $42$", "phrase", "42"),
    ("**Final Answer:** 42", "phrase", "42"),
    ("**Answer:**\n\n$$42$$", "phrase", "42"),
    ("Answer: 42 apples\nThat was easy.", "phrase", "42 apples"),
    ("The answer is 41. No, the answer is 42.", "phrase", "42"),
    ("The answer is $42$ or $43$.", "phrase", "$42$ or $43$"),
    ("so $x = 1$, hence $y = 2$ holds", "math", "y = 2"),
    (r"so \(x\) and then \[ y = 2 \]", "math", "y = 2"),
    ("it is $1$ or $2$", "math", "1 , 2"),
    ("$$42$$", "math", "42"),
    ("42", "bare", "42"),
    ("It costs $5 and $6 in all", "bare", "It costs $5 and $6 in all"),
]


@pytest.mark.parametrize(("response", "rule", "text"), FOUND)
def test_the_first_rule_that_applies_finds_the_answer(response: str, rule: Rule, text: str) -> None:
    found = extract_answer(response)
    assert found is not None
    assert (found.rule, found.text) == (rule, text)


@pytest.mark.parametrize(("response", "rule", "text"), FOUND)
def test_the_place_is_that_of_the_answer(response: str, rule: Rule, text: str) -> None:
    found = extract_answer(response)
    assert found is not None
    if " , " not in found.text:
        assert response[found.start : found.end].strip() == text


def test_the_first_and_all_boxes_can_be_asked_for() -> None:
    response = r"\boxed{41} then \boxed{42}"
    assert [extract_answer(response, [rule]).text for rule in ("boxed", "first_boxed", "all_boxed")] == [  # type: ignore[list-item, union-attr]
        "42",
        "41",
        "41 , 42",
    ]


def test_the_order_decides_between_rules() -> None:
    response = "\\boxed{1}\n<answer>2</answer>\n#### 3\nThe answer is 4, so $5$ and 6"
    orders: list[Rule] = ["boxed", "tag", "hash", "phrase", "math", "last", "bare"]
    texts = [extract_answer(response, [rule, "bare"]).text for rule in orders]  # type: ignore[union-attr]
    assert texts == ["1", "2", "3", "4", "5", "6", response]
    assert extract_answer(response, ("hash", "boxed")).text == "3"  # type: ignore[union-attr]
    assert extract_answer("nothing here", ("boxed", "last")) is None


@pytest.mark.parametrize("order", [(), ("boxd",)])
def test_an_unknown_rule_is_refused(order: tuple[Rule, ...]) -> None:
    with pytest.raises(VerifierError, match="Unknown extraction rule"):
        check_order(order)


HUGE = ["\\boxed{" * 50_000, "{" * 10**6, "$" * 10**6, "$a " * 10**5, "answer is " * 10**5, "<answer>" * 10**5]
HUGE += [
    "####" * 10**5,
    "\\(" * 10**5,
    "\\(a" * 10**5,
    "$x$ or " * 10**5,
    "\\boxed{1} or " * 10**5,
    "answer" + " " * 10**6,
]


@pytest.mark.parametrize("response", HUGE, ids=range(len(HUGE)))
@pytest.mark.timeout(20)
def test_a_huge_response_is_read_in_linear_time(response: str) -> None:
    for order in (USUAL, STRICT, LENIENT):
        found = extract_answer(response, order)
        assert found is None or found.rule in order


PIECES = [
    "\\boxed{",
    "}",
    "{",
    "$",
    "$$",
    "\\(",
    "\\)",
    "\\[",
    "\\]",
    "answer is ",
    "####",
    "<answer>",
    "</answer>",
    "1",
]


@given(st.one_of(st.text(), st.lists(st.sampled_from([*PIECES, " ", "\n", "or", ",", "\\", "."])).map("".join)))
def test_any_text_gives_an_answer_that_stands_in_it_or_none(response: str) -> None:
    for order in (USUAL, STRICT, LENIENT, ("first_boxed", "all_boxed", "math")):
        found = extract_answer(response, order)  # type: ignore[arg-type]
        if found is not None:
            assert 0 <= found.start <= found.end <= len(response)
            if " , " not in found.text:
                assert found.text in response
