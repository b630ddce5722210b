"""Spectra and band passes that an injection configuration names."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import pydantic
from pydantic import Field

from balrogutils.settings.yamlfile import Strict

__all__ = ["Passband", "Spectra", "place"]


def place(base: Path, *parts: str) -> Path:
    """Return a path under the checkout, which the literal ``BALROG-BASE`` stands for too."""
    return base.joinpath(*(part.replace("BALROG-BASE", str(base)) for part in parts if part))


class Passband(Strict):
    """Transmission of each band: tables of wavelength and throughput.

    Attributes
    ----------
    file_name, dir : str
        ``BAND`` in the name stands for the band. A relative `dir` is relative to the checkout (``BALROG_BASE``).
    wave_type : {"Ang", "nm"}
        Unit of the wavelengths.
    """

    file_name: str
    dir: str = ""
    wave_type: Literal["Ang", "nm"] = "Ang"

    @pydantic.model_validator(mode="after")
    def _one_a_band(self) -> Passband:
        if "BAND" not in self.file_name:
            raise ValueError("file_name names one table a band: write BAND where the band stands")
        return self

    def of_band(self, base: Path, band: str) -> Path:
        """Return the table of a band."""
        return place(base, self.dir, self.file_name.replace("BAND", band))


class Spectra(Strict):
    """Spectra of the objects of a table.

    Attributes
    ----------
    files : list of str
        The table's column ``sed`` numbers them from 0 (``bulge_sed``, ``disk_sed`` for bulges and disks). Files under
        the checkout, or names of those that come with GalSim, for example ``CWW_E_ext.sed``.
    mag_band : str
        The band whose magnitude or flux the table gives; the spectrum, at the ``redshift`` of the table (0 without such
        a column), gives the others.
    wave_type : {"Ang", "nm"}
        Unit of the wavelengths.
    flux_type : {"flambda", "fnu", "fphotons"}
        What the second column is, as in `galsim.SED`.
    """

    files: Annotated[tuple[str, ...], Field(min_length=1)]
    mag_band: str
    wave_type: Literal["Ang", "nm"] = "Ang"
    flux_type: Literal["flambda", "fnu", "fphotons"] = "flambda"

    def path(self, base: Path, name: str) -> Path | None:
        """Return a file under the checkout; None for one that is GalSim's."""
        path = place(base, name)
        return path if path.is_file() else None

    def paths(self, base: Path) -> list[Path]:
        """Return the files that are under the checkout."""
        return [path for name in self.files if (path := self.path(base, name)) is not None]
