"""
A protocol of least work
========================

A double well is tilted over: the barrier is best lowered on the way, with a jump at either end.
"""

from thermorun import protocol

result = protocol.find(
    "double-well", start=(3, 1), end=(3, -1), tau=3.0, steps=400, search_particles=16_384, particles=16_384
)
print(result.summary())
figure = result.plot()
