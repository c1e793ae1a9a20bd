"""Compiling ahead: what a run needs late is compiled by a process of its own, while the run begins.

Numba compiles one function of a process at a time.  What another process compiles reaches the run through the cache on
disk.  So the first run of all waits half as long on two cores; later ones find all compiled and start no process.
"""

import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numba

from thermokernels import _jit


@contextmanager
def compiled_ahead(last: Any, work: Callable[..., Any], *arguments: Any) -> Iterator[Callable[[], None]]:
    """A block beside which another process calls ``work``, known to it by its module, unless ``last`` is compiled.

    ``last`` is the kernel that ``work`` compiles last.  The block is given what waits for the end of it.  Whatever
    fails there compiles where it is needed, as without it; and with one thread nothing is begun.
    """
    if numba.get_num_threads() == 1 or _jit.is_compiled(last):
        yield lambda: None
        return
    command = [sys.executable or "python", "-c", "from thermorun import ahead; ahead.main()"]
    try:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    except OSError:
        yield lambda: None
        return
    assert process.stdin is not None
    with suppress(BrokenPipeError):
        process.stdin.write(pickle.dumps((work, arguments)))
        process.stdin.flush()

    def wait() -> None:
        process.wait()

    try:
        yield wait
    finally:
        process.kill()
        process.wait()
        with suppress(BrokenPipeError):
            process.stdin.close()


def main() -> None:
    """What that process does; the work comes from the one that began it, with which it ends."""
    work, arguments = pickle.load(sys.stdin.buffer)
    threading.Thread(target=_end_with_it, daemon=True).start()
    numba.set_num_threads(1)
    work(*arguments)


def _end_with_it() -> None:
    os.read(sys.stdin.fileno(), 1)  # ends where the other side is closed
    os._exit(1)
