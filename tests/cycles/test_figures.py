"""Pictures of latent cycles: they show something, and say what."""

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib import image
from matplotlib.figure import Figure

from thermorun import cycles, plots
from thermorun.cycles import currents, figures
from thermorun.errors import InputError


@pytest.fixture(scope="module")
def result():
    return cycles.train(
        models=3, epochs=4, steps_per_epoch=5, chain_steps=6, minibatch=(5, 9), samples=64, count_steps=2000,
        classes=(0, 1, 2), epoch_samples=16,
    )  # fmt: skip


def test_pictures_show_something(tmp_path, result):
    drawn = result.with_portraits((1,)).figures()
    assert list(drawn) == ["training", "indicators", "autocorrelation", "portrait-model-1", "cycle-model-1"]
    drawn["sheet"] = figures.contact_sheet(result.data.x[:20], result.data.shape)
    for name, figure in drawn.items():
        plots.save(figure, tmp_path / f"{name}.png")
        assert image.imread(tmp_path / f"{name}.png")[..., :3].std() > 0.02, name


@pytest.mark.parametrize("sigma", ["averaged", "counted"])
def test_panels_name_the_estimator_and_have_letters_labels_units(result, sigma):
    shown = result.with_sigma(sigma)
    called = {"averaged": "averaged M", "counted": "counted, + 1/2"}[sigma]
    for figure in (figures.training(shown), figures.indicators(shown)):
        panels = [ax for ax in figure.axes if ax.get_title(loc="left")]
        assert [ax.get_title(loc="left") for ax in panels] == ["(a)", "(b)", "(c)"]
        assert all(ax.get_xlabel() and ax.get_ylabel() for ax in panels)
        assert any(called in ax.get_xlabel() for ax in panels)
    for figure in (figures.cycle(shown, 1), figures.portrait(shown, 1)):
        assert called in figure.get_suptitle()
    assert figures.indicators(shown).axes[-1].get_yscale() == "log"  # as in the paper's Fig. 4(c)


def test_panels_go_into_axes_of_ones_own(result):
    figure = Figure()
    axes = figure.subplots(2, 4).ravel()
    figures.likelihood(axes[0], result)
    figures.production(axes[1], result)
    figures.plane(axes[2], result)
    figures.indicator(axes[3], result, "kl")
    figures.memory(axes[4], result, 0, lags=5)
    figures.biases(axes[5], result.model(0))
    figures.transitions(axes[6], result, 0)
    currents.circle(axes[7], result, 0)
    assert all(ax.has_data() or ax.texts for ax in axes)
    assert len(axes[0].lines) == 3 + 1  # models and ceiling
    for line in axes[0].lines:  # no curve leaves its panel
        low, high = axes[0].get_ylim()
        assert low < np.nanmin(line.get_ydata()) <= np.nanmax(line.get_ydata()) < high


def test_portraits_are_of_high_likelihood_and_production(result):
    sigma, likelihood = result["entropy_production"].mean, result["log_likelihood"].mean
    first, second = result.extremes()
    assert first == np.argmax(sigma)  # of three models, a third is one
    assert second == np.argmin(sigma)
    assert result.best() == np.argmax(likelihood)
    with pytest.raises(InputError, match="model is 3; it must be at most 2"):
        figures.portrait(result, 3)


def test_whatever_style_the_user_has_set(tmp_path, result):
    with mpl.rc_context({"text.usetex": True}):
        plots.save(figures.training(result), tmp_path / "training.png")
        plots.save(figures.cycle(result, 0), tmp_path / "cycle.png")
