"""Block 8: plan what is injected where, inject it into every chip, and tell the truth."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from balrogutils.archive.geometry import Geometry
from balrogutils.blocks.recipe import recipe_of, settings_of
from balrogutils.context import Context
from balrogutils.errors import BalrogError, InjectionError
from balrogutils.fitsfile import Table, read_header, read_table, write_tables
from balrogutils.graph import Job
from balrogutils.injection import audit
from balrogutils.injection.flags import OUTCOME_UNITS, ChipFlag
from balrogutils.injection.planning import UNITS, make_plan, plan_bands, plan_digest, read_plan
from balrogutils.injection.sources.loading import load_all
from balrogutils.injection.truth import truth_table
from balrogutils.parquetfile import write_parquet
from balrogutils.products import Step, link_or_copy
from balrogutils.progress import track
from balrogutils.settings.injection import Injection

if TYPE_CHECKING:
    from balrogutils.injection.placing import Masked

__all__ = ["inject", "plan", "truth"]

_log = logging.getLogger(__name__)

# Card of a band's outcome: digest of the plan's rows as this band has them.
_PLAN_CARD = "PLANSUM"


def plan(context: Context) -> None:
    """Choose objects and positions of a realization, once for all bands.

    Parameters
    ----------
    context : Context
        Tile and realization.

    Raises
    ------
    BalrogError
        When the configuration, a catalogue or the geometry is missing or wrong, or a type of object gets no position.
    """
    settings, seed, realization = settings_of(context)
    tree, base = context.tree, context.base_tree
    bands = settings.bands(context.bands, context.galsim_file)
    config = settings.model_dump(mode="json")
    with Job("plan", context).open(config, {"injection": seed}) as step:
        step.read(context.galsim_file, *filter(Path.is_file, [base.geometry]))
        geometry = Geometry.read(base.geometry)
        root = context.site.base
        try:
            catalogs = load_all(settings, geometry, root, bands, seed, realization)
            step.read(*settings.files(root, context.tile, bands))
            step.read(*(table for one in catalogs.values() for table in one.tables))
            masked = _masks(context, bands, step) if settings.image.avoid.masked else None
            rows = make_plan(settings, catalogs, geometry, bands, seed, realization, root, masked)
        except BalrogError as error:
            error.locate(file=context.galsim_file)
            raise
        write_tables(tree.plan, [Table("PLAN", rows, UNITS)])
        link_or_copy(base.geometry, tree.geometry)
        step.wrote(tree.plan, tree.geometry)
        kinds = dict.fromkeys(str(name) for name in rows["inj_type"])
        step.count(objects=len(rows), **{name: int(np.sum(rows["inj_type"] == name)) for name in kinds})


def _masks(context: Context, bands: tuple[str, ...], step: Step) -> Masked:
    """Return what says which sky positions have zero weight on every exposure of some band."""
    from balrogutils.injection import listing
    from balrogutils.injection.masking import masked

    base, tree = context.base_tree, context.tree
    chips = {band: listing.base_chips(base, tree, band) for band in bands}
    step.read(*(chip.base for one in chips.values() for chip in one))
    return lambda sky: masked(sky, chips)


def inject(context: Context, band: str) -> None:
    """Inject the plan into every chip of one band.

    Parameters
    ----------
    context : Context
        Tile and realization.
    band : str
        Band.

    Raises
    ------
    BalrogError
        When a product of the base run or the plan is missing, an object cannot be drawn, or the audit of a chip fails;
        the chip is not written then, and no list of the band.
    """
    # GalSim is for this step only; planning and telling the truth start faster without it.
    from balrogutils.injection import listing
    from balrogutils.injection.chippsf import psf_file
    from balrogutils.injection.imagefile import inject_chip

    settings, seed, realization = settings_of(context)
    tree, base = context.tree, context.base_tree
    config = settings.model_dump(mode="json")
    started = time.monotonic()
    with Job("inject", context, band).open(config, {"injection": seed}) as step:
        lists = base.flist("nullwt", band), base.psfmap(band)
        step.read(context.galsim_file, tree.plan, *filter(Path.is_file, lists))
        rows = read_plan(tree.plan)
        if band not in plan_bands(rows):
            # A band that the configuration leaves out stays as it is.
            _log.info("%s %s realization %s: nothing is injected into this band", context.tile, band, realization)
            rows = rows[:0]
        recipe, shapes = recipe_of(context, settings, seed, realization)
        reach = np.array([shapes.reach(row) for row in rows])
        chips = listing.base_chips(base, tree, band)
        outcomes = []
        for chip in track(chips, f"{context.tile} {band} realization {realization}: injection", unit="CCDs"):
            step.read(chip.base, psf_file(chip, recipe))
            if "BKG" in (settings.blank or "") and chip.background is not None:
                step.read(chip.background)
            outcomes.append(inject_chip(chip, rows, reach, recipe, shapes))
            link_or_copy(chip.target, tree.injected(band, chip.name))
            step.wrote(chip.target, tree.injected(band, chip.name))
        for read, wrote in (listing.write_psfs(base, tree, band), listing.write_lists(base, tree, band)):
            step.read(*read)
            step.wrote(*wrote)
        table = np.concatenate(outcomes)
        write_tables(tree.outcome(band), [Table("CHIPS", table, OUTCOME_UNITS, {_PLAN_CARD: plan_digest(rows, band)})])
        step.wrote(tree.outcome(band))
        drawn = len(np.unique(table["bal_id"]))
        counts = {flag.name.lower(): int(np.sum((table["flags"] & flag) != 0)) for flag in ChipFlag if flag.name}
        step.count(planned=len(rows), objects=drawn, chips=len(chips), stamps=len(table), **counts)
    _log.info(
        "%s %s realization %s: injected %d of %d objects into %d CCDs, %d stamps in %.1f s",
        *(context.tile, band, realization, drawn, len(rows), len(chips), len(table), time.monotonic() - started),
    )


def truth(context: Context) -> None:
    """Write the truth catalogue and the table by object and chip.

    Parameters
    ----------
    context : Context
        Tile and realization.

    Raises
    ------
    BalrogError
        When the plan or a band's outcome is missing, or they do not belong together.
    """
    settings, seed, realization = settings_of(context)
    tree = context.tree
    config = settings.model_dump(mode="json")
    with Job("truth", context).open(config | {"parquet": context.pipeline.truth_parquet}, {"injection": seed}) as step:
        step.read(tree.plan)
        rows = read_plan(tree.plan)
        bands = plan_bands(rows)
        step.read(*(tree.outcome(band) for band in bands))
        outcomes = {band: read_table(tree.outcome(band), "CHIPS") for band in bands}
        for band in bands:
            if read_header(tree.outcome(band), "CHIPS").get(_PLAN_CARD) != plan_digest(rows, band):
                raise InjectionError(
                    "what was injected into a band is not what the plan says now",
                    tile=context.tile,
                    band=band,
                    file=tree.outcome(band),
                    remedy=f"run balrog inject {context.tile} -r {context.realization} --band {band}",
                )
        try:
            table, chips = truth_table(rows, outcomes)
            audit.require(audit.check_truth(table, chips))
        except InjectionError as error:
            raise InjectionError(
                error.message, tile=context.tile, band=error.where.get("band"), file=tree.truth, remedy=error.remedy
            ) from error
        cards = _cards(context, settings, rows, seed)
        whole = {
            tree.truth: Table("TRUTH", table, UNITS, cards),
            tree.truth_chips: Table("CHIPS", chips, OUTCOME_UNITS, cards),
        }
        for file, one in whole.items():
            write_tables(file, [one])
            step.wrote(file)
            if context.pipeline.truth_parquet:
                write_parquet(tree.parquet(file), one)
                step.wrote(tree.parquet(file))
            else:
                # Of an earlier truth; it would not be this one.
                tree.parquet(file).unlink(missing_ok=True)
        for kind in dict.fromkeys(str(name) for name in table["inj_type"]):
            mine = table[table["inj_type"] == kind]
            write_tables(tree.truth_of(kind), [Table("TRUTH", mine, UNITS, {**cards, "NOBJECTS": len(mine)})])
            step.wrote(tree.truth_of(kind))
        good = int(np.sum(table["outcome"] == 0))
        step.count(objects=len(table), good=good, flagged=len(table) - good, stamps=len(chips))
    _log.info(
        "%s realization %s: %d of %d objects are whole in every band", context.tile, realization, good, len(table)
    )


def _cards(context: Context, settings: Injection, rows: np.ndarray, seed: int) -> dict[str, str | int | float]:
    """Return the header cards of the truth tables; nothing that depends on when or where the run was made."""
    image = settings.image
    geometry = Geometry.read(context.tree.geometry)
    cards: dict[str, str | int | float] = {
        "RUN_NAME": image.run_name or "",
        "TILENAME": context.tile,
        "CURRREAL": context.realization or "",
        "DATAVERS": context.site.medsconf,
        "CONFFILE": context.galsim_file.name,
        "INJBANDS": "".join(plan_bands(rows)),
        "INJTYPES": ",".join(item.label if item.native else item.type for item in settings.gal.items),
        "POSSAMPL": ",".join(settings.positions(name).type for name in settings.inputs),
        "NOBJECTS": len(rows),
        "INJSEED": seed,
        "POISSON": int(settings.poisson),
        "ROTATED": int(bool(image.rotate_objs)),
        "PSFTYPE": settings.psf.type,
        "RECENTER": int(settings.psf.recenter_psf),
        "EXTINCT": int(image.extinct_objs),
        "MAGZERO": 30.0,
    }
    if image.extinct_objs:
        cards.update({f"EXTFAC_{band.upper()}": geometry.extfact[band] for band in plan_bands(rows)})
    return cards
