"""What can go wrong, in the user's words.

``InputError`` is raised before any work starts: exit code 2.  ``RunError`` ends a run that had started: exit code 1.
``Stopped`` ends one after Ctrl-C or SIGTERM: exit code 130.  All carry one sentence that says what to do.
"""

import decimal
import math
import numbers
import operator
from collections.abc import Iterable
from typing import Any


class InputError(ValueError):
    """An argument that cannot be used.

    Its sentence may hold words out of files: no control character of theirs reaches a terminal.
    """

    def __init__(self, sentence: str = "") -> None:
        super().__init__(printable(str(sentence)))


class DamagedFile(InputError):
    """A file that is not as it was written."""


class RunError(RuntimeError):
    """A run that could not go on."""

    def __init__(self, sentence: str = "") -> None:
        super().__init__(printable(str(sentence)))


class Stopped(KeyboardInterrupt):
    """A run that was stopped, with what became of it."""


def printable(text: str) -> str:
    """A text without characters that a terminal would take for commands, or that cannot be written: they are spelled
    out, and lines become one."""
    plain = " ".join(text.split("\n"))
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in plain)


def require_number(name: str, value: Any) -> float:
    """``value`` as a float.  Raises InputError unless it is a finite real number."""
    number = _real(value)
    if number is None:
        raise InputError(f"{name} is {short(value)}; it must be a number.")
    if not math.isfinite(number):
        raise InputError(f"{name} is {number}; it must be a finite number.")
    return number


def require_positive(name: str, value: Any) -> float:
    """``value`` as a float.  Raises InputError unless it is a positive finite number."""
    number = _real(value)
    if number is None or not (math.isfinite(number) and number > 0):
        raise InputError(f"{name} is {short(value)}; it must be a positive finite number.")
    return number


def require_count(name: str, value: Any, least: int = 1, most: int | None = None) -> int:
    """``value`` as an int.  Raises InputError unless it is an integer, of NumPy's kinds too, between the bounds."""
    try:
        count = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        count = None
    if count is None or count < least:
        raise InputError(f"{name} is {short(value)}; it must be an integer of at least {least}.")
    if most is not None and count > most:
        raise InputError(f"{name} is {short(count)}; it must be at most {most}.")
    return count


def require_choice(name: str, value: Any, allowed: tuple[str, ...]) -> str:
    """``value``.  Raises InputError unless it is one of ``allowed``."""
    if not isinstance(value, str) or value not in allowed:
        raise InputError(f"{name} is {short(value)}; it must be one of {', '.join(allowed)}.")
    return value


def _real(value: Any) -> float | None:
    """A real number as a float: Python's, NumPy's or Decimal, a zero-dimensional array, too large ones as infinity."""
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, numbers.Real | decimal.Decimal):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf
    except ValueError:  # Decimal's signalling NaN
        return math.nan


def words(values: Iterable[float]) -> str:
    """Numbers in a sentence: one as it is, several in parentheses."""
    each = [f"{value:g}" for value in values]
    return each[0] if len(each) == 1 else f"({', '.join(each)})"


def short(value: Any) -> str:
    """A value in a sentence: its repr, cut where it is long."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
