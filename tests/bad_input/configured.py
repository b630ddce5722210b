"""Every configuration file: a typo, a key given twice, a wrong type, a line that is no YAML."""

from functools import partial

from row import Row
from world import BARE_TILE

CONFIGURED = partial(Row, "Configuration files")

# File; command that reads it; a line of it; the same with a typo, and what was meant; a wrong value, and what it must
# be; a line that is no YAML.
FILES = [
    (
        *("etc/pipeline.yaml", f"balrog meds {BARE_TILE}", "seed: 20181105"),
        *(("sed: 20181105", "'sed' in line 8: did you mean 'seed'"), ("seed: many", "seed in line 8: must be a whole")),
        "seed: [1",
    ),
    (
        *("etc/campaigns.yaml", f"balrog meds {BARE_TILE}", "    se_proctag: Y3A1_FINALCUT"),
        *(("    se_proctg: X", "'campaigns.synthetic.se_proctg' in line 16: did you mean 'se_proctag'"),),
        *(("    se_proctag: [1]", "se_proctag in line 16: must be a word, not \\[1\\]"), "    se_proctag: [1"),
    ),
    (
        *("etc/survey.yaml", "balrog archive synthetic --workers 1", "exposure_time: 90"),
        *(("exposure_tim: 90", "'exposure_tim' in line \\d+: did you mean 'exposure_time'"),),
        *(("exposure_time: long", "exposure_time in line \\d+: must be a number, not 'long'"), "exposure_time: [90"),
    ),
    (
        *("desmeds-config/meds-y3v02.yaml", f"balrog meds {BARE_TILE}", "sigma_fac: 5.0"),
        *(("sigma_fax: 5.0", "'sigma_fax' in line \\d+: did you mean 'sigma_fac'"),),
        *(("sigma_fac: wide", "sigma_fac in line \\d+: must be a number, not 'wide'"), "sigma_fac: {5.0"),
    ),
    (
        *("inputs/bal_config_hex.yaml", f"balrog inject {BARE_TILE}", "  rotate_objs: Random"),
        *(("  rotate_obj: Random", "'image.rotate_obj' in line \\d+: did you mean 'rotate_objs'"),),
        *(("  rotate_objs: 7", "image.rotate_objs.* in line \\d+: must be .*, not 7"), "  rotate_objs: [7"),
    ),
    (
        *("sof-config/run-y3v02-sof.yaml", f"balrog sof {BARE_TILE}", "max_bmask_frac: 0.45"),
        *(("max_bmsk_frac: 0.45", "'max_bmsk_frac' in line \\d+: did you mean 'max_bmask_frac'"),),
        *(
            ("max_bmask_frac: half", "max_bmask_frac in line \\d+: must be a number, not 'half'"),
            "max_bmask_frac: [0.45",
        ),
    ),
    (
        *("bfd-config/run-y3v02-bfd.yaml", f"balrog bfd {BARE_TILE}", "pad_factor: 2 "),
        *(("pad_facter: 2 ", "'pad_facter' in line \\d+: did you mean 'pad_factor'"),),
        *(("pad_factor: some ", "pad_factor in line \\d+: must be a number, not 'some'"), "pad_factor: [2 "),
    ),
]


def _rows():
    for file, words, line, (typo, meant), (value, wanted), broken in FILES:
        key = line.split(":")[0].strip()
        for what, new, says in (
            ("a key misspelt", typo, f"{meant}.*file {file}, key .*\n.*correct its name"),
            (
                "a key twice",
                f"{line}\n{line}",
                f"'{key}' is given twice, in lines \\d+ and \\d+ \\(file {file}.*\n.*remove",
            ),
            ("a value of the wrong type", value, f"{wanted}.*file {file}, key .*\n.*give another value"),
            ("a line that is no YAML", broken, f"YAML error in line \\d+, in what begins in line \\d+: .*file {file}"),
        ):
            breaks = partial(_edit, file=file, old=line, new=new)
            yield CONFIGURED(f"{file}: {what}", words, says, breaks=breaks)


def _edit(world, file, old, new):
    world.edit(file, old, new)


ROWS = [
    *_rows(),
    CONFIGURED(
        "a typo for a late block",
        f"snakemake tile={BARE_TILE}",
        "unknown key 'max_bmsk_frac'",
        breaks=lambda world: world.edit("sof-config/run-y3v02-sof.yaml", "max_bmask_frac", "max_bmsk_frac"),
    ),
    CONFIGURED(
        "MEDS configuration without a band of the tile",
        f"snakemake tile={BARE_TILE}",
        f"no band z, only g r i .*tile {BARE_TILE}, band z",
        breaks=lambda world: world.edit("desmeds-config/meds-y3v02.yaml", "bands: from_tile", "bands: [g, r, i]"),
    ),
    CONFIGURED(
        "BFD configuration of which no band of the run counts",
        f"snakemake tile={BARE_TILE} --config mode=519 bands=r,g",
        "none of the bands r g counts.*key band_weights",
        breaks=lambda world: world.edit("bfd-config/run-y3v02-bfd.yaml", "r: 0.55", "r: 0"),
    ),
    CONFIGURED(
        "configuration that is no text",
        f"balrog meds {BARE_TILE}",
        "cannot be read: it is no text in UTF-8 \\(file etc/pipeline.yaml\\)",
        breaks=lambda world: world.replace("etc/pipeline.yaml", b"\xff\xfe\x00"),
    ),
    CONFIGURED(
        "source catalogue that is not there",
        f"snakemake tile={BARE_TILE}",
        f"block 8 \\(plan\\) needs a file that is not there.*tile {BARE_TILE}, file inputs/galaxies_cosmos_hsc.fits",
        breaks=lambda world: (world.base / "inputs/galaxies_cosmos_hsc.fits").unlink(),
    ),
    CONFIGURED(
        "SWarp configuration that is not there",
        f"snakemake tile={BARE_TILE}",
        f"block 2 \\(coadd\\) needs a file that is not there.*tile {BARE_TILE}, band g, file etc/Y3A1_v1_swarp.config",
        breaks=lambda world: (world.base / "etc/Y3A1_v1_swarp.config").unlink(),
    ),
    CONFIGURED(
        "variables that contradict each other",
        f"snakemake tile={BARE_TILE}",
        "MEDS_DIR is two but MEDS_DATA is one.*key MEDS_DIR",
        breaks=lambda world: world.environment.update(MEDS_DATA="one", MEDS_DIR="two"),
    ),
    CONFIGURED(
        "medsconf of another configuration",
        f"balrog prep {BARE_TILE}",
        "the environment says medsconf=y6.*y3v02.*key medsconf",
        breaks=lambda world: world.environment.update(medsconf="y6"),
    ),
]
