"""Whether two runs made identical products, as docs/architecture.md defines it."""

import re
from pathlib import Path

from astropy.io import fits

# ZHECKSUM is the CHECKSUM of the HDU before it was packed.
_CLOCKS = ("DATE", "CHECKSUM", "ZHECKSUM", "HISTORY", "COMMENT")
_CLOCK_SECTION = re.compile(r'<section id="run".*?</section>', re.DOTALL)
_UNCOMPARED = ("manifests", "logs", "LOGS")


def _hdus(path):
    with fits.open(path, disable_image_compression=True) as hdus:
        for hdu in hdus:
            yield [(key, value) for key, value in hdu.header.items() if key not in _CLOCKS], hdu._calculate_datasum()


def same(first, second):
    """Return whether two files hold the same."""
    if ".fits" in first.name or first.suffix == ".psf":
        return list(_hdus(first)) == list(_hdus(second))
    if first.suffix == ".html":
        # The last section of a report says how long everything took.
        one, other = (_CLOCK_SECTION.subn("", path.read_text()) for path in (first, second))
        return one == other and one[1] == 1
    return first.read_bytes() == second.read_bytes()


def differences(first, second):
    """Return the products, relative to the two directories, that only one has or that are not identical.

    Products name the files they were made from: make both runs at the same place, moving the first away.
    """
    first, second = Path(first), Path(second)
    names = {
        path.relative_to(root)
        for root in (first, second)
        for path in root.rglob("*")
        if path.is_file() and not set(path.parts) & set(_UNCOMPARED)
    }
    return sorted(
        str(name)
        for name in names
        if not ((first / name).is_file() and (second / name).is_file() and same(first / name, second / name))
    )
