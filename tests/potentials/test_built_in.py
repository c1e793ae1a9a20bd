"""Built-in potentials and a user's own: laws and closed forms, files, the cache of their kernels."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from helpers import LEAST_P, z_score
from thermorun import potentials
from thermorun.errors import InputError
from thermorun.potentials import NAMES, Potential, System, chain, gaussian, load, quadrature, resolve

ROOT = Path(__file__).parents[2]

# A point of each potential away from symmetry, so that no element of a matrix vanishes by chance.
POINTS = {
    "trap": (0.7,),
    "stiffness": (2.5,),
    "trap-and-stiffness": (0.7, 2.5),
    "gaussian": (0.3, -0.4, 2.0, 0.6, 1.5),
    "double-well": (1.2, 0.4),
    "quartic": (1.7,),
    "bistable": (0.8, 0.3),
    "chain": (0.8, 1.5, 0.6),
    "mixture": (-1.2, 1.6, 0.4),
}
one_dimensional = pytest.mark.parametrize("name", [name for name in POINTS if name not in ("gaussian", "chain")])


def at_rest(name, beta=1.0):
    potential = load(name)
    return quadrature.equilibrium(potential.energies, potential.gradients, POINTS[name], beta=beta)


# --- What is built in -------------------------------------------------------------------------------------------------


def test_every_built_in_is_tested():
    assert tuple(POINTS) == NAMES
    for name in NAMES:
        potential = load(name)
        assert potential.name == name
        assert resolve(name) is resolve(potential) is potential is getattr(potentials, name.replace("-", "_"))
        potential.require_valid(potential.target)
        assert repr(potential).startswith(f"<Potential {name}: E(x, ")


def test_families_come_in_any_dimension():
    assert chain(8) is chain
    assert gaussian(2) is gaussian
    assert chain(100) is load("chain-100") is chain(np.int64(100))
    assert gaussian(3).dimension == 3
    assert gaussian(1).energies([2.0], (0.5, 2.0)) == pytest.approx(2.25)
    assert chain(5) is load("chain-5")
    for make, sentence in (
        (lambda: chain(1), "dimension of chain is 1; it must be an integer of at least 2."),
        (lambda: gaussian(0), "dimension is 0; it must be an integer of at least 1."),
        (lambda: load("chain-1"), "dimension of chain is 1; it must be an integer of at least 2."),
    ):
        with pytest.raises(InputError) as caught:
            make()
        assert str(caught.value) == sentence


@pytest.mark.parametrize("name", ["gaussian", "chain"])
def test_larger_families_do_not_contradict_themselves(name):
    potential = load(f"{name}-4")
    potentials.check(potential, potential.target)


@one_dimensional
@pytest.mark.parametrize("beta", [0.5, 2.0])
def test_equilibrium_has_the_law_of_the_quadrature(name, beta):
    potential, truth = load(name), at_rest(name, beta)
    x = System(potential, beta).equilibrium(POINTS[name], 50_000, replicas=2, seed=5)
    assert x.shape == (2, 1, 50_000)
    for drawn in x[:, 0]:
        assert stats.kstest(drawn, lambda q: np.interp(q, truth.x, truth.cumulative)).pvalue > LEAST_P
        assert abs(z_score(drawn, truth.moment(1))) < 4
        assert abs(z_score(drawn**2, truth.moment(2))) < 4
    assert abs(np.corrcoef(x[:, 0])[0, 1]) < 4 / np.sqrt(50_000)


@pytest.mark.parametrize("no_sample", [False, True])
@pytest.mark.parametrize("name", ["gaussian", "chain"])
def test_equilibrium_of_gaussians_has_their_moments(name, no_sample):
    potential, beta = load(name), 2.0
    precision, mean = potential.quadratic(POINTS[name])
    if no_sample:
        potential = replace(potential, sample=None)
    x = System(potential, beta).equilibrium(POINTS[name], 5000, seed=6)[0]
    away = x - mean[:, None]
    truth = np.linalg.inv(precision) / beta
    for i in range(potential.dimension):
        assert abs(z_score(x[i], mean[i])) < 4
        for j in range(i + 1):
            assert abs(z_score(away[i] * away[j], truth[i, j])) < 4


@pytest.mark.parametrize("name", [name for name in POINTS if load(name).free_energy])
def test_free_energy_is_that_of_the_quadrature_or_has_the_slope_of_the_mean_gradient(name):
    potential, beta = load(name), 1.5
    if potential.dimension == 1:
        truth = at_rest(name, beta).free_energy
        assert potential.free_energy(POINTS[name], beta) == pytest.approx(truth, abs=1e-9)
        return
    x = System(potential, beta).equilibrium(POINTS[name], 50_000)[0]
    gradients = potential.gradients(x.T, POINTS[name])
    for j, row in enumerate(gradients):
        step = 1e-5 * np.eye(len(POINTS[name]))[j]
        up, down = (potential.free_energy(tuple(POINTS[name] + sign * step), beta) for sign in (1, -1))
        assert abs(z_score(row, (up - down) / 2e-5)) < 4


def test_quadratic_gives_the_energy():
    for name in ("trap", "stiffness", "trap-and-stiffness", "gaussian", "chain"):
        potential = load(name)
        precision, mean = potential.quadratic(POINTS[name])
        x = np.random.default_rng(1).normal(size=(20, potential.dimension))
        energy = 0.5 * np.einsum("ni,ij,nj->n", x - mean, precision, x - mean)
        difference = potential.energies(x, POINTS[name]) - energy
        np.testing.assert_allclose(difference, difference[0], atol=1e-12)


# --- A user's own file, and the cache ---------------------------------------------------------------------------------

MINE = """
from numba import njit
from thermorun.potentials import Potential

POWER = 4

@njit
def energy(x, theta):
    return theta[0] * x**POWER + theta[1] * x

force = njit(lambda x, theta: -theta[0] * POWER * x**(POWER - 1) - theta[1])
gradient = njit(lambda x, theta: (x**POWER, x))
mine = Potential("mine", energy, force, gradient, ("strength", "tilt"), (1.0, 0.0))
"""
RUN = """
import hashlib
import numpy as np
from thermorun.potentials import System, load
potential = load("mine.py:mine")
family = load("bistable")
for one in (potential, family):
    driven = System(one).drive(np.zeros((1, 1, 2000)), np.ones((30, 2)), dt=0.01)
    print(hashlib.sha256(driven.x.tobytes() + driven.work.tobytes()).hexdigest())
    stats = one.kernels("heun").drive.stats
    print(sum(stats.cache_hits.values()), sum(stats.cache_misses.values()))
print(potential.fingerprint, family.fingerprint)
"""


@pytest.mark.slow
def test_another_process_loads_and_does_not_compile(tmp_path):
    (tmp_path / "mine.py").write_text(MINE)
    paths = os.pathsep.join(map(str, (ROOT, ROOT / "python")))
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "cache"), "PYTHONPATH": paths}

    def run():
        done = subprocess.run(
            [sys.executable, "-c", RUN], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert not done.stderr
        return done.stdout.splitlines()

    first, second = run(), run()
    assert first[1:4:2] == ["0 1", "0 1"]
    assert second[1:4:2] == ["1 0", "1 0"]
    assert first[::2] == second[::2]
    # A constant that the functions use is part of them.
    (tmp_path / "mine.py").write_text(MINE.replace("POWER = 4", "POWER = 6"))
    third = run()
    assert third[1:4:2] == ["0 1", "1 0"]
    assert third[-1] != first[-1]


def test_files_that_cannot_be_used(tmp_path):
    file = tmp_path / "mine.py"
    with pytest.raises(InputError, match=r"the file .* does not exist"):
        load(f"{file}:mine")
    file.write_text(MINE)
    with pytest.raises(InputError, match=r"but yours is no Potential; .*mine\.py holds mine\."):
        load(f"{file}:yours")
    file.write_text(MINE.replace("-theta[0] * POWER", "theta[0] * POWER"))
    with pytest.raises(InputError, match="force of mine is not minus the derivative of its energy by x"):
        load(f"{file}:mine")
    file.write_text("1 / 0")
    with pytest.raises(InputError, match=r"cannot be run \(division by zero\)"):
        load(f"{file}:mine")
    with pytest.raises(InputError, match="potential is 'well'; it must be one of trap, stiffness"):
        load("well")


def test_potentials_take_numpy_numbers_and_say_what_they_cannot_take():
    fields = ("well", lambda x, t: t[0] * x**4, lambda x, t: -4 * t[0] * x**3, lambda x, t: (x**4,))
    well = Potential(*fields, "strength", np.array([1]), np.int64(1), target=np.float32(2))
    assert (well.parameters, well.theta, well.dimension, well.target) == (("strength",), (1.0,), 1, (2.0,))
    assert type(well.dimension) is int
    assert type(well.target[0]) is float
    for arguments, sentence in (
        (("s", (1.0, 2.0)), "theta of potential 'well' has 2 values; its parameters are s."),
        (("s", ("a",)), "theta of potential 'well' is 'a'; it must be a number."),
        (("s", (np.nan,)), "theta of potential 'well' is nan; it must be a finite number."),
        (("s", 1.0, 1.5), "dimension of potential 'well' is 1.5; it must be an integer of at least 1."),
        (((), ()), "parameters of potential 'well' is empty; it needs at least one."),
    ):
        with pytest.raises(InputError) as caught:
            Potential(*fields, *arguments)
        assert str(caught.value) == sentence
