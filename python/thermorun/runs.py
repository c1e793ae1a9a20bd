"""One run under way: threads, file, progress, Ctrl-C, checkpoint clock, rows already done, memory."""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

from thermorun import cluster
from thermorun.arrays import Array
from thermorun.errors import DamagedFile, InputError, RunError, Stopped, short
from thermorun.progress import Advance, Interrupt, interruptible, progress
from thermorun.specs import Spec
from thermorun.store import Cut, Earlier, Part, RunFile, is_complete, read_command, read_part, read_spec, reading
from thermorun.threads import on_threads

_Result = TypeVar("_Result")
_Part = TypeVar("_Part")
# Seconds between checkpoints.
CHECKPOINT_EVERY = 20.0
# A file that a run is writing may be caught between a number and its checksum: it is read again before it is called
# damaged, so often and after so many seconds.
_READS, _AGAIN = 3, 0.02
# What Python counts of a range.
_MOST_ENTRIES = 2**63 - 1


class _EndOfShard(Exception):
    """What follows is told from the whole run alone."""


class Session:
    """What a runner is given; nothing in it changes a number.

    ``threads`` is their number.  ``smaller`` is the complete run in ``out`` of which this one is to be more, None where
    it begins or resumes.  ``shard`` is the dimension that it is cut along, its number, and that of all shards; None
    where the run is whole, or resumes.  ``file`` exists once ``open`` was called: on disk, or in memory without
    ``out``.
    """

    file: RunFile

    def __init__(
        self, out: Path | None, resume: bool, threads: int, show: bool, stack: ExitStack, smaller: Spec | None,
        shard: tuple[str, int, int] | None,
    ) -> None:  # fmt: skip
        self.smaller, self._shard = smaller, shard
        self._part = read_part(out) if resume and out is not None and out.exists() else None
        self.out, self.resuming, self.threads = out, resume, threads
        self.interrupt = Interrupt()
        self._show, self._stack, self._saved = show, stack, time.monotonic()
        self._bar: ExitStack = stack.enter_context(ExitStack())
        self._advance: Advance = lambda amount: None

    def open(self, spec: Spec, lay_out: Callable[[RunFile], None]) -> RunFile:
        """The file of the resolved ``spec``: reopened to resume, else made.  From now on Ctrl-C waits for ``pause``.

        ``lay_out`` adds the sections and calls ``publish``, or leaves that to the runner.
        """
        self.interrupt.check()
        self.interrupt.at_once = False  # or a file might be begun that nobody knows of
        command, line, seed = spec.command, spec.to_json(), spec.seed
        if self.resuming:
            assert self.out is not None
            self.file = self._stack.enter_context(RunFile.reopen(self.out, line))
        elif self.out is not None:
            earlier = None
            if self.smaller is not None:
                earlier = Earlier(self.smaller.to_json(), import_module(spec.runner).extended(spec, self.smaller))
            cut = None if self._shard is None else Cut(*self._shard)
            created = RunFile.create(self.out, command, line, seed, self.threads, earlier, cut)
            self.file = self._stack.enter_context(created)
        else:
            self.file = self._stack.enter_context(RunFile.in_memory(command, line, seed, self.threads))
        if not self.resuming:
            lay_out(self.file)
        elif self.file.complete:
            self.end_of_shard()
        return self.file

    @property
    def sharded(self) -> bool:
        """Whether this is a shard of a run."""
        return self._shard is not None or self._part is not None

    def part(self, total: int) -> range:
        """Of ``total`` entries of the dimension that shards are cut along, those that are run here."""
        if total > _MOST_ENTRIES:
            raise InputError(f"the run has {short(total)} parts, more than can be counted; take fewer.")
        part = self._part
        if part is None and self._shard is not None:
            part = Part.of(*self._shard, total)
        return range(total) if part is None else range(part.first, part.end)

    def end_of_shard(self) -> None:
        """Where all that a shard has is done; a whole run goes on."""
        if self.sharded:
            raise _EndOfShard

    def stage(self, description: str, total: int, unit: str) -> None:
        """Begins a progress bar, in the place of the last one; ``total`` 0 where it is not known."""
        self._bar.close()
        self._advance = self._bar.enter_context(progress(description, total, unit, self._show))

    def advance(self, amount: int) -> None:
        """So much more of the stage is done."""
        self._advance(amount)

    def pause(self, state: Callable[[], dict[str, Array]] | None = None) -> None:
        """A point at which the run may stop, its state whole: checkpoints when it is time, and stops after Ctrl-C.

        ``state`` gives what a checkpoint holds; without it committed rows are all that a run needs to go on.
        """
        due = time.monotonic() - self._saved >= CHECKPOINT_EVERY
        self.interrupt.heard = self.interrupt.pending
        if state is not None and (due or self.interrupt.pending):
            self.file.checkpoint(state())
            self.file.wait()
            self._saved = time.monotonic()
        self.interrupt.check()

    def rows(self, section: str, description: str, unit: str) -> Iterator[int]:
        """A stage whose rows are written one after the other: numbers of those of ``section`` that are still to be."""
        done, missing = self.file.committed(section), self.file.missing(section)
        self.stage(description, done + len(missing), unit)
        self.advance(done)
        for row in missing:
            yield row
            self.advance(1)
            self.pause()

    def each(self, part: Callable[[Any, Any], _Part], items: Sequence[Any]) -> Iterator[_Part]:
        """``part(item, self)`` of every item, in their order: here, or by the workers that there are.

        ``part`` must be a function of the item alone, known to other processes; it may call ``advance`` and ``pause``.
        """
        helpers = cluster.active()
        if helpers is None:
            for item in items:
                yield part(item, self)
            return
        for result, amount in helpers.each(part, items, self.interrupt.check):
            self.advance(amount)
            yield result

    @contextmanager
    def unsaved(self) -> Iterator[None]:
        """For long work whose beginning is not worth saving: Ctrl-C stops it at once."""
        before, self.interrupt.at_once = self.interrupt.at_once, True
        try:
            self.interrupt.check()
            yield
        finally:
            self.interrupt.at_once = before

    def stopped(self) -> Stopped:
        """What to say after Ctrl-C: what became of the run."""
        if self.resuming or (hasattr(self, "file") and self.file.published):
            return Stopped(f"stopped; all that is done is in {self.out}: go on with 'thermorun resume {self.out}'.")
        return Stopped("stopped before there was anything to save.")

    def give_up(self) -> str:
        """Where the process is about to be ended: leaves no file that is of no use, and says what became of the run."""
        if hasattr(self, "file") and not self.file.published:
            self.file.abandon()
        return str(self.stopped())

    def discard(self) -> None:
        """Removes the file of a run that turned out not to be possible: it would only stand in the way of the name."""
        if not self.resuming and hasattr(self, "file"):
            self.file.discard()

    def require_memory(self, needed: float, sentence: str) -> None:
        """Raises InputError where a run needs more bytes than there are; ``sentence`` names argument and value."""
        require_memory(needed, sentence)


@contextmanager
def session(
    *, out: Path | str | None = None, resume: bool = False, threads: int | None = None, show_progress: bool = False,
    smaller: Spec | None = None, shard: tuple[str, int, int] | None = None,
) -> Iterator[Session]:  # fmt: skip
    """Begins before planning and compiling, so that Ctrl-C is never lost and never promises what does not exist.

    Raises InputError for ``threads``, ``out`` and ``resume`` that cannot be had, RunError where memory runs out, and
    Stopped (a KeyboardInterrupt) after Ctrl-C or SIGTERM, with what became of the run in its sentence.
    """
    path = None if out is None else Path(out)
    if resume and path is None:
        raise InputError("resume needs out, the file to go on with.")
    with interruptible() as interrupt, on_threads(threads) as count, ExitStack() as stack:
        under_way = Session(path, resume, count, show_progress, stack, smaller, shard)
        under_way.interrupt, interrupt.give_up = interrupt, under_way.give_up
        try:
            yield under_way
            if hasattr(under_way, "file"):
                under_way.file.finish()
        except _EndOfShard:
            under_way.file.finish()
        except InputError:
            under_way.discard()
            raise
        except KeyboardInterrupt:
            interrupt.heard = True
            raise under_way.stopped() from None
        except MemoryError as error:
            under_way.discard()
            raise RunError(f"memory ran out ({error or 'no more to be had'}); take a smaller run.") from error
        except OSError as error:  # not of the run's file, which has a sentence of its own: the compile cache, say
            where = f" at {error.filename}" if error.filename else ""
            raise RunError(f"the run could not go on ({error.strerror or error}{where}).") from error
        except Exception as error:
            if isinstance(error.__cause__, MemoryError):  # a kernel that had no room returned with that error set
                under_way.discard()
                raise RunError("memory ran out in a kernel; take a smaller run.") from error
            # What a compiler comes up with from whose callback a KeyboardInterrupt was lost.
            if isinstance(error, RunError) or not interrupt.pending:
                raise
            raise under_way.stopped() from None


def extend(
    path: Path | str, spec_type: type[Spec], larger: Mapping[str, int | None], *, dataset: str | None,
    trust: bool, threads: int | None, show_progress: bool,
) -> Any:  # fmt: skip
    """Makes more of the complete run in a file, which takes its place: see `thermorun.extend`."""
    require_whole(path)
    smaller = spec_type.from_json(read_spec(path))
    if hasattr(smaller, "of_file"):
        smaller = smaller.of_file(path, None, trust)
    if not is_complete(path):
        raise InputError(f"{path} holds the beginning of a run; go on with 'thermorun resume {path}' first.")
    wanted = smaller.larger(larger)
    if dataset is not None:
        wanted = wanted.replace(dataset=dataset)
    return wanted.run(out=path, threads=threads, show_progress=show_progress, smaller=smaller)


def load(
    path: Path | str, spec_type: type[Spec], read: Callable[[RunFile, Any], _Result], shards: bool = False
) -> _Result:
    """The results in a file of this type of spec, complete or not: ``read(file, spec)``.  Raises InputError.

    With ``shards`` also what a shard of a run holds.
    """
    path, left = Path(path), _READS
    while True:
        command = read_command(path)
        if command != spec_type.command:
            raise InputError(f"{path} holds a run of {command}, not of {spec_type.command}.")
        if not shards:
            require_whole(path)
        left -= 1
        try:
            with reading(path):
                spec = spec_type.from_json(read_spec(path))
                with RunFile.open_to_read(path) as file:
                    return read(file, spec)
        except DamagedFile:
            if not left:
                raise
            time.sleep(_AGAIN)


def require_whole(path: Path | str) -> None:
    """Raises InputError where a file holds a shard of a run."""
    part = read_part(path)
    if part is not None:
        raise InputError(f"{path} holds {part} of a run; 'thermorun merge' puts it together with the others.")


def require_memory(needed: float, sentence: str) -> None:
    """Raises InputError where ``needed`` bytes are more than this machine, or this process, may have."""
    there = memory_limit()
    if needed > there:
        raise InputError(f"{sentence}, which takes {needed / 1e9:.3g} GB of memory; there are {there / 1e9:.3g} GB.")


def memory_limit() -> float:
    """Bytes that this process may have: the machine's, or less by its limits; infinity where nobody says."""
    limits = [float("inf")]
    try:
        limits.append(float(os.sysconf("SC_PAGE_SIZE")) * os.sysconf("SC_PHYS_PAGES"))
        import resource

        allowed, _ = resource.getrlimit(resource.RLIMIT_AS)
        if allowed != resource.RLIM_INFINITY:
            limits.append(float(allowed))
    except (ValueError, OSError, ImportError, AttributeError):
        pass  # not a Unix
    return min(limits)
