"""Does a potential contradict itself?  Asked of every user's potential before it runs."""

import itertools

import numpy as np
from numba.core.errors import NumbaError
from numpy.typing import ArrayLike

from thermorun.arrays import Array
from thermorun.errors import InputError, require_positive, words
from thermorun.potentials import quadrature
from thermorun.potentials.landscape import Landscape
from thermorun.potentials.potential import Potential

_EPS = float(np.finfo(float).eps)
# An error of a derivative is let pass below this share of it, or of kT over the length on which kT is gained.
_SHARE, _FLOOR = 1e-4, 2e-5
# Steps of a difference are so long that rounding makes it uncertain by this share of the same.
_ROUNDING = 1e-6
_OFFSETS = np.array([-4.0, -2.0, -1.0, 1.0, 2.0, 4.0])
# Of the length of a well: those over which the energy may change by a kT elsewhere.
_LADDER = 2.0 ** np.arange(-24, 7)
_HALVES = 0.5 ** np.arange(8)
_SCALES = 10.0 ** np.arange(20, -41, -1.0)


def check(potential: Potential, theta: ArrayLike | None = None, *, beta: float = 1.0) -> None:
    """Raises InputError where a potential contradicts itself at ``theta``.

    Its points are the distribution's own, exp(-beta E): found from the energy alone, within 30 kT of the bottom of
    every well.  There all values must be finite, the force -dE/dx and the gradient dE/dtheta, by differences whose
    steps are the energy's own too; far from there the energy must grow, as far as the domain goes, and over a period
    it must come back.

    Parameters
    ----------
    potential : Potential
        What is checked.
    theta : tuple of float, optional
        Where; by default at the potential's own theta.
    beta : float
        1/kT [1/energy].

    Raises
    ------
    InputError
        One sentence: what is wrong, where, and what it should be.

    Examples
    --------
    >>> from thermorun import potentials
    >>> potentials.check(potentials.double_well, (2.0, 0.5))
    """
    point = potential.require_valid(potential.theta if theta is None else theta)
    require_positive("beta", beta)
    _compile(potential, point)
    _require_periodic(potential, point, beta)
    landscape = Landscape(potential, point, beta)
    # Outside a domain energies are infinite, and differences of two of them no numbers.
    with np.errstate(invalid="ignore"):
        minima = landscape.minima()
        _require_resolved(landscape, minima[0])
        x = landscape.points(minima)
        lengths = landscape.lengths(minima[0])
        _require_near(landscape, minima[0], lengths)
        landscape.require_confining(minima[0], x)
        _require_finite(potential, x, point)
        for k in range(potential.dimension):
            _check_force(landscape, x, lengths, k)
        for j in range(len(potential.parameters)):
            _check_gradient(landscape, x, j)
    _check_free_energy(potential, point, beta)


def _compile(potential: Potential, theta: Array) -> None:
    try:
        potential.evaluate(np.zeros((1, potential.dimension)), theta)
    except NumbaError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        told = next((line for line in lines if not line.startswith("Failed in")), lines[0])
        raise InputError(f"the functions of {potential.name} do not compile ({told}).") from error


def _require_periodic(potential: Potential, theta: Array, beta: float) -> None:
    """Raises InputError where the energy differs between the ends of a period, other coordinates at many places."""
    rng, domain = np.random.default_rng(1), potential.domain
    low, high = domain.box
    x = low + (high - low) * rng.uniform(0.05, 0.95, (64, potential.dimension))
    for k, side in enumerate(domain.sides):
        if side.periodic:
            ends = [np.where(np.arange(potential.dimension) == k, end, x) for end in (side.low, side.high)]
            first, last = (beta * potential.energies(end, theta) for end in ends)
            with np.errstate(invalid="ignore"):
                apart = np.abs(last - first) > 1e-6 + 1e-9 * np.abs(first)
            if np.any(apart):
                bad = int(np.argmax(apart))
                raise InputError(
                    f"energy of {potential.name} is not periodic: it is {first[bad] / beta:.6g} at x ="
                    f" {words(ends[0][bad])} and {last[bad] / beta:.6g} at x = {words(ends[1][bad])}."
                )


def _require_resolved(landscape: Landscape, minimum: Array) -> None:
    height = float(landscape.heights(minimum))
    if height == -np.inf:
        raise InputError(
            f"energy of {landscape.potential.name} is -inf at x = {words(minimum)}; it must be bounded below."
        )
    if _EPS * abs(height) > 1e-4:
        raise InputError(
            f"energy of {landscape.potential.name} is {height / landscape.beta:.6g} at its lowest and kT is"
            f" {1 / landscape.beta:.6g}: differences of kT are lost in rounding; leave the constant out."
        )


def _require_near(landscape: Landscape, minimum: Array, lengths: Array) -> None:
    worst = int(np.argmax(np.abs(minimum) / lengths))
    if _EPS * abs(minimum[worst]) > 1e-6 * lengths[worst]:
        raise InputError(
            f"energy of {landscape.potential.name} has its minimum at x = {words(minimum)}, where numbers are"
            f" {np.spacing(abs(minimum[worst])):.1g} apart: differences of x are lost in rounding; shift the origin."
        )


def _require_finite(potential: Potential, x: Array, theta: Array) -> None:
    _, forces, gradients = potential.evaluate(x, theta)
    for what, values in (("force", forces), ("gradient", gradients)):
        bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
        if len(bad):
            raise InputError(f"{what} of {potential.name} is not finite at x = {words(x[bad[0]])}.")


def _check_force(landscape: Landscape, x: Array, lengths: Array, k: int) -> None:
    """Component k at points (n, d), moved a little so that they lie on a grid on which steps are exact."""
    potential, theta, beta = landscape.potential, landscape.theta, landscape.beta
    x, length = x.copy(), landscape.local(x, k, lengths[k] * _LADDER)
    axis = np.eye(potential.dimension)[k]

    def heights(step: Array) -> Array:
        """At all offsets from points that are moved to multiples of the steps."""
        x[:, k] = step * np.round(x[:, k] / step)
        return landscape.heights(x + (_OFFSETS[:, None] * step)[..., None] * axis)

    step = _step(landscape.heights(x), heights(_power(1e-7 * length)), x[:, k], length)
    values = heights(step)
    force = beta * potential.evaluate(x, theta)[1][:, k]
    part = f"force[{k}]" if potential.dimension > 1 else "force"
    _compare(potential, part, "minus the derivative of its energy by x", x, force, -values, step, length, beta)


def _check_gradient(landscape: Landscape, x: Array, j: int) -> None:
    potential, theta, beta = landscape.potential, landscape.theta, landscape.beta
    axis = np.eye(len(theta))[j]

    def heights(step: float) -> Array:
        return np.stack([landscape.at(theta + h * step * axis).heights(x) for h in _OFFSETS])

    here = landscape.heights(x)
    length = _length(landscape, x, here, j)
    step = _step(here, heights(float(_power(1e-7 * length))), theta[j], length)
    step = np.full(len(x), np.max(step))
    values = heights(float(step[0]))
    gradient = beta * potential.gradients(x, theta)[j]
    meant = f"the derivative of its energy by {potential.parameters[j]}"
    _compare(potential, f"gradient[{j}]", meant, x, gradient, values, step, np.full(len(x), length), beta)


def _check_free_energy(potential: Potential, theta: Array, beta: float) -> None:
    """Of a potential with a domain, whose closed form may be that of the whole line."""
    if potential.free_energy is None or potential.dimension > 1 or potential.domain.everywhere:
        return
    at, side = tuple(theta.tolist()), potential.domain.sides[0]
    given = potential.free_energy(at, beta)
    try:
        truth = quadrature.free_energy(potential.energies, at, beta=beta, domain=side)
    except quadrature.NotConverged:
        return
    if not beta * abs(given - truth) < 1e-6 + 1e-9 * beta * abs(truth):
        raise InputError(
            f"free_energy of {potential.name} is {given:.6g}; -ln Z / beta in its domain, {potential.domain}, is"
            f" {truth:.6g}."
        )


def _length(landscape: Landscape, x: Array, here: Array, j: int) -> float:
    """How far parameter j moves, inside the valid region, before the energy of a point changes by more than one kT.

    Nor farther than it moves on: an energy that comes and goes with a parameter, as with an angle, may change by less
    wherever that ends.
    """
    potential, theta = landscape.potential, landscape.theta
    axis = np.eye(len(theta))[j]
    for scale in _SCALES if theta[j] == 0 else abs(theta[j]) * _SCALES[_SCALES <= 1]:
        ends = [theta + side * scale * axis for side in (-1.0, 1.0)]
        if any(potential.why_invalid(tuple(end.tolist())) is not None for end in ends):
            continue
        changes = [
            [landscape.at(theta + side * part * scale * axis).heights(x) - here for part in _HALVES]
            for side in (-1.0, 1.0)
        ]
        if np.all(np.abs(changes) <= 1) and all(_moves_on(parts, here) for parts in changes):
            return float(scale)
    raise InputError(
        f"energy of {potential.name} jumps where {potential.parameters[j]} moves from {theta[j]:g}; it must be smooth."
    )


def _moves_on(changes: list[Array], here: Array) -> bool:
    """Whether changes over a way, half of it, and so on, may be those of a power, at all points taken together."""
    rounding = 8 * _EPS * (1 + np.max(np.abs(here)))
    return all(
        np.max(np.abs(long - 2 * short)) <= np.max(np.abs(long)) + rounding
        for long, short in itertools.pairwise(changes)
    )


def _step(heights: Array, close: Array, origin: Array | float, length: Array | float) -> Array:
    """Steps as short as rounding lets them be, powers of two; ``close`` are heights at tiny offsets of `_OFFSETS`."""
    # What is smooth all but cancels in a third difference; what remains is rounding.
    left = np.abs(close[4] - 2 * close[3] + 2 * close[2] - close[1]) / 3
    left = np.quantile(left[np.isfinite(left)], 0.9) if np.any(np.isfinite(left)) else 0.0
    noise = np.maximum(2 * _EPS * np.abs(heights), left)
    least = np.maximum(noise / _ROUNDING * length, 1e6 * _EPS * np.abs(origin))
    return _power(np.minimum(np.maximum(least, 1e-9 * length), 0.1 * length))


def _power(step: Array | float) -> Array:
    """The power of two below."""
    return np.asarray(2.0 ** np.floor(np.log2(step)))


def _compare(
    potential: Potential, part: str, meant: str, x: Array, given: Array, heights: Array, step: Array, length: Array,
    beta: float,
) -> None:  # fmt: skip
    """Raises InputError where ``given`` (n,) is not the derivative of heights (6, n), all in kT."""
    truth, wide = (
        (8 * (heights[3 + s] - heights[2 - s]) - (heights[4 + s] - heights[1 - s])) / (12 * step * (1 + s))
        for s in (0, 1)
    )
    with np.errstate(invalid="ignore"):
        allowed = _SHARE * np.abs(truth) + _FLOOR / length + np.abs(wide - truth)
        excess = np.where(np.isfinite(allowed), np.abs(given - truth) / allowed, 0.0)
    worst = int(np.argmax(excess))
    if excess[worst] > 1:
        raise InputError(
            f"{part} of {potential.name} is not {meant}: at x = {words(x[worst])} it is {given[worst] / beta:.6g}, not"
            f" {truth[worst] / beta:.6g}."
        )
