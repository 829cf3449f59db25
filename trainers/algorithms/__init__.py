"""Algorithms: small frozen records that name pure functions. ALGORITHMS lists presets, get_algorithm adapts one."""

from .presets import ALGORITHMS, AlgorithmError, get_algorithm, preset
from .record import Algorithm, Experience

__all__ = ["ALGORITHMS", "Algorithm", "AlgorithmError", "Experience", "get_algorithm", "preset"]
