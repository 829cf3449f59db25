"""Runs inside a sandbox: loads the candidate and calls its function as often as it is asked to.

What the candidate prints goes to standard error. Whoever writes to the channel answers for the candidate: there is
nothing to win by it, for only the judge knows what is expected.
"""

import builtins
import json
import os
import sys
from typing import Any

from plain_values import NotPlain, decode, encode

requests = os.fdopen(os.dup(0), "rb")
answers = os.dup(1)
os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
os.dup2(2, 1)
# Python is started without its site packages, which bring these.
vars(builtins).update(exit=sys.exit, quit=sys.exit)


def answer(**message: Any) -> None:
    """Write one line to whoever asks."""
    data = json.dumps(message).encode() + b"\n"
    while data:
        data = data[os.write(answers, data) :]


def told(error: BaseException) -> dict[str, str]:
    """What an exception is, by the nearest of Python's own; whatever its class does when asked."""
    name = next((kind.__name__ for kind in type(error).__mro__ if kind.__module__ == "builtins"), "Exception")
    try:
        text = str(error)
    except BaseException:
        text = ""
    return {"error": name, "message": text[:500]}


def main() -> None:
    """Load candidate.py, say how that went, then answer one call a line until the lines end."""
    sys.path.insert(0, os.getcwd())
    with open("candidate.py", encoding="utf-8", errors="surrogateescape") as file:
        source = file.read()
    try:
        code = compile(source, "candidate.py", "exec")
    except BaseException as error:
        return answer(stage="compile", **told(error))
    module = type(sys)("candidate")
    sys.modules["candidate"] = module
    try:
        exec(code, module.__dict__)  # noqa: S102 (this is the sandbox)
    except BaseException as error:
        return answer(stage="load", **told(error))
    function = module.__dict__.get(sys.argv[1])
    if not callable(function):
        return answer(stage="load", error="NameError", message=f"there is no function {sys.argv[1]}")
    answer(stage="ready")
    for line in requests:
        try:
            args, kwargs = (decode(part) for part in json.loads(line))
            reply = {"value": encode(function(*args, **kwargs))}
        except NotPlain as error:
            reply = {"error": "TypeError", "message": f"The function returned what cannot be passed on: {error}."}
        except BaseException as error:
            reply = told(error)
        answer(**reply)


main()
os._exit(0)
