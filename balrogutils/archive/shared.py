"""Files of the archive that neighbouring tiles share: fetched once, and there for as long as a tile has them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from balrogutils.archive.begun import BEGUN_PREFIX, begun, remove_begun

__all__ = ["SharedFiles"]


@dataclass(frozen=True)
class SharedFiles:
    """A directory of fetched files, each under its MD5; tiles have them as hard links, under the archive's names.

    A file is fetched by whoever holds its lock (`balrogutils.archive.begun`), and appears whole or not at all. It
    belongs to the tiles that have it: `release` removes the names of those that no tile has any more.

    Parameters
    ----------
    directory : pathlib.Path
        On the file system of the tiles.
    """

    directory: Path

    def name(self, checksum: str) -> Path:
        """Return the name of the file with this MD5."""
        plain = checksum.lower()
        return self.directory / plain[:2] / plain

    def inodes(self) -> dict[tuple[int, int], str]:
        """Return the MD5 of every shared file by its device and inode."""
        found = {}
        for directory in self.directory.glob("[0-9a-f][0-9a-f]"):
            device = directory.stat().st_dev
            with os.scandir(directory) as entries:
                found.update({(device, one.inode()): one.name for one in entries if not one.name.startswith(".")})
        return found

    def unclaimed(self) -> list[Path]:
        """Return files that no tile has, because its directory was removed, and what transfers have begun."""
        found = self.directory.glob("[0-9a-f][0-9a-f]/*")
        return sorted(path for path in found if path.name.startswith(".") or _alone(path))

    def release(self, checksums: Iterable[str]) -> None:
        """Remove the names of files that no tile has any more."""
        for checksum in checksums:
            name = self.name(checksum)
            # A tile that is about to take it holds the lock, and has its own name for it afterwards.
            with begun(name, checksum):
                if _alone(name):
                    name.unlink()

    def tidy(self) -> None:
        """Remove what is `unclaimed`, but no transfer that goes on."""
        self.release(path.name for path in self.unclaimed() if not path.name.startswith(BEGUN_PREFIX))
        remove_begun(self.directory)


def _alone(path: Path) -> bool:
    """Return whether a file has this name alone; one that is gone has none."""
    try:
        return path.stat().st_nlink == 1
    except FileNotFoundError:
        return False
