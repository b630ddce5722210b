"""Block 1024, last part: the report of a tile over its realizations, with its tables and map."""

from __future__ import annotations

import logging
from pathlib import Path

from balrogutils import __version__
from balrogutils.analysis.matched import Matched, read_matched
from balrogutils.analysis.results import Results, write_table
from balrogutils.analysis.skymap import efficiency_map, write_map
from balrogutils.analysis.tables import counted
from balrogutils.blocks.portrait import conditions, gallery_section, map_section
from balrogutils.context import Context
from balrogutils.errors import InputError, ProductError
from balrogutils.graph import Job, matched_realizations
from balrogutils.products import Step
from balrogutils.report.facts import facts_section
from balrogutils.report.headline import cards, sentences
from balrogutils.report.page import Page, write_page
from balrogutils.report.sections import science_sections

__all__ = ["report"]

_log = logging.getLogger(__name__)


def report(context: Context, *, everything: bool = False) -> Path:
    """Make the report of a tile: one HTML file, and beside it every table as ECSV and the map of the fraction detected.

    Parameters
    ----------
    context : Context
        The tile, with its realizations; those without a matched catalogue are left out, and the report says so.
    everything : bool
        Take realizations that were matched before, too.

    Returns
    -------
    Path
        The HTML file.

    Raises
    ------
    InputError
        When the tile has no realizations.
    ProductError
        When none of them is matched, or a product is damaged or of another tile.
    """
    names = matched_realizations(context) if everything else context.realizations
    here = _with(context, names)
    if not names:
        raise InputError("there is no realization to report on", tile=context.tile, remedy="--set realizations=0")
    made = [name for name in names if Job("match", here.at(name)).manifest.is_file()]
    if not made:
        raise ProductError(
            f"no matched catalogue of realizations {' '.join(names)}",
            tile=context.tile,
            file=here.at(names[0]).tree.match,
            remedy="run with --config mode=1024 first, or with the blocks before it",
        )
    tree, missing = here.base_tree, [name for name in names if name not in made]
    word = "Realization" if len(made) == 1 else "Realizations"
    with Job("report", here).open({"realizations": made}) as step:
        matched, unknown = conditions(here, made, _matched(here, made, step), step)
        # What reads files comes first: one that is missing is told before anything is worked out.
        images = [map_section(here, matched, step), gallery_section(here, made, matched, step)]
        results = Results(matched)
        tables = results.files()
        science = science_sections(results, f"{here.tile}_", (unknown,) if unknown else ())
        sections = [science[0], images[0], *science[1:-1], images[1], science[-1], facts_section(here, made)]
        page = Page(
            title=f"Injections in tile {here.tile}",
            subtitle=f"{word} {', '.join(made)} · bands {' '.join(matched.bands)} · balrogutils {__version__}",
            summary=(*sentences(results), *_lacking(missing)),
            cards=cards(results),
            sections=sections,
        )
        for name, table in tables.items():
            write_table(tree.report_table(name), table)
            step.wrote(tree.report_table(name))
        clear = matched.clear
        ra, dec = (matched.number(f"true_{name}")[clear] for name in ("ra", "dec"))
        write_map(tree.efficiency_map, efficiency_map(ra, dec, matched.detected[clear]))
        write_page(tree.report, page)
        step.wrote(tree.efficiency_map, tree.report)
        step.count(injected=len(matched), detected=int(matched.detected.sum()), tables=len(tables))
        left_out = f", without {' '.join(missing)}, not matched yet" if missing else ""
        _log.info("report of %s%s: %s", counted(len(made), "realization"), left_out, tree.report)
    return tree.report


def _with(context: Context, names: tuple[str, ...]) -> Context:
    """Return the base run of the tile with these realizations."""
    pipeline = context.pipeline.model_copy(update={"realizations": names})
    return Context(context.site, pipeline, context.campaign, context.tile)


def _lacking(missing: list[str]) -> list[str]:
    if not missing:
        return []
    return [f"Not matched yet, and not in this report: realization {', '.join(missing)} (block 1024 makes it)."]


def _matched(context: Context, names: list[str], step: Step) -> Matched:
    files = [context.at(name).tree.match for name in names]
    step.read(*files)
    matched = read_matched(files)
    for column, expected in (("tilename", {context.tile}), ("realization", {int(name) for name in names})):
        others = (set(matched.column(column).tolist()) if matched.has(column) else set()) - expected
        if others:
            shown = ", ".join(map(str, sorted(others)))
            raise ProductError(
                f"the matched catalogue is of another {column.removesuffix('name')}: {shown}",
                tile=context.tile,
                file=files[0],
                remedy="make it again (mode 1024)",
            )
    return matched
