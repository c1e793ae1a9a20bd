"""What the tests share: slow tests run only when asked for, thread counts, and z scores."""

import os

# Before Numba is imported: the tests compare one thread with two, on a single core too.
os.environ.setdefault("NUMBA_NUM_THREADS", str(max(2, os.cpu_count() or 1)))

import numba
import numpy as np
import pytest


def pytest_collection_modifyitems(config, items):
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


def z_score(sample, truth):
    """How many of its own standard errors the mean of a sample lies from the truth."""
    return (np.mean(sample) - truth) / (np.std(sample, ddof=1) / np.sqrt(np.size(sample)))
