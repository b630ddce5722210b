"""Gaussian mixtures, models, priors, solver, PSF fits, scenes: the engine of all fits."""
