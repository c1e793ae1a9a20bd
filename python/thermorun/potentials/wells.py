"""Where a potential of several dimensions has its wells, and how wide they are: all lengths are the potential's own.

Minima from dispersed starts, and from where exp(-beta E) is largest beside the wells that these found (a needle inside
a bowl); the covariance of x in each as that of a Gaussian; the region that the energy confines x to.  Nothing here is
random: directions and starts are the same in every run, as the nodes of a quadrature are.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.optimize import minimize
from scipy.special import ndtri

from thermorun.arrays import Array
from thermorun.errors import InputError, words
from thermorun.potentials.domains import OnTheLine, on_the_line
from thermorun.potentials.potential import Potential

# Lengths that are tried, in whatever unit x has.
_RADII = 10.0 ** np.arange(-20, 20, 1 / 12)
# The region that holds x ends where the energy lies this many kT above its minimum everywhere; wells that are higher
# than the second number above the lowest hold nothing.
_DEPTH, _HIGHEST = 60.0, 30.0
_RAYS, _SCAN, _STARTS, _MOST_WELLS = 64, 4096, 16, 16
# Points that look for wells inside of others, those of them that are followed, and the descents that they start.
_CLOUD, _FOLLOWED, _DESCENTS = 2**19, 1024, 32


@dataclass(frozen=True)
class Wells:
    """Minima (m, d), the lowest first; their heights above it (m,), kT; the covariance (m, d, d) of x in each.

    ``centre`` and ``half`` (d,) are the box that holds all of x within 60 kT, as far as rays from the minima see it.
    """

    minima: Array
    heights: Array
    covariances: Array
    centre: Array
    half: Array


@lru_cache(maxsize=256)
def find(potential: Potential, theta: tuple[float, ...], beta: float) -> Wells:
    """The wells at ``theta``, in coordinates `on_the_line` where the potential has a domain.

    Raises InputError where the energy is not finite or does not confine x.
    """
    landscape = _Landscape(on_the_line(potential, beta), theta, beta)
    first = landscape.descend(landscape.lowest(np.zeros(potential.dimension)))
    minima, covariances = first[None], landscape.covariance(first)[None]
    low, high = landscape.extent(first, covariances[0])
    for _ in range(4):
        centre, half = 0.5 * (low + high), 0.5 * (high - low)
        starts = landscape.starts(centre, half)
        found = np.concatenate([minima, [landscape.descend(start) for start in starts]])
        minima, heights = landscape.distinct(found, half)
        covariances = np.stack([landscape.covariance(one) for one in minima])
        sides = [landscape.extent(*one) for one in zip(minima, covariances, strict=True)]
        low, high = np.min([side[0] for side in sides], axis=0), np.max([side[1] for side in sides], axis=0)
        if np.all(high - low < 2.2 * half):
            break
    minima, heights, covariances = landscape.with_narrow(minima, covariances)
    return Wells(minima, heights, covariances, 0.5 * (low + high), 0.5 * (high - low))


def _squares(away: Array, covariance: Array) -> Array:
    """Squares (n,) of distances (n, d) in standard deviations."""
    scaled = np.einsum("nj,ij->ni", away, np.linalg.inv(np.linalg.cholesky(covariance)))
    return np.asarray(np.einsum("ni,ni->n", scaled, scaled))


def _apart(away: Array, first: Array, second: Array) -> float:
    """The length of ``away`` (d,) in standard deviations of the narrower of two wells."""
    return float(np.sqrt(max(_squares(away[None], one)[0] for one in (first, second))))


def rays(minimum: Array, covariance: Array) -> Array:
    """Points (n, d) in all directions from a minimum, up to six standard deviations away."""
    directions = _directions(len(minimum)) @ np.linalg.cholesky(covariance).T
    points: Array = minimum + np.arange(1, 97)[:, None, None] / 16 * directions
    return points.reshape(-1, len(minimum))


def _spread(d: int, count: int) -> Array:
    """Sobol's points (count, d) in the unit cube; the first is the origin."""
    from scipy.stats import qmc  # takes 0.3 s to import, and is wanted in two or more dimensions alone

    points: Array = qmc.Sobol(d, scramble=False).random(count)
    return points


@lru_cache(maxsize=4)
def _normals(d: int) -> Array:
    """Normals (n, d) that fill space as evenly as Sobol's points."""
    return np.asarray(ndtri(_spread(d, _CLOUD)[1:]))


def _directions(d: int) -> Array:
    """Unit vectors (n, d): both ways along every axis, and many more spread evenly."""
    normals = ndtri(_spread(d, 2 * _RAYS)[1 : _RAYS + 1]) + 1e-3
    eye = np.eye(d)
    return np.concatenate([eye, -eye, normals / np.linalg.norm(normals, axis=1, keepdims=True)])


class _Landscape:
    """beta E around points, +inf where it is no number."""

    def __init__(self, potential: Potential | OnTheLine, theta: tuple[float, ...], beta: float) -> None:
        self.potential, self.theta, self.beta, self.d = potential, theta, beta, potential.dimension
        self.rays = _directions(self.d)

    def heights(self, x: Array) -> Array:
        """beta E at points (..., d)."""
        with np.errstate(over="ignore", invalid="ignore"):
            energy = self.beta * self.potential.energies(x.reshape(-1, self.d), self.theta)
        return np.where(np.isfinite(energy), energy, np.inf).reshape(x.shape[:-1])

    def around(self, centre: Array, root: Array | None = None) -> Array:
        """Points (radii, rays, d) on rays from ``centre``, of unit length after ``root`` is divided out."""
        rays = self.rays if root is None else self.rays @ root.T
        return np.asarray(centre + _RADII[:, None, None] * rays)

    def lowest(self, centre: Array) -> Array:
        """The lowest of the centre and all that its rays see."""
        points = np.concatenate([centre[None], self.around(centre).reshape(-1, self.d)])
        heights = self.heights(points)
        best = int(np.argmin(heights))
        if not np.isfinite(heights[best]):
            raise InputError(f"theta is {words(self.theta)}; the energy is not finite there.")
        return np.asarray(points[best])

    def scale(self, x: Array) -> float:
        """The least length over which the energy changes by a kT."""
        points = x + _RADII[::4, None, None] * self.rays[: 2 * self.d + 4]
        changes = np.abs(self.heights(points) - self.heights(x[None])[0])
        return float(_RADII[::4][int(np.argmax(np.any(changes >= 1, axis=1)))])

    def descend(self, x: Array) -> Array:
        """A minimum below ``x``, by BFGS in units of kT and of the length over which the energy changes by one."""
        height = float(self.heights(x[None])[0])
        for _ in range(12):
            start, reference, unit = x, height, self.scale(x)

            def function(y: Array, start: Array = start, reference: float = reference, unit: float = unit):  # type: ignore[no-untyped-def]
                energy, force, _ = self.potential.evaluate((start + unit * y)[None], self.theta)
                rise, slope = self.beta * energy[0] - reference, -self.beta * unit * force[0]
                known = np.isfinite(rise) and np.all(np.isfinite(slope))
                return (float(rise), slope) if known else (1e30, np.zeros(self.d))

            # Of two forms that differ in their line searches only, the one that calls no BLAS and its threads.
            found = minimize(function, np.zeros(self.d), jac=True, method="BFGS", options={"gtol": 1e-6})
            if not found.fun < 0:
                break
            x = start + unit * found.x
            height = float(self.heights(x[None])[0])
            if height > reference - 1e-6:
                break
        return x

    def covariance(self, x: Array) -> Array:
        """The covariance of x in a well, as that of the Gaussian with the same rise over one thermal length.

        Its axes are those of the Hessian, taken over thermal lengths along the coordinates.
        """
        lengths = np.array([self.thermal(x, axis)[0] for axis in np.eye(self.d)])
        steps = np.diag(lengths)
        _, up, _ = self.potential.evaluate(x + steps, self.theta)
        _, down, _ = self.potential.evaluate(x - steps, self.theta)
        hessian = self.beta * (down - up) / 2 * lengths
        hessian = np.where(np.isfinite(hessian), hessian, np.eye(self.d))
        # Rows are divided by their thermal length, so that no unit of x matters.
        _, vectors = np.linalg.eigh(0.5 * (hessian + hessian.T))
        axes = (vectors.T * lengths) / np.linalg.norm(vectors.T * lengths, axis=1, keepdims=True)
        out = np.zeros((self.d, self.d))
        for axis in axes:
            length, rise = self.thermal(x, axis)
            out += length**2 / (2 * rise) * np.outer(axis, axis)
        return out

    def thermal(self, x: Array, axis: Array) -> tuple[float, float]:
        """The first length at which the energy rises by half a kT both ways on average, and by how much, kT."""
        bottom, both = float(self.heights(x[None])[0]), np.stack([axis, -axis])

        def rises(lengths: Array) -> Array:
            heights = self.heights(x + lengths[:, None, None] * both)
            return np.asarray(np.mean(np.minimum(heights - bottom, 1e3), axis=1))

        seen = rises(_RADII)
        at = int(np.argmax(seen >= 0.5))
        if not seen[at] >= 0.5:
            raise self._free()
        # Between two of the radii by bisection, so that no unit of x shows.
        low, high, rise = _RADII[max(at - 1, 0)], _RADII[at], float(seen[at])
        for _ in range(30):
            middle = 0.5 * (low + high)
            there = float(rises(np.array([middle]))[0])
            low, high, rise = (low, middle, there) if there >= 0.5 else (middle, high, rise)
        return float(high), rise

    def extent(self, x: Array, covariance: Array) -> tuple[Array, Array]:
        """The box of all points on rays from ``x`` within 60 kT above it.  Raises InputError where it has no end."""
        points = self.around(x, np.linalg.cholesky(covariance))
        inside = self.heights(points) < self.heights(x[None])[0] + _DEPTH
        if np.any(inside[-1]):
            raise self._free()
        kept = np.concatenate([x[None], points[inside]])
        low, high = kept.min(axis=0), kept.max(axis=0)
        margin = 0.1 * (high - low)
        return low - margin, high + margin

    def starts(self, centre: Array, half: Array) -> Array:
        """Where to look for minima: the lowest of many points spread over the box, no two of them close together."""
        points = centre + half * (2 * _spread(self.d, _SCAN)[1:] - 1)
        heights = self.heights(points)
        order = np.argsort(heights, kind="stable")
        kept: list[int] = []
        # The lowest of each neighbourhood; and some whatever their height, for what is narrow.
        for near in (0.15, 0.0):
            for index in order if near else range(_STARTS):
                if len(kept) >= _STARTS * (1 if near else 2):
                    break
                apart = np.max(np.abs(points[kept] - points[index]) / half, axis=1) if kept else np.array([1.0])
                if np.isfinite(heights[index]) and np.min(apart) > near:
                    kept.append(int(index))
        return np.asarray(points[kept])

    def distinct(self, found: Array, half: Array) -> tuple[Array, Array]:
        """The minima without repetition, the lowest first, and their heights above it, kT."""
        heights = self.heights(found)
        kept: list[int] = []
        for index in np.argsort(heights, kind="stable"):
            apart = [np.max(np.abs(found[index] - found[other]) / half) for other in kept]
            if heights[index] < np.min(heights) + _HIGHEST and min(apart, default=1.0) > 1e-2:
                kept.append(int(index))
        kept = kept[:_MOST_WELLS]
        return np.asarray(found[kept]), np.asarray(heights[kept] - heights[kept[0]])

    def with_narrow(self, minima: Array, covariances: Array) -> tuple[Array, Array, Array]:
        """Minima, heights and covariances with those of wells so narrow that they lie inside another one's.

        Descents start where p is largest beside the Gaussians of the wells that are known.
        """
        cloud = _normals(self.d)[: _CLOUD // len(minima)]
        # Half of the points as the wells are, half twice as wide.
        sizes = np.where(np.arange(len(cloud)) % 2, 1.0, 2.0)[:, None]
        roots = np.linalg.cholesky(covariances)
        x = np.concatenate([one + sizes * cloud @ root.T for one, root in zip(minima, roots, strict=True)])
        known = np.full(len(x), -np.inf)
        for one, covariance in zip(minima, covariances, strict=True):
            squares, size = _squares(x - one, covariance), 0.5 * np.linalg.slogdet(covariance)[1]
            for scale in (1.0, 2.0):
                known = np.logaddexp(known, -0.5 * squares / scale**2 - size - self.d * np.log(scale))
        ratio = -self.heights(x) - known
        x = x[np.argsort(-ratio, kind="stable")[:_FOLLOWED]]
        wells, widths = list(minima), list(covariances)
        for _ in range(_DESCENTS):
            if not len(x):
                break
            start, found = x[0], self.descend(x[0])
            covariance = self.covariance(found)
            if all(_apart(found - one, covariance, width) > 1 for one, width in zip(wells, widths, strict=True)):
                wells.append(found)
                widths.append(covariance)
            # What lies in this well, or as near to the start as its width, needs no descent of its own.
            x = x[np.minimum(_squares(x - found, covariance) / 36, _squares(x - start, covariance)) > 1]
        heights = self.heights(np.stack(wells))
        order = np.argsort(heights, kind="stable")
        order = order[heights[order] < heights.min() + _HIGHEST][:_MOST_WELLS]
        return np.stack(wells)[order], heights[order] - heights[order[0]], np.stack(widths)[order]

    def _free(self) -> InputError:
        return InputError(
            f"theta is {words(self.theta)}; the energy of {self.potential.name} does not confine x there (it is not"
            " bounded below, or does not rise), so there is no equilibrium."
        )
