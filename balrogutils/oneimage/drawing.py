"""Sampled objects drawn into one image: Sersic components, lensing, PSF, Poisson noise of their own light."""

from __future__ import annotations

import logging
import os
from argparse import Namespace
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from typing import Any, NamedTuple

import galsim
import numpy as np
from numpy.typing import NDArray

from balrogutils.errors import InjectionError
from balrogutils.injection import drawing
from balrogutils.oneimage.images import Frame, pixel_scale
from balrogutils.psf import PSFEx
from balrogutils.randomness import stream
from balrogutils.rules.sampling import Sample
from balrogutils.runlock import die_with_parent

__all__ = ["Drawn", "draw_all"]

_log = logging.getLogger(__name__)

# NumPy's Poisson numbers are 64-bit integers.
_MOST_ELECTRONS = 1e18


class _Object(NamedTuple):
    """One object as it is drawn: zero-offset position in the part that is used, scale in arcsec, parameters."""

    number: int
    row: float
    col: float
    scale: float
    lensing: tuple[float, float, float]
    components: list[tuple[float, float, float, float, float]]
    accuracy: dict[str, Any]


@dataclass(frozen=True)
class Drawn:
    """What came of drawing.

    Attributes
    ----------
    added : ndarray of float64, shape (ny, nx)
        Light and noise of all objects, ADU.
    noiseless, noised : ndarray of float64, shape (n,)
        Sum of each object's stamp before and after the noise, also of its pixels outside the image, ADU.
    failed : ndarray of bool, shape (n,)
        Whether GalSim could not draw it.
    """

    added: NDArray[np.float64]
    noiseless: NDArray[np.float64]
    noised: NDArray[np.float64]
    failed: NDArray[np.bool_]


def _profile(one: _Object) -> galsim.GSObject:
    """Return an object in image pixels, x along rows.

    Notes
    -----
    GalSim's shear keeps the area, so the radius drawn is that of the major axis times sqrt(q): half the light lies in
    the ellipse whose semi-major axis is the half-light radius (O 1.b, steps 10 and 11). A component without flux is
    left out, as its profile could not be normalised.
    """
    parts = [
        galsim.Sersic(n=index, half_light_radius=radius * np.sqrt(ratio), flux=flux).shear(
            q=ratio, beta=angle * galsim.degrees
        )
        for index, radius, ratio, angle, flux in one.components
        if flux != 0.0
    ]
    g1, g2, magnification = one.lensing
    whole = galsim.Add(parts) if len(parts) > 1 else parts[0]
    return whole.shear(g1=g1, g2=g2).magnify(magnification).dilate(1.0 / one.scale)


def _stamp(one: _Object, psf: PSFEx, gain: float, seed: int) -> tuple[drawing.Stamp, NDArray[np.float64]] | str:
    """Return the light of an object and its noise, or why GalSim cannot draw it."""
    if not any(flux != 0.0 for *_, flux in one.components):
        empty = np.zeros((1, 1))
        return drawing.Stamp(int(np.floor(one.row + 0.5)), int(np.floor(one.col + 0.5)), empty), empty
    for _, radius, ratio, _, _ in one.components:
        if radius < 0 or not 0 < ratio <= 1 or not one.lensing[2] > 0:
            return f"half-light radius {radius:g}, axis ratio {ratio:g}, magnification {one.lensing[2]:g}"
    try:
        accuracy = galsim.GSParams(**one.accuracy)
        stamp = drawing.light(_profile(one), (one.row, one.col), None, psf, accuracy, recenter=True)
    except (galsim.GalSimError, galsim.GalSimWarning) as error:
        return " ".join(str(error).split())
    if not stamp.pixels.max() * gain < _MOST_ELECTRONS:
        return "it is too bright for Poisson noise"
    noise = drawing.poisson_noise(stamp.pixels, gain, stream(seed, "image noise", one.number))
    return stamp, noise


def _objects(sample: Sample, fluxes: NDArray[np.float64], frame: Frame, args: Namespace) -> Iterator[_Object]:
    places = [sample.objects[name] for name in ("x", "y")]
    lensing = [sample.objects[name] for name in ("g1", "g2", "magnification")]
    names = ("sersicindex", "halflightradius", "axisratio", "beta")
    for number in range(len(sample)):
        x, y = (float(place[number]) for place in places)
        row, col = y - args.ymin, x - args.xmin
        components = [
            (*(float(sample.components[name][index, number]) for name in names), float(fluxes[index, number]))
            for index in range(sample.profiles)
        ]
        yield _Object(
            number,
            row,
            col,
            pixel_scale(frame.wcs, row, col),
            tuple(float(one[number]) for one in lensing),  # type: ignore[arg-type]
            components,  # type: ignore[arg-type]
            sample.accuracy[number],
        )


def draw_all(sample: Sample, fluxes: NDArray[np.float64], frame: Frame, psf: PSFEx, args: Namespace) -> Drawn:
    """Draw every object.

    Parameters
    ----------
    sample : Sample
        Their parameters.
    fluxes : ndarray of float64, shape (profiles, n)
        Of their components before lensing, ADU.
    frame : Frame
        The part of the image that is used.
    psf : PSFEx
        Its PSF, in the pixels of that part.
    args : argparse.Namespace
        Resolved arguments: bounds, gain, noiseseed, workers.

    Returns
    -------
    Drawn
        The same for every number of workers: each object has a stream of its own, and light is added in their order.
    """
    shape = frame.pixels.shape
    added = np.zeros(shape)
    sums, failed = np.zeros((2, len(sample))), np.zeros(len(sample), dtype=bool)
    one_stamp = partial(_stamp, psf=psf, gain=args.gain, seed=args.noiseseed)
    reasons: list[str] = []
    objects = list(_objects(sample, fluxes, frame, args))
    for one, result in zip(objects, _in_order(one_stamp, objects, args.workers), strict=True):
        if isinstance(result, str):
            failed[one.number] = True
            reasons.append(f"object {one.number}: {result}")
            continue
        stamp, noise = result
        sums[:, one.number] = stamp.pixels.sum(), (stamp.pixels + noise).sum()
        where = stamp.overlap(shape)
        if where is not None:
            on_image, own = where
            added[on_image] += stamp.pixels[own] + noise[own]
    if reasons:
        shown = "; ".join(reasons[:3]) + ("; ..." if len(reasons) > 3 else "")
        _log.warning("%d of %d objects could not be drawn (not_drawn = 1): %s", len(reasons), len(sample), shown)
    return Drawn(added, sums[0], sums[1], failed)


def _in_order(work: Any, objects: list[_Object], workers: int) -> Iterator[Any]:
    """Yield what comes of every object, in their order."""
    if workers == 1:
        yield from map(work, objects)
        return
    # spawn: a forked child of a process with threads can hang.
    with ProcessPoolExecutor(
        workers, mp_context=get_context("spawn"), initializer=die_with_parent, initargs=(os.getpid(),)
    ) as pool:
        try:
            yield from pool.map(work, objects, chunksize=max(1, len(objects) // (4 * workers)))
        except BrokenProcessPool as error:
            raise InjectionError("a drawing process died", remedy="check memory; use fewer --workers") from error
