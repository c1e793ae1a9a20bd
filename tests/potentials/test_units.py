"""Units: one experiment in natural and in SI units gives the same numbers."""

from dataclasses import replace

import numpy as np
import pytest

from thermorun import free_energy, learning, metric
from thermorun.errors import InputError
from thermorun.potentials import Potential, System, midpoints, trap
from thermorun.potentials.exact import Theory

# Of a bead in optical tweezers: kT at 298 K in J, 200 nm, and 5.3e7 m/(N s) for a micrometre in water.
KT, LENGTH, MOBILITY = 4.11e-21, 2e-7, 5.3e7
TIME = LENGTH**2 / (MOBILITY * KT)
SI = Potential(
    "wells",
    lambda x, t: t[0] * ((x / 2e-7) ** 2 - 1) ** 2 + t[1] * x,
    lambda x, t: -4 * t[0] * x / 4e-14 * ((x / 2e-7) ** 2 - 1) - t[1],
    lambda x, t: (((x / 2e-7) ** 2 - 1) ** 2, x),
    ("barrier", "force"),
    (2 * KT, 0.3 * KT / LENGTH),
)
SPRING_SI = Potential(
    "spring",
    lambda x, t: 0.5 * t[1] * (x - t[0]) ** 2,
    lambda x, t: -t[1] * (x - t[0]),
    lambda x, t: (-t[1] * (x - t[0]), 0.5 * (x - t[0]) ** 2),
    ("centre", "stiffness"),
    (0.4 * LENGTH, 3 * KT / LENGTH**2),
    quadratic=lambda t: (np.array([[t[1]]]), np.array([t[0]])),
)
SPRINGS = System(SPRING_SI, 1 / KT, MOBILITY), System("trap-and-stiffness")
WELLS = System(SI, 1 / KT, MOBILITY), System("double-well")
# What one of each parameter is in SI.
UNITS = {"wells": np.array([KT, KT / LENGTH]), "spring": np.array([LENGTH, KT / LENGTH**2])}


@pytest.mark.parametrize(("si", "natural", "point"), [(*WELLS, (2.0, 0.3)), (*SPRINGS, (0.4, 3.0))])
def test_exact_values_are_the_same(si, natural, point):
    units = UNITS[si.potential.name]
    known, truth = si.exact(units * point), natural.exact(point)
    pair = np.outer(units, units)
    np.testing.assert_allclose(known.mean_gradient * units / KT, truth.mean_gradient, rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(known.fisher * pair, truth.fisher, rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(known.friction * pair / (KT * TIME), truth.friction, rtol=1e-8, atol=1e-9)
    # Z of x in metres is LENGTH times that of x in natural units.
    assert known.free_energy / KT + np.log(LENGTH) == pytest.approx(truth.free_energy, abs=1e-9)
    first, second = (Theory(system, [at]).at(at) for system, at in ((si, units * point), (natural, np.array(point))))
    np.testing.assert_allclose(first.fisher * pair, second.fisher, rtol=1e-8, atol=1e-9)


def test_runs_are_the_same():
    works, steps, longest = [], 200, []
    for system, length, energy, time in ((WELLS[0], LENGTH, KT, TIME), (WELLS[1], 1.0, 1.0, 1.0)):
        units = np.array([energy, energy / length])
        longest.append(system.time_step(units * (2.0, 0.3)) / time)
        x = system.equilibrium(units * (2.0, 0.3), 4096, seed=4)
        path, dt = midpoints(units * np.linspace((2.0, 0.3), (1.0, 1.5), steps + 1), 2e-3 * time)
        driven = system.drive(x, path, dt=dt, seed=4)
        works.append((x / length, driven.x / length, driven.work / energy, driven.heat / energy))
    for si, natural in zip(*works, strict=True):
        np.testing.assert_allclose(si, natural, rtol=1e-4, atol=1e-4)
    # Curvatures come from differences, over a power of two that the units choose.
    assert longest[0] == pytest.approx(longest[1], rel=1e-4)


@pytest.mark.parametrize("begin", [free_energy.measure, learning.drive, learning.learn, metric.measure])
def test_positions_too_far_for_their_precision_are_told(begin):
    """A number of 24 bits knows 1e7 to one: the trap's noise would drown in rounding."""
    far = replace(trap, name="far", theta=(1e7,), target=(1e7 + 1.0,))
    with pytest.raises(InputError, match="precision is 'float32', which knows positions that are 1e\\+07 from the"):
        begin(far, precision="float32", show_progress=False)
    with pytest.raises(InputError, match=r"energy of far has its minimum at x = 1e\+16, where numbers are 2 apart: "):
        begin(replace(far, theta=(1e16,)), show_progress=False)
