"""Every configuration file: a typo, a key given twice, a wrong type, a line that is no YAML."""

import os
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
        *(("    se_proctg: X", "'campaigns.synthetic.se_proctg' in line 17: did you mean 'se_proctag'"),),
        *(("    se_proctag: [1]", "se_proctag in line 17: must be a word, not \\[1\\]"), "    se_proctag: [1"),
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
        *("mof-config/run-y3v02-mof.yaml", f"balrog mof {BARE_TILE}", "  maxerr_conv: 0.5"),
        *(("  maxer_conv: 0.5", "'mof.maxer_conv' in line \\d+: did you mean 'maxerr_conv'"),),
        *(
            ("  maxerr_conv: small", "mof.maxerr_conv in line \\d+: must be a number, not 'small'"),
            "  maxerr_conv: [0.5",
        ),
    ),
    (
        *("bfd-config/run-y3v02-bfd.yaml", f"balrog bfd {BARE_TILE}", "pad_factor: 2 "),
        *(("pad_facter: 2 ", "'pad_facter' in line \\d+: did you mean 'pad_factor'"),),
        *(("pad_factor: some ", "pad_factor in line \\d+: must be a number, not 'some'"), "pad_factor: [2 "),
    ),
]


SOF = ("sof-config/run-y3v02-sof.yaml", "engine: balrogutils")
ABSENT = "ngmix is not installed .*file sof-config/run-y3v02-sof.yaml, key engine\\)\n.*conda-forge ngmix"
# What is wrong with an engine; command; message; file, a line of it and what it becomes; what must not be installed.
ENGINES = [
    (
        *("an engine that is none", f"balrog sof {BARE_TILE}"),
        *("engine in line \\d+: must be 'balrogutils' or 'ngmix', not 'ngmx'", *SOF, "engine: ngmx", ""),
    ),
    (
        *("ngmix is asked for and not installed", f"snakemake tile={BARE_TILE}"),
        *(ABSENT, *SOF, "engine: ngmix", "ngmix"),
    ),
    (
        *("ngmix is asked for and not installed, one block", f"balrog sof {BARE_TILE}"),
        *(ABSENT, *SOF, "engine: ngmix", "ngmix"),
    ),
    (
        *("a model that ngmix does not have", f"balrog sof {BARE_TILE} --set sof_config=run-exp-sof.yaml"),
        *("ngmix has no model sersic, only gauss", "sof-config/run-exp-sof.yaml"),
        *("model: exp", "model: sersic\nengine: ngmix", ""),
    ),
    (
        *("groups by ngmix", f"balrog mof {BARE_TILE}", "engine is ngmix, which fits single objects and no groups"),
        *("mof-config/run-y3v02-mof.yaml", "\nstrategy: joint", "\nengine: ngmix\nstrategy: joint", ""),
    ),
    (
        *("metacal types that ngmix does not make", f"balrog mcal {BARE_TILE}", "1p_psf with the target dilate alone"),
        *("shr-config/run-all-mcal.yaml", "jobs:", "engine: ngmix\nmetacal_pars: {types: [noshear, 1p_psf]}\njobs:"),
        "",
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
    *(
        CONFIGURED(wrong, words, says, breaks=partial(_edit, file=file, old=old, new=new), lacking=lacking)
        for wrong, words, says, file, old, new, lacking in ENGINES
    ),
    CONFIGURED(
        "crosscheck without ngmix",
        f"balrog crosscheck {BARE_TILE}",
        "ngmix is not installed .*key engine\\)\n.*conda-forge ngmix",
        lacking="ngmix",
    ),
    CONFIGURED(
        "crosscheck of fits that are none",
        f"balrog crosscheck {BARE_TILE} --fit mof",
        "'--fit': 'mof' is not one of 'sof', 'mcal'",
        remedy=False,
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
        "SWarp configuration dated in the future",
        f"snakemake tile={BARE_TILE}",
        "dated in the future: 2100-01-01 00:00 UTC .*file etc/Y3A1_v1_swarp.config\\)\n.*touch",
        breaks=lambda world: os.utime(world.base / "etc/Y3A1_v1_swarp.config", (4102444800, 4102444800)),
    ),
    CONFIGURED(
        "variables that contradict each other",
        f"snakemake tile={BARE_TILE}",
        "MEDS_DIR is two but MEDS_DATA is one.*key MEDS_DIR",
        breaks=lambda world: world.environment.update(MEDS_DATA="one", MEDS_DIR="two"),
    ),
    CONFIGURED(
        "BALROG_BASE that is no checkout",
        f"balrog prep {BARE_TILE}",
        "no etc/ \\(file run, key BALROG_BASE\\)\n.*set BALROG_BASE to the checkout",
        breaks=lambda world: world.environment.update(BALROG_BASE=str(world.base / "run")),
    ),
    *(
        CONFIGURED(
            f"etc/pipeline.yaml: {what}",
            f"balrog prep {BARE_TILE}",
            f"{says}.*file etc/pipeline.yaml",
            breaks=partial(_edit, file="etc/pipeline.yaml", old="seed: 20181105", new=new),
        )
        for what, new, says in (
            ("a tab", "seed:\t20181105", "YAML error in line 8: found character '.t'"),
            (
                "a tag that makes an object",
                "seed: !!python/object/apply:os.getpid []",
                "YAML error in line 8: could not",
            ),
            ("a tag that does not fit its value", "seed: !!bool 3", "a value is not what its tag"),
            ("a realization that is no decimal number", "seed: 1\nrealizations: [010]", "such as 0 or 12, not '010'"),
        )
    ),
    CONFIGURED(
        "medsconf of another configuration",
        f"balrog prep {BARE_TILE}",
        "the environment says medsconf=y6.*y3v02.*key medsconf",
        breaks=lambda world: world.environment.update(medsconf="y6"),
    ),
    *(
        CONFIGURED(
            f"MOF: {what}",
            f"balrog mof {BARE_TILE}",
            says,
            breaks=partial(_edit, file="mof-config/run-y3v02-mof.yaml", old=old, new=new),
        )
        for what, old, new, says in (
            (
                "a rule for neighbours that there is not",
                "  rule: box",
                "  rule: circle",
                "nbrs.rule in line \\d+: .*circle",
            ),
            ("a strategy that there is not", "strategy: joint", "strategy: both", "strategy in line \\d+: .*both"),
            ("members of no size", "largest_T: 1.0", "largest_T: 0", "largest_T in line \\d+: .*above 0"),
            (
                "radii upside down",
                "  rule: box",
                "  rule: radius\n  radius: {low: 9, high: 1}",
                "low must not be above high",
            ),
            ("more turns at least than at most", "  min_itr: 10", "  min_itr: 20", "min_itr must not be above max_itr"),
            (
                "convergence of another model",
                "model: cm\nmax",
                "model: exp\nmax",
                "convergence_model is cm, but the model is exp",
            ),
            ("pixelised PSFs", "  pixelised: false", "  pixelised: true", "pixelised is for single objects"),
            (
                "a key of another fit",
                "strategy: joint",
                "strategy: joint\nmetacal_pars: {step: 0.01}",
                "metacal_pars is not a key",
            ),
        )
    ),
    CONFIGURED(
        "MOF: the configuration of single fits",
        f"balrog mof {BARE_TILE} --set mof_config=run-y3v02-sof.yaml",
        "run-y3v02-sof.yaml is not there",
    ),
]
