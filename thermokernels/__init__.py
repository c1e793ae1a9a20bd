"""Compiled kernels: arrays in, arrays out.

Every random number is a pure function of (seed, stream, particle, step), and every sum over particles is taken in a
fixed order, so results do not depend on the number of threads or on how a run is cut into calls.
"""
