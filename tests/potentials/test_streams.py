"""Random streams: no two purposes, replicas, dimensions, calls, rows or batches share one."""

import itertools
from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest

from helpers import z_score
from thermorun import streams
from thermorun.errors import InputError
from thermorun.potentials import Driven, System, chain, double_well, gaussian, stiffness
from thermorun.potentials.dynamics import MOST_STEPS
from thermorun.streams import Noise, Streams

LABELS = ("discontinuous", "slow-driving", "continuous", "constant", "straight-line", "natural", "scalar", "gradient")


class Recorder(Streams):
    """Streams that remember which of them were drawn from, and in calls at which step."""

    taken: ClassVar[list[tuple[int, int, int | None]]] = []

    def take(self, count=1):
        self.taken.append((self.first, count, None))
        return super().take(count)

    def call(self, number):
        seed, stream, step = super().call(number)
        self.taken[-1] = (int(stream), 1, step)
        return seed, stream, step


@pytest.fixture
def recorded(monkeypatch):
    """The list of what is drawn from, under a seed whose streams remember it."""
    monkeypatch.setattr(Recorder, "taken", [])
    return Recorder.taken


def disjoint(ranges):
    """Whether no two of the ranges (first, count, step or None) meet; those at two steps of one stream do not."""
    ranges = sorted(ranges, key=lambda one: (one[0], -1 if one[2] is None else one[2]))
    for (first, count, step), (other, _, other_step) in itertools.pairwise(ranges):
        if other < first + count and (step is None or other_step is None or step == other_step):
            return False
    return True


def whole(*parts):
    return [(part.first, part.count, None) for part in parts]


def halves(noises):
    return whole(*(part for noise in noises for part in (noise.start, noise.dynamics)))


def test_the_test_sees_what_meets():
    assert disjoint([(0, 64, None), (64, 1, 0), (64, 1, 1)])
    assert not disjoint([(0, 65, None), (64, 1, 0)])
    assert not disjoint([(64, 1, 1), (64, 1, 1)])


def test_tables_of_all_subjects_are_disjoint():
    purposes = [streams.trap(3, purpose, label) for purpose in ("dynamics", "start", "minibatch") for label in LABELS]
    assert disjoint(whole(*purposes, streams.trap(3, "data", "")))
    purposes = [streams.learn(3, purpose, rule) for purpose in ("dynamics", "side") for rule in LABELS]
    assert disjoint(whole(*purposes, streams.learn(3, "data", "")))
    points = [streams.metric_point(3, n, pilot) for n in (0, 1, 2, 2**30 - 1) for pilot in (False, True)]
    drives = [streams.metric_drive(3, n) for n in (0, 1, 2**30 - 1)]
    assert disjoint(halves(points + drives))
    assert disjoint(halves(streams.free_energy(3, direction) for direction in (0, 1)))
    devices = [streams.device(3, purpose, n) for purpose in ("spread", "mutant", "test") for n in (0, 1, 4095)]
    shots = [streams.shot(3, n) for n in (0, 1, 2**32 - 1)]
    adjoint = [streams.adjoint(3, one, n) for one in ("noise", "distortion", "parameters") for n in (0, 1, 2**32 - 1)]
    teaching = [streams.teaching(3, n) for n in (0, 1, 2**31)]
    purposes = ("codes", "noising", "preparing", "generating", "resetting", "film")
    generative = [streams.generative(3, purpose, n) for purpose in purposes for n in (0, 1, 2**32 - 1)]
    others = [streams.watch(3), streams.portrait(3), streams.adjoint(3, "start"), *generative]
    assert disjoint(whole(*others, *shots, *devices, *adjoint, *teaching))
    purposes = ("search", "check", "result", "target", "waves")
    assert disjoint(halves(streams.protocol(3, purpose, n) for purpose in purposes for n in (0, 1, 2**28 - 1)))
    cycles = ("chain", "batch", "start", "markov", "diagnostics", "fantasies", "portrait")
    assert disjoint(whole(*(streams.cycles(3, purpose) for purpose in cycles)))


@pytest.mark.parametrize("dimension", [1, 8, 64, 65, 100, 256, 257])
def test_rows_and_batches_are_disjoint(dimension):
    noise = streams.free_energy(0, 1)
    for cut in (noise.row, noise.batch):
        parts = [cut(index, dimension) for index in (0, 1, 2, 1000)]
        assert disjoint(halves(parts))
        for part in parts:
            part.dynamics.take(dimension)
            part.start.replica(0)


def test_parts_lie_in_the_whole_and_apart():
    rng = np.random.default_rng(1)
    for _ in range(200):
        mine = Streams(1, int(rng.integers(2**40)), int(rng.integers(1, 2**20)))
        size = int(rng.integers(1, mine.count + 1))
        most = mine.count // size
        parts = [mine.part(index, size) for index in sorted({0, most // 2, most - 1})]
        assert disjoint(whole(*parts))
        assert all(mine.first <= part.first <= mine.first + mine.count - size for part in parts)
        for index, wide in ((most, size), (0, mine.count + 1), (-1, size)):
            with pytest.raises(InputError, match=r"random streams each, of \d+ that there are; take fewer replicas"):
                mine.part(index, wide)


def test_calls_of_a_generator_never_meet():
    for mine in (Streams(1).replica(3), Streams(1, 7, 3), Streams(1, 5, 1)):
        calls = [mine.call(number) for number in range(300)]
        assert len(set(calls)) == 300
        assert {int(stream) for _, stream, _ in calls} <= set(range(mine.first, mine.first + mine.count))


@pytest.mark.parametrize(("potential", "integrator"), [(gaussian, "exact"), (double_well, "heun")])
def test_an_ensemble_takes_every_stream_once(potential, integrator, recorded):
    system, noise = System(potential), Noise.of(Recorder(5, 0, 2**32))
    x = system.equilibrium(potential.theta, 16, replicas=3, seed=noise)
    system.drive(x, [potential.theta, potential.theta], dt=0.001, integrator=integrator, seed=noise)
    assert recorded[-1] == (noise.dynamics.first, 3 * potential.dimension, None)
    assert len(recorded) >= 4
    assert disjoint(recorded)


def test_replicas_of_a_hundred_dimensions_are_independent():
    x = System(chain(100)).equilibrium((1, 0, 0), 2048, replicas=2, seed=1)
    both = np.concatenate(x)
    assert len(np.unique(both[:, 0])) == 200
    correlations = np.corrcoef(both)[:100, 100:]
    assert np.max(np.abs(correlations)) < 5.5 / np.sqrt(2048)
    np.testing.assert_allclose(np.mean(both**2), 1.0, atol=4 * np.sqrt(2 / both.size))


def seventy_two(theta, beta, uniform):
    """Normals of which each is made of 72 uniforms."""
    return (sum(uniform() for _ in range(72)) - 36)[:, None] / np.sqrt(6 * beta * theta[0])


def test_a_generator_that_is_called_often_has_replicas_of_its_own():
    system = System(replace(stiffness, name="mine", sample=seventy_two))
    x = system.equilibrium((1.0,), 2**14, replicas=3, seed=2)[:, 0]
    assert abs(z_score(x.ravel() ** 2, 1.0)) < 4
    for first, second in itertools.combinations(x, 2):
        assert abs(np.corrcoef(first, second)[0, 1]) < 4 / np.sqrt(2**14)


def test_going_on_takes_fresh_noise():
    """A driven ensemble knows its step: cut anywhere, it is the same to the last bit, and stays in equilibrium."""
    system, path = System(stiffness), np.ones((41, 1))
    x = system.equilibrium((1.0,), 2**14, seed=3)
    at_once = system.drive(x, path, dt=0.1, integrator="exact", seed=3)
    driven = x
    for first in range(0, 40, 10):
        driven = system.drive(driven, path[first : first + 11], dt=0.1, integrator="exact", seed=3)
    assert driven.steps == at_once.steps == 40
    for name in ("x", "work", "heat"):
        np.testing.assert_array_equal(getattr(driven, name), getattr(at_once, name))
    assert abs(z_score(driven.x.ravel() ** 2, 1.0)) < 4


def test_steps_end_before_noise_repeats():
    system, nothing = System(stiffness), np.zeros((1, 8))
    late = Driven(np.zeros((1, 1, 8)), nothing, nothing, np.array([], np.intp), {}, MOST_STEPS - 2)
    assert system.drive(late, np.ones((3, 1)), dt=0.1).steps == MOST_STEPS
    with pytest.raises(InputError, match="path asks for steps up to 4294967298; noise repeats itself beyond"):
        system.drive(late, np.ones((6, 1)), dt=0.1)
