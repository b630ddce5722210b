"""Balrog on one image: an image, its weight map and its PSF model in, truth and measured catalogues out."""
