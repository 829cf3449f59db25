"""Runs inside a session: a Python interpreter whose names stay from one piece of code to the next.

What the code prints, and the value of its last expression, go into the answer; so does what programs write that it
starts. Whoever writes to the channel of answers only fools itself.
"""

import ast
import fcntl
import json
import os
import sys
import tempfile
import traceback

MOST = 20_000

sys.path.insert(0, "")  # only now: modules in the folder are for the code, and not for what stands above

requests = os.fdopen(os.dup(0), "rb")
answers = os.dup(1)
os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
said = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 (as long as this process)
fcntl.fcntl(said, fcntl.F_SETFL, os.O_APPEND)
for number in (1, 2):
    os.dup2(said.fileno(), number)
names = {"__name__": "__main__"}


def run(code: str) -> bool:
    """Run code, and print its value where it ends with an expression; whether it went well."""
    try:
        tree = ast.parse(code, "<code>")
        value = None
        if tree.body and isinstance(tree.body[-1], ast.Expr):
            value = ast.Expression(tree.body[-1].value)
            tree.body.pop()
        exec(compile(tree, "<code>", "exec"), names)  # noqa: S102 (this is the sandbox)
        result = None if value is None else eval(compile(value, "<code>", "eval"), names)  # noqa: S307
        if result is not None:
            print(repr(result))
    except SyntaxError as error:
        print("".join(traceback.format_exception_only(error)), end="", file=sys.stderr)
    except BaseException as error:
        shown = traceback.TracebackException.from_exception(error)
        shown.stack = traceback.StackSummary.from_list(shown.stack[1:])
        print("".join(shown.format()), end="", file=sys.stderr)
    else:
        return True
    return False


def say(message: dict[str, object]) -> None:
    """Write one line to whoever asks."""
    data = json.dumps(message).encode() + b"\n"
    while data:
        data = data[os.write(answers, data) :]


def main() -> None:
    """Say that all is ready, then answer one line for each line of code, until there are no more."""
    say({"ok": True, "output": ""})
    for line in requests:
        os.ftruncate(said.fileno(), 0)
        ok = run(json.loads(line))
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except (OSError, ValueError, AttributeError):
                ok = False
        output = os.pread(said.fileno(), MOST + 1, 0).decode("utf-8", "backslashreplace")
        say({"ok": ok, "output": output[:MOST] + ("\n[cut]\n" if len(output) > MOST else "")})


main()
