"""What a run costs besides its work: `python benchmarks/overhead.py [--archive RUN/archive] [--cores 2] [--one]`.

Makes the embedded tile in a directory of its own and prints where the cores' time went: into the steps' own work;
into orchestration, which is Snakemake, the start and end of processes, reading and writing manifests, and hashing; and
waiting. Hashing and manifests are timed by doing the same again. ``--one`` makes the tile on one core too, for the
speed-up. ``--dry`` does no more than time a dry run of many tiles with one realization, of which nothing is made.

Orchestration is to take at most 10 % of the time of the cores, their CPU at least 80 %, the dry run 30 s.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import psutil
from tabulate import tabulate

from balrogutils.context import Installation
from balrogutils.graph import Job, jobs, needs
from balrogutils.products import read_manifest, records, sha256

_log = logging.getLogger("benchmark")

CHECKOUT = Path(__file__).resolve().parents[1]
CONFIGURATION = ("etc", "desmeds-config", "sof-config", "mof-config", "shr-config", "bfd-config")
TILE = "DES0239+0216"
# Needs no catalogue of stars of each tile.
GALAXIES = "galsim_config=bal_config_exp.yaml"
OVERHEAD, EFFICIENCY, DRY = 0.10, 0.80, 30.0


class Times(NamedTuple):
    """Of one run, in seconds: wall; CPU of everything, of Snakemake's own process."""

    wall: float
    cpu: float
    snakemake: float


def prepare(directory: Path, archive: Path) -> dict[str, str]:
    """Lay out a BALROG_BASE and a directory to run in; return the environment."""
    for name in CONFIGURATION:
        shutil.copytree(CHECKOUT / name, directory / name)
    for name in ("Snakefile", "rules", "profiles", "inputs"):
        (directory / name).symlink_to(CHECKOUT / name)
    (directory / "run").mkdir()
    (directory / "run" / "archive").symlink_to(archive.resolve())
    unset = ("MEDS_DATA", "MEDS_DIR", "medsconf", "NGMIXER_OUTPUT_DIR", "DESDATA", "DESMEDS_CONFIG_DIR", "DES_SERVICES")
    environment = {key: value for key, value in os.environ.items() if key not in unset}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return environment | {"BALROG_BASE": str(directory), "PATH": path}


def run(directory: Path, environment: dict[str, str], *words: str) -> Times:
    """Run Snakemake to its end."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.monotonic()
    own = 0.0
    with (directory / "output").open("w") as output:
        process = psutil.Popen(
            ["snakemake", *words], cwd=directory, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
        while process.poll() is None:
            times = process.cpu_times()
            own = times.user + times.system
            time.sleep(0.1)
    wall = time.monotonic() - started
    if process.returncode != 0:
        raise SystemExit((directory / "output").read_text()[-4000:])
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Times(wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, own)


def before(job: Job) -> Iterator[Job]:
    """Yield every job that a job comes after."""
    found, todo = set(), [job]
    while todo:
        for need in needs(todo.pop())[0]:
            if need not in found:
                found.add(need)
                todo.append(need)
                yield need


def bookkeeping(made: list[Job]) -> tuple[float, float, float, float]:
    """Return the CPU of the steps as they say, of hashing and of manifests, done again; and the bytes hashed."""
    steps = hashing = keeping = size = 0.0
    for job in made:
        manifests = [one.manifest for one in before(job)]
        started = time.process_time()
        records(manifests)
        document = json.dumps(read_manifest(job.manifest), indent=1)
        keeping += time.process_time() - started
        steps += json.loads(document)["cpu_seconds"]
    for file in {job.manifest.parent for job in made}:
        for manifest in file.glob("*.json"):
            document = read_manifest(manifest)
            entries = {one["sha256"]: Path(one["path"]) for one in (*document["inputs"], *document["outputs"])}
            started = time.process_time()
            for path in entries.values():
                if path.is_file():
                    sha256(path)
                    size += path.stat().st_size
            hashing += time.process_time() - started
    return steps, hashing, keeping, size


def tell(times: Times, made: list[Job], cores: int) -> None:
    """Print where the time of the cores went."""
    steps, hashing, keeping, size = bookkeeping(made)
    starts = times.cpu - steps - times.snakemake
    over = times.snakemake + starts + hashing + keeping
    whole = cores * times.wall
    rows = [
        ["steps, without hashing and manifests", steps - hashing - keeping],
        [f"hashing {size / 1e9:.2f} GB", hashing],
        ["reading and writing manifests", keeping],
        ["Snakemake", times.snakemake],
        [f"start and end of {len(made)} jobs", starts],
        ["waiting", whole - times.cpu],
        [f"{cores} cores, {times.wall:.1f} s each", whole],
    ]
    body = [[name, f"{value:.1f}", f"{value / whole:.1%}"] for name, value in rows]
    _log.info(tabulate(body, headers=["", "s", "of the cores"], tablefmt="simple", stralign="right"))
    _log.info("orchestration %.1f s, %.1f %% (at most %.0f %%)", over, 100 * over / whole, 100 * OVERHEAD)
    _log.info("CPU over cores x wall %.2f (at least %.2f)", times.cpu / whole, EFFICIENCY)


def dry_run(directory: Path, environment: dict[str, str], count: int) -> None:
    """Time the dry run of a campaign of which nothing is made."""
    names = [f"DES{2000 + i:04d}-0001" for i in range(count)]
    file = directory / "etc" / "campaigns.yaml"
    text, changed = re.subn(r"tiles: \[DES0239", f"tiles: [{', '.join(names)}, DES0239", file.read_text())
    assert changed == 1
    file.write_text(text)
    words = [*(f"tile={name}" for name in names), "-n", "-q", "rules"]
    times = run(directory, environment, *words, "--config", "realizations=0", GALAXIES)
    text = "dry run of %d tiles with one realization: %.1f s, CPU %.1f s (at most %.0f s)"
    _log.info(text, count, times.wall, times.cpu, DRY)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--archive", type=Path, default=CHECKOUT / "run" / "archive", help="where the embedded one is")
    parser.add_argument("--scratch", type=Path, default=None, help="directory for the products, removed afterwards")
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--tiles", type=int, default=100, help="tiles of the dry run")
    parser.add_argument("--one", action="store_true", help="on one core, too")
    parser.add_argument("--dry", action="store_true", help="the dry run alone")
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE", help="of the run, for example mode=63")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="overhead-", dir=options.scratch) as name:
        directory = Path(name)
        environment = prepare(directory, options.archive)
        walls = []
        for cores in () if options.dry else (options.cores, *([1] if options.one else [])):
            shutil.rmtree(directory / "run" / "meds", ignore_errors=True)
            shutil.rmtree(directory / ".snakemake", ignore_errors=True)
            config = ["--config", *options.settings] if options.settings else []
            times = run(directory, environment, "--cores", str(cores), f"tile={TILE}", *config)
            overrides = dict(one.split("=", 1) for one in options.settings)
            context = Installation.load(overrides, environment).context(TILE)
            tell(times, [job for job in jobs(context) if job.manifest.is_file()], cores)
            walls.append(times.wall)
        if len(walls) == 2:
            _log.info("speed-up of %d cores %.2f", options.cores, walls[1] / walls[0])
        dry_run(directory, environment, options.tiles)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("balrogutils").setLevel(logging.WARNING)
    main()
