"""Say whether a response is right. May use the sandbox."""

from __future__ import annotations

from typing import TYPE_CHECKING

if __name__ != "ludus.verifiers":
    raise ImportError(
        f"This folder is installed as ludus.verifiers: write 'import ludus.verifiers' instead of 'import {__name__}'."
    )

from ..sandbox.lazy import lazy_names

if TYPE_CHECKING:
    from ..sandbox.check_report import CheckFailed, CheckReport, CheckRow
    from .check import check_verifier
    from .choice import MultipleChoice
    from .code.verifier import CodeVerifier
    from .constraint import Constraint
    from .errors import VerifierError
    from .json_schema import JsonSchema
    from .judge import LLMJudge
    from .length import LengthPenalty
    from .math.verifier import MathVerifier, verify_math, verify_math_async, verify_math_many
    from .openai_completer import OpenAICompleter
    from .pattern import Format, Pattern
    from .repetition import RepetitionPenalty
    from .reward_ensemble import RewardEnsemble
    from .reward_model import RewardModelScorer
    from .rubric import Ensemble, Gate, Sequential, WeightedSum
    from .text_match import EditSimilarity, ExactMatch, TokenF1
    from .verdict import InfrastructureError, Outcome, Verdict
    from .verifier import Verifier

_HOMES = {
    "check": ("check_verifier",),
    ".sandbox.check_report": ("CheckFailed", "CheckReport", "CheckRow"),
    "choice": ("MultipleChoice",),
    "code.verifier": ("CodeVerifier",),
    "constraint": ("Constraint",),
    "errors": ("VerifierError",),
    "json_schema": ("JsonSchema",),
    "judge": ("LLMJudge",),
    "length": ("LengthPenalty",),
    "math.verifier": ("MathVerifier", "verify_math", "verify_math_async", "verify_math_many"),
    "openai_completer": ("OpenAICompleter",),
    "pattern": ("Format", "Pattern"),
    "repetition": ("RepetitionPenalty",),
    "reward_ensemble": ("RewardEnsemble",),
    "reward_model": ("RewardModelScorer",),
    "rubric": ("Ensemble", "Gate", "Sequential", "WeightedSum"),
    "text_match": ("EditSimilarity", "ExactMatch", "TokenF1"),
    "verdict": ("InfrastructureError", "Outcome", "Verdict"),
    "verifier": ("Verifier",),
}

__getattr__, __dir__ = lazy_names(__name__, _HOMES)

__all__ = [
    "CheckFailed",
    "CheckReport",
    "CheckRow",
    "CodeVerifier",
    "Constraint",
    "EditSimilarity",
    "Ensemble",
    "ExactMatch",
    "Format",
    "Gate",
    "InfrastructureError",
    "JsonSchema",
    "LLMJudge",
    "LengthPenalty",
    "MathVerifier",
    "MultipleChoice",
    "OpenAICompleter",
    "Outcome",
    "Pattern",
    "RepetitionPenalty",
    "RewardEnsemble",
    "RewardModelScorer",
    "Sequential",
    "TokenF1",
    "Verdict",
    "Verifier",
    "VerifierError",
    "WeightedSum",
    "check_verifier",
    "verify_math",
    "verify_math_async",
    "verify_math_many",
]
