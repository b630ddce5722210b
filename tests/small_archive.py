"""A DES archive of a few tiny CCDs in the survey's own layout: SQLite tables and packed files."""

import atexit
import copy
import functools
import shutil
import tempfile
from pathlib import Path

import fitsio
import numpy as np
import sqlalchemy as sa

from balrogutils.archive import tables
from balrogutils.archive.geometry import Geometry
from balrogutils.archive.transfer import md5
from balrogutils.context import Context
from balrogutils.exposures.scamphead import read_ohead
from balrogutils.fitsfile import Plane, pack, write_images
from balrogutils.layout import Site
from balrogutils.settings.campaign import Campaign
from balrogutils.settings.pipeline import Pipeline
from balrogutils.wcs import ImageWCS

DES = Path(__file__).parent / "data" / "des"
PSF = DES / "D00572501_z_c01_r3624p01_psfexcat.psf"
HEAD = DES / "DES2041-5248_r4575p02_D00572501_z_c01_scamp.ohead"
TILE = "DES2044-5300"
SHAPE = (60, 50)
TAG, SE_TAG = "Y3A2_COADD", "Y3A1_FINALCUT"
COADD = f"{TILE}_r2577p01"
COADD_PATH = f"OPS/multiepoch/Y3A1/r2577/{TILE}/p01"


def geometry():
    """The tile, centred on the middle of every CCD."""
    ra, dec = ImageWCS(read_ohead(HEAD)).pixel_to_sky(SHAPE[0] / 2, SHAPE[1] / 2)
    return Geometry.tangent(TILE, float(ra[0]), float(dec[0]), 40, 44, 0.263, {"g": 0.1, "z": 0.04})


def context(directory, bands="g", **changes):
    """The context of a run on the archive in `directory`, products in ``run`` beside it."""
    run = Path(directory) / "run of a tile"
    site = Site.from_environment(
        "y3v02", {"BALROG_BASE": str(run), "MEDS_DATA": str(run / "meds"), "TMPDIR": str(run / "tmp")}
    )
    settings = {
        "kind": "desdm",
        "database": f"sqlite:///{directory}/archive.db",
        "archive": f"file://{directory}/desarchive/",
        "bands": tuple(bands),
        "det": tuple(bands),
        "name": "small",
    }
    return Context(site, Pipeline(), Campaign(**(settings | changes)), changes.pop("tile", TILE))


class SmallArchive:
    """Builds the archive; `rows` holds the database's rows until `write`, so that a test can damage them."""

    def __init__(self, directory, bands="g", exposures=2, ccds=(1, 62)):
        built = _built(tuple(bands), exposures, tuple(ccds))
        self.directory = Path(directory)
        self.files = self.directory / "desarchive"
        shutil.copytree(built.files, self.files)
        self.rows, self.chips = copy.deepcopy((built.rows, built.chips))

    def _tags(self):
        self.rows["y3a2_proctag"] = [{"tag": TAG, "pfw_attempt_id": 1}, {"tag": SE_TAG, "pfw_attempt_id": 2}]
        self.rows["y3a2_proctag"].append({"tag": "Y5A1_COADD", "pfw_attempt_id": 3})
        row = {column.name: getattr(geometry(), column.name, None) for column in tables.y3a2_coaddtile_geom.c}
        row |= {"id": 77, "crossra0": "N", "extmag_g": 0.1, "extfact_g": 10**-0.04}
        self.rows["y3a2_coaddtile_geom"] = [row]

    def _add(self, path, name, packed=False):
        row = {"filename": name, "compression": ".fz" if packed else None}
        self.rows["y3a2_file_archive_info"].append(row | {"archive_name": tables.ARCHIVE_NAME, "path": path})
        file = self.files / path / (name + (".fz" if packed else ""))
        self.rows["y3a2_desfile"].append(row | {"filesize": file.stat().st_size, "md5sum": md5(file)})

    def _copy(self, source, path, name):
        (self.files / path).mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, self.files / path / name)
        self._add(path, name)

    def _packed(self, planes, path, name):
        plain = self.directory / "scratch" / name
        write_images(plain, planes)
        (self.files / path).mkdir(parents=True, exist_ok=True)
        pack(plain, self.files / path / (name + ".fz"), name)
        self._add(path, name, packed=True)

    def _coadd(self, band):
        name = f"{COADD}_{band}.fits"
        self._packed([Plane("SCI", np.zeros((44, 40), "f4"))], f"{COADD_PATH}/coadd", name)
        self._copy(PSF, f"{COADD_PATH}/psf", f"{COADD}_{band}_psfcat.psf")
        row = {"filename": name, "filetype": "coadd", "pfw_attempt_id": 1, "tilename": TILE, "band": band}
        self.rows["y3a2_coadd"].append(row)

    def _ccd(self, band, expnum, ccd, magzp):
        chip = f"D{expnum:08d}_{band}_c{ccd:02d}_r2356p01"
        self.chips[band].append(chip)
        path = f"OPS/finalcut/Y2A1v3/20130831-r2356/D{expnum:08d}/p01"
        header = fitsio.FITSHDR()
        cards = {
            "CTYPE1": "RA---TPV",
            "CTYPE2": "DEC--TPV",
            "CRVAL1": 10.0,
            "CRVAL2": 20.0,
            "CRPIX1": 1.0,
            "CRPIX2": 2.0,
        }
        cards |= {
            "CD1_1": 1e-4,
            "CD1_2": 0.0,
            "CD2_1": 0.0,
            "CD2_2": 1e-4,
            "PV1_3": 0.5,
            "BAND": band,
            "EXPNUM": expnum,
        }
        cards |= {
            "CCDNUM": ccd,
            "SKYBRITE": 100.5,
            "SKYSIGMA": 10.25,
            "GAINA": 1.01,
            "GAINB": 0.99,
            "SATURATE": 160000.0,
        }
        for key, value in cards.items():
            header.add_record({"name": key, "value": value})
        rng = np.random.default_rng(expnum * 100 + ccd)
        sci = rng.normal(0, 10, SHAPE).astype("f4")
        msk = np.zeros(SHAPE, "i2")
        msk[:, 20:22] = 1
        msk[10:20, 30:33] = 64
        msk[5, 5] = 16
        msk[:2] = 512
        planes = [Plane("SCI", sci, header), Plane("MSK", msk, header), Plane("WGT", np.full(SHAPE, 0.01, "f4"))]
        image = f"{chip}_immasked.fits"
        self._packed(planes, f"{path}/red/immask", image)
        self._packed([Plane("SCI", np.full(SHAPE, 0.25, "f4"))], f"{path}/red/bkg", f"{chip}_bkg.fits")
        self._packed([Plane("SCI", np.zeros(SHAPE, "i4"))], f"{path}/seg", f"{chip}_segmap.fits")
        self._copy(PSF, f"{path}/psf", f"{chip}_psfexcat.psf")
        head = f"{COADD}_{'_'.join(chip.split('_')[:3])}_scamp.ohead"
        self._copy(HEAD, f"{COADD_PATH}/aux", head)
        row = {"band": band, "expnum": expnum, "ccdnum": ccd}
        self.rows["y3a2_image"] += [
            row | {"filename": image, "filetype": "red_immask", "pfw_attempt_id": 2, "tilename": None},
            row
            | {
                "filename": f"{TILE}_{chip}_nwgint.fits",
                "filetype": "coadd_nwgint",
                "pfw_attempt_id": 1,
                "tilename": TILE,
            },
        ]
        point = {
            "imagename": image,
            "source": "FGCM",
            "version": "v2.0",
            "mag_zero": magzp,
            "sigma_mag_zero": 0.01,
            "flag": 0,
        }
        # Of other sources and versions there are zero points too; they must not be taken.
        self.rows["y3a2_zeropoint"] += [
            point,
            point | {"version": "y4a1_v1.5", "mag_zero": 30.0},
            point | {"source": "PGCM", "mag_zero": 29.0},
        ]

    def drop(self, table, **where):
        """Remove the rows whose columns end with the given texts; return how many."""
        rows = self.rows[table]
        kept = [row for row in rows if not all(str(row[key]).endswith(str(value)) for key, value in where.items())]
        self.rows[table] = kept
        return len(rows) - len(kept)

    def file(self, pattern):
        """Return the one file of the archive that matches."""
        (found,) = self.files.rglob(pattern)
        return found

    def write(self):
        """Write the database and return the archive."""
        database = self.directory / "archive.db"
        database.unlink(missing_ok=True)
        engine = sa.create_engine(f"sqlite:///{database}", poolclass=sa.pool.NullPool)
        with engine.begin() as connection:
            tables.metadata.create_all(connection)
            for name, rows in self.rows.items():
                if rows:
                    connection.execute(sa.insert(tables.metadata.tables[name]), rows)
        engine.dispose()
        return self


@functools.cache
def _built(bands, exposures, ccds):
    """Build an archive once; packing is what takes the time."""
    directory = tempfile.mkdtemp(prefix="small-archive-")
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    archive = SmallArchive.__new__(SmallArchive)
    archive.directory = Path(directory)
    archive.files = archive.directory / "desarchive"
    archive.rows = {name: [] for name in tables.metadata.tables}
    archive.chips = {band: [] for band in bands}
    archive._tags()
    for i, band in enumerate(bands):
        archive._coadd(band)
        for exposure in range(exposures):
            for ccd in ccds:
                archive._ccd(band, 229300 + 10 * i + exposure, ccd, 31.2 + 0.1 * exposure + 0.001 * ccd)
    return archive
