"""
Crooks' relation
================

A double well is tilted and tilted back; the densities of the work forward and of minus the work back cross at the
free-energy difference.
"""

import thermorun as tr

result = tr.free_energy.measure("double-well", start=(2, 0), end=(2, 2), particles=50_000)
print(result.summary())
figure = result.plot()
