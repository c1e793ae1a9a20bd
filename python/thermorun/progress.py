"""A progress bar with rate and time left, when stderr is a terminal; and Ctrl-C that waits for a safe moment."""

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

Advance = Callable[[int], None]


@contextmanager
def progress(description: str, total: int, unit: str, enabled: bool = True) -> Iterator[Advance]:
    """Yields a function to call with the amount of work just done.

    Shows ``description``, a bar, the rate in ``unit`` per second and the time left.
    """
    if not (enabled and sys.stderr.isatty()):
        yield lambda amount: None
        return
    from rich.console import Console
    from rich.filesize import pick_unit_and_suffix
    from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            speed = int(task.speed or 0)
            scale, prefix = pick_unit_and_suffix(speed, ["", "k", "M", "G", "T"], 1000)
            return Text(f"{speed / scale:.3g} {prefix} {unit}/s", style="progress.data.speed")

    columns = (TextColumn("{task.description}"), BarColumn(), Rate(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(description, total=total)
        yield lambda amount: bar.advance(task, amount)


@contextmanager
def deferred_interrupt() -> Iterator[Callable[[], bool]]:
    """Yields a function that tells whether Ctrl-C was pressed, so that a run can stop where its state is whole.

    A second Ctrl-C interrupts at once.  Outside the main thread nothing is deferred.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    pressed = False

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal pressed
        if pressed:
            raise KeyboardInterrupt
        pressed = True

    previous = signal.signal(signal.SIGINT, note)
    try:
        yield lambda: pressed
    finally:
        signal.signal(signal.SIGINT, previous)
