"""The thread that writes a run's file: in order, and rows that come quickly many at a time.

A commit costs two flushes, each of whole chunks, whether it counts one row or a hundred: so rows wait for others, a
tenth of a second at most, and not at all where somebody waits for them.  A kill then takes so much more of a run.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import groupby
from typing import NamedTuple

import numpy as np

from thermorun.arrays import Array

# Seconds, and bytes: no more rows than these are kept waiting.
_SECONDS, _BYTES = 0.1, 2**24


class Rows(NamedTuple):
    """Rows ``first, first + 1, ...`` of a section: their values, by the names of the datasets."""

    section: str
    first: int
    values: Mapping[str, Array]

    @property
    def end(self) -> int:
        """The number after that of the last."""
        return self.first + len(next(iter(self.values.values())))

    def goes_on(self, before: "Rows") -> bool:
        """Whether these are the next of the same datasets."""
        kinds = [[(name, values.dtype) for name, values in one.values.items()] for one in (before, self)]
        return (before.section, before.end) == (self.section, self.first) and kinds[0] == kinds[1]


# What waits to be done.
Work = Rows | Callable[[], None]


class Writer:
    """Does one thing after the other in a thread of its own; ``put_rows`` gets those rows that came next to each other.

    An error there is raised by the next call, once, and what was queued behind it is not done.
    """

    def __init__(self, put_rows: Callable[[Sequence[Rows]], None]) -> None:
        self._put_rows = put_rows
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="store")
        self._lock, self._hurry = threading.Lock(), threading.Event()
        self._queue: list[Work] = []
        self._held = 0
        self._turn: Future[None] | None = None
        self._error: BaseException | None = None

    def put(self, work: Work) -> None:
        """Queues rows, or anything else."""
        if self._error is not None:
            self.wait()
        with self._lock:
            self._queue.append(work)
            if isinstance(work, Rows):
                self._held += sum(values.nbytes for values in work.values.values())
            if self._held > _BYTES:
                self._hurry.set()
            if len(self._queue) == 1:
                self._turn = self._pool.submit(self._do)

    def wait(self) -> None:
        """Returns when all that was queued is done, or raises what went wrong."""
        if self._turn is not None:
            self._hurry.set()
            self._turn.result()
        error, self._error = self._error, None
        if error is not None:
            raise error

    def close(self) -> None:
        """Ends the thread, when all that was queued is done."""
        self._hurry.set()
        self._pool.shutdown(wait=True)

    def _do(self) -> None:
        """All that is queued, and comes soon."""
        self._hurry.wait(_SECONDS)
        with self._lock:
            queue, self._queue, self._held = self._queue, [], 0
            self._hurry.clear()
        try:
            for rows, works in groupby(queue, lambda work: isinstance(work, Rows)):
                if self._error is not None:
                    return
                if rows:
                    self._put_rows(joined([work for work in works if isinstance(work, Rows)]))
                    continue
                for work in works:
                    if not isinstance(work, Rows):
                        work()
        except BaseException as error:
            self._error = error


def joined(rows: Sequence[Rows]) -> list[Rows]:
    """The same rows section by section, those that go on with others as one."""
    found: dict[str, list[list[Rows]]] = {}
    for one in rows:
        runs = found.setdefault(one.section, [])
        if runs and one.goes_on(runs[-1][-1]):
            runs[-1].append(one)
        else:
            runs.append([one])
    return [_as_one(run) for runs in found.values() for run in runs]


def _as_one(run: list[Rows]) -> Rows:
    first = run[0]
    if len(run) == 1:
        return first
    return first._replace(values={name: np.concatenate([one.values[name] for one in run]) for name in first.values})
