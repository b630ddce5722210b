"""The whole table of speed, fits and MEDS files, in one go: `make bench`, or `python benchmarks/speed.py`.

Runs fit_engine.py, meds_writer.py, meds_reader.py and fit_start.py beside this file. With ``--ngmix PYTHON``, an
interpreter that has ngmix and what balrogutils.fitting needs, fits are timed there, both codes in one process; with
``--meds PYTHON``, one that has the original `meds`, that does the same work on the same files.

A target is meant for a machine on which the other code takes what stands behind it; what counts elsewhere is the ratio.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

from tabulate import tabulate

HERE = Path(__file__).resolve().parent


class Target(NamedTuple):
    """What is asked: a time, what the other code takes on that machine, and how many times as fast at least."""

    own: float
    other: float | None = None
    ratio: float | None = None


# CPU ms per object. cm was 764 without PSF fits in ngmix 1.3.9, which cannot be run beside ours.
FITS = {
    "coellip3": Target(9, 94, 10),
    "em3": Target(90, 905, 10),
    "exp": Target(8, 89, 10),
    "dev": Target(12, 137, 10),
    "bdf": Target(25, 432, 10),
    "bd": Target(51, 510, 10),
}
CM = Target(50)
# CPU us per cut-out.
WRITE = Target(50, 213, 4.3)
READ = {
    "plain, bulk": Target(4, 4, 1),
    "uberseg": Target(18, 360, 20),
    "packed, bulk": Target(21, 21, 1),
}
START, PROCESSES = Target(2), Target(1.8)


def call(python: str, script: str, *words: str) -> str:
    """Run a benchmark with an interpreter and return its standard output."""
    path = os.pathsep.join(filter(None, [str(HERE.parent), os.environ.get("PYTHONPATH")]))
    command = [python, str(HERE / script), *words]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout


def row(what: str, unit: str, own: float, target: Target | None = None, other: float | None = None) -> list[Any]:
    """Return a line of the table."""
    wanted = "" if target is None else f"{target.own:g}" + (f" ({target.other:g})" if target.other else "")
    at_least = target.ratio if target else None
    return [what, unit, own, wanted, other, other / own if other else None, at_least]


def main(words: list[str]) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ngmix", default=sys.executable, metavar="PYTHON", help="interpreter that has ngmix")
    parser.add_argument("--meds", default=None, metavar="PYTHON", help="interpreter that has the original meds")
    parser.add_argument("--objects", default=12, type=int, help="objects to fit")
    options = parser.parse_args(words)
    original = ("--original", options.meds) if options.meds else ()

    fits = json.loads(call(options.ngmix, "fit_engine.py", str(options.objects), "--json"))
    ours, ngmix = fits["ours"], fits["ngmix"]
    table = [row(name, "ms / object", value, FITS.get(name), ngmix.get(name)) for name, value in ours.items()]
    table.append(row("cm with its PSF fits", "ms / object", ours["coellip3"] + ours["cm"], CM))

    size = ("--objects", "1500", "--exposures", "5", "--rows", "4096", "--cols", "2048", "--box", "48")
    writer = json.loads(call(sys.executable, "meds_writer.py", *size, *original))
    table.append(row("MEDS write", "us / cut-out", writer["write_us"], WRITE, writer.get("original_us")))
    memory = Target(writer["before_writer_MB"] + writer["image_MB"] + 300)
    table.append(row("MEDS writer, peak memory", "MB", writer["peak_MB"], memory))
    reader = json.loads(call(sys.executable, "meds_reader.py", "--json", *original))
    for name, value in reader["ours"].items():
        table.append(row(f"MEDS {name}", "us / cut-out", value, READ.get(name), reader["original"].get(name)))
    table.append(row("MEDS packed, bulk, 2 processes", "times 1", reader["two_processes"], PROCESSES))

    for _ in range(2):
        # The first may compile.
        began = time.perf_counter()
        call(sys.executable, "fit_start.py")
        taken = time.perf_counter() - began
    table.append(row("start of a process, first fit done", "s", taken, START))
    header = ("what", "unit", "ours", "target (other)", "other", "ratio", "asked")
    sys.stdout.write(tabulate(table, header, floatfmt=".1f", tablefmt="github") + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
