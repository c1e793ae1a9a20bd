"""Fingerprints of functions: equal on every Python and in every process, different for whatever computes otherwise."""

import importlib.util
import math
import pickle
import shutil
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from numba import njit

from helpers import report
from thermorun import potentials
from thermorun.potentials import NAMES, Potential, chain, double_well, exponential_family, gaussian, load, sources
from thermorun.potentials.sources import fingerprint, sources_of

FUNCTIONS = '''
import math

POWER, SCALES = 4, (1.0, 2.5)

def helper(x):
    return math.exp(-x) if x > 0 else 1.0

def energy(x, theta: tuple) -> float:
    """A docstring says nothing."""
    total = 0.0  # nor does a comment
    for k in range(3):
        total += theta[0] * x ** POWER + SCALES[k % 2] * helper(x)
    a, *rest = theta
    return total if -1 <= a < 2 and not rest else -total

def listed(x):
    return sum([i * x for i in range(4)]) + max(x, key=lambda y: y, default=1e-3)

def made(factor):
    def inner(x, shift=0.5):
        return factor * (x - shift)
    return inner

first, second = (lambda x: x + 1), (lambda x: x - 1)
scaled = made(3.0)
'''
PRINT = """
import importlib.util, sys
def module(path):
    spec = importlib.util.spec_from_file_location(path.rpartition("/")[2].partition(".")[0], path)
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made
sources, functions = map(module, sys.argv[1:])
for name in ("energy", "listed", "first", "second", "scaled"):
    function = getattr(functions, name)
    print(sources.fingerprint(function)[:16], sources.sources_of([function]) is not None)
"""
# Of any Python, for as long as files are to be known again.
KNOWN = """
d28ae8d9b7c73a5b True
57a9edeb1b3f1b98 True
4ab72a30854da8ea True
ab6c61b0db71495f True
b282fb2d0369a822 True
"""


def interpreters():
    """Other versions of Python on this machine."""
    found = [shutil.which(f"python3.{minor}") for minor in range(11, 20)]
    found += [str(path) for path in Path.home().glob(".pyenv/versions/3.1[1-9]*/bin/python3")]
    versions = {}
    for path in filter(None, found):
        asked = subprocess.run(
            [path, "-c", "import sys; print(sys.version_info[:2])"], capture_output=True, text=True, check=False
        )
        if asked.returncode == 0:
            versions.setdefault(asked.stdout, path)
    return [sys.executable, *versions.values()]


def test_fingerprints_are_those_of_every_python(tmp_path):
    functions = tmp_path / "functions.py"
    functions.write_text(FUNCTIONS)
    for python in interpreters():
        done = subprocess.run(
            [python, "-c", PRINT, sources.__file__, str(functions)], capture_output=True, text=True, check=True
        )
        assert done.stdout.split() == KNOWN.split()


def test_fingerprints_tell_functions_apart():
    def scaled(factor):
        return lambda x: factor * x

    assert fingerprint(scaled(2.0)) == fingerprint(scaled(2.0))
    assert fingerprint(scaled(2.0)) != fingerprint(scaled(3.0))
    assert fingerprint(scaled(2.0)) != fingerprint(scaled(2))
    assert fingerprint(scaled(np.arange(3))) != fingerprint(scaled(np.arange(4)))
    assert fingerprint(lambda x: x + 1) != fingerprint(lambda x: x - 1)
    assert fingerprint(lambda x: np.sin(x)) != fingerprint(lambda x: np.cos(x))
    assert fingerprint(scaled(njit(lambda x: x))) != fingerprint(scaled(njit(lambda x: -x)))
    assert fingerprint(scaled(njit(lambda x: x))) != fingerprint(scaled(njit(lambda x: x, fastmath=True)))


def loaded(path, text):
    path.write_text(text)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_only_what_is_computed_counts(tmp_path):
    text = "import math\nA = 2.0\ndef f(x):\n    return A * x\n"
    first = fingerprint(loaded(tmp_path / "one.py", text).f)
    for number, (same, other) in enumerate(
        [
            (True, text.replace("    return", '    """Says."""\n    # And says.\n    return')),
            (True, text.replace("def f(x):", "B = 7\n\n\ndef f(x: float) -> float:")),
            (False, text.replace("A = 2.0", "A = 3.0")),
            (False, text.replace("A * x", "x * A")),
            (False, text.replace("def f(x)", "def f(x, y=1)")),
        ]
    ):
        assert (fingerprint(loaded(tmp_path / f"other{number}.py", other).f) == first) is same


def test_without_a_source_the_bytecode_is_taken(tmp_path):
    module = loaded(tmp_path / "edited.py", "f = lambda x: 2 * x\ng = lambda x: 2 * x\n")
    assert "lambda" in sources_of([module.f])
    (tmp_path / "edited.py").write_text("f = lambda x: 3 * x\ng = lambda x: 2 * x\n")
    sources.linecache.checkcache()
    before = fingerprint(module.f)
    assert sources_of([module.f]) is None
    assert sources_of([module.g]) is not None
    assert before == fingerprint(eval("lambda x: 2 * x"))
    assert before != fingerprint(eval("lambda x: 3 * x"))


def test_built_ins_are_known_by_name_and_version():
    assert [load(name).fingerprint for name in NAMES] == [f"{name}-1" for name in NAMES]
    assert chain(100).fingerprint == "chain-100-1"
    prints = {fingerprint((load(name).energy, load(name).force, load(name).gradient)) for name in NAMES}
    assert len(prints) == len(NAMES)


# --- Pickles ----------------------------------------------------------------------------------------------------------


def own():
    """A potential that only this process knows."""
    width = 1.5
    return Potential(
        "own",
        lambda x, t: t[0] * (x / width) ** 4 - math.cos(x),
        lambda x, t: -4 * t[0] * (x / width) ** 3 / width - math.sin(x),
        lambda x, t: ((x / width) ** 4,),
        ("strength",),
        (1.0,),
        why_invalid=lambda theta: None if theta[0] > 0 else "strength must be positive.",
        free_energy=lambda theta, beta: 0.25,
    )


def family():
    return exponential_family(
        "family", lambda x: x**4, lambda x: 4 * x**3, lambda x: (-x,), lambda x: (-1.0,), ("field",), (0.5,)
    )


def test_potentials_pickle():
    for name in NAMES:
        assert pickle.loads(pickle.dumps(load(name))) is load(name)
    for potential in (chain(100), gaussian(3)):
        assert pickle.loads(pickle.dumps(potential)) is potential
    for potential in (own(), family()):
        again = pickle.loads(pickle.dumps(potential))
        assert report(again) == report(potential)
        assert again.why_invalid((1.0,)) is None
    assert own().source == Path(__file__).read_text()
    assert family().source == own().source
    assert double_well.source is None


@pytest.mark.slow
def test_another_process_gets_the_same_potential(tmp_path):
    mine = tmp_path / "mine.py"
    mine.write_text("from thermorun import potentials\n" + "import math\n" + MINE)
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        for potential in (double_well, own(), potentials.load(f"{mine}:mine")):
            assert pool.submit(report, potential).result() == report(potential)


MINE = """
mine = potentials.Potential(
    "mine", lambda x, t: t[0] * math.cosh(x), lambda x, t: -t[0] * math.sinh(x), lambda x, t: (math.cosh(x),),
    ("strength",), (2,))
"""
