"""A progress bar when stderr is a terminal; and Ctrl-C or SIGTERM that waits for a safe moment."""

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from thermorun.errors import printable

Advance = Callable[[int], None]
# Seconds of work between two moments at which a run hears a stop.
_PIECE = 0.2
# Seconds in which a command must hear that it is to stop, before its process is ended.
_GRACE = 1.0


@contextmanager
def progress(description: str, total: int, unit: str, enabled: bool = True) -> Iterator[Advance]:
    """Yields a function to call with the amount of work just done.

    Shows ``description``, a bar, percent, the rate in ``unit`` per second, the time so far and the time left.
    """
    if not (enabled and sys.stderr.isatty()):
        yield lambda amount: None
        return
    from rich.console import Console
    from rich.filesize import pick_unit_and_suffix
    from rich.progress import (
        BarColumn,
        Progress,
        ProgressColumn,
        SpinnerColumn,
        Task,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            speed = task.speed or 0.0
            if not task.total or not speed:
                return Text("")
            scale, prefix = pick_unit_and_suffix(int(speed), ["", "k", "M", "G", "T"], 1000)
            return Text(f"{speed / scale:.3g} {prefix}{unit}/s", style="progress.data.speed")

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=16),
        TaskProgressColumn(),
        Rate(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(description, total=total or None)
        yield lambda amount: bar.advance(task, amount)


class Pieces:
    """Cuts steps into pieces of about ``_PIECE`` seconds each, so that a stop is heard between them.

    Their sizes follow the clock: what is done with them must not depend on where they end.
    """

    def __init__(self) -> None:
        self._count = 1

    def __call__(self, first: int, total: int) -> Iterator[range]:
        """Steps ``first`` to ``total`` - 1."""
        while first < total:
            piece = range(first, min(first + self._count, total))
            began = time.monotonic()
            yield piece
            share = _PIECE / max(time.monotonic() - began, 1e-3)
            first, self._count = piece.stop, max(1, int(len(piece) * min(2.0, share)))


class Interrupt:
    """Whether Ctrl-C or SIGTERM came.

    ``at_once`` says what they do: raise KeyboardInterrupt where they find the program (while a run is planned and
    compiled, and nothing can be lost), or wait for the run to ask (``pending``).  A signal that a compiler's callback
    swallows is still pending.  A second one while the first is pending raises at once.  ``heard`` is set by whoever
    stops, and ``give_up`` is what is done, and then said, where nobody does: see `ended_in_time`.
    """

    def __init__(self) -> None:
        self.pending, self.at_once, self.heard = False, True, False
        self.give_up: Callable[[], str] = lambda: "stopped."

    def note(self, number: int, frame: FrameType | None) -> None:
        """The signals' handler."""
        again, self.pending = self.pending, True
        if self.at_once or again:
            raise KeyboardInterrupt

    def check(self) -> None:
        """Raises KeyboardInterrupt if one is pending."""
        if self.pending:
            self.heard = True
            raise KeyboardInterrupt


@contextmanager
def interruptible() -> Iterator[Interrupt]:
    """Handles Ctrl-C and SIGTERM by an ``Interrupt``; outside the main thread, and where they are ignored, not.

    Within another such block it is that one's, so that a signal that was swallowed before a run begins stops the run.
    After a signal Python says nothing of exceptions that are lost in callbacks: what was broken off may raise anything.
    """
    interrupt, previous = Interrupt(), {}
    if threading.current_thread() is threading.main_thread():
        previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        owners = [getattr(handler, "__self__", None) for handler in previous.values()]
        interrupt = next((owner for owner in owners if isinstance(owner, Interrupt)), interrupt)
    at_once, give_up = interrupt.at_once, interrupt.give_up
    for number, handler in previous.items():
        # A shell starts what runs behind it with SIGINT ignored: that must stay so.
        if handler is not signal.SIG_IGN:
            signal.signal(number, interrupt.note)
    said = sys.unraisablehook
    sys.unraisablehook = lambda about: None if interrupt.pending else said(about)
    try:
        yield interrupt
    finally:
        interrupt.at_once, interrupt.give_up, sys.unraisablehook = at_once, give_up, said
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def ended_in_time(interrupt: Interrupt) -> Iterator[None]:
    """Ends this process where Ctrl-C is not heard in time, or where it came twice.

    Python hears a signal when it is back from a kernel, a compiler or a library, which may take long, and may lose the
    exception there.  A thread hears it too; a run that it ends goes on from its last checkpoint, as after any kill.
    Only for a process that does nothing else: the command line's.
    """
    ear, mouth = socket.socketpair()
    mouth.setblocking(False)
    before = signal.set_wakeup_fd(mouth.fileno(), warn_on_full_buffer=False)
    watching = threading.Thread(target=_watch, args=(ear, interrupt), daemon=True)
    watching.start()
    try:
        yield
    finally:
        interrupt.at_once, interrupt.pending = False, False  # nothing is left to be stopped
        signal.set_wakeup_fd(before)
        mouth.close()
        watching.join()
        ear.close()


def _watch(ear: socket.socket, interrupt: Interrupt) -> None:
    """Ends the process some time after a signal, unless it is heard, or ``ear`` is closed before."""
    came = 0
    while True:
        ear.settimeout(_GRACE if came and not (interrupt.heard and came == 1) else None)
        try:
            number = ear.recv(1)
        except TimeoutError:
            if interrupt.heard and came == 1:
                continue
            try:
                cursor = "\x1b[?25h\r\x1b[K" if os.isatty(2) else ""  # a progress bar hides it
                os.write(2, f"{cursor}thermorun: {printable(interrupt.give_up())}\n".encode())
            finally:
                os._exit(130)
        if not number:
            return
        came += number[0] in (signal.SIGINT, signal.SIGTERM)
