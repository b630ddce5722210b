"""One run of a tile at a time: locks, jobs of a run that is gone, and what killed jobs leave."""

import errno
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from functools import partial

import psutil
import pytest

from balrogutils import runlock
from balrogutils.cli import signals, workflow
from balrogutils.context import Installation
from balrogutils.errors import ConfigError, InputError, ProductError
from balrogutils.runlock import TOKEN, RunLock, die_with_parent, join_run
from balrogutils.scratch import remove_abandoned, scratch
from balrogutils.upkeep.leftovers import remove_leftovers

TILE, OTHER = "DES0239+0216", "DES0240+0216"


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(runlock, "_PATIENCE", 0.3)
    monkeypatch.setattr(runlock, "_JOBS_PATIENCE", 0.5)
    monkeypatch.setattr(runlock, "_joined", [])
    monkeypatch.delenv(TOKEN, raising=False)


@pytest.fixture
def locks(tmp_path):
    """Hand out objects that stand for processes: each opens the tile's lock files itself."""
    made = []

    def make(tile=TILE):
        made.append(RunLock(tmp_path / "logs" / f"{tile}_run.lock", tmp_path / "logs" / f"{tile}_jobs.lock", tile))
        return made[-1]

    yield make
    for lock in made:
        lock.release()


@pytest.fixture
def process():
    """Start processes that tell when they are ready, and end them."""
    started = []

    def start(*words, **environment):
        env = os.environ | environment
        started.append(subprocess.Popen(words, env=env, stdout=subprocess.PIPE, text=True))
        assert started[-1].stdout.readline() == "ready\n"
        return started[-1]

    yield start
    for one in started:
        one.kill()
        one.wait()
        one.stdout.close()


JOB = """
import sys, time
from pathlib import Path
from balrogutils.runlock import RunLock, join_run
join_run(RunLock(Path(sys.argv[1]), Path(sys.argv[2]), "a tile"))
print("ready", flush=True)
time.sleep(60)
"""
# It holds the lock of a job and heeds nothing: a job on a machine that hangs.
DEAF = """
import fcntl, sys, time
stream = open(sys.argv[1], "a")
fcntl.flock(stream, fcntl.LOCK_SH)
print("ready", flush=True)
time.sleep(float(sys.argv[2]))
"""


def job_of(process, lock, token):
    return process(sys.executable, "-c", JOB, str(lock.run), str(lock.jobs), **{TOKEN: token})


def test_the_second_run_hears_who_has_the_tile(locks, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/some/where/snakemake", "--cores", "2", f"tile={TILE}"])
    first, second = locks(), locks()
    token = first.hold()
    before = first.run.read_bytes()
    with pytest.raises(InputError) as refusal:
        second.hold()
    text = str(refusal.value)
    for part in (TILE, f"process {os.getpid()} on {socket.gethostname()} since 20", f"snakemake --cores 2 tile={TILE}"):
        assert part in text
    assert first.run.read_bytes() == before
    first.release()
    assert second.hold() != token


def test_a_module_is_called_by_the_name_of_its_program(locks, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/site-packages/snakemake/__main__.py", "--cores", "2"])
    lock = locks()
    lock.hold()
    assert json.loads(lock.run.read_text())["command"] == "snakemake --cores 2"


def test_tiles_do_not_stand_in_each_others_way(locks):
    token = locks().hold()
    assert locks(OTHER).hold(token) == token


def test_a_block_of_code_holds_the_tile_as_long_as_it_lasts(locks):
    with locks(), pytest.raises(InputError, match="another run has this tile"):
        locks().hold()
    with locks():
        pass


def test_commands_by_themselves_go_side_by_side_and_never_with_a_run(locks):
    one, two, run = locks(), locks(), locks()
    join_run(one)
    join_run(two)
    with pytest.raises(InputError, match=f"process {os.getpid()} of this machine: .*python"):
        run.hold()
    one.release()
    two.release()
    run.hold()
    with pytest.raises(InputError, match=f"another run has this tile: process {os.getpid()} on "):
        join_run(one)
    run.release()
    join_run(one)


def test_a_job_ends_with_its_run(locks, process):
    run = locks()
    job = job_of(process, run, run.hold())
    # Its run holds the tile: it works on.
    with pytest.raises(subprocess.TimeoutExpired):
        job.wait(0.5)
    run.release()
    assert job.wait(2) == -signal.SIGKILL


def test_a_job_that_missed_the_end_of_its_run_ends_before_the_next_starts(locks, process, caplog):
    run = locks()
    job = job_of(process, run, run.hold())
    # The next run was quicker than the job: the job waits for a lock that the next run has by now.
    run._fence(fcntl.LOCK_EX)
    assert job.wait(2) == -signal.SIGKILL
    assert f"waiting for jobs of an earlier run to end: process {job.pid}" in caplog.text
    # It has the tile for itself again.
    with pytest.raises(InputError, match="another run"):
        join_run(locks())


def test_a_run_waits_for_an_orphan_that_does_not_end_and_then_refuses(locks, process, caplog):
    lock = locks()
    lock.hold()
    lock.release()
    orphan = process(sys.executable, "-c", DEAF, str(lock.jobs), "60")
    with pytest.raises(InputError) as refusal:
        locks().hold()
    assert f"jobs of an earlier run are still alive: process {orphan.pid} (tile {TILE})" in str(refusal.value)
    assert refusal.value.remedy
    assert f"{TILE}: waiting for jobs of an earlier run to end: process {orphan.pid}" in caplog.text
    # A command by itself must not write beside it either.
    with pytest.raises(InputError, match=f"still alive: process {orphan.pid}"):
        join_run(locks())
    orphan.kill()
    orphan.wait()
    locks().hold()


def test_a_run_goes_on_when_the_orphan_has_ended(locks, process, monkeypatch):
    monkeypatch.setattr(runlock, "_JOBS_PATIENCE", 20.0)
    lock = locks()
    lock.hold()
    lock.release()
    orphan = process(sys.executable, "-c", DEAF, str(lock.jobs), "1")
    started = time.monotonic()
    lock.hold()
    assert time.monotonic() > started + 0.5
    assert orphan.wait(2) == 0
    with pytest.raises(InputError, match="another run"):
        join_run(locks())


STEPS = ("prep", "coadd", "detect", "meds", "inject", "sof", "match", "report")
ALL_STEPS = """
import sys
from click.testing import CliRunner
from balrogutils.cli.main import main
for step in sys.argv[2:]:
    done = CliRunner().invoke(main, [step, sys.argv[1]])
    print(step, done.exit_code, done.output.replace(chr(10), " "))
"""


def test_jobs_of_another_run_write_nothing(base, command):
    tree = Installation.load(environ={"BALROG_BASE": str(base)}).context(TILE).tree
    lock = RunLock(tree.run_lock, tree.jobs_lock, TILE)
    lock.hold()
    (tree.dir / "manifests").mkdir()
    tree.manifest("sof").write_text("{}")
    before = {path: path.stat().st_mtime_ns for path in base.rglob("*")}
    done = command(sys.executable, "-c", ALL_STEPS, TILE, *STEPS, **{TOKEN: "0123456789abcdef"})
    lines = done.stdout.splitlines()
    assert len(lines) == len(STEPS), done.stderr
    for step, line in zip(STEPS, lines, strict=True):
        assert line.startswith(f"{step} 1 ")
        assert "the run that started this job is gone; another has the tile" in line
    assert {path: path.stat().st_mtime_ns for path in base.rglob("*")} == before
    lock.release()


@pytest.mark.parametrize(("host", "remedy"), [(None, None), ("elsewhere", "localflock")])
def test_a_job_whose_run_does_not_hold_the_tile_says_so(locks, command, base, host, remedy):
    tree = Installation.load(environ={"BALROG_BASE": str(base)}).context(TILE).tree
    lock = RunLock(tree.run_lock, tree.jobs_lock, TILE)
    token = lock.hold()
    lock.release()
    about = json.loads(tree.run_lock.read_text())
    tree.run_lock.write_text(json.dumps(about | {"host": host or about["host"]}))
    done = command("balrog", "coadd", TILE, **{TOKEN: token})
    assert done.returncode == 1
    assert "the run that started this job does not hold the tile" in done.stderr
    assert ("remedy" in done.stderr) == (remedy is not None)
    assert (remedy or "") in done.stderr


def test_a_file_system_without_locks_is_told(locks, monkeypatch):
    def flock(descriptor, kind):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", flock)
    for take in (locks().hold, partial(join_run, locks())):
        with pytest.raises(ConfigError, match="files cannot be locked here: Function not implemented") as refusal:
            take()
        assert refusal.value.where["key"] == "MEDS_DATA"
        assert "flock" in refusal.value.remedy


def test_a_lock_that_cannot_be_made_is_told(locks):
    lock = locks()
    lock.run.mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"cannot be opened: Is a directory.*_run\.lock"):
        lock.hold()
    shutil.rmtree(lock.run.parent)
    lock.run.parent.touch()
    with pytest.raises(ConfigError, match="cannot be opened"):
        join_run(lock)


def gone(pid):
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def wait_until(condition, seconds=5.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_program_ends_with_the_process_that_started_it(tmp_path, process):
    text = """
import os, subprocess, sys, time
from functools import partial
from balrogutils.runlock import die_with_parent
child = subprocess.Popen(["sleep", "60"], preexec_fn=partial(die_with_parent, os.getpid()))
open(sys.argv[1], "w").write(str(child.pid))
print("ready", flush=True)
time.sleep(60)
"""
    parent = process(sys.executable, "-c", text, str(tmp_path / "pid"))
    child = int((tmp_path / "pid").read_text())
    assert not gone(child)
    parent.kill()
    parent.wait()
    wait_until(partial(gone, child), 2.0)


def test_a_program_whose_parent_is_gone_already_does_not_start():
    child = subprocess.Popen(["sleep", "60"], preexec_fn=partial(die_with_parent, os.getpid() + 1))
    assert child.wait(5) == -signal.SIGKILL


def test_fits_that_are_told_to_end_do_not_wait_for_their_chunks(process):
    text = """
import signal, sys, time
from balrogutils.measurement import chunks
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
chunks.run_chunk = time.sleep
print("ready", flush=True)
list(chunks._results([60, 60, 60], 2))
"""
    fits = process(sys.executable, "-c", text)
    told = psutil.Process(fits.pid)
    wait_until(lambda: sum("spawn_main" in " ".join(child.cmdline()) for child in told.children()) == 2, 20.0)
    pool = told.children()
    fits.terminate()
    assert fits.wait(5) == 143
    wait_until(lambda: all(gone(child.pid) for child in pool), 2.0)


def test_a_full_disk_at_the_start_of_a_run_is_told(base, monkeypatch, capsys):
    def full(context):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setenv("BALROG_BASE", str(base))
    for name in ("MEDS_DATA", "MEDS_DIR", "TMPDIR"):
        monkeypatch.delenv(name, raising=False)
    run = workflow.open_run({"mode": 1}, [f"tile={TILE}"])
    monkeypatch.setattr(workflow, "remove_leftovers", full)
    with pytest.raises(SystemExit) as end:
        run.start()
    assert end.value.code == 1
    assert "the machine refuses: No space left on device" in capsys.readouterr().err
    assert TOKEN not in os.environ


def test_snakemake_hears_sigterm_whatever_it_is_at(monkeypatch):
    # As Snakemake's scheduler: the handler takes a lock that the code it interrupts holds at times.
    lock, told, ended = threading.Lock(), threading.Event(), threading.Event()
    monkeypatch.setattr(signals, "_end_fits", ended.set)

    def handler(*_):
        assert lock.acquire(timeout=10)
        told.set()
        lock.release()

    before = signal.signal(signal.SIGTERM, handler)
    try:
        signals.relay_sigterm()
        with lock:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.1)
            assert not told.is_set()
        assert told.wait(5)
        assert ended.wait(5)
    finally:
        signal.signal(signal.SIGTERM, before)


def test_fits_end_with_their_run_and_other_jobs_finish(tmp_path):
    script = tmp_path / "balrog"
    script.write_text("import time\nprint('works', flush=True)\ntime.sleep(60)\n")
    told = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: told.set())
    jobs = {
        step: subprocess.Popen([sys.executable, script, step, TILE], stdout=subprocess.PIPE, text=True)
        for step in ("mof", "coadd")
    }
    try:
        for job in jobs.values():
            assert job.stdout.readline() == "works\n"
        signals.relay_sigterm()
        os.kill(os.getpid(), signal.SIGTERM)
        assert told.wait(5)
        assert jobs["mof"].wait(5) == -signal.SIGTERM
        assert jobs["coadd"].poll() is None
    finally:
        signal.signal(signal.SIGTERM, before)
        for job in jobs.values():
            job.kill()
            job.communicate()


def killed_job(parent, label):
    """Leave the scratch directory of a job that was killed at work."""
    text = """
import os, signal, sys
from balrogutils.scratch import scratch
with scratch(sys.argv[1], sys.argv[2]) as directory:
    (directory / "half.fits").touch()
    os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", text, str(parent), label], check=False)
    assert done.returncode == -signal.SIGKILL


def test_scratch_of_killed_jobs_is_removed_and_that_of_living_ones_is_not(tmp_path):
    killed_job(tmp_path, f"{TILE}_base_g_coadd")
    killed_job(tmp_path, f"{OTHER}_base_g_coadd")
    early = tmp_path / f"balrog-{TILE}_base_r_coadd-abcdefgh"
    early.mkdir()
    with scratch(tmp_path, f"{TILE}_0_g_meds") as living:
        dead = next(tmp_path.glob(f"balrog-{TILE}_base_g_coadd-*"))
        assert remove_abandoned(tmp_path, TILE) == [dead, early]
        assert living.is_dir()
        assert not dead.exists()
        assert not early.exists()
    assert not living.exists()
    assert [path.name[: len("balrog-DES0240")] for path in tmp_path.iterdir()] == ["balrog-DES0240"]


@pytest.mark.parametrize("when", ["opened", "locked"])
def test_scratch_that_is_taken_for_abandoned_before_it_is_locked_is_made_again(tmp_path, monkeypatch, when):
    taken = []

    def interfering(module, name):
        real = getattr(module, name)

        def call(*arguments, **more):
            if not taken:
                taken.extend(tmp_path.glob("balrog-*"))
                shutil.rmtree(taken[0])
            return real(*arguments, **more)

        monkeypatch.setattr(module, name, call)

    interfering(*((os, "open") if when == "opened" else (fcntl, "flock")))
    with scratch(tmp_path, f"{TILE}_base_g_coadd") as directory:
        assert directory.is_dir()
        assert [directory] != taken
        assert remove_abandoned(tmp_path, TILE) == []
    assert list(tmp_path.iterdir()) == []


def test_what_killed_jobs_left_is_removed_wherever_it_lies(base, tmp_path):
    context = Installation.load(environ={"BALROG_BASE": str(base), "TMPDIR": str(tmp_path / "tmp")}).context(TILE)
    trees = [context.tree, context.at("0").tree, context.site.tree(TILE, "17")]
    part = ".part-12-0123abcd-"
    left = [tree.nullwt_dir("g") / f"{part}x.fits" for tree in trees]
    left += [tree.fit_chunk("sof", 0, 9).with_name(f"{part}y.fits") for tree in trees]
    left += [tree.fit("sof").with_name(f"{part}{tree.fit('sof').name}") for tree in trees]
    left += [tree.manifest("sof").with_name(f"{part}z.json") for tree in trees]
    other = context.site.tree(OTHER)
    kept = [context.tree.image("g"), other.image("g").with_name(f"{part}x.fits")]
    kept += [other.fit("sof").with_name(f"{part}{other.fit('sof').name}")]
    for path in (*left, *kept):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    killed_job(tmp_path / "tmp", f"{TILE}_17_g_coadd")
    assert remove_leftovers(context) == len(left) + 1
    assert not any(path.exists() for path in left)
    assert all(path.exists() for path in kept)
    assert list((tmp_path / "tmp").iterdir()) == []
    assert remove_leftovers(context) == 0


def test_a_lock_is_refused_to_a_job_while_the_tile_is_another_runs(locks, monkeypatch):
    run = locks()
    run.hold()
    monkeypatch.setattr(runlock, "die_with_parent", lambda: None)
    monkeypatch.setenv(TOKEN, "another")
    job = locks()
    with pytest.raises(ProductError, match="another has the tile"):
        join_run(job)
    # It keeps no lock: the run could be followed by the next.
    run.release()
    locks().hold()
