"""The command that measures this machine: what it tells, and that it compares a machine with itself alone."""

import json

import numpy as np
import pytest

from helpers import refused, thermorun
from thermokernels import peaks
from thermorun import benchmark, speeds


@pytest.fixture
def small(monkeypatch):
    """Two kernels and one peer, small, and no processes of their own."""
    wanted = ("normals", "trap, float32")
    chosen = {name: entry for name, entry in benchmark.entries().items() if name in wanted}
    for module in (benchmark, speeds):
        monkeypatch.setattr(module, "PARTICLES", 2**14)
    monkeypatch.setattr(benchmark, "_ROUNDS", 1)
    monkeypatch.setattr(benchmark, "entries", lambda: chosen)
    monkeypatch.setattr(benchmark, "PEERS", {"NumPy": benchmark.PEERS["NumPy"]})
    monkeypatch.setattr(benchmark, "_starts", lambda: (20.0, 2.0))


def test_a_bench_and_another_beside_it(small, tmp_path):
    table = thermorun("bench", "--out", "b.json", folder=tmp_path)
    assert table.returncode == 0
    assert max(map(len, table.stdout.splitlines())) <= 80
    assert (tmp_path / "b.png").stat().st_size > 1000
    report = json.loads((tmp_path / "b.json").read_text())
    rows = {row["name"]: row for row in report["results"]}
    assert report["machine"]["cores"] >= 1
    assert rows["normals"]["unit"] == "ns / normal"
    assert 0 < rows["trap, float32"]["bound"] < 100 * rows["trap, float32"]["value"]
    assert rows["NumPy, float32"]["value"] > rows["trap, float32"]["value"]
    rows["normals"]["value"] *= 1000
    (tmp_path / "slow.json").write_text(json.dumps(report))
    again = thermorun("bench", "--json", "--compare", "slow.json", folder=tmp_path)
    assert {row["name"]: row for row in json.loads(again.stdout)["results"]}["normals"]["ratio"] < 0.5
    report["machine"]["cpu"] = "another"
    (tmp_path / "other.json").write_text(json.dumps(report))
    refused(thermorun("bench", "--compare", "other.json", folder=tmp_path), "of another machine (cpu 'another', here")
    refused(thermorun("bench", "--compare", "b.png", folder=tmp_path), "holds no JSON of 'thermorun bench'")


def test_the_peaks_do_what_is_counted():
    x = np.linspace(-1, 1, 3 * peaks.LANES, dtype=np.float32).reshape(3, peaks.LANES)
    expected = x.astype(np.float64)
    for _ in range(2 * peaks.CHAIN):
        expected = 0.9 * expected + 1
    peaks.multiply_add(x, np.float32(0.9), 2)
    np.testing.assert_allclose(x, expected, rtol=1e-5)
    first, total = np.arange(10, dtype=np.float32), np.zeros(10, np.float32)
    peaks.add(total, first, 2 * first)
    np.testing.assert_array_equal(total, 3 * first)
