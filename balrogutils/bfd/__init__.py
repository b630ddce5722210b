"""Bayesian Fourier domain (BFD) moments."""
