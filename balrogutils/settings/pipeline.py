"""The one configuration that names everything: ``etc/pipeline.yaml``, any key overridden on the command line."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pydantic

from balrogutils.errors import ConfigError, did_you_mean
from balrogutils.identity import MAX_REALIZATION
from balrogutils.layout import FIT_CONFIGS
from balrogutils.settings.campaign import Campaign
from balrogutils.settings.yamlfile import Strict, load_yaml, parse

__all__ = ["DIFFERENCES", "MAX_SEED", "TEMPORARY", "Pipeline"]

MAX_SEED = 2**63 - 1
"""Largest seed: what a FITS header can hold."""

TEMPORARY = {"nullwt": "prep", "injected": "inject"}
"""Images that can be made again, by the word of ``keep``, with the step that makes them."""

DIFFERENCES = "differences"
"""Word of ``keep`` for what injected images that are let go differ in from those of the base run."""


def _words(value: Any) -> Any:
    """Let ``a,b`` or ``a b`` or a single number on the command line stand for a list."""
    if isinstance(value, str):
        return [word for word in value.replace(",", " ").split() if word]
    if isinstance(value, (int, float)):
        return [str(value)]
    if isinstance(value, (list, tuple)):
        if any(isinstance(item, (list, tuple, dict)) for item in value):
            raise ValueError("each entry must be a plain word")
        return [str(item) for item in value]
    return value


class Pipeline(Strict):
    """Settings of a run.

    Attributes
    ----------
    tile : tuple of str
        Tiles to make, beside the ``tile=`` targets.
    mode : int
        Sum of mode bits; blocks to run.
    campaign : str
        A name in ``etc/campaigns.yaml``, or ``auto``.
    medsconf : str
        Name of the MEDS configuration, part of directory and file names.
    realizations : tuple of str or None
        Names of the realizations, whole numbers as text; ``()``, in the file and on the command line the word ``none``,
        for the base run alone; the injection configuration's when None.
    desmeds_config, galsim_config, sof_config, mof_config, shr_config, bfd_config : str or None
        Configuration files: a path, or a name in the directory they are kept in; the campaign's when None.
    bands : tuple of str or None
        Bands to process; all of the campaign's when None.
    seed : int
        Seed of every random stream.
    truth_parquet : bool
        Whether the truth tables are written as Parquet too.
    fit_workers : int
        Processes of one job of fits.
    tool_timeout : float
        Seconds after which an external program counts as hanging.
    match_radius : float
        Largest distance of an injection and its detection, arcsec.
    match_bands : tuple of str or None
        Bands whose mean flux says which of two objects is the brighter; those of the detection image when None.
    match_fits : tuple of str or None
        Kinds of fits (``sof mof mcal bfd``) that the matched catalogue must have; ``()``, as a word ``none``, for
        SExtractor alone; those of the mode, and those that are there, when None.
    keep : tuple of str
        Images to keep when every step that reads them is done (``nullwt injected``); the others are let go then, and
        made again when a step needs them; ``()``, as a word ``none``, for neither. ``differences`` instead of
        ``injected`` keeps what injected images differ in from those of the base run, from which they are made again.
    """

    tile: tuple[str, ...] = ()
    mode: int = pydantic.Field(default=1151, ge=1, le=2047)
    campaign: str = "auto"
    medsconf: str = pydantic.Field(default="y3v02", pattern=r"^[A-Za-z0-9_.]+$")
    realizations: tuple[str, ...] | None = None
    desmeds_config: str | None = None
    galsim_config: str | None = None
    sof_config: str | None = None
    mof_config: str | None = None
    shr_config: str | None = None
    bfd_config: str | None = None
    bands: tuple[str, ...] | None = None
    seed: int = pydantic.Field(default=20181105, ge=0, le=MAX_SEED)
    truth_parquet: bool = True
    fit_workers: int = pydantic.Field(default=2, ge=1)
    tool_timeout: float = pydantic.Field(default=14400.0, gt=0)
    match_radius: float = pydantic.Field(default=0.5, gt=0, le=10)
    match_bands: tuple[str, ...] | None = None
    match_fits: tuple[str, ...] | None = None
    keep: tuple[str, ...] = tuple(TEMPORARY)

    @pydantic.field_validator("tile", "realizations", "bands", "match_bands", "match_fits", "keep", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return _words(value)

    @pydantic.field_validator("realizations", "match_fits", "keep", mode="before")
    @classmethod
    def _none(cls, value: Any) -> Any:
        return () if value == "none" else value

    @pydantic.field_validator("realizations")
    @classmethod
    def _numbers(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for name in value or ():
            if not name.isdecimal() or name != str(int(name)):
                raise ValueError(f"a realization is a whole number such as 0 or 12, not {name!r}")
            if int(name) > MAX_REALIZATION:
                raise ValueError(f"realizations go from 0 to {MAX_REALIZATION}")
        return value

    @pydantic.field_validator("match_fits")
    @classmethod
    def _kinds(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for name in value or ():
            if name not in FIT_CONFIGS:
                raise ValueError(f"kinds of fits are {' '.join(FIT_CONFIGS)}, or none, not {name!r}")
        return value

    @pydantic.field_validator("keep")
    @classmethod
    def _temporary(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        known = (*TEMPORARY, DIFFERENCES)
        for name in value:
            if name not in known:
                raise ValueError(f"what may be kept is {' '.join(known)}, or none, not {name!r}")
        if {"injected", DIFFERENCES} <= set(value):
            raise ValueError("differences are kept of injected images that are not: name one of the two")
        return value

    @pydantic.field_validator("realizations", "bands", "match_bands", "match_fits", "keep", mode="before")
    @classmethod
    def _something(cls, value: Any) -> Any:
        if isinstance(value, (str, list)) and not _words(value):
            raise ValueError("nothing is named; leave the key out for the default")
        return value

    @pydantic.field_validator("realizations", "bands", "match_bands", "match_fits", "keep")
    @classmethod
    def _each_once(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if value is not None and len(set(value)) != len(value):
            raise ValueError("one is named twice")
        return value

    @classmethod
    def load(cls, path: str | os.PathLike[str], overrides: Mapping[str, Any] | None = None) -> Pipeline:
        """Read the file and lay the command line's keys over it.

        Parameters
        ----------
        path : path-like
            The YAML file.
        overrides : mapping, optional
            Keys given with ``--config``.

        Raises
        ------
        ConfigError
            See `balrogutils.settings.yamlfile`.
        """
        data = load_yaml(path)
        parse(cls, data, path)
        # The file is right by itself: what is wrong now was given with --config or --set.
        return parse(cls, {**data, **(overrides or {})}, None)

    def for_campaign(self, campaign: Campaign) -> Pipeline:
        """Return the settings with the campaign's defaults where the user gave none.

        Raises
        ------
        ConfigError
            When a band is asked for that the campaign does not have, or a configuration is not named.
        """
        update: dict[str, Any] = {}
        files = ("desmeds_config", "galsim_config", "sof_config", "mof_config", "shr_config", "bfd_config")
        for key in (*files, "bands"):
            if getattr(self, key) is None:
                value = getattr(campaign, key)
                if value is None:
                    raise ConfigError(
                        f"neither the pipeline configuration nor campaign {campaign.name} gives {key}",
                        key=key,
                        remedy=f"--config {key}=...",
                    )
                update[key] = value
        for band in self.bands or ():
            if band not in campaign.bands:
                raise ConfigError(
                    f"band {band} is not in campaign {campaign.name}",
                    band=band,
                    key="bands",
                    remedy="choose from " + " ".join(campaign.bands),
                )
        if self.medsconf != campaign.medsconf:
            raise ConfigError(
                f"campaign {campaign.name} has medsconf {campaign.medsconf}, the configuration {self.medsconf}",
                key="medsconf",
                remedy="leave medsconf out, or choose another campaign",
            )
        return self.model_copy(update=update)

    def config_file(self, key: str, *directories: Path) -> Path:
        """Return the path of a configuration file: as given, else under the first directory that has it.

        Raises
        ------
        ConfigError
            When it is in none of them.
        """
        name = getattr(self, key)
        try:
            given = Path(name).expanduser()
        except RuntimeError as error:
            text = f"there is no home directory for {name}"
            raise ConfigError(text, key=key, remedy="write the whole path") from error
        candidates = [given, *(directory / name for directory in directories)]
        for candidate in candidates:
            if candidate.is_file():
                return candidate.absolute()
        places = [directory for directory in directories if directory.is_dir()] or list(directories)
        there = [file.name for directory in places for file in directory.glob("*.yaml")]
        raise ConfigError(
            f"the configuration file {name} is not there: {did_you_mean(name, sorted(there))}",
            key=key,
            remedy="give a path, or a file of " + " or ".join(map(str, places)),
        )
