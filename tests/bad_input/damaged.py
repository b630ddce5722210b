"""Products of earlier steps that are truncated, edited or gone, manifests, and skies without anything to find."""

import json
from functools import partial

from machine import BAND, BASE, INJECTED, manifest
from row import Row, all_of
from world import SMALL_TILE, TILE

DAMAGED = partial(Row, "Products of earlier steps", status=1, stage="tile")
NOTHING = partial(Row, "Nothing to measure", status=1, stage="tile")

NULLWT = f"{BASE}/nullwt-g/D00634850_g_c34_r0001p01_immasked_nullwt.fits"
PSF = f"{BASE}/psfs/D00634850_g_c34_r0001p01_psfexcat.psf"
COADD = f"{BASE}/coadd/{TILE}_g.fits"
CATALOG = f"{BASE}/coadd/{TILE}_g_cat.fits"
MEDS = f"{BASE}/{TILE}_g_meds-y3v02.fits.fz"
LIST = f"{BASE}/lists/{TILE}_g_nullwt-flist-y3v02.dat"
GEOMETRY = f"{BASE}/lists/{TILE}_geometry.json"
PLAN = f"{INJECTED}/{TILE}_0_balrog_plan.fits"
PREPARED = f"{BASE}/manifests/{TILE}_prep_g.json"
INJECT = manifest("inject_g", "*/balrog_images/0/y3v02")
PLANNED = manifest("plan", "*/balrog_images/0/y3v02")
INJECTION = "inputs/bal_config_DES1226+2527.yaml"
REPAIR = "\n.*balrog repair"


def truncated(file):
    return lambda world: world.replace(file, (world.base / file).read_bytes()[:-3000])


def edited(file):
    def breaks(world):
        content = bytearray((world.base / file).read_bytes())
        content[-3000] ^= 0xFF
        world.replace(file, bytes(content))

    return breaks


def gone(file):
    return lambda world: (world.base / file).unlink()


def holding(file, content):
    return lambda world: world.replace(file, content)


def changed(step, file, what="its content has changed", realization=""):
    return f"not as step {step} left it: {what} \\(tile {TILE},{realization}.*file {file}\\){REPAIR}"


def short(step, file, realization=""):
    return changed(step, file, "it has \\d+ bytes, not \\d+", realization)


def few(image="n_objects: 3", catalog=""):
    """Have the injection configuration of one kind of object."""
    text = f"""
input: {{ngmix_catalog: {{dir: inputs, file_name: galaxies_exp.fits, catalog_type: bdf{catalog}}}}}
gal: {{type: ngmixGalaxy}}
psf: {{type: DES_PSFEx}}
stamp: {{draw_method: no_pixel}}
image: {{type: Balrog, realizations: [0], {image}}}
"""
    return holding(INJECTION, text.encode())


ROWS = [
    DAMAGED(
        "null-weight image truncated",
        f"balrog coadd {BAND}",
        short("prep", NULLWT),
        breaks=truncated(NULLWT),
        redone=(manifest("coadd_g"),),
    ),
    DAMAGED(
        "null-weight image gone",
        f"balrog coadd {BAND}",
        f"is not there \\(tile {TILE}, band g, file {NULLWT}\\)\n.*prep again",
        breaks=gone(NULLWT),
        redone=(manifest("coadd_g"),),
    ),
    DAMAGED(
        "null-weight image edited, injected into",
        f"balrog inject {BAND} -r 0",
        changed("prep", NULLWT, realization=" realization 0, band g"),
        breaks=edited(NULLWT),
        redone=(INJECT,),
    ),
    DAMAGED(
        "null-weight image truncated, cut out of",
        f"balrog meds {BAND}",
        short("prep", NULLWT),
        breaks=truncated(NULLWT),
        redone=(manifest("meds_g"),),
    ),
    DAMAGED(
        "PSF model edited", f"balrog inject {BAND} -r 0", changed("prep", PSF), breaks=edited(PSF), redone=(INJECT,)
    ),
    DAMAGED(
        "list edited",
        f"balrog coadd {BAND}",
        short("prep", LIST),
        breaks=lambda world: world.replace(LIST, (world.base / LIST).read_bytes() + b"\n"),
        redone=(manifest("coadd_g"),),
    ),
    DAMAGED(
        "geometry edited",
        f"balrog coadd {BAND}",
        changed("prep", GEOMETRY, "it has \\d+ bytes, not \\d+"),
        breaks=lambda world: world.edit(GEOMETRY, '"naxis1": 253', '"naxis1": 2530'),
        redone=(manifest("coadd_g"),),
    ),
    DAMAGED(
        "coadd truncated",
        f"balrog detect {BAND}",
        short("coadd", COADD),
        breaks=truncated(COADD),
        redone=(manifest("catalog_g"),),
    ),
    DAMAGED(
        "coadd edited",
        f"balrog meds {BAND}",
        changed("coadd", COADD),
        breaks=edited(COADD),
        redone=(manifest("meds_g"),),
    ),
    DAMAGED(
        "coadd gone",
        f"balrog meds {BAND}",
        f"a product is not there \\(tile {TILE}, band g, file {COADD}\\)\n.*mode 2",
        breaks=gone(COADD),
        redone=(manifest("meds_g"),),
    ),
    DAMAGED(
        "catalogue edited",
        f"balrog meds {BAND}",
        changed("catalog", CATALOG),
        breaks=edited(CATALOG),
        redone=(manifest("meds_g"),),
    ),
    DAMAGED(
        "MEDS file truncated",
        f"balrog sof {TILE}",
        short("meds", MEDS),
        breaks=truncated(MEDS),
        redone=(manifest("sof"),),
    ),
    DAMAGED(
        "MEDS file edited", f"balrog sof {TILE}", changed("meds", MEDS), breaks=edited(MEDS), redone=(manifest("sof"),)
    ),
    DAMAGED(
        "MEDS file gone",
        f"balrog sof {TILE}",
        f"a MEDS file is not there \\(tile {TILE}, band g, file {MEDS}\\)\n.*block 4",
        breaks=gone(MEDS),
    ),
    DAMAGED(
        "plan truncated", f"balrog inject {BAND} -r 0", short("plan", PLAN), breaks=truncated(PLAN), redone=(INJECT,)
    ),
    DAMAGED(
        "plan gone",
        f"balrog inject {BAND} -r 0",
        f"a product is gone \\(tile {TILE}, realization 0, band g, file {PLAN}\\)\n.*snakemake",
        breaks=gone(PLAN),
        redone=(INJECT,),
    ),
    DAMAGED(
        "null-weight image truncated, in a run of Snakemake",
        f"snakemake --cores 1 --forcerun coadd tile={TILE} --config mode=2 realizations=none",
        short("prep", NULLWT),
        breaks=truncated(NULLWT),
        redone=(
            "*/manifests/*_coadd_?.json",
            "*/manifests/*_coadd_det.json",
            "*/manifests/*_catalog_?.json",
            "*/coadd/*",
            "*_objmap-*",
        ),
    ),
    DAMAGED(
        "null-weight image gone, the same command as ever",
        f"snakemake -n tile={TILE} --config mode=127 realizations=0",
        f"{NULLWT} is gone or unreadable; step prep will be made again",
        status=0,
        remedy=False,
        breaks=gone(NULLWT),
        redone=(manifest("prep_g"),),
    ),
    DAMAGED(
        "manifest that is no JSON",
        f"balrog coadd {BAND}",
        f"a manifest cannot be read \\(tile {TILE}, band g, file {PREPARED}\\)\n.*remove it",
        breaks=holding(PREPARED, b"{"),
    ),
    DAMAGED(
        "manifest without its keys",
        f"balrog coadd {BAND}",
        f"a manifest lacks its keys \\(tile {TILE}, band g, file {PREPARED}\\)",
        breaks=holding(PREPARED, b"{}"),
    ),
    DAMAGED(
        "manifest that is no JSON, the same command as ever",
        f"snakemake -n tile={TILE} --config mode=127 realizations=0",
        f"{PREPARED} is gone or unreadable; step prep will be made again",
        status=0,
        remedy=False,
        breaks=holding(PREPARED, b"{"),
        redone=(manifest("prep_g"),),
    ),
    DAMAGED(
        "manifest without its times, summarized",
        f"balrog summary {TILE}",
        f"a manifest lacks counts, cpu_seconds.* \\(file {PREPARED}\\)",
        breaks=holding(PREPARED, json.dumps({"step": "prep", "inputs": [], "outputs": []}).encode()),
    ),
    NOTHING(
        "no detection",
        f"snakemake --cores 1 tile={SMALL_TILE} --config mode=3 realizations=none",
        f"nothing was detected on the tile \\(tile {SMALL_TILE}, band g",
        stage="small",
        long=True,
        leaves=("*",),
    ),
    NOTHING(
        "no injection: none asked for",
        f"balrog inject {TILE} -r 0",
        f"no ngmixGalaxy gets a position in realization 0 \\(tile {TILE}, realization 0, file {INJECTION}, key",
        breaks=few("n_objects: 0"),
        redone=(PLANNED,),
    ),
    NOTHING(
        "no injection: a grid wider than the tile",
        f"balrog inject {TILE} -r 0",
        f"no point of a RectGrid of 500 arcsec fits.* \\(tile {TILE}, realization 0, file {INJECTION}, key",
        breaks=few("pos_sampling: {type: RectGrid, grid_spacing: 500}"),
        redone=(PLANNED,),
    ),
    NOTHING(
        "no injection: cuts that leave nothing",
        f"balrog inject {TILE} -r 0",
        f"no ngmixGalaxy is left after the cuts \\(tile {TILE}, realization 0, file inputs/galaxies_exp.fits, key in",
        status=2,
        breaks=few(catalog=", t_min: 1.0e+9"),
        redone=(PLANNED,),
    ),
    NOTHING(
        "no injection: a catalogue that is none",
        f"balrog inject {TILE} -r 0",
        f"a FITS file cannot be opened: .* \\(tile {TILE}, realization 0, file inputs/galaxies_exp.fits\\)",
        breaks=all_of(few(), holding("inputs/galaxies_exp.fits", b"no catalogue")),
        redone=(PLANNED,),
    ),
]
