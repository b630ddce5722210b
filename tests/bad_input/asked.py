"""What is asked for: tiles, keys and modes on the command lines of Snakemake, balrog and the old scripts."""

from functools import partial

from row import Row
from world import BARE_TILE, SMALL_TILE, TILE

TILES = partial(Row, "Tiles")
KEYS = partial(Row, "Keys and modes")
OLD = partial(Row, "The old commands")

T = f"tile={BARE_TILE}"
SET = f"balrog prep {BARE_TILE} --set"
BASE = f"-c meds-y3v02.yaml -t {BARE_TILE}"
INJECTION = f"{BARE_TILE} bal_config_hex.yaml"
FITS = f"{BARE_TILE} run-y3v02-sof.yaml"


def listed(text):
    return lambda world: (world.base / "tiles.txt").write_text(text)


def measured(text):
    """Leave what was measured of the machine."""

    def breaks(world):
        (world.base / "run").mkdir(exist_ok=True)
        (world.base / "run" / "plan.json").write_text(text)

    return breaks


ROWS = [
    TILES("unknown tile", "snakemake tile=DES0239+0217", "no campaign lists this tile: did you mean 'DES0239+0216'"),
    TILES("unknown tile, one block", "balrog prep DES0239+0217", "did you mean 'DES0239+0216'.*tile DES0239+0217"),
    TILES("lower case", "snakemake tile=des0239+0216", "did you mean 'DES0239+0216'.*tile des0239+0216"),
    TILES("lower case, one block", "balrog coadd des0239+0216", "did you mean 'DES0239+0216'"),
    TILES("stray blank", f"snakemake 'tile= {BARE_TILE}'", "is not one tile\n.*write tile=DES0239+0216$"),
    TILES("stray blank, one block", f"balrog prep ' {BARE_TILE}'", "did you mean 'DES0239+0216'"),
    TILES("two tiles in one word", f"snakemake {T},DES0240+0216", "is not one tile\n.*tile=DES0239\\S+ tile=DES0240"),
    TILES("no tile in the word", "snakemake tile=", "tile= names no tile\n.*for example tile=DES0239"),
    TILES("tile= misspelt", f"snakemake tyle={BARE_TILE}", "is no target: did you mean tile=DES0239+0216\\?"),
    TILES("tile without tile=", f"snakemake {BARE_TILE}", "is no target: did you mean tile=DES0239+0216\\?"),
    TILES("second tile without tile=", f"snakemake {T} DES0240+0216", "did you mean tile=DES0240+0216\\?"),
    TILES("a name that is none", "balrog prep ../x --set campaign=decam", "not the name of a tile.*tile \\.\\./x"),
    TILES(
        "tile that the archive does not have",
        "snakemake --cores 1 tile=DES2044-5341 --config mode=1",
        "the archive has no such tile: did you mean 'DES2044-5300'.*tile DES2044-5341",
        status=1,
        stage="small",
    ),
    TILES(
        "tile of an archive that has none",
        f"balrog prep {SMALL_TILE}",
        f"the archive has no such tile: known: none \\(tile {SMALL_TILE}, band g\\)\n.*which has no tiles",
        stage="small",
        breaks=lambda world: world.forget("y3a2_coaddtile_geom"),
    ),
    TILES(
        "tile without exposures in the archive",
        f"balrog prep {SMALL_TILE}",
        f"no single-epoch image of this tile and band.*tile {SMALL_TILE}, band g",
        status=1,
        stage="small",
        breaks=lambda world: world.forget("y3a2_image", filetype="coadd_nwgint"),
    ),
    TILES("band the tile lacks", f"balrog prep {BARE_TILE} --band u", "no band u.*tile DES0239.*\n.*g r i z"),
    TILES(
        "tile of which nothing is made", f"balrog summary {TILE}", f"nothing has been made.*\n.*tile={TILE}", status=1
    ),
    TILES(
        "realization that is none",
        f"balrog coadd {BARE_TILE} -r 7",
        "realization 7 is not one.*: 0 1.*\n.*realizations=7",
    ),
    TILES(
        "explain a file that is no product", "balrog explain etc/pipeline.yaml", "neither a product of a tile nor.*yaml"
    ),
    TILES("explain a number that is no bal_id", "balrog explain 12", "12 is not the bal_id of an injected object"),
    TILES(
        "explain an object of an unknown tile", "balrog explain 2023902170000001", "no campaign lists.*DES0239\\+0217"
    ),
    TILES(
        "explain a tile of which nothing is made",
        f"balrog explain run/meds/y3v02/{TILE}/coadd/{TILE}_g.fits",
        f"nothing has been made.*\n.*tile={TILE}",
        status=1,
    ),
    TILES("status where no tile is started", "balrog status", "no tile has been started yet.*\n.*name the tiles"),
    TILES("status of an unknown tile", "balrog status DES0239+0217", "no campaign lists this tile: did you mean"),
    TILES(
        "doctor with a value that is no YAML",
        f"balrog doctor {BARE_TILE} --set 'sed=[1'",
        "a value that cannot be read.*key sed",
    ),
    TILES(
        "plan of a tile whose injections are not known",
        f"balrog plan {SMALL_TILE}",
        f"how many objects are injected.*tile {SMALL_TILE}\\)\n.*--injections N",
        stage="small",
    ),
    TILES("plan of an unknown tile", "balrog plan DES0239+0217", "no campaign lists this tile: did you mean"),
    TILES(
        "plan of a tile without an archive",
        f"balrog plan {BARE_TILE}",
        f"the archive of campaign synthetic is not there.*tile {BARE_TILE}, file .*\n.*balrog archive synthetic",
        breaks=lambda world: (world.base / "run" / "archive" / "synthetic" / "archive.db").unlink(),
    ),
    TILES(
        "plan of a tile whose images the archive lacks",
        f"balrog plan {SMALL_TILE} --injections 9",
        f"a file is missing in the archive.*tile {SMALL_TILE}, file .*immasked.fits.fz\\)\n.*repair the archive",
        status=1,
        stage="small",
        breaks=lambda world: [one.unlink() for one in world.base.rglob("*_immasked.fits.fz")],
    ),
    TILES("plan for no cores", f"balrog plan {BARE_TILE} --cores 0", "'--cores': 0 is not in the range", remedy=False),
    TILES("plan of less than no tiles", f"balrog plan {BARE_TILE} --tiles -3", "'--tiles': -3 is not in", remedy=False),
    TILES(
        "plan of fewer tiles than are named",
        f"balrog plan {BARE_TILE} DES0240+0216 --tiles 1",
        "fewer tiles, 1, than the 2 that are named.*key --tiles",
    ),
    TILES(
        "plan where what was measured of the machine is half written",
        f"balrog plan {BARE_TILE}",
        "what was measured of this machine cannot be read.*run/plan.json\\)\n.*--calibrate",
        status=1,
        breaks=measured('{"cpu_scales": {"so'),
    ),
    TILES(
        "measure a machine on which nothing is made",
        f"balrog plan {BARE_TILE} --calibrate",
        f"nothing has been made of these tiles here.*\n.*tile={BARE_TILE}",
        status=1,
    ),
    TILES(
        "clean a class that is none",
        f"balrog clean {BARE_TILE} --remove coadd",
        "there is no class of products 'coadd': did you mean 'coadds'",
    ),
    TILES("clean a tile of which nothing is made", f"balrog clean {BARE_TILE}", "nothing has been made of", status=1),
    TILES("restore images of an unknown tile", "balrog restore DES0239+0217", "no campaign lists this tile"),
    TILES("a campaign without its list", "balrog campaign tiles.txt", "the list of tiles cannot be read: No such file"),
    TILES(
        "a campaign with an unknown tile",
        "balrog campaign tiles.txt",
        "no campaign lists this tile: did you mean 'DES0239+0216'.*file tiles.txt, line 2",
        breaks=listed(f"{BARE_TILE}\nDES0239+0217\n"),
    ),
    TILES(
        "a campaign with a tile twice",
        "balrog campaign tiles.txt",
        "a tile is named again in line 2 .*file tiles.txt",
        breaks=listed(f"{BARE_TILE}\n{BARE_TILE}\n"),
    ),
    TILES(
        "a campaign of a directory", "balrog campaign etc", "the list of tiles cannot be read: Is a directory.*file etc"
    ),
    TILES(
        "a campaign of no tile",
        "balrog campaign tiles.txt",
        "the list names no tile .*tiles.txt",
        breaks=listed("# none yet\n\n"),
    ),
    TILES(
        "a campaign of a path",
        "balrog campaign tiles.txt --set campaign=synthetic",
        "not the name of a tile \\(tile ../../x, file tiles.txt, line 1\\)",
        breaks=listed("../../x\n"),
    ),
    TILES(
        "a campaign with settings of Snakemake",
        "balrog campaign tiles.txt -- --configfile mine.yaml",
        "'--configfile' is not for a campaign\n.*--set KEY=VALUE",
        breaks=listed(f"{BARE_TILE}\n"),
    ),
    TILES(
        "a campaign with a tile among its settings",
        "balrog campaign tiles.txt --set tile=DES0240+0216",
        "the setting tile is not for a campaign.*key tile",
        breaks=listed(f"{BARE_TILE}\n"),
    ),
    TILES(
        "a campaign with an option that Snakemake does not have",
        "balrog campaign tiles.txt -- --coress 2",
        "Snakemake does not take these options: unrecognized arguments: --coress 2",
        breaks=listed(f"{BARE_TILE}\n"),
    ),
    TILES("unknown archive", "balrog archive synthtic", "no campaign or tile 'synthtic': did you mean 'synthetic'"),
    KEYS("unknown key", f"snakemake {T} --config mod=3", "unknown key 'mod': did you mean 'mode'"),
    KEYS("unknown key, one block", f"balrog meds {BARE_TILE} --set sed=1", "unknown key 'sed': did you mean 'seed'"),
    KEYS("key without --config", f"snakemake {T} mode=3", "'mode=3' is no target: did you mean --config mode=3"),
    KEYS("key without a value", f"balrog meds {BARE_TILE} --set seed", "--set takes key=value, not 'seed'"),
    KEYS("value that is no YAML", f"balrog meds {BARE_TILE} --set 'seed=[1'", "a value that cannot be read.*key seed"),
    KEYS(
        "value that is a date of no calendar",
        f"balrog meds {BARE_TILE} --set seed=2020-99-99",
        "seed: must be a whole number, not '2020-99-99'.*key seed",
    ),
    KEYS("a range of realizations", f"{SET} realizations=1-1000000", "realization.*whole number.*not '1-1000000'"),
    KEYS("a realization below 0", f"{SET} realizations=-1", "realization.*whole number.*not '-1'"),
    KEYS("value of the wrong type", f"snakemake {T} --config seed=many", "seed: must be a whole number, not 'many'"),
    KEYS(
        "images to keep that are none", f"snakemake {T} --config keep=meds", "injected differences, or none, not 'meds'"
    ),
    KEYS(
        "images and their differences, both kept",
        f"snakemake {T} --config keep=injected,differences",
        "differences are kept of injected images that are not: name one of the two.*key keep",
    ),
    KEYS("mode too large", f"snakemake {T} --config mode=3000", "mode: must be at most 2047, not 3000.*key mode"),
    KEYS("mode 0", f"snakemake {T} --config mode=0", "mode: must be at least 1, not 0.*key mode"),
    KEYS(
        "moments of nothing",
        f"snakemake {T} --config mode=512",
        "block 512 \\(bfd\\).*block 4 makes.*\n.*mode=516",
    ),
    KEYS(
        "MEDS files of nothing",
        f"snakemake {T} --config mode=4",
        "block 4 \\(meds\\) needs a product.*block 1 makes it.*tile DES0239+0216, band g, file .*\n.*mode=5",
    ),
    KEYS("injection into nothing", f"snakemake {T} --config mode=8", "block 8 \\(plan\\) needs.*block 1 makes it"),
    KEYS("coadds of no injection", f"snakemake {T} --config mode=16", "block 16 \\(coadd\\) needs.*block 8 makes it"),
    KEYS("band the campaign lacks", f"{SET} bands=g,y", "band y is not in campaign.*\n.*g r i z"),
    KEYS("no detection band", f"snakemake {T} --config bands=g", "none of the detection bands r z i.*key bands"),
    KEYS("unknown campaign", f"{SET} campaign=synthetc", "did you mean 'synthetic'.*key campaign"),
    KEYS(
        "configuration file that is not there",
        f"snakemake {T} --config galsim_config=bal_config_hax.yaml",
        "bal_config_hax.yaml is not there: did you mean 'bal_config_hex.yaml'.*key galsim_config",
    ),
    KEYS(
        "realization that is no number",
        f"{SET} realizations=0,x",
        "realization.*whole number.*'x'",
    ),
    KEYS("a band twice", f"{SET} bands=g,r,r", "bands: one is named twice \\(key bands"),
    KEYS("medsconf the campaign lacks", f"{SET} medsconf=y9", "medsconf y3v02.*y9.*key medsconf"),
    KEYS("no workers", f"balrog sof {BARE_TILE} --workers 0", "'--workers': 0 is not in the range", remedy=False),
    OLD("RunBase.sh: too few", f"RunBase.sh meds {INJECTION}", "RunBase.sh <meds base> <tile>", remedy=False),
    OLD("RunBase.sh: too many", f"RunBase.sh meds {INJECTION} 1 2 3", "<mode> \\[<ncpu>\\]", remedy=False),
    OLD("RunBase.sh: mode in words", f"RunBase.sh meds {INJECTION} all", "'--mode': 'all'", remedy=False),
    OLD("RunBase.sh: mode too large", f"RunBase.sh meds {INJECTION} 4096", "mode: must be at most 2047, not 4096"),
    OLD("RunBase.sh: unknown tile", "RunBase.sh meds DES0239+0217 x 1", "did you mean 'DES0239+0216'"),
    OLD("RunBase.sh: a tile that is none", "RunBase.sh meds ../../x x 1", "log .* cannot be written", remedy=False),
    OLD("RunBase.sh: no such configuration", f"RunBase.sh meds {BARE_TILE} hax.yaml 1", "hax.yaml is not there"),
    OLD("RunBase.sh: MEDS files of nothing", f"RunBase.sh meds {INJECTION} 4", "block 1 makes it"),
    OLD("RunInject.sh: too few", f"RunInject.sh meds/y3v02 {INJECTION}", "<meds base>/<medsconf>", remedy=False),
    OLD("RunInject.sh: too many", f"RunInject.sh meds/y3v02 {INJECTION} 2 3", "<galsim config> <ncpu>", remedy=False),
    OLD("RunInject.sh: no cores", f"RunInject.sh meds/y3v02 {INJECTION} 0", "'--ncpu': 0 is not", remedy=False),
    OLD("RunInject.sh: into nothing", f"RunInject.sh meds/y3v02 {INJECTION} 2", "block 8 \\(plan\\) needs"),
    OLD("RunSof.sh: too few", f"RunSof.sh meds {FITS}", "<tile> <sof config> <ncpu>", remedy=False),
    OLD("RunSof.sh: too many", f"RunSof.sh meds {FITS} 2 3", "<tile> <sof config> <ncpu>", remedy=False),
    OLD("RunSof.sh: empty meds base", f"RunSof.sh '' {FITS} 2", "the meds base is empty", remedy=False),
    OLD(
        "RunSof.sh: no such configuration", f"RunSof.sh meds {BARE_TILE} run-soff.yaml 2", "run-soff.yaml is not there"
    ),
    OLD("RunSof.sh: fits of nothing", f"RunSof.sh meds {FITS} 2", "needs? a MEDS file.*block 4 makes it"),
    OLD("RunSof.sh: fits of no realization", f"RunSof.sh meds/y3v02/balrog_images/7 {FITS} 2", "block 32 makes it"),
    OLD("RunBfd.sh: too few", "RunBfd.sh meds", "<meds base> <tile> \\[<ncpu>\\]", remedy=False),
    OLD("RunBfd.sh: too many", f"RunBfd.sh meds {BARE_TILE} 2 3", "<meds base> <tile> \\[<ncpu>\\]", remedy=False),
    OLD("RunBfd.sh: no cores", f"RunBfd.sh meds {BARE_TILE} 0", "'--ncpu': 0 is not in the range", remedy=False),
    OLD("RunBfd.sh: moments of nothing", f"RunBfd.sh meds {BARE_TILE}", "need a MEDS file.*block 4 makes it"),
    OLD("BalrogBase.py: no arguments", "BalrogBase.py", "Missing option '-c' / '--confs'", remedy=False),
    OLD(
        "BalrogBase.py: no such configuration",
        f"BalrogBase.py {BASE} -g x -m 1".replace("meds-", "mads-"),
        "mads-y3v02",
    ),
    OLD(
        "BalrogBase.py: mode 0", f"BalrogBase.py {BASE} -g bal_config_hex.yaml -m 0", "'--mode': 0 is not", remedy=False
    ),
    OLD("BalrogSofMegamixer.py: no tile", "BalrogSofMegamixer.py -c x -n 1", "Missing option '-t'", remedy=False),
]
