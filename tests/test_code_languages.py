"""Programs in C++ and JavaScript are judged as those in Python are, and a missing compiler is nobody's wrong answer."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from typing import Any, get_args

import pytest
from conftest import IN_CI

from ludus.sandbox import Limits
from ludus.sandbox.bubblewrap import Bubblewrap
from ludus.sandbox.docker_engine import Docker
from ludus.verifiers import CodeVerifier, Outcome, Verdict, VerifierError
from ludus.verifiers.code.code_tests import read_tests
from ludus.verifiers.code.languages import LANGUAGES
from ludus.verifiers.code.program import find_program
from ludus.verifiers.code.verifier import Scoring

MIB = 2**20
DOUBLE = [{"stdin": f"{n}\n", "stdout": f"{2 * n}\n"} for n in range(3)]
BLOCKS = {"cpp": "c++", "javascript": "js"}
RIGHT = {
    "cpp": '#include <cstdio>\nint main() { long n; scanf("%ld", &n); printf("%ld\\n", 2 * n); }\n',
    "javascript": "console.log(2 * require('fs').readFileSync(0, 'utf8'))\n",
}
Judge = Callable[..., Verdict]


@pytest.fixture(scope="module")
def judge(bubblewrap: Bubblewrap) -> Judge:
    """Judges a program in a language. Without its compiler the test is skipped, in continuous integration it fails."""
    # Where no cgroups can be made node starts in no less than 1 GiB.
    memory = {"cpp": 256 * MIB, "javascript": 1024 * MIB}
    verifiers = {
        (language, scoring): CodeVerifier(
            bubblewrap, limits=Limits(wall_s=2, cpu_s=2, memory_bytes=memory[language]), scoring=scoring
        )
        for language in RIGHT
        for scoring in get_args(Scoring)
    }

    def judged(language: str, program: str, scoring: str = "all") -> Verdict:
        need(language)
        gold = {"language": language, "cases": DOUBLE}
        return verifiers[language, scoring].verify(gold, f"So:\n```{BLOCKS[language]}\n{program}\n```\n")

    return judged


def need(language: str) -> None:
    """Skip, or in continuous integration fail, where what compiles or runs a language is missing."""
    tool = LANGUAGES[language].tool
    if shutil.which(tool) is None:
        reason = f"{tool} is missing: `apt-get install {LANGUAGES[language].package}`"
        if IN_CI:
            pytest.fail(reason)
        pytest.skip(reason)


def kinds(verdict: Verdict) -> list[str]:
    return [outcome["kind"] for outcome in verdict.evidence["outcomes"]]


# --- how programs end ------------------------------------------------------------------------------------------------


@pytest.mark.bubblewrap
@pytest.mark.parametrize("language", RIGHT)
def test_a_right_program_passes_every_case(judge: Judge, language: str) -> None:
    verdict = judge(language, RIGHT[language])
    assert (verdict.outcome, kinds(verdict)) == (Outcome.CORRECT, ["passed"] * 3)


WAYS_TO_FAIL = {
    "cpp": [
        ('#include <cstdio>\nint main() { puts("7"); }', "wrong", "It printed '7"),
        ("int main() { return 0 }", "compile", "main.cpp:1:22: error: expected ‘;’"),
        ("int other() { return 0; }", "compile", "undefined reference to `main'"),
        ('#include "main.cpp"', "compile", "nested depth"),
        ('#include "/dev/zero"', "compile", "out of memory"),
        ("int main() { return 3; }", "error", "exit code 3"),
        ("int main() { return 127; }", "error", "exit code 127"),
        ("int main() { *(volatile int*)0 = 1; }", "killed", "Signal 11"),
        ('#include <stdexcept>\nint main() { throw std::runtime_error("no"); }', "killed", "Signal 6"),
        ("int main() { volatile int x = 0; for (;;) x = x + 1; }", "timeout", "2 s"),
        ('#include <cstdio>\nint main() { for (;;) puts("no end"); }', "output", "bytes"),
    ],
    "javascript": [
        ("console.log(7)", "wrong", "It printed '7"),
        ("let x = ;", "compile", "SyntaxError: Unexpected token ';'"),
        ("null.x", "error", "TypeError: Cannot read properties of null"),
        ("JSON.parse('')", "error", "SyntaxError: Unexpected end of JSON input"),
        ("process.exit(127)", "error", "exit code 127"),
        ("process.abort()", "killed", "Signal 6"),
        ("for (;;) ;", "timeout", "2 s"),
        ("for (;;) require('fs').writeSync(1, 'no end'.repeat(999))", "output", "bytes"),
    ],
}


@pytest.mark.bubblewrap
@pytest.mark.parametrize(
    ("language", "program", "kind", "said"), [(name, *row) for name, rows in WAYS_TO_FAIL.items() for row in rows]
)
def test_the_ways_to_fail_are_told_apart(judge: Judge, language: str, program: str, kind: str, said: str) -> None:
    verdict = judge(language, program)
    assert verdict.outcome is Outcome.WRONG
    assert kinds(verdict) == [kind] and said in verdict.evidence["outcomes"][0]["message"]


@pytest.mark.bubblewrap
@pytest.mark.parametrize(
    ("language", "program"),
    [
        ("cpp", "#include <vector>\nint main() { std::vector<int> all; for (;;) all.push_back(1); }"),
        ("cpp", "#include <cstdlib>\n#include <cstring>\nint main() { for (;;) memset(malloc(1 << 20), 1, 1 << 20); }"),
        ("javascript", "const all = []; for (;;) all.push(Buffer.alloc(2 ** 28))"),
    ],
)
def test_a_program_that_takes_all_memory_is_ended(judge: Judge, language: str, program: str) -> None:
    verdict = judge(language, program)
    # The allocation fails, and the program ends itself by that, or the kernel ends it: which one depends on the kernel.
    assert verdict.outcome is Outcome.WRONG and kinds(verdict)[0] in ("memory", "killed", "error")


@pytest.mark.bubblewrap
def test_a_binary_that_leaves_no_room_is_the_programs_fault(judge: Judge) -> None:
    verdict = judge("cpp", "char all[40 << 20] = {1};\nint main() { return all[0]; }")
    assert (verdict.outcome, kinds(verdict)) == (Outcome.WRONG, ["compile"])
    assert "File size limit exceeded" in verdict.reason


@pytest.mark.bubblewrap
@pytest.mark.parametrize("language", RIGHT)
def test_sources_with_odd_characters_are_compiled_as_they_are(judge: Judge, language: str) -> None:
    odd = "// né \ud800 \0 \u2028 \ufeff \x1b[31m\n" if language == "cpp" else "// né \ud800 \0 \ufeff \x1b[31m\n"
    assert judge(language, odd + RIGHT[language]).outcome is Outcome.CORRECT
    assert kinds(judge(language, "\ud800\0\x01" + RIGHT[language])) == ["compile"]


# --- cheats ----------------------------------------------------------------------------------------------------------

CHEATS = {
    "prints what it reads on disk": {
        "cpp": """
#include <filesystem>
#include <fstream>
#include <iostream>
int main() {
    namespace fs = std::filesystem;
    for (const char* root : {"/tmp", "/dev/shm", "/work/."})
        for (const auto& one : fs::recursive_directory_iterator(root, fs::directory_options::skip_permission_denied)) {
            std::error_code error;
            if (one.path().filename() == "main" || !one.is_regular_file(error)) continue;
            std::ifstream file(one.path());
            std::cout << file.rdbuf();
            std::cout.clear();
        }
    for (const char* name : {"/proc/1/cmdline", "/proc/1/environ", "/proc/self/cmdline", "/proc/self/environ"})
        std::cout << std::ifstream(name).rdbuf();
}
""",
        "javascript": """
const fs = require('fs'), path = require('path')
for (const folder of ['/tmp', '/tmp/work', '/dev/shm'])
    for (const name of fs.readdirSync(folder))
        try { if (name !== 'main.js') console.log(fs.readFileSync(path.join(folder, name), 'utf8')) } catch {}
for (const name of ['cmdline', 'environ'])
    for (const one of [1, 'self', process.ppid])
        try { console.log(fs.readFileSync(`/proc/${one}/${name}`, 'utf8')) } catch {}
""",
    },
    "puts another program in its place": {
        "cpp": """
#include <cstdio>
#include <cstdlib>
int main() {
    const char* better = "rm main && printf '#!/bin/sh\\nread n; echo $((2 * n))\\n' > main && chmod +x main";
    if (!system(better)) puts("0");
}
""",
        "javascript": """
const fs = require('fs')
for (const name of ['main.js', 'node', 'index.js', 'package.json'])
    fs.writeFileSync(name, "console.log(2 * require('fs').readFileSync(0, 'utf8'))")
console.log(0)
""",
    },
    "leaves a file for the next case": {
        "cpp": """
#include <cstdio>
int main() {
    long n = 0, seen = 0;
    scanf("%ld", &n);
    const char* names[] = {"seen", "/tmp/seen", "/dev/shm/seen"};
    for (const char* name : names) {
        if (FILE* file = fopen(name, "r")) { seen = 1; fclose(file); }
        if (FILE* file = fopen(name, "w")) fclose(file);
    }
    printf("%ld\\n", n && seen ? 2 * n : 0);
}
""",
        "javascript": """
const fs = require('fs'), n = Number(fs.readFileSync(0, 'utf8'))
let seen = false
for (const name of ['seen', '/tmp/seen', '/dev/shm/seen']) {
    seen ||= fs.existsSync(name)
    fs.writeFileSync(name, '')
}
console.log(seen ? 2 * n : 0)
""",
    },
    "leaves a process for the next case": {
        "cpp": """
#include <cstdio>
#include <unistd.h>
#include <fcntl.h>
int main() {
    pid_t first = getpid();
    if (fork() == 0) {
        setsid();
        while (getppid() == first) usleep(1000);
        for (;;) {
            usleep(100000);
            close(open("/tmp/work/main", O_WRONLY | O_TRUNC));
            puts("2");
            fflush(stdout);
        }
    }
    puts("0");
}
""",
        "javascript": """
const rest = "require('fs').writeFileSync('/tmp/work/main.js', 'console.log(2)'); console.log(2)"
const program = `const waiting = setInterval(() => {
    if (process.ppid === ${process.pid}) return
    clearInterval(waiting)
    setInterval(() => {${rest}}, 100)
}, 1)`
const options = {detached: true, stdio: 'inherit'}
require('child_process').spawn('node', ['-e', program], options).unref()
console.log(0)
""",
    },
}
"""Those that prepare the next case print what is right for the first, 0, once they have done so; a process that they
leave says nothing before they have ended."""


@pytest.mark.bubblewrap
@pytest.mark.parametrize("language", RIGHT)
@pytest.mark.parametrize("name", CHEATS)
def test_no_cheat_gets_more_than_it_has_earned(judge: Judge, name: str, language: str) -> None:
    verdict = judge(language, CHEATS[name][language], scoring="share")
    assert kinds(verdict) == ["wrong" if "reads" in name else "passed", "wrong", "wrong"], verdict.reason


@pytest.mark.bubblewrap
def test_what_is_read_while_compiling_is_no_secret(judge: Judge) -> None:
    """A compiler reads what a program names; there is nothing to be read that knows what is expected."""
    for name in ("/proc/1/cmdline", "/proc/self/environ", "/etc/shadow", "tests.json"):
        assert "4" not in judge("cpp", f'#include "{name}"').evidence["outcomes"][0]["message"].partition("error")[2]


# --- no compiler -----------------------------------------------------------------------------------------------------


@pytest.mark.bubblewrap
@pytest.mark.parametrize("language", RIGHT)
def test_a_missing_compiler_is_an_error_that_names_the_fix(
    bubblewrap: Bubblewrap, monkeypatch: pytest.MonkeyPatch, language: str
) -> None:
    row = LANGUAGES[language]
    monkeypatch.setitem(LANGUAGES, language, replace(row, compile=("no-such-compiler", *row.compile[1:])))
    verdict = CodeVerifier(bubblewrap).verify({"language": language, "cases": DOUBLE}, RIGHT[language])
    assert verdict.outcome is Outcome.ERROR
    assert f"no {row.tool} that works" in verdict.reason and "no-such-compiler: not found" in verdict.reason
    assert f"apt-get install {row.package}" in verdict.reason


@pytest.mark.docker
@pytest.mark.parametrize("language", RIGHT)
def test_an_image_without_a_compiler_is_an_error(docker: Docker, language: str) -> None:
    verdict = CodeVerifier(docker).verify({"language": language, "cases": DOUBLE}, RIGHT[language])
    assert verdict.outcome is Outcome.ERROR and f"{LANGUAGES[language].tool}: not found" in verdict.reason


@pytest.mark.bubblewrap
def test_limits_in_which_the_interpreter_does_not_start_are_an_error(bubblewrap: Bubblewrap) -> None:
    need("javascript")
    verifier = CodeVerifier(bubblewrap, limits=Limits(wall_s=1, memory_bytes=16 * MIB))
    verdict = verifier.verify({"language": "javascript", "cases": DOUBLE}, RIGHT["javascript"])
    assert verdict.outcome is Outcome.ERROR and "raise the limits" in verdict.reason


# --- tests and programs ----------------------------------------------------------------------------------------------


def test_a_language_that_is_unknown_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(VerifierError, match=r"'c\+\+'.*correct the task.*Known: cpp, javascript, python"):
        read_tests({"language": "c++", "cases": DOUBLE})
    with pytest.raises(VerifierError, match="correct the task"):
        read_tests({"language": ["cpp"], "cases": DOUBLE})


@pytest.mark.parametrize(
    "gold",
    [
        {"entry_point": "add", "cases": [{"args": [1, 2], "expected": 3}]},
        {"entry_point": "add", "check": "def check(candidate): assert candidate(1, 2) == 3"},
    ],
)
def test_only_python_is_asked_to_call_a_function(gold: dict[str, Any]) -> None:
    with pytest.raises(VerifierError, match=r"only Python.*'cpp'.*correct the task"):
        read_tests({**gold, "language": "cpp"})
    assert read_tests({**gold, "language": "python"}) == read_tests(gold)


@pytest.mark.parametrize(
    ("language", "response", "program"),
    [
        ("cpp", "```c++\na\n```\nor\n```python\nb\n```\n", "a\n"),
        ("cpp", "```cpp\na\n```\n```CXX\nb\n```\n", "b\n"),
        ("cpp", "```cc\na\n```\n```\nb\n```\n", "b\n"),
        ("javascript", "```js\na\n```\n```json\n{}\n```\n", "a\n"),
        ("javascript", "```node\na\n```\n```javascript\nb", "b"),
        ("javascript", "```python\na\n```\n", "```python\na\n```\n"),
        ("python", "```python\na\n```\n```cpp\nb\n```\n", "a\n"),
    ],
)
def test_the_last_block_of_the_language_is_the_program(language: str, response: str, program: str) -> None:
    assert find_program(response, language) == program
