"""A list of images for ``balrog image``, made side by side: which arguments each has, and what became of them."""

from __future__ import annotations

import csv
import fcntl
import os
import re
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from balrogutils.errors import BalrogError, ConfigError, InputError, did_you_mean
from balrogutils.fitsfile import read_table
from balrogutils.oneimage.arguments import native_parser
from balrogutils.oneimage.tree import Tree
from balrogutils.products import read_manifest, writing_text
from balrogutils.randomness import seed32
from balrogutils.settings.yamlfile import load_yaml

__all__ = ["ImageList", "counts", "report"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")
_OWN = ("name", "own")
# What a list has no say in: where products go, and the terminal.
_NOT_LISTED = ("outdir", "stdverbosity", "help")
# What lies beside the directories of images.
_MANIFESTS, _REPORT = "manifests", "images.csv"
_YES, _NO = ("true", "yes", "1"), ("false", "no", "0", "")
_COLUMNS = ("name", "status", "objects", "found", "there_before", "m50", "seed", "noiseseed", "seconds")


def _rows(file: Path) -> list[dict[str, Any]]:
    """Return the mappings of a list: lines of a CSV table, or ``images`` of a YAML file with its ``defaults``."""
    if file.suffix.lower() in (".yaml", ".yml"):
        given = load_yaml(file)
        strange = [key for key in given if key not in ("defaults", "images")]
        images, common = given.get("images"), given.get("defaults") or {}
        if strange or not isinstance(images, list) or not all(isinstance(one, dict) for one in (*images, common)):
            text = f"a list of images has an unknown key {strange[0]}" if strange else "this is not a list of images"
            remedy = "write images: [{name: ..., image: ...}, ...], perhaps with defaults: {...}"
            raise ConfigError(text, file=file, remedy=remedy)
        return [{**common, **one} for one in images]
    try:
        with file.open(encoding="utf-8", newline="") as stream:
            reader = csv.DictReader(stream, skipinitialspace=True, strict=True)
            rows, names = list(reader), [name.strip() for name in reader.fieldnames or ()]
    except FileNotFoundError as error:
        raise ConfigError("the list of images is not there", file=file, remedy="check its name") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        text = f"the list of images cannot be read: {error}"
        raise ConfigError(text, file=file, remedy="make it a CSV table with a line of names") from error
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ConfigError(f"two columns are called {twice[0]}", file=file, remedy="keep one of them")
    for number, row in enumerate(rows, start=2):
        if None in row or None in row.values():
            text = f"line {number} has not as many cells as the line of names"
            raise ConfigError(text, file=file, remedy="put cells with commas into quotes")
    return [{key.strip(): value.strip() for key, value in row.items()} for row in rows]


@dataclass(frozen=True)
class ImageList:
    """Images with the arguments of ``balrog image`` that each has.

    Parameters
    ----------
    file : Path
        CSV with a line of names, or YAML (``images``, and ``defaults`` of all). Names are the long ones of the
        arguments without dashes; ``name`` names the image, ``own`` holds the rules file's own arguments as on a
        command line. Relative names of files start where the list lies.
    root : Path
        Directory of the products, one directory an image.

    Attributes
    ----------
    words : dict of tuple of str
        Arguments by name of the image, in the order of the list.
    inputs : dict of list of Path
        Files they name.
    """

    file: Path
    root: Path
    words: dict[str, tuple[str, ...]]
    inputs: dict[str, list[Path]]

    @classmethod
    def read(cls, file: Path, root: Path) -> ImageList:
        """Read and check a list.

        Raises
        ------
        ConfigError
            When it is no such list, an argument is unknown, or two images have one name.
        """
        kinds = {one.dest: one for one in native_parser("balrog image")._actions if one.dest not in _NOT_LISTED}
        words: dict[str, tuple[str, ...]] = {}
        inputs: dict[str, list[Path]] = {}
        for number, row in enumerate(_rows(file), start=1):
            where: dict[str, Any] = {"file": file, "key": f"image {number}"}
            given = {key: value for key, value in row.items() if value not in (None, "")}
            name = str(given.get("name") or Path(str(given.get("image", ""))).name.partition(".")[0])
            if not _NAME.fullmatch(name):
                raise ConfigError(f"an image has no name of letters and digits: {name!r}", **where, remedy="give name")
            if name in (_MANIFESTS, _REPORT):
                raise ConfigError(f"an image cannot be called {name}", **where, remedy="give another name")
            if name in words:
                raise ConfigError(f"two images are called {name}", **where, remedy="give each a name of its own")
            words[name], inputs[name] = _arguments(name, given, kinds, where)
        if not words:
            raise ConfigError("the list holds no image", file=file, remedy="add a line for each image")
        return cls(file, root, words, inputs)

    def require(self, name: str) -> None:
        """Refuse a name that the list does not have.

        Raises
        ------
        InputError
            With what may have been meant.
        """
        if name not in self.words:
            text = f"the list has no image {name}: {did_you_mean(name, self.words)}"
            raise InputError(text, file=self.file, key="--name", remedy="choose one of the list")

    def outdir(self, name: str) -> Path:
        """Return where the products of an image go."""
        return self.root / name

    def manifest(self, name: str) -> Path:
        """Return what says that an image is made."""
        return self.root / _MANIFESTS / f"{name}_image.json"

    @property
    def report(self) -> Path:
        """The table of what became of all."""
        return self.root / _REPORT

    @contextmanager
    def alone(self, name: str) -> Iterator[None]:
        """Keep other jobs from an image; the kernel lets go when this one ends, however it ends.

        Raises
        ------
        InputError
            When another job is making it.
        """
        place = self.manifest(name).with_suffix(".lock")
        place.parent.mkdir(parents=True, exist_ok=True)
        with place.open("w") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                text = f"another job is making the image {name}"
                raise InputError(text, file=place, remedy="wait until it has ended, then run the same again") from error
            yield


def _arguments(
    name: str, given: Mapping[str, Any], kinds: Mapping[str, Any], where: Mapping[str, Any]
) -> tuple[tuple[str, ...], list[Path]]:
    """Return the words of one image, seeds of its own among them, and the files they name."""
    words: list[str] = []
    inputs: list[Path] = []
    base = Path(where["file"]).absolute().parent
    seeds = {key: seed32(0, "image list", name, key) for key in ("seed", "noiseseed")}
    for key, value in {**seeds, **given}.items():
        if key in _OWN:
            continue
        if key not in kinds:
            text = f"balrog image has no argument {key}: {did_you_mean(key, [*_OWN, *kinds])}"
            raise ConfigError(text, **where, remedy="arguments of the rules file go into own")
        kind, text = kinds[key], str(value)
        if kind.nargs == 0:
            if text.lower() not in (*_YES, *_NO):
                raise ConfigError(f"{key} is {text}", **where, remedy="write true or false")
            words += [f"--{key}"] if text.lower() in _YES else []
            continue
        if kind.metavar == "FILE":
            try:
                place = base / Path(text).expanduser()
            except RuntimeError as error:
                raise ConfigError(
                    f"there is no home directory for {text}", **where, remedy="write the whole path"
                ) from error
            text = str(place)
            inputs += [place] if key != "sim_noassoc_seg" else []
        words += [f"--{key}", text]
    try:
        own = shlex.split(str(given.get("own", "")))
    except ValueError as error:
        text = f"own cannot be taken apart into words: {str(error).lower()}"
        raise ConfigError(text, **where, remedy="close every quotation mark") from error
    return (*words, *own), inputs


def counts(tree: Tree) -> dict[str, int | float | str]:
    """Return what is told of one image: objects, those found, and the magnitude at which half are."""
    if not tree.results.is_file():
        return {}
    objects, model = read_table(tree.results, "OBJECTS"), read_table(tree.results, "MODEL")
    half = [row["value"] for row in model if str(row["parameter"]).strip().endswith("at 50 %")]
    told: dict[str, int | float | str] = {"objects": len(objects)}
    told |= {name: int(np.count_nonzero(objects[name])) for name in ("found", "there_before")}
    return told | ({"m50": round(float(half[0]), 3)} if half and np.isfinite(half[0]) else {})


def report(images: ImageList) -> str:
    """Write the table of what became of the images of a list, and return it as text in columns."""
    lines: list[dict[str, Any]] = []
    for name in images.words:
        line: dict[str, Any] = {"name": name, "status": "not made"}
        try:
            made = read_manifest(images.manifest(name), "counts", "seeds", "wall_seconds")
        except BalrogError:
            lines.append(line)
            continue
        gone = [one["path"] for one in made["outputs"] if not os.path.lexists(one["path"])]
        line |= {"status": "products gone" if gone else "made", **made["counts"], **made["seeds"]}
        lines.append(line | {"seconds": round(made["wall_seconds"], 1)})
    cells = [[str(line.get(column, "")) for column in _COLUMNS] for line in lines]
    writing_text(images.report, "".join(",".join(row) + "\n" for row in [list(_COLUMNS), *cells]))
    widths = [max(map(len, column)) for column in zip(_COLUMNS, *cells, strict=True)]
    rows = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in [_COLUMNS, *cells]]
    return "\n".join(row.rstrip() for row in rows)
