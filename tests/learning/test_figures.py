"""Pictures show what the results hold."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from thermorun import learning
from thermorun.learning import figures
from thermorun.learning.trap import protocols as schedules


@pytest.fixture(scope="module")
def run():
    return learning.excess_work(particles=4096, steps=50, records=10, keep_work=True, snapshots=5)


def test_cumulative_work(run):
    above, below = figures.cumulative_work(run).axes
    labels = [text.get_text() for text in above.get_legend().get_texts()]
    assert labels == [*(f"{protocol.label}: {protocol.excess_work}" for protocol in run), "moment equations"]
    for i, protocol in enumerate(run):
        exact, measured = above.lines[2 * i : 2 * i + 2]
        np.testing.assert_array_equal(exact.get_ydata(), protocol.exact.work)
        np.testing.assert_allclose(measured.get_ydata(), protocol.series["work"][:, 0])
    assert "t / " in below.get_xlabel()


def test_ridges(run):
    protocol = run["discontinuous"]
    (axes,) = figures.ridges(protocol).axes
    theta = next(line for line in axes.lines if line.get_label() == r"$\theta(t)$")
    np.testing.assert_allclose(theta.get_xdata(), protocol.series["theta"][:, 0])
    assert len(axes.collections) == 6


def test_work_distribution(run):
    (axes,) = figures.work_distribution(run["constant"]).axes
    assert "4,096 particles" in axes.get_title()
    with pytest.raises(ValueError, match="run with keep_work"):
        figures.work_distribution(learning.excess_work(particles=10, steps=5, protocols="constant")["constant"])


def test_schedules():
    protocols = [schedules.protocol(name, learning.Trap()) for name in schedules.NAMES]
    figure = figures.schedule(protocols)
    (axes,) = figure.axes
    assert len(axes.lines) == len(protocols)
    np.testing.assert_allclose(axes.lines[0].get_ydata(), protocols[0].rate(axes.lines[0].get_xdata()))
    assert isinstance(figures.schedule(protocols[0]), Figure)
