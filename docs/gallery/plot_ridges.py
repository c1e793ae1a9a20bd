"""
An optimum with impulses
========================

The distribution of the particles while the discontinuous optimum drives them (Fig. 4): it jumps at both ends.
"""

from thermorun import learning

result = learning.excess_work(**learning.FIGURES[4] | {"particles": 20_000})
figure = result.plot()
