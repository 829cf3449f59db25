"""Workers are killed at their deadline, replaced, and never confuse their answers; nothing outlives who asked."""

from __future__ import annotations

import asyncio
import contextlib
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ludus.verifiers import MathVerifier, Outcome, verify_math, verify_math_async, verify_math_many
from ludus.verifiers.errors import VerifierError
from ludus.verifiers.math.pool import Job, WorkerPool

ENDLESS = r"\int_0^1 \sin(x^x)^{x^x} e^{e^{x^7}} dx"
"""SymPy does not finish this."""
NEEDS_WORKER = [
    (r"\frac{\pi^2}{6}", r"\sum_{k=1}^\infty \frac{1}{k^2}", Outcome.CORRECT),
    (r"\frac{\pi^2}{8}", r"\sum_{k=1}^\infty \frac{1}{k^2}", Outcome.WRONG),
    ("1", r"\int_0^\infty e^{-x} dx", Outcome.CORRECT),
    ("1", r"\lim_{x \to 0} \frac{\sin x}{x}", Outcome.CORRECT),
    (r"\frac{1}{3}", r"\int_0^1 x^2 dx", Outcome.CORRECT),
    (r"\frac{1}{2}", r"\int_0^1 x^2 dx", Outcome.WRONG),
]
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.fixture(scope="module")
def pool() -> Iterator[WorkerPool]:
    with WorkerPool(2) as workers:
        workers.run([Job("1", "1")], 30)
        yield workers


def children(pid: int) -> list[int]:
    """The processes that a process has started and that still run."""
    found = []
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(fields[1]) == pid and fields[0] != "Z":
                found.append(int(folder.name))
    return found


def wait_for(condition: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize(("gold", "response", "outcome"), NEEDS_WORKER)
def test_computer_algebra_decides_in_a_worker(pool: WorkerPool, gold: str, response: str, outcome: Outcome) -> None:
    verdict = MathVerifier(pool=pool, deadline_s=60).verify(gold, response)
    assert verdict.outcome is outcome
    assert verdict.evidence["stage"] == "symbolic"


def test_a_worker_that_is_late_is_killed_and_the_next_answers_are_right(pool: WorkerPool) -> None:
    start = time.monotonic()
    verdict = MathVerifier(pool=pool, deadline_s=0.5).verify("42", ENDLESS)
    assert verdict.outcome is Outcome.UNDECIDED
    assert "longer than 0.5 s" in verdict.reason
    assert time.monotonic() - start < 10
    for gold, response, outcome in NEEDS_WORKER:
        assert MathVerifier(pool=pool, deadline_s=60).verify(gold, response).outcome is outcome


def test_in_a_batch_only_the_late_one_is_undecided(pool: WorkerPool) -> None:
    pairs: list[tuple[str, str]] = []
    for index in range(100):
        pairs.append((str(index), ENDLESS if index in (3, 50) else f"\\boxed{{{index + index % 2}}}"))
    verdicts = MathVerifier(pool=pool, deadline_s=2).verify_many(pairs, workers=2)  # type: ignore[arg-type]
    expected = [
        Outcome.UNDECIDED if i in (3, 50) else (Outcome.WRONG if i % 2 else Outcome.CORRECT) for i in range(100)
    ]
    assert [verdict.outcome for verdict in verdicts] == expected


@LINUX
def test_workers_killed_from_outside_change_no_answer(pool: WorkerPool) -> None:
    """In each of ten batches a worker is killed, early or late in it, and sometimes just after it."""
    rng = random.Random(0)

    def kill() -> None:
        assert pool._server is not None
        for pid in children(pool._server.process.pid)[:1]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)

    killed: list[int] = []
    verdicts = []
    pairs = [(str(index), f"\\boxed{{{index + index % 3 % 2}}}") for index in range(3000)]
    for start in range(0, 3000, 300):
        killer = threading.Timer(rng.uniform(0, 0.03), kill)
        killer.start()
        try:
            batch = pairs[start : start + 300]
            verdicts += MathVerifier(pool=pool, deadline_s=30).verify_many(batch, workers=2)  # type: ignore[arg-type]
        finally:
            killer.join()
    right = [verdict.outcome is Outcome.CORRECT for verdict in verdicts]
    # A job may lose two workers to the killer, and is then taken for the cause; it never gets another's answer.
    resource = [verdict.evidence.get("stage") == "resource" for verdict in verdicts]
    assert all(r == (i % 3 % 2 == 0) or lost for i, (r, lost) in enumerate(zip(right, resource, strict=True)))
    assert sum(resource) < 10
    assert len(killed) > 5


@LINUX
def test_an_answer_that_ends_two_fresh_workers_is_wrong_and_not_an_error() -> None:
    with WorkerPool(1) as single:
        single.run([Job("1", "1")], 30)
        killed: set[int] = set()

        def kill_two() -> None:
            while len(killed) < 2:
                assert single._server is not None
                for pid in children(single._server.process.pid):
                    if pid not in killed and len(killed) < 2:
                        time.sleep(0.3)  # so that the job has reached it
                        with contextlib.suppress(ProcessLookupError):
                            os.kill(pid, signal.SIGKILL)
                        killed.add(pid)
                time.sleep(0.01)

        killer = threading.Thread(target=kill_two)
        killer.start()
        verdict = MathVerifier(pool=single, deadline_s=60).verify("42", ENDLESS)
        killer.join()
        assert verdict.outcome is Outcome.WRONG
        assert verdict.reason.startswith("resource:")
        assert MathVerifier(pool=single, deadline_s=60).verify(*NEEDS_WORKER[0][:2]).outcome is Outcome.CORRECT


def test_where_no_worker_can_be_had_it_is_an_error_and_no_number() -> None:
    closed = WorkerPool(1)
    closed.close()
    verdict = MathVerifier(pool=closed).verify(*NEEDS_WORKER[0][:2])
    assert verdict.outcome is Outcome.ERROR
    assert verdict.value is None


def test_a_worker_takes_no_more_memory_than_it_was_given() -> None:
    with WorkerPool(1, memory_bytes=1 << 29) as small:
        (verdict,) = small.run([Job("1", "1")], 30)
        assert verdict.outcome is Outcome.CORRECT
        assert small._server is not None
        if sys.platform == "linux":
            (worker,) = children(small._server.process.pid)
            limits = Path(f"/proc/{worker}/limits").read_text()
            assert f"{1 << 29}" in next(line for line in limits.splitlines() if line.startswith("Max address space"))


def test_threads_and_event_loops_get_their_own_answers(pool: WorkerPool) -> None:
    verifier = MathVerifier(pool=pool, deadline_s=60)
    jobs = [NEEDS_WORKER[index % len(NEEDS_WORKER)] for index in range(36)]
    with ThreadPoolExecutor(12) as threads:
        found = list(threads.map(lambda job: verifier.verify(job[0], job[1]).outcome, jobs))
    assert found == [outcome for _, _, outcome in jobs]

    async def together() -> list[Outcome]:
        verdicts = await asyncio.gather(*(verifier.verify_async(gold, response) for gold, response, _ in jobs))
        return [verdict.outcome for verdict in verdicts]

    assert asyncio.run(together()) == found


def test_a_strict_verifier_calls_what_it_cannot_decide_wrong_and_says_so(pool: WorkerPool) -> None:
    for response in ("9^{9^{9^9}}", ENDLESS):
        lenient = MathVerifier(pool=pool, deadline_s=0.5).verify("42", response)
        strict = MathVerifier(pool=pool, deadline_s=0.5, strict=True).verify("42", response)
        assert (lenient.outcome, lenient.value, lenient.is_undecided) == (Outcome.UNDECIDED, None, True)
        assert (strict.outcome, strict.value, strict.is_undecided) == (Outcome.WRONG, 0.0, True)
    assert not MathVerifier(strict=True).verify("42", "43").is_undecided


def test_the_one_call_forms() -> None:
    assert verify_math("1/2", r"\boxed{0.5}").outcome is Outcome.CORRECT
    assert [v.outcome for v in verify_math_many([("1", "1"), ("1", "2")])] == [Outcome.CORRECT, Outcome.WRONG]
    assert verify_math_many([]) == []
    assert asyncio.run(verify_math_async("1", "2")).outcome is Outcome.WRONG
    assert verify_math("50", "50%", percent="unit").outcome is Outcome.CORRECT


def _in_child(queue: multiprocessing.Queue[str]) -> None:
    queue.put(verify_math(*NEEDS_WORKER[0][:2], deadline_s=60).outcome.value)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_process_made_by_multiprocessing_starts_its_own_workers(method: str) -> None:
    assert verify_math(*NEEDS_WORKER[0][:2], deadline_s=60).outcome is Outcome.CORRECT
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    process = context.Process(target=_in_child, args=(queue,))
    process.start()
    assert queue.get(timeout=60) == "correct"
    process.join(30)
    assert process.exitcode == 0
    assert verify_math(*NEEDS_WORKER[0][:2], deadline_s=60).outcome is Outcome.CORRECT


SCRIPT = """
import sys
from ludus.verifiers import verify_math
from ludus.verifiers.math.pool import shared_pool
verify_math(r"1", r"\\int_0^\\infty e^{-x} dx", deadline_s=60)
print(shared_pool()._server.process.pid, flush=True)
verify_math("42", sys.argv[1], deadline_s=600)
"""


@LINUX
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_no_worker_outlives_the_process_that_asked(how: signal.Signals) -> None:
    # A script without `if __name__ == "__main__"`, in which a multiprocessing pool would start itself again and again.
    script = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, ENDLESS], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert script.stdout is not None
    server = int(script.stdout.readline())
    wait_for(lambda: len(children(server)) > 0)
    workers = children(server)
    script.send_signal(how)
    script.wait(20)
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in [server, *workers]))


REPEATED = """
import json, sys
from ludus.verifiers import verify_math_many
print(json.dumps([v.to_json() for v in verify_math_many(json.loads(sys.argv[1]), workers=1, deadline_s=60)]))
"""


def test_verdicts_are_the_same_in_every_process_and_under_every_hash_seed() -> None:
    pairs = [pair[:2] for pair in NEEDS_WORKER]
    pairs += [(r"\cot x", r"\frac{\cos x}{\sin x}"), ("a+b", "b+a"), (r"\{1,2\}", "2,1"), (r"\sqrt{x^2}", "x")]
    printed = set()
    for seed in ("0", "1", "12345"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        command = [sys.executable, "-c", REPEATED, json.dumps(pairs)]
        printed.add(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)
    assert len(printed) == 1


@pytest.mark.parametrize("make", [lambda: WorkerPool(0), lambda: WorkerPool(1, memory_bytes=1)])
def test_a_pool_that_cannot_work_says_so(make: Callable[[], object]) -> None:
    with pytest.raises(VerifierError, match="give"):
        make()


def test_the_page_on_verifiers_prints_what_it_says(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = (repository / "docs" / "verifiers.md").read_text("utf-8")
    exec(page.partition("```python\n")[2].partition("```")[0], {})  # noqa: S102 - our own page
    assert capsys.readouterr().out == page.partition("```text\n")[2].partition("```")[0]


HOSTILE = [
    "((20)!)!",
    "(10^8)!",
    "9^{9^{9^9}}",
    "{" * 10_000 + "}" * 10_000,
    "9" * 1_000_000,
    r"\frac{1}{" * 1_000 + "2" + "}" * 1_000,
    r"\begin{pmatrix}" + r"\\".join(["&".join(["1"] * 200)] * 200) + r"\end{pmatrix}",
    r"\sqrt{2+" * 500 + "2" + "}" * 500,
    r"\sqrt{2+" * 30 + "2" + "}" * 30,
    r"\sum_{k=1}^{n} \sum_{j=1}^{k^k} j^{j^k}",
    r"\sum_{k=1}^{10^9} \frac{1}{k^2}",
    r"\prod_{k=1}^{\infty} (1 - \frac{1}{k^k})^{k!}",
    "".join(map(chr, range(32))),
    "\ud800\udfff42\ud800",
    r"\lim_{x \to 0} \left(\frac{\sin x^x}{x^{x^x}}\right)^{1/x^x}",
    "2^{" * 35 + "2" + "}" * 35,
    "1" + "0" * 1999 + "!" * 3,
    r"\binom{10^{10}}{10^9}",
    r"\log \log \log \log \log 10^{10^{10}}",
    "x^{1000}" * 300,
    r"(1+x)^{1000}(1-x)^{1000}",
]


@pytest.mark.parametrize("boxed", [True, False])
def test_hostile_answers_come_back_and_the_pool_still_serves(pool: WorkerPool, boxed: bool) -> None:
    verifier = MathVerifier(pool=pool, deadline_s=1.0)
    for answer in HOSTILE:
        verdict = verifier.verify("42", f"\\boxed{{{answer}}}" if boxed else answer)
        assert verdict.outcome in (Outcome.WRONG, Outcome.UNDECIDED), answer[:50]
        assert verifier.verify("42", r"\boxed{42}").outcome is Outcome.CORRECT
    patient = MathVerifier(pool=pool, deadline_s=60)
    assert patient.verify(*NEEDS_WORKER[0][:2]).outcome is Outcome.CORRECT
