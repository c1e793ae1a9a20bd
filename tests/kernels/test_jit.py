"""One machine code for each kernel, compiled now or loaded from the cache, and what that asks of Numba."""

import os
import platform
import subprocess
import sys

import numba
import pytest

from helpers import digests_compiled_and_loaded

# `_jit` leans on what Numba calls private.  The first and the last version that this package was tried with; pyproject
# has the same bounds.
TRIED = (0, 61), (0, 68)
SCRIPT = """
import numpy as np
from thermokernels.random import fill_normals

fill_normals(np.empty(2048), np.uint64(1), np.uint64(2), 3)
(made,) = fill_normals.overloads.values()
print(sorted({one.linkage.name for one in made.library._final_module.functions if not one.is_declaration}))
"""


def test_this_numba_is_within_those_tried():
    assert TRIED[0] <= tuple(int(part) for part in numba.__version__.split(".")[:2]) <= TRIED[1]


def test_no_function_of_a_kernel_can_be_taken_from_elsewhere(tmp_path):
    """Every function in its object is the kernel's own to show, or internal: a linker may take no other for it."""
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, check=True, capture_output=True, text=True)
    assert done.stdout == "['external', 'internal']\n"


NO_AVX512 = pytest.param(
    "x86-64-v3", marks=[pytest.mark.slow, pytest.mark.skipif(platform.machine() != "x86_64", reason="of x86 alone")]
)


# Modules whose kernels sum: one at every run, all of them with the slow tests.
FEW = ("test_trap",)
ALL = (*FEW, "test_network", "test_onsager_machlup", "test_adjoint", "test_latent_cycle", "test_adjoint_path")


@pytest.mark.parametrize(
    ("processor", "modules"),
    [
        pytest.param("", FEW, id="this"),
        pytest.param("", ALL, id="this, all", marks=pytest.mark.slow),
        pytest.param(*NO_AVX512.values, ALL, id="without AVX-512", marks=NO_AVX512.marks),
    ],
)
def test_same_bits_compiled_and_loaded(tmp_path, monkeypatch, processor, modules):
    """The first process compiles into an empty cache, the second loads from it, as a resumed run does.

    Numba would run the functions that a kernel calls in the one, and copies of them, optimised once more, in the other.
    """
    if processor:
        monkeypatch.setenv("NUMBA_CPU_NAME", processor)
        monkeypatch.setenv("NUMBA_CPU_FEATURES", "")
    compiled, loaded = digests_compiled_and_loaded(tmp_path, *modules)
    assert compiled == loaded
