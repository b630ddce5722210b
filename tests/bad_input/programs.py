"""External programs that are missing, of another version, fail, leave nothing or hang."""

import json
from functools import partial
from shutil import which

from row import Row
from world import TILE

from balrogutils.survey.tiny import tiny_survey

PROGRAMS = partial(Row, "External programs", status=1, stage="tile")
MANIFEST = "*/{tile}/manifests/{tile}_{step}_g.json"

# Names on PATH; command; what the tool is called; the manifest of its step; what it leaves first.
TOOLS = {
    "SWarp": ("SWarp swarp", f"balrog coadd {TILE} --band g", "swarp", "coadd", "sci.fits"),
    "SExtractor": (
        "source-extractor sex sextractor",
        f"balrog detect {TILE} --band g",
        "sextractor",
        "catalog",
        "catalog.fits",
    ),
    "fpack": ("fpack", f"balrog meds {TILE} --band g", "fpack", "meds", f"{TILE}_g_meds-y3v02.fits.fz"),
}
ARCHIVE = "balrog archive synthetic --workers 1"


def fake(names, body):
    """Put a program first on PATH that tells the version of the true one and then does something else."""

    def breaks(world):
        true = next(found for found in map(which, names.split()) if found)
        world.program(names, f'case "$1" in --version|-V) exec {true} "$1";; esac\n{body}')

    return breaks


def of_version(names, text):
    return lambda world: world.program(names, f"echo '{text}'")


def hidden(names):
    return lambda world: world.hide(names)


def tiny(breaks):
    """Have the archive of a tiny survey to build."""

    def broken(world):
        world.replace("etc/survey.yaml", json.dumps(tiny_survey("r").model_dump(mode="json")).encode())
        (world.base / "run/archive/synthetic/archive.db").unlink()
        (world.base / "run/archive/synthetic").rmdir()
        breaks(world)

    return broken


def _rows():
    for called, (names, words, tool, step, output) in TOOLS.items():
        manifest = (MANIFEST.format(tile=TILE, step=step),)
        where = f"tile {TILE}, band g, file \\S*"
        yield PROGRAMS(f"{called} missing", words, f"{tool} is not installed\n.*apt-get install", breaks=hidden(names))
        yield PROGRAMS(
            f"{called} older than any checked",
            words,
            f"{tool} is version 1.2.3, older than \\d+.*\n.*first on PATH",
            breaks=of_version(names, "version 1.2.3"),
        )
        yield PROGRAMS(
            f"{called} of another version than in the base run",
            f"{words} -r 0",
            f"{tool} is version 99.1.0, the base run was made with \\d.* \\(tile {TILE}, band g\\)\n.*use that version",
            breaks=of_version(names, "version 99.1.0"),
        )
        yield PROGRAMS(
            f"{called} that fails",
            words,
            f"{tool} ended with status 1 \\({where}[\\s\\S]*the end of its log:[\\s\\S]*out of luck\n  remedy",
            breaks=fake(names, "echo out of luck; exit 1"),
            redone=manifest,
            again=called == "SWarp",
        )
        yield PROGRAMS(
            f"{called} that leaves nothing",
            words,
            f"{tool} ended with status 0 but did not write {output} \\({where}[\\s\\S]*nothing to do\n  remedy",
            breaks=fake(names, "echo nothing to do"),
            redone=manifest,
        )
        yield PROGRAMS(
            f"{called} that hangs",
            f"{words} --set tool_timeout=2",
            f"{tool} did not end within 2 s \\({where}[\\s\\S]*remedy: .*raise tool_timeout",
            breaks=fake(names, "sleep 1000"),
            redone=manifest,
        )
    psfex = partial(PROGRAMS, stage="bare", long=True)
    file = "chip D\\w+, file run/archive/synthetic\\)"
    yield psfex(
        "PSFEx missing", ARCHIVE, "psfex is not installed\n.*apt-get install psfex", breaks=tiny(hidden("psfex"))
    )
    yield psfex(
        "PSFEx older than any checked",
        ARCHIVE,
        "psfex is version 1.2.3, older than 3.21",
        breaks=tiny(of_version("psfex", "version 1.2.3")),
    )
    yield psfex(
        "PSFEx that fails",
        ARCHIVE,
        f"psfex ended with status 1 \\({file}[\\s\\S]*out of luck\n  remedy",
        breaks=tiny(fake("psfex", "echo out of luck; exit 1")),
    )
    yield psfex(
        "PSFEx that leaves nothing",
        ARCHIVE,
        f"psfex ended with status 0 but did not write \\S*.psf \\({file}",
        breaks=tiny(fake("psfex", "echo nothing to do")),
    )
    yield psfex(
        "PSFEx that hangs",
        f"{ARCHIVE} --set tool_timeout=2",
        f"psfex did not end within 2 s \\({file}[\\s\\S]*raise tool_timeout",
        breaks=tiny(fake("psfex", "sleep 1000")),
    )


ROWS = list(_rows())
