"""A small synthetic tile with one realization, all blocks made, on small disks: what faults are tried on."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

from conftest import CHECKOUT, CONFIGURATION
from identical import same

from balrogutils.archive.shared import SharedFiles
from balrogutils.context import Installation
from balrogutils.graph import jobs
from balrogutils.products import read_manifest
from balrogutils.survey.tiny import tiny_survey

__all__ = ["TILE", "ChaosTile"]

TILE = "DES0239+0216"
SETTINGS = ("mode=2047", "realizations=0", "fit_workers=1")
HOOK = Path(__file__).parent / "hook"
_FILLER = ".filler"
_UNSET = ("MEDS_DATA", "MEDS_DIR", "medsconf", "NGMIXER_OUTPUT_DIR", "DESDATA", "DESMEDS_CONFIG_DIR", "DES_SERVICES")
_COMMAND = re.compile(r"^(?:Shell command:)? *(balrog \w+ .*)$", re.MULTILINE)
# No products: what they say may differ, and what is begun.
_ASIDE = re.compile(r"(^|/)(manifests|logs|LOGS)/|(^|/)\.(part|fetch|filler)|\.(log|lock|refused)$")


class ChaosTile:
    """The tile, its disks for data, scratch and Snakemake's records, and the state it is brought back to.

    Parameters
    ----------
    directory : Path
        Everything lies below it. One that was used before has its tile made.
    """

    def __init__(self, directory):
        self.base, self.kept = directory / "base dir", directory / "kept"
        self.data, self.scratch, self.records = self.base / "run" / "meds", directory / "tmp", directory / "work"
        self.state = self.records / ".snakemake"
        self.disks = {self.data: "600m", self.scratch: "64m", self.state: "16m"}
        env = {key: value for key, value in os.environ.items() if key not in _UNSET}
        env |= {"BALROG_BASE": str(self.base), "TMPDIR": str(self.scratch)}
        self.env = env | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"}

    def _configure(self):
        for name in CONFIGURATION:
            shutil.copytree(CHECKOUT / name, self.base / name, ignore=shutil.ignore_patterns("decam*", "images"))
        (self.base / "run" / "archive").mkdir(parents=True)
        self.records.mkdir()
        for name in ("Snakefile", "rules", "profiles"):
            (self.records / name).symlink_to(CHECKOUT / name)
        few = tiny_survey().population.model_dump() | {"stars": 16.0, "galaxies": 5.0}
        survey = tiny_survey("gr", coadds={"det": ["r"]}, population=few).model_dump(mode="json")
        (self.base / "etc" / "survey.yaml").write_text(json.dumps(survey))
        self._edit("etc/campaigns.yaml", r"bands: \[g, r, i, z\]\n    det: \[r, z, i\]", "bands: [g, r]\n    det: [r]")
        # Several chunks, and models that cost little.
        for kind, size in (("sof", 10), ("mof", 3), ("bfd", 10)):
            self._edit(f"{kind}-config/run-y3v02-{kind}.yaml", r"chunksize: *\d+", f"chunksize: {size}")
        for kind in ("sof", "mof"):
            self._edit(f"{kind}-config/run-y3v02-{kind}.yaml", r"model: cm\b", "model: exp")
        self._edit("shr-config/run-all-mcal.yaml", "bands: from_tile", "bands: [r], chunksize: 10")

    def _edit(self, file, old, new):
        path = self.base / file
        text, count = re.subn(old, new, path.read_text())
        assert count, (file, old)
        path.write_text(text)

    def __enter__(self):
        new = not self.kept.is_dir()
        if new:
            self._configure()
        for place, size in self.disks.items():
            place.mkdir(parents=True, exist_ok=True)
            # Needs root, or a namespace of one's own: unshare --map-root-user --mount.
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(place)], check=True)
        if new:
            self._make()
        else:
            _copy(self.kept, self.data)
        settings = dict(one.split("=") for one in SETTINGS)
        context = Installation.load(settings, {"BALROG_BASE": str(self.base)}).context(TILE)
        self.jobs = {(job.step, job.band, job.context.realization): job for job in jobs(context)}
        shown = self.run(f"tile={TILE}", "-n", "-p", "--forceall").stdout
        words = {line: shlex.split(line) for line in _COMMAND.findall(shown)}
        self._lines = {found[found.index("--log") + 1]: line for line, found in words.items()}
        return self

    def _make(self):
        done = self.command("balrog", "archive", "synthetic", "--workers", "2")
        assert done.returncode == 0, done.stdout
        done = self.command(*_words(f"tile={TILE}"), patience=3600)
        assert done.returncode == 0, done.stdout
        _copy(self.data, self.kept)

    def __exit__(self, *_):
        for place in self.disks:
            subprocess.run(["umount", "-l", str(place)], check=False)

    def command(self, *words, patience=900, **environment):
        """Run a command line as a user types it; what it says on either stream is its ``stdout``."""
        return subprocess.run(
            words,
            cwd=self.records,
            env=self.env | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=patience,
            check=False,
        )

    def run(self, target, *words, chaos=None):
        """Run Snakemake, with a fault in its jobs."""
        return self.command(*_words(target, *words), **_with(chaos))

    def work(self, job, chaos=None):
        """Run a job as Snakemake does, with a fault in it."""
        line = self._lines[str(job.context.tree.log(job.step, job.band))]
        return self.command("bash", "-c", line, **_with(chaos))

    def outputs(self, job):
        """The products of a job that no other job claims too."""
        claims = [Path(one["path"]) for one in read_manifest(self.before(job.manifest))["outputs"]]
        others = [other for other in self.jobs.values() if other is not job]
        shared = {one["path"] for other in others for one in read_manifest(self.before(other.manifest))["outputs"]}
        return [path for path in claims if str(path) not in shared]

    def before(self, path):
        """Where the file that lies here, or lay here, is kept."""
        return self.kept / path.relative_to(self.data)

    def unmake(self, job):
        """Have a job to be done: without its manifest and products, and without chunks of its fits."""
        job.manifest.unlink()
        for path in self.outputs(job):
            path.unlink()
        if job.step == "prep":
            # What is there for all tiles would not be fetched again.
            SharedFiles(job.context.site.shared).tidy()
        for manifest in job.manifest.parent.glob(f"{TILE}_{job.step}-chunk*.json"):
            for one in read_manifest(manifest)["outputs"]:
                Path(one["path"]).unlink(missing_ok=True)
            manifest.unlink()

    def date(self, seconds):
        """Have all that was done be done so many seconds from now."""
        there = time.time() + seconds
        for manifest in self.data.rglob("manifests/*.json"):
            os.utime(manifest, (there, there))

    def forget(self):
        """Remove Snakemake's records; a full disk has room for those that are written over."""
        shutil.rmtree(self.state, ignore_errors=True)

    def _changed(self):
        """Names of products that are not the very files that were left."""
        names = {
            path.relative_to(root)
            for root in (self.kept, self.data)
            for path in root.rglob("*")
            if path.is_file() and not _ASIDE.search(str(path.relative_to(root)))
        }
        return [name for name in names if _state(self.kept / name) != _state(self.data / name)]

    def wrong(self):
        """Products that are there and are not those of the undisturbed run."""
        there = [(name, self.kept / name, self.data / name) for name in self._changed() if (self.data / name).exists()]
        return [str(name) for name, kept, path in there if not (kept.exists() and same(kept, path))]

    def missing(self):
        """Products of the undisturbed run that are not there."""
        return [str(name) for name in self._changed() if not (self.data / name).exists()]

    def unfinished(self):
        """What was left half done; a run of Snakemake removes it, a job by itself does not."""
        return [str(path) for path in self.data.rglob(".part-*")]

    def restore(self):
        """Bring everything back to where it was, with its times and its other names."""
        for path in sorted(self.data.rglob("*"), reverse=True):
            kept = self.kept / path.relative_to(self.data)
            if path.is_file() and _state(kept) != _state(path):
                path.unlink()
        files = {}
        for kept in sorted(self.kept.rglob("*")):
            if kept.is_file():
                files.setdefault(kept.stat().st_ino, []).append(kept)
        for names in files.values():
            first, *others = (self.data / kept.relative_to(self.kept) for kept in names)
            if not first.exists():
                first.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(names[0], first)
            for path in others:
                if not (path.exists() and path.samefile(first)):
                    path.unlink(missing_ok=True)
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.hardlink_to(first)

    @contextmanager
    def full(self, place, room):
        """Leave so many bytes on a disk."""
        filler = place / _FILLER
        with filler.open("wb") as stream:
            free = shutil.disk_usage(place).free - room
            if free > 0:
                os.posix_fallocate(stream.fileno(), 0, free)
        try:
            yield
        finally:
            filler.unlink()


def _words(target, *words):
    return "snakemake", "--cores", "2", str(target), *words, "--config", *SETTINGS


def _copy(source, target):
    """Copy a directory with its times and its hard links."""
    target.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cp", "-a", f"{source}/.", str(target)], check=True)


def _with(chaos):
    path = os.pathsep.join(filter(None, [str(HOOK), os.environ.get("PYTHONPATH")]))
    return {} if chaos is None else {"CHAOS": chaos, "PYTHONPATH": path}


def _state(path):
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_size, status.st_mtime_ns
