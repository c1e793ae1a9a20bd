"""A potential in contact with a bath: what exact values, equilibrium, time step and dynamics need together."""

from collections.abc import Callable
from dataclasses import dataclass

from numpy.typing import ArrayLike

from thermorun.arrays import Array
from thermorun.errors import require_count, require_positive
from thermorun.potentials import dynamics, exact, gradients, sampling
from thermorun.potentials.by_name import resolve
from thermorun.potentials.dynamics import Driven
from thermorun.potentials.exact import Exact
from thermorun.potentials.gradients import PathGradient
from thermorun.potentials.potential import Potential
from thermorun.streams import Noise


@dataclass(frozen=True)
class System:
    """A potential at a temperature and a mobility: dx = -mu dE/dx dt + sqrt(2 mu kT) dB.

    Parameters
    ----------
    potential : Potential or str
        A potential, or the name of one: built in, or ``FILE.py:NAME``.
    beta : float
        1/kT [1/energy].
    mobility : float
        mu [length^2/(energy time)].

    Raises
    ------
    InputError
        For a temperature or a mobility that is not positive, or a potential that is not found.

    Examples
    --------
    >>> import thermorun as tr
    >>> system = tr.System("double-well", beta=2.0)
    >>> x = system.equilibrium((1, 0), particles=1000, seed=3)
    >>> x.shape
    (1, 1, 1000)
    """

    potential: Potential
    beta: float = 1.0
    mobility: float = 1.0

    def __init__(self, potential: Potential | str, beta: float = 1.0, mobility: float = 1.0) -> None:
        object.__setattr__(self, "potential", resolve(potential))
        object.__setattr__(self, "beta", require_positive("beta", beta))
        object.__setattr__(self, "mobility", require_positive("mobility", mobility))

    def exact(self, theta: ArrayLike) -> Exact | None:
        """What is known exactly of equilibrium at ``theta`` (p,), or None where nobody knows it."""
        return exact.exact(self, theta)

    def time_step(self, theta: ArrayLike) -> float:
        """A step of 1/20 of the fastest relaxation time, 1 / (mu times the largest curvature that 3 kT reach)."""
        return sampling.time_step(self, theta)

    def equilibrium(
        self, theta: ArrayLike, particles: int, *, replicas: int = 1, seed: int | Noise = 0,
        precision: str = "float64",
    ) -> Array:  # fmt: skip
        """Draws x (replicas, d, particles) from exp(-beta E(x, theta)) / Z; ``theta`` is (p,) or (replicas, p).

        Exact draws where the potential has them, and in one dimension by inverting the cumulative distribution; else by
        annealing (``annealing``).  Raises RunError where equilibrium cannot be shown.
        """
        return sampling.equilibrium(self, theta, particles, replicas, _noise(seed), precision)

    def coefficients(self, integrator: str, dt: ArrayLike, theta: Array | None = None) -> Array:
        """The kernels' coefficients for steps ``dt``: see ``dynamics.coefficients``."""
        return dynamics.coefficients(self, integrator, dt, theta)

    def drive(
        self, start: Array | Driven, path: ArrayLike, *, dt: ArrayLike, integrator: str = "heun",
        seed: int | Noise = 0, rows: ArrayLike = (), kT: ArrayLike | None = None,
    ) -> Driven:  # fmt: skip
        """Takes an ensemble along a path of theta: step n jumps from path[n] to path[n + 1] at fixed x, then relaxes.

        ``start`` is x (replicas, d, particles), which is not changed, or what an earlier call returned, to go on with
        (the noise goes on too).  ``path`` is (steps + 1, p) or (replicas, steps + 1, p).  ``dt`` is a number or
        (steps,); with zero a step is a jump alone.  ``rows`` are the steps to record.  ``kT`` is the bath's in each
        step, a number or (steps,) [energy]; by default 1/beta throughout.

        For a smooth theta(t) the whole is second order in dt if the path runs through its midpoints (`midpoints`).
        Raises InputError for a path that leaves the valid region, RunError for particles that diverge.
        """
        return dynamics.drive(self, start, path, dt, integrator, _noise(seed), rows, kT)

    def path_gradient(
        self, start: Array, path: ArrayLike, objective: Callable[..., float], *, dt: ArrayLike,
        integrator: str = "heun", seed: int | Noise = 0,
    ) -> PathGradient:  # fmt: skip
        """How an objective at the end of a path of theta changes with every theta on it, jumps at both ends included.

        The steps, their noise and ``start`` (1, d, particles), ``path`` (steps + 1, p), ``dt`` and ``seed`` are those
        of `drive`, with the integrators euler-maruyama, heun and exact.  ``objective(x, work)`` is a scalar function
        that Numba compiles, of where a particle ends and its work; the mean over the particles is meant.

        The derivatives are those of the steps that are taken, exact to rounding: the discrete adjoint, which keeps
        sqrt(steps) states and draws the noise again.  Raises InputError for a potential or an objective whose source
        cannot be differentiated, RunError for particles that diverge and objectives that are not finite.

        Examples
        --------
        >>> import numpy as np
        >>> import thermorun as tr
        >>> system = tr.System("double-well")
        >>> path = np.linspace((1, 0), (1, 1), 51)
        >>> x = system.equilibrium(path[0], 4096)
        >>> found = system.path_gradient(x, path, lambda x, work: work, dt=0.02)
        >>> found.by_path.shape
        (51, 2)
        """
        whole = gradients.mean_of(objective, self.potential.dimension)
        return gradients.path_gradient(self, start, path, dt, integrator, _noise(seed), whole)


def _noise(seed: int | Noise) -> Noise:
    return seed if isinstance(seed, Noise) else Noise.of(require_count("seed", seed, 0, 2**64 - 1))
