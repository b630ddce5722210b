"""Sampling rules: a Python file that says how objects are drawn, and its evaluation."""
