"""Predicted costs against what steps were seen to cost, and how counts are found."""

import json
import math
import resource
from dataclasses import replace

import pytest
from click.testing import CliRunner
from small_archive import SmallArchive
from test_doctor import CAMPAIGN, FEW
from test_doctor import TILE as SMALL_TILE
from upkeep_tile import BANDS, TILE, context_of, done, image

from balrogutils.archive.geometry import Geometry
from balrogutils.cli.main import main
from balrogutils.context import Installation
from balrogutils.errors import ArchiveError, InputError, ProductError
from balrogutils.graph import Job, jobs
from balrogutils.layout import MODE_BITS
from balrogutils.overview.costs import Cost, Counts, calibrated, cost_of, differences_of, images_of
from balrogutils.overview.counts import counts_of
from balrogutils.overview.plan import calibrate, make_plan, scales_at
from balrogutils.products import writing_text

# The synthetic tile: base run and a realization. The tile of real sky, bands g and z, and a realization of it.
BASE = Counts(4, 3, 11, 5, 11.95, 1.0, 439, 4.84)
INJECTED = replace(BASE, objects=611, injections=208)
SMALL = Counts(3, 2, 4, 4, 0.22, 0.064, 15, 3.8)
SMALL_INJECTED = replace(SMALL, objects=90, injections=99)
# A tile of 4000 pixels: 20 CCDs of 2048 x 4096 on it, each on half of it; 63 000 cut-outs.
LARGE = Counts(1, 1, 20, 20, 20 * 8.39, 16.0, 63000 / 11.5, 10.5)

# Step, counts, CPU (s), memory (MiB), disk (MB) as manifests told them, or docs/performance.md of the large tile; the
# means of three runs on a machine that had other work, from which single CPUs differ by up to 25 per cent.
FACTS = [
    ("prep", BASE, 3.9, 160, 196.0),
    ("coadd", BASE, 6.0, 70, 10.1),
    ("coadd det", BASE, 0.65, 67, 10.1),
    ("catalog", BASE, 0.6, 105, 4.2),
    ("meds", BASE, 2.5, 112, 13.0),
    ("sof", BASE, 37.0, 240, 7.0),
    ("mof", BASE, 130.0, 370, 49.1),
    ("mcal", BASE, 57.0, 277, 6.4),
    ("bfd", BASE, 44.7, 264, 4.9),
    ("inject", INJECTED, 4.7, 140, 168.2),
    ("coadd", INJECTED, 6.5, 70, 10.1),
    ("catalog", INJECTED, 0.7, 105, 4.3),
    ("meds", INJECTED, 2.95, 112, 18.0),
    ("sof", INJECTED, 48.6, 260, 9.8),
    ("truth", INJECTED, 0.45, 150, 1.1),
    ("match", INJECTED, 8.5, 358, 6.2),
    ("report", BASE, 12.1, 408, 4.0),
    ("compile", BASE, 53.2, 422, 0.0),
    ("prep", SMALL, 2.0, 158, 9.3),
    ("coadd", SMALL, 1.5, 53, 0.7),
    ("catalog", SMALL, 0.2, 76, 0.3),
    ("inject", SMALL_INJECTED, 1.9, 108, 3.9),
    ("coadd", LARGE, 99.0, 359, None),
    ("catalog", LARGE, None, 300, None),
    ("coadd det", LARGE, None, 316, None),
    ("meds", LARGE, 43.0, 432, None),
    ("truth", SMALL_INJECTED, 0.46, 140, 0.31),
    # Without fits: fewer columns.
    ("match", SMALL_INJECTED, 5.7, 291, None),
    ("prep", LARGE, 38.0, 339, None),
    ("inject", LARGE, None, 306, None),
]


@pytest.mark.parametrize(("step", "counts", "cpu", "memory", "disk"), FACTS)
def test_the_model_is_within_thirty_per_cent_of_what_was_seen(step, counts, cpu, memory, disk):
    cost = cost_of(step, counts)
    for predicted, fact in ((cost.cpu, cpu), (cost.memory / 2**20, memory), (cost.disk / 1e6, disk)):
        assert fact is None or predicted == pytest.approx(fact, rel=0.30)


def test_every_step_of_a_tile_without_anything_costs_a_start():
    nothing = Counts(0, 0, 0, 0, 0, 0, 0, 0)
    steps = {step for step, *_ in FACTS} | {"plan", "truth"}
    assert all(cost_of(step, nothing).cpu > 0 for step in steps)
    assert all(math.isfinite(value) for step in steps for value in vars(cost_of(step, nothing)).values())


def test_costs_add_up_but_for_memory():
    assert Cost(1, 5, 3) + Cost(2, 4, 1) == Cost(3, 5, 4)
    assert Cost(1, 5, 3).times(4) == Cost(4, 5, 12)


def test_a_machine_is_measured_by_the_median():
    """One job in three was held up."""
    cpu = cost_of("sof", BASE).cpu
    scales = calibrated(
        [("sof", BASE, 2 * cpu), ("sof", BASE, 40 * cpu), ("sof", INJECTED, 2 * cost_of("sof", INJECTED).cpu)]
    )
    assert scales == {"sof": pytest.approx(2.0)}
    assert cost_of("sof", BASE, scales).cpu == pytest.approx(2 * cpu)
    assert cost_of("meds", BASE, scales) == cost_of("meds", BASE)
    # Of two jobs too.
    assert calibrated([("sof", BASE, 40 * cpu), ("sof", BASE, 2 * cpu)]) == {"sof": pytest.approx(2.0)}
    # A job too short for the clock says nothing: a scale of 0 would not be read again.
    assert calibrated([("coadd all", BASE, 0.0)]) == {}


# tiles


def leave(job, counts, cpu, memory=10**8, size=1000, **extra):
    """Leave a step's manifest with its product, counts and costs."""
    job.product.parent.mkdir(parents=True, exist_ok=True)
    job.product.write_bytes(str(job.manifest).encode().ljust(size, b"x"))
    products = [job.product]
    if job.step == "prep":
        pixels = job.context.tree.nullwt(job.band, f"D00000001_{job.band}_c01_r0001p01")
        pixels.parent.mkdir(parents=True, exist_ok=True)
        pixels.write_bytes(b"x" * 14_000)
        products.append(pixels)
    done(job, *products, **extra)
    document = json.loads(job.manifest.read_text())
    document |= {"counts": counts, "cpu_seconds": cpu, "peak_memory_bytes": memory}
    job.manifest.write_text(json.dumps(document))


@pytest.fixture
def context(base):
    """The base run up to its MEDS files, with realization 0 planned."""
    context = context_of(base)
    Geometry.tangent(TILE, 39.96, 2.27, 1000, 1000, 0.263, {}).write(context.tree.geometry)
    for job in jobs(context):
        if job.context.realization is None and job.step == "prep":
            leave(job, {"chips": 11, "exposures": 5}, 4.0)
        elif job.context.realization is None and job.step == "meds":
            leave(job, {"objects": 400, "cutouts": 2400}, 2.0)
    leave(Job("plan", context.at("0")), {"objects": 200}, 1.0)
    return context


def test_counts_of_a_tile_that_is_made(context):
    counts = counts_of(context)
    # 14 000 bytes of null-weight images a band are 1000 pixels.
    assert counts == Counts(4, 3, 11, 5, pytest.approx(1e-3), 1.0, 400, 5.0)


def test_a_tile_whose_meds_files_are_empty(context):
    for band in BANDS:
        leave(Job("meds", context, band), {"objects": 0, "cutouts": 0}, 2.0)
    assert counts_of(context).objects == 0
    assert make_plan([context]).cost.cpu > 0


def test_counts_from_the_archive_before_anything_is_made(base):
    with (base / "etc" / "campaigns.yaml").open("a") as file:
        file.write(CAMPAIGN)
    (base / "inputs" / "bal_config_few.yaml").write_text(FEW)
    SmallArchive(base / "run" / "archive" / "small").write()
    context = Installation.load(environ={"BALROG_BASE": str(base)}).context(SMALL_TILE)
    counts = counts_of(context)
    # Two exposures of two CCDs of 60 x 50 pixels; a tile of 40 x 44.
    assert (counts.bands, counts.chips, counts.exposures) == (1, 4, 2)
    assert counts.chip_pixels == pytest.approx(4 * 60 * 50 / 1e6)
    assert counts.tile_pixels == pytest.approx(40 * 44 / 1e6)
    with pytest.raises(InputError, match="how many objects") as refused:
        make_plan([context])
    assert refused.value.remedy == "give their number: --injections N"
    assert make_plan([context], injections=3).injections == 3
    for file in (base / "run" / "archive" / "small").rglob("*_immasked.fits*"):
        file.unlink()
    with pytest.raises(ArchiveError, match="a file is missing in the archive") as gone:
        counts_of(context)
    assert gone.value.where["tile"] == SMALL_TILE


def test_realizations_that_are_not_planned_are_like_one_that_is(context):
    plan = make_plan([context])
    assert (plan.realizations, plan.injections) == (2, 400)
    assert make_plan([context], injections=50).injections == 100


def test_many_tiles_are_so_many_times_one(context):
    one, many = make_plan([context], cores=4), make_plan([context], tiles=1000, cores=4)
    assert many.cost.cpu == pytest.approx(1000 * one.cost.cpu)
    assert many.cost.disk == pytest.approx(1000 * one.cost.disk)
    assert many.cost.memory == one.cost.memory
    assert many.wall == pytest.approx(many.cost.cpu / (4 * 0.9))
    # However many cores there are, a tile takes its longest chain.
    wide = make_plan([context], cores=10_000)
    assert wide.wall == wide.chain
    assert 0 < wide.chain < wide.cost.cpu


def test_a_campaign_has_the_tiles_that_are_named_at_least(context):
    with pytest.raises(InputError, match="fewer tiles, 1, than the 2 that are named") as refused:
        make_plan([context, context], tiles=1)
    assert refused.value.where["key"] == "--tiles"
    assert make_plan([context, context], tiles=2).tiles == 2


def test_kernels_are_compiled_once_however_many_tiles(context):
    """By each process of the first fit, whichever that is."""
    compile_one = cost_of("compile", BASE)
    known, new = make_plan([context]), make_plan([context], compiled=False)
    assert (known.compiling, new.compiling) == (0.0, 2 * compile_one.cpu)
    assert new.cost.cpu == pytest.approx(known.cost.cpu + 2 * compile_one.cpu)
    assert {row.bit: row.cost.memory for row in new.rows}[64] == compile_one.memory
    assert make_plan([context], tiles=1000, compiled=False).compiling == new.compiling
    assert "compile their kernels: 106 s of CPU in all, once" in str(new)
    # Without fits nothing is compiled, and what is done is not done again.
    bare = replace(context, pipeline=context.pipeline.model_copy(update={"mode": 63}))
    assert make_plan([bare], compiled=False).compiling == 0.0
    fits = replace(context, pipeline=context.pipeline.model_copy(update={"mode": 64, "realizations": ()}))
    leave(Job("sof", fits), {"objects": 400}, 40.0)
    assert make_plan([fits], compiled=False).compiling == 0.0


def test_fits_that_compiled_first_are_expected_to_take_longer(context):
    leave(Job("sof", context), {"objects": 400}, 40.0)
    before = {row.bit: row for row in make_plan([context]).rows}[64].expected
    edit(Job("sof", context).manifest, cpu_seconds=150.0, compile_seconds=[54.0, 56.0])
    row = {row.bit: row for row in make_plan([context]).rows}[64]
    compile_one = cost_of("compile", BASE)
    assert row.fact.cpu == 150.0
    assert row.expected.cpu == pytest.approx(before.cpu + 2 * compile_one.cpu)
    assert row.expected.memory == compile_one.memory
    # What it takes without is measured too, as the time of one process is.
    scales = calibrate([context])
    assert scales["compile"] == pytest.approx(54.0 / compile_one.cpu)
    assert scales["sof"] == pytest.approx((150.0 - 110.0) / before.cpu)
    for told in (None, "long", ["x", math.nan, -1.0]):
        edit(Job("sof", context).manifest, compile_seconds=told)
        assert {row.bit: row for row in make_plan([context]).rows}[64].expected == before


def test_the_mode_says_which_blocks(base, context):
    narrow = Installation.load({"mode": 3}, environ={"BALROG_BASE": str(base)}).context(TILE)
    assert [row.bit for row in make_plan([narrow]).rows] == [1, 2]
    wide = Installation.load({"mode": 2047}, environ={"BALROG_BASE": str(base)}).context(TILE)
    assert [row.bit for row in make_plan([wide]).rows] == list(MODE_BITS.values())


def test_images_that_are_let_go_are_there_at_most(context):
    """On the way everything is on disk; the images go when they have been read."""
    whole = make_plan([context])
    assert whole.let_go == 0
    for keep, jobs_of in (((), 4 + 8), (("nullwt",), 8), (("injected",), 4)):
        pipeline = context.pipeline.model_copy(update={"keep": keep, "realizations": ("0", "1")})
        found = make_plan([replace(context, pipeline=pipeline)], tiles=10)
        # Pixels of the CCDs of a band, as the manifests' images say; 14 bytes each.
        assert found.let_go == pytest.approx(10 * jobs_of * 14e6 * counts_of(context).chip_pixels)
        left = (found.cost.disk - found.let_go) / 10 / 1e9
        assert f"GB at most, {left:.3g} GB when it is done (keep)" in str(found)


def test_differences_take_room_and_time(context):
    """As much as was seen of a realization of the synthetic tile; what goes is the same, and block 8 takes more."""
    assert differences_of(INJECTED).disk == pytest.approx(6.44e6, rel=0.1)
    assert differences_of(INJECTED).disk < 0.05 * images_of("inject", INJECTED)
    plans = {}
    for keep in (("nullwt",), ("nullwt", "differences")):
        pipeline = context.pipeline.model_copy(update={"keep": keep, "realizations": ("0", "1")})
        plans[keep[-1]] = make_plan([replace(context, pipeline=pipeline)])
    bare, found = plans["nullwt"], plans["differences"]
    assert found.let_go == bare.let_go
    assert f"{(found.cost.disk - found.let_go) / 1e9:.3g} GB when it is done (keep)" in str(found)
    for one, other in zip(found.rows, bare.rows, strict=True):
        more = one.cost.disk > other.cost.disk and one.cost.cpu > other.cost.cpu
        assert more if one.bit == 8 else one == other
        # What the steps took is compared with what was predicted of them alone.
        assert one.expected == other.expected


def test_fact_is_compared_with_what_was_predicted_for_it(context):
    rows = {row.bit: row for row in make_plan([context]).rows}
    assert (rows[1].done, rows[1].jobs) == (4, 4)
    assert rows[1].fact.cpu == pytest.approx(16.0)
    assert rows[1].expected.cpu == pytest.approx(rows[1].cost.cpu)
    # One file under two names is one file; four bands, each a list and an image of 14 000 bytes that are alike.
    assert rows[1].fact.disk == pytest.approx(4 * (1000 + 14_000))
    assert rows[8].done == 1
    assert rows[8].expected.cpu < rows[8].cost.cpu
    assert rows[64].done == 0
    assert "true: what the steps" in str(make_plan([context]))


def test_steps_whose_work_was_done_before_are_no_facts(context):
    leave(Job("sof", context), {"chunks_reused": 3}, 0.1)
    leave(Job("meds", context, "g"), {"objects": 400, "cutouts": 2400}, 0.0, adopted=True)
    Job("meds", context, "r").manifest.write_text("{")
    found = {row.bit: row for row in make_plan([context]).rows}
    assert found[64].done == 0
    # Of four, one was adopted, and one has a manifest that says nothing.
    assert found[4].done == 2


def test_a_tile_that_was_adopted_counts_but_costs_nothing(base):
    """Its archive need not be there; its images have planes of their own."""
    context = context_of(base)
    Geometry.tangent(TILE, 39.96, 2.27, 1000, 1000, 0.263, {}).write(context.tree.geometry)
    for job in jobs(context):
        if job.context.realization is not None or job.step not in ("prep", "coadd", "catalog", "meds"):
            continue
        counts = {"prep": {"chips": 4, "exposures": 2}, "meds": {"objects": 300, "cutouts": 900}}.get(job.step, {})
        leave(job, counts, 0.1, adopted=True)
        if job.step == "prep":
            pixels = context.tree.nullwt(job.band, f"D00000001_{job.band}_c01_r0001p01")
            image(pixels)
            writing_text(job.product, f"{pixels} 30.0\n" * 4)
    # Images of 40 x 50 pixels.
    assert counts_of(context) == Counts(4, 3, 4, 2, pytest.approx(4 * 2e-3), 1.0, 300, 2.0)
    plan = make_plan([context], injections=200)
    assert [row.bit for row in plan.rows] == [8, 16, 32, 64, 1024]
    assert not any(row.done for row in plan.rows)
    pixels.write_bytes(b"x")
    with pytest.raises(ArchiveError, match="an image of a CCD cannot be read") as told:
        make_plan([context], injections=200)
    assert told.value.where["tile"] == TILE


def test_a_machine_is_measured_once_and_remembered(context):
    assert scales_at(context) == {}
    scales = calibrate([context])
    assert set(scales) == {"prep", "meds", "plan"}
    assert scales["plan"] == pytest.approx(1.0 / 0.7)
    assert scales_at(context) == pytest.approx(scales)
    plan = make_plan([context], scales=scales)
    row = next(row for row in plan.rows if row.bit == 1)
    assert row.fact.cpu == pytest.approx(row.expected.cpu)
    assert plan.calibrated
    assert "--calibrate" not in str(plan)
    file = context.site.base / "run" / "plan.json"
    scale = '{"cpu_scales": {"sof": %s}}'
    for text in (
        "{",
        "[]",
        "[" * 100_000,
        *(scale % one for one in ('"fast"', "NaN", "Infinity", "0", "-1", "1" * 400)),
    ):
        file.write_text(text)
        with pytest.raises(ProductError, match="cannot be read"):
            scales_at(context)
    file.unlink()
    file.mkdir()
    with pytest.raises(IsADirectoryError):
        scales_at(context)


def test_a_realization_whose_plan_was_removed_says_nothing_of_the_machine(context):
    Job("plan", context.at("0")).manifest.unlink()
    leave(Job("coadd", context.at("0"), "g"), {}, 1.0)
    assert set(calibrate([context])) == {"prep", "meds"}


def edit(manifest, **said):
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | said))


@pytest.mark.parametrize("counts", [{}, {"chips": None}, {"chips": "many"}, {"chips": -1}, {"chips": math.nan}])
def test_a_manifest_that_does_not_count_is_named(context, counts):
    manifest = Job("prep", context, "g").manifest
    edit(manifest, counts=counts)
    with pytest.raises(ProductError, match="does not say how many chips") as told:
        make_plan([context])
    assert told.value.where["file"] == str(manifest)
    assert "remove it" in told.value.remedy


@pytest.mark.parametrize("said", [{"counts": []}, {"cpu_seconds": math.nan}, {"outputs": [{"path": "x"}]}])
def test_a_manifest_with_values_that_are_none_counts_as_not_there(context, said):
    edit(Job("meds", context, "g").manifest, **said)
    assert {row.bit: row.done for row in make_plan([context]).rows}[4] == 3


def test_a_machine_on_which_nothing_was_made(base):
    with pytest.raises(ProductError, match="nothing has been made of these tiles here"):
        calibrate([context_of(base)])


@pytest.mark.parametrize("option", ["--tiles", "--cores", "--injections"])
@pytest.mark.parametrize("number", ["0", "-1", "1" * 400])
def test_numbers_beyond_all_are_refused(option, number):
    seen = CliRunner().invoke(main, ["plan", TILE, option, number])
    assert seen.exit_code == 2
    assert "is not in the range" in seen.output


def test_a_thousand_tiles_of_ten_realizations(context, command):
    """In less than a minute and 2 GB, from counts."""
    words = ("--tiles", "1000", "--cores", "100", "--json", "--set", "realizations=[0,1,2,3,4,5,6,7,8,9]")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    seen = command("balrog", "plan", TILE, *words)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert seen.returncode == 0, seen.stderr
    plan = json.loads(seen.stdout)
    assert (plan["tiles"], plan["realizations"]) == (1000, 10)
    assert plan["cost"]["cpu"] == pytest.approx(1000 * plan["per_tile"]["cpu"])
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 60.0
    assert after.ru_maxrss * 1024 < 2e9
