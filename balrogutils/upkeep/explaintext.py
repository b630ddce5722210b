"""An explanation in plain words, for a terminal."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tabulate import tabulate

from balrogutils.upkeep.explain import Explanation
from balrogutils.upkeep.objects import image_names
from balrogutils.upkeep.verify import printable, run_name

__all__ = ["in_words"]

_DIGITS = 12


def in_words(explanation: Explanation) -> str:
    """Return an explanation as lines: the file, the object, the steps, what no step made, whether it is made again."""
    lines = [printable(explanation.path), *_maker(explanation)]
    if explanation.object is not None:
        lines += ["", *_object(explanation.object)]
    lines += ["", "Made in these steps, first things first:", _steps(explanation)]
    lines += ["", *_origins(explanation), "", *_again(explanation)]
    return "\n".join(lines)


def _clock(seconds: float | None) -> str:
    return "?" if seconds is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def _called(step: Mapping[str, Any]) -> str:
    return f"{step['step']} {step['band'] or ''}".strip()


def _pairs(values: Mapping[str, Any] | None) -> str:
    return ", ".join(f"{name} {value}" for name, value in (values or {}).items() if value not in ("", 0)) or "none"


def _maker(explanation: Explanation) -> Iterator[str]:
    step = explanation.steps[-1]
    band = f", band {step['band']}" if step["band"] else ""
    where = f"tile {step['tile']}{band}, {run_name(step['realization'])}"
    yield f"  step      {step['step']} (block {step['bit']}, {step['block']}), {where}"
    if step["adopted"]:
        yield f"  made      elsewhere; adopted {_clock(step['ended'])} by balrogutils {step['version']}"
    else:
        tools = f" with {_pairs(step['tools'])}" if step["tools"] else ""
        cost = "{wall_seconds:.1f} s, {cpu_seconds:.1f} s of CPU".format_map(
            {key: step[key] or 0.0 for key in ("wall_seconds", "cpu_seconds")}
        )
        memory = (step["peak_memory_bytes"] or 0) / 2**20
        yield f"  made      {_clock(step['ended'])} by balrogutils {step['version']}{tools}; {cost}, {memory:.0f} MiB"
    if explanation.recorded:
        size, digest = explanation.recorded["size"], explanation.recorded["sha256"]
        yield f"  file      {size} bytes, SHA-256 {digest[:_DIGITS]}: {explanation.state}"
    yield f"  settings  SHA-256 {str(step['config_sha256'])[:_DIGITS]}; seeds {_pairs(step['seeds'])}"
    yield f"  counts    {_pairs(step['counts'])}"


def _steps(explanation: Explanation) -> str:
    rows = []
    for number, step in enumerate(explanation.steps):
        rows.append(
            [
                number,
                _called(step),
                "base" if step["realization"] is None else step["realization"],
                "adopted" if step["adopted"] else _clock(step["ended"]),
                " ".join([str(step["version"]), *(f"{name} {value}" for name, value in (step["tools"] or {}).items())]),
                str(step["config_sha256"])[:8],
                " ".join(str(seed) for seed in (step["seeds"] or {}).values()),
                " ".join(map(str, step["from"])),
            ]
        )
    headers = ["", "step", "run", "made", "version", "settings", "seed", "from"]
    return tabulate(rows, headers=headers, tablefmt="simple", disable_numparse=True)


def _origins(explanation: Explanation) -> Iterator[str]:
    yield "What no step made:"
    sources: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for one in explanation.archives:
        source = "made elsewhere" if one["adopted"] else f"from {one['archive']}, named by {one['database']}"
        sources[source].append((len(one["files"]), one["step"]))
    for source, parts in sources.items():
        numbers = ", ".join(str(step) for _, step in parts)
        yield f"  {sum(count for count, _ in parts)} files {source} (steps {numbers})"
    for one in explanation.origins:
        steps = ", ".join(one["steps"])
        yield f"  {printable(Path(one['file']))}  SHA-256 {one['sha256'][:_DIGITS]}, {one['state']} ({steps})"
    if not (explanation.archives or explanation.origins):
        yield "  nothing is recorded"


def _again(explanation: Explanation) -> Iterator[str]:
    again = explanation.again
    step = explanation.steps[-1]
    if not again["would"]:
        yield "Would a run make it again? No: everything it depends on is as it was."
    else:
        yield "Would a run make it again? Yes:"
        for one in again["reasons"]:
            yield from (f"  {one['step']}: {why}" for why in one["why"])
    if not again["in_mode"]:
        yield f"  The mode of these settings does not have block {step['bit']}: a run with it leaves the file alone."
    if again["notes"]:
        yield "A run does not notice these; --forcerun makes a step again:"
        yield from (f"  {note}" for note in again["notes"])


# objects


def _object(found: Mapping[str, Any]) -> Iterator[str]:
    if "truth" in found:
        yield from _injection(found)
        return
    yield from _row(found)


def _row(found: Mapping[str, Any]) -> Iterator[str]:
    names = ("id", "bal_id", "true_bal_id", "number", "inj_type", "true_inj_type", "ra", "dec", "flags", "meas_id")
    told = ", ".join(f"{name} {found[name]}" for name in names if name in found)
    yield f"Row {found['row']} of table {found['table']}: {told}"
    yield from _fluxes(found["fluxes"])
    chunk = found.get("chunk")
    if chunk is not None:
        yield (
            f"  fitted in {Path(chunk['file']).name}, {_clock(chunk['ended'])}, balrogutils {chunk['version']},"
            f" seeds {_pairs(chunk['seeds'])}"
        )
    for one in found.get("cutouts", ()):
        images = " ".join(image_names(one["images"]))
        yield (
            f"  {one['band']}: row {one['row']} of {Path(one['file']).name}, {len(one['images'])} cut-outs of"
            f" {one['box_size']} pixels from {images}"
        )


def _fluxes(fluxes: Mapping[str, Any]) -> Iterator[str]:
    for name, values in fluxes.items():
        text = ", ".join(
            f"{band} {_number(value)} ± {_number(error)}".strip() for band, value, error in values if value is not None
        )
        yield f"  {name}: {text}"


def _number(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _injection(found: Mapping[str, Any]) -> Iterator[str]:
    truth = found["truth"]
    yield (
        f"Injected object {found['bal_id']}, row {found['row']} of the truth catalogue: {truth['inj_type']},"
        f" row {truth['cat_row']} of its catalogue, at ra {truth['ra']:.6f}, dec {truth['dec']:.6f}"
    )
    fluxes = {name: value for name, value in truth.items() if name.startswith("flux_")}
    yield "  true flux: " + ", ".join(f"{name.removeprefix('flux_')} {_number(one)}" for name, one in fluxes.items())
    for band, chips in found["chips"].items():
        names = " ".join(f"{one['chip']}{'' if one['flux_on_chip'] > 0 else ' (no light)'}" for one in chips)
        yield f"  {band}: drawn on {len(chips)} CCDs: {names}"
    match = found["match"]
    if match is None:
        yield "  not matched yet"
        return
    if match["reason"] != "matched":
        yield f"  not detected: {match['reason'].replace('_', ' ')}"
        return
    yield f"  detected as number {match['meas_number']} (id {match['meas_id']}), {match['distance']:.3f} arcsec away"
    for one in found["fits"]:
        yield f"Measured by {one['fit']} in {printable(Path(one['file']))}:"
        yield from (f"  {line}" if not line.startswith(" ") else line for line in _row(one))
