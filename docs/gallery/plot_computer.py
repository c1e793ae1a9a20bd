"""
A computer made of noise
========================

Answers of a thermodynamic computer on the bundled digits, label by label.
"""

from thermorun import computer

result = computer.train(shots=2)
figure = result.plot()
