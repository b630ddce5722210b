"""Groups of galaxies drawn from the models that are fit, stamp by stamp, for tests and benchmarks of blends."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import fitsio
import galsim
import galsim.des
import numpy as np

from balrogutils.blends.canvas import Canvas, Piece, build_canvas, view_of
from balrogutils.blends.iteration import View
from balrogutils.blends.solve import MemberFit, Recipe
from balrogutils.fitting.gaussians import WINDOW
from balrogutils.fitting.jointprior import JointPrior
from balrogutils.fitting.kernels import Links
from balrogutils.fitting.mixture import covariance
from balrogutils.fitting.mixturekernels import render_table
from balrogutils.fitting.models import Model, model
from balrogutils.fitting.observation import LocalWCS, Stack
from balrogutils.fitting.priors import FRACDEV_Y3, CenPrior, Flat, GPriorBA, Normal
from balrogutils.fitting.rendering import model_pixels
from balrogutils.fitting.scene import Scene
from balrogutils.fitting.solver import LMOptions
from balrogutils.meds.weights import nearest_object

SCALE = 0.263
MARGIN = 4
# Of groups drawn at random: bands, epochs of each, noise of a pixel, distances of members (arcsec).
NBAND, NEPOCH, SIGMA = 2, 3, 2.0
CELLS = ((1.0, 2.0), (2.0, 3.0), (3.0, 4.0))


@dataclass
class Blend:
    """Drawn stamps of a group; `pieces` with all pixels, `alone` with those nearest to the member (uberseg)."""

    pieces: list[Piece]
    alone: list[Piece]
    offsets: np.ndarray
    truth: list[np.ndarray]
    models: list[Model]
    nband: int
    sigma: np.ndarray

    @property
    def count(self) -> int:
        return len(self.models)

    @property
    def canvas(self) -> Canvas:
        return build_canvas(self.pieces, self.count, self.nband)

    @property
    def pairs(self) -> np.ndarray:
        """Members closer than the boxes of 48 pixels of neighbours are."""
        apart = np.abs(self.offsets[:, None] - self.offsets).max(axis=2)
        return np.argwhere(np.triu(apart < 24 * SCALE, 1))

    def single(self, member: int, *, uberseg: bool = True) -> Canvas:
        """One member on its own stamps, nobody else linked."""
        mine = [
            replace(piece, member=0) for piece in (self.alone if uberseg else self.pieces) if piece.member == member
        ]
        return build_canvas(mine, 1, self.nband)

    def views(self, *, uberseg: bool = True) -> list[View]:
        out = []
        for k in range(self.count):
            joined, owner = view_of(self.pieces, k, self.count, self.nband)
            alone = view_of(self.alone, k, self.count, self.nband)[0] if uberseg else None
            out.append(View(joined, owner, alone, int(joined.data.nrow.max())))
        return out

    def starts(self, nshape: int) -> np.ndarray:
        """First guesses as a catalogue has them: the size of the PSF, a rough flux."""
        rows = []
        for pars in self.truth:
            shape = np.zeros(nshape)
            shape[4:5] = 0.4
            shape[5:] = 0.5
            rows.append(np.concatenate([shape, 0.8 * pars[-self.nband :]]))
        return np.array(rows)


def psf_mixture(rng) -> np.ndarray:
    """Three Gaussians like a Moffat of some 0.95 arcsec."""
    size = rng.uniform(0.28, 0.36)
    g = rng.normal(0, 0.015, 2)
    parts = [(0.276, 0.36), (0.558, 0.84), (0.166, 2.59)]
    return np.array([[p, 0.0, 0.0, *covariance(g[0], g[1], f * size)] for p, f in parts])


def draw(
    rng: np.random.Generator,
    models: list[Model],
    truth: list[np.ndarray],
    offsets: np.ndarray,
    sigma: np.ndarray,
    *,
    nepoch: int = 6,
    box: int = 48,
    scales: tuple[float, ...] = (SCALE,),
    noise: bool = True,
    psf=psf_mixture,
) -> Blend:
    """Draw every epoch of every band as one image and cut the stamps of all members out of it.

    Parameters
    ----------
    models, truth : list
        Model and parameters of each member; v, u are from its catalogue position.
    offsets : ndarray, shape (n, 2)
        Catalogue positions (v, u), arcsec.
    sigma : ndarray, shape (nband,)
        Noise of a pixel of 0.263 arcsec.
    scales : tuple of float
        Pixel scales, epoch after epoch.
    """
    nband = len(sigma)
    pieces, alone = [], []
    pars = np.concatenate(truth)
    for band in range(nband):
        for epoch in range(nepoch):
            scale = scales[epoch % len(scales)]
            turn = scale * (np.eye(2) + rng.normal(0, 0.005, (2, 2)))
            places = offsets @ np.linalg.inv(turn).T
            side = int(np.ceil(box * SCALE / scale / 2) * 2)
            origins = np.floor(places).astype(int) - side // 2 + 1
            low = origins.min(axis=0) - MARGIN + rng.integers(-3, 4)
            shape = origins.max(axis=0) + side + MARGIN - low
            corner = rng.uniform(-0.5, 0.5, 2)
            mixtures = [psf(rng)] * len(models)
            maps = [LocalWCS(*(place - low + corner), *turn.ravel()) for place in places]
            links = Links(
                np.array([0, len(models)]),
                np.arange(len(models)),
                np.array(maps),
                np.array(mixtures),
                np.zeros(1),
                np.full(len(models), -1),
            )
            zeros = np.zeros(shape[0] * shape[1])
            one = np.array([0])
            data = Stack(
                zeros, zeros + 1.0, one, shape[:1], shape[1:], one + band, np.array(maps[:1]), zeros.size, nband
            )
            scene = Scene(data, models, links, free=np.zeros(pars.size, bool))
            light = np.array([model_pixels(scene, only(scene, pars, k)).reshape(shape) for k in range(len(models))])
            # Noise of one pixel for one brightness of the sky, whatever the pixel.
            width = sigma[band] * scale / SCALE
            image = light.sum(axis=0) + (rng.normal(0, width, shape) if noise else 0.0)
            labels = np.where(light.sum(axis=0) > 0.5 * width, light.argmax(axis=0) + 1, 0)
            for k, place in enumerate(places):
                row, col = np.clip(np.rint(place - low + corner).astype(int), 0, shape - 1)
                labels[row, col] = k + 1
            nearest = nearest_object(labels)
            for k, wcs in enumerate(maps):
                r, c = (int(x) for x in origins[k] - low)
                here = np.s_[r : r + side, c : c + side]
                weight = np.full((side, side), width**-2)
                piece = Piece(
                    k, band, epoch, (r, c), (side, side), wcs.at(wcs.row0 - r, wcs.col0 - c), mixtures[k],
                    image[here].copy(), weight, labels[here].astype(np.int64) - 1,
                )  # fmt: skip
                pieces.append(piece)
                alone.append(replace(piece, weight=np.where(nearest[here] == k + 1, weight, 0.0)))
    return Blend(pieces, alone, offsets, truth, models, nband, sigma)


def only(scene: Scene, pars: np.ndarray, member: int) -> np.ndarray:
    """Parameters with the flux of one member alone."""
    out = pars.copy()
    for k in range(len(scene.models)):
        if k != member:
            out[scene.flux[k]] = 0.0
    return out


def group_of(rng: np.random.Generator, count: int, nband: int) -> Blend:
    """Exponential galaxies on a ring, neighbours 2.5 arcsec apart; one epoch more than are to be fit, for the coadd."""
    angles = 0.3 + 2 * np.pi * np.arange(count) / count
    radius = 0.0 if count == 1 else 1.25 / np.sin(np.pi / count)
    offsets = radius * np.column_stack([np.sin(angles), np.cos(angles)])
    truth = [
        np.array(
            [*rng.normal(0, 0.03, 2), *rng.normal(0, 0.1, 2), rng.uniform(0.3, 0.8), *rng.uniform(500, 900, nband)]
        )
        for _ in range(count)
    ]
    return draw(rng, [model("exp")] * count, truth, offsets, np.full(nband, 2.0), nepoch=4)


def write_blends(paths: dict[str, Path], sizes: tuple[int, ...] = (2, 1, 3)) -> np.ndarray:
    """MEDS files of groups that are far from each other: a coadd and three exposures; returns the true fluxes."""
    blends = [group_of(np.random.default_rng([61, k]), size, len(paths)) for k, size in enumerate(sizes)]
    for band, path in enumerate(paths.values()):
        objects, columns = [], {name: [] for name in ("row", "col", "start_row", "start_col")}
        for place, blend in enumerate(blends):
            # Labels count from 1 through all groups.
            first = sum(sizes[:place])
            for member in range(blend.count):
                pieces = [one for one in blend.pieces if (one.member, one.band) == (member, band)]
                objects.append(_medium(galsim.des.MultiExposureObject, pieces, first, first + member + 1))
                far = 120 * (place + 1)
                columns["row"].append([one.place[0] + far for one in pieces])
                columns["col"].append([one.place[1] + far for one in pieces])
                columns["start_row"].append([one.origin[0] + far for one in pieces])
                columns["start_col"].append([one.origin[1] + far for one in pieces])
        path.parent.mkdir(parents=True, exist_ok=True)
        plain = path.with_name("plain.fits")
        galsim.des.WriteMEDS(objects, str(plain))
        with fitsio.FITS(str(plain), "rw") as fits:
            fits["image_info"].write_column("image_flags", np.zeros(1, "i8"))
            table = fits["object_data"].read()
            for name, values in columns.items():
                column = np.zeros_like(table[f"orig_{name}"])
                column[:, :4] = values
                fits["object_data"].write_column(f"orig_{name}", column)
            number = np.zeros_like(table["file_id"])
            number[:, :4] = np.arange(4)
            fits["object_data"].write_column("file_id", number)
            for name in ("psf_cutout_row", "psf_cutout_col"):
                fits["object_data"].insert_column(name, np.full(table["dudrow"].shape, 23.0))
        plain.replace(path)
    return np.array([pars[-len(paths) :] for blend in blends for pars in blend.truth])


def _medium(kind, pieces: list[Piece], first: int, number: int):
    planes: dict[str, list] = {key: [] for key in ("images", "weight", "seg", "badpix", "psf", "wcs")}
    for one in pieces:
        w = one.wcs
        planes["images"].append(galsim.Image(one.pixels.astype(np.float32)))
        planes["weight"].append(galsim.Image(one.weight.astype(np.float32)))
        planes["seg"].append(galsim.Image(np.where(one.owner >= 0, one.owner + 1 + first, 0).astype(np.int32)))
        planes["badpix"].append(galsim.Image(np.zeros(one.shape, np.int16)))
        planes["psf"].append(galsim.Image(render_table(one.psf, 48, 48, np.array(w.at(23.0, 23.0)), WINDOW)))
        origin = galsim.PositionD(w.col0, w.row0)
        planes["wcs"].append(galsim.AffineTransform(w.dudcol, w.dudrow, w.dvdcol, w.dvdrow, origin=origin))
    return kind(id=number, **planes)


def recipe_of(name: str) -> Recipe:
    """Return a recipe with the priors that the galaxies are drawn from."""
    extra = [Normal(0.5, 0.1, 0.0, 1.0)] if name == "bdf" else []
    prior = JointPrior(CenPrior(0.263), GPriorBA(0.2), Flat(-0.1, 1e5), [Flat(-1000.0, 1e9)] * NBAND, extra)
    return Recipe(name, prior, LMOptions(2000, 5e-5, 5e-5), FRACDEV_Y3)


def shape_of(rng: np.random.Generator) -> np.ndarray:
    """Return a shape drawn from the prior."""
    while True:
        g = rng.uniform(-0.9, 0.9, 2)
        gg = float(g @ g)
        if gg < 0.8 and rng.uniform() < (1 - gg) ** 2 * np.exp(-gg / 0.08):
            return g


def galaxy(rng: np.random.Generator, name: str) -> tuple[Model, np.ndarray, float]:
    """Return a model, its parameters with flux 1 in each band, and the size of its image that rules S/N."""
    kind = name if name == "bdf" else str(rng.choice(["exp", "dev"]))
    size = float(np.exp(rng.normal(np.log(0.5), 0.5))) * (3.0 if kind == "dev" else 1.0)
    extra = [float(np.clip(rng.normal(0.5, 0.1), 0.0, 1.0))] if kind == "bdf" else []
    colour = np.exp(rng.normal(0, 0.3, NBAND))
    pars = np.array([*rng.normal(0, 0.05, 2), *shape_of(rng), size, *extra, *colour])
    return model(kind), pars, size


def random_group(rng: np.random.Generator, name: str, count: int, near: float, far: float) -> Blend:
    """Draw a group whose members are `near` to `far` arcsec apart."""
    separation = rng.uniform(near, far)
    angles = rng.uniform(0, 2 * np.pi) + 2 * np.pi * np.arange(count) / count
    radius = 0.5 * separation / np.sin(np.pi / count)
    offsets = radius * np.column_stack([np.sin(angles), np.cos(angles)])
    members = [galaxy(rng, name) for _ in range(count)]
    # S/N of a Gaussian of the galaxy's and the PSF's size; near enough to draw from.
    per_flux = [0.263 / SIGMA * np.sqrt(NBAND * NEPOCH / (2 * np.pi * (0.5 * size + 0.35))) for _, _, size in members]
    while True:
        fluxes = np.exp(rng.uniform(np.log(30), np.log(200), count)) / per_flux
        if fluxes.max() <= 10.0 * fluxes.min():
            break
    truth = [pars * np.array([1.0] * (pars.size - NBAND) + [flux] * NBAND)
             for (_, pars, _), flux in zip(members, fluxes, strict=True)]  # fmt: skip
    return draw(rng, [one for one, _, _ in members], truth, offsets, np.full(NBAND, SIGMA), nepoch=NEPOCH)


def figures(truth: np.ndarray, flux: np.ndarray, error: np.ndarray, good: np.ndarray) -> tuple[Any, ...]:
    """Return median bias, its standard error, median and width of the pulls, and the bias of group totals.

    truth, flux, error : ndarray, shape (ngroup, nmember, nband); good : bool, (ngroup, nmember).
    """

    def width(x: np.ndarray) -> float:
        low, high = np.percentile(x, [15.865, 84.135])
        return 0.5 * float(high - low)

    bias = (flux / truth - 1.0)[good].ravel()
    pull = ((flux - truth) / error)[good].ravel()
    whole = good.all(axis=1)
    total = (flux[whole].sum(axis=1) / truth[whole].sum(axis=1) - 1.0).ravel()
    # Bands of one object share its shape: their errors go together.
    independent = bias.size / NBAND
    return (
        np.median(bias),
        1.2533 * width(bias) / np.sqrt(independent),
        np.median(pull),
        width(pull),
        np.median(total),
        1.2533 * width(total) / np.sqrt(total.size / NBAND),
        int(np.count_nonzero(~good)),
    )


def fluxes_of(fits: list[MemberFit]) -> tuple[np.ndarray, np.ndarray, list[bool]]:
    """Return fluxes, errors, and whether the fits are good."""
    flux = np.array([one.fit.pars[-NBAND:] for one in fits])
    error = np.array([np.sqrt(np.diag(one.fit.cov))[-NBAND:] for one in fits])
    return flux, error, [one.fit.flags == 0 for one in fits]
