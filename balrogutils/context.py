"""What one job works on: site, settings, campaign, tile and realization."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from balrogutils.errors import ConfigError, InputError
from balrogutils.layout import FIT_CONFIGS, Site, TileTree
from balrogutils.runlock import RunLock
from balrogutils.settings.campaign import TILE_PATTERN, Campaign, Campaigns
from balrogutils.settings.pipeline import Pipeline

if TYPE_CHECKING:
    from balrogutils.settings.desmeds import DesMeds
    from balrogutils.settings.injection import Injection

__all__ = ["Context", "Installation"]


@dataclass(frozen=True)
class Context:
    """One tile in the base run, or in one realization, with every setting a block needs.

    Parameters
    ----------
    site : Site
        Directories.
    pipeline : Pipeline
        ``etc/pipeline.yaml`` with overrides and the campaign's defaults.
    campaign : Campaign
        The archive the tile belongs to.
    tile : str
        Tile name.
    realization : str or None
        None for the base run.
    """

    site: Site
    pipeline: Pipeline
    campaign: Campaign
    tile: str
    realization: str | None = None

    @property
    def tree(self) -> TileTree:
        """Paths of this tile and realization."""
        return self.site.tree(self.tile, self.realization)

    @property
    def base_tree(self) -> TileTree:
        """Paths of the base run of this tile."""
        return self.site.tree(self.tile)

    @property
    def seed(self) -> int:
        """Seed of the run."""
        return self.pipeline.seed

    @property
    def bands(self) -> tuple[str, ...]:
        """Bands of the tile in the order of processing."""
        return self.pipeline.bands or self.campaign.bands

    @property
    def det_bands(self) -> tuple[str, ...]:
        """Bands of the detection image, those of the campaign that are processed.

        Raises
        ------
        InputError
            When none of them is processed.
        """
        bands = tuple(band for band in self.campaign.det if band in self.bands)
        if not bands:
            raise InputError(
                f"none of the detection bands {' '.join(self.campaign.det)} is processed",
                tile=self.tile,
                key="bands",
                remedy="add one of them to bands",
            )
        return bands

    @property
    def match_bands(self) -> tuple[str, ...]:
        """Bands whose mean flux says which of two objects is the brighter.

        Raises
        ------
        InputError
            When one of them is not processed.
        """
        bands = self.pipeline.match_bands or self.det_bands
        for band in bands:
            if band not in self.bands:
                raise InputError(
                    f"brightness is to be compared in a band that is not processed: {band}",
                    tile=self.tile,
                    band=band,
                    key="match_bands",
                    remedy="choose from " + " ".join(self.bands),
                )
        return bands

    @cached_property
    def injection(self) -> Injection:
        """The injection configuration."""
        from balrogutils.settings.injection import Injection

        return Injection.load(self.galsim_file)

    @property
    def realizations(self) -> tuple[str, ...]:
        """Names of all realizations of the tile: the pipeline configuration's, else the injection configuration's."""
        named = self.pipeline.realizations
        return self.injection.realizations if named is None else named

    @property
    def desmeds_file(self) -> Path:
        """The MEDS configuration file."""
        return self.pipeline.config_file("desmeds_config", self.site.desmeds_config)

    @cached_property
    def desmeds(self) -> DesMeds:
        """The MEDS configuration."""
        from balrogutils.settings.desmeds import DesMeds

        return DesMeds.load(self.desmeds_file, self.campaign)

    @property
    def galsim_file(self) -> Path:
        """The injection configuration file."""
        base = self.site.base
        return self.pipeline.config_file("galsim_config", base / "Balrog-GalSim" / "config", base / "inputs")

    def fit_file(self, kind: str) -> Path:
        """Return the configuration file of a fit, ``sof``, ``mof``, ``mcal`` or ``bfd``."""
        name = FIT_CONFIGS[kind]
        return self.pipeline.config_file(f"{name}_config", self.site.base / f"{name}-config")

    @property
    def lock(self) -> RunLock:
        """The locks of the tile, the same for its base run and its realizations."""
        tree = self.base_tree
        return RunLock(tree.run_lock, tree.jobs_lock, self.tile)

    def require_archive(self) -> None:
        """Refuse a tile whose campaign has its database in a file that is not there.

        Raises
        ------
        InputError
            Says how the archive is made, where it is an embedded one.
        """
        campaign = self.campaign
        file = campaign.database.removeprefix("sqlite:///")
        if file != campaign.database and not Path(file).is_file():
            remedy = f"balrog archive {campaign.name}" if campaign.builder else "check `database` in etc/campaigns.yaml"
            text = f"the archive of campaign {campaign.name} is not there"
            raise InputError(text, tile=self.tile, file=file, remedy=remedy)

    def about(self, band: str | None = None) -> dict[str, str | None]:
        """Return what a manifest says about where a step ran."""
        return {"tile": self.tile, "band": band, "realization": self.realization}

    def at(self, realization: str | None) -> Context:
        """Return the same tile in the base run (None) or in another realization."""
        other = Context(self.site, self.pipeline, self.campaign, self.tile, realization)
        # Files that were read for one of them are not read again.
        other.__dict__.update({name: self.__dict__[name] for name in ("injection", "desmeds") if name in self.__dict__})
        return other


@dataclass(frozen=True)
class Installation:
    """The site, the pipeline settings with the user's overrides, and the campaigns it knows."""

    site: Site
    pipeline: Pipeline
    campaigns: Campaigns

    @classmethod
    def load(cls, overrides: Mapping[str, Any] | None = None, environ: Mapping[str, str] | None = None) -> Installation:
        """Read the environment, ``etc/pipeline.yaml`` and ``etc/campaigns.yaml``.

        Parameters
        ----------
        overrides : mapping, optional
            Keys of the pipeline configuration given on the command line.
        environ : mapping, optional
            Instead of the process environment.

        Raises
        ------
        ConfigError
            When one of them is wrong.
        """
        site = Site.from_environment(None, environ)
        if not (site.base / "etc").is_dir():
            # Installed without its checkout, or the variable leads elsewhere.
            raise ConfigError(
                "the configuration is not there: this directory has no etc/",
                file=site.base,
                key="BALROG_BASE",
                remedy="set BALROG_BASE to the checkout",
            )
        pipeline = Pipeline.load(site.base / "etc" / "pipeline.yaml", overrides)
        site = Site.from_environment(pipeline.medsconf, environ)
        campaigns = Campaigns.load(site.base / "etc" / "campaigns.yaml", {"base": site.base, "run": site.base / "run"})
        return cls(site, pipeline, campaigns)

    def context(self, tile: str, realization: str | None = None) -> Context:
        """Return what a job on `tile` works on.

        Raises
        ------
        InputError
            Unknown tile, or a realization that is not one of the run's.
        """
        campaign = self.campaigns.of_tile(tile, self.pipeline.campaign)
        if not re.fullmatch(TILE_PATTERN, tile):
            raise InputError("this is not the name of a tile", tile=tile, remedy="for example DES0239+0216")
        context = Context(self.site, self.pipeline.for_campaign(campaign), campaign, tile)
        if realization is not None and realization not in context.realizations:
            raise InputError(
                f"realization {realization} is not one of this run's: {' '.join(context.realizations) or 'none'}",
                tile=tile,
                key="realizations",
                remedy=f"--set realizations={realization}",
            )
        return context.at(realization)
