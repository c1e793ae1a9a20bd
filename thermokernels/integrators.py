"""How x relaxes at fixed theta in one step, as device functions written out for a potential's dimension.

``euler-maruyama``      x' = x + pull f(x) + kick z, with pull = mu dt, kick = sqrt(2 mu kT dt), f the force.
``leimkuhler-matthews`` the same with (z_n + z_n+1) / 2 for z: second order in the distribution it samples (Leimkuhler &
                        Matthews 2013, Eq. 1.5).
``heun``                y = x + pull f(x) + kick z, x' = x + pull (f(x) + f(y)) / 2 + kick z: weak order two, as the
                        noise is additive (Kloeden & Platen 1992, Sect. 15.1).
``exact``               x' = c + P x + L z, the Ornstein-Uhlenbeck step, for quadratic energies.

What stands in a row of coefficients: pull and kick; for ``exact`` c (d), P (d^2) and L (d^2), row by row.

In a domain x' is folded back: a periodic coordinate into its period, what is beyond a wall to its mirror image, which
is of weak order one at walls (Bossy, Gobet & Talay, J. Appl. Probab. 41, 877, 2004).  It is NaN where the mirror image
lies beyond the other wall: the step was longer than the domain.  Heun's y is folded for f(y), which changes sign behind
a wall, as the force of the mirrored energy does: errors are a twentieth of Euler's then.  With walls the noise of
Leimkuhler and Matthews, which goes on from one step to the next, would have to be mirrored too: not made.
"""

import math
from functools import cache

import numpy as np

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


def stores(count, offset, scalar=True, domain=()):
    """A device function that writes ``values`` to scratch; x itself is rounded to the type of ``unit``.

    And folded into the domain, where rounding must not take it out again.
    """
    lines = []
    for k in range(count):
        value = "values" if scalar and count == 1 else f"values[{k}]"
        rounded = f"type(unit)({value})" if offset == 0 else value
        if domain and offset == 0:
            lines.append(f"    v = np.float64(type(unit)({_folded(domain[k], value)}))\n")
            rounded = _clipped(domain[k], "v")
        lines.append(f"    s[{offset + k * BLOCK} + i] = {rounded}\n")
    arguments = "s, i, values, unit" if offset == 0 else "s, i, values"
    return _compiled(f"def function({arguments}):\n{''.join(lines)}")


def _folded(side, v):
    """The expression of v folded into a side of the domain, which leaves v inside, and NaN, as they are."""
    low, high, periodic = side
    if periodic:
        return f"({v} - {high - low!r} * math.floor(({v} - {low!r}) / {high - low!r}))"
    image = v
    if math.isfinite(low):
        image = f"({2 * low!r} - {v} if {v} < {low!r} else {image})"
    if math.isfinite(high):
        image = f"({2 * high!r} - {v} if {v} > {high!r} else {image})"
    if math.isinf(high - low):
        return image
    return f"({image} if {2 * low - high!r} <= {v} <= {2 * high - low!r} else math.nan)"


def _clipped(side, v):
    """The expression of v no farther than the last number of single precision inside; NaN stays."""
    # Compared as Python's numbers: NumPy would round the end to single precision first.
    low, high = (np.float32(end) for end in side[:2])
    inner = (
        np.nextafter(low, np.float32(np.inf)) if float(low) < side[0] else low,
        np.nextafter(high, np.float32(-np.inf)) if float(high) > side[1] else high,
    )
    for end, last, beyond in zip(side[:2], inner, "<>", strict=True):
        if math.isfinite(end):
            v = f"({float(last)!r} if {v} {beyond} {end!r} else {v})"
    return v


def _mirror(side, v):
    """The expression of the sign of the mirrored force at v: -1 beyond a wall."""
    low, high, periodic = side
    return "1.0" if periodic else f"(-1.0 if {v} < {low!r} or {v} > {high!r} else 1.0)".replace("inf", "math.inf")


def folding(d, domain):
    """Three device functions for x at or beyond the sides of a domain.

    ``image(x)`` is x folded into it, ``mirror(x)`` the sign that a mirrored coordinate turns the derivative by, +1 or
    -1, and ``turned(sign, v)`` their products.  Without a domain they leave all as it is.
    """
    x, v = (["x"], ["v"]) if d == 1 else ([f"x[{k}]" for k in range(d)], [f"v[{k}]" for k in range(d)])
    if not domain:
        same = _compiled("def function(x):\n    return x\n")
        return same, same, _compiled("def function(sign, v):\n    return v\n")
    sign = ["sign"] if d == 1 else [f"sign[{k}]" for k in range(d)]
    image = unrolled("x", [_folded(domain[k], x[k]) for k in range(d)], d)
    mirror = unrolled("x", [_mirror(domain[k], x[k]) for k in range(d)], d)
    return image, mirror, unrolled("sign, v", [f"{sign[k]} * {v[k]}" for k in range(d)], d)


def _at_image(force, d, domain):
    """The force of the energy that is mirrored at walls and goes on over periods: (x, theta) -> force."""
    if not domain:
        return force
    image, mirror, turned = folding(d, domain)
    return device(lambda x, theta: turned(mirror(x), force(image(x), theta)))


def relaxed(integrator, d, force, domain=()):
    """The device function of one relaxation: (x, theta, coefficients, noise, i) -> x', to be folded into the domain."""
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
    beyond = _at_image(force, d, domain)
    mean = unrolled("f, g", [f"0.5 * ({f[k]} + {g[k]})" for k in range(d)], d)

    @device
    def heun(x, theta, c, noise, i):
        here = force(x, theta)
        there = beyond(plain(x, here, c, noise, i), theta)
        return plain(x, mean(here, there), c, noise, i)

    return heun


@cache
def _compiled(source):
    """The device function of a source; of equal sources the same, so that it is compiled once."""
    space = {"math": math, "np": np}
    exec(source, space)
    return device(space["function"])
