"""How many threads the kernels use, and that linear algebra uses one."""

from collections.abc import Iterator
from contextlib import contextmanager

import numba
from threadpoolctl import threadpool_limits

from thermorun.errors import InputError


@contextmanager
def on_threads(threads: int | None) -> Iterator[int]:
    """Runs kernels on so many threads, all by default, and yields their number.  Raises InputError.

    Linear algebra libraries add in an order that depends on their threads, so they get one.
    """
    limit, before = numba.config.NUMBA_NUM_THREADS, numba.get_num_threads()
    count = limit if threads is None else threads
    if not 1 <= count <= limit:
        raise InputError(f"threads is {count}; it must be between 1 and {limit}.")
    numba.set_num_threads(count)
    try:
        with threadpool_limits(1, user_api="blas"):
            yield count
    finally:
        numba.set_num_threads(before)
