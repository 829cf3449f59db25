"""Target of the fuzzer: extraction, parsing and comparison of any two texts. Run by tests/test_math_fuzz.py.

    python tests/fuzz_math.py -runs=200000

Options are those of libFuzzer. Every exception but TooMuchWork, which is the sign to ask a worker, is a finding.
"""

import sys

import atheris

with atheris.instrument_imports(include=["ludus.verifiers"]):
    from ludus.verifiers.extraction import LENIENT, STRICT, USUAL, extract_answer
    from ludus.verifiers.math.compare import compare
    from ludus.verifiers.math.errors import TooMuchWork
    from ludus.verifiers.math.finding import Match, Rules
    from ludus.verifiers.math.verifier import LOCAL_WORK
    from ludus.verifiers.math.work import Work

ORDERS = (USUAL, STRICT, LENIENT)
RULES = (
    Rules(),
    Rules(ordered=True, units=False, percent="unit", rounding=3, evaluated=True),
    Rules(rounding="places"),
)


def compare_two(data: bytes) -> None:
    """One input: a byte that chooses settings, the right answer up to a NUL, the response."""
    provider = atheris.FuzzedDataProvider(data)
    choice = provider.ConsumeIntInRange(0, 8)
    text = provider.ConsumeUnicode(400)
    gold, _, response = text.partition("\0")
    found = extract_answer(response, ORDERS[choice % 3])
    if found is None or not gold.strip():
        return
    try:
        first = compare(gold.strip(), found.text, RULES[choice // 3], Work(LOCAL_WORK))
    except TooMuchWork:
        return
    again = compare(gold.strip(), found.text, RULES[choice // 3], Work(LOCAL_WORK))
    assert first == again, (gold, response)
    assert compare(gold.strip(), gold.strip(), RULES[choice // 3], Work(LOCAL_WORK)).match is Match.SAME


if __name__ == "__main__":
    atheris.Setup(sys.argv, compare_two)
    atheris.Fuzz()
