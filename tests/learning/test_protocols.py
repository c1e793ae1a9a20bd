"""Schedules and schemes: equations, preconditions, discretisation."""

import json
import pickle

import numpy as np
import pytest
from scipy.integrate import quad

from thermorun.learning import Path, Tabulated, Trap
from thermorun.learning.trap import exact, protocols
from thermorun.learning.trap.discretisation import default_steps, discretise

TRAP = Trap(mobility=2.0, beta=1.5, tau=3.0, theta0=-1.0, target=0.5)
RATES = {
    "constant": lambda t: 0.7 + 0 * t,
    "continuous": lambda t: 1 / (3.0 - t + 1 / 2.0),
    "slow-driving": lambda t: 1 / (3.0 - t + 1 / 2.0),
    "discontinuous": lambda t: 1 / (3.0 - t + 2 / 2.0),
}


@pytest.mark.parametrize("name", RATES)
def test_rate_is_the_equation_and_integral_its_quadrature(name):
    schedule = protocols.protocol(name, TRAP, eta=0.7)
    t = np.linspace(0, 3, 7)
    np.testing.assert_allclose(schedule.rate(t), RATES[name](t), rtol=1e-14)
    for start, stop in [(0.0, 0.1), (0.3, 2.9), (1.0, 3.0)]:
        assert schedule.integral(start, stop) == pytest.approx(quad(RATES[name], start, stop)[0], rel=1e-12)


def test_impulses_of_the_discontinuous_protocol():
    """Eqs. 36 and 38, with and without u0 = theta0."""
    from_equilibrium = protocols.protocol("discontinuous", TRAP)
    assert from_equilibrium.impulses == ((0.0, 1 / (2.0 * 3.0 + 2)), (3.0, 0.5))
    moved = Trap(2.0, 1.5, 3.0, -1.0, 0.5, u0=-1.5)
    first = protocols.protocol("discontinuous", moved, use_target=True).impulses[0]
    assert first == (0.0, pytest.approx((-1.5 + 1.0) / (0.5 + 1.5) + 1 / 8))
    # Whatever the start, theta lands on the target and u moves at the speed of Eq. 33.
    truth = exact.moments(moved, protocols.protocol("discontinuous", moved, use_target=True), [0, 1, 3, 3])
    assert truth.theta[-1] == pytest.approx(0.5)
    assert truth.u[1] == pytest.approx(-1.5 + exact.optimal_speed(2.0, 3.0, 0.5, -1.5))


def test_tabulated_equals_the_function_it_tabulates():
    impulses = [(1.0, 0.25), (2.5, -0.1)]
    table = Tabulated.of(lambda t: 1 / (3.5 - t), 3.0, impulses)
    closed = protocols.Continuous(tau=3.0, delay=0.5, impulses=tuple(impulses))
    t = np.sort(np.random.default_rng(0).uniform(0, 3, 50))
    np.testing.assert_allclose(table.rate(t), closed.rate(t), rtol=1e-6)
    np.testing.assert_allclose(table.integral(t[:-1], t[1:]), closed.integral(t[:-1], t[1:]), rtol=1e-6)
    assert Tabulated.of([1.0, 3.0], 2.0).integral(0.0, 1.5) == pytest.approx(1.5 + 1.5**2 / 2)


def test_path_jumps_where_a_time_repeats():
    path = Path(times=(0.0, 1.0, 1.0, 2.0), thetas=(0.0, 1.0, 3.0, 3.0))
    np.testing.assert_allclose(path.theta([0, 0.5, 1, 2]), [0, 0.5, 3, 3])
    np.testing.assert_allclose(path.theta([0, 0.5, 1, 2], after=False), [0, 0.5, 1, 3])
    assert path.jumps == (1.0,)


@pytest.mark.parametrize(
    "protocol",
    [
        *(protocols.protocol(name, TRAP) for name in protocols.NAMES),
        Tabulated.of(np.cos, 2.0, [(1.0, 0.5)]),
        Path(times=(0.0, 2.0), thetas=(1.0, 2.0)),
    ],
    ids=lambda protocol: protocol.name,
)
def test_protocols_travel(protocol):
    assert protocols.from_dict(json.loads(json.dumps(protocol.to_dict()))) == protocol
    assert pickle.loads(pickle.dumps(protocol)) == protocol


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Trap(mobility=0.0), "mobility is 0.0"),
        (lambda: Trap(beta=-1.0), "beta is -1.0"),
        (lambda: Trap(tau=float("nan")), "tau is nan"),
        (lambda: Trap(target=float("inf")), "target is inf"),
        (lambda: Trap(u0=float("nan")), "u0 is nan"),
        (lambda: protocols.Constant(tau=1.0, eta=0.0), "eta is 0.0"),
        (lambda: protocols.Constant(tau=1.0, impulses=((2.0, 0.5),)), "impulse time is 2.0"),
        (lambda: protocols.Constant(tau=1.0, impulses=((0.5, float("nan")),)), "impulse strength is nan"),
        (lambda: Tabulated(tau=1.0, times=(0.0, 0.0), rates=(1.0, 1.0)), "strictly ascending"),
        (lambda: Tabulated(tau=1.0, times=(0.0,), rates=(1.0, 2.0)), "rates has 2 entries and times has 1"),
        (lambda: Tabulated.of(lambda t: float("nan"), 1.0), "not finite"),
        (lambda: Path(times=(0.5, 1.0), thetas=(0.0, 1.0)), "from 0 to tau"),
        (lambda: protocols.protocol("best", TRAP), "protocol is 'best'"),
        (lambda: protocols.protocol("continuous", Trap(theta0=1.0, target=1.0)), "theta0 is 1.0, the target itself"),
        (lambda: protocols.protocol("continuous", Trap(u0=-5.0)), "Eq. 31 needs u0 = -0.2"),
        (lambda: protocols.protocol("slow-driving", Trap(u0=0.5)), "slow driving .* must start from equilibrium"),
        (lambda: protocols.protocol("discontinuous", Trap(u0=0.5)), "say use_target"),
        (lambda: protocols.protocol("discontinuous", Trap(u0=1.0), use_target=True), "the target itself"),
        (lambda: discretise(TRAP, protocols.Constant(tau=4.0), 10, "exact"), "tau is 3.0"),
        (lambda: discretise(TRAP, protocols.Constant(tau=3.0), 2, "euler-maruyama"), "take at least 4 steps"),
        (lambda: discretise(TRAP, protocols.Constant(tau=3.0, eta=1e3), 10, "exact"), "unstable"),
        (lambda: default_steps(TRAP, (protocols.Constant(tau=3.0, eta=1e9),)), "shorten tau"),
    ],
)
def test_bad_input_gets_one_sentence(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


@pytest.mark.parametrize(
    ("theta0", "target", "u0"),
    [(0.0, 1.0, 0.5), (0.0, 1.0, 2.0), (0.0, -1.0, -0.5), (0.0, -1.0, -2.0)],
)
def test_orderings_that_eq_31_forbids(theta0, target, u0):
    with pytest.raises(ValueError, match="exists only for"):
        protocols.protocol("continuous", Trap(theta0=theta0, target=target, u0=u0))


def test_impulse_inside_a_step_becomes_a_grid_point():
    schedule = protocols.Constant(tau=1.0, eta=1.0, impulses=((0.25, 0.1), (0.33, 0.2)))
    scheme = discretise(Trap(tau=1.0), schedule, 4, "exact")
    np.testing.assert_allclose(scheme.times, [0, 0.25, 0.33, 0.5, 0.75, 1])
    np.testing.assert_allclose(scheme.impulses, [0, 0.1, 0.2, 0, 0, 0])
    assert scheme.steps[:, 0].sum() == pytest.approx(1.0 + 0.3)
    assert scheme.steps[-1, 1:].tolist() == [0, 0]


@pytest.mark.parametrize(("integrator", "order"), [("exact", 2), ("euler-maruyama", 1)])
@pytest.mark.parametrize("name", protocols.NAMES)
def test_order_of_the_scheme(name, integrator, order):
    """The scheme's own mean, free of noise, against the moment equations, with a fitted order."""
    trap = Trap(mobility=2.0, tau=2.0, theta0=-1.0, target=1.0)
    protocol = protocols.protocol(name, trap, eta=1.5)
    truth = exact.moments(trap, protocol, [0.0, 0.0, 2.0, 2.0])
    steps = np.array([100, 200, 400, 800])
    errors = []
    for count in steps:
        u, theta, work = discretise(trap, protocol, int(count), integrator).mean_field(
            trap, protocols.start(name, trap)
        )
        errors.append(np.abs([work[-1] - truth.work[-1], u[-1] - truth.u[-1]]))
        # Theta is not compared: several protocols end on the target exactly, whatever the step.
        assert abs(theta[-1] - truth.theta[-1]) < 5 / count**order
    slope = -np.polyfit(np.log(steps), np.log(np.maximum(errors, 1e-300)), 1)[0]
    assert slope[0] == pytest.approx(order, abs=0.1)
