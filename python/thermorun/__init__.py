"""Stochastic thermodynamics of learning: runs, exact values, files and pictures around the kernels.

The subjects are ``thermorun.learning`` and those to come beside it.  Importing this package imports none of them.
"""

from importlib.metadata import version

__version__ = version("thermokernels")
