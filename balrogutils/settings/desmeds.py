"""The MEDS configuration ``desmeds-config/meds-<medsconf>.yaml``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

import pydantic

from balrogutils.errors import ConfigError
from balrogutils.masks import MaskBit, mask_of
from balrogutils.settings.campaign import Campaign
from balrogutils.settings.yamlfile import Strict, load_yaml, parse

__all__ = ["AstromSettings", "CoaddPsf", "DesMeds", "ExtraField", "PsfSettings", "SePsf"]

FROM_TILE = "from_tile"
CutoutType = Literal["image", "weight", "seg", "bmask"]
_DTYPES = {"image": ("f4", "f8"), "weight": ("f4", "f8"), "seg": ("i4",), "bmask": ("i4",)}
_ABSENT = ("none", "", -1)
_PACK_KEYS = ("FZALGOR", "FZQMETHD", "FZQVALUE", "FZTILE")
_ALLOWED_BOXES = tuple(side for power in range(1, 13) for side in (2**power, 3 * 2 ** (power - 1)))
_PSF_LIMITS = 3, 1023

Ext = int | str


class CoaddPsf(Strict):
    """PSF of the coadd: a PSFEx model."""

    type: Literal["psfex"] = "psfex"
    stamp_size: int | None = None


class SePsf(Strict):
    """PSF of the single-epoch images: PSFEx models, without colour dependence.

    Attributes
    ----------
    stamp_size : int or None
        Odd side of the stored stamps in pixels; None takes the size of each model.
    use_color, gi_color_range, iz_color_range :
        Colour-dependent PSF models need a colour per object, which this version does not have: only False and None
        are accepted.
    """

    type: Literal["psfex"] = "psfex"
    stamp_size: int | None = None
    use_color: Literal[False] = False
    gi_color_range: None = None
    iz_color_range: None = None


class PsfSettings(Strict):
    """PSF stamps of a MEDS file."""

    coadd: CoaddPsf = CoaddPsf()
    se: SePsf = SePsf()

    @pydantic.model_validator(mode="after")
    def _odd(self) -> PsfSettings:
        low, high = _PSF_LIMITS
        for size in (self.coadd.stamp_size, self.se.stamp_size):
            if size is not None and (not low <= size <= high or size % 2 == 0):
                raise ValueError(f"a PSF stamp has an odd side of at least {low} pixels and at most {high}, not {size}")
        return self


class AstromSettings(Strict):
    """Astrometry of a kind of image; colour-dependent astrometry is not in this version."""

    use_color: Literal[False] = False


class ExtraField(Strict):
    """A catalogue column to carry into ``object_data``, under its name in lower case."""

    name: str
    type: Literal["i2", "i4", "i8", "f4", "f8"]


class DesMeds(Strict):
    """Every key of a MEDS configuration, with the defaults of the shipped ``meds-y3v02.yaml``.

    Keys that only other code ever used, and that change no product here, are accepted so that old files keep working:
    `dbname`, `refband`, `bitmask_allowed`, `use_joblib`, `joblib`. A value this version cannot honour is an error,
    never ignored. The meaning of every key is in the comments of the shipped file.
    """

    medsconf: str
    campaign: str | None = None
    dbname: str | None = None
    bands: tuple[str, ...] | Literal["from_tile"] = "from_tile"
    det: tuple[str, ...] | Literal["from_tile"] = "from_tile"
    refband: str = "i"
    source_type: Literal["nullwt"] = "nullwt"

    # cut-outs
    cutout_types: tuple[CutoutType, ...] = ("image", "weight", "seg", "bmask")
    dtypes: dict[str, str] = pydantic.Field(default_factory=dict)
    magzp_ref: float = 30.0
    position_offset: float = 1.0
    unusable_bmask: int = 0
    bitmask_allowed: int = 0
    ncutout_max: int | None = pydantic.Field(default=None, ge=1)

    # catalogue columns
    row_name: str = "y_image"
    col_name: str = "x_image"
    flags_name: str = "flags"
    isoarea_name: str = "isoarea_image"
    flux_name: str = "flux_auto"
    fluxerr_name: str = "fluxerr_auto"
    x2_name: str = "x2_image"
    x2err_name: str = "errx2_image"
    y2_name: str = "y2_image"
    y2err_name: str = "erry2_image"
    extra_obj_data_fields: tuple[ExtraField, ...] = ()

    # boxes
    sigma_fac: float = pydantic.Field(default=5.0, gt=0)
    min_box_size: int = pydantic.Field(default=32, ge=2)
    max_box_size: int = pydantic.Field(default=256, ge=2)
    allowed_box_sizes: tuple[pydantic.PositiveInt, ...] = _ALLOWED_BOXES

    # which exposures hold an object
    bounds_buffer_uv: float = pydantic.Field(default=16.0, ge=0)
    coadd_bounds_buffer_rowcol: float = pydantic.Field(default=1e-3, ge=0)
    first_image_is_coadd: Literal[True] = True
    check_in_coadd: bool = True
    force_into_coadd_bounds: bool = True
    trim_to_coadd: bool = False

    # extensions of the files
    use_astro_refine: Literal[False] = False
    coadd_astrom: AstromSettings = AstromSettings()
    se_astrom: AstromSettings = AstromSettings()
    se_image_ext: Ext = "sci"
    se_weight_ext: Ext = "wgt"
    se_bmask_ext: Ext = "msk"
    se_bkg_ext: Ext = "sci"
    se_seg_ext: Ext = "sci"
    coadd_image_ext: Ext = "sci"
    coadd_weight_ext: Ext = "wgt"
    coadd_bmask_ext: Ext = "msk"
    coadd_seg_ext: Ext = "sci"
    coadd_bkg_ext: Ext = "none"

    # PSF stamps
    psf: PsfSettings = PsfSettings()
    piff_campaign: None = None

    # packing
    fpack: Literal[True] = True
    fpack_pars: dict[str, int | float | str] = pydantic.Field(default_factory=dict)
    fpack_dims: tuple[int, ...] = (10240, 1)
    fpack_kwargs: dict[str, Any] = pydantic.Field(default_factory=dict)

    # other people's process pools
    use_joblib: bool = False
    joblib: dict[str, Any] = pydantic.Field(default_factory=dict)

    @pydantic.field_validator("unusable_bmask", mode="before")
    @classmethod
    def _bits(cls, value: Any) -> Any:
        if isinstance(value, (list, tuple)):
            unknown = [name for name in value if name not in MaskBit.__members__]
            if unknown:
                raise ValueError(f"unknown mask bits {unknown}; known: {' '.join(MaskBit.__members__)}")
            return mask_of(value)
        return value

    @pydantic.field_validator("fpack_pars")
    @classmethod
    def _pack_keys(cls, value: dict[str, int | float | str]) -> dict[str, int | float | str]:
        filled = {
            "FZALGOR": "RICE_1",
            "FZTILE": "(10240,1)",
            "FZQMETHD": "SUBTRACTIVE_DITHER_2",
            "FZQVALUE": 4,
            **value,
        }
        for key in value:
            if key not in _PACK_KEYS:
                raise ValueError(f"unknown fpack key {key!r}; known: {' '.join(_PACK_KEYS)}")
        if filled["FZALGOR"] not in ("RICE_1", "GZIP_1", "GZIP_2"):
            raise ValueError(f"FZALGOR is RICE_1, GZIP_1 or GZIP_2, not {filled['FZALGOR']}")
        if filled["FZQMETHD"] != "SUBTRACTIVE_DITHER_2":
            raise ValueError(
                "FZQMETHD must be SUBTRACTIVE_DITHER_2: the other methods do not keep a weight of zero at zero"
            )
        if not isinstance(filled["FZQVALUE"], (int, float)) or filled["FZQVALUE"] < 0:
            raise ValueError("FZQVALUE is a number of at least 0 (0 packs without loss)")
        if filled["FZQVALUE"] == 0 and filled["FZALGOR"] == "RICE_1":
            raise ValueError("FZQVALUE 0 (no loss) needs FZALGOR GZIP_1 or GZIP_2")
        return filled

    @pydantic.model_validator(mode="after")
    def _consistent(self) -> DesMeds:
        self._check_boxes()
        self._check_exts()
        self._check_packing()
        if (
            len(set(self.cutout_types)) != len(self.cutout_types)
            or "image" not in self.cutout_types
            or "weight" not in self.cutout_types
        ):
            raise ValueError("cutout_types names each plane once, image and weight among them")
        for name, dtype in self.dtypes.items():
            if name not in _DTYPES or dtype not in _DTYPES[name]:
                allowed = " or ".join(_DTYPES.get(name, ("nothing, being no cut-out type",)))
                raise ValueError(f"dtypes: {name} can be {allowed}, not {dtype}")
        if self.position_offset != 1.0:
            raise ValueError("position_offset must be 1.0: the WCS of a FITS image counts pixels from 1")
        if not 0 <= self.unusable_bmask < 2**31:
            raise ValueError(f"unusable_bmask is a set of mask bits, not {self.unusable_bmask}")
        return self

    def _check_boxes(self) -> None:
        if self.min_box_size > self.max_box_size:
            raise ValueError(f"min_box_size {self.min_box_size} is above max_box_size {self.max_box_size}")
        if not self.allowed_box_sizes or max(self.allowed_box_sizes) < self.max_box_size:
            raise ValueError(f"allowed_box_sizes needs an entry of at least max_box_size {self.max_box_size}")

    def _check_exts(self) -> None:
        for kind in ("se", "coadd"):
            names = [f"{kind}_{plane}_ext" for plane in ("image", "weight", "bmask", "bkg", "seg")]
            values = [getattr(self, name) for name in names]
            given = [value for value in values if value not in _ABSENT]
            if len({isinstance(value, str) for value in given}) > 1:
                raise ValueError(f"the extensions {', '.join(names)} must all be numbers or all be names")
            if any(
                value in _ABSENT for name, value in zip(names, values, strict=True) if not name.endswith("_bkg_ext")
            ):
                raise ValueError(f"only {kind}_bkg_ext can be absent")
        if self.coadd_bkg_ext not in _ABSENT:
            raise ValueError("coadd_bkg_ext must be none: the coadd has no background image")

    def _check_packing(self) -> None:
        tile = str(self.fpack_pars["FZTILE"]).strip("() ")
        if tuple(int(part) for part in tile.split(",") if part.strip().isdecimal()) != tuple(self.fpack_dims):
            raise ValueError(f"fpack_dims {list(self.fpack_dims)} and FZTILE {self.fpack_pars['FZTILE']} disagree")
        if self.fpack_kwargs:
            raise ValueError("fpack_kwargs is not supported; give fpack_pars")

    def check_band(self, band: str, tile: str) -> None:
        """Refuse a band of a tile that this configuration leaves out.

        Raises
        ------
        ConfigError
            When `band` is not among the bands.
        """
        if band not in self.bands:
            raise ConfigError(
                f"the MEDS configuration has no band {band}, only {' '.join(self.bands)}",
                tile=tile,
                band=band,
                key="bands",
                remedy="add the band, or write bands: from_tile",
            )

    def dtype(self, kind: str) -> str:
        """Return the numpy type of a cut-out plane, for example ``"f4"``."""
        return self.dtypes.get(kind, _DTYPES[kind][0])

    @property
    def se_has_bkg(self) -> bool:
        """Whether a background image is subtracted from single-epoch images."""
        return self.se_bkg_ext not in _ABSENT

    @classmethod
    def load(cls, path: str | os.PathLike[str], campaign: Campaign | None = None) -> DesMeds:
        """Read a configuration and put the campaign's bands where it says ``from_tile``.

        Parameters
        ----------
        path : path-like
            ``meds-<medsconf>.yaml``.
        campaign : Campaign, optional
            What the tile is made of; without it ``from_tile`` stays.

        Raises
        ------
        ConfigError
            Unknown, missing or contradictory keys, a medsconf other than the file name's, bands or a zero point that
            the campaign does not have.
        """
        file = Path(path)
        settings = parse(cls, load_yaml(file), file)
        name = file.stem.removeprefix("meds-")
        if not file.name.startswith("meds-") or settings.medsconf != name:
            raise ConfigError(
                f"medsconf is {settings.medsconf}, but the file is called {file.name}",
                file=file,
                key="medsconf",
                remedy=f"call it meds-{settings.medsconf}.yaml",
            )
        return settings if campaign is None else settings._of_campaign(campaign, file)

    def _of_campaign(self, campaign: Campaign, file: Path) -> DesMeds:
        def refuse(key: str, mine: Any, theirs: Any) -> ConfigError:
            return ConfigError(
                f"{key} is {mine} here, but campaign {campaign.name} has {theirs}",
                file=file,
                key=key,
                remedy="make them agree (bands and det can be from_tile)",
            )

        bands = campaign.bands if self.bands == FROM_TILE else self.bands
        if not bands or len(set(bands)) != len(bands):
            raise refuse("bands", " ".join(bands) or "empty", " ".join(campaign.bands))
        det = campaign.det if self.det == FROM_TILE else self.det
        if not set(bands) <= set(campaign.bands):
            raise refuse("bands", " ".join(bands), " ".join(campaign.bands))
        if set(det) != set(campaign.det):
            raise refuse("det", " ".join(det), " ".join(campaign.det))
        if "refband" in self.model_fields_set and self.refband not in campaign.bands:
            raise refuse("refband", self.refband, " ".join(campaign.bands))
        if self.magzp_ref != campaign.magzp_ref:
            raise refuse("magzp_ref", self.magzp_ref, campaign.magzp_ref)
        if self.medsconf != campaign.medsconf:
            raise refuse("medsconf", self.medsconf, campaign.medsconf)
        if campaign.kind == "desdm" and self.campaign is not None and self.campaign.upper() != campaign.proctag.upper():
            raise refuse("campaign", self.campaign, campaign.proctag)
        return self.model_copy(update={"bands": tuple(bands), "det": tuple(det)})
