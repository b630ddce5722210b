"""Metacalibration: images of an object as it would look sheared, and shapes whose response to shear is measured."""
