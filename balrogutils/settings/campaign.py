"""Campaigns: which archive, bands and defaults a tile comes with."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import pydantic

from balrogutils.errors import ConfigError, InputError, did_you_mean
from balrogutils.settings.yamlfile import Strict, load_yaml, parse

__all__ = ["Campaign", "Campaigns"]


class Campaign(Strict):
    """One archive of single-epoch images and what its tiles are made of."""

    kind: Literal["desdm", "noirlab"]
    database: str
    archive: str
    builder: str = ""
    proctag: str = "Y3A2_COADD"
    se_proctag: str = "Y3A1_FINALCUT"
    medsconf: str = "y3v02"
    bands: tuple[str, ...] = pydantic.Field(min_length=1)
    det: tuple[str, ...] = pydantic.Field(min_length=1)
    tiles: tuple[str, ...] = ()
    magzp_ref: float = 30.0
    max_missing_ccds: int = pydantic.Field(default=10, ge=0)
    desmeds_config: str | None = None
    galsim_config: str | None = None
    sof_config: str | None = None
    name: str = ""

    @pydantic.model_validator(mode="after")
    def _bands_agree(self) -> Campaign:
        for band in self.det:
            if band not in self.bands:
                raise ValueError(f"detection band {band} is not one of the bands {' '.join(self.bands)}")
        if len(set(self.bands)) != len(self.bands):
            raise ValueError("a band is named twice")
        return self


class Campaigns(Strict):
    """Every campaign this installation knows, by name (``etc/campaigns.yaml``)."""

    campaigns: dict[str, Campaign]

    @classmethod
    def load(cls, path: str | os.PathLike[str], directories: dict[str, Path]) -> Campaigns:
        """Read the file and put directories in place of ``{run}`` and ``{base}``.

        Parameters
        ----------
        path : path-like
            The YAML file.
        directories : dict
            Values of the placeholders that `database` and `archive` may hold.

        Raises
        ------
        ConfigError
            See `balrogutils.settings.yamlfile`.
        """
        data = load_yaml(path)
        loaded = parse(cls, data, path)
        texts = {key: str(value) for key, value in directories.items()}
        filled = {}
        for name, campaign in loaded.campaigns.items():
            try:
                places = {key: getattr(campaign, key).format(**texts) for key in ("database", "archive")}
            except (KeyError, IndexError, ValueError) as error:
                raise ConfigError(
                    f"an unknown placeholder {error} in a campaign's database or archive",
                    file=path,
                    key=f"campaigns.{name}",
                    remedy="use {run} or {base}",
                ) from error
            filled[name] = campaign.model_copy(update={**places, "name": name})
        return cls(campaigns=filled)

    def of_tile(self, tile: str, name: str = "auto") -> Campaign:
        """Return the campaign a tile belongs to.

        Parameters
        ----------
        tile : str
            Tile name.
        name : str
            A campaign name, or ``auto``: the first campaign that lists the tile.

        Raises
        ------
        InputError
            Unknown tile or campaign; offers the nearest names.
        """
        if name != "auto":
            if name not in self.campaigns:
                raise InputError(
                    f"unknown campaign {name!r}: {did_you_mean(name, self.campaigns)}",
                    key="campaign",
                    remedy="see etc/campaigns.yaml",
                )
            return self.campaigns[name]
        for campaign in self.campaigns.values():
            if tile in campaign.tiles:
                return campaign
        known = [known_tile for campaign in self.campaigns.values() for known_tile in campaign.tiles]
        raise InputError(
            f"no campaign lists this tile: {did_you_mean(tile, known)}",
            tile=tile,
            remedy="check the name, or name its archive with --config campaign=NAME",
        )
