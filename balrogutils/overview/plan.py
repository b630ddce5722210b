"""What a campaign will cost, from counts of its tiles; and what the steps that are done did cost."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tabulate import tabulate

from balrogutils.context import Context
from balrogutils.errors import InputError, ProductError
from balrogutils.graph import Job, jobs
from balrogutils.layout import FIT_CONFIGS, MODE_BITS
from balrogutils.overview.costs import Cost, Counts, calibrated, cost_of, differences_of, images_of
from balrogutils.overview.counts import counts_of, injected_counts, is_adopted, manifest_of
from balrogutils.products import writing_text
from balrogutils.report.summary import BLOCK_NAMES
from balrogutils.settings.pipeline import DIFFERENCES, TEMPORARY

__all__ = ["Plan", "Row", "calibrate", "make_plan", "scales_at"]

# What cores do besides: Snakemake, the start of programs, waiting.
_BUSY = 0.9


@dataclass(frozen=True)
class Row:
    """One block, base run and all realizations of all tiles: what is predicted, and of what is done what is true.

    Attributes
    ----------
    bit : int
        Mode bit.
    jobs, done : float
        Jobs but those adopted, and of the named tiles those that are done here.
    cost : Cost
        Of all jobs.
    expected, fact : Cost
        Of the jobs that are done: predicted, and true.
    """

    bit: int
    jobs: float
    cost: Cost
    done: int
    expected: Cost
    fact: Cost


@dataclass(frozen=True)
class Plan:
    """What some tiles cost.

    Attributes
    ----------
    tiles : float
        Tiles.
    realizations : int
        Of each.
    rows : tuple of Row
        Blocks of the mode.
    cores : int
        Cores of the run.
    chain : float
        Wall seconds of one tile however many cores there are.
    injections : float
        Objects injected in all.
    calibrated : bool
        Whether the CPU is that of this machine.
    let_go : float
        Bytes of the images that the settings do not keep (`keep`): on disk until every step has read them.
    compiling : float
        CPU seconds of the first fits on this machine, which compile their kernels: once, however many tiles.
    """

    tiles: float
    realizations: int
    rows: tuple[Row, ...]
    cores: int
    chain: float
    injections: float
    calibrated: bool
    let_go: float = 0.0
    compiling: float = 0.0

    @property
    def cost(self) -> Cost:
        """Of all blocks."""
        return sum((row.cost for row in self.rows), Cost())

    @property
    def wall(self) -> float:
        """Wall seconds."""
        return max(self.cost.cpu / (self.cores * _BUSY), self.chain)

    def document(self) -> dict[str, Any]:
        """Return the plan as JSON can say it."""
        rows = [
            {"bit": row.bit, "name": BLOCK_NAMES[row.bit], "jobs": row.jobs, "done": row.done}
            | {key: vars(getattr(row, key)) for key in ("cost", "expected", "fact")}
            for row in self.rows
        ]
        keys = ("tiles", "realizations", "cores", "injections", "calibrated", "let_go", "compiling")
        total = {"cost": vars(self.cost), "wall_seconds": self.wall, "per_tile": vars(self.cost.times(1 / self.tiles))}
        return {**{key: getattr(self, key) for key in keys}, "blocks": rows, **total}

    def __str__(self) -> str:
        body = [
            [
                *(row.bit, BLOCK_NAMES[row.bit], f"{row.jobs:.0f}", f"{row.cost.cpu / 3600:.3g}"),
                *(f"{row.cost.memory / 2**20:.0f}", f"{row.cost.disk / 1e9:.3g}", _against(row, "cpu")),
                *(_against(row, "memory"), _against(row, "disk")),
            ]
            for row in self.rows
        ]
        total, one = self.cost, self.cost.times(1 / self.tiles)
        headers = ["bit", "block", "jobs", "CPU h", "peak MiB", "disk GB", "CPU true", "peak true", "disk true"]
        lines = [f"{self.tiles:g} tiles, {self.realizations} realizations each"]
        lines.append(tabulate(body, headers=headers, tablefmt="simple", disable_numparse=True, stralign="right"))
        lines.append(
            f"In all: {total.cpu / 3600:.3g} h of CPU, {self.wall / 3600:.3g} h on {self.cores} cores,"
            f" {total.disk / 1e9:.3g} GB; the largest job {total.memory / 2**20:.0f} MiB"
        )
        left = one.disk - self.let_go / self.tiles
        rest = f", {left / 1e9:.3g} GB when it is done (keep)" if self.let_go else ""
        lines.append(f"A tile: {one.cpu / 3600:.3g} h of CPU, {one.disk / 1e9:.3g} GB at most{rest}")
        if self.injections:
            lines.append(f"An injected object: {total.cpu / self.injections:.3g} s of CPU, of everything")
        if self.compiling:
            text = f"The first fits compile their kernels: {self.compiling:.0f} s of CPU in all, once on a machine"
            lines.append(text)
        if any(row.done for row in self.rows):
            lines.append("true: what the steps that are done took, and what it is of what was predicted for them.")
        if not self.calibrated:
            lines.append(
                "The CPU is that of the machine of docs/performance.md; balrog plan --calibrate measures this one."
            )
        return "\n".join(lines)


def _against(row: Row, key: str) -> str:
    fact, expected = getattr(row.fact, key), getattr(row.expected, key)
    if not row.done or not expected:
        return ""
    told = {"cpu": f"{fact / 3600:.3g}", "memory": f"{fact / 2**20:.0f}", "disk": f"{fact / 1e9:.3g}"}[key]
    return f"{told} ({fact / expected:.0%})"


# plans


def _kind(job: Job) -> str:
    return f"{job.step} {job.band}" if job.band in ("det", "all") else job.step


def _jobs(context: Context, injections: float | None) -> Iterator[tuple[Job, Counts]]:
    here = context.at(None)
    base = counts_of(here)
    # What was made elsewhere no run makes.
    wanted = [job for job in jobs(here) if job.bit & here.pipeline.mode and not is_adopted(job)]
    of_runs: dict[str | None, Counts] = {None: base}
    for job in wanted:
        name = job.context.realization
        if name not in of_runs:
            known = [counts.injections for counts in of_runs.values() if counts.injections]
            # Realizations of a tile are much alike; of those that are planned, their own number counts.
            guess = injections if injections is not None else (known[0] if known else None)
            own = None if injections is None and manifest_of(Job("plan", job.context)) is not None else guess
            of_runs[name] = injected_counts(job.context, base, own)
        yield job, of_runs[name]


def _fact(manifest: Mapping[str, Any], tiles: dict[str, str]) -> Cost | None:
    """Return what a step took; None when it found part of its work done by another run.

    Files that tiles share are on disk once, and count for the first of them: `tiles` says which had a file first.
    """
    if manifest["counts"].get("chunks_reused"):
        return None
    sizes = {one["sha256"]: one["size"] for one in manifest["outputs"]}
    if manifest["step"] == "prep":
        tile = manifest["tile"]
        sizes = {key: size for key, size in sizes.items() if tiles.setdefault(key, tile) == tile}
    return Cost(manifest["cpu_seconds"], manifest["peak_memory_bytes"], sum(sizes.values()))


def _compiled(manifest: Mapping[str, Any]) -> list[float]:
    """Return the CPU seconds of each process of a fit that had to compile its kernels first."""
    told = manifest.get("compile_seconds")
    return [float(one) for one in told if _is_time(one)] if isinstance(told, list) else []


def _is_time(value: object) -> bool:
    return isinstance(value, (int, float)) and 0 < value < math.inf


def make_plan(
    contexts: Sequence[Context],
    *,
    tiles: int | None = None,
    cores: int = 1,
    injections: float | None = None,
    scales: Mapping[str, float] | None = None,
    compiled: bool = True,
) -> Plan:
    """Predict what tiles cost, and compare with what was done of them.

    Parameters
    ----------
    contexts : sequence of Context
        Tiles; of each, the blocks of its mode, in the base run and its realizations.
    tiles : int, optional
        Tiles of the campaign, of which those named stand for all.
    cores : int
        Cores of the run.
    injections : float, optional
        Objects injected into a tile, where they are not planned yet.
    scales : mapping, optional
        As `calibrate` returns it.
    compiled : bool
        Whether the kernels of fits have been compiled on this machine.

    Raises
    ------
    InputError
        When the campaign is to have fewer tiles than are named.
    BalrogError
        When the counts of a tile are not known: no manifests and no archive, or no number of injections.
    """
    if tiles is not None and tiles < len(contexts):
        text = f"the campaign is to have fewer tiles, {tiles}, than the {len(contexts)} that are named"
        raise InputError(text, key="--tiles", remedy="name fewer, or give the number of all")
    costs: dict[int, Cost] = defaultdict(Cost)
    numbers: dict[int, int] = defaultdict(int)
    done: dict[int, list[tuple[Cost, Cost]]] = defaultdict(list)
    first: dict[str, str] = {}
    longest, injected, spared = 0.0, 0.0, 0.0
    first_fits: dict[int, Cost] = {}
    times = 1.0 if tiles is None else tiles / len(contexts)
    for context in contexts:
        chain: dict[tuple[bool, str], float] = {}
        workers = context.pipeline.fit_workers
        temporary = {step for name, step in TEMPORARY.items() if name not in context.pipeline.keep}
        for job, counts in _jobs(context, injections):
            kind = _kind(job)
            cost = cost_of(kind, counts, scales)
            kept = Cost()
            if kind == "inject" and DIFFERENCES in context.pipeline.keep:
                kept = differences_of(counts)
            costs[job.bit] += cost + kept
            numbers[job.bit] += 1
            injected += counts.injections if kind == "plan" else 0.0
            if job.step in temporary:
                spared += images_of(kind, counts)
            wall = cost.cpu / (workers if kind in FIT_CONFIGS else 1)
            key = job.context.realization is not None, kind
            chain[key] = max(chain.get(key, 0.0), wall)
            manifest = manifest_of(job)
            if manifest is None:
                if kind in FIT_CONFIGS and not compiled and not first_fits:
                    first_fits[job.bit] = cost_of("compile", counts, scales).times(workers)
                continue
            fact = _fact(manifest, first)
            if fact is not None:
                if processes := len(_compiled(manifest)):
                    cost += cost_of("compile", counts, scales).times(processes)
                done[job.bit].append((cost, fact))
        # A realization waits for block 1 alone.
        base = sum(wall for (injects, _), wall in chain.items() if not injects)
        other = chain.get((False, "prep"), 0.0) + sum(wall for (injects, _), wall in chain.items() if injects)
        longest = max(longest, base, other)
    rows = tuple(
        Row(
            bit,
            numbers[bit] * times,
            costs[bit].times(times) + first_fits.get(bit, Cost()),
            len(done[bit]),
            sum((pair[0] for pair in done[bit]), Cost()),
            sum((pair[1] for pair in done[bit]), Cost()),
        )
        for bit in MODE_BITS.values()
        if numbers[bit]
    )
    names = max(len(context.realizations) for context in contexts)
    whole = len(contexts) * times
    once = sum(cost.cpu for cost in first_fits.values())
    return Plan(whole, names, rows, cores, longest, injected * times, bool(scales), spared * times, once)


# this machine


def _file(context: Context) -> Path:
    return context.site.base / "run" / "plan.json"


def calibrate(contexts: Sequence[Context]) -> dict[str, float]:
    """Compare the CPU of everything that was made of some tiles here with the model, and keep the ratios.

    Returns
    -------
    dict
        By step; also written to ``run/plan.json``, where `scales_at` finds it.

    Raises
    ------
    ProductError
        When nothing was made of these tiles here.
    """
    facts = []
    for context in contexts:
        everything = replace(context, pipeline=context.pipeline.model_copy(update={"mode": sum(MODE_BITS.values())}))
        made = [(job, manifest) for job in jobs(everything) if (manifest := manifest_of(job)) is not None]
        if not made:
            continue
        base = counts_of(everything)
        for job, manifest in made:
            injects = job.context.realization is not None
            fact = _fact(manifest, {})
            if fact is None or (injects and manifest_of(Job("plan", job.context)) is None):
                # What was injected is gone, and with it how much it was.
                continue
            counts = injected_counts(job.context, base, None) if injects else base
            compiled = _compiled(manifest)
            facts += [("compile", counts, one) for one in compiled]
            facts.append((_kind(job), counts, fact.cpu - sum(compiled)))
    if not facts:
        raise ProductError(
            "nothing has been made of these tiles here",
            tile=contexts[0].tile,
            remedy=f"snakemake --cores all tile={contexts[0].tile}",
        )
    scales = calibrated(facts)
    writing_text(_file(contexts[0]), json.dumps({"cpu_scales": scales}, indent=1) + "\n")
    return scales


def scales_at(context: Context) -> dict[str, float]:
    """Return what `calibrate` kept; nothing where it was not called.

    Raises
    ------
    ProductError
        When its file cannot be read.
    """
    path = _file(context)
    if not path.exists():
        return {}
    try:
        scales = json.loads(path.read_text(encoding="utf-8"))["cpu_scales"]
        found = {str(step): float(scale) for step, scale in scales.items()}
        if not all(0 < scale < math.inf for scale in found.values()):
            raise ValueError("a scale is no positive number")
        return found
    except (ValueError, OverflowError, KeyError, TypeError, AttributeError, RecursionError) as error:
        remedy = "remove it; balrog plan --calibrate makes it anew"
        raise ProductError("what was measured of this machine cannot be read", file=path, remedy=remedy) from error
