"""Slow tests run only when asked for; and a fixture that sets thread counts."""

import numba
import pytest

import helpers  # noqa: F401  sets NUMBA_NUM_THREADS before Numba is imported


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
