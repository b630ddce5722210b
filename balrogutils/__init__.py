"""From one tile name to catalogues that say what a survey measured, and how well it measures."""

__all__ = ["__version__"]

__version__ = "0.1.0"
