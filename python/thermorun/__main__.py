"""``thermorun``, and ``python -m thermorun``: the command line, which Ctrl-C and SIGTERM end in one sentence.

They may come before there is a command line, while it is imported, and while Python ends: from the first line here to
the last they never end in a traceback, nor in silence.
"""

import os
import signal
import sys
from contextlib import suppress
from types import FrameType
from typing import NoReturn


def main() -> NoReturn:
    """Runs the command line of this process."""
    ours = [number for number in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(number) is not signal.SIG_IGN]
    for number in ours:
        signal.signal(number, _stopped)
    from thermorun.cli import main as run
    from thermorun.progress import ended_in_time, interruptible

    try:
        with interruptible() as interrupt, ended_in_time(interrupt):
            run()
    except SystemExit as end:
        if end.code == 130:  # at once: to clear away what large libraries hold may take longer than all before
            with suppress(OSError):
                sys.stdout.flush()
            os._exit(130)
        raise
    finally:  # nothing is left to be stopped
        for number in ours:
            signal.signal(number, signal.SIG_IGN)


def _stopped(number: int, frame: FrameType | None) -> NoReturn:
    """Ends a process that has not begun anything; an exception might be lost in what is being imported."""
    os.write(2, b"thermorun: stopped.\n")
    os._exit(130)


if __name__ == "__main__":
    main()
