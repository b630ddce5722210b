"""What the MEDS file of one tile and band is made of: catalogue, source images, tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from balrogutils.errors import ProductError
from balrogutils.exposures.lists import read_flist, read_psfmap, read_zero_points
from balrogutils.fitsfile import read_table
from balrogutils.layout import TileTree
from balrogutils.meds.boxes import BoxRule
from balrogutils.meds.cutouts import find, lay_out
from balrogutils.meds.sources import PlaneFile, SourceImage, relative_scale
from balrogutils.meds.tables import Tables, image_info, metadata, object_data, psf_info
from balrogutils.settings.desmeds import DesMeds

__all__ = ["Catalog", "Plan", "catalog_columns", "plan_meds", "read_catalog", "single_epoch_sources", "source_of_coadd"]

_PREP = "run the prep block (mode bit 1) for this tile"
_COADD = "run the coadd block (mode bit 2, or 16 for a realization) for this tile"
_SIGMA_PER_FWHM = 1.0 / 2.3548
_BOX_COLUMNS = ("flux_radius", "a_world", "b_world", "xmin_image", "xmax_image", "ymin_image", "ymax_image")
# Columns of object_data, and the settings <name>_name that say where in the catalogue they are.
_MEASURED = {"flux": "flux", "flux_err": "fluxerr", "x2": "x2", "x2_err": "x2err", "y2": "y2", "y2_err": "y2err"}


@dataclass(frozen=True)
class Catalog:
    """Coadd catalogue sorted by NUMBER, with the ids of its objects; columns by lower-case name."""

    path: Path
    rows: NDArray[Any]
    ids: NDArray[np.int64]

    def column(self, name: str) -> NDArray[Any]:
        """Return a column by its name in any case.

        Raises
        ------
        ProductError
            When the catalogue does not have it.
        """
        for own in self.rows.dtype.names or ():
            if own.lower() == name.lower():
                values: NDArray[Any] = self.rows[own]
                return values
        raise ProductError(
            "the coadd catalogue lacks a column",
            file=self.path,
            key=name,
            remedy="add it to the SExtractor parameter file, or mend the name in the MEDS configuration",
        )


def read_catalog(catalog: Path, objmap: Path) -> Catalog:
    """Read a coadd catalogue and the ids of its objects.

    Raises
    ------
    ProductError
        An empty catalogue, numbers that are not 1 to N, or an object map of other objects or with an id given twice.

    Notes
    -----
    ``object_number`` of an object map is NUMBER, or NUMBER - 1 in maps that begin with 0.
    """
    table = Catalog(catalog, read_table(catalog, "OBJECTS"), np.empty(0, np.int64))
    number = table.column("number").astype(np.int64)
    if number.size == 0:
        raise ProductError("the coadd catalogue has no objects", file=catalog, remedy=_COADD)
    order = np.argsort(number, kind="stable")
    if not np.array_equal(number[order], np.arange(1, number.size + 1)):
        raise ProductError(f"NUMBER does not run from 1 to {number.size}", file=catalog, key="NUMBER", remedy=_COADD)
    pairs = Catalog(objmap, read_table(objmap, "OBJECTS"), np.empty(0, np.int64))
    mapped, ids = pairs.column("object_number").astype(np.int64), pairs.column("id").astype(np.int64)
    if mapped.min(initial=1) == 0:
        # The old pipeline counts its objects from 0 (P 2.1).
        mapped = mapped + 1
    by_number = np.argsort(mapped, kind="stable")
    if not np.array_equal(mapped[by_number], number[order]):
        raise ProductError(
            f"the object map and the catalogue speak of different objects ({mapped.size} and {number.size})",
            file=objmap,
            remedy=_COADD,
        )
    if np.unique(ids).size != ids.size:
        raise ProductError("the object map gives an id twice", file=objmap, key="id", remedy=_COADD)
    return Catalog(catalog, table.rows[order], ids[by_number])


def source_of_coadd(tree: TileTree, band: str, settings: DesMeds, psf: Path) -> SourceImage:
    """Return the coadd of a band as source image: no background, scale 1."""
    image, segmap = tree.image(band), tree.segmap(band)
    return SourceImage(
        files={
            "image": PlaneFile(image, settings.coadd_image_ext),
            "weight": PlaneFile(image, settings.coadd_weight_ext),
            "seg": PlaneFile(segmap, settings.coadd_seg_ext),
            "bmask": PlaneFile(image, settings.coadd_bmask_ext),
        },
        magzp=settings.magzp_ref,
        scale=1.0,
        psf=psf,
        psf_size=settings.psf.coadd.stamp_size,
        unusable_bmask=settings.unusable_bmask,
        dtypes={kind: settings.dtype(kind) for kind in settings.cutout_types},
    )


def single_epoch_sources(tree: TileTree, band: str, settings: DesMeds) -> tuple[list[SourceImage], Path]:
    """Return the null-weight images of a band in the order of the list, and the PSF model of the coadd.

    Raises
    ------
    ProductError
        Lists of different lengths, a PSF map of other chips, or a file that is not there.
    """
    images = read_zero_points(tree.flist("nullwt", band))
    segs, bkgs = (read_flist(tree.flist(kind, band)) for kind in ("seg", "bkg"))
    psfs = read_psfmap(tree.psfmap(band))
    lengths = {"nullwt": len(images), "seg": len(segs), "bkg": len(bkgs), "psf map": len(psfs) - 1}
    if len(set(lengths.values())) > 1:
        counts = ", ".join(f"{name} {count}" for name, count in lengths.items())
        raise ProductError(
            f"the lists of this tile have different lengths: {counts}",
            tile=tree.tile,
            band=band,
            file=tree.flist("nullwt", band),
            remedy=_PREP,
        )
    models = {(int(line.expnum), int(line.ccdnum)): line.path for line in psfs}
    sources = []
    for (image, magzp), seg, bkg in zip(images, segs, bkgs, strict=True):
        files = {
            "image": PlaneFile(image, settings.se_image_ext),
            "weight": PlaneFile(image, settings.se_weight_ext),
            "seg": PlaneFile(seg, settings.se_seg_ext),
            "bmask": PlaneFile(image, settings.se_bmask_ext),
        }
        if settings.se_has_bkg:
            files["bkg"] = PlaneFile(bkg, settings.se_bkg_ext)
        sources.append(
            SourceImage(
                files=files,
                magzp=magzp,
                scale=relative_scale(magzp, settings.magzp_ref),
                psf=_model_of(models, image, tree, band),
                psf_size=settings.psf.se.stamp_size,
                unusable_bmask=settings.unusable_bmask,
                dtypes={kind: settings.dtype(kind) for kind in settings.cutout_types},
            )
        )
    for source in sources:
        for file in source.files.values():
            if not file.path.is_file():
                raise ProductError(
                    "a file of a list is not there", tile=tree.tile, band=band, file=file.path, remedy=_PREP
                )
    return sources, psfs[0].path


def _model_of(models: Mapping[tuple[int, int], Path], image: Path, tree: TileTree, band: str) -> Path:
    parts = image.name.split("_")
    try:
        key = int(parts[0].lstrip("D")), int(parts[2].lstrip("c"))
    except (ValueError, IndexError) as error:
        raise ProductError(
            "a null-weight image is not called D<exposure>_<band>_c<CCD>_...", tile=tree.tile, band=band, file=image
        ) from error
    if key not in models:
        raise ProductError(
            f"the PSF map has no line for exposure {key[0]}, CCD {key[1]}",
            tile=tree.tile,
            band=band,
            chip="_".join(parts[:4]),
            file=tree.psfmap(band),
            remedy=_PREP,
        )
    return models[key]


class Plan(NamedTuple):
    """Everything a MEDS file will hold but its pixels."""

    tables: Tables
    layout: Any
    outside: int


def plan_meds(catalog: Catalog, sources: Sequence[SourceImage], settings: DesMeds, about: Mapping[str, Any]) -> Plan:
    """Place every object of a catalogue on every source image.

    Parameters
    ----------
    catalog : Catalog
        Objects.
    sources : sequence of SourceImage
        The coadd first.
    settings : DesMeds
        The MEDS configuration.
    about : mapping
        What ``metadata`` is to hold beside the versions.

    Raises
    ------
    ProductError
        An object that is not on the coadd (unless the configuration says otherwise), a column or WCS that is missing.
    """
    input_row = catalog.column(settings.row_name).astype(np.float64) - settings.position_offset
    input_col = catalog.column(settings.col_name).astype(np.float64) - settings.position_offset
    coadd = sources[0].grid
    ra, dec = coadd.wcs.pixel_to_sky(input_row, input_col)
    on_coadd = find(
        coadd,
        ra,
        dec,
        buffer=settings.bounds_buffer_uv,
        slack=settings.coadd_bounds_buffer_rowcol,
        force=settings.force_into_coadd_bounds,
    )
    outside = np.setdiff1d(np.arange(len(ra)), on_coadd.objects)
    if outside.size and not settings.trim_to_coadd and settings.check_in_coadd:
        number = catalog.column("number")[outside[0]]
        raise ProductError(
            f"{outside.size} objects are not on the coadd, the first is NUMBER {number}",
            file=catalog.path,
            remedy="make the catalogue anew, or set trim_to_coadd or check_in_coadd in the MEDS configuration",
        )
    if outside.size and settings.trim_to_coadd:
        if on_coadd.objects.size == 0:
            raise ProductError("no object of the catalogue is on the coadd", file=catalog.path, remedy=_COADD)
        kept = Catalog(catalog.path, catalog.rows[on_coadd.objects], catalog.ids[on_coadd.objects])
        inner = plan_meds(kept, sources, settings, about)
        return inner._replace(outside=int(outside.size))
    found = [on_coadd, *(find(source.grid, ra, dec, buffer=settings.bounds_buffer_uv) for source in sources[1:])]
    box = _boxes(catalog, settings)
    layout = lay_out(
        found,
        [source.grid for source in sources],
        box,
        psf_sides=[source.psf_side for source in sources],
        ncutout_max=settings.ncutout_max,
    )
    fwhm = np.array([source.model.fwhm if source.model else 0.0 for source in sources])
    file_id = layout.per_object["file_id"].astype(np.int64)
    used = file_id >= 0
    layout.per_object["psf_sigma"] = np.where(used, fwhm[np.where(used, file_id, 0)] * _SIGMA_PER_FWHM, -9999).astype(
        np.float32
    )
    extra = {**_extra(catalog, settings), "input_row": input_row, "input_col": input_col}
    tables = Tables(
        object_data(catalog.ids, ra, dec, box, layout, extra),
        image_info(sources, settings.position_offset),
        metadata(about),
        psf_info(sources),
    )
    return Plan(tables, layout, int(outside.size))


def catalog_columns(settings: DesMeds) -> tuple[str, ...]:
    """Return the columns, in any case, that a coadd catalogue must have for a MEDS file."""
    named = ("row", "col", "isoarea", "flags", *_MEASURED.values())
    extra = (item.name for item in settings.extra_obj_data_fields)
    return ("number", *_BOX_COLUMNS, *(getattr(settings, f"{key}_name") for key in named), *extra)


def _boxes(catalog: Catalog, settings: DesMeds) -> NDArray[np.int64]:
    rule = BoxRule(settings.sigma_fac, settings.min_box_size, settings.max_box_size, settings.allowed_box_sizes)
    return rule.sides(*(catalog.column(name) for name in _BOX_COLUMNS))


def _extra(catalog: Catalog, settings: DesMeds) -> dict[str, NDArray[Any]]:
    area = np.maximum(catalog.column(settings.isoarea_name).astype(np.float64), 1.0)
    columns: dict[str, NDArray[Any]] = {
        "number": catalog.column("number").astype(np.int64),
        "flags": catalog.column(settings.flags_name).astype(np.int32),
        "iso_radius": np.sqrt(area / np.pi).astype(np.float32),
    }
    columns |= {
        name: catalog.column(getattr(settings, f"{key}_name")).astype(np.float32) for name, key in _MEASURED.items()
    }
    columns |= {
        item.name.lower(): catalog.column(item.name).astype(item.type) for item in settings.extra_obj_data_fields
    }
    return columns
