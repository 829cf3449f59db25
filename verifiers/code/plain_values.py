"""Plain values as JSON: what may pass between a candidate and its judge.

Invariant: decoding gives objects of Python's own types and nothing else, so that no `__eq__` of a candidate is ever
asked. This file is also run inside sandboxes and imports nothing of Ludus.
"""

from typing import Any

_MOST_DEPTH = 200
_SMALL = 2**53


MOST_KEYS = 10_000
"""Keys whose hashes collide take time with the square of their number."""


class NotPlain(ValueError):
    """A value that is no plain one."""


def encode(value: Any, depth: int = 0) -> Any:
    """JSON of None, bool, int, float, complex, str, bytes, list, tuple, set, frozenset, dict, or a subclass of one.

    Raises NotPlain for anything else.
    """
    if depth > _MOST_DEPTH:
        raise NotPlain("it is nested too deeply")
    if value is None or value is True or value is False:
        return value
    if isinstance(value, str):
        return (
            {"s": [ord(char) for char in value]} if any("\ud800" <= char <= "\udfff" for char in value) else str(value)
        )
    if isinstance(value, int):
        number = int(value)
        return number if -_SMALL < number < _SMALL else {"i": hex(number)}
    if isinstance(value, float):
        return {"f": float(value).hex()}
    if isinstance(value, complex):
        return {"c": [float(value.real).hex(), float(value.imag).hex()]}
    if isinstance(value, bytes | bytearray):
        return {"b": bytes(value).hex()}
    kinds: tuple[tuple[Any, str], ...] = ((list, "l"), (tuple, "t"), (frozenset, "z"), (set, "e"))
    for kind, sign in kinds:
        if isinstance(value, kind):
            return {sign: [encode(item, depth + 1) for item in kind.__iter__(value)]}
    if isinstance(value, dict):
        return {"d": [[encode(key, depth + 1), encode(item, depth + 1)] for key, item in dict.items(value)]}
    raise NotPlain(f"a {type(value).__name__} is no plain value")


def decode(data: Any, depth: int = 0) -> Any:
    """The inverse of `encode`. Raises NotPlain for anything that it does not write."""
    if depth > _MOST_DEPTH:
        raise NotPlain("it is nested too deeply")
    if data is None or isinstance(data, bool | int | str):
        return data
    if not isinstance(data, dict) or len(data) != 1:
        raise NotPlain("it is no plain value")
    ((sign, body),) = data.items()
    try:
        if sign == "i":
            return int(body, 16)
        if sign == "f":
            return float.fromhex(body)
        if sign == "c":
            return complex(float.fromhex(body[0]), float.fromhex(body[1]))
        if sign == "b":
            return bytes.fromhex(body)
        if sign == "s":
            return "".join(map(chr, body))
        if sign in "dez" and len(body) > MOST_KEYS:
            raise NotPlain(f"it is a set or dictionary of more than {MOST_KEYS}")
        if sign == "d":
            return {decode(key, depth + 1): decode(item, depth + 1) for key, item in body}
        kinds = {"l": list, "t": tuple, "e": set, "z": frozenset}
        return kinds[sign](decode(item, depth + 1) for item in body)
    except (KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
        raise NotPlain(f"it is no plain value ({error})") from None
