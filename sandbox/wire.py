"""Wire: what goes between a remote sandbox and its server, as JSON; the bounds that both keep.

Every request but `GET /status` is a POST, with a JSON object as its body and as its answer; bytes are base64.

    /programs                  program (an id of the client's), session (an id, or null), argv, stdin (null: it comes
                               by lines), files, limits -> as `wait`
    /programs/ID/wait          -> ended: false and started; or ended: true, result, lines
    /programs/ID/send          data, timeout_s -> taken, ended
    /programs/ID/receive       timeout_s -> line, ended
    /programs/ID/end_input, /programs/ID/cancel
    /sessions                  limits -> session
    /sessions/ID/write         path, data
    /sessions/ID/read          path, most (bytes; may be left out) -> data
    /sessions/ID/list          -> paths
    /sessions/ID/close

What is refused is answered with an HTTP status from 400 on, and `error`, a sentence. `over` tells that the session that
was asked for has ended, and `ended`, where that is known, how: a Status.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from .errors import SandboxError
from .job import Job, checked_argv, checked_files
from .limits import MIB, Limits
from .result import Result, Status, Usage

PROTOCOL = 1
POLL_S = 20.0
"""The longest that a request waits for something to happen, less than what lies between may cut it off after."""
MOST_BODY = 192 * MIB
"""The largest body of a request, in bytes."""
LEAST_TOKEN = 16
"""Characters."""
HOW_TO_TOKEN = "export LUDUS_SANDBOX_TOKEN=$(python3 -c 'import secrets; print(secrets.token_urlsafe())')"


def checked_token(token: str | None) -> str:
    """A token that a header can carry and nobody guesses. SandboxError where it is none."""
    if not token:
        raise SandboxError(
            f"The sandbox server needs a token, the same for it and for its clients; make one with `{HOW_TO_TOKEN}`."
        )
    if not isinstance(token, str) or len(token) < LEAST_TOKEN or not all("!" <= char <= "~" for char in token):
        raise SandboxError(
            f"The token of the sandbox server must be at least {LEAST_TOKEN} visible ASCII characters; make one with "
            f"`{HOW_TO_TOKEN}`."
        )
    return token


def check_allowed(limits: Limits, most: Limits) -> None:
    """Raises SandboxError where some limit is above what a server allows."""
    for field in fields(Limits):
        asked, allowed = getattr(limits, field.name), getattr(most, field.name)
        if asked > allowed:
            raise SandboxError(
                f"limits: {field.name} = {asked} is above the {allowed} that the sandbox server allows; ask for less, "
                "or start the server with more."
            )


def encode(data: bytes) -> str:
    """Bytes as text."""
    return base64.b64encode(data).decode("ascii")


def decode(text: Any, name: str) -> bytes:
    """Bytes from text. name: of the field. SandboxError where it is no base64."""
    try:
        return base64.b64decode(text, validate=True)
    except (TypeError, ValueError, binascii.Error):
        raise SandboxError(f"{name} must be bytes as base64.") from None


def limits_from(value: Any) -> Limits:
    """Limits by their names; those that are not told are the usual ones. SandboxError where they make no sense."""
    if not isinstance(value, Mapping):
        raise SandboxError("limits must be an object, such as {'wall_s': 5}.")
    try:
        return Limits().but(**value)
    except TypeError as error:
        raise SandboxError(f"limits: {error}.") from None


def job_body(job: Job) -> dict[str, Any]:
    """A program that is to be run, as JSON."""
    return {
        "argv": list(job.argv),
        "stdin": None if job.stdin is None else encode(job.stdin),
        "files": {path: encode(content) for path, content in job.files.items()},
        "limits": asdict(job.limits),
    }


def job_from(body: Mapping[str, Any]) -> Job:
    """A program that is to be run, checked. SandboxError where it cannot be."""
    argv, stdin, files = body.get("argv"), body.get("stdin"), body.get("files", {})
    if not isinstance(argv, list):
        raise SandboxError("argv must be a list of texts, the program first.")
    if not isinstance(files, Mapping):
        raise SandboxError("files must be an object: contents as base64 by path.")
    return Job(
        checked_argv(argv),
        None if stdin is None else decode(stdin, "stdin"),
        checked_files({path: decode(content, "a content in files") for path, content in files.items()}),
        limits_from(body.get("limits", {})),
    )


def result_from(value: Mapping[str, Any]) -> Result:
    """How a program ended, from JSON as `asdict` makes it. ValueError, KeyError or TypeError where it is none."""
    usage = Usage(**value["usage"])
    how, out, err = Status(value["status"]), str(value["stdout"]), str(value["stderr"])
    return Result(how, value["exit_code"], out, err, usage, str(value["reason"]))
