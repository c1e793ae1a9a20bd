"""Learning rates: dtheta/dt = -eta (<dE/dtheta>_data - <dE/dtheta>_samples).

``natural``   the matrix eta^-1 = kT (tau - t + tau^r) (Hadamard) g = kT (tau - t) g + zeta  (Hnybida & Verret 2025,
              Eqs. 51 and 53), with tau the time at which theta is to arrive.
``scalar``    one number, the smallest eigenvalue of that matrix eta: in no direction faster than it.
``gradient``  a constant number, plain gradient flow.
"""

import numpy as np

from thermorun.arrays import Array
from thermorun.errors import RunError
from thermorun.potentials import Potential

RULES = ("natural", "scalar", "gradient")


def eta(rule: str, remaining: float, fisher: Array, friction: Array, beta: float) -> Array:
    """The learning rate (..., p, p) of ``natural`` or ``scalar``, with ``remaining`` = tau - t.

    NaN where g and zeta are singular.
    """
    p = fisher.shape[-1]
    inverse = remaining / beta * fisher + friction
    if rule == "natural":
        try:
            return np.asarray(np.linalg.inv(inverse))
        except np.linalg.LinAlgError:
            return np.full_like(inverse, np.nan)
    slowest = np.linalg.eigvalsh(inverse)[..., -1]
    return np.eye(p) / slowest[..., None, None]


def require_rate(rate: Array, step: int, potential: Potential) -> None:
    """Raises RunError where a learning rate is not a finite matrix."""
    if not np.all(np.isfinite(rate)):
        raise RunError(
            f"the learning rate of {potential.name} is not finite at step {step}: g and zeta are singular there; raise"
            " ridge, or take out a parameter."
        )
