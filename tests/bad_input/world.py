"""An installation to break: configuration, archives and products, under names with blanks and an accent."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import fitsio
import pytest
from conftest import CHECKOUT, CONFIGURATION
from match_tile import make_tile as made_of_numbers
from small_archive import SmallArchive

TILE = "DES1226+2527"
"""The tile of real sky."""

NAME = "base dir #1 50%41 é"
"""What the checkout is called: nothing in this name may trouble anybody."""

BARE_TILE = "DES0239+0216"
"""A tile of the synthetic survey, of which nothing has been made."""

SMALL_TILE = "DES2044-5300"
"""The tile of the small DES archive of `small_archive`: one band, two exposures of two CCDs."""

SMALL_CAMPAIGN = f"""
  small:
    kind: desdm
    database: sqlite:///{{run}}/archive/small/archive.db
    archive: file://{{run}}/archive/small/desarchive/
    bands: [g]
    det: [g]
    tiles: [{SMALL_TILE}, DES2044-5341]
    desmeds_config: meds-y3v02.yaml
    galsim_config: bal_config_few.yaml
    sof_config: run-y3v02-sof.yaml
"""
FEW = """
input: {ngmix_catalog: {dir: inputs, file_name: galaxies_exp.fits, catalog_type: bdf}}
gal: {type: ngmixGalaxy}
psf: {type: DES_PSFEx}
stamp: {draw_method: no_pixel}
image: {type: Balrog, realizations: [0], n_objects: 3}
"""

_UNSET = ("MEDS_DATA", "MEDS_DIR", "medsconf", "NGMIXER_OUTPUT_DIR", "DESDATA", "DESMEDS_CONFIG_DIR", "DES_SERVICES")
_NO_PRODUCT = re.compile(r"(^|/)(\.snakemake|logs|LOGS)/|\.lock$|(^|/)(base|sof|mof|shr|bfd)_[^/]*\.log$")
_HEADS = r"balrog: |balrogutils: |\d{4}-\d\d-\d\d [\d:]+ (?:ERROR|WARNING) |Error: "
_TOLD = re.compile(rf"^(?:{_HEADS}|usage: |Run\w+\.sh: (?!failed)).*(?:\n {{2,}}.*)*", re.MULTILINE)


@dataclass(frozen=True)
class Seen:
    """What a command left on the terminal: its status, and its two streams with machine paths shortened."""

    status: int
    out: str
    err: str

    @property
    def told(self) -> str:
        """What it had to say, without the progress of the run."""
        found = dict.fromkeys(match[0].rstrip() for match in _TOLD.finditer(self.err))
        return "\n".join(re.sub(r"\n  log: .*", "", re.sub(f"^(?:{_HEADS})", "", text)) for text in found)


class World:
    """A checkout with its run directory, and the commands a user types in it.

    Parameters
    ----------
    directory : Path
        Everything lies below it. Products record absolute paths, so a made tile is good for one directory only.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.base = directory / NAME
        self.tmp = directory / "tmp é"
        self.programs = directory / "programs"
        self.prefix: list[str] = []
        self.environment: dict[str, str] = {}
        self.small: SmallArchive | None = None
        # Whether a limit on the size of files stands in for a full disk: it meets the first large file of any kind.
        self.limited = False

    # what there is
    @property
    def products(self) -> Path:
        """MEDS_DATA."""
        return self.base / "run" / "meds"

    def tile(self, realization: str | None = None) -> Path:
        """The directory of the tile of real sky."""
        root = self.products / "y3v02"
        return (root if realization is None else root / "balrog_images" / realization / "y3v02") / TILE

    def make_bare(self) -> None:
        """The configuration, and archives that are there and empty: nothing gets as far as to open them."""
        for name in CONFIGURATION:
            shutil.copytree(CHECKOUT / name, self.base / name, ignore=shutil.ignore_patterns("decam_grz_9exp"))
        for name in ("Snakefile", "rules", "profiles"):
            (self.base / name).symlink_to(CHECKOUT / name)
        for name in ("synthetic", "decam"):
            (self.base / "run" / "archive" / name).mkdir(parents=True)
            (self.base / "run" / "archive" / name / "archive.db").touch()

    def make_small(self) -> None:
        """A DES archive of four small CCDs besides."""
        self.make_bare()
        with (self.base / "etc" / "campaigns.yaml").open("a", encoding="utf-8") as file:
            file.write(SMALL_CAMPAIGN)
        (self.base / "inputs" / "bal_config_few.yaml").write_text(FEW)
        self.small = SmallArchive(self.base / "run" / "archive" / "small").write()

    def make_decam(self) -> None:
        """The archive of real exposures besides, of which two bands are made."""
        self.make_bare()
        self.edit("etc/campaigns.yaml", "bands: [g, r, z]\n    det: [r, z]", "bands: [g, r]\n    det: [r]")
        shutil.rmtree(self.base / "run" / "archive" / "decam")
        shutil.copytree(CHECKOUT / "inputs" / "decam_grz_9exp", self.base / "inputs" / "decam_grz_9exp")
        self.succeed(f"balrog archive {TILE}")
        shutil.rmtree(self.base / "inputs" / "decam_grz_9exp")

    def make_tile(self) -> None:
        """A whole tile of real sky with one realization."""
        self.make_decam()
        self.succeed(f"snakemake --cores 2 tile={TILE} --config mode=127 realizations=0")

    def make_matched(self) -> None:
        """A tile of numbers alone, with everything that block 1024 reads, and one realization of it matched."""
        self.make_bare()
        self.edit("etc/campaigns.yaml", "bands: [g, r, i, z]\n    det: [r, z, i]", "bands: [g, r, z]\n    det: [r, z]")
        made_of_numbers(self.base)
        self.succeed(f"balrog match {BARE_TILE} -r 0")

    # what breaks it
    def edit(self, file: str, old: str, new: str) -> None:
        """Change a text file."""
        text = (self.base / file).read_text(encoding="utf-8")
        assert old in text, (file, old)
        self.replace(file, text.replace(old, new, 1).encode())

    def replace(self, file: str, content: bytes) -> None:
        """Put another file in a file's place."""
        (self.base / file).unlink(missing_ok=True)
        (self.base / file).write_bytes(content)

    def forget(self, table: str, **where: str) -> None:
        """Drop rows of the small archive's database, whose columns end with the given texts."""
        assert self.small is not None
        assert self.small.drop(table, **where), (table, where)
        self.small.write()

    def mend(self) -> None:
        """Undo what was put around the commands: programs, permissions, the disk."""
        self.prefix, self.environment = [], {}
        shutil.rmtree(self.programs, ignore_errors=True)

    def program(self, names: str, script: str) -> None:
        """Put a program of one's own first on PATH."""
        self.programs.mkdir(exist_ok=True)
        for name in names.split():
            (self.programs / name).write_text(f"#!/bin/sh\n{script}\n")
            (self.programs / name).chmod(0o755)

    def hide(self, names: str) -> None:
        """Take programs off PATH: their directories are replaced by links to everything else in them."""
        hidden, directories = set(names.split()), []
        for number, directory in enumerate(map(Path, self._path().split(os.pathsep))):
            if not any((directory / name).exists() for name in hidden):
                directories.append(str(directory))
                continue
            rest = self.directory / f"path {number}"
            rest.mkdir()
            for program in directory.iterdir():
                if program.name not in hidden:
                    (rest / program.name).symlink_to(program)
            directories.append(str(rest))
        self.environment["PATH"] = os.pathsep.join(directories)

    def obey_permissions(self) -> None:
        """Run as one for whom permissions hold, which they do not for root."""
        if os.geteuid() == 0:
            self.prefix = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]

    def small_disk(self, directory: Path, room: int) -> None:
        """Put a directory on a disk of its own with so many bytes of room.

        Where a mount of one's own is refused, a limit on the size of files stands in for it.
        """
        directory.mkdir(parents=True, exist_ok=True)
        space = ["unshare", "--user", "--map-root-user", "--mount"]
        if subprocess.run([*space, "true"], capture_output=True, check=False).returncode == 0:
            script = Path(__file__).with_name("small_disk.py")
            self.prefix = [*space, sys.executable, str(script), str(directory), str(room)]
        elif not room:
            pytest.skip("a disk without any room takes a mount of one's own, which is refused here")
        else:
            self.prefix = ["prlimit", f"--fsize={room}"]
            self.limited = True

    # what the user does and sees
    def _path(self) -> str:
        return os.pathsep.join(
            [str(self.programs), str(Path(sys.executable).parent), str(CHECKOUT / "bin"), os.environ["PATH"]]
        )

    def run(self, words: str) -> Seen:
        """Run a command line in the checkout."""
        env = {key: value for key, value in os.environ.items() if key not in _UNSET}
        env |= {"BALROG_BASE": str(self.base), "XDG_CACHE_HOME": str(self.directory / "cache"), "PATH": self._path()}
        env |= {"TMPDIR": str(self.tmp), **self.environment}
        done = subprocess.run(
            [*self.prefix, *shlex.split(words)], cwd=self.base, env=env, capture_output=True, timeout=300, check=False
        )
        return Seen(
            done.returncode,
            *(self._shortened(stream.decode(errors="replace")) for stream in (done.stdout, done.stderr)),
        )

    def succeed(self, words: str) -> None:
        """Run a command line that has no reason to fail."""
        seen = self.run(words)
        assert seen.status == 0, seen.err[-3000:]

    def _shortened(self, text: str) -> str:
        # What the machine is called, and where programs lie on it, is not for the table.
        text = text.replace(f"{self.base}/", "").replace(str(self.base), "the checkout")
        for place in (self.directory, CHECKOUT, Path(sys.prefix)):
            text = text.replace(f"{place}/", "")
        return re.sub(r"/(?:usr/)?(?:local/)?bin/(\S+)", r"\1", text)

    def files(self) -> dict[str, str]:
        """Every file but logs and locks, with its SHA-256; what tiles share counts under the names it has in them."""
        found = {}
        for path in sorted(self.base.rglob("*")):
            name = path.relative_to(self.base).as_posix()
            shared = "/y3v02/shared/" in name and path.stat().st_nlink > 1
            if path.is_file() and not path.is_symlink() and not shared and not _NO_PRODUCT.search(name):
                with path.open("rb") as stream:
                    found[name] = hashlib.file_digest(stream, "sha256").hexdigest()
        return found

    def litter(self) -> list[str]:
        """Unfinished files and scratch directories."""
        found = [path for place in (self.base, self.tmp) for path in place.rglob("*")]
        names = (".part-", "balrog-", "disk-")
        return [str(path.relative_to(self.directory)) for path in found if path.name.startswith(names)]

    def logs(self) -> str:
        """The text of every log of the run."""
        return "".join(path.read_text(errors="replace") for path in self.base.rglob("*.log"))

    def require_whole(self, file: str) -> None:
        """Check that a product is not half-written."""
        path = self.base / file
        assert path.stat().st_size > 0, file
        if path.suffix == ".json":
            json.loads(path.read_text(encoding="utf-8"))
        elif path.suffix in (".fits", ".fz", ".psf"):
            with fitsio.FITS(str(path)) as fits:
                for hdu in fits:
                    if hdu.has_data():
                        hdu.read()
                    if "DATASUM" in hdu.read_header():
                        hdu.verify_checksum()


class Worlds:
    """The worlds of one test process, each made once and copied for every row.

    Parameters
    ----------
    directory : Path
        Of this process alone.
    """

    def __init__(self, directory: Path) -> None:
        self._kept = directory / "kept"
        self._live = directory / "world"

    def _wipe(self) -> None:
        if self._live.exists():
            subprocess.run(["chmod", "-R", "u+rwX", str(self._live)], check=True)
            shutil.rmtree(self._live)

    def at(self, stage: str) -> World:
        """Return a fresh world: ``bare``, ``small``, ``decam``, ``tile`` or ``matched``."""
        self._wipe()
        world = World(self._live)
        makers: dict[str, Callable[[], None]] = {"bare": world.make_bare, "small": world.make_small}
        if stage in makers:
            makers[stage]()
            return world
        kept = self._kept / stage
        if not kept.exists():
            {"decam": world.make_decam, "tile": world.make_tile, "matched": world.make_matched}[stage]()
            kept.parent.mkdir(parents=True, exist_ok=True)
            subprocess.run(["cp", "-a", str(self._live), str(kept)], check=True)
        else:
            subprocess.run(["cp", "-a", str(kept), str(self._live)], check=True)
        return world
