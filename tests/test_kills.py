"""Runs that are killed, in every block: the same command again makes what an undisturbed run makes."""

import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import psutil
import pytest
from conftest import REAL_TILE as TILE
from conftest import fit_exponentials
from identical import differences, same

from balrogutils.products import read_manifest

pytestmark = pytest.mark.long

_log = logging.getLogger(__name__)

WORDS = ("snakemake", "--cores", "2", f"tile={TILE}", "--config", "realizations=0", "mode=1023")
# The block a step is of in the base run and in a realization.
BLOCKS = {"prep": (1, 0), "coadd": (2, 16), "catalog": (2, 16), "meds": (4, 32), "match": (0, 1024)}
BLOCKS |= {"sof": (64, 64), "mof": (128, 128), "mcal": (256, 256), "bfd": (512, 512), "report": (1024, 0)}
BLOCKS |= dict.fromkeys(("plan", "inject", "truth"), (0, 8))
# Seconds after which a run counts as hanging; one that makes everything takes two minutes on a machine of its own.
PATIENCE = 600
# Seconds for everything of a killed run to be gone: a process that was just being started notices when Python runs, and
# on a busy machine that takes a while.
GONE = 20
WORKER, TERM_WORKER, SHELL, POOL = "SIGKILL worker", "SIGTERM worker", "SIGKILL shell", "SIGKILL fitting process"
RUN, TERM_RUN = "SIGKILL snakemake", "SIGTERM snakemake"
# What is to happen in each block, in this order.
PLANNED = {
    1: [WORKER, RUN],
    2: [WORKER, RUN, TERM_RUN],
    4: [WORKER, RUN, SHELL],
    8: [WORKER, RUN],
    16: [TERM_WORKER, WORKER, RUN],
    32: [WORKER, RUN],
    64: [POOL, TERM_WORKER, WORKER, RUN],
    128: [POOL, TERM_WORKER, WORKER, RUN],
    256: [POOL, WORKER, RUN],
    512: [POOL, WORKER, RUN],
}
# To keep a job of the block for the next run, when this one cannot suffer what is planned.
AGAIN = "SIGKILL worker again"
# Seconds after the beginning of a step, in turn. Steps that take less than a second are left alone.
DELAYS = (0.0, 0.15, 0.4, 0.7)
LONG = re.compile(r"prep|coadd_(?!det)|meds|inject|sof|mof|mcal|bfd")


def wait_until(condition, seconds, what):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.01)


@dataclass(frozen=True)
class Worker:
    """The process of one job."""

    process: psutil.Process
    log: Path

    @property
    def step(self):
        return self.name.split("_")[0]

    @property
    def block(self):
        return BLOCKS[self.step]["balrog_images" in self.log.parts]

    @property
    def manifest(self):
        return self.log.parents[1] / "manifests" / f"{self.log.stem}.json"

    @property
    def name(self):
        return self.log.stem.removeprefix(f"{TILE}_")

    def begun(self):
        """Whether its log says that its step has begun; an earlier job's log may still be there."""
        if not self.log.is_file():
            return False
        found = re.search(rf"^(.{{19}}) INFO {self.step} starts: ", self.log.read_text(), re.MULTILINE)
        return found is not None and datetime.fromisoformat(found[1]).timestamp() >= int(self.process.create_time())

    def works(self):
        """Whether it is in the middle of its step."""
        return alive(self.process) and not self.manifest.exists()


def pool_of(worker):
    """The processes that fit for a worker."""
    try:
        return [child for child in worker.process.children() if "spawn_main" in " ".join(child.cmdline())]
    except psutil.NoSuchProcess:
        return []


@contextmanager
def stopped(workers):
    """Have workers stand still."""
    for worker in workers:
        with suppress(psutil.NoSuchProcess):
            worker.process.suspend()
    try:
        yield
    finally:
        for worker in workers:
            with suppress(psutil.NoSuchProcess):
                worker.process.resume()


def alive(process):
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@dataclass
class Tile:
    """The tile's runs: the processes that work in its MEDS_DATA, their logs, what is still to be killed."""

    terminal: dict
    meds_data: Path
    planned: dict = field(default_factory=lambda: {block: list(kinds) for block, kinds in PLANNED.items()})
    done: list = field(default_factory=list)
    tries: int = 0
    runs: int = 0

    def processes(self):
        """Every living process of this tile's runs, and of no other."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("MEDS_DATA") == str(self.meds_data) and alive(process):
                    found.append(process)
            except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
                continue
        return found

    def workers(self):
        found = {}
        for process in self.processes():
            try:
                words, parent = process.cmdline(), process.ppid()
            except psutil.NoSuchProcess:
                continue
            if len(words) > 2 and "python" in Path(words[0]).name and Path(words[1]).name == "balrog":
                found[process.pid] = parent, Worker(process, Path(words[words.index("--log") + 1]))
        # A child that is not its program yet looks like its parent, which waits for it: stopping it would stop both.
        return [worker for parent, worker in found.values() if parent not in found]

    def start(self, *words, **environment):
        """Start a command, with its output in a file."""
        self.output = self.terminal["cwd"] / "output"
        env = self.terminal["env"] | {"MEDS_DATA": str(self.meds_data)} | environment
        with self.output.open("w") as stream:
            return subprocess.Popen(
                words, cwd=self.terminal["cwd"], env=env, stdout=stream, stderr=subprocess.STDOUT, text=True
            )

    def finish(self, run):
        """Wait for the end of a run, and of everything it started; return its status."""
        status = run.wait(PATIENCE)
        wait_until(lambda: not self.processes(), GONE, f"alive after the run: {self.processes()}")
        return status

    def disturb(self, shell):
        """Run the command, and kill what is planned in the middle of the steps of this run.

        A run goes on after its workers are killed, and others may be; it ends with Snakemake. Every other run fits
        with one process, which changes nothing, unless one of several is to be killed.

        Returns
        -------
        int
            Status of the run.
        """
        # Bash becomes its last command, so there is none to kill; an older one stays.
        shelled = any(kinds[:1] == [SHELL] for kinds in self.planned.values())
        pooled = any(kinds[:1] == [POOL] for kinds in self.planned.values())
        self.runs += 1
        words = (*WORDS, f"fit_workers={2 if pooled or self.runs % 2 else 1}")
        run = self.start(*words, **({"PATH": f"{shell}{os.pathsep}{self.terminal['env']['PATH']}"} if shelled else {}))
        struck, killed, tried = False, [], set()
        deadline = time.monotonic() + PATIENCE
        while run.poll() is None:
            assert time.monotonic() < deadline, self.output.read_text()
            ready = [
                worker
                for worker in self.workers()
                if self.planned.get(worker.block)
                and worker.process not in tried
                and LONG.match(worker.name)
                and worker.begun()
            ]
            if ready:
                worker, *others = ready
                kinds = self.planned[worker.block]
                kind = kinds[0]
                tried.add(worker.process)
                if (kind == RUN and killed) or (kind == SHELL and not shelled):
                    if any(one.block == worker.block for one, _ in killed):
                        continue
                    kind = AGAIN
                # None of them is to be done before its turn.
                with stopped(others):
                    time.sleep(DELAYS[self.tries % len(DELAYS)])
                    working = worker.works()
                    hit = working and kind not in (RUN, TERM_RUN) and self.kill(kind, worker)
                if working and kind in (RUN, TERM_RUN):
                    struck = True
                    hit = self.kill_run(kind, worker, run)
                self.tries += 1
                if hit:
                    killed.append((worker, kind))
                    if kind != AGAIN:
                        kinds.pop(0)
            time.sleep(0.02)
        status = self.finish(run)
        assert (status != 0) == bool(struck or killed), self.output.read_text()
        if any(kind == TERM_RUN for _, kind in killed):
            assert "Will exit after finishing currently running jobs" in self.output.read_text()
        for worker, kind in killed:
            assert worker.manifest.exists() == (kind == TERM_RUN)
            self.done.append((worker.block, worker.name, kind, status))
            _log.info("block %d, %s: %s, status %d", *self.done[-1])
        return status

    def kill_run(self, kind, worker, run):
        """Kill Snakemake in the middle of a worker's step; whether it still was."""
        if kind == TERM_RUN:
            # It lets its jobs finish, and starts no other.
            run.send_signal(signal.SIGTERM)
            return True
        run.kill()
        wait_until(lambda: not self.processes(), GONE, f"alive after SIGKILL of Snakemake: {self.processes()}")
        return not worker.manifest.exists()

    def kill(self, kind, worker):
        """Kill a worker, its shell or one of its processes in the middle of its step; whether it still was."""
        patience = 30.0 if kind == POOL else GONE
        # One that is done by now is told by its manifest.
        with suppress(psutil.NoSuchProcess):
            if kind == SHELL:
                between = worker.process.parent()
                assert Path(between.exe()).name == "bash"
                between.kill()
            elif kind == POOL:
                wait_until(lambda: pool_of(worker) or not alive(worker.process), 60.0, "the fits have no processes")
                for child in pool_of(worker)[:1]:
                    child.kill()
            elif kind == TERM_WORKER:
                worker.process.terminate()
            else:
                worker.process.kill()
        wait_until(lambda: not alive(worker.process), patience, f"{worker.name} lives after {kind}")
        if kind == TERM_WORKER:
            assert not list(self.meds_data.rglob(f".part-{worker.process.pid}-*"))
        return not worker.manifest.exists()


def products(reference, meds_data, block):
    """The products of a block of the undisturbed run, and where the other has them; None when the block is not done."""
    found = {}
    for manifest in reference.rglob("manifests/*.json"):
        step = read_manifest(manifest)["step"]
        # The manifest of a chunk of fits belongs to its fits.
        if step.endswith(" chunk") or BLOCKS[step]["balrog_images" in manifest.parts] != block:
            continue
        if not (meds_data / manifest.relative_to(reference)).is_file():
            return None
        for one in read_manifest(manifest)["outputs"]:
            found[reference / Path(one["path"]).relative_to(meds_data)] = Path(one["path"])
    assert found
    return found


def take_away(meds_data, block):
    """Have the long steps of a block to be made again."""
    for manifest in list(meds_data.rglob("manifests/*.json")):
        name = manifest.stem.removeprefix(f"{TILE}_")
        if LONG.match(name) and BLOCKS[re.split("[_-]", name)[0]]["balrog_images" in manifest.parts] == block:
            for one in read_manifest(manifest)["outputs"]:
                Path(one["path"]).unlink(missing_ok=True)
            manifest.unlink()


@pytest.fixture
def tile(base, terminal):
    """The real tile; nothing of its runs outlives a test."""
    made = Tile(terminal, base / "run" / "meds")
    yield made
    for process in made.processes():
        process.kill()


@pytest.fixture
def shell(tmp_path):
    """A directory for PATH with a ``balrog`` that keeps a shell between Snakemake and its job."""
    path = tmp_path / "shell" / "balrog"
    path.parent.mkdir()
    path.write_text(f'#!/bin/bash\n"{Path(sys.executable).parent}/balrog" "$@"\nexit $?\n')
    path.chmod(0o755)
    return path.parent


@pytest.mark.slowest
def test_a_killed_run_is_finished_by_the_same_command(archive, base, terminal, tile, shell, tmp_path):
    # Several chunks a fit, so that a killed one is taken up where it was.
    shapes = base / "shr-config" / "run-all-mcal.yaml"
    shapes.write_text(shapes.read_text().replace("bands: from_tile", "bands: [r], chunksize: 10"))
    for kind, size in (("sof", 10), ("mof", 3), ("bfd", 10)):
        config = base / f"{kind}-config" / f"run-y3v02-{kind}.yaml"
        text, changed = re.subn(r"chunksize: *\d+", f"chunksize: {size}", config.read_text())
        assert changed == 1
        config.write_text(text)
    fit_exponentials(base, "mof")
    meds_data, reference = tile.meds_data, base / "undisturbed"
    # One process a fit here, one or two in the runs that are killed: the products are the same.
    assert tile.finish(tile.start(*WORDS, "fit_workers=1")) == 0, tile.output.read_text()
    shutil.move(meds_data, reference)
    shutil.rmtree(terminal["cwd"] / ".snakemake")

    todo = set(PLANNED)
    for _ in range(40):
        status = tile.disturb(shell)
        for block in sorted(todo):
            made = products(reference, meds_data, block)
            if made is not None and not tile.planned[block]:
                assert [str(path) for old, path in made.items() if not same(old, path)] == []
                _log.info("block %d is complete and identical", block)
                todo.remove(block)
        if status == 0:
            if not todo:
                break
            # On a machine that made all of it before everything planned had struck.
            for block in todo:
                _log.info("block %d is to be made again: %s is left", block, tile.planned[block])
                take_away(meds_data, block)
    assert [kinds for kinds in tile.planned.values() if kinds] == []
    assert todo == set()
    assert status == 0
    counted = [(block, kind) for block, _, kind, _ in tile.done if kind != AGAIN]
    assert sorted(counted) == sorted((block, kind) for block, kinds in PLANNED.items() for kind in kinds)
    assert all(status == -signal.SIGKILL for _, _, kind, status in tile.done if kind == RUN)
    assert all(status == 1 for _, _, kind, status in tile.done if kind != RUN)

    assert differences(reference, meds_data) == []
    assert tile.finish(tile.start(*WORDS)) == 0
    assert "Nothing to be done" in tile.output.read_text()
    assert list(base.rglob(".part-*")) == []
    assert list(tmp_path.glob("balrog-*")) == []


ORPHAN = """
import fcntl, sys
stream = open(sys.argv[1], "a")
fcntl.flock(stream, fcntl.LOCK_SH)
print("ready", flush=True)
sys.stdin.read()
"""


def listing(directory):
    return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in directory.rglob("*")}


def test_two_runs_of_one_tile(archive, tile, command):
    meds_data = tile.meds_data
    logs = meds_data / "y3v02" / TILE / "logs"
    logs.mkdir(parents=True)
    words = ("snakemake", "--cores", "1", f"tile={TILE}", "--config", "mode=1")
    orphan = subprocess.Popen(
        [sys.executable, "-c", ORPHAN, str(logs / f"{TILE}_jobs.lock")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with orphan:
        assert orphan.stdout.readline() == "ready\n"
        first = tile.start(*words)
        told = f"waiting for jobs of an earlier run to end: process {orphan.pid}"
        wait_until(lambda: told in tile.output.read_text(), 60.0, "nothing is said of the orphan")
        assert tile.workers() == []
    wait_until(lambda: any(worker.begun() for worker in tile.workers()), 60.0, "no job has begun")

    # Stopped, so that every change is the others'.
    stopped = tile.processes()
    assert first.pid in [process.pid for process in stopped]
    assert tile.workers()
    for process in stopped:
        process.suspend()
    try:
        before = listing(meds_data)
        second = command(*words)
        assert second.returncode == 2
        told = f"another run has this tile: process {first.pid} on {socket.gethostname()} since 20"
        assert told in second.stderr
        assert " ".join(words) in second.stderr
        assert "Traceback" not in second.stderr
        coadd = command("balrog", "coadd", TILE, "--band", "g")
        assert coadd.returncode == 2
        assert told in coadd.stderr
        dry = command(*words, "-n")
        assert dry.returncode == 0, dry.stderr
        assert listing(meds_data) == before
        # Another tile is nobody's: that it lacks block 1 is all that keeps the command from its work.
        other = command("balrog", "coadd", "DES0239+0216", "--band", "g")
        assert other.returncode == 1
        assert "another run" not in other.stderr
        assert "DES0239+0216_geometry.json" in other.stderr
    finally:
        for process in stopped:
            process.resume()
    assert tile.finish(first) == 0, tile.output.read_text()
    assert "Nothing to be done" in command(*words).stderr
