"""How many threads the kernels use, that linear algebra uses one, and what forks and other threads may not do."""

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import numba
from threadpoolctl import threadpool_limits

from thermorun.errors import RunError, require_count

_LOCK = threading.RLock()
_forked = False


@contextmanager
def on_threads(threads: int | None) -> Iterator[int]:
    """Runs kernels on so many threads, all by default, and yields their number.

    Linear algebra libraries add in an order that depends on their threads, so they get one.  Raises InputError for a
    number that cannot be had, RunError as `require_threads` does.
    """
    require_threads()
    limit, before = numba.config.NUMBA_NUM_THREADS, numba.get_num_threads()
    count = limit if threads is None else require_count("threads", threads, 1, limit)
    numba.set_num_threads(count)
    try:
        # Numba's own thread pool ends the process where two Python threads use it at once: one run after the other.
        with _LOCK if _layer() == "workqueue" else nullcontext(), threadpool_limits(1, user_api="blas"):
            yield count
    finally:
        numba.set_num_threads(before)


@contextmanager
def at_most(threads: int) -> Iterator[None]:
    """Within `on_threads`: kernels run on no more than so many, for work so small that it is done before all meet."""
    before = numba.get_num_threads()
    numba.set_num_threads(max(1, min(threads, before)))
    try:
        yield
    finally:
        numba.set_num_threads(before)


def require_threads() -> None:
    """Raises RunError in a process that was forked from one in which kernels had run: OpenMP would end it."""
    if _forked:
        raise RunError(
            "this process was forked from one that had run kernels, whose threads it lost; start workers by 'spawn' or"
            " 'forkserver' (multiprocessing.get_context), or fork before the first run."
        )


def _layer() -> str:
    """The threading layer in use, or the one that is wished for before there is one."""
    try:
        return str(numba.threading_layer())
    except ValueError:
        return str(numba.config.THREADING_LAYER)


def _note_fork() -> None:
    global _forked
    if "numba" in sys.modules:
        try:
            _forked = numba.threading_layer() == "omp"
        except ValueError:
            _forked = False


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_fork)
