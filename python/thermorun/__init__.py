"""Stochastic thermodynamics of learning: runs, exact values, files and pictures around the kernels.

The subjects are ``thermorun.learning`` and those to come beside it.  Importing this package imports none of them.
"""

import os
from importlib.metadata import version

__version__ = version("thermokernels")

# In closed loop threads meet at every step.  GNU's OpenMP lets them spin at that barrier for up to five minutes, which
# on a machine with anything else to do keeps the thread waited for off its core: 4 to 50 times slower.  This many turns
# are about a time slice's hundredth.  It must be said before the library is loaded; a user's own setting stands.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")
