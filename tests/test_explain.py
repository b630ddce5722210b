"""Explanations against a small tile whose whole story is known: what no manifest speaks of first, then the chain."""

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from upkeep_tile import BANDS, TILE, context_of, flip, touch

from balrogutils.context import Installation
from balrogutils.errors import InputError, ProductError
from balrogutils.fitsfile import Table, write_tables
from balrogutils.graph import Job, jobs, needs
from balrogutils.identity import object_ids
from balrogutils.products import Step, writing_text
from balrogutils.upkeep.explain import explain
from balrogutils.upkeep.explaintext import in_words
from balrogutils.upkeep.objects import row_of

COUNT = 6
IDS = object_ids(TILE, "0", np.arange(1, COUNT + 1))
BAL_IDS = object_ids(TILE, "0", np.arange(101, 104))
IMAGES = [f"/x/{TILE}_g.fits", "/x/D00229301_g_c03_r2379p01_immasked_nullwt.fits", "/x/D00229302_g_c09_r2379p01_x.fits"]


def meds_tables():
    """Six objects, of which number k has the coadd and (k mod 2) + 1 exposures."""
    rows = np.zeros(COUNT, dtype=[("id", "i8"), ("box_size", "i4"), ("ncutout", "i4"), ("file_id", "i4", 3)])
    rows["id"], rows["box_size"], rows["ncutout"] = IDS, 48, 2 + np.arange(COUNT) % 2
    rows["file_id"] = np.where(np.arange(3) < rows["ncutout"][:, None], [0, 2, 1], -1)
    info = np.zeros(3, dtype=[("image_path", "S80")])
    info["image_path"] = IMAGES
    return [Table("object_data", rows), Table("image_info", info)]


def fit_table():
    rows = np.zeros(
        COUNT,
        dtype=[("id", "i8"), ("number", "i4"), ("flags", "i4"), ("cm_flux", "f8", 4), ("cm_flux_cov", "f8", (4, 4))],
    )
    rows["id"], rows["number"] = IDS, np.arange(1, COUNT + 1)
    rows["cm_flux"] = 100.0 * rows["number"][:, None] + np.arange(4)
    rows["cm_flux_cov"] = np.diag([1.0, 4.0, 9.0, 16.0])
    return Table("model_fits", rows)


def truth_table():
    rows = np.zeros(
        len(BAL_IDS),
        dtype=[("bal_id", "i8"), ("inj_type", "U12"), ("cat_row", "i4"), ("ra", "f8"), ("dec", "f8"), ("flux_g", "f8")],
    )
    rows["bal_id"], rows["inj_type"], rows["cat_row"], rows["flux_g"] = BAL_IDS, "desStar", [7, 8, 9], [50, 60, 70]
    return Table("TRUTH", rows)


def chips_table():
    rows = np.zeros(
        2, dtype=[("bal_id", "i8"), ("band", "U1"), ("chip", "U30"), ("flags", "i4"), ("flux_on_chip", "f8")]
    )
    rows["bal_id"], rows["band"], rows["chip"] = (
        BAL_IDS[1],
        "g",
        ["D00229301_g_c03_r2379p01", "D00229302_g_c09_r2379p01"],
    )
    rows["flux_on_chip"] = [60.0, 0.0]
    return Table("CHIPS", rows)


def match_table():
    names = [("true_bal_id", "i8"), ("match_reason", "i4"), ("match_distance", "f8"), ("meas_id", "i8")]
    rows = np.zeros(len(BAL_IDS), dtype=names)
    rows["true_bal_id"], rows["match_reason"], rows["meas_id"] = BAL_IDS, [1, 0, 0], [-9999, IDS[4], IDS[2]]
    rows["match_distance"] = [np.nan, 0.1, 0.2]
    return Table("match", rows)


TABLES = {"sof": [fit_table()], "meds": meds_tables(), "truth": [truth_table()], "match": [match_table()]}


def make(job, **config):
    """Do a step: it reads the products of those it needs and the files it obeys, and leaves its own."""
    before, files = needs(job)
    about = job.context.about(job.band)
    seeds = {"injection": job.context.seed} if job.step in ("plan", "inject", "truth") else {}
    with Step(job.manifest, job.step, about=about, config=config or {"step": job.step}, seeds=seeds) as step:
        step.read(*(need.product for need in before), *files)
        if job.step in TABLES:
            write_tables(job.product, TABLES[job.step])
        else:
            writing_text(job.product, f"{job.step} {job.band} {job.context.realization}\n")
        step.wrote(job.product)
        if job.step == "prep":
            source = job.context.tree.sources(job.band) / "OPS" / f"{job.band}.fits.fz"
            writing_text(source, "as the archive gave it\n")
            step.wrote(source)
        if job.step == "truth":
            write_tables(job.context.tree.truth_chips, [chips_table()])
            step.wrote(job.context.tree.truth_chips)


@pytest.fixture
def context(base):
    """A base run up to the coadds, and realization 0 with SOF and the matched catalogue."""
    context = context_of(base)
    keys = ("kind", "proctag", "se_proctag", "magzp_ref", "archive", "max_missing_ccds")
    prep = {key: getattr(context.campaign, key) for key in keys}
    for job in jobs(context):
        if job.context.realization in (None, "0") and job.step not in ("mof", "mcal", "bfd", "report"):
            config = {"prep": prep, "match": {"radius": 0.5}, "sof": {"bands": list(BANDS)}}
            make(job, **config.get(job.step, {}))
    return context


@pytest.fixture
def explained(base):
    def work(target, **overrides):
        return explain(Installation.load(overrides, environ={"BALROG_BASE": str(base)}), str(target))

    return work


def renewed(file, text="# another\n"):
    """Edit a text file, later than anything that was made."""
    file.write_text(file.read_text() + text)
    later(file)


def later(path):
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 10**9))


def names(explanation):
    return [f"{one['step']} {one['band'] or ''}".strip() for one in explanation.steps]


def reasons(explanation):
    return {one["step"]: one["why"] for one in explanation.again["reasons"]}


REFUSED = {
    "nothing": ("", "neither a product"),
    "a file of the configuration": ("etc/pipeline.yaml", "neither a product"),
    "a file that no manifest names": ("run/meds/y3v02/{tile}/coadd/stray.fits", "no manifest of the tile"),
    "no file": ("run/meds/y3v02/{tile}/coadd/none.fits", "there is no such file"),
    "a negative row": ("run/meds/y3v02/{tile}/coadd/{tile}_g.fits[-1]", "there is no such file"),
    "a row of text": ("run/meds/y3v02/{tile}/lists/{tile}_g_nullwt-flist-y3v02.dat[0]", None),
    "a directory": ("run/meds/y3v02/{tile}/coadd", "no manifest of the tile"),
    "a number of the base run": ("23902160000001", "not the bal_id of an injected object"),
    "a number beyond all": ("9" * 30, "neither a file nor the bal_id"),
    "an object that was not injected": ("2023902160000999", "has no object 2023902160000999"),
}


def test_what_cannot_be_explained_is_refused(context, base, explained):
    writing_text(context.tree.coadd / "stray.fits", "x")
    for name, (target, says) in REFUSED.items():
        where = target.format(tile=TILE)
        with pytest.raises((InputError, ProductError), match=says) as refused:
            explained(where if re.fullmatch(r"\d*", where) else base / where)
        assert refused.value.remedy, name
    # Longer than a file's name may be, and than Python reads a number.
    for target in ("1" * 300, "1" * 5000, "x" * 300, f"{base}/x[{'1' * 5000}]"):
        with pytest.raises(InputError, match="neither a product of a tile nor the bal_id"):
            explained(target)
    with pytest.raises(InputError, match="table model_fits has 6 rows"):
        explained(f"{context.at('0').tree.fit('sof')}[6]")
    with pytest.raises(ProductError, match="there is no truth catalogue"):
        explained(object_ids(TILE, "1", [1])[0])


def test_a_file_that_only_went_in_says_which_steps_read_it(context, explained, monkeypatch, base):
    # The fits of a run may lie beside anything: only the name says whose a file is.
    stray = context.at("0").tree.dir / "extra.txt"
    writing_text(stray, "x")
    job = Job("sof", context.at("0"))
    with Step(job.manifest, "sof", about=job.context.about()) as step:
        step.read(stray)
    with pytest.raises(InputError, match="no step made this file; it went into sof"):
        explained(stray)


def test_a_meds_file_goes_back_to_the_archive(context, explained):
    found = explained(context.tree.meds("g"))
    assert found.state == "as it was left"
    assert names(found)[-2:] == ["catalog g", "meds g"]
    assert set(names(found)) == {"meds g", "catalog g", "coadd det", *(f"coadd {b}" for b in "griz")} | {
        f"prep {band}" for band in BANDS
    }
    steps = {name: number for number, name in enumerate(names(found))}
    assert set(found.steps[-1]["from"]) == {steps["catalog g"], steps["coadd g"], steps["prep g"]}
    # First things first: a step reads only of those before it.
    assert all(need < number for number, one in enumerate(found.steps) for need in one["from"])
    assert {one["files"][0] for one in found.archives} == {f"OPS/{band}.fits.fz" for band in BANDS}
    assert {Path(one["file"]).name for one in found.origins} == {
        *("meds-y3v02.yaml", "Y3A1_v1_swarp.config", "Y3A2_v2_sex.config", "balrog_sex.param", "gauss_3.0_7x7.conv")
    }
    assert {one["state"] for one in found.origins} == {"as it was"}
    assert found.again == {"would": False, "in_mode": True, "reasons": [], "notes": []}
    text = in_words(found)
    assert "4 files from file://" in text
    assert "Would a run make it again? No" in text


def test_a_product_of_a_realization_goes_back_to_the_base_run_and_the_seed(context, explained):
    found = explained(context.at("0").tree.image("g"))
    assert names(found) == ["prep g", "prep r", "prep i", "prep z", "plan", "inject g", "coadd g"]
    assert [one["realization"] for one in found.steps] == [*(None,) * 4, *("0",) * 3]
    assert found.steps[-2]["seeds"] == {"injection": 20181105}
    assert "galaxies_cosmos_hsc.fits" in in_words(found)


def test_every_manifest_explains_its_step(context, explained):
    for job in jobs(context):
        if job.manifest.is_file():
            found = explained(job.manifest)
            assert (found.steps[-1]["step"], found.steps[-1]["band"]) == (job.step, job.band)
            json.dumps(found.document())
            assert in_words(found)


def test_damage_is_told(context, explained):
    path = context.tree.image("g")
    touch(path)
    assert "time is not the recorded one" in explained(path).state
    flip(path, -1)
    writing_text(path, "longer than it was before\n")
    assert "bytes, not" in explained(path).state
    path.unlink()
    found = explained(path)
    assert found.state == "it is gone"
    assert "is gone" in reasons(found)["coadd g"][0]


def test_why_a_step_is_made_again(context, explained, base):
    meds, coadd = context.tree.meds("g"), context.tree.image("r")
    swarp = base / "etc" / "Y3A1_v1_swarp.config"
    # A file that was touched and says the same is no reason.
    later(swarp)
    assert not explained(meds).again["would"]
    renewed(swarp)
    found = explained(meds)
    assert set(reasons(found)) == {"coadd det", *(f"coadd {band}" for band in BANDS)}
    assert "Y3A1_v1_swarp.config is newer, and another" in reasons(found)["coadd g"][0]
    assert [one["state"] for one in found.origins if one["file"] == str(swarp)] == ["changed since"]
    assert "coadd det: " in in_words(found)
    for job in jobs(context):
        if job.step == "coadd" and job.context.realization is None:
            make(job)
            later(job.manifest)
    assert reasons(explained(coadd)) == {}
    found = explained(meds)
    assert set(reasons(found)) == {"catalog g", "meds g"}
    assert sorted(reasons(found)["meds g"]) == ["coadd g was made again since"]
    context.tree.manifest("coadd", "det").unlink()
    assert reasons(explained(meds))["coadd det"] == ["it has not been made, or its manifest was removed"]
    swarp.unlink()
    assert any("a run is refused" in why for why in reasons(explained(coadd))["coadd r"])


def test_a_plan_made_again_does_not_make_injections_again(context, explained):
    here = context.at("0")
    make(Job("plan", here))
    later(Job("plan", here).manifest)
    assert not explained(here.tree.flist("nullwt", "g")).again["would"]
    assert reasons(explained(here.tree.truth)) == {
        "truth of realization 0": ["plan of realization 0 was made again since"]
    }


def test_what_a_run_does_not_notice_is_a_note(context, explained):
    here = context.at("0")
    assert explained(here.tree.match).again["notes"] == []
    notes = explained(here.tree.match, seed=3, match_radius=0.7).again["notes"]
    assert "match: match_radius is 0.7 now, and was 0.5" in notes
    assert "plan: seed is 3 now, and was 20181105" in notes
    assert "The mode" not in in_words(explained(here.tree.match))
    assert "does not have block 1024" in in_words(explained(here.tree.match, mode=63))


def test_a_number_of_a_fit_is_followed_to_its_cutouts(context, explained):
    here = context.at("0")
    product = here.tree.fit_chunk("sof", 0, 5)
    write_tables(product, TABLES["sof"])
    manifest = here.tree.manifest("sof-chunk000000-000005")
    with Step(manifest, "sof chunk", about=here.about(), seeds={"global_seed": 5}) as step:
        step.wrote(product)
    found = explained(f"{here.tree.fit('sof')}[3]")
    assert (found.object["id"], found.object["number"]) == (IDS[3], 4)
    assert found.object["fluxes"]["cm_flux"] == [
        ["g", 400.0, 1.0],
        ["r", 401.0, 2.0],
        ["i", 402.0, 3.0],
        ["z", 403.0, 4.0],
    ]
    assert found.object["chunk"]["seeds"] == {"global_seed": 5}
    cutouts = {one["band"]: one for one in found.object["cutouts"]}
    assert set(cutouts) == set(BANDS)
    # Number 4 has the coadd and two exposures, in the order of its row.
    assert (cutouts["g"]["row"], cutouts["g"]["images"]) == (3, [IMAGES[0], IMAGES[2], IMAGES[1]])
    text = in_words(found)
    assert "cm_flux: g 400 ± 1, r 401 ± 2" in text
    assert "from DES0239+0216_g.fits D00229302_g_c09_r2379p01 D00229301_g_c03_r2379p01" in text


def test_a_row_of_a_list(tmp_path):
    """What is no table is not damaged."""
    (tmp_path / "list.dat").write_text("image.fits 30\n")
    with pytest.raises(InputError, match=r"no table of objects.*list.dat"):
        row_of(tmp_path / "list.dat", 0, BANDS)
    (tmp_path / "table.fits").write_text("image.fits 30\n")
    with pytest.raises(ProductError, match=r"cannot be read.*table.fits"):
        row_of(tmp_path / "table.fits", 0, BANDS)


def test_a_row_of_a_meds_file(context, explained):
    found = explained(f"{context.tree.meds('r')}[2]")
    assert found.object["id"] == IDS[2]
    assert found.object["table"] == "object_data"


def test_an_injected_object_from_catalogue_row_to_measured_flux(context, explained):
    found = explained(BAL_IDS[1])
    assert found.path == context.at("0").tree.match
    assert (found.object["truth"]["cat_row"], found.object["truth"]["flux_g"]) == (8, 60.0)
    assert [one["chip"] for one in found.object["chips"]["g"]] == [
        "D00229301_g_c03_r2379p01",
        "D00229302_g_c09_r2379p01",
    ]
    assert found.object["match"]["meas_number"] == 5
    (fit,) = found.object["fits"]
    assert fit["fluxes"]["cm_flux"][0] == ["g", 500.0, 1.0]
    text = in_words(found)
    assert "desStar, row 8 of its catalogue" in text
    assert "D00229302_g_c09_r2379p01 (no light)" in text
    assert "detected as number 5" in text
    lost = explained(BAL_IDS[0])
    assert lost.object["match"] == {"reason": "not_found", "distance": "nan", "meas_id": -9999}
    assert "not detected: not found" in in_words(lost)
    json.dumps(lost.document(), allow_nan=False)


def test_manifests_that_need_each_other_end(context, explained):
    """Nothing makes such manifests; a copied file can."""
    manifest = context.tree.manifest("coadd", "g")
    document = json.loads(manifest.read_text())
    entry = json.loads(context.tree.manifest("meds", "g").read_text())["outputs"][0]
    document["inputs"].append(entry)
    manifest.write_text(json.dumps(document))
    assert "meds g" in names(explained(context.tree.meds("g")))


def test_a_manifest_without_inputs_is_told(context, explained):
    manifest = context.tree.manifest("coadd", "g")
    document = json.loads(manifest.read_text()) | {"inputs": [{"path": "/x"}]}
    manifest.write_text(json.dumps(document))
    with pytest.raises(ProductError, match="what it should say of its inputs"):
        explained(context.tree.meds("g"))


def test_the_command_agrees_with_a_run(context, command, base):
    """What Snakemake would make is what the explanations say, step by step."""
    renewed(base / "etc" / "Y3A1_v1_swarp.config")
    dry = command("snakemake", "-n", f"tile={TILE}", "--config", "realizations=0")
    assert dry.returncode == 0, dry.stderr
    table = dict(
        re.findall(r"^(coadd|detection|catalog|meds|inject|truth|plan|prep) +(\d+)$", dry.stdout, re.MULTILINE)
    )
    assert table == {"coadd": "8", "detection": "2", "catalog": "8", "meds": "8"}
    here = [job for job in jobs(context) if job.manifest.is_file()]
    done = command("balrog", "explain", "--json", "--set", "realizations=0", *(str(job.manifest) for job in here))
    assert done.returncode == 0, done.stderr
    again = {job for job, one in zip(here, json.loads(done.stdout), strict=True) if one["again"]["would"]}
    steps = [job.step for job in again if job.step in ("coadd", "catalog", "meds", "inject", "truth", "plan", "prep")]
    assert {step: steps.count(step) for step in steps} == {"coadd": 10, "catalog": 8, "meds": 8}
    assert {job.step for job in again} - set(steps) == {"sof", "match"}
