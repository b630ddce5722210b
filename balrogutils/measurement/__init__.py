"""Measurements of a whole tile: which pixels count, fits of every object, chunks over processes, catalogues."""
