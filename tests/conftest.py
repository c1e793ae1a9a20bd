"""Slow tests run only when asked for; and a fixture that sets thread counts."""

import gc
import os
from pathlib import Path

import numba
import pytest

import helpers  # noqa: F401  sets NUMBA_NUM_THREADS before Numba is imported

# What is compiled stays: to look for cycles among so many objects, again and again, is a twentieth of the time.
gc.set_threshold(50_000)

# The files that take longest begin: one of them at the end would leave the other worker without work.
LONGEST = (
    "test_learn.py", "test_check.py", "test_dynamics.py", "test_friction.py", "test_sampling.py", "test_domains.py",
    "test_jit.py", "test_pages.py", "test_cycles.py", "test_computer_commands.py", "test_cluster.py",
    "test_latent_cycle.py", "test_commands.py", "test_excess_work.py", "test_measure.py", "test_protocol.py",
    "test_adjoint.py", "test_merge.py", "test_attacks.py", "test_generative.py",
)  # fmt: skip


def pytest_collection_modifyitems(config, items):
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))
    if config.option.markexpr:
        return
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.skip(reason="slow: run with -m slow"))


@pytest.fixture
def on_threads():
    """``on_threads(count, function, *arguments)`` calls the function on so many threads."""
    before = numba.get_num_threads()

    def call(count, function, *arguments):
        numba.set_num_threads(count)
        return function(*arguments)

    yield call
    numba.set_num_threads(before)


@pytest.fixture(scope="session")
def mnist_folder():
    """The folder of MNIST's files: of ``THERMORUN_DATA``, or beside the checkout; never downloaded."""
    beside = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("THERMORUN_DATA", beside))
    found = [place for place in (folder, folder / "mnist") if (place / "train-images-idx3-ubyte.gz").exists()]
    if not found:
        pytest.skip("no MNIST: set THERMORUN_DATA to the folder of train-images-idx3-ubyte.gz")
    return found[0]


@pytest.fixture
def mnist(mnist_folder, monkeypatch):
    """The same, which is then the only place where it is looked for."""
    monkeypatch.setenv("THERMORUN_DATA", str(mnist_folder))
    return mnist_folder
