"""ATTACKS: all that `check_sandbox` runs."""

from __future__ import annotations

from .attacks_on_host import REACHING, READING, WRITING
from .attacks_on_kernel import RISING
from .attacks_on_limits import CONFUSING, STAYING, TAKING

ATTACKS = (*TAKING, *STAYING, *READING, *WRITING, *REACHING, *RISING, *CONFUSING)
