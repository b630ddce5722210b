"""Light of known spectrum: what is seen of it through a band pass."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import galsim
import numpy as np
from numpy.typing import NDArray

from balrogutils.errors import ConfigError, InputError
from balrogutils.injection.catalogs import ZERO_POINT
from balrogutils.settings.spectra import Passband, Spectra, place

__all__ = ["Colours", "colours", "mean_wavelength", "passband", "spectrum", "through"]

F64 = NDArray[np.float64]


class Colours(NamedTuple):
    """What spectra look like in some bands.

    Attributes
    ----------
    ratio : dict of ndarray of float64, shape (n,)
        AB flux in each band over that in the band the magnitudes are given in; NaN where a spectrum does not say.
    wavelength : dict of ndarray of float64, shape (n,)
        Mean wavelength of the photons seen, nm.
    """

    ratio: dict[str, F64]
    wavelength: dict[str, F64]


def passband(section: Passband, base: Path, band: str) -> galsim.Bandpass:
    """Return the band pass of a band, with the AB zero point.

    Raises
    ------
    InputError
        When its table is missing or none.
    """
    file = section.of_band(base, band)
    if not file.is_file():
        raise InputError(
            "the table of a band pass is not there",
            band=band,
            file=file,
            key="bandpass.file_name",
            remedy="check its name; inputs/bandpasses has those of DECam's filters",
        )
    return _read_passband(file, section.wave_type, band)


@lru_cache(maxsize=32)
def _read_passband(file: Path, wave_type: str, band: str) -> galsim.Bandpass:
    try:
        table = galsim.LookupTable.from_file(str(file), interpolant="linear")
        if not (np.all(np.isfinite(table.f)) and np.all(np.array(table.f) >= 0) and np.any(np.array(table.f) > 0)):
            raise ValueError("its transmission is not between 0 and 1")
        return galsim.Bandpass(table, wave_type=wave_type).withZeropoint("AB")
    except (galsim.GalSimError, ValueError, IndexError, OSError) as error:
        raise InputError(
            f"a band pass cannot be used: {error}",
            band=band,
            file=file,
            key="bandpass.file_name",
            remedy="give two columns, wavelength and transmission",
        ) from error


def spectrum(section: Spectra, base: Path, name: str) -> galsim.SED:
    """Return a spectrum at rest.

    Raises
    ------
    InputError
        When it is neither under the checkout nor GalSim's, or no table.
    """
    path = section.path(base, name) or Path(galsim.meta_data.share_dir, "SEDs", name)
    try:
        # What is no file GalSim would run as a formula.
        if not path.is_file():
            raise FileNotFoundError("there is no such file")
        return galsim.SED(str(path), section.wave_type, section.flux_type)
    except (galsim.GalSimError, ValueError, IndexError, OSError) as error:
        raise InputError(
            f"the spectrum {name} cannot be used: {str(error).partition(chr(10))[0]}",
            file=place(base, name),
            key="seds.files",
            remedy="name a file of two columns, wavelength and flux, or one of GalSim's share/SEDs",
        ) from error


def mean_wavelength(sed: galsim.SED, band: galsim.Bandpass) -> float:
    """Return the mean wavelength in nm of the photons of a spectrum that pass a band.

    Notes
    -----
    The integral of wavelength x photons x transmission over that of photons x transmission, by trapezoids between the
    points of both tables.
    """
    wave = np.union1d(band.wave_list, sed.wave_list)
    wave = wave[(wave >= band.blue_limit) & (wave <= band.red_limit)]
    seen = sed(wave) * band(wave)
    return float(np.trapezoid(wave * seen, wave) / np.trapezoid(seen, wave))


def colours(
    section: Spectra, bandpass: Passband, base: Path, bands: Sequence[str], number: F64, redshift: F64
) -> Colours:
    """Return fluxes in bands relative to that in `section.mag_band`.

    Parameters
    ----------
    section : Spectra
        The spectra.
    bandpass : Passband
        The bands.
    base : pathlib.Path
        The checkout.
    bands : sequence of str
        Bands to have fluxes in.
    number, redshift : ndarray of float64, shape (n,)
        Which spectrum, and its redshift; rows with numbers out of range get NaN.

    Raises
    ------
    InputError
        When a file is missing or wrong.

    Notes
    -----
    AB magnitudes as `galsim.SED.calculateMagnitude` integrates them: photons count, and (1 + z) falls out.
    """
    seds = [spectrum(section, base, name) for name in section.files]
    passes = {band: passband(bandpass, base, band) for band in dict.fromkeys((*bands, section.mag_band))}
    out = Colours(*({band: np.full(len(number), np.nan) for band in bands} for _ in range(2)))
    good = (number >= 0) & (number < len(seds)) & (number == np.floor(number)) & (redshift >= 0) & np.isfinite(redshift)
    pairs, inverse = np.unique(np.column_stack([number[good], redshift[good]]), axis=0, return_inverse=True)
    rows = np.flatnonzero(good)
    for index, (which, z) in enumerate(pairs):
        here = rows[inverse.ravel() == index]
        try:
            sed = seds[int(which)].atRedshift(float(z))
            given = sed.calculateMagnitude(passes[section.mag_band])
            for band in bands:
                out.ratio[band][here] = 10.0 ** (0.4 * (given - sed.calculateMagnitude(passes[band])))
                out.wavelength[band][here] = mean_wavelength(sed, passes[band])
        except galsim.GalSimError:
            # The spectrum ends within a band: its rows stay NaN, and are counted with what cannot be drawn.
            continue
    return out


def through(whole: galsim.GSObject | galsim.ChromaticObject, band: galsim.Bandpass) -> galsim.GSObject:
    """Return what is seen of an object through a band pass, its flux at zero point 30 (AB).

    Parameters
    ----------
    whole : galsim.ChromaticObject
        Profiles times spectra, or sums of them.
    band : galsim.Bandpass
        With the AB zero point.

    Raises
    ------
    ConfigError
        For objects whose shape changes with the wavelength in another way.
    """
    if isinstance(whole, galsim.ChromaticSum):
        return galsim.Add([through(part, band) for part in whole.obj_list])
    if not isinstance(whole, galsim.ChromaticObject) or not whole.separable or whole.sed.dimensionless:
        raise ConfigError(
            f"{type(whole).__name__} cannot be drawn band by band: it is no sum of profiles with a spectrum each",
            key="gal",
            remedy="give every profile a sed, and sum them with Sum",
        )
    flux = whole.calculateFlux(band) * 10.0 ** (0.4 * (ZERO_POINT - band.zeropoint))
    return whole.evaluateAtWavelength(band.effective_wavelength).withFlux(float(flux))
