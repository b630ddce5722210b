"""A Slurm cluster of one node, this machine: Debian's munged, slurmctld and slurmd, as the user who starts it.

    python tests/cluster/slurm.py DIRECTORY

It prints what to export, stays until it gets SIGINT or SIGTERM, and ends what it started.
"""

import os
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psutil

# No accounting database: states come from squeue, which has to remember jobs for as long as a run may take to ask.
CONFIGURATION = """\
ClusterName=one
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={daemon}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={directory}/munge.socket
CredType=cred/munge
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerParameters=batch_sched_delay=0,sched_interval=1
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=1
JobAcctGatherParams=OverMemoryKill
JobCompType=jobcomp/filetxt
JobCompLoc={directory}/jobs.txt
MinJobAge=3600
KillWait=5
ReturnToService=2
StateSaveLocation={directory}/state
SlurmdSpoolDir={directory}/spool
SlurmctldPidFile={directory}/slurmctld.pid
SlurmdPidFile={directory}/slurmd.pid
SlurmctldLogFile={directory}/slurmctld.log
SlurmdLogFile={directory}/slurmd.log
NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory} State=UNKNOWN
PartitionName=main Nodes={node} Default=YES MaxTime=INFINITE State=UP
"""

NODE = "node1"
# Daemons live where ordinary users do not look.
PATH = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin"))
COMMANDS = ("slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol", "sinfo", "srun", "sacct", "sacctmgr")


def free_port():
    """A port of the loopback interface that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@contextmanager
def running(words, log, **options):
    """A program in the foreground of its own session, ended with everything it started."""
    with log.open("ab") as to:
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=to, stderr=to, **options)
    try:
        yield process
    finally:
        family = []
        with suppress(psutil.NoSuchProcess):
            family = psutil.Process(process.pid).children(recursive=True)
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for child in family:
            with suppress(psutil.NoSuchProcess):
                child.kill()


def wait_for(condition, process, log, seconds=30):
    """Wait until a program is ready."""
    end = time.monotonic() + seconds
    while not condition():
        if process.poll() is not None or time.monotonic() > end:
            raise RuntimeError(f"{process.args[0]} is not ready:\n{log.read_text()}")
        time.sleep(0.05)


@contextmanager
def one_node_slurm(directory, cpus=2, memory=None):
    """Run a cluster of one node whose files are all in a directory, which must not be there yet.

    Yields
    ------
    dict
        The environment variables that Slurm's commands need.
    """
    directory = Path(directory).absolute()
    directory.mkdir(mode=0o755, parents=True)
    missing = [name for name in ("munged", *COMMANDS) if not shutil.which(name, path=PATH)]
    if missing:
        raise RuntimeError(f"not installed: {', '.join(missing)}; apt-get install munge slurmctld slurmd slurm-client")
    key = directory / "munge.key"
    key.write_bytes(secrets.token_bytes(1024))
    key.chmod(0o400)
    for name in ("state", "spool"):
        (directory / name).mkdir()
    user = psutil.Process().username()
    configuration = directory / "slurm.conf"
    configuration.write_text(
        CONFIGURATION.format(
            directory=directory,
            host=socket.gethostname().split(".")[0],
            node=NODE,
            user=user,
            controller=free_port(),
            daemon=free_port(),
            cpus=cpus,
            memory=memory or psutil.virtual_memory().total // 2**20 - 512,
        )
    )
    # Snakemake's job steps drop SLURM_CONF, as of a site with one in /etc: every command gets it from a wrapper.
    commands = directory / "bin"
    commands.mkdir()
    for name in COMMANDS:
        wrapper = commands / name
        program = shutil.which(name, path=PATH)
        wrapper.write_text(f'#!/bin/sh\nSLURM_CONF={shlex.quote(str(configuration))} exec {program} "$@"\n')
        wrapper.chmod(0o755)
    environment = {"PATH": f"{commands}{os.pathsep}{PATH}"}
    inside = os.environ | environment
    munge = [f"--key-file={key}", f"--socket={directory}/munge.socket", f"--pid-file={directory}/munged.pid"]
    munge += [f"--log-file={directory}/munged.log", f"--seed-file={directory}/munged.seed"]
    logs = {name: directory / f"{name}.out" for name in ("munged", "slurmctld", "slurmd")}
    with ExitStack() as stack:
        # A directory that only its owner may enter is none for it, unless it is forced.
        munged = ["munged", "--foreground", "--force", *munge]
        daemon = stack.enter_context(running(munged, logs["munged"], env=inside))
        wait_for((directory / "munge.socket").exists, daemon, logs["munged"])
        daemon = stack.enter_context(running(["slurmctld", "-D"], logs["slurmctld"], env=inside))
        wait_for(lambda: answers(inside, "scontrol", "ping"), daemon, logs["slurmctld"])
        daemon = stack.enter_context(running(["slurmd", "-D", "-N", NODE], logs["slurmd"], env=inside))
        wait_for(lambda: "idle" in answers(inside, "sinfo", "-h", "-o", "%T"), daemon, logs["slurmd"])
        try:
            yield environment
        finally:
            subprocess.run(["scancel", "--user", user], env=inside, check=False, timeout=30)
            wait_for(lambda: not answers(inside, "squeue", "-h", "-t", "running,completing"), daemon, logs["slurmd"])


def answers(environment, *words):
    """What a command of Slurm says; nothing when it fails."""
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False, timeout=30)
    return done.stdout.strip() if done.returncode == 0 else ""


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with one_node_slurm(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 2) as environment:
        for name, value in environment.items():
            sys.stdout.write(f"export {name}={shlex.quote(value)}\n")
        sys.stdout.flush()
        try:
            signal.pause()
        except KeyboardInterrupt:
            return


if __name__ == "__main__":
    main()
