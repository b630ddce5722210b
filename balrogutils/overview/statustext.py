"""The status of tiles as a table for a terminal, and as a page that a browser reads again by itself."""

from __future__ import annotations

import time
from html import escape

from tabulate import tabulate

from balrogutils.overview.status import JobStatus, State, Status
from balrogutils.report.summary import BLOCK_NAMES

__all__ = ["page", "span", "text"]

_LISTED = 20
_STYLE = """
:root { color-scheme: light dark; --ink: #1b1b1b; --paper: #ffffff; --line: #767676; --shade: #f0f0f0; --bad: #a11b1b;
  --bar: #1d5fa8; }
@media (prefers-color-scheme: dark) { :root { --ink: #ececec; --paper: #16181b; --line: #8c8c8c; --shade: #24272b;
  --bad: #ff9d94; --bar: #7db4f0; } }
body { color: var(--ink); background: var(--paper); font: 1rem/1.5 system-ui, sans-serif; margin: 2rem auto;
  max-width: 70rem; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding-bottom: .4rem; }
th, td { border-bottom: 1px solid var(--line); padding: .3rem .6rem; text-align: right; vertical-align: top; }
th:first-child, .words { text-align: left; } td.words { overflow-wrap: anywhere; }
thead th { background: var(--shade); }
.bad { color: var(--bad); font-weight: 600; }
progress { width: 100%; height: 1.1rem; accent-color: var(--bar); }
"""


def span(seconds: float | None) -> str:
    """Return a length of time as a person says it; ``unknown`` for None."""
    if seconds is None:
        return "unknown"
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 6000:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} days"


def _speed(status: Status) -> str:
    if not status.running:
        return "Nothing runs."
    if status.rate is None:
        return "A run has begun; no step of it is done yet."
    return f"{status.rate:.3g} steps an hour over the last {span(status.elapsed)}; about {span(status.left)} left."


def _called(step: JobStatus) -> str:
    job = step.job
    realization = job.context.realization
    where = "base" if realization is None else f"realization {realization}"
    return f"{job.context.tile} {job.step} {job.band or ''}".strip() + f" ({where})"


def text(status: Status) -> str:
    """Return the status as a table, what runs, what failed, and the rate."""
    rows = [
        [
            block.bit,
            BLOCK_NAMES[block.bit],
            *(block.tiles[state] for state in State),
            f"{block.steps[State.DONE]}/{block.steps.total()}",
        ]
        for block in status.blocks
    ]
    count = len(status.tiles)
    name = status.tiles[0].tile if count == 1 else f"{count} tiles"
    headers = ["bit", "block", *(f"tiles {state}" for state in State), "steps done"]
    lines = [f"{name}, {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(status.now))}"]
    lines.append(tabulate(rows, headers=headers, tablefmt="simple"))
    for state, title in ((State.RUNNING, "Running"), (State.FAILED, "Failed")):
        steps = status.steps(state)
        if steps:
            lines.append(f"{title}, {len(steps)} steps:")
            lines += [f"  {_called(step)}: {step.says or 'no message yet'}" for step in steps[:_LISTED]]
            lines += [f"  and {len(steps) - _LISTED} more"] if len(steps) > _LISTED else []
    if status.steps(State.FAILED):
        lines.append("The same snakemake command makes what failed again; logs are in logs/ of the tile.")
    lines.append(_speed(status))
    return "\n".join(lines)


def page(status: Status, every: float | None = None) -> str:
    """Return the status as one HTML page that needs nothing else.

    Parameters
    ----------
    status : Status
        The tiles.
    every : float, optional
        Seconds after which a browser reads the page again; never when not given.
    """
    refresh = "" if every is None else f'<meta http-equiv="refresh" content="{max(every, 1):.0f}">\n'
    done, total = len(status.steps(State.DONE)), sum(len(tile.steps) for tile in status.tiles)
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(status.now))
    again = "" if every is None else f" The page is read again every {every:.0f} s."
    body = [
        "<h1>Tiles</h1>",
        f"<p>{escape(when)}. {escape(_speed(status))}{again}</p>",
        f'<p><label for="all">{done} of {total} steps are done</label>',
        f'<progress id="all" max="{total}" value="{done}">{done} of {total}</progress></p>',
        _blocks(status),
        _steps(status, State.FAILED, "Failed"),
        _steps(status, State.RUNNING, "Running"),
        _tiles(status),
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n{refresh}'
        f"<title>{done} of {total} steps: balrog status</title>\n<style>{_STYLE}</style>\n</head>\n"
        f"<body>\n<main>\n{chr(10).join(body)}\n</main>\n</body>\n</html>\n"
    )


def _table(caption: str, heads: list[str], rows: list[list[str]]) -> str:
    kinds = [
        ' class="words"' if any('class="words"' in cell for cell in column) else ""
        for column in zip(*rows, strict=True)
    ]
    kinds += [""] * (len(heads) - len(kinds))
    head = "".join(f'<th scope="col"{kind}>{escape(one)}</th>' for kind, one in zip(kinds, heads, strict=True))
    lines = []
    for first, *rest in rows:
        cells = "".join(cell if cell.startswith("<td") else f"<td>{cell}</td>" for cell in rest)
        lines.append(f'<tr><th scope="row">{first}</th>{cells}</tr>')
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}"><table>'
        f"<caption>{escape(caption)}</caption>\n"
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{chr(10).join(lines)}\n</tbody></table></div>"
    )


def _blocks(status: Status) -> str:
    rows = []
    for block in status.blocks:
        counts = [
            f'<td class="bad">{block.tiles[state]}</td>'
            if state is State.FAILED and block.tiles[state]
            else str(block.tiles[state])
            for state in State
        ]
        rows.append(
            [
                f"{block.bit} {escape(BLOCK_NAMES[block.bit])}",
                *counts,
                f"{block.steps[State.DONE]} of {block.steps.total()}",
            ]
        )
    heads = ["Block", *(f"Tiles {state}" for state in State), "Steps done"]
    return "<h2>Blocks</h2>\n" + _table("Tiles by block", heads, rows)


def _steps(status: Status, state: State, title: str) -> str:
    steps = status.steps(state)
    if not steps:
        return ""
    rows = [
        [
            escape(_called(step)),
            f'<td class="words">{escape(step.says or "no message yet")}</td>',
            f"{span(max(status.now - step.time, 0.0))} ago",
        ]
        for step in steps[:_LISTED]
    ]
    more = f"; the first {_LISTED} of {len(steps)}" if len(steps) > _LISTED else ""
    return f"<h2>{title}</h2>\n" + _table(
        f"Steps {str(state).lower()}{more}", ["Step", "Last message", "Last sign"], rows
    )


def _tiles(status: Status) -> str:
    rows = []
    for tile in status.tiles:
        done = sum(step.state is State.DONE for step in tile.steps)
        failed = sum(step.state is State.FAILED for step in tile.steps)
        bad = f'<td class="bad">{failed}</td>' if failed else "0"
        who = "nobody" if tile.run is None else str(tile.run.get("command", "?"))
        rows.append([escape(tile.tile), f"{done} of {len(tile.steps)}", bad, f'<td class="words">{escape(who)}</td>'])
    return "<h2>Tiles</h2>\n" + _table("Steps of each tile", ["Tile", "Done", "Failed", "Who has it"], rows)
