"""Gradients through the noise against a plain twin, central differences, PyTorch, and themselves; distorted pictures
against their twin and SciPy; Adam's step against its twin."""

import hashlib
import math
from typing import NamedTuple

import numpy as np
import pytest
from scipy import ndimage

import naive
from helpers import kernel_normals, symmetric
from thermokernels.adjoint import backward, forward, segments, stride
from thermokernels.moments import Step, adam
from thermokernels.network import dense, simulate
from thermokernels.pictures import distort
from thermorun.computer.adjoint import LimitedPhysics
from thermorun.computer.machine import KernelPhysics

SEED, STREAM = 2**63 + 7, 2**40 + 3
NOISE = (np.uint64(SEED), np.uint64(STREAM))
PHYSICS = LimitedPhysics(J2=0.8, J4=0.6, mobility=1.3, kT=0.7, dt=0.01, limit=math.inf)

# Relative to the largest of each array.
dtypes = pytest.mark.parametrize(("dtype", "bound"), [(np.float32, 1e-5), (np.float64, 1e-13)])


def start_and_fields(trajectories, units, dtype=np.float64):
    rng = np.random.default_rng(trajectories)
    return tuple(rng.normal(0.0, scale, (trajectories, units)).astype(dtype) for scale in (0.3, 1.0))


def end_of(start, fields, couplings, physics, first, steps):
    """The kernel's forward pass: states at the end of every segment, and status."""
    marks = np.full((segments(steps), *start.shape), np.nan, start.dtype)
    status = np.zeros(len(start), np.int64)
    forward(start, marks, status, fields, couplings.astype(start.dtype), physics, (first, steps), NOISE)
    return marks, status


def gradient(start, fields, couplings, physics, first, steps, slopes):
    """The kernels, as the twin: the end, and the gradient at the start, in the fields and in the couplings."""
    marks, _ = end_of(start, fields, couplings, physics, first, steps)
    at_start, units = slopes.copy(), start.shape[1]
    of_fields, of_couplings = np.full_like(start, np.nan), np.full((units, units), np.nan)
    backward(
        start, marks, at_start, fields, couplings.astype(start.dtype), physics, (first, steps), NOISE, of_fields,
        of_couplings,
    )  # fmt: skip
    return marks[-1], at_start, of_fields, of_couplings


# --- Twins -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("trajectories", "units", "steps", "limit"),
    [(1, 1, 7, math.inf), (64, 16, 1, 0.5), (65, 17, 30, math.inf), (203, 37, 20, 1.0), (4170, 2, 3, math.inf)],
)
@dtypes
def test_gradient_is_the_twin(trajectories, units, steps, limit, dtype, bound):
    """With one segment and with several; where trajectories are cut off and where they are not."""
    start, fields = start_and_fields(trajectories, units, dtype)
    start, physics = np.clip(start, -0.99 * limit, 0.99 * limit), PHYSICS._replace(limit=limit)
    slopes = np.random.default_rng(1).normal(size=start.shape).astype(dtype)
    couplings = symmetric(units).astype(dtype)
    mine = gradient(start, fields, couplings, physics, 1000, steps, slopes)
    twin = naive.adjoint(
        *(array.astype(float) for array in (start, fields, couplings)), physics, 1000, steps, SEED, STREAM,
        slopes.astype(float), kernel_normals,
    )  # fmt: skip
    for one, other in zip(mine, twin, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=bound * np.max(np.abs(other), initial=1e-300))
    assert np.any(np.abs(mine[0]) == limit) == (limit < 2)


def test_without_a_limit_steps_are_those_of_the_network():
    start, fields = start_and_fields(130, 20)
    couplings, x = symmetric(20), start.copy()
    simulate(
        x, np.zeros(130), np.zeros(130, np.int64), fields, dense(couplings), KernelPhysics(*PHYSICS[:5]), (50, 30),
        NOISE, np.empty(0, np.intp), np.empty((0, 130, 20)),
    )  # fmt: skip
    marks, status = end_of(start, fields, couplings, PHYSICS, 50, 30)
    np.testing.assert_allclose(marks[-1], x, rtol=0, atol=1e-13)
    assert not status.any()


# --- Gradients are what they say -------------------------------------------------------------------------------------


class Parts(NamedTuple):
    """A machine without pixels: fields are b + W u."""

    W: np.ndarray
    b: np.ndarray
    J: np.ndarray


def small(units=10, inputs=4, trajectories=70):
    rng = np.random.default_rng(3)
    u = rng.normal(size=(trajectories, inputs))
    return Parts(rng.normal(size=(units, inputs)), rng.normal(size=units), symmetric(units)), u


def loss(parts, u, steps, labels):
    """Cross-entropy of the last three units, of the twin's own trajectories."""
    start = np.zeros((len(u), len(parts.b)))
    fields = u @ parts.W.T + parts.b
    x = naive.simulate(start, fields, parts.J, PHYSICS, 0, steps, SEED, STREAM, (), kernel_normals)[0]
    logits = 1.7 * x[:, -3:]
    return np.mean(np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(u)), labels])


def of_parts(parts, u, steps, labels, dtype=np.float64):
    """The kernels' gradient of the same."""
    start, fields = np.zeros((len(u), len(parts.b)), dtype), (u @ parts.W.T + parts.b).astype(dtype)
    marks, _ = end_of(start, fields, parts.J, PHYSICS, 0, steps)
    slopes = np.zeros_like(start)
    shares = np.exp(1.7 * marks[-1][:, -3:].astype(float))
    shares /= shares.sum(axis=1, keepdims=True)
    shares[np.arange(len(u)), labels] -= 1.0
    slopes[:, -3:] = 1.7 * shares / len(u)
    _, _, of_fields, of_couplings = gradient(start, fields, parts.J, PHYSICS, 0, steps, slopes)
    return Parts(of_fields.T.astype(float) @ u, of_fields.sum(axis=0), of_couplings)


def test_gradient_is_that_of_central_differences():
    """To 1e-6 of the largest, in float64; a coupling acts both ways."""
    parts, u = small()
    labels, steps, h = np.arange(len(u)) % 3, 12, 1e-4
    mine = of_parts(parts, u, steps, labels)
    for name in Parts._fields:
        found = getattr(mine, name)
        for place in np.ndindex(found.shape):
            if name == "J" and place[0] <= place[1]:
                continue
            ends = []
            for sign in (1, -1):
                moved = getattr(parts, name).copy()
                moved[place] += sign * h
                if name == "J":
                    moved[place[::-1]] += sign * h
                ends.append(loss(parts._replace(**{name: moved}), u, steps, labels))
            assert found[place] == pytest.approx((ends[0] - ends[1]) / (2 * h), abs=1e-6 * np.abs(found).max())
    np.testing.assert_array_equal(mine.J, mine.J.T)


@dtypes
def test_gradient_is_that_of_pytorch(dtype, bound):
    """On the same noise, and the same loss: to 1e-5, in float64 to rounding."""
    torch = pytest.importorskip("torch", reason="PyTorch's autograd is the other side of this comparison")
    parts, u = small(units=20)
    labels, steps = np.arange(len(u)) % 3, 30
    W, b, j = (torch.tensor(array, requires_grad=True) for array in (parts.W, parts.b, np.tril(parts.J, -1)))
    x, pull = torch.zeros(len(u), 20, dtype=torch.float64), PHYSICS.mobility * PHYSICS.dt
    for n in range(steps):
        z = torch.tensor(naive.unit_normals(SEED, STREAM, n, len(u), 20, kernel_normals))
        force = torch.tensor(u) @ W.T + b + x @ (j + j.T) + 2 * PHYSICS.J2 * x + 4 * PHYSICS.J4 * x**3
        x = x - pull * force + math.sqrt(2 * pull * PHYSICS.kT) * z
    torch.nn.functional.cross_entropy(1.7 * x[:, -3:], torch.tensor(labels)).backward()
    theirs = (W.grad, b.grad, j.grad.tril(-1) + j.grad.tril(-1).T)
    for mine, other in zip(of_parts(parts, u, steps, labels, dtype), theirs, strict=True):
        other = other.numpy()
        np.testing.assert_allclose(mine, other, rtol=0, atol=bound * np.abs(other).max())


def test_states_kept_are_few():
    """At the ends of all segments but the last, and within one."""
    for steps in (*range(1, 200), 1000, 10_000):
        assert segments(steps) - 1 + stride(steps) <= 2 * math.sqrt(steps)
        assert (segments(steps) - 1) * stride(steps) < steps <= segments(steps) * stride(steps)


# --- Bit-identical however it is run ---------------------------------------------------------------------------------


def results(dtype, trajectories=4170, units=20):
    start, fields = start_and_fields(trajectories, units, dtype)
    return gradient(start, fields, symmetric(units), PHYSICS, 0, 20, np.ones_like(start))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_same_bits_for_any_threads(dtype, on_threads):
    for mine, theirs in zip(on_threads(1, results, dtype), on_threads(2, results, dtype), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_a_trajectory_does_not_notice_what_runs_beside_it():
    many = results(np.float32, 300)[:3]
    for count in (1, 64, 65, 130):
        start, fields = (array[:count] for array in start_and_fields(300, 20, np.float32))
        few = gradient(start, fields, symmetric(20), PHYSICS, 0, 20, np.ones_like(start))
        for mine, theirs in zip(few, many, strict=False):
            np.testing.assert_array_equal(mine, theirs[:count])


def test_what_is_not_finite_is_seen_and_harms_no_other():
    """At the end of the segment; with a limit too, for a NaN is not cut off."""
    start, fields = start_and_fields(130, 20, np.float32)
    for limit in (1.0, math.inf):
        physics = PHYSICS._replace(limit=limit)
        good = end_of(start, fields, symmetric(20), physics, 100, 20)
        wrong, off = fields.copy(), start.copy()
        wrong[66, 2], off[129, 0] = np.nan, np.inf
        bad = end_of(off, wrong, symmetric(20), physics, 100, 20)
        assert not good[1].any()
        assert np.flatnonzero(bad[1]).tolist() == [66, 129]
        assert set(bad[1]) == {0, 100 + stride(20)}
        others = np.delete(np.arange(130), [66, 129])
        np.testing.assert_array_equal(bad[0][:, others], good[0][:, others])


# --- Pictures --------------------------------------------------------------------------------------------------------

STRENGTH, PIXELS = (0.3, 0.1, 0.15), (0.2, 0.4, 11.0)


def distorted(pictures, columns, chosen, strength=STRENGTH, dtype=np.float64, stream=STREAM):
    out = np.full((len(chosen), pictures.shape[1]), np.nan, dtype)
    noise = np.uint64(SEED), np.uint64(stream)
    distort(pictures, columns, np.array(chosen), strength, PIXELS, noise, out)
    return out


@pytest.mark.parametrize(("shape", "dtype"), [((9, 14), np.float64), ((28, 28), np.float32), ((1, 7), np.float64)])
def test_distorted_pictures_are_the_twin_and_scipys(shape, dtype):
    pictures = np.random.default_rng(0).random((20, shape[0] * shape[1])).astype(np.float32)
    chosen = np.random.default_rng(1).integers(20, size=150)
    mine = distorted(pictures, shape[1], chosen, dtype=dtype)
    for p in (0, 63, 64, 149):
        flat = naive.distorted(pictures[chosen[p]].reshape(shape), STRENGTH, PIXELS, SEED, STREAM, p)
        np.testing.assert_allclose(mine[p], flat, rtol=0, atol=2e-5)
        matrix, offset = naive.distortion(shape, STRENGTH, SEED, STREAM, p)
        theirs = ndimage.affine_transform(
            pictures[chosen[p]].reshape(shape).astype(float), matrix, offset, order=1, mode="nearest"
        )
        np.testing.assert_allclose(flat, naive.standardised(theirs, PIXELS), rtol=0, atol=1e-10)


def test_no_distortion_is_none():
    pictures = np.random.default_rng(0).random((5, 63)).astype(np.float32)
    mine = distorted(pictures, 9, range(5), (0.0, 0.0, 0.0))
    for row, picture in zip(mine, pictures, strict=True):
        np.testing.assert_allclose(row, naive.standardised(picture.astype(float), PIXELS), rtol=0, atol=1e-5)
    np.testing.assert_array_equal(distorted(np.zeros((1, 9), np.float32) + np.float32(0.2), 3, [0]), np.zeros((1, 9)))


def test_distortions_have_the_law_that_they_should():
    """Uniform and independent: of many draws, mean, variance and correlations."""
    draws = np.array([naive.distortion_draws(SEED, STREAM, p) for p in range(4000)])
    assert np.abs(draws.mean(axis=0)).max() < 4 / np.sqrt(3 * 4000)
    correlations = np.corrcoef(draws.T) - np.eye(4)
    assert np.abs(correlations).max() < 4 / np.sqrt(4000)
    assert np.abs(draws).max() <= 1


def test_distorted_pictures_have_the_same_bits_for_any_threads(on_threads):
    pictures = np.random.default_rng(0).random((20, 784)).astype(np.float32)
    chosen = np.arange(150) % 20
    np.testing.assert_array_equal(
        on_threads(1, distorted, pictures, 28, chosen), on_threads(2, distorted, pictures, 28, chosen)
    )


# --- Adam ------------------------------------------------------------------------------------------------------------


def moved(dtype, size=9000, steps=3):
    rng = np.random.default_rng(size)
    value, first, second, allowed = rng.normal(size=size), np.zeros(size), np.zeros(size), rng.random(size) < 0.7
    mine = [array.astype(dtype) for array in (value, allowed, first, second)]
    for n in range(1, steps + 1):
        gradient = rng.normal(size=size).astype(dtype)
        rate = 0.1 * np.sqrt(1 - 0.999**n) / (1 - 0.9**n)
        adam(mine[0], gradient, *mine[1:], Step(rate, 0.3, 0.9, 0.999, 1e-8))
        value, first, second = naive.adam(
            value, gradient.astype(float), allowed, first, second, rate, 0.3, (0.9, 0.999), 1e-8
        )
    return (mine[0], *mine[2:]), (value, first, second)


@pytest.mark.parametrize(("dtype", "bound"), [(np.float32, 2e-6), (np.float64, 1e-14)])
def test_adam_is_the_twin(dtype, bound):
    for size in (1, 4096, 9000):
        for mine, twin in zip(*moved(dtype, size), strict=True):
            np.testing.assert_allclose(mine, twin, rtol=0, atol=bound * np.abs(twin).max())


def test_adam_gives_the_same_bits_for_any_threads(on_threads):
    for mine, theirs in zip(on_threads(1, moved, np.float32)[0], on_threads(2, moved, np.float32)[0], strict=True):
        np.testing.assert_array_equal(mine, theirs)


def digest():
    """For the test of what is compiled and loaded in test_jit."""
    sha = hashlib.sha256()
    pictures = np.random.default_rng(0).random((20, 64)).astype(np.float32)
    for array in (*results(np.float32, 70), distorted(pictures, 8, range(20), dtype=np.float32), *moved(np.float32)[0]):
        sha.update(array.tobytes())
    return sha.hexdigest()
