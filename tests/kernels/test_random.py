"""Random numbers: known answers, the plain twin, purity, and the laws they should follow."""

import numpy as np
import pytest
from numba import njit, prange
from scipy import special, stats

import naive
from helpers import LEAST_P
from thermokernels._jit import FASTMATH
from thermokernels.random import BLOCK, LANES, _box_muller, fill_block, fill_normals, fill_uniforms, philox_words

SEED, STREAM = 20250731, 7
WIDTH = 2**19
DRAWS = [2**23, pytest.param(2**27, marks=pytest.mark.slow)]
# (seed, stream, step): both halves of every 64-bit word, and all the last values.
ADDRESSES = [
    (0, 0, 0),
    (1, 0, 0),
    (0, 1, 0),
    (0, 0, 1),
    (2**32, 0, 0),
    (0, 2**32, 0),
    (2**63 + 5, 2**32 + 3, 1000),
    (0x123456789ABCDEF0, 0x0FEDCBA987654321, 2**31 + 1),
    (2**64 - 1, 2**64 - 1, 2**32 - 1),
]
# Every address in whole blocks and a part, and every length at one address.
LENGTHS = [1, 2, 511, 512, 513, 1000, 1024, 1025, 5000]
PLACES = [(address, LENGTHS[-1]) for address in ADDRESSES] + [(ADDRESSES[7], length) for length in LENGTHS[:-1]]


def uniforms(seed, stream, step, particles):
    out = np.full(particles, np.nan)
    fill_uniforms(out, np.uint64(seed), np.uint64(stream), step)
    return out


def normals(seed, stream, step, particles, dtype=np.float64):
    out = np.full(particles, np.nan, dtype)
    fill_normals(out, np.uint64(seed), np.uint64(stream), step)
    return out


def philox(counter, key):
    words = np.empty(4, np.uint32)
    philox_words(np.array(counter, np.uint32), np.array(key, np.uint32), words)
    return words.tolist()


# --- Words and uniforms ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("counter", "key", "answer"),
    [
        ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        ([2**32 - 1] * 4, [2**32 - 1] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            [0xA4093822, 0x299F31D0],
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    ],
)
def test_philox_gives_the_published_answers(counter, key, answer):
    """The known-answer vectors of Random123, the generator's reference implementation."""
    assert philox(counter, key) == answer
    assert list(naive.philox4x32(counter, key)) == answer


def test_philox_is_its_definition():
    for words in np.random.default_rng(1).integers(2**32, size=(1000, 6)).tolist():
        assert philox(words[:4], words[4:]) == list(naive.philox4x32(words[:4], words[4:]))


@pytest.mark.parametrize(("address", "particles"), PLACES)
def test_uniforms_are_the_twin(address, particles):
    np.testing.assert_array_equal(uniforms(*address, particles), naive.uniforms(*address, particles))


# --- Normals in single precision -------------------------------------------------------------------------------------
#
# Just below one u = (word + 1/2) / 2^32 rounds to a multiple of 2^-24, so r^2 = -2 ln u may be off by 2^-24 however
# small it is.  Elsewhere the error is in proportion to r, from the polynomials and the cancellation in 1 - 2 sin^2.


def error_bound(r):
    return 1.0e-6 * r + 2.0**-24 / r


ABSOLUTE_BOUND = 2.5e-4  # 2^-12, from words that round to u = 1
RMS_BOUND = 2.0e-7


@njit(parallel=True, fastmath=FASTMATH, error_model="numpy")
def pairs(radius_words, angle_words, out):
    for i in prange(radius_words.size):
        out[0, i], out[1, i] = _box_muller(radius_words[i], angle_words[i])


double_pairs = njit(parallel=True)(naive.box_muller)


def normal_errors(radius_words, angle_words):
    """What the single-precision pairs are off by; every one must be within the bounds."""
    out = np.empty((2, radius_words.size), np.float32)
    pairs(radius_words, angle_words, out)
    errors = np.abs(out - np.array(double_pairs(radius_words, angle_words)))
    radius, _ = naive.box_muller(radius_words, 0)
    assert np.max(errors / error_bound(radius)) < 1.0
    assert np.max(errors) < ABSOLUTE_BOUND
    return errors


def edge_words():
    """Around every power of two, and around where the logarithm changes its exponent, 2^k sqrt(1/2)."""
    centres = [round(scale * 2**k) for k in range(33) for scale in (1.0, 0.5**0.5, 0.75)]
    words = {centre + shift for centre in centres for shift in (-200, -2, -1, 0, 1, 2, 200)}
    return np.array(sorted(word for word in words if 0 <= word < 2**32), np.uint32)


def test_normals_at_edge_words():
    edges = edge_words()
    assert {0, 1, 2**31, 2**32 - 1} <= set(edges.tolist())
    normal_errors(np.repeat(edges, edges.size), np.tile(edges, edges.size))


def test_normals_at_random_words():
    errors = normal_errors(*np.random.default_rng(2).integers(2**32, size=(2, 2**21), dtype=np.uint32))
    assert np.sqrt(np.mean(errors**2)) < RMS_BOUND


@pytest.mark.slow
def test_normals_at_every_word():
    """Every radius and, an odd factor permuting the words, every angle."""
    for start in range(0, 2**32, 2**20):
        words = np.arange(start, start + 2**20, dtype=np.uint32)
        normal_errors(words, words * np.uint32(0x9E3779B1))


def test_the_largest_normal():
    out = np.empty((2, 1), np.float32)
    pairs(np.zeros(1, np.uint32), np.zeros(1, np.uint32), out)
    assert out[0, 0] == pytest.approx(np.sqrt(66.0 * np.log(2.0)), rel=1e-7)


@pytest.mark.parametrize(("address", "particles"), PLACES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_normals_are_the_twin(address, particles, dtype):
    np.testing.assert_allclose(
        normals(*address, particles, dtype), naive.normals(*address, particles), rtol=0, atol=1e-5
    )


# --- Purity ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fill", [uniforms, normals])
def test_same_numbers_for_any_length_order_and_threads(fill, on_threads):
    steps = [3, 0, 2**32 - 1, 1]
    alone = {step: on_threads(1, fill, SEED, STREAM, step, 70_000) for step in steps}
    for step in reversed(steps):
        np.testing.assert_array_equal(on_threads(2, fill, SEED, STREAM, step, 70_000), alone[step])
        for particles in LENGTHS:
            np.testing.assert_array_equal(fill(SEED, STREAM, step, particles), alone[step][:particles])


@pytest.mark.parametrize("block", [0, 1, 67, 2**24 - 1])
def test_one_block_is_a_slice(block):
    """Any 1,024 particles without those before them, up to the last block that a 32-bit lane number reaches."""
    out, rows = np.empty(BLOCK, np.float32), np.empty((2, LANES), np.uint64)
    fill_block(out, rows, np.uint64(SEED), np.uint64(STREAM), block, 5)
    np.testing.assert_array_equal(rows.view(np.uint32), naive.words(SEED, STREAM, 5, block))
    if block < 100:
        np.testing.assert_array_equal(out, normals(SEED, STREAM, 5, 100 * BLOCK)[block * BLOCK :][:BLOCK])


def test_float32_and_float64_are_the_same_numbers():
    np.testing.assert_array_equal(normals(SEED, STREAM, 0, 5000, np.float32), normals(SEED, STREAM, 0, 5000))


def test_other_seeds_streams_steps_and_particles_give_other_numbers():
    """Of n words from 2^32 some n^2 / 2^33 = 0.3 coincide by chance."""
    numbers = [
        uniforms(seed, stream, step, BLOCK)
        for seed in (0, 1, 2**32, 2**64 - 1)
        for stream in (0, 1, 2**32, 2**64 - 1)
        for step in (0, 1, 2**32 - 1)
    ]
    assert np.size(numbers) - np.unique(numbers).size <= 4


# --- Laws ------------------------------------------------------------------------------------------------------------


def chunks(draws, fill=normals, shift=(0, 0, 0)):
    """So many draws, WIDTH at a step; ``shift`` moves (seed, stream, step)."""
    for step in range(draws // WIDTH):
        yield fill(SEED + shift[0], STREAM + shift[1], step + shift[2], WIDTH)


@pytest.mark.parametrize("draws", DRAWS)
def test_moments(draws):
    """Of orders 1 to 6; the k-th power of a normal has mean m_k and variance m_2k - m_k^2."""
    sums = np.zeros(6)
    for z in chunks(draws):
        power = np.ones_like(z)
        for k in range(6):
            power *= z
            sums[k] += power.sum()
    moment = np.array([stats.norm.moment(k) for k in range(13)])
    scores = (sums / draws - moment[1:7]) / np.sqrt((moment[2::2] - moment[1:7] ** 2) / draws)
    assert np.all(np.abs(scores) < 4), scores


@pytest.mark.parametrize("draws", DRAWS)
@pytest.mark.parametrize(("fill", "cdf"), [(uniforms, np.asarray), (normals, special.ndtr)])
def test_distribution(draws, fill, cdf):
    """KS and chi-square on 4,096 bins of equal probability; read at bin edges only, the KS distance is conservative."""
    bins = 4096
    counts = np.zeros(bins)
    for numbers in chunks(draws, fill):
        counts += np.bincount((bins * cdf(numbers)).astype(np.intp), minlength=bins)
    distance = np.max(np.abs(np.cumsum(counts) / draws - np.arange(1, bins + 1) / bins))
    assert stats.kstwobign.sf(distance * np.sqrt(draws)) > LEAST_P
    assert LEAST_P < stats.chisquare(counts).pvalue < 1.0 - LEAST_P


@pytest.mark.parametrize("draws", DRAWS)
def test_tails(draws):
    limits = np.array([3.0, 4.0, 5.0, 6.0])
    above, below = np.zeros(4, int), np.zeros(4, int)
    for z in chunks(draws):
        far = z[np.abs(z) > limits[0], None]
        above += np.sum(far > limits, axis=0)
        below += np.sum(far < -limits, axis=0)
    for counts in (above, below):
        for count, probability in zip(counts, stats.norm.sf(limits), strict=True):
            assert stats.binomtest(count, draws, probability).pvalue > LEAST_P


def products(a, b):
    """Sums with mean zero and variance one a term if a and b are independent: are they, their squares, and mixed."""
    a2, b2 = (a**2 - 1.0) / np.sqrt(2.0), (b**2 - 1.0) / np.sqrt(2.0)
    return np.array([np.dot(a, b), np.dot(a2, b2), np.dot(a, b2), np.dot(a2, b)])


@pytest.mark.parametrize("draws", DRAWS)
@pytest.mark.parametrize("lag", [1, 2, 256, 512, 1024])
def test_neighbours_are_independent(draws, lag):
    """A Box-Muller pair is 512 particles apart, and the words of one call of the generator 1, 512 or 513."""
    total = sum(products(z[:-lag], z[lag:]) for z in chunks(draws))
    scores = total / np.sqrt(draws // WIDTH * (WIDTH - lag))
    assert np.all(np.abs(scores) < 4), scores


@pytest.mark.parametrize("draws", DRAWS)
@pytest.mark.parametrize(
    "shift", [(0, 0, 1), (0, 0, 2), (0, 1, 0), (0, 2**32, 0), (1, 0, 0), (2**32, 0, 0), (1, 1, 1), (0, 1, -1)]
)
def test_steps_streams_and_seeds_are_independent(draws, shift):
    here = chunks(draws, shift=(0, 0, 1))
    there = chunks(draws, shift=(shift[0], shift[1], 1 + shift[2]))
    scores = sum(map(products, here, there)) / np.sqrt(draws)
    assert np.all(np.abs(scores) < 4), scores
