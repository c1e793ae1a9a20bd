"""Pictures of the trap show what the results hold."""

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from thermorun import learning, plots
from thermorun.errors import InputError
from thermorun.learning.trap import figures, protocols


@pytest.fixture(scope="module")
def run():
    return learning.excess_work(particles=4096, threads=1, steps=50, records=10, keep_work=True, snapshots=5)


def assert_readable(figure):
    """Every panel has labels with units, everything is inside the picture, and no legend lies over data."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    for ax in figure.axes:
        assert "/" in ax.get_ylabel()
        assert "/" in ax.get_xlabel() or ax.get_xlabel() == ""
    legends = [*figure.legends, *(ax.get_legend() for ax in figure.axes if ax.get_legend() is not None)]
    texts = [text for ax in figure.axes for text in (ax.title, ax._left_title, ax.xaxis.label, ax.yaxis.label)]
    for artist in [*legends, *(text for text in texts if text.get_text())]:
        box = artist.get_window_extent(renderer)
        assert box.x0 >= -1
        assert box.y0 >= -1
        assert box.x1 <= figure.bbox.x1 + 1
        assert box.y1 <= figure.bbox.y1 + 1
    for legend in legends:
        assert not any(legend.get_window_extent(renderer).overlaps(ax.bbox) for ax in figure.axes)


def drawn(draw, *arguments):
    """A function that draws into a user's own axes, called so."""
    _, ax = plots.subplots()
    draw(ax, *arguments)
    return ax


def test_cumulative_work(run):
    ax = drawn(figures.cumulative_work, run)
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    names = ["discontinuous", "slow-driving", "continuous", "constant (quasi-static)"]
    assert labels == [*(f"{name}: {one.excess_work}" for name, one in zip(names, run, strict=True)), "exact"]
    for i, protocol in enumerate(run):
        measured, exact = ax.lines[2 * i : 2 * i + 2]
        np.testing.assert_array_equal(exact.get_ydata(), protocol.exact.work)
        np.testing.assert_allclose(measured.get_ydata(), protocol.series["work"][:, 0])
        assert measured.get_color() == drawn(figures.residual, run).lines[i].get_color()
    assert_readable(figures.works(run))


def test_ridges(run):
    protocol = run["discontinuous"]
    ax = drawn(figures.ridge, protocol)
    theta = next(line for line in ax.lines if line.get_label() == r"$\theta(t)$")
    np.testing.assert_allclose(theta.get_xdata(), protocol.series["theta"][:, 0])
    low, high = ax.get_xlim()
    assert low < min(theta.get_xdata().min(), protocol.density_x[0])
    assert high > max(theta.get_xdata().max(), protocol.density_x[-1], protocol.spec.target)
    # Every ridge runs from edge to edge.
    ridges = [line for line in ax.lines if len(line.get_xdata()) == len(protocol.density_x) + 2]
    assert len(ridges) == 6
    assert {(line.get_xdata()[0], line.get_xdata()[-1]) for line in ridges} == {(low, high)}
    assert_readable(figures.ridges(run))
    with pytest.raises(InputError, match="snapshots is 0"):
        figures.ridges(learning.excess_work(particles=10, steps=5, protocols="constant"))


def test_work_distribution(run):
    ax = drawn(figures.work_distribution, run["constant"])
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == ["4,096 particles", "Gaussian of equal mean and variance"]
    heights, widths = zip(*((bar.get_height(), bar.get_width()) for bar in ax.patches), strict=True)
    assert np.dot(heights, widths) == pytest.approx(1.0)
    assert_readable(figures.work_distributions(run))
    with pytest.raises(InputError, match="run with keep_work"):
        drawn(figures.work_distribution, learning.excess_work(particles=10, steps=5, protocols="constant")["constant"])


def test_schedules():
    """Rates, every impulse of README's example inside the panel, paths on axes of their own."""
    mine = learning.Tabulated.of(lambda t: 0.2 + 0.05 * t, tau=5.0, impulses=[(0.0, 0.1), (5.0, 0.5)])
    several = [*(protocols.protocol(name, learning.Trap()) for name in protocols.NAMES), mine]
    rates, paths = figures.schedules(several).axes
    np.testing.assert_allclose(rates.lines[0].get_ydata(), several[0].rate(rates.lines[0].get_xdata()))
    assert len(paths.lines) == 1
    assert_readable(figures.schedules(several))
    (ax,) = figures.schedules(mine).axes
    arrows = [text for text in ax.texts if text.arrow_patch is not None]
    assert [arrow.xy for arrow in arrows] == list(mine.impulses)
    for at, strength in mine.impulses:
        assert ax.get_xlim()[0] < at < ax.get_xlim()[1]
        assert ax.get_ylim()[0] < strength < ax.get_ylim()[1]
    assert isinstance(figures.schedules(several[-2]), Figure)
    with pytest.raises(InputError, match="a path, which has no learning rate"):
        drawn(figures.schedule, [several[-2]])


def test_what_a_run_draws(run, tmp_path):
    assert list(run.figures()) == ["", "distribution"]
    assert len(run.figures()[""].axes) == 4
    assert len(learning.excess_work(particles=10, steps=5, protocols="constant").plot().axes) == 2
