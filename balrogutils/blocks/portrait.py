"""What a report shows of a tile's images: the map, the gallery, and the conditions at each injection."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from balrogutils.analysis.conditions import injection_conditions
from balrogutils.analysis.matched import Matched, Variable
from balrogutils.archive.geometry import Geometry
from balrogutils.blends.rendering import draw_fit
from balrogutils.context import Context
from balrogutils.errors import ProductError
from balrogutils.fitsfile import read_image, read_table
from balrogutils.measurement.catalogue import with_band_axis
from balrogutils.meds import MEDS
from balrogutils.products import Step
from balrogutils.report.gallery import SIDE, Strip, chosen_rows, cut, gallery
from balrogutils.report.page import Picture, Section
from balrogutils.report.picture import sky_of
from balrogutils.report.tilemap import Marks, tile_map

__all__ = ["conditions", "described", "gallery_section", "map_section"]

F64 = NDArray[np.float64]


def conditions(context: Context, names: Sequence[str], matched: Matched, step: Step) -> tuple[Matched, str]:
    """Return the catalogue with seeing, depth and distance to a bright object, and why not, where they are not known.

    Parameters
    ----------
    context : Context
        The base run of the tile.
    names : sequence of str
        Realizations, in the order of the rows.
    matched : Matched
        Their catalogues.
    step : Step
        Told what is read.
    """
    band, base = matched.band, context.base_tree
    trees = [context.at(name).tree for name in names]
    files = [base.image(band), base.catalog(band), *(path for one in trees for path in (one.truth, one.truth_chips))]
    own = matched.column("realization") if matched.has("realization") else np.zeros(len(matched), int)
    columns: dict[str, tuple[F64, str]] = {}
    try:
        step.read(*files)
        for name, tree in zip(names, trees, strict=True):
            rows = own == int(name)
            if not rows.any():
                continue
            place = _places(matched.column("true_bal_id")[rows], read_table(tree.truth)["bal_id"])
            for what, (values, unit) in injection_conditions(base, tree, band, context.campaign.magzp_ref).items():
                columns.setdefault(what, (np.full(len(matched), np.nan), unit))[0][rows] = values[place]
    except ProductError as error:
        return matched, f"Seeing, depth and distance to bright objects are not known: {error.message}."
    extra = tuple(Variable(what, values, unit) for what, (values, unit) in columns.items())
    return Matched(matched.rows, matched.bands, matched.zero_point, extra), ""


def _places(wanted: NDArray[np.int64], there: NDArray[np.int64]) -> NDArray[np.int64]:
    order = np.argsort(there, kind="stable")
    place = order[np.minimum(np.searchsorted(there, wanted, sorter=order), max(there.size - 1, 0))]
    if not np.array_equal(there[place], wanted):
        raise ProductError("the truth is not that of the matched catalogue")
    return np.asarray(place)


def map_section(context: Context, matched: Matched, step: Step) -> Section:
    """Return the base coadd of the tile with every injection of the catalogue, and the original detections."""
    band, base = matched.band, context.base_tree
    step.read(base.geometry, base.image(band), base.catalog(band))
    wcs = Geometry.read(base.geometry).wcs()
    pixels, weight = read_image(base.image(band), "SCI"), read_image(base.image(band), "WGT")
    place = np.full((len(matched), 2), np.nan)
    ra, dec = matched.number("true_ra"), matched.number("true_dec")
    good = np.isfinite(ra) & np.isfinite(dec)
    if good.any():
        place[good] = np.stack(wcs.sky_to_pixel(ra[good], dec[good]), axis=1)
    texts = described(matched)
    groups = (
        ("found", "injected and detected", matched.detected & matched.clear, True),
        ("missed", "clear and missed", ~matched.detected & matched.clear, True),
        ("unclear", "on masked pixels, off the chips or on an original", ~matched.clear, True),
    )
    marks = [
        Marks(kind, words, place[rows], [texts[row] for row in np.flatnonzero(rows)], shown)
        for kind, words, rows, shown in groups
    ]
    objects = read_table(base.catalog(band))
    there = np.column_stack([objects["Y_IMAGE"], objects["X_IMAGE"]]).astype(float) - 1.0
    originals = [
        f"original {number}: MAG_AUTO {band} = {mag:.2f}"
        for number, mag in zip(objects["NUMBER"], objects["MAG_AUTO"], strict=True)
    ]
    marks.append(Marks("original", "detected in the base run", there, originals, False))
    alt = (
        f"Map of the tile, {band} band, north up, without injections, with {int(matched.detected.sum())} detected and "
        f"{int((~matched.detected & matched.clear).sum())} missed injections marked."
    )
    text = f"The base run's coadd in {band}, before injection. Every mark says what it is of when you point at it."
    return Section("Map of the tile", (text,), (Picture(tile_map(pixels, weight, marks, alt), wide=True),))


def gallery_section(context: Context, names: Sequence[str], matched: Matched, step: Step) -> Section:
    """Return stamps of the best, typical and worst measured and the brightest missed injections.

    Notes
    -----
    The model is the sum of all good fits that reach into the stamp, of MOF where there is one, else of SOF.
    """
    band, base = matched.band, context.base_tree
    groups = chosen_rows(matched)
    title = "Gallery"
    if not groups:
        return Section(title, ("There is no injection to show: none is measured well, and none was missed.",))
    wcs = Geometry.read(base.geometry).wcs()
    places = np.stack(wcs.sky_to_pixel(matched.number("true_ra"), matched.number("true_dec")), axis=1)
    before = read_image(base.image(band), "SCI")
    level, sigma = sky_of(before, read_image(base.image(band), "WGT") > 0)
    own = matched.column("realization") if matched.has("realization") else np.full(len(matched), int(names[0]))
    texts = described(matched)
    strips: dict[int, Strip] = {}
    modelled = False
    for name in names:
        rows = [int(row) for chosen in groups.values() for row in chosen if own[row] == int(name)]
        if not rows:
            continue
        here = context.at(name)
        step.read(here.tree.image(band))
        after = read_image(here.tree.image(band), "SCI")
        with _Scene(here, band, step) as scene:
            for row in rows:
                old, corner = cut(before, *places[row])
                new, _ = cut(after, *places[row])
                light = scene.draw(corner)
                panels = {"before": old - level, "after": new - level}
                if light is None:
                    panels["difference"] = new - old
                else:
                    modelled = True
                    light[~np.isfinite(new)] = np.nan
                    panels |= {"model": light, "residual": new - level - light}
                strips[row] = Strip(panels, texts[row], sigma)
    text = [
        f"Stamps of {SIDE} pixels in {band}, the injection in the middle, each object's in one stretch. Ranked by the "
        "size of measured − true magnitude of clear injections with a good fit."
    ]
    if modelled:
        text.append(
            "The model is the sum of all good fits around; the residual is what it leaves of the injected image."
        )
    else:
        text.append("There are no fits or no MEDS files to draw models from, so the injected light is shown instead.")
    page = gallery({kind: [strips[int(row)] for row in rows] for kind, rows in groups.items()})
    return Section(title, tuple(text), (Picture(page, wide=True),))


class _Scene:
    """The fits of one realization as an image, where there are any."""

    def __init__(self, context: Context, band: str, step: Step) -> None:
        tree = context.tree
        self._meds: MEDS | None = None
        kind = next((one for one in ("mof", "sof") if tree.fit(one).is_file()), None)
        if kind is None or not tree.meds(band).is_file():
            return
        path = tree.fit(kind)
        step.read(path, tree.meds(band))
        about = read_table(path, "meta_data")[0]
        bands, self._model = _text(about["bands"]).split(","), _text(about["model"])
        if band not in bands:
            return
        self._band, self._rows = bands.index(band), with_band_axis(read_table(path, "model_fits"), len(bands))
        self._meds = MEDS(tree.meds(band))
        self._index = {int(label): index for index, label in enumerate(self._meds["id"])}
        self._places = np.column_stack([self._meds["orig_row"][:, 0], self._meds["orig_col"][:, 0]])

    def __enter__(self) -> _Scene:
        return self

    def __exit__(self, *_: object) -> None:
        if self._meds is not None:
            self._meds.close()

    def draw(self, corner: tuple[int, int]) -> F64 | None:
        """Return the light of all good fits within a stamp; None where there are no fits."""
        if self._meds is None:
            return None
        image = np.zeros((SIDE, SIDE))
        off = np.abs(self._places - np.add(corner, SIDE / 2)).max(axis=1)
        for row in self._rows[self._rows["flags"] == 0]:
            index = self._index.get(int(row["id"]))
            # Light from farther away than twice the stamp is none that one would see.
            if index is not None and off[index] < 2 * SIDE:
                draw_fit(image, row, self._model, self._band, self._meds, index, corner)
        return image


def _text(value: object) -> str:
    return value.decode().strip() if isinstance(value, bytes) else str(value).strip()


def described(matched: Matched) -> list[str]:
    """Return every injection in a few words."""
    band = matched.band
    true, size, measured = matched.true_magnitude(band), matched.true_size(), matched.magnitude(band)
    star, found = matched.star, matched.detected
    own = matched.column("realization") if matched.has("realization") else None
    out = []
    for row in range(len(matched)):
        parts = [f"{'star' if star[row] else 'galaxy'}, true {band} = {true[row]:.2f}"]
        if np.isfinite(size[row]):
            parts.append(f"half-light radius {size[row]:.2f} arcsec")
        if not found[row]:
            parts.append("not detected")
        elif np.isfinite(measured[row]):
            parts.append(f"measured {measured[row]:.2f}")
        if own is not None:
            parts.append(f"realization {own[row]}")
        out.append(", ".join(parts))
    return out
