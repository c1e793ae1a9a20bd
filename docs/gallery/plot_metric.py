"""
The window of a correlation integral
====================================

Friction of a trap's stiffness against the length at which the correlation integral is cut off.
"""

from thermorun import metric

result = metric.measure("stiffness", theta=(2.0,), particles=16_384)
print(result.summary())
figure = result.plot()
