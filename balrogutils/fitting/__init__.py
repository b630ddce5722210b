"""Gaussian mixtures, models, priors, solver, PSF fits, and the fits of whole catalogues."""
