"""The output tree of one run."""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from balrogutils.rules.codes import bad_input

__all__ = ["Tree", "alone", "make_directory"]

_REALIZATION = "realization_"
_PACKED = (".fits.fz", ".fit.fz", ".fits", ".fit", ".fz", ".psf")


def _stem(file: Path) -> str:
    """Return a name that SExtractor can read: it takes blanks, commas and brackets for its own."""
    name = next((file.name[: -len(suffix)] for suffix in _PACKED if file.name.endswith(suffix)), file.name)
    return re.sub(r"[^\w.+-]", "_", name, flags=re.ASCII)


@dataclass(frozen=True)
class Tree:
    """Where the products of one run lie.

    Parameters
    ----------
    root : Path
        The output directory.
    image, psf : Path
        Input files, whose names begin those of the products.
    """

    root: Path
    image: Path
    psf: Path

    @property
    def stem(self) -> str:
        """Begins the name of every product."""
        return _stem(self.image)

    @property
    def images(self) -> Path:
        """Directory of images and PSF models."""
        return self.root / "balrog_image"

    @property
    def catalogs(self) -> Path:
        """Directory of catalogues."""
        return self.root / "balrog_cat"

    @property
    def sexconfig(self) -> Path:
        """Directory of everything SExtractor was given."""
        return self.root / "balrog_sexconfig"

    @property
    def logs(self) -> Path:
        """Directory of logs."""
        return self.root / "balrog_log"

    @property
    def simulated(self) -> Path:
        """The image with objects."""
        return self.images / f"{self.stem}.sim.fits"

    @property
    def original(self) -> Path:
        """The image without."""
        return self.images / f"{self.stem}.nosim.fits"

    @property
    def weight(self) -> Path:
        """The weight map, where it has a file of its own."""
        return self.images / f"{self.stem}.weight.fits"

    @property
    def psf_model(self) -> Path:
        """The PSF model of the image."""
        return self.images / f"{_stem(self.psf)}.psf"

    @property
    def detection_psf(self) -> Path:
        """The PSF model of the detection image, where it is another."""
        return self.images / f"{_stem(self.psf)}.det.psf"

    @property
    def truth(self) -> Path:
        """The truth catalogue."""
        return self.catalogs / f"{self.stem}.truthcat.sim.fits"

    @property
    def truth_parquet(self) -> Path:
        """The truth catalogue as Parquet."""
        return self.truth.with_suffix(".parquet")

    @property
    def results(self) -> Path:
        """Tables of completeness and of magnitudes, measured and true."""
        return self.catalogs / f"{self.stem}.results.fits"

    @property
    def efficiency_plot(self) -> Path:
        """Plot of the completeness."""
        return self.catalogs / f"{self.stem}.completeness.svg"

    @property
    def bias_plot(self) -> Path:
        """Plot of magnitudes, measured and true."""
        return self.catalogs / f"{self.stem}.bias.svg"

    def realization(self, number: int) -> Tree:
        """The tree of one of several realizations."""
        return Tree(self.root / f"{_REALIZATION}{number}", self.image, self.psf)

    def measured(self, run: str) -> Path:
        """SExtractor's catalogue of a run, ``sim`` or ``nosim``."""
        return self.catalogs / f"{self.stem}.measuredcat.{run}.fits"

    def association(self, run: str) -> Path:
        """The list of positions to associate with."""
        return self.sexconfig / f"{self.stem}.assoc.{run}.txt"

    def config(self, run: str) -> Path:
        """SExtractor's configuration of a run, where lines had to be left out."""
        return self.sexconfig / f"{self.stem}.measuredcat.{run}.sex.config"

    def parameters(self, run: str) -> Path:
        """SExtractor's columns of a run."""
        return self.sexconfig / f"{self.stem}.measuredcat.{run}.sex.params"

    @property
    def run_log(self) -> Path:
        """Messages of the run."""
        return self.logs / "run.log.txt"

    @property
    def args_log(self) -> Path:
        """What was asked for."""
        return self.logs / "args.log.txt"

    @property
    def sex_log(self) -> Path:
        """SExtractor's command lines and what it said."""
        return self.logs / "sex.log.txt"

    def make(self, *, several: bool = False) -> None:
        """Make the directories; those of what all realizations have, where there are several.

        Raises
        ------
        InputError
            When one cannot be made, or does not take files.
        """
        own = () if several else (self.images, self.sexconfig)
        for place in (self.root, self.logs, self.catalogs, *own):
            make_directory(place, 201 if place == self.root else 202)

    def clear(self, inputs: list[Path]) -> None:
        """Remove what an earlier run of this image left, so that nothing of it is taken for this run's.

        Raises
        ------
        InputError
            When an input is one of those files.
        """
        runs = ("sim", "nosim")
        files = [
            self.simulated,
            self.original,
            self.weight,
            self.psf_model,
            self.detection_psf,
            self.truth,
            self.truth_parquet,
            self.results,
            self.efficiency_plot,
            self.bias_plot,
            self.sex_log,
        ]
        files += [
            place(run) for run in runs for place in (self.measured, self.association, self.config, self.parameters)
        ]
        taken = {file.resolve() for file in inputs}
        for file in files:
            if not file.is_symlink() and file.resolve() in taken:
                text = "an input would be written over"
                raise bad_input(201, text, "choose another --outdir", file=file, key="--outdir")
            file.unlink(missing_ok=True)
        for place in self.root.glob(f"{_REALIZATION}*"):
            Tree(place, self.image, self.psf).clear(inputs)


@contextmanager
def alone(root: Path) -> Iterator[None]:
    """Keep other runs from an output directory; the kernel lets go when this one ends, however it ends.

    Raises
    ------
    InputError
        When it cannot be made, or another run writes to it.
    """
    make_directory(root, 201)
    descriptor = os.open(root, os.O_RDONLY | os.O_CLOEXEC)
    try:
        # Where directories cannot be locked, as on some file systems of a network, two runs are the user's affair.
        with suppress(OSError):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                text = "another run writes to the output directory"
                raise bad_input(
                    201, text, "wait for it, or give another --outdir", file=root, key="--outdir"
                ) from error
        yield
    finally:
        os.close(descriptor)


def make_directory(place: Path, code: int) -> None:
    """Make a directory and see that it takes files.

    Raises
    ------
    InputError
        When it does not.
    """
    try:
        place.mkdir(parents=True, exist_ok=True)
        probe = place / ".balrog-probe"
        probe.touch()
        probe.unlink()
    except OSError as error:
        text = f"an output directory cannot be made or written to: {error.strerror}"
        raise bad_input(code, text, "give --outdir a directory of yours", file=place, key="--outdir") from error
