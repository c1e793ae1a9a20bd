"""What the benches share: entries take turns, so that they share the machine's moods, and medians go into a table.

An entry is a function without arguments and the amount of work that a call of it does.
"""

import os
import platform

import numba

from thermorun.speeds import installed
from thermorun.speeds import take_turns as measure

__all__ = ["installed", "machine", "measure", "table"]


def machine():
    """One line about where this runs, for the head of a table."""
    return f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {numba.get_num_threads()} threads"


def table(title, columns, reference, scale=1.0):
    """Prints a row an entry: for each of ``columns`` (heading to `measure`'s answer) its value times ``scale``, and the
    ratio to the entry ``reference`` of the same column."""
    width = max(len(title), *(len(name) for name in next(iter(columns.values())))) + 2
    print(f"{title:{width}}" + "".join(f"{heading:>10}{'ratio':>8}" for heading in columns))
    for name in next(iter(columns.values())):
        cells = (f"{one[name] * scale:10.3f}{one[name] / one[reference]:8.2f}" for one in columns.values())
        print(f"{name:{width}}{''.join(cells)}")
