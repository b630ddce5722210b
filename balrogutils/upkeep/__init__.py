"""Tiles after they are made: verified, repaired, adopted."""
