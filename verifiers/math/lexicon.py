"""The names and signs that an answer may use, and how strongly signs bind. All other names are symbols or words."""

from __future__ import annotations

from .expression import INFINITY, PI

FUNCTIONS = {
    **{name: name for name in ("sin", "cos", "tan", "cot", "sec", "csc", "sinh", "cosh", "tanh", "coth", "exp", "ln")},
    **{name: name for name in ("gcd", "lcm", "max", "min", "arg", "det", "floor", "ceil", "abs", "sgn", "sign")},
    **{f"arc{name}": f"a{name}" for name in ("sin", "cos", "tan", "cot", "sec", "csc", "sinh", "cosh", "tanh")},
    **{f"a{name}": f"a{name}" for name in ("sin", "cos", "tan", "sinh", "cosh", "tanh")},
    **{"log": "log", "lg": "log10", "cis": "cis", "Re": "re", "Im": "im", "cosec": "csc", "tg": "tan", "ctg": "cot"},
    **{"sqrt": "sqrt", "cbrt": "cbrt", "erf": "erf", "tr": "tr", "trace": "tr", "ceiling": "ceil"},
}
INVERSE = {name: f"a{name}" for name in ("sin", "cos", "tan", "cot", "sec", "csc", "sinh", "cosh", "tanh")}
_GREEK_NAMES = (
    "alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi rho sigma tau "
    "upsilon phi varphi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega ell hbar"
)
GREEK = frozenset(_GREEK_NAMES.split())
CONSTANTS = {"pi": PI, "infty": INFINITY, "infinity": INFINITY, "infin": INFINITY, "oo": INFINITY}
RELATIONS = {
    **{"=": "=", "==": "=", "<": "<", ">": ">", "<=": "≤", ">=": "≥", "!=": "≠", "\\le": "≤", "\\leq": "≤"},
    **{"\\leqslant": "≤", "\\ge": "≥", "\\geq": "≥", "\\geqslant": "≥", "\\lt": "<", "\\gt": ">", "\\ne": "≠"},
    **{"\\neq": "≠", "\\in": "∈", "\\equiv": "≡", "\\approx": "≈", "\\sim": "~", "\\to": "→", "\\rightarrow": "→"},
}
SET_OPERATIONS = {"\\cup": "union", "\\cap": "intersection", "\\setminus": "minus", "\\bigcup": "union", "U": "union"}
BLACKBOARD = {"R": "reals", "Z": "integers", "N": "naturals", "Q": "rationals", "C": "complexes"}
SCALES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_SHORT_WORD_LIST = (
    "and or not the no yes is to of as per in by on at off out up all if it was are she he we they one two six ten"
)
SHORT_WORDS = frozenset(_SHORT_WORD_LIST.split())
TEXT_COMMANDS = {
    "\\mathbf",
    "\\mathit",
    "\\boldsymbol",
    "\\bold",
    "\\bf",
    "\\mathsf",
    "\\vec",
    "\\mathcal",
    "\\hat",
    "\\it",
}
ACCENTS = {
    "\\overline",
    "\\bar",
    "\\widehat",
    "\\hat",
    "\\vec",
    "\\overrightarrow",
    "\\mathcal",
    "\\tilde",
}
PREFIX_SYMBOLS = {"\\angle", "\\triangle", "\\measuredangle", "\\partial", "\\nabla", "\\Box", "\\star", "\\dagger"}
_FACTOR_NAMES = r"\frac \sqrt \binom \{ \lfloor \lceil \$ \mathbb \sum \prod \int \lim \lvert \langle \begin \boxed"
FACTORS = {*_FACTOR_NAMES.split(), *TEXT_COMMANDS, *ACCENTS, *PREFIX_SYMBOLS}
"""Commands that begin a factor, beside letters, constants and functions."""
SEPARATORS = {",", ";"}

RELATION, SET, RATIO, SUM, PRODUCT, SIGN, POWER = 10, 20, 25, 30, 40, 45, 50
"""How strongly operators bind, from the weakest."""
