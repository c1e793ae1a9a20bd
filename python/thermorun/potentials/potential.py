"""A potential E(x, theta): its functions, its parameters, and what is known exactly of it.

An ensemble at theta has the density p_m(x, theta) = exp(-beta E) / Z (Hnybida & Verret 2025, Eq. 1).
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
from numba import cloudpickle
from numpy.typing import ArrayLike

from thermokernels.langevin import device_of
from thermorun.arrays import Array
from thermorun.errors import InputError, require_count, require_number, short
from thermorun.potentials import compilation, derivatives, sources
from thermorun.potentials.domains import Domain, domain_of

Point = tuple[float, ...]
# Gives (count,) uniforms on (0, 1), fresh ones at every call.
Uniform = Callable[[], Array]


def anywhere(theta: Point) -> str | None:
    """Every theta is valid."""
    return None


@dataclass(frozen=True, repr=False)
class Potential:
    """An energy with parameters, in any dimension.

    The three functions are scalar ones that Numba can compile, with or without ``@njit``.  In one dimension x is a
    float and so is the force; in d > 1 dimensions both are tuples of d floats.  theta and the gradient are always
    tuples, one float for each of ``parameters``.

    Parameters
    ----------
    name : str
        What tables and files call it.
    energy : callable
        ``energy(x, theta)``, E.
    force : callable, optional
        ``force(x, theta)``, -dE/dx.  By default made from the source of the energy, exact to rounding: see
        `thermorun.potentials.derivatives`.
    gradient : callable, optional
        ``gradient(x, theta)``, dE/dtheta; by default likewise.
    parameters : tuple of str
        Names of the p elements of theta.
    theta : tuple of float
        Where a run starts unless it is told otherwise.
    dimension : int, default 1
        d, of x.
    why_invalid : callable, optional
        ``why_invalid(theta)`` gives a sentence where theta lies outside the valid region (a negative stiffness, say),
        None inside.
    sample : callable, optional
        ``sample(theta, beta, uniform)`` gives exact draws (count, d) from equilibrium; ``uniform()`` gives (count,)
        fresh uniforms on (0, 1) at every call.
    free_energy : callable, optional
        ``free_energy(theta, beta)``, -ln Z / beta.
    quadratic : callable, optional
        ``quadratic(theta)`` is (K, m), shapes (d, d) and (d,), of an energy (x - m)^T K (x - m) / 2 plus anything that
        does not depend on x.
    target : tuple of float, optional
        Where a run goes unless it is told otherwise.
    domain : pair, Periodic or tuple of these, optional
        Where x lives: ``(low, high)`` has reflecting walls where its ends are finite (``(0, math.inf)`` is a half
        line), ``Periodic(low, high)`` is one period of an angle, None the whole line, which is the default.  In d > 1
        dimensions one of these for each, as in ``((0, math.inf), Periodic(-math.pi, math.pi))``.  The functions are
        asked for x in the domain alone, and E may be infinite at its walls.

    Raises
    ------
    InputError
        For points that do not fit the parameters, a dimension that is no positive integer, or a domain that is none.

    Examples
    --------
    >>> import thermorun as tr
    >>> well = tr.Potential(
    ...     "well", lambda x, t: 0.25 * t[0] * x**4, lambda x, t: -t[0] * x**3, lambda x, t: (0.25 * x**4,),
    ...     parameters=("strength",), theta=(1.0,))
    >>> tr.potentials.check(well)
    >>> well.energies([1.0, 2.0], (1.0,))
    array([0.25, 4.  ])

    The energy alone is enough:

    >>> well = tr.Potential("well", lambda x, t: 0.25 * t[0] * x**4, parameters=("strength",), theta=(1.0,))
    >>> energies, forces, gradients = well.evaluate([2.0], (1.0,))
    >>> forces, gradients
    (array([[-8.]]), array([[4.]]))

    A distance, which is positive:

    >>> bond = tr.Potential("bond", lambda r, t: t[0] * r + 1 / r**2, parameters=("force",), theta=(1.0,),
    ...                     domain=(0, float("inf")))
    >>> bond.energies([-1.0, 1.0], (1.0,))
    array([inf,  2.])
    """

    name: str
    energy: Callable[..., Any]
    force: Callable[..., Any] = None  # type: ignore[assignment]
    gradient: Callable[..., Any] = None  # type: ignore[assignment]
    parameters: tuple[str, ...] = ()
    theta: Point = ()
    dimension: int = 1
    why_invalid: Callable[[Point], str | None] = anywhere
    sample: Callable[[Point, float, Uniform], Array] | None = None
    free_energy: Callable[[Point, float], float] | None = None
    quadratic: Callable[[Point], tuple[Array, Array]] | None = None
    target: Point | None = None
    domain: Domain = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise InputError(f"name of a potential is {short(self.name)}; it must be a text that is not empty.")
        names = (self.parameters,) if isinstance(self.parameters, str) else tuple(self.parameters)
        object.__setattr__(self, "parameters", names)
        if not names:
            raise InputError(f"parameters of potential {self.name!r} is empty; it needs at least one.")
        for name in ("theta", "target"):
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, self._point(name, value))
        object.__setattr__(self, "dimension", require_count(f"dimension of potential {self.name!r}", self.dimension))
        object.__setattr__(self, "domain", domain_of(self.domain, self.dimension, self.name))
        if self.quadratic is not None and not self.domain.everywhere:
            raise InputError(
                f"quadratic of potential {self.name!r} is given, but x is not Gaussian in its domain, {self.domain};"
                " leave one of the two out."
            )
        if self.force is None or self.gradient is None:
            made = derivatives.of(self.energy, self.dimension, len(names))
            for name, function in zip(("force", "gradient"), made, strict=True):
                object.__setattr__(self, name, getattr(self, name) or function)

    def _point(self, name: str, value: Any) -> Point:
        """One finite float for each parameter."""
        name = f"{name} of potential {self.name!r}"
        point = tuple(require_number(name, one) for one in np.atleast_1d(np.asarray(value, object)).tolist())
        if len(point) != len(self.parameters):
            raise InputError(f"{name} has {len(point)} values; its parameters are {', '.join(self.parameters)}.")
        return point

    def __repr__(self) -> str:
        return f"<Potential {self.name}: E(x, {', '.join(self.parameters)}), dimension {self.dimension}>"

    def __reduce__(self) -> tuple[Any, ...]:
        if _built_in.get(self.name) is self:
            return _named, (self.name,)
        # Functions of a notebook, a script or a user's file travel by value, and their fingerprint with them.
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return _unpickled, (cloudpickle.dumps((type(self), values)), self.fingerprint, self.source)

    def to_dict(self) -> str:
        """Its name, which stands for it in JSON and in tables."""
        return self.name

    def kernels(self, integrator: str = "euler-maruyama") -> compilation.Kernels:
        """The compiled kernels, the same ones at every call."""
        return compilation.kernels(
            self.energy, self.force, self.gradient, self.dimension, len(self.parameters), integrator, self.domain.plain
        )

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the source of the three functions, equal on every version of Python, see `sources.fingerprint`.

        And of the domain, where it is not all of space.  Of a built-in potential, its name and its version.
        """
        domain = (self.domain.plain,) if self.domain.plain else ()
        return sources.fingerprint((self.energy, self.force, self.gradient, self.dimension, *domain))[:16]

    @cached_property
    def source(self) -> str | None:
        """The text of the files that the three functions were read from; None where there is none, or it has changed.

        None for a built-in potential.
        """
        return sources.sources_of((self.energy, self.force, self.gradient))

    def require_valid(self, theta: ArrayLike, name: str = "theta") -> Array:
        """``theta`` as an array (..., p); for p = 1 a number alone will do.

        Raises InputError where it is no valid point (or path of points) of the potential.
        """
        points = numbers_of(theta, name)
        if points.ndim == 0 and len(self.parameters) == 1:
            points = points[None]
        if points.ndim == 0 or points.shape[-1] != len(self.parameters):
            given = 1 if points.ndim == 0 else points.shape[-1]
            raise InputError(
                f"{name} has {given} values; {self.name} has {len(self.parameters)} parameters,"
                f" {', '.join(self.parameters)}."
            )
        if not np.all(np.isfinite(points)):
            raise InputError(f"{name} holds numbers that are not finite; all must be.")
        for point in points.reshape(-1, len(self.parameters)):
            sentence = self.why_invalid(tuple(point.tolist()))
            if sentence is not None:
                raise InputError(f"{name} leaves the valid region of {self.name}: {sentence}")
        return points

    def evaluate(self, x: ArrayLike, theta: ArrayLike) -> tuple[Array, Array, Array]:
        """Energies (n,), forces (n, d) and gradients (n, p) at one theta (p,) and points (n,) or (n, d).

        Outside the domain, and where in it E is no number, E is infinite; outside the others are NaN.  Periodic
        coordinates are taken back to their period.
        """
        points = np.asarray(x, float)
        points = points[:, None] if points.ndim == 1 else points
        if not self.domain.everywhere:
            points = self.domain.wrapped(points)
        values = np.empty((1, 1 + self.dimension + len(self.parameters), len(points)))
        self._fill(np.array(points.T, order="C")[None], np.asarray(theta, float)[None], values)
        if not self.domain.everywhere:
            outside = ~self.domain.inside(points)
            values[0, 0, outside | np.isnan(values[0, 0])], values[0, 1:, outside] = np.inf, np.nan
        return values[0, 0], values[0, 1 : 1 + self.dimension].T, values[0, 1 + self.dimension :].T

    def _fill(self, x: Array, theta: Array, values: Array) -> None:
        """Numba raises where an integer power divides by zero; such points alone get E = inf and no derivatives."""
        try:
            self.kernels().evaluate(x, theta, values)
        except ZeroDivisionError:
            half = x.shape[2] // 2
            if not half:
                values[:, 0], values[:, 1:] = np.inf, np.nan
                return
            for part in (slice(None, half), slice(half, None)):
                some = values[:, :, part].copy()
                self._fill(x[:, :, part].copy(), theta, some)
                values[:, :, part] = some

    def energies(self, x: ArrayLike, theta: ArrayLike) -> Array:
        """E at points (n,) or (n, d) and one theta (p,)."""
        return self.evaluate(x, theta)[0]

    def gradients(self, x: ArrayLike, theta: ArrayLike) -> Array:
        """dE/dtheta at points (n,) or (n, d) and one theta (p,); (p, n)."""
        return self.evaluate(x, theta)[2].T


def numbers_of(values: ArrayLike, name: str) -> Array:
    """Values as an array of float64.  Raises InputError where they are no numbers."""
    try:
        return np.asarray(values, float)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} is {short(values)}; it must hold numbers.") from error


def exponential_family(
    name: str,
    base: Callable[..., Any],
    base_derivative: Callable[..., Any],
    features: Callable[..., Any],
    feature_derivatives: Callable[..., Any],
    parameters: tuple[str, ...],
    theta: Point,
    **rest: Any,
) -> Potential:
    """E = C(x) + theta . F(x) in one dimension (Hnybida & Verret 2025, Eq. 59).

    Parameters
    ----------
    name : str
        What tables and files call it.
    base, base_derivative : callable
        C(x) and dC/dx, floats.
    features, feature_derivatives : callable
        F(x) and dF/dx, tuples of one float for each of ``parameters``.
    parameters : tuple of str
        Names of the elements of theta.
    theta : tuple of float
        Where a run starts unless it is told otherwise.
    **rest
        Other fields of `Potential`.

    Examples
    --------
    >>> import thermorun as tr
    >>> tilted = tr.potentials.exponential_family(
    ...     "tilted", lambda x: x**4, lambda x: 4 * x**3, lambda x: (-x,), lambda x: (-1.0,), ("field",), (0.5,))
    >>> tilted.energies([1.0], (0.5,))
    array([0.5])
    """
    given = {"c": base, "slope": base_derivative, "f": features, "slopes": feature_derivatives}
    known = {key: device_of(function) for key, function in given.items()}

    def product(values: str) -> str:
        return " + ".join(f"theta[{j}] * {values}[{j}]" for j in range(len(parameters)))

    return Potential(
        name,
        sources.written(f"c(x) + {product('f(x)')}", **known),
        sources.written(f"-(slope(x) + {product('slopes(x)')})", **known),
        sources.written("f(x)", **known),
        parameters,
        theta,
        **rest,
    )


# Those that are pickled by name, and how they are found: filled by `built_in`.
_built_in: dict[str, Potential] = {}


def register(potential: Potential, version: int) -> Potential:
    """Makes a potential known by its name: what pickles and fingerprints say instead of its functions."""
    _built_in[potential.name] = potential
    potential.__dict__.update(fingerprint=f"{potential.name}-{version}", source=None)
    return potential


def _named(name: str) -> Potential:
    from thermorun.potentials.by_name import load

    return load(name)


def _unpickled(content: bytes, fingerprint: str, source: str | None) -> Potential:
    kind, values = cloudpickle.loads(content)
    potential: Potential = kind(**values)
    potential.__dict__.update(fingerprint=fingerprint, source=source)
    return potential
