"""One CCD: image, weight, mask bits, background, PSF; null-weight images."""
