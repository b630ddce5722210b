"""Plots and the summary of a run."""
