"""General potentials: built-ins and checks, integrators against exact laws, kernels against plain twins."""

import numpy as np
import pytest

from thermorun.learning import potentials, simulation

BUILT_IN = pytest.mark.parametrize("name", potentials.NAMES)


@BUILT_IN
def test_built_ins_do_not_contradict_themselves(name):
    potentials.check(potentials.load(name))


def test_drive_obeys_the_first_law():
    potential = potentials.load("double-well")
    x = simulation.equilibrium(potential, (1.0, 0.0), 3000, replicas=2)
    path = np.linspace([1.0, 0.0], [1.5, 0.7], 21)
    driven = simulation.drive(potential, x, path, dt=0.01)
    for r in range(2):
        change = potential.energies(driven.x[r].T, path[-1]) - potential.energies(x[r].T, path[0])
        np.testing.assert_allclose(driven.work[r] + driven.heat[r], change, atol=1e-13)
