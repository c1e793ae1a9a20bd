"""
Learning through the noise
==========================

The same computer trained by the gradient of its own noisy trajectories: loss, and accuracy at images set aside.
"""

from thermorun import computer

result = computer.train(method="adjoint", trajectories=60_000, shots=2)
figure = result.figures()["descent"]
