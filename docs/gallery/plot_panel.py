"""
One panel in a figure of your own
=================================

Every picture is made of functions that draw into axes; they take yours.
"""

import matplotlib.pyplot as plt

import thermorun as tr
from thermorun.free_energy import figures

fast, slow = (
    tr.free_energy.measure("stiffness", start=1.0, end=4.0, duration=duration, particles=20_000)
    for duration in (0.2, 2.0)
)
figure, axes = plt.subplots(1, 2, figsize=(8, 3), layout="constrained", sharey=True)
for ax, result in zip(axes, (fast, slow), strict=True):
    figures.density(ax, result)
    ax.set_title(f"in {result.spec.duration:g}: {result.delta_f}")
