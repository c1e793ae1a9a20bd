"""How x relaxes at fixed theta in one step, as device functions written out for a potential's dimension.

``euler-maruyama``      x' = x + pull f(x) + kick z, with pull = mu dt, kick = sqrt(2 mu kT dt), f the force.
``leimkuhler-matthews`` the same with (z_n + z_n+1) / 2 for z: second order in the distribution it samples (Leimkuhler &
                        Matthews 2013, Eq. 1.5).
``heun``                y = x + pull f(x) + kick z, x' = x + pull (f(x) + f(y)) / 2 + kick z: weak order two, as the
                        noise is additive (Kloeden & Platen 1992, Sect. 15.1).
``exact``               x' = c + P x + L z, the Ornstein-Uhlenbeck step, for quadratic energies.

What stands in a row of coefficients: pull and kick; for ``exact`` c (d), P (d^2) and L (d^2), row by row.
"""

from functools import cache

from thermokernels._jit import device
from thermokernels.random import BLOCK

INTEGRATORS = ("euler-maruyama", "leimkuhler-matthews", "heun", "exact")


def columns(integrator, dimension):
    """How many numbers a row of coefficients has."""
    return dimension + 2 * dimension**2 if integrator == "exact" else 2


def unrolled(arguments, elements, dimension):
    """A device function that returns these expressions: as a tuple, or the only one if ``dimension`` is one.

    Written out, since a loop over a tuple of run-time index would go through memory.
    """
    result = elements[0] if dimension == 1 else f"({''.join(element + ', ' for element in elements)})"
    return _compiled(f"def function({arguments}):\n    return {result}\n")


def stores(count, offset, scalar=True):
    """A device function that writes ``values`` to scratch; x itself is rounded to the type of ``unit``."""
    lines = []
    for k in range(count):
        value = "values" if scalar and count == 1 else f"values[{k}]"
        rounded = f"type(unit)({value})" if offset == 0 else value
        lines.append(f"    s[{offset + k * BLOCK} + i] = {rounded}\n")
    arguments = "s, i, values, unit" if offset == 0 else "s, i, values"
    return _compiled(f"def function({arguments}):\n{''.join(lines)}")


def relaxed(integrator, d, force):
    """The device function of one relaxation: (x, theta, coefficients, noise, i) -> x'."""
    x = ["x"] if d == 1 else [f"x[{k}]" for k in range(d)]
    f, g = (["f"], ["g"]) if d == 1 else ([f"f[{k}]" for k in range(d)], [f"g[{k}]" for k in range(d)])
    if integrator == "exact":
        rows = []
        for k in range(d):
            terms = [f"c[{k}]"]
            for j in range(d):
                terms += [f"c[{d + k * d + j}] * {x[j]}", f"c[{d + d * d + k * d + j}] * noise[{j}, i]"]
            rows.append(" + ".join(terms))
        return unrolled("x, theta, c, noise, i", rows, d)
    plain = unrolled("x, f, c, noise, i", [f"{x[k]} + (c[0] * {f[k]} + c[1] * noise[{k}, i])" for k in range(d)], d)
    if integrator != "heun":
        return device(lambda x, theta, c, noise, i: plain(x, force(x, theta), c, noise, i))
    mean = unrolled("f, g", [f"0.5 * ({f[k]} + {g[k]})" for k in range(d)], d)

    @device
    def heun(x, theta, c, noise, i):
        here = force(x, theta)
        there = force(plain(x, here, c, noise, i), theta)
        return plain(x, mean(here, there), c, noise, i)

    return heun


@cache
def _compiled(source):
    """The device function of a source; of equal sources the same, so that it is compiled once."""
    space = {}
    exec(source, space)
    return device(space["function"])
