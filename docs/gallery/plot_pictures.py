"""
Pictures out of noise
=====================

Three of the bundled digits are learned in closed form; a hundred pictures come out of noise.
"""

from thermorun import computer

result = computer.generate(dt=0.005)
figure = result.plot()
