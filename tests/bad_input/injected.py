"""What can be wrong with an injection: kinds of objects, positions, tables, audits and replays of what is not there."""

from functools import partial

from row import Row, all_of
from world import BARE_TILE, TILE

ASKED = partial(Row, "Injection")
TABLES = partial(Row, "Injection", stage="tile", redone=("*/manifests/*_plan.json",))
DRAWN = ("*/manifests/*_plan.json", "*/manifests/*_inject_g.json", "*_balrog_plan.fits")
BARE = "inputs/bal_config_hex.yaml"
MADE = "inputs/bal_config_DES1226+2527.yaml"
STARS = "input: {star_table: {dir: inputs/examples, file_name: stars.csv}}"
SERSIC = "input: {galaxy_table: {dir: inputs/examples, file_name: galaxies_sersic.csv, model: sersic}}"
MEDS = "input: {meds_catalog: {dir: inputs/examples, file_name: stamps_g_meds.fits.fz}}"
STAMPS = MEDS.replace("_g_", "_BAND_")
SEDS = "{files: [CWW_E_ext.sed], mag_band: r}"
SPECTRA = f"input: {{star_table: {{dir: inputs/examples, file_name: stars.csv, seds: {SEDS}}}}}"
PIFF = "{type: Piff, dir: inputs/examples, file_name: DEXPNUM_BAND_cCCDNUM_*piff.fits}"
PASSES = "n_objects: 3, bandpass: {dir: inputs/bandpasses, file_name: DECam_BAND.dat}"
OF_BARE = f"balrog inject {BARE_TILE} -r 0"
OF_MADE = f"balrog inject {TILE} -r 0"


def configured(file, gal, image="n_objects: 3", inputs="", psf="{type: DES_PSFEx}"):
    """Have an injection configuration of one kind of object."""
    text = f"""
{inputs}
gal: {gal}
psf: {psf}
stamp: {{draw_method: no_pixel}}
image: {{type: Balrog, realizations: [0], {image}}}
"""
    return lambda world: world.replace(file, text.encode())


def ruled(file):
    """Kind, image and input of a configuration with a rules file."""
    image = "n_objects: 3, pos_sampling: rules"
    return "{type: rulesGalaxy}", image, f"input: {{rules: {{dir: inputs/pyconfig, file_name: {file}}}}}"


def table(name, text):
    return lambda world: (world.base / "inputs/examples" / name).write_text(text)


def no_models(world):
    """Have files under the names of Piff models that are none."""
    for image in world.tile().glob("nullwt-g/*.fits"):
        (world.base / "inputs/examples" / f"{image.name[:15]}_piff.fits").write_text("no FITS file\n")


def bare(wrong, says, *arguments, **keys):
    return ASKED(wrong, OF_BARE, says, breaks=configured(BARE, *arguments, **keys))


def made(wrong, says, *breaks, status=2):
    return TABLES(wrong, OF_MADE, says, breaks=all_of(*breaks), status=status)


ROWS = [
    bare("a GalSim profile misspelt", "did you mean 'Sersic'.*key gal", "{type: Sersicc, n: 1, flux: 9}"),
    bare("a GalSim profile without flux", "Gaussian needs flux .zero point 30. or mag", "{type: Gaussian, sigma: 1}"),
    bare(
        "objects that are to be skipped",
        "skip: an object that cannot be drawn stops its realization",
        "{type: Gaussian, sigma: 1, flux: 9, skip: true}",
    ),
    bare(
        "two kinds of one name",
        "different types .or names",
        "{items: [{type: Moffat, flux: 1}, {type: Moffat, flux: 2}]}",
    ),
    bare(
        "positions of a kind that is not there",
        "pos_sampling speaks of Sersik, which gal does not have: did you mean 'Sersic'",
        "{type: Sersic, n: 1, half_light_radius: 1, flux: 9}",
        "pos_sampling: {Sersik: uniform}",
    ),
    bare(
        "number and density at once",
        "exactly one of n_objects and object_density",
        *("{type: tableStar}", "n_objects: 3, object_density: 2", STARS),
    ),
    bare(
        "a number for a grid",
        "the spacing of the HexGrid sets the number",
        *("{type: tableStar}", "n_objects: 3, pos_sampling: {type: HexGrid}", STARS),
    ),
    bare("a table of positions without a name", "need a file_name", "{type: tableStar}", "pos_sampling: Table", STARS),
    bare(
        "catalogue positions of galaxies", "galaxy_table is none", "{type: tableGalaxy}", "pos_sampling: sahar", SERSIC
    ),
    bare("shear pairs without a shear", "needs a shear", "{type: tableStar}", "n_objects: 3, shear_pairs: true", STARS),
    bare(
        "weights of noise that is not there",
        "write type: Poisson",
        *("{type: tableStar}", "n_objects: 3, noise: {update_weights: true}", STARS),
    ),
    bare(
        "shape of a galaxy table unknown",
        "'sersic', 'bulge_disk' or 'knots'",
        "{type: tableGalaxy}",
        "n_objects: 3",
        SERSIC[:-8] + "serzic}}",
    ),
    bare(
        "MEDS files of all bands in one name",
        "write BAND where the band stands",
        *("{type: MEDSGalaxy}", "n_objects: 3", MEDS),
    ),
    bare("spectra without band passes", "nothing to see them through", "{type: tableStar}", "n_objects: 3", SPECTRA),
    bare(
        "a spectrum and a flux",
        "the sed sets the flux of every band",
        "{type: Gaussian, sigma: 1, flux: 9, sed: {file_name: vega.txt, wave_type: nm, flux_type: flambda}}",
        PASSES,
    ),
    bare(
        "spectra of HST images",
        "chromatic needs use_real: false",
        "{type: COSMOSGalaxy}",
        PASSES,
        "input: {cosmos_catalog: {file_name: x.fits, chromatic: true}}",
    ),
    bare(
        "a part of no catalogue",
        "a part of Sum draws from ngmix_catalog, which input does not have",
        "{type: Sum, items: [{type: ngmixGalaxy}, {type: Gaussian, sigma: 1}]}",
    ),
    bare(
        "a part that is GalSim's own",
        "COSMOSGalaxy within Sum would be GalSim's own",
        "{type: Sum, items: [{type: COSMOSGalaxy}]}",
    ),
    bare(
        "Piff models of all CCDs in one name",
        "write file_name with EXPNUM and CCDNUM",
        *("{type: tableStar}", "n_objects: 3", STARS),
        psf="{type: Piff, dir: run/piff, file_name: models.fits}",
    ),
    bare(
        "PSFEx models of one's own",
        "file_name, dir and color are for Piff models",
        *("{type: tableStar}", "n_objects: 3", STARS),
        psf="{type: DES_PSFEx, dir: run/psfex}",
    ),
    ASKED(
        "a rules file that is not there",
        f"snakemake tile={BARE_TILE} --config galsim_config=bal_config_hex.yaml",
        "block 8 \\(plan\\) needs a file that is not there.*nowhere.py",
        breaks=configured(BARE, *ruled("nowhere.py")),
    ),
    bare(
        "a rules file in other places than its own",
        "a rules file says where its objects go, not uniform positions",
        *("{type: rulesGalaxy}", "n_objects: 3", ruled("01_constants.py")[2]),
    ),
    bare(
        "places of a rules file for a table",
        "rules positions are those of a rules file, and star_table is none",
        *("{type: tableStar}", "n_objects: 3, pos_sampling: rules", STARS),
    ),
    bare(
        "a rules file and a shear beside it",
        "the rules file shears and magnifies: remove shear",
        "{type: rulesGalaxy, shear: {type: G1G2, g1: 0.1, g2: 0}}",
        *ruled("01_constants.py")[1:],
    ),
    ASKED(
        "audit of a realization that was not made",
        f"balrog audit {BARE_TILE} -r 0",
        f"no truth to audit \\(tile {BARE_TILE}, file .*truth_cat.fits\\)",
        status=1,
    ),
    ASKED(
        "replay of a realization that was not made",
        f"balrog replay {BARE_TILE} -r 0 --bal-id 1 --chip D1_g_c1_r1p1",
        "a FITS file is not there",
        status=1,
    ),
    made(
        "a table without a column",
        "the table has no column sersic_n: .*it has id, r50_arcsec",
        configured(MADE, "{type: tableGalaxy}", inputs=SERSIC),
        table("galaxies_sersic.csv", "id,r50_arcsec,q,beta_deg,mag_g,mag_r,mag_z\n1,0.5,0.7,30,20,20,20\n"),
    ),
    made(
        "a table of sizes and fluxes that cannot be drawn",
        "no tableGalaxy is left after the cuts",
        configured(MADE, "{type: tableGalaxy}", inputs=SERSIC),
        table(
            "galaxies_sersic.csv",
            "sersic_n,r50_arcsec,q,beta_deg,flux_g,flux_r,flux_z\n1,-0.5,0.7,30,9,9,9\n1,0.5,1.7,30,9,9,9\n1,1,1,0,9,nan,9\n",
        ),
    ),
    made(
        "a table that is none",
        "this is not a table of numbers",
        configured(MADE, "{type: tableStar}", inputs=STARS),
        table("stars.csv", "mag_g,mag_r,mag_z\n1,2\n"),
    ),
    made(
        "a table that is not there",
        "needs a file that is not there|a table is not there",
        configured(MADE, "{type: tableStar}", inputs=STARS.replace("stars.csv", "starz.csv")),
    ),
    made(
        "positions outside the tile",
        "none of the 8 positions of the table lies on the tile",
        configured(
            MADE, "{type: tableStar}", "pos_sampling: {type: Table, file_name: inputs/examples/positions.csv}", STARS
        ),
        table("positions.csv", "ra,dec\n" + 8 * "10,10\n"),
    ),
    made(
        "a key that GalSim does not know",
        "did you mean 'half_light_radius'",
        configured(MADE, "{type: Sersic, n: 1, half_light_radus: 1, flux: 9}"),
    ),
    made(
        "a shear above 1",
        "GalSim does not take|would have shear",
        configured(MADE, "{type: tableStar, shear: {type: G1G2, g1: 1.2, g2: 0}}", inputs=STARS),
    ),
    made(
        "MEDS files that are not there",
        "needs a file that is not there|a MEDS file is not there",
        configured(MADE, "{type: MEDSGalaxy}", inputs=STAMPS.replace("stamps_", "stampz_")),
    ),
    made(
        "a MEDS file that is none",
        "MEDS file|cannot be opened",
        configured(MADE, "{type: MEDSGalaxy}", inputs=STAMPS),
        table("stamps_r_meds.fits.fz", "no FITS file\n"),
    ),
    made(
        "MEDS stamps that are all cut",
        "no MEDSGalaxy is left after the cuts",
        configured(MADE, "{type: MEDSGalaxy}", inputs=STAMPS[:-2] + ", snr_min: 1.0e+9}}"),
    ),
    made(
        "a spectrum that is not there",
        "the spectrum nosuch.sed cannot be used",
        configured(MADE, "{type: tableStar}", PASSES, SPECTRA.replace("CWW_E_ext", "nosuch")),
        table("stars.csv", "sed,mag_r\n0,20\n"),
    ),
    made(
        "spectra that say nothing",
        "no tableStar is left after the cuts",
        configured(MADE, "{type: tableStar}", PASSES, SPECTRA),
        table("stars.csv", "sed,redshift,mag_r\n0,nan,20\n7,0,20\n0,0.1,nan\n"),
    ),
    made(
        "a table of spectra without their numbers",
        "the table has no column sed",
        configured(MADE, "{type: tableStar}", PASSES, SPECTRA),
        table("stars.csv", "mag_r\n20\n"),
    ),
    made(
        "band passes of spectra that are not there",
        "needs a file that is not there|band pass is not there",
        configured(MADE, "{type: tableStar}", PASSES.replace("DECam", "DECom"), SPECTRA),
        table("stars.csv", "sed,mag_r\n0,20\n"),
    ),
    made(
        "a part with a row that is not there",
        "tableStar has .* objects in gr, not 9999",
        configured(MADE, "{type: Sum, items: [{type: tableStar, index: 9999}]}", inputs=STARS),
    ),
    TABLES(
        "a CCD without a Piff model",
        OF_MADE,
        "the chip has no Piff model .*key psf.file_name",
        breaks=configured(MADE, "{type: tableStar}", inputs=STARS, psf=PIFF),
        redone=DRAWN,
    ),
    TABLES(
        "a Piff model that is none",
        OF_MADE,
        "not a Piff model",
        breaks=all_of(configured(MADE, "{type: tableStar}", inputs=STARS, psf=PIFF), no_models),
        status=1,
        redone=DRAWN,
    ),
]
