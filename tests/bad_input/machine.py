"""The machine: full disks, directories that may not be read or written, unusual names."""

from functools import partial

from row import Row, all_of
from world import BARE_TILE, NAME, SMALL_TILE, TILE

FULL = partial(Row, "Full disks", status=1, stage="tile", again=True)
CLOSED = partial(Row, "Directories and files that may not be read or written")
NAMES = partial(Row, "Names of directories", status=0, remedy=False, leaves=("*",))

BASE = f"run/meds/y3v02/{TILE}"
INJECTED = f"run/meds/y3v02/balrog_images/0/y3v02/{TILE}"
BAND = f"{TILE} --band g"


def products_disk(room):
    return lambda world: world.small_disk(world.products, room)


def scratch_disk(room):
    return lambda world: world.small_disk(world.tmp, room)


def mode(bits, *names):
    """Take permissions from files or directories, and run as one for whom they hold."""

    def breaks(world):
        world.obey_permissions()
        for name in names:
            place = world.base / name
            place.mkdir(parents=True, exist_ok=True) if not place.exists() else None
            place.chmod(bits)

    return breaks


read_only = partial(mode, 0o555)
unreadable = partial(mode, 0)


def manifest(step, root="*"):
    return f"{root}/{TILE}/manifests/{TILE}_{step}.json"


def temporary_read_only(world):
    world.obey_permissions()
    world.tmp.mkdir()
    world.tmp.chmod(0o555)


def complete(world, seen):
    """Check that a whole tile has been made under names with blanks and accents."""
    lists = (world.tile() / "lists").glob("*_nullwt-flist-y3v02.dat")
    assert all(str(world.base) in path.read_text(encoding="utf-8") for path in lists)
    made = len(list(world.products.rglob("*.json")))
    return f"the whole tile and a realization, made below `{NAME}`: {made} manifests and lists"


def awkward(world):
    world.environment.update(MEDS_DATA=str(world.base / "données #1 50%41, ñ"))


PLACE = r"(the disk is full|the file is too big)"

ROWS = [
    FULL(
        "products: prep",
        f"balrog prep {BAND}",
        f"cannot be written: {PLACE} \\(tile {TILE}, band g, file \\S*_nullwt.fits\\)\n.*make room",
        breaks=products_disk(200_000),
        redone=(manifest("prep_g"),),
    ),
    FULL(
        "scratch: prep",
        f"balrog prep {BAND}",
        f"intermediate files cannot be written: {PLACE} \\(tile {TILE}, band g, file tmp é, key TMPDIR\\)\n.*make room",
        breaks=scratch_disk(100_000),
        redone=(manifest("prep_g"), "*/nullwt-g/*", "*/bkg-g/*"),
    ),
    FULL(
        "products: coadd",
        f"balrog coadd {BAND}",
        f"cannot be written: {PLACE} \\(tile {TILE}, band g, file {BASE}/coadd/{TILE}_g.fits\\)\n.*make room",
        breaks=products_disk(200_000),
        redone=(manifest("coadd_g"),),
    ),
    FULL(
        "scratch: coadd",
        f"balrog coadd {BAND}",
        f"swarp ended with status \\S+ \\(tile {TILE}, band g[\\s\\S]*remedy: the disk of tmp é is full: make room",
        breaks=scratch_disk(100_000),
        redone=(manifest("coadd_g"),),
    ),
    FULL(
        "products: catalogue",
        f"balrog detect {BAND}",
        f"cannot be written: {PLACE} \\(tile {TILE}, band g, file \\S*_segmap.fits\\)\n.*make room",
        breaks=products_disk(100_000),
        redone=(manifest("catalog_g"), "*_g_cat.fits"),
    ),
    FULL(
        "scratch: catalogue",
        f"balrog detect {BAND}",
        f"sextractor ended with status \\S+ \\(tile {TILE}, band g[\\s\\S]*remedy: the disk of tmp é is full",
        breaks=scratch_disk(100_000),
        redone=(manifest("catalog_g"),),
    ),
    FULL(
        "products: MEDS file",
        f"balrog meds {BAND}",
        f"fpack ended with status \\S+ \\(tile {TILE}, band g, file \\S*_meds-y3v02.fits.fz[\\s\\S]*disk of .* is full",
        breaks=products_disk(100_000),
        redone=(manifest("meds_g"),),
    ),
    FULL(
        "scratch: MEDS file",
        f"balrog meds {BAND}",
        f"intermediate files cannot be written: {PLACE} \\(tile {TILE}, band g, file tmp é, key TMPDIR\\)\n.*make room",
        breaks=scratch_disk(100_000),
        redone=(manifest("meds_g"),),
    ),
    FULL(
        "products: injection",
        f"balrog inject {BAND} -r 0",
        f"cannot be written: {PLACE} \\(tile {TILE}, realization 0, band g, file {INJECTED}/nullwt-g/\\S*\\)\n.*room",
        breaks=products_disk(300_000),
        redone=(manifest("inject_g", "*/balrog_images/0/y3v02"),),
    ),
    FULL(
        "products: fits",
        f"balrog sof {TILE}",
        f"cannot be written: {PLACE} \\(tile {TILE}, file run/meds/y3v02-sof/output/{TILE}-y3v02-sof.fits\\)\n.*room",
        breaks=products_disk(4096),
        redone=(manifest("sof"),),
    ),
    FULL(
        "products: nothing left for a log, a list or a lock",
        f"balrog coadd {BAND} --log {BASE}/logs/new.log",
        f"cannot be written: {PLACE} \\(tile {TILE}, band g, file .*\\)\n.*make room",
        breaks=products_disk(0),
        redone=(manifest("coadd_g"),),
    ),
    FULL(
        "products: in a run of Snakemake",
        f"snakemake --cores 1 --forcerun meds tile={TILE} --config mode=4 realizations=none",
        "fpack ended with status \\S+ [\\s\\S]*the disk of .* is full",
        breaks=products_disk(0),
        redone=("*/manifests/*_meds_?.json",),
        again=False,
    ),
    CLOSED(
        "MEDS_DATA read-only",
        f"snakemake tile={BARE_TILE}",
        "run/meds is not writable \\(key MEDS_DATA\\)",
        breaks=read_only("run/meds"),
    ),
    CLOSED(
        "MEDS_DATA read-only, one block",
        f"balrog prep {BARE_TILE}",
        f"lock of the tile cannot be opened: Permission denied .*file run/meds/y3v02/{BARE_TILE}/\\S*, key MEDS_DATA",
        breaks=read_only("run/meds"),
    ),
    CLOSED(
        "TMPDIR read-only",
        f"snakemake tile={BARE_TILE}",
        "tmp é is not writable \\(key TMPDIR\\)",
        breaks=temporary_read_only,
    ),
    CLOSED(
        "MEDS_DATA is a file",
        f"snakemake tile={BARE_TILE}",
        "run/meds is not a directory \\(key MEDS_DATA\\)",
        breaks=lambda world: world.replace("run/meds", b""),
    ),
    CLOSED(
        "a bracket in the name of MEDS_DATA",
        f"snakemake tile={BARE_TILE}",
        "\\{x\\} has \\{ \\} in its name, .* \\(key MEDS_DATA\\)",
        breaks=lambda world: world.environment.update(MEDS_DATA=str(world.base / "{x}")),
    ),
    CLOSED(
        "the checkout read-only",
        f"snakemake tile={BARE_TILE} --config mode=1",
        "the checkout is not writable, and Snakemake keeps its records in .snakemake.*\n.*--directory",
        breaks=all_of(
            lambda world: world.environment.update(MEDS_DATA=str(world.directory / "elsewhere")),
            read_only("."),
        ),
    ),
    CLOSED(
        "log that cannot be written",
        f"balrog prep {BARE_TILE} --log /dev/null/x.log",
        "the log cannot be written: File exists \\(file /dev/null/x.log\\)\n.*--log",
    ),
    CLOSED(
        "old command in a directory read-only",
        f"RunBase.sh meds {BARE_TILE} bal_config_hex.yaml 1",
        f"the log base_{BARE_TILE}.log cannot be written",
        remedy=False,
        breaks=read_only("."),
    ),
    CLOSED(
        "configuration unreadable",
        f"balrog prep {BARE_TILE}",
        "cannot be read: Permission denied \\(file etc/pipeline.yaml\\)",
        breaks=unreadable("etc/pipeline.yaml"),
    ),
    CLOSED(
        "directory of the injection configuration unreadable",
        f"snakemake tile={BARE_TILE}",
        "Permission denied \\(file inputs/bal_config_hex.yaml\\)",
        status=1,
        breaks=unreadable("inputs"),
    ),
    CLOSED(
        "archive unreadable",
        f"snakemake tile={BARE_TILE}",
        "Permission denied \\(file run/archive/synthetic/archive.db\\)",
        status=1,
        breaks=unreadable("run/archive"),
    ),
    CLOSED(
        "database of the archive unreadable",
        f"balrog prep {SMALL_TILE}",
        "run/archive/small/archive.db cannot be queried: unable to open database file",
        status=1,
        stage="small",
        breaks=unreadable("run/archive/small/archive.db"),
    ),
    CLOSED(
        "file of the archive unreadable",
        f"balrog prep {SMALL_TILE}",
        f"cannot be fetched: Permission denied \\(tile {SMALL_TILE}, band g, file \\S*_g_c01_r2356p01_bkg.fits.fz",
        status=1,
        stage="small",
        breaks=lambda world: (world.obey_permissions(), world.small.file("D00229300_g_c01*_bkg*").chmod(0)),
        leaves=("*/sources-g/*",),
    ),
    CLOSED(
        "directory of coadds read-only",
        f"balrog coadd {BAND}",
        f"{BASE}/coadd is not writable \\(tile {TILE}, band g, file {BASE}/coadd/{TILE}_g.fits\\)",
        status=1,
        stage="tile",
        breaks=read_only(f"{BASE}/coadd"),
        redone=(manifest("coadd_g"),),
    ),
    CLOSED(
        "directory of manifests read-only",
        f"balrog coadd {BAND}",
        f"Permission denied \\(file {BASE}/manifests/{TILE}_coadd_g.json\\)",
        status=1,
        stage="tile",
        breaks=read_only(f"{BASE}/manifests"),
    ),
    CLOSED(
        "directory of fits read-only",
        f"balrog sof {TILE}",
        f"output is not writable \\(tile {TILE}, file run/meds/y3v02-sof/output/{TILE}-y3v02-sof.fits\\)",
        status=1,
        stage="tile",
        breaks=read_only("run/meds/y3v02-sof/output"),
        redone=(manifest("sof"),),
    ),
    CLOSED(
        "directory of a realization read-only",
        f"balrog inject {TILE} -r 0",
        f"is not writable \\(tile {TILE}, realization 0, file {INJECTED}/{TILE}_0_balrog_plan.fits\\)",
        status=1,
        stage="tile",
        breaks=read_only(INJECTED),
        redone=(manifest("plan", "*/balrog_images/0/y3v02"),),
    ),
    CLOSED(
        "images of an earlier step unreadable",
        f"balrog coadd {BAND}",
        f"Permission denied \\(.*file {BASE}/nullwt-g/\\S*_nullwt.fits\\)",
        status=1,
        stage="tile",
        breaks=unreadable(f"{BASE}/nullwt-g"),
        redone=(manifest("coadd_g"),),
    ),
    CLOSED(
        "product of an earlier step unreadable",
        f"balrog detect {BAND}",
        f"a file cannot be read: Permission denied \\(tile {TILE}, band g, file {BASE}/coadd/{TILE}_g.fits\\)",
        status=1,
        stage="tile",
        breaks=unreadable(f"{BASE}/coadd/{TILE}_g.fits"),
        redone=(manifest("catalog_g"),),
    ),
    CLOSED(
        "tile unreadable",
        f"snakemake tile={TILE}",
        f"Permission denied \\(file {BASE}/\\S*\\)",
        status=1,
        stage="tile",
        breaks=unreadable(BASE),
    ),
    NAMES(
        "blanks, accents and signs in MEDS_DATA",
        f"balrog prep {SMALL_TILE}",
        "4 CCDs ready",
        stage="small",
        breaks=awkward,
        check=lambda world, seen: (
            "all products below `données #1 50%41, ñ`"
            if (world.base / "données #1 50%41, ñ/y3v02" / SMALL_TILE / "manifests").is_dir()
            else ""
        ),
    ),
    NAMES(
        "blanks and accents in the names of the checkout and of TMPDIR",
        f"snakemake --cores 2 tile={TILE} --config mode=127 realizations=0",
        "Nothing to be done",
        stage="tile",
        check=complete,
    ),
]
