"""Fits of many sources together, from fits of each by itself with the light of the others taken off."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from balrogutils.errors import FitError
from balrogutils.fitting.fit import Fit, descend, fit_scene
from balrogutils.fitting.jointprior import JointPrior
from balrogutils.fitting.kernels import Links
from balrogutils.fitting.models import Model
from balrogutils.fitting.observation import Stack
from balrogutils.fitting.parts import on_their_stamps
from balrogutils.fitting.rendering import model_pixels
from balrogutils.fitting.scene import Scene
from balrogutils.fitting.solver import LMOptions

__all__ = ["MANY", "fit_together", "sweep"]

F64 = NDArray[np.float64]

# Sources from which on it pays to fit each by itself in between; evaluations of one of these fits.
MANY = 4
_STEPS = 15


def sweep(
    data: Stack,
    links: Links,
    models: Sequence[Model],
    priors: Sequence[JointPrior | None],
    start: F64,
    options: LMOptions,
) -> F64:
    """Return parameters nearer to the optimum of all sources together.

    Parameters
    ----------
    data, links, models, priors
        As in `balrogutils.fitting.scene.Scene`; without residual images.
    start : ndarray, shape (npar,)
        First guess.
    options : LMOptions
        Limits of each fit.

    Returns
    -------
    ndarray, shape (npar,)
        Sources that cannot be fit are where they were.
    """
    nband = data.nband
    sizes = [len(one.names) + nband for one in models]
    ends = np.cumsum(sizes)
    slices = [slice(int(end) - size, int(end)) for end, size in zip(ends, sizes, strict=True)]
    pars = start.copy()
    parts = [on_their_stamps(data, links, np.array([k])) for k in range(len(models))]
    fixed = [np.zeros(size, bool) for size in sizes]

    def light(k: int, at: F64) -> F64:
        stack, own, _ = parts[k]
        return model_pixels(Scene(stack, [models[k]], own, free=fixed[k]), at)

    try:
        rest = data.image - model_pixels(Scene(data, models, links, free=np.zeros(pars.size, bool)), pars)
    except FitError:
        return pars
    few = replace(options, maxfev=min(options.maxfev, _STEPS))
    order = sorted(range(len(models)), key=lambda k: -float(pars[slices[k]][-nband:].sum()))
    for k in order:
        stack, own, pixels = parts[k]
        if stack.npix <= sizes[k]:
            continue
        image = rest[pixels] + light(k, pars[slices[k]])
        image[stack.weight == 0.0] = 0.0
        found = descend(Scene(stack._replace(image=image), [models[k]], own, [priors[k]]), pars[slices[k]], few).pars
        try:
            left = image - light(k, found)
        except FitError:
            continue
        pars[slices[k]], rest[pixels] = found, left
    return pars


def fit_together(
    data: Stack,
    links: Links,
    models: Sequence[Model],
    priors: Sequence[JointPrior | None],
    starts: Sequence[F64],
    options: LMOptions,
) -> Fit:
    """Fit all sources of a scene in one system.

    Parameters
    ----------
    data, links, models, priors
        As in `balrogutils.fitting.scene.Scene`; without residual images.
    starts : sequence of ndarray, shape (npar,)
        First guesses, tried in order; never empty.
    options : LMOptions
        Limits of each try.

    Notes
    -----
    One source that needs many steps, a star whose fit begins as a galaxy say, would have all others take them too. Many
    sources are therefore swept whenever all together have taken some steps and are not done.
    """
    scene = Scene(data, models, links, priors)
    if len(models) < MANY:
        return fit_scene(scene, starts, options)

    def nearer(pars: F64) -> F64:
        return sweep(data, links, models, priors, pars, options)

    return fit_scene(scene, starts, options, nearer=nearer)
