"""Block 1: from the archive to null-weight images, PSF models and lists, one band at a time."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from balrogutils.archive.queries import Database
from balrogutils.archive.transfer import Transfer
from balrogutils.blocks.prepared import Prepared
from balrogutils.context import Context
from balrogutils.errors import ArchiveError, InputError, did_you_mean
from balrogutils.exposures import lists
from balrogutils.graph import Job

__all__ = ["prep"]

_log = logging.getLogger(__name__)


def prep(context: Context, band: str) -> None:
    """Query the archive, fetch, and make the products of block 1 for one band of the base tile.

    Parameters
    ----------
    context : Context
        The tile, in the base run.
    band : str
        Band.

    Raises
    ------
    InputError
        Unknown tile or band, or a realization.
    ArchiveError
        The archive lacks a file, a file is damaged, or more CCDs are unusable than the campaign allows.
    """
    if context.realization is not None:
        raise InputError(
            "the prep block makes the base tile; a realization has no archive", tile=context.tile, band=band
        )
    if band not in context.campaign.bands:
        raise InputError(
            f"campaign {context.campaign.name} has no such band: {did_you_mean(band, context.campaign.bands)}",
            tile=context.tile,
            band=band,
        )
    tree, campaign = context.tree, context.campaign
    keys = ("kind", "proctag", "se_proctag", "magzp_ref", "archive", "max_missing_ccds")
    config = {key: getattr(campaign, key) for key in keys}
    started = time.monotonic()
    with Database(campaign.database, context.site.services) as database:
        # A campaign's database URL may hold a password, and manifests are for everybody.
        config["database"] = database.shown
        if database.login is not None and database.login.warning:
            _log.warning("%s", database.login.warning)
        with Job("prep", context, band).open(config) as step:
            geometry = database.geometry(context.tile)
            login = database.login if campaign.archive.startswith("https:") else None
            transfer = Transfer(campaign.archive, login, connections=campaign.connections)
            made = _maker(campaign.kind)(context, band, database, transfer, geometry)
            _check_left_out(context, band, made)
            _remove_strays(context, band, made)
            geometry.write(tree.geometry)
            written = lists.write_lists(tree, band, made.chips, made.coadd_psf, made.coadd, campaign.magzp_ref)
            step.wrote(
                *made.sources,
                *(path for chip in made.chips for path in (chip.nullwt, chip.seg, chip.bkg, chip.psf)),
            )
            step.wrote(made.coadd_psf, tree.geometry, *written)
            step.count(**_counts(made))
    _log.info("%s %s: %d CCDs ready in %.1f s", context.tile, band, len(made.chips), time.monotonic() - started)


def _maker(kind: str) -> Callable[..., Prepared]:
    # Imported when used: each kind of archive draws in libraries the other has no need of.
    if kind == "desdm":
        from balrogutils.blocks.prep_desdm import make
    else:
        from balrogutils.blocks.prep_noirlab import make
    return make


def _counts(made: Prepared) -> dict[str, int | str]:
    dead = [chip.chip for chip in made.chips if chip.dead]
    broken = [f"{chip.chip} ({chip.not_finite} pixels)" for chip in made.chips if chip.not_finite]
    return {
        "chips": len(made.chips),
        "exposures": len({chip.chip.split("_")[0] for chip in made.chips}),
        "left_out": len(made.left_out),
        "without_zero_point": sum(reason == "no zero point" for reason in made.left_out.values()),
        "left_out_list": "; ".join(f"{chip}: {reason}" for chip, reason in sorted(made.left_out.items())),
        "dead": len(dead),
        "dead_list": "; ".join(dead),
        "not_finite_pixels": sum(chip.not_finite for chip in made.chips),
        "not_finite_list": "; ".join(broken),
        "interpolated_pixels": sum(chip.interpolated for chip in made.chips),
        "refilled_weights": made.refilled,
    }


def _check_left_out(context: Context, band: str, made: Prepared) -> None:
    for chip, reason in sorted(made.left_out.items()):
        _log.warning("%s %s: %s is left out: %s", context.tile, band, chip, reason)
    for one in made.chips:
        if one.dead:
            _log.warning("%s %s: %s has no pixel with weight", context.tile, band, one.chip)
        if one.not_finite:
            _log.warning(
                "%s %s: %s has %d pixels that are no finite numbers", context.tile, band, one.chip, one.not_finite
            )
    if not made.chips:
        reasons = ", ".join(dict.fromkeys(made.left_out.values()))
        raise ArchiveError(
            f"no CCD of this tile and band can be used: {reasons}",
            tile=context.tile,
            band=band,
            remedy="repair the archive, or take the band out of the run (bands)",
        )
    allowed = context.campaign.max_missing_ccds
    if len(made.left_out) > allowed:
        chip, reason = sorted(made.left_out.items())[0]
        raise ArchiveError(
            f"{len(made.left_out)} CCDs cannot be used, the campaign allows {allowed}; the first: {reason}",
            tile=context.tile,
            band=band,
            chip=chip,
            remedy="repair the archive, or raise max_missing_ccds in etc/campaigns.yaml",
        )


def _remove_strays(context: Context, band: str, made: Prepared) -> None:
    """Remove null-weight images of an earlier run that no list names any more."""
    listed = {chip.nullwt for chip in made.chips}
    for path in context.tree.nullwt_dir(band).glob("*_nullwt.fits"):
        if path not in listed:
            _log.info("%s %s: %s belongs to no list any more and is removed", context.tile, band, path.name)
            path.unlink()
