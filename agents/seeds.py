"""Seeds: one number from any parts, the same in every process and under every PYTHONHASHSEED."""

from __future__ import annotations

import hashlib


def derive_seed(*parts: int | str) -> int:
    """A seed below 2**63 that depends on every part, such as (run seed, task id, sample, turn)."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8], "big") >> 1
