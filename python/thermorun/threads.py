"""How many threads the kernels use, that linear algebra uses one, and what forks and other threads may not do."""

import os
import stat
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from pathlib import Path

import numba
from threadpoolctl import threadpool_limits

import thermokernels
from thermokernels.random import fill_normals
from thermorun.errors import RunError, require_count

_LOCK = threading.RLock()
_forked = False


@contextmanager
def on_threads(threads: int | None) -> Iterator[int]:
    """Runs kernels on so many threads, all by default, and yields their number.

    Linear algebra libraries add in an order that depends on their threads, so they get one.  Raises InputError for a
    number that cannot be had, RunError as `require_threads` and `require_own_cache` do.
    """
    require_threads()
    require_own_cache()
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


@cache
def require_own_cache() -> None:
    """Raises RunError where somebody else may write the folder of compiled kernels.

    Numba unpickles what it finds there, which runs whatever was put in.  Whoever may write the package itself may
    anyway.
    """
    folder = Path(fill_normals._cache.cache_path or ".")
    while not folder.exists():
        folder = folder.parent
    if not hasattr(os, "getuid"):
        return
    trusted, inside = {0, os.getuid(), os.stat(thermokernels.__file__).st_uid}, folder
    for place in (folder, *folder.resolve().parents):
        there = place.stat()
        # In a folder like /tmp nobody removes or renames what is another's.
        sticky = bool(there.st_mode & stat.S_ISVTX) and place != inside
        # Whose the folders above are is the machine's affair: in containers they may be anybody's.
        stranger = place == inside and there.st_uid not in trusted
        if stranger or (_by_others(there) and not sticky):
            raise RunError(
                f"compiled kernels are kept in {inside}, but others may write {place}: what they put there would be"
                f" run.  Take that right away (chmod go-w {place}), or set NUMBA_CACHE_DIR to a folder of your own."
            )
        if there.st_uid == os.getuid() and not there.st_mode & 0o077:
            return  # nobody else gets below; and who puts a folder in its place owns that one


def _by_others(there: os.stat_result) -> bool:
    """Whether users beside the owner may write."""
    import grp

    if there.st_mode & stat.S_IWOTH:
        return True
    try:
        return bool(there.st_mode & stat.S_IWGRP and set(grp.getgrgid(there.st_gid).gr_mem) - {"root"})
    except KeyError:
        return False


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
