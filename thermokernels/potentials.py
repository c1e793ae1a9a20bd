"""Forces and energy differences as scalar device functions.

Trap: E(x, theta) = (x - theta)^2 / 2 (Hnybida & Verret 2025, Eq. 10), stiffness one.  Its energy differences are
written with the force, so that nothing cancels and little is computed:

    at fixed x, theta -> theta + shift:   dE = shift (shift / 2 - (x - theta)) = shift (force' - shift / 2)
    at fixed theta, x -> x + move:        dE = move (move / 2 - force)

with force = theta - x, and force' the force after the shift.
"""

from thermokernels._jit import device


@device
def trap_force(x, theta):
    """-dE/dx."""
    return theta - x


@device
def trap_work(new_force, shift):
    """E(x, theta + shift) - E(x, theta), from the force at theta + shift."""
    return shift * (new_force - type(shift)(0.5) * shift)


@device
def trap_heat(force, move):
    """E(x + move, theta) - E(x, theta), from the force at x."""
    return move * (type(move)(0.5) * move - force)
