"""Algorithms: small frozen records that name pure functions. ALGORITHMS lists presets, get_algorithm adapts one."""

from .presets import ALGORITHMS, get_algorithm, preset
from .record import Algorithm, AlgorithmError, Experience, Tokens

__all__ = ["ALGORITHMS", "Algorithm", "AlgorithmError", "Experience", "Tokens", "get_algorithm", "preset"]
