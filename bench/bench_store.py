"""What a file costs a run: processor time of a row, and of a run too small for anything else, beside one in memory.

python bench/bench_store.py
"""

import itertools
import tempfile
import time
from pathlib import Path

import numpy as np

import thermorun as tr
from thermorun.store import Axis, RunFile, Variable

ROUNDS = 9


def row(file, rows, columns, variables, pause):
    """CPU seconds a row of so many datasets, one row each ``pause`` seconds."""
    axes = [Axis("row", np.arange(rows), "1", "row"), Axis("column", np.arange(columns), "1", "column")]
    file.add_section("a", axes, [Variable(f"v{i}", ("row", "column"), "1", "value") for i in range(variables)])
    file.publish({"a": rows})
    values = {f"v{i}": np.random.default_rng(i).random((1, columns)) for i in range(variables)}
    began = time.process_time()
    for number in range(rows):
        file.write("a", number, values)
        time.sleep(pause)
    file.wait()
    return (time.process_time() - began) / rows


def small(out):
    """A run too small for anything else."""
    tr.free_energy.measure(particles=40_000, steps=20, duration=0.2, threads=1, out=out)


def learned(out):
    """``learn`` as it is by default."""
    tr.learning.learn(threads=1, out=out)


def measured(out):
    """``metric`` as it is by default."""
    tr.metric.measure(threads=1, out=out)


def seconds(run, out):
    """CPU seconds of a run."""
    began = time.process_time()
    run(out)
    return time.process_time() - began


def main():
    with tempfile.TemporaryDirectory() as folder:
        names = (Path(folder, f"{number}.h5") for number in itertools.count())
        print(f"{'processor time':44}{'memory':>10}{'file':>10}")
        for rows, columns, variables, pause in ((2000, 4, 8, 0.001), (500, 1000, 3, 0.002), (100, 32768, 2, 0.01)):
            times = {"memory": [], "file": []}
            for _ in range(3):
                with RunFile.in_memory("bench", "{}", 0, 1) as file:
                    times["memory"].append(row(file, rows, columns, variables, pause))
                with RunFile.create(next(names), "bench", "{}", 0, 1) as file:
                    times["file"].append(row(file, rows, columns, variables, pause))
            what = f"a row of {variables} x {columns}, each {1000 * pause:g} ms / us"
            print(f"{what:44}" + "".join(f"{1e6 * np.median(each):10.0f}" for each in times.values()))
        runs = (("40,000 works of 20 steps / ms", small, ROUNDS), ("metric by default / ms", measured, 3 * ROUNDS),
                ("learn by default / ms", learned, 3))  # fmt: skip
        for what, run, rounds in runs:
            run(None)
            pairs = np.array([(seconds(run, None), seconds(run, next(names))) for _ in range(rounds)])
            memory, file = 1e3 * np.median(pairs, axis=0)
            more = 100 * (pairs[:, 1] / pairs[:, 0] - 1)
            spread = f"{np.median(more):+.1f}% ({more.min():+.1f} to {more.max():+.1f})"
            print(f"{what:44}{memory:10.1f}{file:10.1f}  {spread}", flush=True)


if __name__ == "__main__":
    main()
