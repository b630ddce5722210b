"""The doctor with one thing broken at a time: it names it, says what to do, and finds nothing else."""

import errno
import importlib.metadata
import json
import resource
import shutil
from collections import namedtuple

import psutil
import pytest
from conftest import CHECKOUT
from small_archive import TILE, SmallArchive
from test_status import Run

from balrogutils import runlock, tools
from balrogutils.archive.queries import Database
from balrogutils.archive.services import Login
from balrogutils.blocks import prep
from balrogutils.context import Installation
from balrogutils.errors import ArchiveError
from balrogutils.overview import doctor
from balrogutils.overview.doctor import Level, diagnose
from balrogutils.products import writing_text

CAMPAIGN = f"""
  small:
    kind: desdm
    database: sqlite:///{{run}}/archive/small/archive.db
    archive: file://{{run}}/archive/small/desarchive/
    bands: [g]
    det: [g]
    tiles: [{TILE}]
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
ONE = "D00229300_g_c01_r2356p01"
Usage = namedtuple("Usage", "total used free")
Memory = namedtuple("Memory", "total available")


class Clinic:
    """An installation with a small archive that is all well, and what breaks it."""

    def __init__(self, base, tmp_path, monkeypatch):
        self.base, self.tmp_path, self.monkeypatch = base, tmp_path, monkeypatch
        self.overrides, self.environ = {}, {"BALROG_BASE": str(base)}
        with (base / "etc" / "campaigns.yaml").open("a") as file:
            file.write(CAMPAIGN)
        (base / "inputs" / "bal_config_few.yaml").write_text(FEW)
        self.archive = SmallArchive(base / "run" / "archive" / "small").write()
        self.programs = tmp_path / "programs"
        self.programs.mkdir()
        for name, version in {"SWarp": "2.41.5", "source-extractor": "2.28.2", "fpack": "1.7.0"}.items():
            self.program(name, f"echo {version}")
        monkeypatch.setenv("PATH", f"{self.programs}:/usr/bin:/bin")
        monkeypatch.setattr(psutil, "virtual_memory", lambda: Memory(64e9, 60e9))
        monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**12, 0, 10**12))

    def program(self, name, script):
        (self.programs / name).write_text(f"#!/bin/sh\n{script}\n")
        (self.programs / name).chmod(0o755)

    def edit(self, file, old, new):
        text = (self.base / file).read_text()
        assert old in text
        (self.base / file).write_text(text.replace(old, new, 1))

    def set(self, where, name, value):
        self.monkeypatch.setattr(where, name, value)

    def forget(self, table, **where):
        assert self.archive.drop(table, **where)
        self.archive.write()

    @property
    def context(self):
        return Installation.load(self.overrides, self.environ).context(TILE)

    def diagnose(self):
        tools.version.cache_clear()
        try:
            return diagnose(self.overrides, [TILE], self.environ)
        finally:
            tools.version.cache_clear()


@pytest.fixture
def clinic(base, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Clinic(base, tmp_path, monkeypatch)


def no_locks(descriptor, kind):
    raise OSError(errno.ENOLCK, "No locks available")


def no_package(name):
    if name == "galsim":
        raise importlib.metadata.PackageNotFoundError(name)
    return "0.1" if name == "numba" else "99"


def needs_login(clinic):
    clinic.edit("etc/campaigns.yaml", "sqlite:///{run}/archive/small/archive.db", "oracle+oracledb://x/dessci")
    clinic.environ["DES_SERVICES"] = str(clinic.tmp_path / "services.ini")


def truncated(clinic):
    file = clinic.archive.file(f"{ONE}_immasked.fits.fz")
    file.write_bytes(file.read_bytes()[:-7])


def no_zero_point(clinic):
    clinic.edit("etc/campaigns.yaml", f"tiles: [{TILE}]", f"tiles: [{TILE}]\n    max_missing_ccds: 0")
    clinic.forget("y3a2_zeropoint", imagename=f"{ONE}_immasked.fits")


def another_tile(clinic):
    for row in clinic.archive.rows["y3a2_coaddtile_geom"]:
        row["tilename"] = "DES2048-5300"
    clinic.archive.write()


def held(clinic):
    run = Run(clinic.context)
    clinic.monkeypatch.setattr(clinic, "end", run.end, raising=False)


# What is broken; subject and level of what is found; what it says; what its remedy says.
BROKEN = {
    "a tool is not installed": (
        *(lambda c: (c.programs / "fpack").unlink() or c.monkeypatch.setenv("PATH", str(c.programs)), "tools"),
        *(Level.PROBLEM, "fpack is not installed", "apt-get install libcfitsio-bin"),
    ),
    "a tool is too old": (
        *(lambda c: c.program("SWarp", "echo 2.19.1"), "tools", Level.PROBLEM),
        *("swarp is version 2.19.1, older than 2.41", "put swarp 2.41 or newer first on PATH"),
    ),
    "a tool does not start": (
        *(lambda c: c.program("source-extractor", "exit 1"), "tools", Level.PROBLEM),
        *("sextractor does not tell its version", "apt-get install source-extractor"),
    ),
    "too little memory": (
        *(lambda c: c.set(psutil, "virtual_memory", lambda: Memory(2e9, 1e9)), "machine", Level.PROBLEM),
        *("2.0 GB of memory", "use a machine that has them"),
    ),
    "memory is taken": (
        *(lambda c: c.set(psutil, "virtual_memory", lambda: Memory(64e9, 1e9)), "machine", Level.WARNING),
        *("1.0 free", "run fewer jobs at a time"),
    ),
    "files may not be large": (
        *(lambda c: c.set(resource, "getrlimit", lambda kind: (10**9, 10**9)), "machine", Level.PROBLEM),
        *("files may not be larger than 1000000000 bytes", "ulimit -f unlimited"),
    ),
    "the disk is full": (
        *(lambda c: c.set(shutil, "disk_usage", lambda path: Usage(10**12, 10**12, 10**7)), "disk", Level.PROBLEM),
        *("TMPDIR", "make room, or set TMPDIR"),
    ),
    "a directory is none": (
        *(lambda c: (c.base / "run" / "meds").write_text("x"), "disk", Level.PROBLEM),
        *("run/meds is not a directory", "set MEDS_DATA to a directory of yours"),
    ),
    "no locks": (
        *(lambda c: c.set(runlock.fcntl, "flock", no_locks), "disk", Level.PROBLEM),
        *("files cannot be locked here: No locks available", "flock"),
    ),
    "a typo in the settings": (
        *(lambda c: c.edit("etc/pipeline.yaml", "seed: 20181105", "sed: 20181105"), "settings", Level.PROBLEM),
        *("unknown key 'sed' in line 8: did you mean 'seed'", "correct its name"),
    ),
    "a tile of no campaign": (
        *(lambda c: c.edit("etc/campaigns.yaml", f"tiles: [{TILE}]", "tiles: []"), "settings", Level.PROBLEM),
        *("no campaign lists this tile", "campaign=NAME"),
    ),
    "a typo in the configuration of a late block": (
        *(lambda c: c.edit("sof-config/run-y3v02-sof.yaml", "global_seed:", "globel_seed:"), "inputs", Level.PROBLEM),
        *("did you mean 'global_seed'", "correct its name"),
    ),
    "a catalogue to inject is gone": (
        *(lambda c: (c.base / "inputs" / "galaxies_exp.fits").unlink(), "inputs", Level.PROBLEM),
        *("galaxies_exp.fits", "restore it"),
    ),
    "a configuration of a program is gone": (
        *(lambda c: (c.base / "etc" / "Y3A2_v2_sex.config").unlink(), "inputs", Level.PROBLEM),
        *("block 2 (catalog) needs a file that is not there", "restore it"),
    ),
    "an earlier block is not done": (
        *(lambda c: c.overrides.update(mode=2), "inputs", Level.PROBLEM),
        *("needs a product that is not there; block 1 makes it", "mode=3"),
    ),
    "no database": (
        *(lambda c: (c.base / "run/archive/small/archive.db").unlink(), "inputs", Level.PROBLEM),
        *("the archive of campaign small is not there", "check `database`"),
    ),
    "the database is none": (
        *(lambda c: (c.base / "run/archive/small/archive.db").write_text("x" * 5000), "database", Level.PROBLEM),
        *("database", ""),
    ),
    "no such tile in the database": (
        *(
            another_tile,
            "database",
            Level.PROBLEM,
            "the archive has no such tile",
            "check the tile name and the campaign",
        ),
    ),
    "no login": (needs_login, "database", Level.PROBLEM, "the services file is not there", "write the section"),
    "a file of the archive is gone": (
        *(lambda c: c.archive.file(f"{ONE}_bkg.fits.fz").unlink(), "archive", Level.PROBLEM),
        *("a file is missing in the archive (tile DES2044-5300, band g", "repair the archive"),
    ),
    "a file of the archive is truncated": (truncated, "archive", Level.PROBLEM, "bytes instead of", "repair"),
    "no record of a file": (
        *(lambda c: c.forget("y3a2_desfile", filename=f"{ONE}_segmap.fits"), "archive", Level.PROBLEM),
        *("the archive has no record of the seg file", "repair the archive's database"),
    ),
    "no PSF model of a CCD": (
        *(lambda c: c.forget("y3a2_desfile", filename=f"{ONE}_psfexcat.psf"), "archive", Level.WARNING),
        *(f"{TILE} g: 1 CCDs are left out, at most 10 may be; {ONE}", "raise max_missing_ccds"),
    ),
    "too many CCDs without a zero point": (
        *(no_zero_point, "archive", Level.PROBLEM, "1 CCDs are left out, at most 0 may be", "repair the archive"),
    ),
    "another run has the tile": (held, "tile", Level.WARNING, "another run has tile", "wait for it, or end it"),
    "a manifest is damaged": (
        *(lambda c: writing_text(c.context.tree.manifest("prep", "g"), "{"), "tile", Level.WARNING),
        *("a manifest cannot be read", "a run makes its step again"),
    ),
}


def bad(findings):
    return [one for one in findings if one.level is not Level.OK]


def test_nothing_is_wrong(clinic):
    before = sorted(clinic.base.rglob("*"))
    found = clinic.diagnose()
    assert bad(found) == []
    subjects = ["settings", "tools", "packages", "machine", "disk", "inputs", "database", "archive", "tile"]
    assert list(dict.fromkeys(one.subject for one in found)) == subjects
    assert not any(one.remedy for one in found)
    assert sorted(clinic.base.rglob("*")) == before


@pytest.mark.parametrize("name", BROKEN)
def test_one_thing_is_broken(clinic, name):
    breaks, subject, level, says, remedy = BROKEN[name]
    breaks(clinic)
    found = bad(clinic.diagnose())
    if hasattr(clinic, "end"):
        clinic.end()
    match = [one for one in found if says in one.what]
    assert match, found
    assert {(one.subject, one.level) for one in match} == {(subject, level)}
    assert all(one.remedy for one in found)
    assert any(remedy in one.remedy for one in match)
    # What is broken may show in several places, and in no others.
    others = {one.what for one in found} - {one.what for one in match}
    assert not others or name in ("the disk is full", "no database", "files may not be large", "no locks"), others


def test_the_table_of_the_documents_says_what_was_seen():
    table = (CHECKOUT / "docs" / "doctor.md").read_text()
    rows = [[cell.strip() for cell in line.split(" | ")] for line in table.splitlines() if line.startswith("| ")][1:]
    found = {row[0].removeprefix("| "): row[1:] for row in rows}
    assert len(rows) == len(found) == len(BROKEN) + 4
    for name, (_, _, level, says, remedy) in BROKEN.items():
        told, message, helps = found[name]
        assert told == level
        assert says in message
        assert remedy in helps


def test_a_disk_without_room_for_the_tile(clinic):
    """Three gigabytes are enough for the tiny tile, and too few when it gets a million injections."""
    clinic.set(shutil, "disk_usage", lambda path: Usage(10**12, 0, 3 * 10**9))
    assert bad(clinic.diagnose()) == []
    clinic.set(doctor, "_INJECTIONS", 10**9)
    (found,) = bad(clinic.diagnose())
    assert (found.subject, found.level) == ("disk", Level.PROBLEM)
    assert "3.0 GB are free" in found.what
    assert found.remedy.startswith("make room")


def test_packages(clinic):
    clinic.monkeypatch.setattr(importlib.metadata, "version", no_package)
    requirements = ["galsim>=2.6", "numba>=0.61", "numpy>=2", "pytest; extra == 'dev'"]
    missing, old, good = doctor._packages(requirements)
    assert (missing.level, missing.what) == (Level.PROBLEM, "Python package galsim is not installed")
    assert (old.level, old.what) == (Level.PROBLEM, "Python package numba is version 0.1, older than 0.61")
    assert (good.level, good.what) == (Level.OK, "1 Python packages are there, new enough")
    assert "make install" in missing.remedy


def test_a_login_that_its_group_may_read_is_warned_of_by_doctor_and_by_a_run(clinic, caplog):
    services = clinic.tmp_path / "services.ini"
    services.write_text("[db-dessci]\nuser = me\npasswd = s3cret\n")

    class WithLogin(Database):
        def __init__(self, *words):
            super().__init__(*words)
            self.login = Login.read(services, "dessci")

    for module in (doctor, prep):
        clinic.set(module, "Database", WithLogin)
    clinic.environ["DES_SERVICES"] = str(services)
    services.chmod(0o640)
    (found,) = bad(clinic.diagnose())
    assert (found.subject, found.level) == ("database", Level.WARNING)
    assert found.what == f"the services file {services} is open to its group (mode 640)"
    assert found.remedy.startswith(f"chmod 600 {services}")
    # Whatever comes after it.
    clinic.set(prep, "_maker", lambda kind: lambda *words: (_ for _ in ()).throw(ArchiveError("enough")))
    with pytest.raises(ArchiveError, match="enough"):
        prep.prep(clinic.context, "g")
    assert found.what in caplog.text
    services.chmod(0o600)
    assert bad(clinic.diagnose()) == []


def test_things_are_said_once(clinic):
    """Two tiles of one campaign share its configuration."""
    clinic.edit("sof-config/run-y3v02-sof.yaml", "global_seed:", "globel_seed:")
    found = diagnose(clinic.overrides, ["DES0239+0216", "DES0240+0216"], clinic.environ)
    assert sum("global_seed" in one.what for one in found) == 1


def test_the_command(command, base):
    refused = command("balrog", "doctor", "DES0239+0216")
    assert refused.returncode == 1
    assert "A run would fail" in refused.stdout
    assert "problem  database" in refused.stdout
    done = command("balrog", "doctor", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert {one["level"] for one in json.loads(done.stdout)} <= {"ok", "warning"}
