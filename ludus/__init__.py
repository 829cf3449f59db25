"""Ludus: a gym in which language-model agents are evaluated and trained against rewards that can be verified."""

__version__ = "0.1.0"
