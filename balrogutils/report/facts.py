"""What the manifests of a tile say of the run: which blocks, how much, how long, with what."""

from __future__ import annotations

from typing import Any

import numpy as np

from balrogutils.analysis.tables import Field, counted, result_table
from balrogutils.context import Context
from balrogutils.graph import jobs
from balrogutils.products import read_manifest
from balrogutils.report.page import Grid, Section
from balrogutils.report.summary import BLOCK_NAMES

__all__ = ["facts_section"]


def facts_section(context: Context, names: list[str]) -> Section:
    """Return run facts: a row a block of the base run and of each realization, versions, seeds.

    Parameters
    ----------
    context : Context
        The base run of the tile.
    names : list of str
        Realizations of the report.
    """
    found: dict[tuple[int, str], list[dict[str, Any]]] = {}
    for job in jobs(context):
        where = job.context.realization
        if job.step == "report" or not (where is None or where in names) or not job.manifest.is_file():
            continue
        run = "base" if where is None else f"realization {where}"
        found.setdefault((job.bit, run), []).append(read_manifest(job.manifest))
    table = result_table(
        [
            Field("bit", np.array([bit for bit, _ in found], np.int64), "mode bit of the block"),
            Field("block", [BLOCK_NAMES[bit] for bit, _ in found] or np.array([], "U1"), "what it makes"),
            Field("run", [run for _, run in found] or np.array([], "U1"), "base run or realization"),
            Field("jobs", np.array([len(part) for part in found.values()], np.int64), "jobs done"),
            Field("products", _sums(found, lambda one: len(one["outputs"])).astype(np.int64), "files"),
            Field("wall", _sums(found, _seconds("wall_seconds")), "of all jobs together", "s"),
            Field("cpu", _sums(found, _seconds("cpu_seconds")), "of all jobs together", "s"),
            Field("memory", _most(found, "peak_memory_bytes") / 2**20, "of the largest process", "MiB"),
        ],
        "From the manifests that every step leaves.",
    )
    every = [one for part in found.values() for one in part]
    text = [f"{counted(len(every), 'job')} of the base run and {counted(len(names), 'realization')}."]
    versions = sorted({str(one["version"]) for one in every if "version" in one})
    tools = sorted({f"{name} {version}" for one in every for name, version in one.get("tools", {}).items()})
    text.append(f"Made by balrogutils {', '.join(versions)}" + (f" with {', '.join(tools)}." if tools else "."))
    if any(one.get("adopted") for one in every):
        text.append("Some steps were made elsewhere and adopted.")
    return Section("Run", tuple(text), (), (Grid("Blocks of the run", table, is_open=True),))


def _seconds(key: str) -> Any:
    return lambda one: float(one.get(key, np.nan))


def _sums(found: dict[Any, list[dict[str, Any]]], value: Any) -> np.ndarray:
    return np.array([sum(map(value, part)) for part in found.values()], float)


def _most(found: dict[Any, list[dict[str, Any]]], key: str) -> np.ndarray:
    return np.array([max(float(one.get(key, np.nan)) for one in part) for part in found.values()], float)
