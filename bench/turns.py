"""What the benches share: entries take turns, so that they share the machine's moods, and medians go into a table.

An entry is a function without arguments and the amount of work that a call of it does.
"""

import importlib.util
import os
import platform
import time

import numba
import numpy as np

# What a peer needs, by the first word of an entry's name.
NEEDS = {"PyTorch": "torch", "JAX": "jax"}


def installed(name):
    """Whether the library is there that an entry of this name needs."""
    return all(importlib.util.find_spec(module) for peer, module in NEEDS.items() if name.startswith(peer))


def machine():
    """One line about where this runs, for the head of a table."""
    return f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {numba.get_num_threads()} threads"


def measure(entries, rounds, pause=0.0, repeats=1):
    """Median seconds per unit of work of every entry, round by round in turn, after one call to warm up.

    ``entries`` maps a name to (function, work).  Each turn begins with ``pause`` seconds of rest, for threads of other
    libraries that still spin; short functions are called ``repeats`` times.
    """
    times = {name: [] for name in entries}
    for run, _ in entries.values():
        run()
    for _ in range(rounds):
        for name, (run, work) in entries.items():
            time.sleep(pause)
            for _ in range(repeats):
                began = time.perf_counter()
                run()
                times[name].append((time.perf_counter() - began) / work)
    return {name: float(np.median(values)) for name, values in times.items()}


def table(title, columns, reference, scale=1.0):
    """Prints a row an entry: for each of ``columns`` (heading to `measure`'s answer) its value times ``scale``, and the
    ratio to the entry ``reference`` of the same column."""
    width = max(len(title), *(len(name) for name in next(iter(columns.values())))) + 2
    print(f"{title:{width}}" + "".join(f"{heading:>10}{'ratio':>8}" for heading in columns))
    for name in next(iter(columns.values())):
        cells = (f"{one[name] * scale:10.3f}{one[name] / one[reference]:8.2f}" for one in columns.values())
        print(f"{name:{width}}{''.join(cells)}")
