"""Runs inside a sandbox of its own: the tests, which call a stand-in for the candidate's function.

The tests are trusted; the sandbox bounds them. Each call becomes a line, and its answer is a line.
"""

import builtins
import json
import os
import sys
from typing import Any

from plain_values import decode, encode

answers = os.fdopen(os.dup(0), "rb")
requests = os.dup(1)
os.dup2(2, 1)


def say(message: dict[str, Any]) -> None:
    """Write one line to whoever passes on."""
    data = json.dumps(message).encode() + b"\n"
    while data:
        data = data[os.write(requests, data) :]


class Ended(BaseException):
    """The candidate is not there any more; no `except Exception` of a test takes it for an answer."""


def candidate(*args: Any, **kwargs: Any) -> Any:
    """Stands for the candidate's function: returns what that returns, raises what that raises."""
    say({"call": [encode(args), encode(kwargs)]})
    line = answers.readline()
    if not line:
        raise Ended
    reply = json.loads(line)
    if "value" in reply:
        return decode(reply["value"])
    kind = getattr(builtins, str(reply.get("error")), RuntimeError)
    if not (isinstance(kind, type) and issubclass(kind, Exception)):
        kind = RuntimeError
    if kind in (StopIteration, StopAsyncIteration):
        kind = RuntimeError  # as PEP 479 has it: else it would end the loops of the tests
    try:
        error = kind(str(reply.get("message")))
    except TypeError:  # UnicodeDecodeError and its like take more than a text
        error = RuntimeError(str(reply.get("message")))
    raise error


def main() -> None:
    """Run the tests of tests.json and say how they went."""
    with open("tests.json") as file:
        tests = json.load(file)
    names: dict[str, Any] = {"__name__": "tests"}
    try:
        exec(compile(tests["prefix"], "prefix.py", "exec"), names)  # noqa: S102
        names[tests["entry_point"]] = candidate
        exec(compile(tests["check"], "tests.py", "exec"), names)  # noqa: S102
        names["check"](candidate)
    except Ended:
        return say({"passed": False, "reason": "the candidate ended"})
    except BaseException as error:
        return say({"passed": False, "reason": f"{type(error).__name__}: {error}"[:500]})
    say({"passed": True})


main()
sys.stdout.flush()
os._exit(0)
