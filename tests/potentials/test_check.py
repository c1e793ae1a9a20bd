"""The check of potentials: those of the field's textbooks pass, in any units, and wrong derivatives do not."""

import math
from dataclasses import replace

import numpy as np
import pytest

from textbook import CASES
from thermorun import free_energy, learning, metric
from thermorun.errors import InputError
from thermorun.potentials import NAMES, check, load, trap


def refusal(potential, theta, beta):
    """What the check says; nothing where a potential passes."""
    try:
        check(potential, theta, beta=beta)
    except InputError as error:
        return str(error)
    return "passed"


@pytest.mark.parametrize("name", CASES)
def test_textbook_potentials_pass_and_their_mutations_do_not(name):
    case = CASES[name]
    potential = case.made(name)
    check(potential, beta=1 / case.kt)
    for number, (what, index, text) in enumerate(case.mutations, 1):
        said = refusal(potential, (*case.theta, float(number)), 1 / case.kt)
        part = what if what == "force" and potential.dimension == 1 else f"{what}[{index}]"
        assert said.startswith(f"{part} of {name} is not "), f"{what}[{index}] = {text}: {said}"
        assert "\n" not in said


def test_the_list_is_long_enough():
    assert len(CASES) >= 25
    assert sum(len(case.mutations) for case in CASES.values()) >= 100


@pytest.mark.parametrize("name", NAMES)
def test_built_in_potentials_pass(name):
    potential = load(name)
    for theta in (potential.theta, potential.target):
        check(potential, theta)
    check(potential, beta=300.0)


def test_a_trap_passes_far_out():
    for centre in (6000.0, -1e9, 1e-9):
        check(trap, (centre,))


def broken(**fields):
    return replace(load("double-well"), name="mine", **fields)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        (
            {"energy": lambda x, t: t[0] * x**3 + t[1] * x, "force": lambda x, t: -3 * t[0] * x**2 - t[1],
             "gradient": lambda x, t: (x**3, x)},
            "energy of mine does not confine x: it is -1e+57 at x = -1e+19 and ",
        ),
        (
            {"energy": lambda x, t: 0.0 * t[0], "force": lambda x, t: 0.0 * x, "gradient": lambda x, t: (0.0, 0.0)},
            "energy of mine does not confine x: it is 0 at x = ",
        ),
        ({"energy": lambda x, t: math.nan * t[0]}, "energy of mine is not finite at theta = (1, 0)."),
        ({"force": lambda x, t: math.sqrt(x) + t[0]}, "force of mine is not finite at x = -"),
        ({"energy": lambda x, t: t[0] * x * x + 1e30}, "differences of kT are lost in rounding; leave the constant"),
        ({"force": lambda x, t: t[7]}, "the functions of mine do not compile"),
    ],
)  # fmt: skip
def test_what_cannot_run_is_one_sentence(fields, sentence):
    with pytest.raises(InputError) as caught:
        check(broken(**fields))
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_subject_checks_a_potential_that_it_is_given():
    """As an object too, not in a file: before any work, at the run's own theta and temperature."""
    wrong = broken(gradient=lambda x, t: ((x * x - 1.0) ** 2, 2 * x))
    for begin in (free_energy.measure, learning.drive, learning.learn, metric.measure):
        with pytest.raises(InputError, match=r"gradient\[1\] of mine is not the derivative of its energy by tilt: "):
            begin(wrong, show_progress=False)


def test_a_parameter_that_is_zero_may_be_of_any_unit():
    """Joule at room temperature: a tilt of one kT is 4e-21."""
    kt = 4.11e-21
    check(broken(gradient=lambda x, t: ((x * x - 1.0) ** 2, x)), (4 * kt, 0.0), beta=1 / kt)
    with pytest.raises(InputError, match=r"gradient\[1\] of mine is not the derivative"):
        check(broken(gradient=lambda x, t: ((x * x - 1.0) ** 2, 2 * x)), (4 * kt, 0.0), beta=1 / kt)


def test_a_length_below_all_lengths_is_told():
    with pytest.raises(InputError, match="energy of trap at theta = 0 rises by more than 30 kT within a length of 1e-"):
        check(trap, beta=1e300)


def test_the_temperature_decides_where_to_look():
    """Wrong beyond 100 in units of x: seen by particles at kT = 1e4, and by none at kT = 1."""
    steep = broken(
        energy=lambda x, t: 0.5 * t[0] * x * x + t[1] * x,
        force=lambda x, t: -t[0] * x - t[1] + (1.0 if abs(x) > 100 else 0.0),
        gradient=lambda x, t: (0.5 * x * x, x),
    )
    check(steep)
    with pytest.raises(InputError, match="force of mine is not minus the derivative of its energy by x: at x = "):
        check(steep, beta=1e-4)
    with pytest.raises(InputError, match=r"beta is 0; it must be a positive finite number\."):
        check(steep, beta=0)


def test_integer_powers_of_zero_are_infinite():
    potential = broken(energy=lambda x, t: t[0] * x**-12 + x * x, gradient=lambda x, t: (x**-12, x))
    x = np.array([-1.0, 0.0, 0.5])
    np.testing.assert_array_equal(potential.energies(x, (1.0, 0.0)), [2.0, np.inf, 4096.25])
