"""The path of every product: the only place where a file name pattern stands."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from balrogutils.errors import ConfigError

__all__ = ["FIT_CONFIGS", "MODE_BITS", "Site", "TileTree", "chip_of"]

MODE_BITS = {
    "prep": 1,
    "coadd": 2,
    "meds": 4,
    "inject": 8,
    "injected coadd": 16,
    "injected meds": 32,
    "sof": 64,
    "mof": 128,
    "mcal": 256,
    "bfd": 512,
    "match": 1024,
}

FIT_CONFIGS = {"sof": "sof", "mof": "mof", "mcal": "shr", "bfd": "bfd"}
"""Kinds of fits, with the name that begins their configuration key and directory (``shr_config``, ``shr-config``)."""

_BRACKETS = frozenset("{}[]()")


def chip_of(file_name: str | os.PathLike[str]) -> str:
    """Return the chip name ``D<E>_<b>_c<N>_r<NNNN>p<NN>`` a single-epoch file name begins with."""
    return "_".join(Path(file_name).name.split("_")[:4])


@dataclass(frozen=True)
class Site:
    """The directories of one installation, from the environment variables the users know."""

    base: Path
    meds_data: Path
    medsconf: str
    ngmixer_output: Path
    desdata: Path
    desmeds_config: Path
    services: Path
    tmp: Path

    @classmethod
    def from_environment(cls, medsconf: str | None, environ: Mapping[str, str] | None = None) -> Site:
        """Read the environment.

        The variables are MEDS_DATA, MEDS_DIR, BALROG_BASE, medsconf, NGMIXER_OUTPUT_DIR, DESDATA, DESMEDS_CONFIG_DIR,
        DES_SERVICES and TMPDIR.

        Parameters
        ----------
        medsconf : str or None
            The value of the pipeline configuration, with which the variable must agree; None while it is not yet known.
        environ : mapping, optional
            Instead of the process environment.

        Returns
        -------
        Site
            Absolute directories; unset variables get their default under ``<BALROG_BASE>/run``.

        Raises
        ------
        ConfigError
            When two variables contradict each other, or a directory has a bracket in its name.
        """
        env = {key: value for key, value in (os.environ if environ is None else environ).items() if value}

        def path(name: str, default: str) -> Path:
            try:
                return Path(env.get(name, default)).expanduser()
            except RuntimeError as error:
                raise ConfigError(
                    f"there is no home directory for {env.get(name, default)}", key=name, remedy="write the whole path"
                ) from error

        base = path("BALROG_BASE", _checkout()).resolve()
        run = base / "run"

        def directory(name: str, default: Path) -> Path:
            return path(name, "").absolute() if name in env else default

        meds_data = directory("MEDS_DATA", directory("MEDS_DIR", run / "meds"))
        fits, tmp = directory("NGMIXER_OUTPUT_DIR", meds_data), directory("TMPDIR", run / "tmp")
        for key, place in (("MEDS_DATA", meds_data), ("NGMIXER_OUTPUT_DIR", fits), ("TMPDIR", tmp)):
            found = " ".join(sorted(_BRACKETS & set(str(place))))
            if found:
                text = f"{place} has {found} in its name, which Snakemake and cfitsio take for patterns"
                raise ConfigError(text, key=key, remedy="choose another name")
        if directory("MEDS_DIR", meds_data) != meds_data:
            raise ConfigError(
                f"MEDS_DIR is {env['MEDS_DIR']} but MEDS_DATA is {env['MEDS_DATA']}",
                key="MEDS_DIR",
                remedy="set only one of them, or both alike",
            )
        if medsconf is not None and env.get("medsconf", medsconf) != medsconf:
            raise ConfigError(
                f"the environment says medsconf={env['medsconf']} but the pipeline configuration says {medsconf}",
                key="medsconf",
                remedy="unset the variable: medsconf belongs to the campaign (etc/campaigns.yaml)",
            )
        return cls(
            base=base,
            meds_data=meds_data,
            medsconf=medsconf or env.get("medsconf", ""),
            ngmixer_output=fits,
            desdata=directory("DESDATA", run / "DESDATA"),
            desmeds_config=directory("DESMEDS_CONFIG_DIR", base / "desmeds-config"),
            services=path("DES_SERVICES", "~/.desservices.ini").absolute(),
            tmp=tmp,
        )

    def check(self) -> None:
        """Refuse directories that cannot be made or written to, before anything is started.

        Raises
        ------
        ConfigError
            When one is not a directory, or is not writable.
        """
        wanted = {"MEDS_DATA": self.meds_data, "NGMIXER_OUTPUT_DIR": self.ngmixer_output, "TMPDIR": self.tmp}
        for key, path in wanted.items():
            there = next(place for place in (path, *path.parents) if place.exists())
            if not there.is_dir() or not os.access(there, os.W_OK):
                what = "is not writable" if there.is_dir() else "is not a directory"
                raise ConfigError(f"{there} {what}", key=key, remedy=f"set {key} to a directory of yours")

    def root(self, realization: str | None = None) -> Path:
        """Return the directory that holds the tile directories of the base run or of one realization."""
        base = self.meds_data / self.medsconf
        return base if realization is None else base / "balrog_images" / str(realization) / self.medsconf

    @property
    def shared(self) -> Path:
        """Directory of the archive's files that tiles share, each under its checksum."""
        return self.root() / "shared"

    def tree(self, tile: str, realization: str | None = None) -> TileTree:
        """Return the paths of one tile, base or realization."""
        fits = self.ngmixer_output if realization is None else self.ngmixer_output / "balrog_images" / str(realization)
        return TileTree(
            self.root(realization), fits, tile, self.medsconf, None if realization is None else str(realization)
        )


def _checkout() -> str:
    # An editable install runs from the checkout; `make` and the bin/ commands set BALROG_BASE for every other case.
    return str(Path(__file__).resolve().parents[1])


@dataclass(frozen=True)
class TileTree:
    """Paths of one tile in the base run (`realization` None) or in one realization."""

    root: Path
    fits_root: Path
    tile: str
    medsconf: str
    realization: str | None = None

    @property
    def dir(self) -> Path:
        """The tile directory."""
        return self.root / self.tile

    # single-epoch images
    def sources(self, band: str) -> Path:
        """Files as the archive gave them."""
        return self.dir / f"sources-{band}"

    def nullwt_dir(self, band: str) -> Path:
        """Null-weight images."""
        return self.dir / f"nullwt-{band}"

    def nullwt(self, band: str, chip: str) -> Path:
        """Null-weight image of one chip ``D<E>_<b>_c<N>_r<NNNN>p01``: HDUs SCI, WGT, WGT_ME, MSK."""
        return self.nullwt_dir(band) / f"{chip}_immasked_nullwt.fits"

    def injected(self, band: str, chip: str) -> Path:
        """The same image of a realization under its injection name (a hard link)."""
        return self.dir / band / f"{chip}_balrog_inj.fits"

    def difference(self, band: str, chip: str) -> Path:
        """What the injected image differs in from the base run's, where it is kept."""
        return self.dir / band / f"{chip}_balrog_diff.fits.fz"

    @property
    def psfs(self) -> Path:
        """Directory of all PSF models, all bands."""
        return self.dir / "psfs"

    def psf(self, chip: str) -> Path:
        """PSFEx model of one chip."""
        return self.psfs / f"{chip}_psfexcat.psf"

    def coadd_psf(self, band: str) -> Path:
        """PSFEx model of one band's coadd, where the archive has no coadd of its own."""
        return self.psfs / f"{self.tile}_{band}_psfcat.psf"

    def chip_bkg(self, band: str, chip: str) -> Path:
        """Residual background of one chip, where the archive has none of its own."""
        return self.dir / f"bkg-{band}" / f"{chip}_bkg.fits"

    def chip_segmap(self, band: str, chip: str) -> Path:
        """Segmentation map of one chip, where the archive has none of its own."""
        return self.dir / f"seg-{band}" / f"{chip}_segmap.fits"

    # lists
    @property
    def lists(self) -> Path:
        """Directory of the lists."""
        return self.dir / "lists"

    def flist(self, kind: str, band: str) -> Path:
        """List of ``nullwt`` (path and zero point), ``seg`` or ``bkg`` files of one band, in one order."""
        return self.lists / f"{self.tile}_{band}_{kind}-flist-{self.medsconf}.dat"

    def fileconf(self, band: str) -> Path:
        """The fileconf YAML of one band."""
        return self.lists / f"{self.tile}_{band}_fileconf-{self.medsconf}.yaml"

    def objmap(self, band: str) -> Path:
        """The object map of one band."""
        return self.lists / f"{self.tile}_{band}_objmap-{self.medsconf}.fits"

    def psfmap(self, band: str) -> Path:
        """The PSF map of one band: ``expnum ccdnum path``, the coadd first as -9999 -9999."""
        return self.dir / f"{self.tile}_{band}_psfmap-{self.medsconf}.dat"

    @property
    def all_psfmap(self) -> Path:
        """All bands' PSF maps in one file."""
        return self.dir / f"{self.tile}_all_psfmap.dat"

    @property
    def geometry(self) -> Path:
        """The tile's geometry as the archive gave it (JSON), so that later steps need no database."""
        return self.lists / f"{self.tile}_geometry.json"

    # coadds
    @property
    def coadd(self) -> Path:
        """Directory of the coadds."""
        return self.dir / "coadd"

    def image(self, band: str) -> Path:
        """Coadd of one band, or of ``det``: HDUs SCI, MSK, WGT."""
        return self.coadd / f"{self.tile}_{band}.fits"

    def catalog(self, band: str) -> Path:
        """SExtractor catalogue of one band."""
        return self.coadd / f"{self.tile}_{band}_cat.fits"

    def segmap(self, band: str) -> Path:
        """Segmentation of the detection image, one copy a band."""
        return self.coadd / f"{self.tile}_{band}_segmap.fits"

    def swarp_list(self, kind: str, band: str) -> Path:
        """SWarp input list: ``im``, ``wt``, ``msk`` or ``fsc``."""
        return self.coadd / "lists" / f"{self.tile}_{band}_{kind}.list"

    def tool_log(self, tool: str, band: str) -> Path:
        """Full log of an external program."""
        return self.coadd / "LOGS" / f"{self.tile}_{band}_{tool}.log"

    # MEDS
    def meds(self, band: str) -> Path:
        """Packed MEDS file of one band."""
        return self.dir / f"{self.tile}_{band}_meds-{self.medsconf}.fits.fz"

    # injection
    @property
    def plan(self) -> Path:
        """What is to be injected where, drawn once for all bands."""
        return self.dir / f"{self.tile}_{self.realization}_balrog_plan.fits"

    def outcome(self, band: str) -> Path:
        """What happened to every planned object on every chip of one band."""
        return self.dir / f"{self.tile}_{self.realization}_{band}_balrog_chips.fits"

    @property
    def truth(self) -> Path:
        """Truth catalogue of a realization."""
        return self.dir / f"{self.tile}_{self.realization}_balrog_truth_cat.fits"

    def truth_of(self, inj_type: str) -> Path:
        """Truth catalogue of one kind of object, under the name the old pipeline gave it."""
        return self.dir / f"{self.tile}_{self.realization}_balrog_truth_cat_{inj_type}.fits"

    @property
    def truth_chips(self) -> Path:
        """Truth per object and chip, all bands."""
        return self.dir / f"{self.tile}_{self.realization}_balrog_truth_chips.fits"

    def parquet(self, table: Path) -> Path:
        """Return the Parquet copy of a truth table."""
        return table.with_suffix(".parquet")

    def replay(self, bal_id: int, chip: str) -> Path:
        """One injected object drawn again on one chip."""
        return self.dir / "replay" / f"{self.tile}_{self.realization}_{bal_id}_{chip}.fits"

    # fits and matching
    def fit_run(self, kind: str) -> str:
        """Name of a fit run, for example ``y3v02-sof``."""
        return f"{self.medsconf}-{kind}"

    def fit(self, kind: str) -> Path:
        """Collated catalogue of a fit run."""
        run = self.fit_run(kind)
        return self.fits_root / run / "output" / f"{self.tile}-{run}.fits"

    def moments(self, bands: tuple[str, ...]) -> Path:
        """Table of BFD moments, under the name it had in DES."""
        return self.fits_root / self.fit_run("bfd") / "output" / f"{self.tile}_BFD{''.join(bands)}.fits"

    def fit_chunk(self, kind: str, first: int, last: int) -> Path:
        """Catalogue of rows `first` to `last` (zero-based, inclusive) of a fit run."""
        run = self.fit_run(kind)
        span = f"{first:06d}-{last:06d}"
        return self.fits_root / run / self.tile / f"chunk{span}" / f"{self.tile}-{run}-{span}.fits"

    def groups(self, kind: str, table: str) -> Path:
        """Table ``nbrslist`` or ``nbrsfofs`` of a fit of groups: neighbours, and the groups they make."""
        run = self.fit_run(kind)
        return self.fits_root / run / self.tile / f"{self.tile}-{run}-{table}.fits"

    def scene(self, kind: str, band: str, suffix: str = "fits") -> Path:
        """Fitted scene on the coadd of one band, and what it leaves: HDUs MODEL, RESIDUAL; ``png`` for the picture."""
        run = self.fit_run(kind)
        return self.fits_root / run / self.tile / f"{self.tile}-{run}-{band}-scene.{suffix}"

    @property
    def match(self) -> Path:
        """Truth matched to measurement, one row per injection."""
        return self.dir / "match" / f"{self.tile}_{self.realization}_match_cat.fits"

    @property
    def detection(self) -> Path:
        """Which injections were detected, and what makes a match doubtful; one row per injection."""
        return self.dir / "match" / f"{self.tile}_{self.realization}_detection_cat.fits"

    @property
    def match_plot(self) -> Path:
        """Measured minus true magnitude against true magnitude."""
        return self.dir / "match" / f"{self.tile}_{self.realization}_delta_mag.png"

    def cutaway(self, band: str) -> Path:
        """Picture of a coadd before and after injection, and the difference."""
        return self.dir / "match" / f"{self.tile}_{self.realization}_{band}_base_injected_difference.png"

    # report of the tile over its realizations
    @property
    def report(self) -> Path:
        """Report of the tile, one HTML file."""
        return self.dir / "report" / f"{self.tile}_report.html"

    def report_table(self, name: str) -> Path:
        """One table of the report, as ECSV."""
        return self.dir / "report" / f"{self.tile}_{name}.ecsv"

    @property
    def efficiency_map(self) -> Path:
        """Fraction of injections detected on the sky, in healsparse's format."""
        return self.dir / "report" / f"{self.tile}_efficiency_map.fits"

    # bookkeeping
    def manifest(self, step: str, band: str | None = None) -> Path:
        """Manifest of one step."""
        return (
            self.dir / "manifests" / (f"{self.tile}_{step}.json" if band is None else f"{self.tile}_{step}_{band}.json")
        )

    def differences(self, band: str) -> Path:
        """Manifest of what the injected images of one band differ in from the base run's."""
        return self.manifest("inject-differences", band)

    @property
    def run_lock(self) -> Path:
        """Lock of the run that makes this tile; in the base tree also for its realizations."""
        return self.dir / "logs" / f"{self.tile}_run.lock"

    @property
    def jobs_lock(self) -> Path:
        """Lock that the jobs of that run share."""
        return self.dir / "logs" / f"{self.tile}_jobs.lock"

    def log(self, step: str, band: str | None = None) -> Path:
        """Log of one job."""
        return self.dir / "logs" / (f"{self.tile}_{step}.log" if band is None else f"{self.tile}_{step}_{band}.log")
