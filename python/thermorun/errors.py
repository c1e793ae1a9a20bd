"""What can go wrong, in the user's words.

``InputError`` is raised before any work starts: exit code 2.  ``RunError`` ends a run that had started: exit code 1.
Both carry one sentence that says what to do.
"""

import math


class InputError(ValueError):
    """An argument that cannot be used."""


class RunError(RuntimeError):
    """A run that could not go on."""


def require_positive(name: str, value: float) -> None:
    """Raises InputError unless ``value`` is a positive finite number."""
    if not (math.isfinite(value) and value > 0):
        raise InputError(f"{name} is {value}; it must be a positive finite number.")


def require_finite(name: str, value: float) -> None:
    """Raises InputError unless ``value`` is a finite number."""
    if not math.isfinite(value):
        raise InputError(f"{name} is {value}; it must be a finite number.")


def require_count(name: str, value: int, least: int = 1) -> None:
    """Raises InputError unless ``value`` is an integer of at least ``least``."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise InputError(f"{name} is {value}; it must be an integer of at least {least}.")
