"""A campaign of small synthetic tiles in a row, two of which cannot be made.

``python tests/small_campaign.py DIRECTORY`` makes twenty tiles with ``balrog campaign``, checks what it is told, and
prints what it took.
"""

import argparse
import os
import re
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import yaml

from balrogutils.survey.build import build_archive
from balrogutils.survey.telescope import chips
from balrogutils.survey.tiny import tiny_survey

CHECKOUT = Path(__file__).resolve().parents[1]
BAND = "r"
ABSENT = "DES0300+0216"
NAME = "row"


def name_campaign(base, tiles):
    """Make the campaign of the row the only one of an installation."""
    entry = {
        "kind": "desdm",
        "database": f"sqlite:///{{run}}/archive/{NAME}/archive.db",
        "archive": f"file://{{run}}/archive/{NAME}/desarchive/",
        "bands": [BAND],
        "det": [BAND],
        "tiles": tiles,
        "desmeds_config": "meds-y3v02.yaml",
        "galsim_config": "bal_config_exp.yaml",
        "sof_config": "run-y3v02-sof.yaml",
    }
    (base / "etc" / "campaigns.yaml").write_text(yaml.safe_dump({"campaigns": {NAME: entry}}))


def make_alone(base):
    """Give an installation one tile of the row that can be made; return its name."""
    parameters = tiny_survey([BAND])
    build_archive(parameters, base / "run" / "archive" / NAME, workers=1)
    name_campaign(base, [parameters.tiles[0].name])
    return parameters.tiles[0].name


class SmallCampaign:
    """Tiles in a row: all but the first and the last can be made.

    Parameters
    ----------
    base : pathlib.Path
        BALROG_BASE; its ``etc/campaigns.yaml`` gets the campaign, its ``run/archive`` the archive.
    count : int
        Tiles of the list. The archive has as many: the first is not in the list, in its place is one that the archive
        does not have. The last has a CCD of its own, whose image is damaged in the archive.
    workers : int
        Processes that draw the sky.
    """

    def __init__(self, base, count, workers=1):
        plain = tiny_survey([BAND], count)
        # So many CCDs: on each there must be enough stars for its PSF.
        many = plain.population.model_copy(update={"stars": 60.0})
        self.parameters = plain.model_copy(update={"population": many})
        names = [tile.name for tile in self.parameters.tiles]
        self.tiles = [ABSENT, *names[1:]]
        self.broken = [ABSENT, names[-1]]
        self.directory = base / "run" / "archive" / NAME
        build_archive(self.parameters, self.directory, workers)
        (self.own,) = [chip.name for chip in chips(self.parameters) if chip.tiles == (names[-1],)][:1]
        image = self.image
        content = bytearray(image.read_bytes())
        content[-3000] ^= 0xFF
        image.write_bytes(content)
        name_campaign(base, self.tiles)

    @property
    def image(self):
        """The image of the archive that is damaged."""
        (path,) = (self.directory / "desarchive").rglob(f"{self.own}_immasked.fits.fz")
        return path

    def require_report(self, line):
        """Check the last line of a campaign that went through: which tiles failed, why, and that no other did."""
        done = len(self.tiles) - len(self.broken)
        found = re.fullmatch(
            rf"campaign of {len(self.tiles)} tiles: {done} done, 2 failed \((\S+): prep {BAND}: ([^;]*); "
            rf"(\S+): prep {BAND}: ([^;]*)\), 0 left",
            line,
        )
        assert found, line
        assert [found[1], found[3]] == self.broken
        assert found[2].startswith("the archive has no such tile"), line
        assert found[4].startswith("a file of the archive is damaged: MD5 "), line
        assert self.image.name in found[4], line


def used(directory):
    """Bytes of files below a directory, each file once; and what they would be if every name were a file."""
    sizes = [path.stat() for path in directory.rglob("*") if path.is_file()]
    return sum({one.st_ino: one.st_size for one in sizes}.values()), sum(one.st_size for one in sizes)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--mode", type=int, default=1151)
    words = parser.parse_args()
    base, work = words.directory / "base", words.directory / "work"
    work.mkdir(parents=True)
    for name in ("etc", "desmeds-config", "sof-config", "mof-config", "shr-config", "bfd-config", "inputs"):
        shutil.copytree(CHECKOUT / name, base / name)
    for name in ("Snakefile", "rules", "profiles"):
        (work / name).symlink_to(CHECKOUT / name)
    campaign = SmallCampaign(base, words.count, words.cores)
    listed = words.directory / "tiles.txt"
    listed.write_text("\n".join(campaign.tiles) + "\n")
    env = os.environ | {"BALROG_BASE": str(base), "TMPDIR": str(words.directory / "tmp")}
    settings = ["--set", f"mode={words.mode}", "--set", "realizations=0"]
    command = ["balrog", "campaign", str(listed), *settings, "--", "--cores", str(words.cores)]
    for again in (False, True):
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        done = subprocess.run(command, cwd=work, env=env, capture_output=True, text=True, check=False)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        sys.stdout.write(done.stdout.splitlines()[-1] + "\n")
        sys.stdout.write(f"{'again: ' if again else ''}{time.monotonic() - began:.0f} s, {cpu:.0f} s of CPU\n")
        assert done.returncode == 1, done.stderr[-4000:]
        campaign.require_report(done.stdout.splitlines()[-1])
    tiles = base / "run" / "meds" / "y3v02"
    once, names = (sum(one) for one in zip(*(used(path) for path in tiles.glob("DES*/sources-*")), strict=True))
    shared = used(tiles / "shared")[0]
    sys.stdout.write(f"fetched: {shared / 1e6:.1f} MB, {names / 1e6:.1f} MB if every tile fetched its own\n")
    sys.stdout.write(f"in all: {used(tiles)[0] / 1e6:.1f} MB\n")
    assert shared < once


if __name__ == "__main__":
    main()
