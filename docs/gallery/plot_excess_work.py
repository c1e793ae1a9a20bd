"""
Four schedules
==============

Cumulative excess work of learning a harmonic trap (Hnybida & Verret 2025, Fig. 6): Monte Carlo within two standard
errors, over the dashed exact curves; below, what is left when the exact curve is taken away.
"""

import thermorun as tr

result = tr.learning.excess_work(particles=50_000)
print(result.summary())
figure = result.plot()
