"""Whatever two texts are compared: no exception, no hang, no growing memory, and the same verdict twice."""

import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ludus.verifiers.extraction import USUAL, extract_answer
from ludus.verifiers.math.compare import compare
from ludus.verifiers.math.errors import TooMuchWork
from ludus.verifiers.math.finding import Match, Rules
from ludus.verifiers.math.verifier import LOCAL_WORK
from ludus.verifiers.math.work import Work

_PIECES = r"""
\frac \dfrac \sqrt \sqrt[3] { } ( ) [ ] \{ \} \left \right ^ _ ! + - * / = < > \le \ne \in \cup \setminus
1 2 10 0.5 3,4 1,000 x y n e i \pi \infty \pm \mp \sin \log \log_2 \ln \sum_{k=1}^{n} \binom{5}{2}
\text{\ cm} \text{or} or and , ; : % \% $ \$ | \lfloor \rfloor \begin{pmatrix} \end{pmatrix} & \\ \boxed{
#### <answer> </answer> . ... \overline{3} ^\circ ° √ ½ ² ₃ eggs miles !! ' \mathbb{R} \emptyset \int
\lim_{x\to0} dx \det 999999999 1e5 _8 U \angle \vec ** 20000!
"""
PIECES = _PIECES.split()
ANSWERS = [
    r"\frac{3\sqrt{3}}{4}",
    "(3,4]",
    r"x \in [-2,7]",
    "1,-2",
    r"864 \mbox{ inches}^2",
    "y = 2x + 3",
    "52_8",
    "90^\\circ",
]
ANSWERS += [r"\begin{pmatrix} 1/5 \\ -18/5 \end{pmatrix}", r"\{1\pm\sqrt{5},-2\}", r"(0,9) \cup (9,36)", r"\$32,\!348"]

texts = st.one_of(
    st.text(),
    st.lists(st.sampled_from(PIECES)).map("".join),
    st.lists(st.sampled_from([*PIECES, " "])).map(" ".join),
    st.sampled_from(ANSWERS),
)


@settings(max_examples=3_000)
@given(texts.filter(lambda text: text.strip()), texts)
def test_any_two_texts_are_compared(gold: str, response: str) -> None:
    found = extract_answer(response, USUAL)
    assert found is not None
    for text in (found.text, gold):
        try:
            finding = compare(gold.strip(), text, Rules(), Work(LOCAL_WORK))
        except TooMuchWork:
            continue
        assert finding.stage in ("text", "exact", "structure", "numeric")
    assert finding.match is Match.SAME or gold.strip() != text.strip()


@pytest.mark.slow
@pytest.mark.skipif((sys.platform, platform.machine()) != ("linux", "x86_64"), reason="atheris is for Linux on x86-64")
def test_two_hundred_thousand_inputs_of_a_fuzzer_find_nothing(tmp_path: Path) -> None:
    """Half of them in each of two processes, which begin at other places."""
    fuzzers = [_fuzz(tmp_path / str(seed), seed) for seed in (1, 2)]
    said = [fuzzer.communicate()[1] for fuzzer in fuzzers]
    for fuzzer, text in zip(fuzzers, said, strict=True):
        found = [line for line in text.splitlines() if not line.startswith("#")]
        assert fuzzer.returncode == 0, "\n".join(found[-80:])
        assert "stat::number_of_executed_units: 100000" in text
        # RSS in the lines that libFuzzer prints: what grows without end would at least double between early and late.
        memory = [int(megabytes) for megabytes in re.findall(r"rss: (\d+)Mb", text)]
        assert memory[-1] < 2 * memory[len(memory) // 4] + 100


def _fuzz(corpus: Path, seed: int) -> subprocess.Popen[str]:
    corpus.mkdir()
    for index, (gold, response) in enumerate((gold, response) for gold in ANSWERS for response in ANSWERS):
        text = f"{gold}\0\\boxed{{{response}}}"
        (corpus / str(index)).write_bytes(bytes([index % 9, 1]) + text.encode())
    # The kernel counts the peak memory of whoever starts a process as the process's own, and after other tests pytest
    # is larger than the limit here. So a shell starts the fuzzer.
    command = ["sh", "-c", '"$@"; exit $?', "sh"]
    command += [sys.executable, str(Path(__file__).with_name("fuzz_math.py")), str(corpus)]
    command += ["-runs=100000", f"-seed={seed}", "-max_len=300", "-timeout=120", "-rss_limit_mb=1024"]
    # With a fixed hash seed libFuzzer makes the same inputs in every run, so that a finding can be found again.
    return subprocess.Popen(
        [*command, "-print_final_stats=1"],
        cwd=corpus.parent,
        env={**os.environ, "PYTHONHASHSEED": "0"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )
