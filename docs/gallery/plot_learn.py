"""
A double well that learns
=========================

Its two parameters under the matrix rate of Eq. 53 and under gradient flow, beside infinitely many particles.
"""

from thermorun import learning

result = learning.learn("double-well", tau=4.0, particles=4096, replicas=4)
print(result.summary())
figure = result.plot()
