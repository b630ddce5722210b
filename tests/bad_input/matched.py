"""Matching and merging: settings, tiles and runs that are not there, places that are taken."""

from functools import partial

from row import Row
from world import BARE_TILE

ROW = partial(Row, "Matching and merging")
T = f"tile={BARE_TILE}"
MERGE = f"balrog merge run/all {BARE_TILE}"

ROWS = [
    ROW("a match radius of nothing", f"snakemake {T} --config match_radius=0", "match_radius: must be .*key match_rad"),
    ROW("fits of a kind that is none", f"snakemake {T} --config match_fits=sofa", "kinds of fits are sof .*'sofa'"),
    ROW("a kind of fits twice", f"snakemake {T} --config match_fits=sof,sof", "match_fits: one is named twice"),
    ROW(
        "brightness in a band that is not processed",
        f"balrog match {BARE_TILE} -r 0 --set match_bands=Y",
        "brightness is to be compared in a band that is not processed: Y.*\n.*g r i z",
    ),
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
    ROW("merging what was not made", MERGE, "nothing to merge: it has not been made .file run/all", status=1),
]
