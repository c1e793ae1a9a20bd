"""The type of an array of any dtype, which docstrings narrow down."""

from typing import Any

from numpy.typing import NDArray

Array = NDArray[Any]
