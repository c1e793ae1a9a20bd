"""
Latent cycles
=============

Likelihood and entropy production while four models learn the bundled digits.
"""

from thermorun import cycles

result = cycles.train(models=4, epochs=30)
print(result.summary())
figure = result.plot()
