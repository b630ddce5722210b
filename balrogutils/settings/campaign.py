"""Campaigns: which archive, bands and defaults a tile comes with."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import quote

import pydantic

from balrogutils.errors import ConfigError, InputError, did_you_mean
from balrogutils.settings.yamlfile import Strict, load_yaml, parse

__all__ = ["TILE_PATTERN", "Campaign", "Campaigns"]


# Bands and tiles are parts of file names and of the workflow's patterns.
_BandName = Annotated[str, pydantic.Field(pattern=r"^[A-Za-z0-9]+$")]
TILE_PATTERN = r"DES[0-9]{4}[+-][0-9]{4}"
_TileName = Annotated[str, pydantic.Field(pattern=rf"^{TILE_PATTERN}$")]
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")


class Campaign(Strict):
    """One archive of single-epoch images and what its tiles are made of."""

    kind: Literal["desdm", "noirlab"]
    database: str
    archive: str
    builder: str = ""
    proctag: str = "Y3A2_COADD"
    se_proctag: str = "Y3A1_FINALCUT"
    medsconf: str = "y3v02"
    bands: tuple[_BandName, ...] = pydantic.Field(min_length=1)
    det: tuple[_BandName, ...] = pydantic.Field(min_length=1)
    tiles: tuple[_TileName, ...] = ()
    magzp_ref: float = 30.0
    connections: int = pydantic.Field(default=4, ge=1, le=32)
    max_missing_ccds: int = pydantic.Field(default=10, ge=0)
    desmeds_config: str | None = None
    galsim_config: str | None = None
    sof_config: str | None = None
    mof_config: str | None = "run-y3v02-mof.yaml"
    shr_config: str | None = "run-all-mcal.yaml"
    bfd_config: str | None = "run-y3v02-bfd.yaml"
    name: str = ""

    @pydantic.model_validator(mode="after")
    def _bands_agree(self) -> Campaign:
        for band in self.det:
            if band not in self.bands:
                raise ValueError(f"detection band {band} is not one of the bands {' '.join(self.bands)}")
        for names in (self.bands, self.det):
            if len(set(names)) != len(names):
                raise ValueError("a band is named twice")
        for name, what in (("det", "the detection image"), ("all", "what is of all bands")):
            if name in self.bands:
                raise ValueError(f"{name} is the name of {what} and cannot be a band")
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
            places = {key: getattr(campaign, key) for key in ("database", "archive")}
            for key, place in places.items():
                unknown = [word for word in _PLACEHOLDER.findall(place) if word not in texts]
                if unknown:
                    raise ConfigError(
                        f"an unknown placeholder {{{unknown[0]}}} in a campaign's {key}",
                        file=path,
                        key=f"campaigns.{name}.{key}",
                        remedy="use {run} or {base}",
                    )
                # A URL of a file holds the path as URLs do; SQLAlchemy takes a database's path as it is.
                as_url = quote if place.startswith("file:") else str
                for word, text in texts.items():
                    places[key] = places[key].replace(f"{{{word}}}", as_url(text))
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
            remedy="check the name, or name its archive: snakemake --config campaign=NAME, balrog --set campaign=NAME",
        )
