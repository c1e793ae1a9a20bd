"""Potentials of the field's textbooks, written out by hand as a user would, in natural and in SI units.

And again with wrong derivatives, of which the last element of theta chooses one, so that all are one compilation.
"""

import math
from dataclasses import dataclass

from thermorun.potentials import Potential
from thermorun.potentials.sources import written

SPACE = {name: getattr(math, name) for name in ("exp", "log", "cos", "sin", "sqrt", "cosh", "tanh", "copysign", "inf")}
KT = 4.11e-21  # J, at 298 K


@dataclass(frozen=True)
class Case:
    """A potential in text; ``wrong`` are derivatives that lack a term, take a wrong index, power or parameter."""

    energy: str
    force: tuple[str, ...]
    gradient: tuple[str, ...]
    theta: tuple[float, ...]
    wrong: tuple[tuple[str, int, str], ...]
    kt: float = 1.0

    @property
    def mutations(self):
        """Which derivative, which component, and what it becomes: signs, factors, and those written by hand."""
        last = len(self.force) - 1, len(self.gradient) - 1
        return (
            ("force", 0, f"-({self.force[0]})"),
            ("force", last[0], f"1.01 * ({self.force[last[0]]})"),
            ("gradient", 0, f"-({self.gradient[0]})"),
            ("gradient", last[1], f"0.5 * ({self.gradient[last[1]]})"),
            *self.wrong,
        )

    def made(self, name):
        parts = {"force": list(self.force), "gradient": list(self.gradient)}
        for number, (what, index, text) in enumerate(self.mutations, 1):
            parts[what][index] = f"({text}) if theta[-1] == {number}.0 else ({parts[what][index]})"
        d, p = len(self.force), len(self.theta)
        force = parts["force"][0] if d == 1 else "(" + ", ".join(parts["force"]) + ",)"
        functions = self.energy, force, "(" + ", ".join([*parts["gradient"], "0.0"]) + ",)"
        names = (*(f"t{j}" for j in range(p)), "mutation")
        return Potential(name, *(written(text, **SPACE) for text in functions), names, (*self.theta, 0.0), d)


def muller_brown():
    """Mueller & Brown, Theor. Chim. Acta 53, 75 (1979), Eq. 11; their energies in units of ten kT."""
    terms = zip(
        (-200, -100, -170, 15), (-1, -1, -6.5, 0.7), (0, 0, 11, 0.6), (-10, -10, -6.5, 0.7), (1, 0, -0.5, -1),
        (0, 0.5, 1.5, 1), strict=True,
    )  # fmt: skip
    energy, force_x, force_y = [], [], []
    for size, a, b, c, x0, y0 in terms:
        u, v = f"(x[0] - {x0})", f"(x[1] - {y0})"
        bump = f"{size} * exp({a} * {u} * {u} + {b} * {u} * {v} + {c} * {v} * {v})"
        energy.append(bump)
        force_x.append(f"({bump}) * ({2 * a} * {u} + {b} * {v})")
        force_y.append(f"({bump}) * ({b} * {u} + {2 * c} * {v})")
    whole = " + ".join(energy)
    return Case(
        f"theta[0] * ({whole})",
        (f"-theta[0] * ({' + '.join(force_x)})", f"-theta[0] * ({' + '.join(force_y)})"),
        (whole,),
        (0.1,),
        (
            ("force", 0, f"-theta[0] * ({' + '.join(force_x[:3])})"),
            ("force", 1, f"-theta[0] * ({' + '.join(force_x)})"),
        ),
    )


def three_holes():
    """Park, Sener, Lu & Schulten, J. Chem. Phys. 118, 1313 (2003), Eq. 25."""
    shapes = [(3, 0, 1 / 3), (-3, 0, 5 / 3), (-5, 1, 0), (-5, -1, 0)]
    bumps = [f"{a} * exp(-(x[0] - {x}) ** 2 - (x[1] - {y}) ** 2)" for a, x, y in shapes]
    pull = [
        [f"{bump} * 2 * (x[{k}] - {(x, y)[k]})" for bump, (_, x, y) in zip(bumps, shapes, strict=True)] for k in (0, 1)
    ]
    whole = " + ".join(bumps)
    rest = ("0.2 * x[0] ** 4", "0.2 * (x[1] - 1 / 3) ** 4")
    steep = ("-0.8 * x[0] ** 3", "-0.8 * (x[1] - 1 / 3) ** 3")
    return Case(
        f"theta[0] * ({whole}) + {' + '.join(rest)}",
        tuple(f"theta[0] * ({' + '.join(pull[k])}) + {steep[k]}" for k in (0, 1)),
        (whole,),
        (1.67,),
        (("force", 1, f"theta[0] * ({' + '.join(pull[1])})"), ("gradient", 0, " + ".join(bumps[:3]))),
    )


BOND = "4 * (x ** -12 - x ** -6)"
NORMAL = "exp(-0.5 * ((x[0] - {0}) ** 2 + (x[1] - {1}) ** 2) / {2})"
MIX = (
    "theta[0] * " + NORMAL.format(-1, "theta[1]", 0.3) + " + (1 - theta[0]) * " + NORMAL.format(1.5, 0, 0.8)
)  # fmt: skip
A, B = NORMAL.format(-1, "theta[1]", 0.3), NORMAL.format(1.5, 0, 0.8)

CASES = {
    # Sekimoto, Stochastic Energetics (2010), Sect. 4.1.2; at 6,000 standard deviations from the origin.
    "trap": Case(
        "0.5 * theta[1] * (x - theta[0]) ** 2",
        ("-theta[1] * (x - theta[0])",),
        ("-theta[1] * (x - theta[0])", "0.5 * (x - theta[0]) ** 2"),
        (6000.0, 1.0),
        (("force", 0, "-theta[1] * x"), ("gradient", 1, "0.5 * x ** 2")),
    ),
    # Optical tweezers, 10^-6 N/m and 200 nm: Ciliberto, Phys. Rev. X 7, 021051 (2017).
    "tweezers": Case(
        "0.5 * theta[1] * (x - theta[0]) ** 2",
        ("-theta[1] * (x - theta[0])",),
        ("-theta[1] * (x - theta[0])", "0.5 * (x - theta[0]) ** 2"),
        (2e-7, 1e-6),
        (("force", 0, "-theta[1] * x"), ("gradient", 1, "0.5 * (x - theta[0])")),
        KT,
    ),
    # Kramers' double well: Risken, The Fokker-Planck Equation (1989), Sect. 5.10.
    "double-well": Case(
        "0.25 * theta[0] * x ** 4 - 0.5 * theta[1] * x ** 2 - theta[2] * x",
        ("-theta[0] * x ** 3 + theta[1] * x + theta[2]",),
        ("0.25 * x ** 4", "-0.5 * x ** 2", "-x"),
        (4.0, 8.0, 0.3),
        (("force", 0, "-theta[0] * x ** 3 + theta[1] * x"), ("gradient", 1, "-x ** 2")),
    ),
    # Two traps 400 nm apart, J and m: Berut et al., Nature 483, 187 (2012).
    "double-well-SI": Case(
        "theta[0] * ((x / 2e-7) ** 2 - 1) ** 2 - theta[1] * x",
        ("-4 * theta[0] * x / 4e-14 * ((x / 2e-7) ** 2 - 1) + theta[1]",),
        ("((x / 2e-7) ** 2 - 1) ** 2", "-x"),
        (8 * KT, 1e-15),
        (
            ("force", 0, "-4 * theta[0] * x / 4e-14 * ((x / 2e-7) ** 2 - 1)"),
            ("force", 0, "-4 * theta[0] * x / 2e-7 * ((x / 2e-7) ** 2 - 1) + theta[1]"),
        ),
        KT,
    ),
    # Four wells, two of them shallow: Prinz et al., J. Chem. Phys. 134, 174105 (2011), Eq. 27.
    "prinz": Case(
        "4 * (x ** 8 + theta[0] * exp(-80 * x * x) + theta[1] * exp(-80 * (x - 0.5) ** 2)"
        " + 0.5 * exp(-40 * (x + 0.5) ** 2))",
        (
            "-4 * (8 * x ** 7 - 160 * theta[0] * x * exp(-80 * x * x) - 160 * theta[1] * (x - 0.5)"
            " * exp(-80 * (x - 0.5) ** 2) - 40 * (x + 0.5) * exp(-40 * (x + 0.5) ** 2))",
        ),
        ("4 * exp(-80 * x * x)", "4 * exp(-80 * (x - 0.5) ** 2)"),
        (0.8, 0.2),
        (
            ("gradient", 1, "4 * exp(-80 * (x + 0.5) ** 2)"),
            ("force", 0, "-4 * (8 * x ** 7 - 160 * theta[0] * x * exp(-80 * x * x))"),
        ),
    ),
    "muller-brown": muller_brown(),
    "three-holes": three_holes(),
    # Wolfe & Quapp's surface: Quapp, J. Chem. Phys. 122, 174106 (2005).
    "wolfe-quapp": Case(
        "x[0] ** 4 + x[1] ** 4 - 2 * x[0] ** 2 - 4 * x[1] ** 2 + theta[1] * x[0] * x[1] + theta[0] * x[0] + 0.1 * x[1]",
        (
            "-(4 * x[0] ** 3 - 4 * x[0] + theta[1] * x[1] + theta[0])",
            "-(4 * x[1] ** 3 - 8 * x[1] + theta[1] * x[0] + 0.1)",
        ),
        ("x[0]", "x[0] * x[1]"),
        (0.3, 1.0),
        (
            ("force", 1, "-(4 * x[1] ** 3 - 8 * x[1] + theta[1] * x[0])"),
            ("force", 0, "-(4 * x[0] ** 3 - 4 * x[0] + theta[1] * x[0] + theta[0])"),
            ("gradient", 0, "x[1]"),
        ),
    ),
    # The banana of Goodman & Weare, Comm. App. Math. Comp. Sci. 5, 65 (2010), Sect. 4.
    "rosenbrock": Case(
        "(100 * (x[1] - x[0] ** 2) ** 2 + (theta[0] - x[0]) ** 2) / 20",
        ("(400 * x[0] * (x[1] - x[0] ** 2) + 2 * (theta[0] - x[0])) / 20", "-10 * (x[1] - x[0] ** 2)"),
        ("0.1 * (theta[0] - x[0])",),
        (1.0,),
        (("force", 0, "400 * x[0] * (x[1] - x[0] ** 2) / 20"), ("force", 1, "-10 * (x[0] - x[1] ** 2)")),
    ),
    # Morse, Phys. Rev. 34, 57 (1929), Eq. 4, pulled by a soft trap as in force spectroscopy.
    "morse": Case(
        "theta[0] * (1 - exp(-theta[1] * (x - 1))) ** 2 + 0.5 * theta[2] * (x - 1.5) ** 2",
        (
            "-2 * theta[0] * theta[1] * (1 - exp(-theta[1] * (x - 1))) * exp(-theta[1] * (x - 1))"
            " - theta[2] * (x - 1.5)",
        ),
        (
            "(1 - exp(-theta[1] * (x - 1))) ** 2",
            "2 * theta[0] * (x - 1) * (1 - exp(-theta[1] * (x - 1))) * exp(-theta[1] * (x - 1))",
            "0.5 * (x - 1.5) ** 2",
        ),
        (10.0, 2.0, 0.5),
        (
            ("force", 0, "-2 * theta[0] * theta[1] * (1 - exp(-theta[1] * (x - 1))) * exp(-theta[1] * (x - 1))"),
            ("gradient", 1, "theta[0] * (x - 1) * (1 - exp(-theta[1] * (x - 1))) * exp(-theta[1] * (x - 1))"),
        ),
    ),
    # Lennard-Jones with powers as users write them, between two particles on a spring.
    "lennard-jones": Case(
        f"theta[0] * {BOND} + 0.5 * theta[1] * x * x",
        ("theta[0] * 24 * (2 * x ** -13 - x ** -7) - theta[1] * x",),
        (BOND, "0.5 * x * x"),
        (1.0, 0.2),
        (("force", 0, "theta[0] * 24 * (x ** -13 - x ** -7) - theta[1] * x"), ("gradient", 0, "4 * x ** -12")),
    ),
    # Argon, J and m: Rahman, Phys. Rev. 136, A405 (1964); a cage for the second atom.
    "argon": Case(
        "theta[0] * 4 * ((theta[1] / x) ** 12 - (theta[1] / x) ** 6) + 0.5 * 1e-2 * x * x",
        ("theta[0] * 24 * (2 * (theta[1] / x) ** 12 - (theta[1] / x) ** 6) / x - 1e-2 * x",),
        (
            "4 * ((theta[1] / x) ** 12 - (theta[1] / x) ** 6)",
            "theta[0] * 24 * (2 * (theta[1] / x) ** 12 - (theta[1] / x) ** 6) / theta[1]",
        ),
        (1.65e-21, 3.4e-10),
        (("force", 0, "theta[0] * 24 * (2 * (theta[1] / x) ** 12 - (theta[1] / x) ** 6) / x"),),
        KT,
    ),
    # A bond of Kremer & Grest, J. Chem. Phys. 92, 5057 (1990), Eqs. 2 and 3: FENE and Lennard-Jones.
    "fene": Case(
        f"(-0.5 * theta[0] * 2.25 * log(1 - x * x / 2.25) + {BOND}) if x > 0 else inf",
        ("-theta[0] * x / (1 - x * x / 2.25) + 24 * (2 * x ** -13 - x ** -7)",),
        ("-0.5 * 2.25 * log(1 - x * x / 2.25)",),
        (30.0,),
        (("force", 0, "-theta[0] * x + 24 * (2 * x ** -13 - x ** -7)"), ("gradient", 0, "-log(1 - x * x / 2.25)")),
    ),
    # A washboard, Risken (1989), Chap. 11, in a wide trap.
    "washboard": Case(
        "-theta[0] * cos(x) - theta[1] * x + 0.005 * x * x",
        ("-theta[0] * sin(x) + theta[1] - 0.01 * x",),
        ("-cos(x)", "-x"),
        (3.0, 0.1),
        (("force", 0, "-theta[0] * sin(x) + theta[1]"), ("force", 0, "-theta[0] * cos(x) + theta[1] - 0.01 * x")),
    ),
    # A corner: Touchette, Van der Straeten & Just, J. Phys. A 43, 445002 (2010); arXiv 1506.05978.
    "v": Case(
        "theta[0] * abs(x - theta[1])",
        ("-theta[0] * copysign(1.0, x - theta[1])",),
        ("abs(x - theta[1])", "-theta[0] * copysign(1.0, x - theta[1])"),
        (1.0, 0.5),
        (("force", 0, "-theta[0] * copysign(1.0, x)"), ("gradient", 1, "theta[0]")),
    ),
    # Two levels that repel, one mode of Dyson's gas: Dyson, J. Math. Phys. 3, 1191 (1962).
    "dyson": Case(
        "-theta[0] * log(abs(x)) + 0.5 * theta[1] * x * x",
        ("theta[0] / x - theta[1] * x",),
        ("-log(abs(x))", "0.5 * x * x"),
        (2.0, 1.0),
        (("force", 0, "theta[0] / abs(x) - theta[1] * x"), ("gradient", 0, "-log(x * x)")),
    ),
    # Calogero, J. Math. Phys. 10, 2191 (1969): inverse square in a trap.
    "calogero": Case(
        "theta[0] / x ** 2 + 0.5 * theta[1] * x * x",
        ("2 * theta[0] / x ** 3 - theta[1] * x",),
        ("1 / x ** 2", "0.5 * x * x"),
        (1.0, 1.0),
        (("force", 0, "theta[0] / x ** 3 - theta[1] * x"), ("gradient", 0, "1 / x")),
    ),
    # Power-law tails of atoms in an optical lattice: Lutz, Phys. Rev. A 67, 051402 (2003).
    "student": Case(
        "0.5 * (theta[0] + 1) * log(1 + x * x / theta[0])",
        ("-(theta[0] + 1) * x / (theta[0] + x * x)",),
        ("0.5 * log(1 + x * x / theta[0]) - 0.5 * (theta[0] + 1) * x * x / (theta[0] * (theta[0] + x * x))",),
        (3.0,),
        (("force", 0, "-theta[0] * x / (theta[0] + x * x)"), ("gradient", 0, "0.5 * log(1 + x * x / theta[0])")),
    ),
    # Two normals in the plane: Bishop, Pattern Recognition and Machine Learning (2006), Sect. 2.3.9.
    "mixture": Case(
        f"-log({MIX})",
        tuple(
            f"-(theta[0] * {A} * (x[{k}] - {c}) / 0.3 + (1 - theta[0]) * {B} * (x[{k}] - {e}) / 0.8) / ({MIX})"
            for k, c, e in ((0, "-1", 1.5), (1, "theta[1]", 0))
        ),
        (f"-({A} - {B}) / ({MIX})", f"-theta[0] * {A} * (x[1] - theta[1]) / 0.3 / ({MIX})"),
        (0.4, 0.7),
        (("gradient", 0, f"-{A} / ({MIX})"), ("gradient", 1, f"-theta[0] * {A} * (x[0] - theta[1]) / 0.3 / ({MIX})")),
    ),
    # Rouse, J. Chem. Phys. 21, 1272 (1953): beads on springs, the first held, the last pulled.
    "rouse": Case(
        "0.5 * theta[0] * (x[0] ** 2 + (x[1] - x[0]) ** 2 + (x[2] - x[1]) ** 2) - theta[1] * x[2]",
        (
            "-theta[0] * (2 * x[0] - x[1])",
            "-theta[0] * (2 * x[1] - x[0] - x[2])",
            "-theta[0] * (x[2] - x[1]) + theta[1]",
        ),
        ("0.5 * (x[0] ** 2 + (x[1] - x[0]) ** 2 + (x[2] - x[1]) ** 2)", "-x[2]"),
        (2.0, 0.7),
        (
            ("force", 1, "-theta[0] * (2 * x[1] - x[0])"),
            ("force", 0, "-theta[0] * (2 * x[0] - x[2])"),
            ("gradient", 1, "-x[1]"),
        ),
    ),
    # Coupled bistable sites: Berglund, Fernandez & Gentz, Nonlinearity 20, 2551 (2007), Eq. 1.2.
    "phi-4": Case(
        " + ".join(f"theta[0] * (0.25 * x[{i}] ** 4 - 0.5 * x[{i}] ** 2)" for i in range(3))
        + " + 0.25 * theta[1] * ((x[0] - x[1]) ** 2 + (x[1] - x[2]) ** 2 + (x[2] - x[0]) ** 2)",
        tuple(
            f"theta[0] * (x[{i}] - x[{i}] ** 3) - 0.5 * theta[1] * (2 * x[{i}] - x[{(i + 1) % 3}] - x[{i - 1}])"
            for i in range(3)
        ),
        (
            " + ".join(f"0.25 * x[{i}] ** 4 - 0.5 * x[{i}] ** 2" for i in range(3)),
            "0.25 * ((x[0] - x[1]) ** 2 + (x[1] - x[2]) ** 2 + (x[2] - x[0]) ** 2)",
        ),
        (6.0, 0.5),
        (
            ("force", 2, "theta[0] * (x[2] - x[2] ** 3) - 0.5 * theta[1] * (2 * x[2] - x[1])"),
            ("gradient", 1, "0.25 * ((x[0] - x[1]) ** 2 + (x[1] - x[2]) ** 2)"),
        ),
    ),
    # Toda, J. Phys. Soc. Jpn. 22, 431 (1967): an exponential spring.
    "toda": Case(
        "theta[0] / theta[1] * exp(-theta[1] * x) + theta[0] * x",
        ("theta[0] * exp(-theta[1] * x) - theta[0]",),
        ("exp(-theta[1] * x) / theta[1] + x", "-theta[0] / theta[1] * exp(-theta[1] * x) * (x + 1 / theta[1])"),
        (2.0, 1.5),
        (
            ("force", 0, "theta[0] * exp(-theta[1] * x)"),
            ("gradient", 1, "-theta[0] / theta[1] * exp(-theta[1] * x) * x"),
        ),
    ),
    # A colloid above a wall, J and m: Prieve, Adv. Colloid Interface Sci. 82, 93 (1999), Eq. 11.
    "colloid": Case(
        "theta[0] * exp(-x / 2e-8) + theta[1] * x",
        ("theta[0] / 2e-8 * exp(-x / 2e-8) - theta[1]",),
        ("exp(-x / 2e-8)", "x"),
        (500 * KT, 1e-13),
        (("force", 0, "theta[0] * exp(-x / 2e-8) - theta[1]"), ("force", 0, "theta[0] / 2e-8 * exp(-x / 2e-8)")),
        KT,
    ),
    # A column of air above a hard floor: Perrin's sedimentation.
    "barometer": Case("theta[0] * x if x > 0 else inf", ("-theta[0]",), ("x",), (2.0,), (("gradient", 0, "x - 1"),)),
    # Huber's loss made smooth: Charbonnier et al., IEEE Trans. Image Process. 6, 298 (1997).
    "charbonnier": Case(
        "theta[0] * sqrt(1 + (x / theta[1]) ** 2)",
        ("-theta[0] * x / (theta[1] ** 2 * sqrt(1 + (x / theta[1]) ** 2))",),
        ("sqrt(1 + (x / theta[1]) ** 2)", "-theta[0] * x * x / (theta[1] ** 3 * sqrt(1 + (x / theta[1]) ** 2))"),
        (3.0, 0.7),
        (("force", 0, "-theta[0] * x / (theta[1] * sqrt(1 + (x / theta[1]) ** 2))"),),
    ),
    # What a molecular-mechanics energy looks like: a constant of -10^8 kT.
    "offset": Case(
        "theta[0] * (x * x - 1) ** 2 + theta[1] * x - 1e8",
        ("-4 * theta[0] * x * (x * x - 1) - theta[1]",),
        ("(x * x - 1) ** 2", "x"),
        (2.0, 0.3),
        (("force", 0, "-4 * theta[0] * x * (x * x - 1)"), ("gradient", 0, "(x * x - 1)")),
    ),
}
