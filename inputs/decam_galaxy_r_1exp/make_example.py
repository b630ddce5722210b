"""Make the example of ``balrog image`` from one real exposure. Run by hand; see README.md.

    python inputs/decam_galaxy_r_1exp/make_example.py CASE COSMOS

CASE is legacypipe's ``py/test/testcase8``, COSMOS a directory with GalSim's ``real_galaxy_catalog_23.5_example*.fits``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from balrogutils.exposures.cpmodels import read_psf
from balrogutils.fitsfile import Header, Plane, Table, read_header, read_image, read_table, write_images, write_tables

HERE = Path(__file__).resolve().parent
EXPOSURE, CCD = 695765, "N6"
ACS_SCALE = 0.03  # arcsec per pixel of the COSMOS fits
KEPT = """
OBJECT FILTER BAND EXPTIME EXPNUM CCDNUM DETPOS DATE-OBS MJD-OBS SATURATE FWHM CTYPE1 CTYPE2 CUNIT1 CUNIT2 CRVAL1
CRVAL2 CRPIX1 CRPIX2 CD1_1 CD1_2 CD2_1 CD2_2 RADESYS EQUINOX
"""


def main(case: Path, cosmos: Path) -> None:
    """Write example.fits, example.weight.fits, example.psf and cosmos.fits."""
    images = {kind: next(case.rglob(f"c4d_*_oo{kind}_r_ls9.N6.fits")) for kind in "iw"}
    chip, exposure = read_header(images["i"], 1), read_header(images["i"], 0)
    header = Header()
    polynomial = [f"PV{axis}_{term}" for axis in (1, 2) for term in range(11)]
    for key in (*KEPT.split(), *polynomial):
        value = chip.get(key, exposure.get(key))
        if value is not None:
            header.add_record({"name": key, "value": value})
    row = read_table(next(case.glob("survey-ccds-1.fits*")))[0]
    zero_point = float(row["ccdzpt"]) + 2.5 * np.log10(float(row["exptime"]))
    gain = 0.5 * (float(chip["GAINA"]) + float(chip["GAINB"]))
    header.add_record({"name": "GAIN", "value": round(gain, 4), "comment": "[e/ADU] mean of the amplifiers"})
    header.add_record({"name": "SEXMGZPT", "value": round(zero_point, 4), "comment": "[mag] zero point of 1 ADU"})
    for kind, name in (("i", "example.fits"), ("w", "example.weight.fits")):
        write_images(HERE / name, [Plane("SCI" if kind == "i" else "WGT", read_image(images[kind], 1), header)])
    read_psf(next(case.rglob("*-psfex.fits")), EXPOSURE, CCD).write(HERE / "example.psf")

    fits = read_table(cosmos / "real_galaxy_catalog_23.5_example_fits.fits")
    place = read_table(cosmos / "real_galaxy_catalog_23.5_example.fits")
    # Parameters of the single Sersic fit: 1 half-light radius (major axis, pixels), 2 index, 3 axis ratio.
    sersic = fits["sersicfit"]
    # What GalSim draws, and a detector can find.
    good = (sersic[:, 1] > 0) & (sersic[:, 2] > 0.3) & (sersic[:, 2] < 6.2) & (sersic[:, 3] > 0.05)
    columns = {
        "ID": (place["IDENT"].astype("i8"), ""),
        "RA": (place["RA"].astype("f8"), "deg"),
        "DEC": (place["DEC"].astype("f8"), "deg"),
        "Z": (fits["zphot"].astype("f4"), ""),
        "IMAG": (place["MAG"].astype("f4"), "mag"),
        "HALF_LIGHT_RADIUS": ((sersic[:, 1] * ACS_SCALE).astype("f4"), "arcsec"),
        "SERSIC_INDEX": (sersic[:, 2].astype("f4"), ""),
        "AXIS_RATIO": (sersic[:, 3].astype("f4"), ""),
    }
    rows = np.zeros(np.count_nonzero(good), dtype=[(name, values.dtype) for name, (values, _) in columns.items()])
    for name, (values, _) in columns.items():
        rows[name] = values[good]
    write_tables(HERE / "cosmos.fits", [Table("COSMOS", rows, {name: unit for name, (_, unit) in columns.items()})])


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
