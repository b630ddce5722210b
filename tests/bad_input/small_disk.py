"""Run a command with one directory on a small disk: ``small_disk.py DIRECTORY ROOM COMMAND...``.

It must have a mount namespace of its own. The directory's files move to a disk in memory that has ROOM bytes to spare;
what the command leaves moves back.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

_FILLER = ".filler"


def _mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True)


def _copy(source: Path, target: Path) -> None:
    subprocess.run(["cp", "-a", f"{source}/.", str(target)], check=True)


def main(directory: Path, room: int, command: list[str]) -> int:
    """Return the status of the command."""
    here = Path.cwd()
    with tempfile.TemporaryDirectory(prefix="disk-", dir=directory.parent) as name:
        disk = Path(name)
        _mount("-t", "tmpfs", "none", name)
        try:
            _copy(directory, disk)
            _mount("-o", f"remount,size={shutil.disk_usage(disk).used + room + (1 << 20)}", name)
            _mount("--bind", name, str(directory))
            # Exactly the room asked for, in whole pages of memory.
            with (disk / _FILLER).open("wb") as filler:
                filler.write(b"\0" * max(shutil.disk_usage(disk).free - room, 0))
            os.chdir(here)
            status = subprocess.run(command, check=False).returncode
            subprocess.run(["umount", "-l", str(directory)], check=True)
            (disk / _FILLER).unlink()
            shutil.rmtree(directory)
            directory.mkdir()
            _copy(disk, directory)
        finally:
            subprocess.run(["umount", "-l", name], check=True)
    return status


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]))
