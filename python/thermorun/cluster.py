"""Parts of a run on other processes, here or on other machines, by Dask.

A part is a function of its number and of nothing else: its noise has an address.  So whoever computes it, and how
often, it is the same to the bit; a worker that is lost is replaced, and its parts are computed again.  Parts come back
in their order, and are written by the one process that holds the file: what travels is what a row of the file holds,
never particles.
"""

import json
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol

from thermorun.errors import InputError, RunError, require_count
from thermorun.threads import on_threads

if TYPE_CHECKING:
    from distributed import Client, Future

# Parts that a worker has to do or to wait for: enough that none is idle while its last result travels.
_AHEAD = 2
# A part whose workers die so often is at fault itself.
_RETRIES = 3
# More processes on this machine than these would only take its memory, and minutes to begin.
_FEWEST_ALLOWED, _FOR_EACH_CORE = 8, 4
# Seconds between two looks at Ctrl-C; and so long there may be no worker at all, as while the last one is replaced.
_LOOK, _PATIENCE = 0.2, 30.0


class UnderWay(Protocol):
    """What a part may tell of itself while it runs."""

    def advance(self, amount: int) -> None:
        """So much more is done."""

    def pause(self) -> None:
        """A point at which the part may be stopped."""


Part = Callable[[Any, Any], Any]


class Workers:
    """Processes that compute parts."""

    def __init__(self, client: "Client", threads: int | None) -> None:
        self.client, self.threads = client, threads
        # Machines whose cache of kernels is filled, or is being filled by others than us.
        self._warm = {_own_host(client)}

    def each(self, part: Part, items: Sequence[Any], check: Callable[[], None]) -> Iterator[tuple[Any, int]]:
        """``part(item, under way)`` of every item, in their order, and how far each advanced.

        Raises what a part raises, RunError where no worker can be had, and what ``check`` raises.
        """
        count = max(1, len(self.client.scheduler_info()["workers"]))
        waiting: deque[Future] = deque()
        rest = iter(items)
        try:
            for host, address in self._cold():
                # One compilation a machine, before many processes would begin the same one.
                waiting += [self._submit(part, item, address) for item in islice(rest, 1)]
                self._warm.add(host)
            for future in waiting:
                self._wait(future, check)
            for item in islice(rest, _AHEAD * count):
                waiting.append(self._submit(part, item))
            while waiting:
                done = self._wait(waiting[0], check)
                waiting.popleft()
                waiting += [self._submit(part, item) for item in islice(rest, 1)]
                yield done
        finally:
            self.client.cancel(list(waiting))

    def _submit(self, part: Part, item: Any, address: str | None = None) -> "Future":
        """``address`` is of the worker that had best do it."""
        return self.client.submit(
            _compute, part, item, self.threads, pure=False, retries=_RETRIES, workers=address,
            allow_other_workers=address is not None,
        )  # fmt: skip

    def _wait(self, future: "Future", check: Callable[[], None]) -> tuple[Any, int]:
        from concurrent.futures import CancelledError

        from distributed.comm import CommClosedError
        from distributed.scheduler import KilledWorker

        alive = time.monotonic()
        while True:
            check()
            if self.client.scheduler_info()["workers"]:
                alive = time.monotonic()
            elif time.monotonic() - alive > _PATIENCE:
                raise RunError("no worker is left; start some where the package is installed, and resume.")
            try:
                result: tuple[Any, int] = future.result(timeout=_LOOK)
                return result
            except TimeoutError:
                if future.status == "error":  # the part's own
                    raise
            except KilledWorker as error:
                raise RunError(
                    f"a part of the run was lost with {_RETRIES + 1} workers, one after the other, most likely for want"
                    " of memory; take fewer workers or a smaller run, and resume."
                ) from error
            except (CancelledError, CommClosedError, OSError) as error:
                if future.status == "error":
                    raise
                raise RunError("the scheduler went away; start it again and resume.") from error

    def _cold(self) -> list[tuple[str, str]]:
        """One worker of every machine that has computed nothing yet."""
        found = {one["host"]: address for address, one in self.client.scheduler_info()["workers"].items()}
        return [(host, address) for host, address in found.items() if host not in self._warm]


class _Away:
    """What a part that runs elsewhere tells its progress to."""

    def __init__(self) -> None:
        self.done = 0

    def advance(self, amount: int) -> None:
        self.done += amount

    def pause(self) -> None:
        """Nobody stops a part elsewhere: it is short, and its result would be thrown away."""


def _compute(part: Part, item: Any, threads: int | None) -> tuple[Any, int]:
    away = _Away()
    with on_threads(threads):
        return part(item, away), away.done


_active: ContextVar[Workers | None] = ContextVar("workers", default=None)


def active() -> Workers | None:
    """The workers that a run begun now shares its parts with."""
    return _active.get()


@contextmanager
def workers(count: int | None = None, *, scheduler: str | None = None) -> Iterator[None]:
    """Runs begun inside share their parts among processes; the results are the same to the bit.

    Free energies, drives, metrics over a grid and classifications have parts.  Needs ``pip install
    'thermokernels[cluster]'``.

    Parameters
    ----------
    count : int, optional
        Processes on this machine, which share its cores.
    scheduler : str, optional
        In their place: the address of a Dask scheduler, as in "tcp://host:8786", or a file that names it.  The package
        must be installed where its workers run.

    Raises
    ------
    InputError
        For a number or an address that cannot be had, or where Dask is not installed.

    Examples
    --------
    >>> import thermorun as tr
    >>> with tr.workers(2):  # doctest: +SKIP
    ...     result = tr.free_energy.measure("double-well", particles=2**20)
    """
    if (count is None) == (scheduler is None):
        raise InputError(f"workers is {count} and scheduler is {scheduler}; give one of them.")
    with _client(count, scheduler) as client:
        share = None if count is None else max(1, (os.cpu_count() or 1) // count)
        token = _active.set(Workers(client, share))
        try:
            yield
        finally:
            _active.reset(token)


@contextmanager
def _client(count: int | None, scheduler: str | None) -> Iterator["Client"]:
    try:
        from distributed import Client, LocalCluster
        from distributed.comm import parse_address
        from distributed.comm.addressing import parse_host_port
    except ImportError:
        raise InputError("workers need Dask, which is not installed: pip install 'thermokernels[cluster]'.") from None
    import logging

    if count is not None:
        number = require_count("workers", count, 1, max(_FEWEST_ALLOWED, _FOR_EACH_CORE * (os.cpu_count() or 1)))
        try:
            cluster = LocalCluster(
                n_workers=number, threads_per_worker=1, processes=True, dashboard_address=":0", memory_limit=0,
                silence_logs=logging.CRITICAL,
            )  # fmt: skip
        except (RuntimeError, OSError) as error:  # a machine too busy or too full to begin them
            why = str(error).partition("\n")[0]
            raise RunError(f"{number} workers did not start ({why}); take fewer, or try again.") from error
        with cluster, Client(cluster) as client:
            yield client
        return
    address = _address_in(scheduler) if os.path.isfile(str(scheduler)) else str(scheduler)
    try:
        parse_host_port(parse_address(address)[1])  # a client of no address is not cleared away in silence
        client = Client(address, timeout=5)
    except (OSError, ValueError) as error:
        raise InputError(f"scheduler is {scheduler}, where none answers ({error}).") from error
    with client:
        if not client.scheduler_info()["workers"]:
            raise InputError(f"scheduler is {scheduler}, which has no workers; start some: dask worker {scheduler}.")
        yield client


def _address_in(scheduler_file: str | None) -> str:
    """Where the scheduler is that wrote a file."""
    try:
        with open(str(scheduler_file), encoding="utf-8") as stream:
            return str(json.loads(stream.read(2**20))["address"])
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise InputError(f"scheduler is {scheduler_file}, a file that no Dask scheduler wrote.") from error


def _own_host(client: "Client") -> str:
    """This machine, under the name that the scheduler knows it by: ours has compiled before it asks others."""
    from distributed.utils import get_ip

    hosts = {one["host"] for one in client.scheduler_info()["workers"].values()}
    local = hosts & {get_ip(), "127.0.0.1", "localhost"}
    return next(iter(local), "")
