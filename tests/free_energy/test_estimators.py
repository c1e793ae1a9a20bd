"""Estimators against exact distributions of work."""

import importlib.util
import json
import subprocess
import sys

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from helpers import answers, gaussian_works
from thermorun.errors import InputError
from thermorun.free_energy import analyse_one_way, analyse_works, correlation_time
from thermorun.free_energy.estimators import ESTIMATORS, FEWEST

# Widths in kT, and how many works forward and reverse.
GAUSSIAN_CASES = [(0.5, 50, 50), (1.0, 100, 100), (1.0, 60, 600), (1.5, 1000, 200), (2.0, 2000, 2000)]


@pytest.mark.parametrize(("width", "forward", "reverse"), GAUSSIAN_CASES)
def test_every_estimator_and_its_standard_error(width, forward, reverse):
    rng = np.random.default_rng(round(1000 * width) + forward)
    delta_f, beta, runs = -3.7, 2.5, 300
    analyses = [
        analyse_works(*gaussian_works(rng, delta_f, width / beta, beta, forward, reverse), beta) for _ in range(runs)
    ]
    for estimator in ESTIMATORS:
        mean, stderr, z = answers(analyses, estimator, delta_f)
        if np.any(np.isnan(stderr)):
            effective = np.array([analysis[estimator].effective for analysis in analyses])
            assert np.array_equal(np.isnan(stderr), effective < FEWEST)
            continue
        assert np.mean(np.abs(z) < 4) >= 0.95
        if not estimator.startswith("jarzynski") or np.median(stderr) * beta < 0.1:
            assert abs(np.mean(mean - delta_f)) < 4 * np.std(mean) / runs**0.5 + 0.1 * np.median(stderr), estimator
            assert 0.8 < np.mean(z**2) < 1.25, estimator
    slope = np.array([analysis.slope.z(1.0) for analysis in analyses])
    assert 0.8 < np.mean(slope**2) < 1.25
    assert all("Crooks" not in warning for analysis in analyses for warning in analysis.warnings)


def test_bar_has_the_smallest_error():
    rng = np.random.default_rng(0)
    analysis = analyse_works(*gaussian_works(rng, 1.0, 1.0, 1.0, 5000, 5000))
    assert analysis.bar.delta_f.stderr < 1.01 * min(result.delta_f.stderr for result in analysis.results)


@pytest.mark.parametrize("width", [0.3, 1.0, 3.0])
def test_overlap_and_standard_error_are_those_of_the_laws_themselves(width):
    """With infinitely many works O = 2 * integral of P_F P_R / (P_F + P_R), and BAR's error follows from it."""
    count = 200_000
    analysis = analyse_works(*gaussian_works(np.random.default_rng(1), 0.4, width, 1.0, count, count))
    forward, reverse = norm(0.4 + width**2 / 2, width), norm(0.4 - width**2 / 2, width)

    def shared(w):
        return 2 * forward.pdf(w) * reverse.pdf(w) / (forward.pdf(w) + reverse.pdf(w))

    overlap, _ = quad(shared, 0.4 - 8 * width - width**2, 0.4 + 8 * width + width**2, points=[0.4], limit=200)
    assert analysis.overlap == pytest.approx(overlap, rel=0.01)
    assert analysis.bar.delta_f.stderr == pytest.approx((2 / count * (1 / overlap - 1)) ** 0.5, rel=0.02)
    assert analysis.forward.mean == pytest.approx(0.4 + width**2 / 2, abs=5 * width / count**0.5)


@pytest.mark.parametrize("width", [1.0, 1.5])
def test_bias_of_jarzynski(width):
    rng = np.random.default_rng(2)
    runs, count = 1500, 50
    analyses = [analyse_works(*gaussian_works(rng, 0.0, width, 1.0, count, count)) for _ in range(runs)]
    for estimator, sign in (("jarzynski-forward", 1), ("jarzynski-reverse", -1)):
        mean = np.array([analysis[estimator].delta_f.mean for analysis in analyses])
        expected = np.mean([analysis[estimator].bias for analysis in analyses])
        error = np.std(mean) / runs**0.5
        assert sign * np.mean(mean) > 2 * error
        assert abs(np.mean(mean) - expected) < 4 * error + 0.3 * abs(expected)


@pytest.mark.parametrize(("width", "count"), [(3, 30), (4, 50), (5, 100), (6, 300), (8, 100), (12, 20), (40, 100)])
def test_poor_overlap_is_wide_or_unknown_and_says_so(width, count):
    rng = np.random.default_rng(width)
    analyses = [analyse_works(*gaussian_works(rng, 5.0, width, 1.0, count, count)) for _ in range(200)]
    for analysis in analyses:
        for result in analysis.results:
            assert result.delta_f.stderr > 0 or np.isnan(result.delta_f.stderr)
            assert np.isfinite(result.delta_f.stderr) or result.warning is not None
        for estimator in ("jarzynski-forward", "jarzynski-reverse"):
            assert np.isnan(analysis[estimator].delta_f.stderr)
    # Where BAR still gives an error it is right, or larger than it need be.
    _, stderr, z = answers(analyses, "bar", 5.0)
    known = np.isfinite(stderr)
    assert np.all(known == np.array([analysis.bar.effective >= 2 for analysis in analyses]))
    if np.mean(known) > 0.9:
        assert np.mean(z[known] ** 2) < 1.25
    if width >= 5:
        assert all(analysis.verdict.startswith("Poor overlap") for analysis in analyses)


@pytest.mark.parametrize(
    ("forward", "reverse"),
    [
        ([1.0], [-1.0]),
        ([1.0] * 10, [-1.0] * 10),
        ([0.0] * 4, [0.0] * 9),
        ([1.0], [0.3]),
        ([1e8], [1e8]),
        ([2.0], [1] * 99),
    ],
)
def test_works_that_do_not_tell_their_error(forward, reverse):
    analysis = analyse_works(forward, reverse)
    for result in analysis.results:
        assert np.isnan(result.delta_f.stderr)
        assert result.warning is not None
    assert min(-np.array(reverse)) <= analysis.bar.delta_f.mean <= max(forward)
    json.dumps(analysis.to_dict(), allow_nan=False)


def test_two_equal_works_of_many_do_no_harm():
    works = np.random.default_rng(3).standard_normal(1000) + 0.5
    works[:200] = works[0]
    analysis = analyse_works(works, works)
    assert analysis.bar.delta_f.mean == pytest.approx(0.0, abs=1e-9)
    assert np.isfinite(analysis.bar.delta_f.stderr)


def test_works_that_break_crooks_relation_are_seen():
    rng = np.random.default_rng(4)
    forward, reverse = gaussian_works(rng, 0.0, 1.0, 1.0, 5000, 5000)
    assert analyse_works(forward, reverse).warnings == ()
    assert "slope 0.7" in " ".join(analyse_works(forward / 0.7, reverse / 0.7).warnings)
    apart = analyse_works(0.1 * rng.random(1000), 0.1 * rng.random(1000))
    assert "never cross" in apart.verdict
    assert np.isnan(apart["crossing"].delta_f.stderr)


def test_units_and_direction():
    """Energies scale with kT, and the opposite process has the opposite Delta F."""
    forward, reverse = gaussian_works(np.random.default_rng(5), 2.0, 1.0, 1.0, 400, 300)
    here, cold = analyse_works(forward, reverse), analyse_works(forward / 7, reverse / 7, beta=7.0)
    back = analyse_works(reverse, forward)
    opposite = {"jarzynski-forward": "jarzynski-reverse", "jarzynski-reverse": "jarzynski-forward"}
    for estimator in ESTIMATORS:
        result, other = here[estimator], back[opposite.get(estimator, estimator)]
        assert cold[estimator].delta_f.mean == pytest.approx(result.delta_f.mean / 7, rel=1e-9)
        assert cold[estimator].delta_f.stderr == pytest.approx(result.delta_f.stderr / 7, rel=1e-6)
        assert other.delta_f.mean == pytest.approx(-result.delta_f.mean, rel=1e-6)
        assert other.delta_f.stderr == pytest.approx(result.delta_f.stderr, rel=1e-6)
        if result.bias is not None:
            assert other.bias == pytest.approx(-result.bias, rel=1e-6)


@pytest.mark.parametrize(
    ("forward", "reverse", "beta", "sentence"),
    [
        ([], [1.0], 1.0, r"forward has shape \(0,\); it must be a list of at least one work."),
        ([[1.0]], [1.0], 1.0, r"forward has shape \(1, 1\)"),
        ([1.0], [1.0, np.nan, np.inf], 1.0, "reverse holds 1 works that are NaN or -inf; works must be numbers, or"),
        (["a"], [1.0], 1.0, "forward is of type <U1; it must be real numbers."),
        ([1.0], [1j], 1.0, "reverse is of type complex128; it must be real numbers."),
        ([1.0], [[1.0], [1.0, 2.0]], 1.0, r"reverse cannot be made an array \(setting an array element"),
        (np.ma.masked_array([1.0, 2.0], [False, True]), [1.0], 1.0, "forward is masked in 1 places; leave them out"),
        ([1.0], [1.0], -1.0, "beta is -1.0; it must be a positive finite number."),
    ],
)
def test_bad_works(forward, reverse, beta, sentence):
    with pytest.raises(InputError, match=sentence):
        analyse_works(forward, reverse, beta)


@pytest.mark.skipif(
    importlib.util.find_spec("pymbar") is None, reason="pymbar, an independent BAR, is not installed: .[peers]"
)
def test_pymbar_agrees(tmp_path):
    """In a process of its own: importing pymbar changes JAX's settings and prints."""
    rng = np.random.default_rng(6)
    cases = [
        gaussian_works(rng, 1.5, width, 1.0, n, m) for width, n, m in ((1, 500, 700), (2, 300, 100), (4, 400, 400))
    ]
    np.savez(
        tmp_path / "works.npz",
        **{f"{side}{i}": works for i, pair in enumerate(cases) for side, works in zip("FR", pair, strict=True)},
    )
    code = (
        "import json, sys, numpy as np\n"
        "from pymbar import bar, bar_overlap, exp\n"
        "works = np.load('works.npz')\n"
        "found = []\n"
        "for i in range(len(works) // 2):\n"
        "    f, r = works[f'F{i}'], works[f'R{i}']\n"
        "    b = bar(f, r, uncertainty_method='MBAR')\n"
        "    one_way = [exp(f)['Delta_f'], -exp(r)['Delta_f']]\n"
        "    found.append([b['Delta_f'], b['dDelta_f'], float(bar_overlap(f, r)), *one_way])\n"
        "open('found.json', 'w').write(json.dumps(found))\n"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    for pair, found in zip(cases, json.loads((tmp_path / "found.json").read_text()), strict=True):
        analysis = analyse_works(*pair)
        ours = [analysis.bar.delta_f.mean, analysis.bar.delta_f.stderr, analysis.overlap]
        ours += [analysis[name].delta_f.mean for name in ESTIMATORS[2:]]
        assert ours == pytest.approx(found, rel=1e-6)


@pytest.mark.parametrize("wild", [1e9, 1e31, 1e300, np.inf])
@pytest.mark.parametrize("squeeze", [1.0, 0.483])
def test_one_wild_work_changes_nothing(wild, squeeze):
    """A forward work of weight zero neither hides broken works nor spoils good ones."""
    forward, reverse = gaussian_works(np.random.default_rng(7), 0.0, 1.0, 1.0, 5000, 5000)
    plain = analyse_works(forward / squeeze, reverse / squeeze)
    analysis = analyse_works(np.append(forward / squeeze, wild), reverse / squeeze)
    assert analysis.bar.delta_f.mean == pytest.approx(plain.bar.delta_f.mean, abs=1e-3)
    assert analysis.slope.mean == pytest.approx(plain.slope.mean, abs=0.01)
    assert analysis.verdict[:12] == plain.verdict[:12]
    # A reverse work that is infinite has weight zero too.
    other = analyse_works(forward, np.append(reverse, wild))
    assert abs(other.bar.delta_f.z(0.0)) < 4


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("wild", [-50.0, -400.0, -1e9, -1e300])
def test_one_wild_work_that_is_all_of_jarzynski_is_told(wild):
    """exp(-W) of one work is then the whole mean; BAR and the other direction are as they were."""
    forward, reverse = gaussian_works(np.random.default_rng(7), 0.0, 1.0, 1.0, 5000, 5000)
    ways = (np.append(forward, wild), reverse), (forward, np.append(reverse, wild))
    for estimator, works in zip(("jarzynski-forward", "jarzynski-reverse"), ways, strict=True):
        analysis = analyse_works(*works)
        assert abs(analysis.bar.delta_f.z(0.0)) < 4
        assert analysis[estimator].effective < 2
        assert np.isnan(analysis[estimator].delta_f.stderr)
        assert f"{estimator} rests on" in analysis[estimator].warning
        assert estimator not in analysis.verdict


def test_three_grades_of_overlap():
    rng = np.random.default_rng(8)
    verdicts = [
        analyse_works(*gaussian_works(rng, 0.0, width, 1.0, 2000, 2000)).verdict.split(",")[0] for width in (1, 3.9, 7)
    ]
    assert [verdict[:12] for verdict in verdicts] == ["Good overlap", "Thin overlap", "Poor overlap"]


def test_works_of_one_direction():
    """Gaussian works of width 1: Delta F = mean - 1/2 exactly; errors are calibrated over 400 sets."""
    rng = np.random.default_rng(9)
    analyses = [analyse_one_way(2.0 + 0.5 + rng.standard_normal(400)) for _ in range(400)]
    for estimator in ("jarzynski-forward", "cumulant"):
        z = np.array([analysis[estimator].delta_f.z(2.0) for analysis in analyses])
        assert 0.8 < np.mean(z**2) < 1.25
        assert np.mean(np.abs(z) < 4) > 0.99
    skewed = analyse_one_way(rng.exponential(2.0, 5000))
    assert "not Gaussian" in skewed["cumulant"].warning
    assert np.isnan(analyse_one_way(10 * rng.standard_normal(300))["jarzynski-forward"].delta_f.stderr)
    with pytest.raises(InputError, match="at least two that differ"):
        analyse_one_way([1.0])


def test_correlation_time():
    """An autoregressive chain with factor a counts (1 + a) / (1 - a) works for one."""
    rng = np.random.default_rng(10)
    chain = np.zeros(200_000)
    for n in range(1, len(chain)):
        chain[n] = 0.8 * chain[n - 1] + rng.standard_normal()
    assert correlation_time(chain) == pytest.approx(9.0, rel=0.1)
    assert correlation_time(rng.standard_normal(10_000)) < 1.1
