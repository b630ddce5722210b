"""Classes of products: what must never be removed first, then what is, and what a run makes again."""

import json
import re
import subprocess
from dataclasses import replace

import pytest
from test_explain import make
from test_status import Run
from upkeep_tile import BANDS, CHIP, TILE, context_of, done, files, image, make_base, make_realization

from balrogutils.errors import InputError, ProductError
from balrogutils.graph import Job, jobs
from balrogutils.products import PART_PREFIX
from balrogutils.upkeep.clean import CLASSES, clean, survey
from balrogutils.upkeep.verify import verify


@pytest.fixture
def context(base):
    context = make_base(context_of(base))
    make_realization(context, "0")
    make_realization(context, "1")
    return context


def classes(cleaning):
    return {one.name: one for one in cleaning.classes}


def spent(manifest, seconds):
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"cpu_seconds": seconds}))


def test_nothing_made(base):
    with pytest.raises(ProductError, match="nothing has been made"):
        survey(context_of(base))


@pytest.mark.parametrize(
    ("names", "realizations", "says"),
    [(["coadd"], None, "did you mean 'coadds'"), (["coadds"], ["7"], "no realization 7 on disk: 0 1")],
)
def test_what_there_is_not_is_refused(context, base, names, realizations, says):
    before = files(base)
    with pytest.raises(InputError, match=says):
        clean(context, names, realizations)
    with pytest.raises(InputError, match="no class of products is named"):
        clean(context, [])
    assert files(base) == before


def test_looking_removes_nothing(context, base):
    before = files(base)
    found = classes(survey(context))
    assert list(found) == ["prepared", "coadds", "injected", "sof"]
    assert "class" in str(survey(context))
    clean(context, list(CLASSES), dry_run=True)
    assert files(base) == before


def test_adopted_products_are_never_removed(base):
    context = make_base(context_of(base), adopted=True)
    before = files(base)
    found = clean(context, ["prepared"])
    assert "no run makes them again" in classes(found)["prepared"].kept
    assert found.again == 0
    assert files(base) == before


def test_a_tile_that_a_run_has_is_left_alone(context, base):
    run = Run(context)
    try:
        before = files(base)
        with pytest.raises(InputError, match="another run has this tile"):
            clean(context, ["coadds"])
        assert files(base) == before
    finally:
        run.end()


def test_files_outside_the_tile_are_never_removed(context, base, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    stranger = image(elsewhere / "x.fits")
    behind = context.tree.dir / "link"
    behind.symlink_to(elsewhere)
    hidden = image(behind / "y.fits")
    inputs = base / "inputs" / "bal_config_exp.yaml"
    done(Job("coadd", context, "r"), stranger, hidden, inputs, image(context.tree.image("r")))
    clean(context, ["coadds"])
    assert stranger.is_file()
    assert hidden.is_file()
    assert inputs.is_file()
    assert not context.tree.image("r").exists()


def test_a_file_that_another_step_left_too_stays(context):
    """The list of one class may be a product of another: what stays must stay whole."""
    shared = context.tree.image("g")
    done(Job("meds", context, "g"), shared)
    clean(context, ["coadds"])
    assert shared.is_file()
    assert verify(context).sound


def test_one_class_and_nothing_else(context, base):
    before = files(base)
    clean(context, ["coadds"])
    gone = set(before) - set(files(base))
    assert gone == {context.tree.image("g"), context.tree.manifest("coadd", "g")}
    assert verify(context).sound


def test_one_realization(context):
    one, two = context.at("0").tree, context.at("1").tree
    clean(context, ["injected"], ["0"])
    assert not one.plan.exists()
    assert not one.injected("g", CHIP.format("g")).exists()
    assert not list(one.manifest("any").parent.iterdir())
    assert two.plan.is_file()
    assert all(context.tree.nullwt(band, CHIP.format(band)).is_file() for band in BANDS)
    assert verify(context).sound


def test_what_it_frees_counts_a_file_once_and_only_when_its_last_name_goes(context):
    tree = context.at("0").tree
    pixels, other = tree.nullwt("g", CHIP.format("g")), tree.injected("g", CHIP.format("g"))
    assert pixels.samefile(other)
    whole = 512 * sum(path.stat().st_blocks for path in (pixels, tree.plan))
    # The geometry of a realization is another name of the base run's.
    assert classes(survey(context, ["injected"], ["0"]))["injected"].frees == whole
    kept = tree.dir.parent / "mine.fits"
    kept.hardlink_to(pixels)
    assert classes(survey(context, ["injected"], ["0"]))["injected"].frees == whole - 512 * pixels.stat().st_blocks


def test_what_a_run_makes_again(context):
    """Without the images of block 1 everything after them, but for what has no manifest anyway."""
    spent(Job("prep", context, "g").manifest, 100.0)
    spent(Job("coadd", context, "g").manifest, 20.0)
    found = survey(context, ["coadds"])
    # SOF needs the MEDS files, which need the coadds.
    assert (found.again, found.cpu) == (2, pytest.approx(20.0, abs=2.0))
    assert survey(context, ["prepared"]).again == 4 + 1 + 1 + 2 * 2
    assert survey(context, ["sof"]).again == 1
    assert "The next run makes 2 steps again" in str(found)
    assert survey(context).again == 0


def test_a_fit_counts_its_chunks_once(context):
    main = Job("sof", context).manifest
    chunks = sorted(main.parent.glob("*chunk*"))
    assert len(chunks) == 2
    for chunk in chunks:
        spent(chunk, 30.0)
    spent(main, 61.0)
    assert classes(survey(context, ["sof"]))["sof"].cpu == pytest.approx(61.0)
    # Finished by another run, whose chunks were found done.
    spent(main, 1.0)
    assert survey(context, ["sof"]).cpu == pytest.approx(60.0)


def test_logs_replays_and_leftovers(context):
    tree = context.at("0").tree
    log, tool = context.tree.log("coadd", "g"), context.tree.tool_log("swarp", "g")
    replay, left = tree.replay(1, "c"), context.tree.coadd / f"{PART_PREFIX}12-ab-x.fits"
    for path in (log, tool, replay, left):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    found = classes(survey(context))
    assert found["logs"].files == (log, tool)
    assert (found["replays"].files, found["leftovers"].files) == ((replay,), (left,))
    clean(context, ["logs", "replays", "leftovers"])
    assert not any(path.exists() for path in (log, tool, replay, left))
    assert verify(context).sound


def test_damaged_manifests_are_left_to_repair(context):
    manifest = context.tree.manifest("coadd", "g")
    manifest.write_text("{")
    clean(context, ["coadds"])
    assert manifest.is_file()
    assert context.tree.image("g").is_file()


def test_the_command_asks(terminal, command, context, base):
    words = ["balrog", "clean", TILE, "--remove", "coadds"]
    before = files(base)

    def answered(answer):
        return subprocess.run(words, **terminal, input=answer, capture_output=True, text=True, check=False)

    refused = answered("n\n")
    assert refused.returncode == 0
    assert "block 2" in refused.stdout
    nobody = answered("")
    assert nobody.returncode == 1
    assert "there was no answer" in nobody.stderr
    assert "Traceback" not in nobody.stderr
    assert files(base) == before
    assert answered("y\n").returncode == 0
    assert not context.tree.image("g").exists()
    yes = command("balrog", "clean", TILE, "--remove", "sof", "--yes", "--json")
    assert yes.returncode == 0, yes.stderr
    assert json.loads(yes.stdout)[0]["classes"][0]["class"] == "sof"
    assert not context.tree.fit("sof").exists()


def test_the_command_says_what_had_to_stay(command, base):
    make_base(context_of(base), adopted=True)
    seen = command("balrog", "clean", TILE, "--remove", "prepared", "--yes")
    assert seen.returncode == 1
    assert "adopted" in seen.stdout


def test_a_run_makes_as_many_steps_again_as_the_survey_says(command, base):
    """A whole tile with a realization; without its MEDS files: those, the fits on them, the matches and the report."""
    whole = context_of(base)
    context = replace(whole, pipeline=whole.pipeline.model_copy(update={"realizations": ("0",)}))
    for job in jobs(context):
        if job.step not in ("mof", "mcal", "bfd"):
            make(job, **({"bands": list(BANDS)} if job.step == "sof" else {}))
    found = clean(context, ["meds"])
    assert found.again == 8 + 2 + 1 + 1
    dry = command("snakemake", "-n", f"tile={TILE}", "--config", "realizations=0")
    assert dry.returncode == 0, dry.stderr
    rules = dict(re.findall(r"^(\w+) +(\d+)$", dry.stdout, re.MULTILINE))
    assert rules == {"meds": "8", "sof": "2", "match": "1", "tile_report": "1", "total": "13"}
