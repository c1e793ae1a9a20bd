"""The scripts of this folder, small: they say what each is about, and how to run it large."""

import ctypes
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest

from thermokernels import random

HERE, SLOW = Path(__file__).parent, pytest.mark.slow
sys.path.insert(0, str(HERE))
import battery  # noqa: E402  (a script of this folder)


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(("kills.py", "--trials", 6, "--kinds", "free-energy", "shard", "excess-work"), marks=SLOW),
        pytest.param(("full_disk.py", "--trials", 12, "--kinds", "free-energy", "excess-work"), marks=SLOW),
        ("damage.py", "--trials", 12, "--kinds", "free-energy", "excess-work"),
        ("lines.py", "--trials", 8, "--kinds", "free-energy"),
        ("stops.py", "--trials", 2, "--kinds", "free-energy", "--most", 2, "--seconds", 30),
    ],
    ids=lambda words: words[0],
)
def test_small(words, tmp_path):
    run = subprocess.run(
        [sys.executable, HERE / words[0], *map(str, words[1:])],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr


def test_the_battery_gets_the_words_of_runs():
    """Those that uniforms of the same streams, steps and particles are made of, in three orders."""
    words = np.empty((2, 3, 2048), np.uint32)
    battery.fill(words, 5, 7)
    uniforms = np.empty(2048)
    for stream in range(2):
        for step in range(3):
            random.fill_uniforms(uniforms, np.uint64(5), np.uint64(stream), 7 + step)
            np.testing.assert_array_equal((words[stream, step] + 0.5) * 2.0**-32, uniforms)


def test_testu01_gets_them_one_by_one():
    """As words and as uniforms, one turn after the other."""
    given = Namespace(seed=3, streams=2, steps=2, particles=1024)
    made, _alive = battery.generator(battery.turns(given), 4096)
    bits = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p, ctypes.c_void_p)(made.bits)
    uniform = ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_void_p, ctypes.c_void_p)(made.uniform)
    turns = battery.turns(given)
    words = np.concatenate([next(turns) for _ in range(3)])
    assert [bits(None, made.state) for _ in range(8192)] == words[:8192].tolist()
    np.testing.assert_array_equal([uniform(None, made.state) for _ in range(4096)], words[8192:] * 2.0**-32)
