"""What every spec of ensembles in a potential shares."""

from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Self

from numpy.typing import ArrayLike

from thermorun.errors import InputError
from thermorun.potentials.built_in import named
from thermorun.potentials.by_name import resolve
from thermorun.potentials.check import check
from thermorun.potentials.potential import Potential
from thermorun.potentials.sampling import require_resolved
from thermorun.potentials.system import System
from thermorun.specs import Spec


class PotentialSpec(Spec):
    """A spec with these fields, each declared where it stands in its order."""

    potential: str | Potential
    beta: float
    mobility: float
    integrator: str | None
    precision: str
    fingerprint: str | None

    @property
    def system(self) -> System:
        """The potential at its temperature and mobility."""
        return System(self.potential, self.beta, self.mobility)

    @property
    def potential_name(self) -> str:
        """What the potential is called; it need not be there."""
        name = self.potential if isinstance(self.potential, str) else self.potential.name
        return name.rpartition(":")[2]

    def identified(self) -> tuple[Self, System]:
        """With integrator and fingerprint set, and its system.

        Raises InputError where the potential is not the one whose fingerprint the spec has.
        """
        system = self.system
        potential = system.potential
        if self.fingerprint not in (None, potential.fingerprint):
            raise InputError(f"potential is {potential.name}, changed since the run began; restore it.")
        integrator = self.integrator or ("heun" if potential.quadratic is None else "exact")
        return self.replace(integrator=integrator, fingerprint=potential.fingerprint), system

    def of_file(self, path: Path | str, potential: Potential | str | None, trust: bool) -> Self:
        """The spec of a file with the potential that is given in the place of the one that the file names.

        Raises InputError where the file names a file of Python, which would be run, and nobody said that it may.
        """
        named = self.potential
        if potential is not None:
            return self.replace(potential=replace(resolve(potential), name=str(named)))
        if isinstance(named, str) and named.rpartition(":")[0].endswith(".py") and not trust:
            raise InputError(
                f"{path} would run code: its potential is {named}.  Read that file, and then trust it (--trust,"
                " trust=True), or give the potential."
            )
        return self

    def check_at(self, points: Iterable[ArrayLike]) -> None:
        """Raises InputError where a potential that is not built in contradicts itself at one of ``points`` (p,).

        And for any, where positions there are too far from the origin for the precision.
        """
        system = self.system
        own = named(system.potential.name) is not system.potential
        for point in points:
            if own:
                _check(system.potential, tuple(system.potential.require_valid(point).tolist()), system.beta)
            require_resolved(system, point, self.precision)

    def file_name(self) -> str:
        return f"{self.command}-{self.potential_name}-seed{self.seed}"


@lru_cache(maxsize=64)
def _check(potential: Potential, theta: tuple[float, ...], beta: float) -> None:
    check(potential, theta, beta=beta)
