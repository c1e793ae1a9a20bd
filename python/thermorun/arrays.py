"""Arrays of any dtype, which docstrings narrow down, and what a user gives as one."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from thermorun.errors import InputError

Array = NDArray[Any]


def given(name: str, values: ArrayLike) -> Array:
    """What a user gave as an array, of its own dtype.  Raises InputError where some are masked, or rows are ragged."""
    if np.ma.is_masked(values):
        hidden = np.ma.getmaskarray(np.ma.asarray(values)).sum()
        raise InputError(f"{name} is masked in {hidden:,} places; leave them out: it must be numbers throughout.")
    try:
        return np.asarray(values)
    except ValueError as error:
        raise InputError(f"{name} cannot be made an array ({error}).") from error


def reals(name: str, values: ArrayLike) -> Array:
    """The same as float64.  Raises InputError also for what is not real numbers."""
    found = given(name, values)
    if found.dtype.kind in "buifO":
        try:
            return np.asarray(found, float)
        except (TypeError, ValueError):
            pass
    raise InputError(f"{name} is of type {found.dtype}; it must be real numbers.")
