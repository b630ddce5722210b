"""What a run made, block by block: products, counts, time and memory, from the manifests."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from tabulate import tabulate

from balrogutils.context import Context
from balrogutils.errors import ProductError
from balrogutils.graph import Job, jobs
from balrogutils.products import read_manifest, writing_text

__all__ = ["BLOCK_NAMES", "summarize", "table"]

BLOCK_NAMES = {
    1: "prep",
    2: "coadd+catalogue",
    4: "MEDS",
    8: "injection",
    16: "injected coadd+catalogue",
    32: "injected MEDS",
    64: "SOF",
    128: "MOF",
    256: "metacal",
    512: "BFD",
    1024: "match",
}
"""Blocks by mode bit, as tables name them."""

# Lists of CCDs that block 1 leaves in its manifests.
_LISTS = {
    "left_out_list": "CCDs left out of band",
    "dead_list": "CCDs without any weight in band",
    "not_finite_list": "CCDs with pixels that are no finite numbers in band",
}
_KEYS = ("counts", "started", "ended", "cpu_seconds", "peak_memory_bytes")


def summarize(context: Context, path: Path) -> dict[str, Any]:
    """Collect the manifests of a tile and keep the result as JSON.

    Parameters
    ----------
    context : Context
        The tile.
    path : Path
        Where the JSON goes.

    Returns
    -------
    dict
        ``tile``; ``blocks``: a list with bit, name, realization (None for the base run), jobs done and in all,
        products, counts, wall seconds (first start to last end), CPU seconds, peak memory of the largest process in
        bytes; ``remarks``: lines about CCDs that take no part, and blocks adopted; ``wall_seconds`` and ``cpu_seconds``
        of all.

    Raises
    ------
    ProductError
        When a manifest cannot be read.
    """
    groups: dict[tuple[int, str | None], list[Job]] = defaultdict(list)
    for job in jobs(context):
        groups[job.bit, job.context.realization].append(job)
    blocks, remarks = [], []
    for (bit, realization), members in groups.items():
        done = [read_manifest(job.manifest, *_KEYS) for job in members if job.manifest.is_file()]
        if not (done or bit & context.pipeline.mode):
            # Neither made nor asked for.
            continue
        lists = [(manifest, name) for manifest in done for name in _LISTS if manifest["counts"].get(name)]
        remarks += [f"{_LISTS[name]} {one['band']}: {one['counts'][name]}" for one, name in lists]
        adopted = sum(bool(manifest.get("adopted")) for manifest in done)
        # What injected images differ in from those of the base run is no step of its own.
        beside = [job.context.tree.differences(job.band or "") for job in members if job.step == "inject"]
        everything = [*done, *(read_manifest(path, *_KEYS) for path in beside if path.is_file())]
        if adopted:
            remarks.append(
                f"adopted, made elsewhere: {adopted} of {len(members)} jobs of block {bit} {BLOCK_NAMES[bit]}"
            )
        counts: dict[str, Any] = {}
        for manifest in everything:
            for name, value in manifest["counts"].items():
                # A count that bands share (detections, injections) stands once; text is not summed.
                if isinstance(value, (int, float)) and not isinstance(value, bool):
                    counts.setdefault(name, {})[manifest.get("band") or "all"] = value
        blocks.append(
            {
                "bit": bit,
                # Of the base run this block makes the report alone.
                "name": "report" if (bit, realization) == (1024, None) else BLOCK_NAMES[bit],
                "realization": realization,
                "jobs_done": len(done),
                "jobs": len(members),
                "products": sum(len(manifest["outputs"]) for manifest in everything),
                "counts": counts,
                "started": min((manifest["started"] for manifest in done), default=None),
                "ended": max((manifest["ended"] for manifest in done), default=None),
                "wall_seconds": max((m["ended"] for m in done), default=0.0)
                - min((m["started"] for m in done), default=0.0),
                "cpu_seconds": sum(manifest["cpu_seconds"] for manifest in everything),
                "peak_memory_bytes": max((manifest["peak_memory_bytes"] for manifest in everything), default=0),
            }
        )
    made = [block for block in blocks if block["jobs_done"]]
    if not made:
        raise ProductError(
            "nothing has been made of this tile yet",
            tile=context.tile,
            remedy=f"snakemake --cores all tile={context.tile}",
        )
    result = {
        "tile": context.tile,
        "summary": str(path),
        "matched": [
            str(tree.match.parent) for name in context.realizations if (tree := context.at(name).tree).match.is_file()
        ],
        "report": str(context.base_tree.report) if context.base_tree.report.is_file() else None,
        "blocks": blocks,
        "remarks": remarks,
        "wall_seconds": max(block["ended"] for block in made) - min(block["started"] for block in made),
        "cpu_seconds": sum(block["cpu_seconds"] for block in made),
    }
    writing_text(path, json.dumps(result, indent=1) + "\n")
    return result


def _counts(counts: dict[str, dict[str, Any]]) -> str:
    words = []
    for name, by_band in counts.items():
        values = list(by_band.values())
        # What did not happen is in the JSON, not in a table to be read.
        if not any(values):
            continue
        text = (
            f"{values[0]:g}"
            if len(set(values)) == 1
            else " ".join(f"{band}:{value:g}" for band, value in by_band.items())
        )
        words.append(f"{name} {text}")
    return ", ".join(words)


def table(summary: dict[str, Any]) -> str:
    """Return the summary as a table for a terminal."""
    rows = [
        [
            block["bit"],
            block["name"],
            "base" if block["realization"] is None else f"realization {block['realization']}",
            f"{block['jobs_done']}/{block['jobs']}",
            block["products"],
            _counts(block["counts"]),
            f"{block['wall_seconds']:.0f}",
            f"{block['cpu_seconds']:.0f}",
            f"{block['peak_memory_bytes'] / 2**20:.0f}",
        ]
        for block in summary["blocks"]
    ]
    rows.append(
        [
            "",
            "all",
            "",
            "",
            sum(row[4] for row in rows),
            "",
            f"{summary['wall_seconds']:.0f}",
            f"{summary['cpu_seconds']:.0f}",
            "",
        ]
    )
    headers = ["bit", "block", "run", "jobs", "products", "counts", "wall s", "CPU s", "peak MiB"]
    text = tabulate(
        rows, headers=headers, tablefmt="simple", maxcolwidths=[None, None, None, None, None, 50, None, None, None]
    )
    places = [f"Matched catalogue and plots: {place}" for place in summary["matched"]]
    places += [f"Report, to open in a browser: {summary['report']}"] if summary["report"] else []
    lines = [f"Tile {summary['tile']}", text, *summary["remarks"], *places, f"This table as JSON: {summary['summary']}"]
    return "\n".join(lines)
