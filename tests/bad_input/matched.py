"""Matching, merging and reports: settings, tiles and runs that are not there, catalogues of little and of others."""

import html
import re
import shutil
from collections.abc import Callable
from functools import partial

import numpy as np
from match_tile import BANDS, make_context, write_catalogue, write_fits
from row import Break, Row, all_of
from world import BARE_TILE, Seen, World

from balrogutils.fitsfile import Table, read_header, read_table, table_names, write_tables
from balrogutils.identity import object_ids
from balrogutils.measurement.catalogue import model_rows
from balrogutils.parquetfile import read_parquet

ROW = partial(Row, "Matching and merging")
# Of a tile made of numbers, with ten injections, of which eight were detected, fitted and matched.
LITTLE = partial(Row, "Matching and merging", stage="matched", status=0, remedy=False)
WRONG = partial(Row, "Matching and merging", stage="matched", status=1)
T = f"tile={BARE_TILE}"
REPORT = f"balrog report {BARE_TILE}"
MERGE = f"balrog merge run/all {BARE_TILE}"
MATCH = f"balrog match {BARE_TILE} -r 0"
OTHER = "DES0240+0216"
TREE = f"run/meds/y3v02/balrog_images/0/y3v02/{BARE_TILE}"
TRUTH = f"{TREE}/{BARE_TILE}_0_balrog_truth_cat.fits"
CATALOG = f"{TREE}/coadd/{BARE_TILE}_r_cat.fits"
FITS = f"run/meds/balrog_images/0/y3v02-sof/output/{BARE_TILE}-y3v02-sof.fits"
COADD = f"run/meds/y3v02/{BARE_TILE}/coadd/{BARE_TILE}_r.fits"
MATCHED = f"{TREE}/match/{BARE_TILE}_0_match_cat.fits"
PARQUET = MATCHED.replace(".fits", ".parquet")
ANEW = ("*/match/*", "*_match.json")
PAGE = ("*/report/*", "*_report.json")
CHANGED = f"not as step match left it: it has \\d+ bytes, not \\d+ .*file {MATCHED}"


def damaged(world: World) -> None:
    (world.base / "run/all/matched").mkdir(parents=True)
    world.replace("run/all/matched/part-00000.parquet", b"PAR1 and no more")


def rewritten(file: str, change: Callable[[np.ndarray], np.ndarray], **cards: str) -> Break:
    """Have a product whose first table is another, with these cards."""

    def breaks(world: World) -> None:
        path = world.base / file
        tables = [Table(name, read_table(path, name), None, cards) for name in table_names(path)]
        write_tables(path, [tables[0]._replace(rows=change(tables[0].rows)), *tables[1:]])

    return breaks


def of_another(file: str, column: str, tile: str = OTHER, realization: str = "0") -> Break:
    """Have a product whose rows are those of another tile or realization."""

    def change(rows: np.ndarray) -> np.ndarray:
        rows[column] = object_ids(tile, realization, np.arange(1, len(rows) + 1))
        return rows

    return rewritten(file, change)


def detected(*places: tuple[float, float]) -> Break:
    """Have a realization in which these places were detected, (row, col), and fitted."""

    def breaks(world: World) -> None:
        tree = make_context(world.base).tree
        row, col = np.array(places).reshape(-1, 2).T
        for band in BANDS:
            write_catalogue(tree.catalog(band), row, col)
        fits = model_rows("exp", len(BANDS), len(places))
        fits["number"] = np.arange(len(places)) + 1
        write_fits(tree.fit("sof"), fits)

    return breaks


def one_injection(world: World) -> None:
    tree = make_context(world.base).tree
    label = read_table(tree.truth)["bal_id"][5]
    for path in (tree.truth, tree.truth_chips):
        rewritten(str(path), lambda rows: rows[rows["bal_id"] == label])(world)


def half_made(world: World) -> None:
    """Have a second realization, of which there is no more than the truth."""
    tree, other = (make_context(world.base, name).tree for name in "01")
    shift = object_ids(BARE_TILE, "1", [1])[0] - object_ids(BARE_TILE, "0", [1])[0]

    def renamed(rows: np.ndarray) -> np.ndarray:
        rows["bal_id"] += shift
        return rows

    for path, new in ((tree.truth, other.truth), (tree.truth_chips, other.truth_chips)):
        new.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, new)
        rewritten(str(new), renamed, TILENAME=BARE_TILE, CURRREAL="1")(world)


def gone(*files: str) -> Break:
    return all_of(*(lambda world, file=file: (world.base / file).unlink() for file in files))


def truncated(file: str) -> Break:
    return lambda world: world.replace(file, (world.base / file).read_bytes()[:-3000])


def of_the_other_tile(world: World) -> None:
    """Put the matched catalogue of another tile, as block 1024 leaves it, in the place of this one's."""

    def change(rows: np.ndarray) -> np.ndarray:
        rows["true_bal_id"], rows["tilename"] = object_ids(OTHER, "0", np.arange(len(rows)) + 1), OTHER
        return rows

    header = read_header(world.base / MATCHED, 1)
    rewritten(MATCHED, change, **{key: header[key] for key in ("BANDS", "MAGZERO")}, TILENAME=OTHER)(world)


def reported(*sentences: str, make: str = "") -> Callable[[World, Seen], str]:
    """Check that a report can be made, if it is not yet, and says so; return what the table is to say."""

    def check(world: World, seen: Seen) -> str:
        if make:
            world.succeed(make)
        page = make_context(world.base).base_tree.report.read_text(encoding="utf-8")
        text = html.unescape(re.sub(r"\s+", " ", page))
        assert [sentence for sentence in sentences if sentence not in text] == []
        return "the report says: " + " ".join(sentences)

    return check


def left_out(world: World, seen: Seen) -> str:
    """Check that the merge says what it lacks and has the rest."""
    assert f"Left out: {BARE_TILE} realization 1: it has not been made" in seen.out
    assert len(read_parquet(world.base / "run/all/matched/part-00000.parquet").rows) == 10
    return "new: run/all with the ten rows of realization 0"


ROWS = [
    ROW("a match radius of nothing", f"snakemake {T} --config match_radius=0", "match_radius: must be .*key match_rad"),
    ROW("fits of a kind that is none", f"snakemake {T} --config match_fits=sofa", "kinds of fits are sof .*'sofa'"),
    ROW("a kind of fits twice", f"snakemake {T} --config match_fits=sof,sof", "match_fits: one is named twice"),
    ROW(
        "brightness in a band that is not processed",
        f"balrog match {BARE_TILE} -r 0 --set match_bands=Y",
        "brightness is to be compared in a band that is not processed: Y.*\n.*g r i z",
    ),
    ROW("a match radius that is no number", f"{MATCH} --set match_radius=nan", "match_radius: must be .*not nan"),
    ROW("a match radius misspelt", f"{MATCH} --set match_radios=1", "'match_radios': did you mean 'match_radius'"),
    WRONG("a tile without injections, matched", f"{MATCH[:-2]} 1", "truth catalogue is not there .*\n.*mode 8"),
    LITTLE(
        "no detection, matched and reported",
        MATCH,
        "matched 0 of 10 injections",
        breaks=detected(),
        redone=ANEW,
        check=reported("0 of 10 injections detected.", "No model: none of 9 injections was detected.", make=REPORT),
    ),
    LITTLE(
        "no detection within the radius, matched and reported",
        MATCH,
        "matched 0 of 10 injections",
        breaks=detected((2.0, 2.0), (2.0, 390.0)),
        redone=ANEW,
        check=reported("0 of 10 injections detected.", "No object has a value of magnitude (g)", make=REPORT),
    ),
    LITTLE(
        "one injection, matched and reported",
        MATCH,
        "matched 1 of 1 injections",
        breaks=one_injection,
        redone=ANEW,
        check=reported("1 of 1 injection detected.", "No model: none of 1 injection was missed", make=REPORT),
    ),
    WRONG(
        "fits that are gone",
        MATCH,
        f"the catalogue of fits is not there .*file {FITS}.*\n.*mode 64",
        breaks=gone(FITS),
        redone=("*_match.json",),
    ),
    LITTLE(
        "fits that are gone, and are not asked for",
        f"{MATCH} --set match_fits=none",
        "matched 8 of 10 injections",
        breaks=gone(FITS),
        redone=ANEW,
    ),
    WRONG(
        "fits that were not made, asked for",
        f"{MATCH} --set match_fits=sof,mof",
        "the catalogue of fits of groups is not there .*\n.*mode 128",
        redone=("*_match.json",),
    ),
    WRONG(
        "a realization half made, matched",
        f"{MATCH[:-2]} 1",
        "a catalogue is not there .*realization 1, .*\n.*mode 16",
        breaks=half_made,
    ),
    LITTLE(
        "a realization half made, reported with another",
        REPORT,
        "report of 1 realization, without 1, not matched yet",
        breaks=half_made,
        leaves=PAGE,
        check=reported(
            "8 of 10 injections detected",
            "Not matched yet, and not in this report: realization 1 (block 1024 makes it).",
        ),
    ),
    WRONG("truth truncated", MATCH, f"file {TRUTH}", breaks=truncated(TRUTH), redone=("*_match.json",)),
    WRONG(
        "truth of another realization",
        MATCH,
        f"holds objects of another tile or realization .*file {TRUTH}, key bal_id",
        breaks=of_another(TRUTH, "bal_id", BARE_TILE, "1"),
        redone=("*_match.json",),
    ),
    WRONG(
        "a catalogue of another tile",
        MATCH,
        f"this is of another tile: '{OTHER}' .*file {CATALOG}, key TILENAME",
        breaks=rewritten(CATALOG, lambda rows: rows, TILENAME=OTHER),
        redone=("*_match.json",),
    ),
    WRONG(
        "fits of another tile",
        MATCH,
        f"the fits are of another tile or realization .*file {FITS}, key id",
        breaks=of_another(FITS, "id"),
        redone=("*_match.json",),
    ),
    WRONG("a matched catalogue truncated, reported", REPORT, CHANGED, breaks=truncated(MATCHED)),
    WRONG("a matched catalogue of another tile, reported", REPORT, CHANGED, breaks=of_the_other_tile),
    WRONG("a coadd that is gone, reported", REPORT, f"file {COADD}", breaks=gone(COADD)),
    ROW("merging no tile", "balrog merge run/all", "no tile is named\n.*--list"),
    ROW("merging an unknown tile", "balrog merge run/all DES0239+0217", "did you mean 'DES0239+0216'"),
    ROW("a list of tiles that is not there", "balrog merge run/all --list mine", "list of tiles cannot be read.*mine"),
    ROW(
        "a run that is not there", f"{MERGE} --from gone", "the directory of a run is not there .file gone, key --from"
    ),
    ROW(
        "merging into a directory that holds other things",
        f"balrog merge etc {BARE_TILE}",
        "the directory to merge into holds other things \\(file etc\\)",
    ),
    ROW(
        "merging into a file",
        f"balrog merge etc/pipeline.yaml {BARE_TILE}",
        "the directory to merge into is a file \\(file etc/pipeline.yaml\\)",
    ),
    WRONG(
        "merging a matched catalogue that is truncated",
        f"{MERGE} -r 0",
        f"nothing to merge: {PARQUET.rpartition('/')[2]} is not as block 1024 left it",
        breaks=truncated(PARQUET),
    ),
    WRONG(
        "merging a realization half made, with another",
        MERGE,
        "not all that was named is merged.*file run/all.*\n.*block 1024",
        breaks=half_made,
        leaves=("run/all/*",),
        check=left_out,
    ),
    ROW("merging what was not made", MERGE, "nothing to merge: it has not been made .file run/all", status=1),
    ROW("a report of nothing", "balrog report", "name tiles, or merged catalogues with --merged"),
    ROW("a report of an unknown tile", "balrog report DES0239+0217", "did you mean 'DES0239+0216'"),
    ROW(
        "a report of a tile that is not matched", REPORT, "no matched catalogue of realizations 0 1.*\n.*1024", status=1
    ),
    ROW("a report of no realization", f"{REPORT} --set realizations=none", "there is no realization to report on"),
    ROW("a report of a tile somewhere else", f"{REPORT} -o mine", "the report of a tile lies with its products"),
    ROW("a report of what is no merge", "balrog report --merged etc", "no merged catalogues here .file etc"),
    ROW(
        "a report of a damaged merge",
        "balrog report --merged run/all",
        "a merged catalogue cannot be read.*part-00000.parquet.*\n.*balrog merge again",
        status=1,
        breaks=damaged,
    ),
]
