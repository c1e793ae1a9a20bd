"""Experiments on trained machines: what a classification costs, what devices do, which training is best."""
