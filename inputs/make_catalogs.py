"""Make the small injection catalogues of this directory. Run by hand; see README.md.

    python inputs/make_catalogs.py galaxies DATA      galaxies_cosmos_hsc.fits and galaxies_exp.fits
    python inputs/make_catalogs.py stars TILE RA DEC  stars/Model_<TILE>.csv
    python inputs/make_catalogs.py stamps MEDS        examples/stamps_<band>_meds.fits.fz

DATA holds the directories ``cosmos_parametric`` (GalSim's example of the COSMOS F814W < 23.5 sample: Sersic and
bulge+disc fits) and ``cosmos_real_galaxies`` (100 COSMOS galaxies with HSC magnitudes). MEDS is the name of the MEDS
files of tile DES1226+2527, with BAND where the band stands.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
from contextlib import ExitStack
from pathlib import Path

import fitsio
import numpy as np
from numpy.lib import recfunctions
from numpy.typing import NDArray

from balrogutils.fitsfile import Table, pack, read_table, write_tables
from balrogutils.injection.profiles import component_radii, half_light_radius
from balrogutils.injection.sources import meds
from balrogutils.meds import MEDS
from balrogutils.randomness import stream
from balrogutils.settings.sources import MedsCatalog

log = logging.getLogger("make_catalogs")

HERE = Path(__file__).resolve().parent
SEED = 20181105
BANDS = "griz"
FAINTEST = 24.5
ACS_SCALE, ACS_PSF_RADIUS = 0.03, 0.06  # arcsec per pixel; half-light radius of the ACS PSF, arcsec
UNITS = {"bdf_T": "arcsec2", "bdf_T_err": "arcsec2", "hlr_arcsec": "arcsec", "ra": "deg", "dec": "deg"}

# A stellar locus: i - z, r - i and g - r at nodes of g - i, with the shape of the main sequence of field stars.
LOCUS_GI = np.array([0.15, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0])
LOCUS_GR = np.array([0.15, 0.40, 0.73, 1.04, 1.32, 1.45, 1.50])
LOCUS_IZ = np.array([-0.02, 0.03, 0.10, 0.20, 0.32, 0.50, 0.72])
LOCUS_WIDTH = 0.02


def _t_of_radius(
    radius: NDArray[np.float64], fracdev: NDArray[np.float64], g: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the ngmix T of bdf profiles (T_dev = T_exp) with the given circularised half-light radii."""
    parts = np.array([component_radii("bdf", 1.0, share, 1.0, 0.0, 0.0) for share in fracdev])
    unit = half_light_radius(parts[:, 0], parts[:, 1], fracdev)
    return (radius / unit) ** 2 * (1.0 + g**2) / (1.0 - g**2)


def _table(
    mags: NDArray[np.float64],
    radius: NDArray[np.float64],
    q: NDArray[np.float64],
    angle: NDArray[np.float64],
    fracdev: NDArray[np.float64],
) -> NDArray:
    """Return rows with the columns of an ngmix bdf catalogue; `mags` has shape (n, 4)."""
    n = len(mags)
    rows = np.zeros(
        n,
        dtype=[
            *[("id", "i8"), ("source", "U10"), ("ra", "f8"), ("dec", "f8"), ("flags", "i4"), ("bdf_T", "f8")],
            *[("bdf_T_err", "f8"), ("bdf_g", "f8", 2), ("bdf_fracdev", "f8"), ("bdf_TdByTe", "f8")],
            *[("bdf_flux", "f8", 4), ("bdf_mag", "f8", 4), ("bdf_s2n_r", "f8"), ("hlr_arcsec", "f8")],
        ],
    )
    g = (1.0 - q) / (1.0 + q)
    rows["bdf_g"] = np.column_stack([g * np.cos(2.0 * angle), g * np.sin(2.0 * angle)])
    rows["bdf_fracdev"], rows["bdf_TdByTe"] = fracdev, 1.0
    rows["bdf_T"], rows["hlr_arcsec"] = _t_of_radius(radius, fracdev, g), radius
    rows["bdf_mag"], rows["bdf_flux"] = mags, 10.0 ** (0.4 * (30.0 - mags))
    # Nominal, for the cuts of the configuration: signal to noise 10 at i = 24, and a size error that follows it.
    rows["bdf_s2n_r"] = 10.0 ** (0.4 * (24.0 - mags[:, 2]) + 1.0)
    rows["bdf_T_err"] = 2.0 * rows["bdf_T"] / rows["bdf_s2n_r"]
    return rows


def galaxies(data: Path) -> None:
    """Write the galaxy catalogues."""
    fits = read_table(data / "cosmos_parametric" / "real_galaxy_catalog_23.5_example_fits.fits")
    place = read_table(data / "cosmos_parametric" / "real_galaxy_catalog_23.5_example.fits")
    hsc = read_table(data / "cosmos_real_galaxies" / "real_galaxy_catalog_26_extension_example_fits.fits")
    hsc_place = read_table(data / "cosmos_real_galaxies" / "real_galaxy_catalog_26_extension_example.fits")
    hsc_mags = np.column_stack([hsc[f"HSC_{band}"] for band in BANDS])
    colour = hsc_mags - hsc_mags[:, 2:3]
    clean = (colour[:, 0] > -0.3) & (colour[:, 0] < 4.0) & (np.abs(colour[:, 3]) < 1.3) & (hsc_mags[:, 2] < FAINTEST)
    hsc, hsc_place, hsc_mags, colour = hsc[clean], hsc_place[clean], hsc_mags[clean], colour[clean]

    good = (fits["hlr"][:, 0] > 0.1) & (fits["viable_sersic"] == 1)
    fits, place = fits[good], place[good]
    n, q, angle = fits["sersicfit"][:, 2], fits["sersicfit"][:, 3], fits["sersicfit"][:, 7]
    bulge = np.where(
        fits["use_bulgefit"] == 1,
        fits["flux"][:, 1] / np.where(fits["flux"][:, 3] > 0, fits["flux"][:, 3], 1.0),
        np.nan,
    )
    fracdev = np.clip(np.where(np.isfinite(bulge), bulge, (n - 1.0) / 3.0), 0.0, 1.0)
    like = [
        np.argmin(((hsc["ZPHOT"] - z) / 0.2) ** 2 + (hsc_mags[:, 2] - mag) ** 2)
        for z, mag in zip(fits["zphot"], fits["mag_auto"], strict=True)
    ]
    bright = _table(fits["mag_auto"][:, None] + colour[like], fits["hlr"][:, 0], q, angle, fracdev)
    bright["id"], bright["source"], bright["ra"], bright["dec"] = fits["IDENT"], "parametric", place["RA"], place["DEC"]

    radius = np.sqrt(np.maximum((hsc["flux_radius"] * ACS_SCALE) ** 2 - ACS_PSF_RADIUS**2, 0.05**2))
    shape = [np.argsort(np.abs(fits["mag_auto"] - mag))[k % 10] for k, mag in enumerate(hsc_mags[:, 2])]
    faint = _table(hsc_mags, radius, q[shape], angle[shape], fracdev[shape])
    faint["id"], faint["source"], faint["ra"], faint["dec"] = hsc["IDENT"], "hsc", hsc_place["RA"], hsc_place["DEC"]
    rows = np.concatenate([bright, faint])
    write_tables(HERE / "galaxies_cosmos_hsc.fits", [Table("GALAXIES", rows, UNITS)])
    log.info("%d galaxies with fits, %d with HSC magnitudes", len(bright), len(faint))

    count = 200
    order = stream(SEED, "exponential galaxies").permutation(count)
    # S/N of 30 to 200 on a DES tile, where the noise is the sky's, as the weight maps have it.
    mag_i = np.linspace(20.0, 22.0, count)[order]
    pick = np.arange(count) % len(rows)
    steady = np.clip(rows["bdf_mag"][pick] - rows["bdf_mag"][pick][:, 2:3], -0.6, 1.5)
    modest = np.clip(np.hypot(*rows["bdf_g"][pick].T), 0.0, 0.6)
    turn = 0.5 * np.arctan2(rows["bdf_g"][pick][:, 1], rows["bdf_g"][pick][:, 0])
    exp = _table(
        mag_i[:, None] + steady,
        np.clip(rows["hlr_arcsec"][pick], 0.25, 0.9),
        (1.0 - modest) / (1.0 + modest),
        turn,
        np.zeros(count),
    )
    exp["id"], exp["source"], exp["ra"], exp["dec"] = np.arange(count), "made", rows["ra"][pick], rows["dec"][pick]
    write_tables(HERE / "galaxies_exp.fits", [Table("GALAXIES", exp, UNITS)])
    log.info("%d exponential galaxies", len(exp))


def stars(tile: str, ra: float, dec: float, brightest: float, count: int = 600, half_width: float = 0.04) -> None:
    """Write the star catalogue of a tile: i from `brightest` to 22, within `half_width` degrees."""
    random = stream(SEED, "stars", tile)
    mag_i = random.uniform(brightest, 22.0, count)
    gi = np.clip(random.gamma(6.0, 0.25, count), LOCUS_GI[0], LOCUS_GI[-1])
    gr = np.interp(gi, LOCUS_GI, LOCUS_GR) + LOCUS_WIDTH * random.standard_normal(count)
    iz = np.interp(gi, LOCUS_GI, LOCUS_IZ) + LOCUS_WIDTH * random.standard_normal(count)
    dec_new = dec + half_width * random.uniform(-1.0, 1.0, count)
    ra_new = (ra + half_width / np.cos(np.radians(dec)) * random.uniform(-1.0, 1.0, count)) % 360.0
    columns = {
        "RA_new": ra_new,
        "DEC_new": dec_new,
        "g_Corr": mag_i + gi,
        "gr_Corr": gr,
        "ri_Corr": gi - gr,
        "iz_Corr": iz,
        "gi_Corr": gi,
    }
    lines = [",".join(columns)]
    lines += [
        ",".join([f"{row[0]:.6f}", f"{row[1]:.6f}", *(f"{value:.4f}" for value in row[2:])])
        for row in zip(*columns.values(), strict=True)
    ]
    path = HERE / "stars" / f"Model_{tile}.csv"
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    log.info("%d stars in %s", count, path.name)


def stamps(pattern: str, bands: str = "grz", count: int = 5, slots: int = 3) -> None:
    """Write a few galaxies of MEDS files: their first `slots` stamps and what a reader needs."""
    section = MedsCatalog(file_name=pattern, snr_min=9.0, size_min=0.2)
    found = meds.read(section, Path(), "", tuple(bands))
    with ExitStack() as stack:
        files = {band: stack.enter_context(MEDS(section.of_band(Path(), "", band))) for band in bands}
        sides = np.max([file["box_size"][found.row] for file in files.values()], axis=0)
        rows = np.sort(found.row[np.argsort(sides, kind="stable")[:count]])
        for band, file in files.items():
            _write_stamps(file, rows, HERE / "examples" / f"stamps_{band}_meds.fits.fz", slots)
    log.info("%d of %d galaxies in %s", len(rows), len(found), bands)


def _write_stamps(file: MEDS, rows: NDArray[np.int64], path: Path, slots: int) -> None:
    data = file.get_cat()[rows]
    kept = [(name, data.dtype[name].base, (slots,) if data.dtype[name].shape else ()) for name in data.dtype.names]
    table = np.zeros(len(rows), dtype=kept)
    for name in data.dtype.names:
        table[name] = data[name][:, :slots] if data[name].ndim > 1 else data[name]
    table["ncutout"] = np.minimum(table["ncutout"], slots)
    planes: dict[str, list[NDArray]] = {kind: [] for kind in ("image", "weight", "seg", "psf")}
    ends = dict.fromkeys(planes, 0)
    for new, old in enumerate(rows.tolist()):
        for slot in range(slots):
            for kind in planes if slot < table["ncutout"][new] else ():
                pixels = file.get_cutout(old, slot, kind)
                if kind in ("image", "psf"):
                    table["psf_start_row" if kind == "psf" else "start_row"][new, slot] = ends[kind]
                ends[kind] += pixels.size
                planes[kind].append(pixels.ravel())
    info = file.get_image_info().copy()
    for name in info.dtype.names:
        if name.endswith("_path"):
            info[name] = ""
    names = [name for name in file.get_meta().dtype.names if name in ("magzp_ref", "medsconf", "band", "tilename")]
    with tempfile.TemporaryDirectory() as directory:
        plain = Path(directory) / "plain.fits"
        with fitsio.FITS(str(plain), "rw", clobber=True) as fits:
            fits.write_table(table, extname="object_data")
            fits.write_table(info, extname="image_info")
            fits.write_table(recfunctions.repack_fields(file.get_meta()[names]), extname="metadata")
            for kind, pixels in planes.items():
                fits.write_image(np.concatenate(pixels), extname="psf" if kind == "psf" else f"{kind}_cutouts")
        pack(plain, path, path.name, qvalue=16.0, tile="10240,1")


def main() -> None:
    """Read the command line."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="what", required=True)
    commands.add_parser("galaxies").add_argument("data", type=Path)
    one = commands.add_parser("stars")
    one.add_argument("tile")
    one.add_argument("ra", type=float)
    one.add_argument("dec", type=float)
    one.add_argument("--brightest", type=float, default=17.0, help="i magnitude of the brightest stars")
    commands.add_parser("stamps").add_argument("meds", help="name of the MEDS files, BAND for the band")
    given = parser.parse_args()
    if given.what == "galaxies":
        galaxies(given.data)
    elif given.what == "stamps":
        stamps(given.meds)
    else:
        stars(given.tile, given.ra, given.dec, given.brightest)


if __name__ == "__main__":
    main()
