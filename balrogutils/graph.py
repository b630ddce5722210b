"""Which step needs which: the steps of a tile, their mode bits, what they read and what they leave.

The Snakemake rules ask this module for paths; it knows nothing of Snakemake.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from balrogutils import tools
from balrogutils.context import Context, Installation
from balrogutils.errors import InputError, ProductError, ToolError
from balrogutils.layout import FIT_CONFIGS, MODE_BITS
from balrogutils.letgo import lost
from balrogutils.peers.installed import engine_versions
from balrogutils.products import Step, read_manifest

if TYPE_CHECKING:
    from balrogutils.settings.fits import FitRun

__all__ = ["Job", "check_mode", "installation_tiles", "jobs", "matched_fits", "matched_realizations"]
__all__ += ["needs", "predecessors", "settle"]

_log = logging.getLogger(__name__)

# Mode bits by step, in the order a tile goes through them: (in the base run, in a realization); 0 where there is none.
_BITS = {
    "prep": (MODE_BITS["prep"], 0),
    "plan": (0, MODE_BITS["inject"]),
    "inject": (0, MODE_BITS["inject"]),
    "truth": (0, MODE_BITS["inject"]),
    "coadd": (MODE_BITS["coadd"], MODE_BITS["injected coadd"]),
    "catalog": (MODE_BITS["coadd"], MODE_BITS["injected coadd"]),
    "meds": (MODE_BITS["meds"], MODE_BITS["injected meds"]),
    "sof": (MODE_BITS["sof"], MODE_BITS["sof"]),
    "mof": (MODE_BITS["mof"], MODE_BITS["mof"]),
    "mcal": (MODE_BITS["mcal"], MODE_BITS["mcal"]),
    "bfd": (MODE_BITS["bfd"], MODE_BITS["bfd"]),
    "match": (0, MODE_BITS["match"]),
    "report": (MODE_BITS["match"], 0),  # of all realizations together
}
# External programs whose version can change a step's products.
_TOOLS = {"coadd": ("swarp",), "catalog": ("sextractor",), "meds": ("fpack",)}
_PER_TILE = frozenset(("plan", "truth", "sof", "mof", "mcal", "bfd", "match", "report"))


@dataclass(frozen=True)
class Job:
    """One step of one tile, in the base run or a realization, for one band or all."""

    step: str
    context: Context
    band: str | None = None

    @property
    def bit(self) -> int:
        """The mode bit this job belongs to."""
        return _BITS[self.step][self.context.realization is not None]

    @property
    def manifest(self) -> Path:
        """What the job leaves last of all."""
        return self.context.tree.manifest(self.step, self.band)

    @property
    def product(self) -> Path:
        """The product a person would look for."""
        tree, band = self.context.tree, self.band or ""
        return {
            "prep": lambda: tree.flist("nullwt", band),
            "coadd": lambda: tree.all_psfmap if band == "all" else tree.image(band),
            "catalog": lambda: tree.catalog(band),
            "meds": lambda: tree.meds(band),
            "plan": lambda: tree.plan,
            "inject": lambda: tree.flist("nullwt", band),
            "truth": lambda: tree.truth,
            "sof": lambda: tree.fit("sof"),
            "mof": lambda: tree.fit("mof"),
            "mcal": lambda: tree.fit("mcal"),
            "bfd": lambda: tree.moments(self.context.bands),
            "match": lambda: tree.match,
            "report": lambda: tree.report,
        }[self.step]()

    def outlives(self, other: Job) -> bool:
        """Whether what this job made stays right when `other`, which it needs, is done again by itself.

        A plan is made again when a band is added, and what it says of the other bands stays the same, unless positions
        go by the masks of all bands. What else can change a plan, files and settings, the injection has among its own
        needs; `balrogutils.blocks.inject.truth` compares.
        """
        return (self.step, other.step) == ("inject", "plan") and not self.context.injection.image.avoid.masked

    def open(self, config: Mapping[str, Any], seeds: Mapping[str, int] | None = None) -> Step:
        """Return the step as it is done: what it reads must be as earlier steps of the tile left it.

        Parameters
        ----------
        config : mapping
            The configuration that can change the products.
        seeds : mapping, optional
            Seeds used.

        Raises
        ------
        ToolError
            When an external program of the step is missing or too old, or is of another version than in the base run:
            base and injected images would differ by the program then.
        """
        about = self.context.about(self.band)
        before = [job.manifest for job in _all_before(self)]
        step = Step(self.manifest, self.step, about=about, config=config, seeds=seeds, before=before)
        base = Job(self.step, self.context.at(None), self.band).manifest
        others: Mapping[str, str] = {}
        if self.context.realization is not None and base.is_file():
            others = read_manifest(base).get("tools", {})
        for tool in () if self.band == "all" else _TOOLS.get(self.step, ()):
            version = tools.version(tool)
            if others.get(tool, version) != version:
                raise ToolError(
                    f"{tool} is version {version}, the base run was made with {others[tool]}",
                    tile=self.context.tile,
                    band=self.band,
                    remedy="use that version, or make the base run again with this one",
                )
            step.used(tool, version)
        return step


def jobs(context: Context) -> Iterator[Job]:
    """Yield every job of a tile: the base run, then each realization, in the order of their blocks, then the report."""
    for realization in (None, *context.realizations):
        here = context.at(realization)
        for step, bits in _BITS.items():
            if not bits[realization is not None] or step == "report":
                continue
            of_all = ("det", "all") if step == "coadd" else ()
            for band in (None,) if step in _PER_TILE else (*here.bands, *of_all):
                yield Job(step, here, band)
    if context.realizations:
        yield Job("report", context.at(None))


def needs(job: Job) -> tuple[list[Job], list[Path]]:
    """Return the jobs whose products a job reads, and the configuration files it obeys.

    Parameters
    ----------
    job : Job
        Any job of `jobs`.

    Returns
    -------
    jobs : list of Job
        Direct predecessors.
    files : list of Path
        Files the user edits; a change of one makes the job run again.
    """
    return predecessors(job), _files(job)


def predecessors(job: Job) -> list[Job]:
    here, band = job.context, job.band or ""
    base = here.at(None)
    pixels = Job("prep", here, band) if here.realization is None else Job("inject", here, band)
    if job.step == "coadd" and band == "det":
        return [Job("coadd", here, other) for other in here.det_bands]
    if job.step == "coadd" and band == "all":
        # The joined PSF maps.
        return [Job(pixels.step, here, other) for other in here.bands]
    if job.step == "coadd":
        return [pixels]
    if job.step == "catalog":
        return [Job("coadd", here, "det"), Job("coadd", here, band)]
    if job.step == "meds":
        return [pixels, Job("coadd", here, band), Job("catalog", here, band)]
    if job.step == "plan":
        return [Job("prep", base, other) for other in here.bands]
    if job.step == "inject":
        return [Job("plan", here), Job("prep", base, band)]
    if job.step == "truth":
        return [Job("plan", here), *(Job("inject", here, other) for other in here.bands)]
    if job.step == "sof":
        return [Job("meds", here, other) for other in here.bands]
    if job.step == "mof":
        return [Job(step, here, other) for step in ("meds", "coadd") for other in here.bands]
    if job.step in ("mcal", "bfd"):
        return [*(Job("meds", here, other) for other in here.bands), Job("mof", here)]
    if job.step == "match":
        catalogs = [Job("catalog", at, other) for at in (here, base) for other in here.bands]
        images = [Job("coadd", at, other) for at in (here, base) for other in here.bands]
        return [Job("truth", here), *(Job(kind, here) for kind in matched_fits(here)), *catalogs, *images]
    if job.step == "report":
        return [Job("match", here.at(name)) for name in here.realizations]
    return []


def matched_fits(context: Context) -> tuple[str, ...]:
    """Return the kinds of fits that the matched catalogue of a realization has.

    Returns
    -------
    tuple of str
        The configuration's ``match_fits``; when it names none, what the mode makes and what is there.
    """
    named = context.pipeline.match_fits
    if named is not None:
        return tuple(kind for kind in FIT_CONFIGS if kind in named)
    found = [Job(kind, context) for kind in FIT_CONFIGS]
    return tuple(job.step for job in found if job.bit & context.pipeline.mode or job.manifest.is_file())


def matched_realizations(context: Context) -> tuple[str, ...]:
    """Return the realizations that a report of a tile is of: those of the call, and those matched before."""
    found = [path.name for path in context.site.root().glob("balrog_images/*") if path.name.isdecimal()]
    there = [name for name in found if Job("match", context.at(name)).manifest.is_file()]
    return tuple(sorted({*context.realizations, *there}, key=int))


def _files(job: Job) -> list[Path]:
    here = job.context
    etc = here.site.base / "etc"
    if job.step == "coadd":
        return [] if job.band == "all" else [etc / "Y3A1_v1_swarp.config"]
    if job.step == "catalog":
        return [etc / name for name in ("Y3A2_v2_sex.config", "balrog_sex.param", "gauss_3.0_7x7.conv")]
    if job.step == "meds":
        return [here.desmeds_file]
    if job.step in ("plan", "inject"):
        settings = here.injection
        bands = settings.bands(here.bands, here.galsim_file)
        own = tuple(band for band in bands if job.band in (None, band))
        return [here.galsim_file, *settings.files(here.site.base, here.tile, own)]
    if job.step in FIT_CONFIGS:
        return [here.fit_file(job.step)]
    return []


def _all_before(job: Job) -> list[Job]:
    """Return every job whose products a job may read: what it needs, what that needs, and so on."""
    found: dict[Job, None] = {}
    todo = [job]
    while todo:
        for need in predecessors(todo.pop()):
            if need not in found:
                found[need] = None
                todo.append(need)
    return list(found)


def settle(context: Context, mode: int) -> list[Path]:
    """Remove the manifests of this mode's blocks that speak of products that are gone, so that they are made again.

    Parameters
    ----------
    context : Context
        The tile.
    mode : int
        Mode bits of the run; manifests of other blocks are left alone.

    Returns
    -------
    list of Path
        Manifests removed.

    Raises
    ------
    InputError
        When a product that was adopted is gone: a run cannot make it as it was.
    """
    removed = []
    for job in jobs(context):
        if not job.bit & mode or not job.manifest.is_file():
            continue
        try:
            gone = lost(job.manifest, (manifest := read_manifest(job.manifest))["outputs"])
            if gone and manifest.get("adopted"):
                raise InputError(
                    "a product that was adopted is gone",
                    tile=context.tile,
                    band=job.band,
                    file=gone[0],
                    remedy=f"restore it, or have block {job.bit} make it: remove {job.manifest} first",
                )
        except (ProductError, KeyError, TypeError, json.JSONDecodeError):
            gone = [str(job.manifest)]
        if gone:
            _log.warning("%s: %s is gone or unreadable; step %s will be made again", context.tile, gone[0], job.step)
            # A run that has the tile may be making it again at this moment.
            job.manifest.unlink(missing_ok=True)
            removed.append(job.manifest)
    return removed


def check_mode(context: Context, mode: int) -> None:
    """Refuse a mode that cannot run.

    Raises
    ------
    InputError
        When a block of `mode` has a wrong configuration, needs a file of the configuration that is not there, or a
        product of a block outside `mode` that is not there; names the product and the bit that makes it.
    """
    _check_settings(context, mode)
    if mode & MODE_BITS["prep"]:
        context.require_archive()
    for job in jobs(context):
        if not job.bit & mode:
            continue
        before, files = needs(job)
        for file in files:
            if not file.is_file():
                raise InputError(
                    f"block {job.bit} ({job.step}) needs a file that is not there",
                    tile=context.tile,
                    band=job.band,
                    file=file,
                    remedy="restore it, or name another one in the configuration",
                )
        for need in before:
            if not need.bit & mode and not (need.manifest.is_file() and need.product.exists()):
                remedy = f"run with --config mode={mode | need.bit}, or mode={need.bit} first"
                if job.context.realization is not None:
                    remedy += "; or with realizations=none for the base run alone"
                raise InputError(
                    f"block {job.bit} ({job.step}) needs a product that is not there; block {need.bit} makes it",
                    tile=context.tile,
                    band=need.band,
                    file=need.product,
                    remedy=remedy,
                )


def _check_settings(context: Context, mode: int) -> None:
    """Read the configuration of every block to run: a slip is told now, not when its block comes."""
    if mode & (MODE_BITS["meds"] | MODE_BITS["injected meds"]):
        for band in context.bands:
            context.desmeds.check_band(band, context.tile)
    if mode & MODE_BITS["inject"]:
        context.injection.bands(context.bands, context.galsim_file)
    if mode & MODE_BITS["match"]:
        # It refuses what the tile does not have.
        _ = context.match_bands
    # Imported when used, so that every other command starts faster.
    runs: dict[str, FitRun] = {}
    if mode & MODE_BITS["sof"]:
        from balrogutils.settings.sof import Sof

        runs["sof"] = Sof.load(context.fit_file("sof"), context.campaign)
    if mode & MODE_BITS["mof"]:
        from balrogutils.settings.mof import Mof

        runs["mof"] = Mof.load(context.fit_file("mof"), context.campaign)
    if mode & MODE_BITS["mcal"]:
        from balrogutils.settings.mcal import Mcal

        runs["mcal"] = Mcal.load(context.fit_file("mcal"), context.campaign)
    if mode & MODE_BITS["bfd"]:
        from balrogutils.settings.bfd import Bfd

        runs["bfd"] = Bfd.load(context.fit_file("bfd"), context.campaign)
    for kind, run in runs.items():
        run.bands(context.bands)
        engine_versions(run.engine, context.fit_file(kind))


def installation_tiles(installation: Installation, words: list[str]) -> list[str]:
    """Return the tiles of a command line: every ``tile=NAME`` word, then the configuration's `tile`, each once.

    Raises
    ------
    InputError
        When a ``tile=`` names nothing, or is not one name alone.
    """
    named = [word.removeprefix("tile=") for word in words if word.startswith("tile=")]
    if any(not name.strip(" ,") for name in named):
        raise InputError("tile= names no tile", remedy="for example tile=DES0239+0216")
    for name in named:
        parts = name.replace(",", " ").split()
        if len(parts) > 1 or name != name.strip(" ,"):
            text = f"'tile={name}' is not one tile"
            raise InputError(text, remedy="write " + " ".join(f"tile={part}" for part in parts))
    return list(dict.fromkeys([*named, *installation.pipeline.tile]))
