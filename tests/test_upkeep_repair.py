"""Damaged products removed: what must never be removed first, then exactly what must, then the command."""

import json
import re
from pathlib import Path

import pytest
from upkeep_tile import (
    BANDS,
    CHIP,
    TILE,
    context_of,
    files,
    flip,
    image,
    make_base,
    make_realization,
    table,
    touch,
)

from balrogutils import runlock
from balrogutils.errors import InputError, ProductError
from balrogutils.products import Step
from balrogutils.upkeep.repair import repair
from balrogutils.upkeep.verify import verify


@pytest.fixture
def context(base):
    return make_base(context_of(base))


def names(found):
    return {finding.path for finding in found}


def removed_by(context, **options):
    """Repair; return what it says, and the files that went, having checked that the others are as they were."""
    root = context.site.base
    before = files(root)
    done = repair(context, **options)
    after = files(root)
    assert {path: content for path, content in before.items() if path in after} == after
    return done, set(before) - set(after)


def test_nothing_made(base):
    with pytest.raises(ProductError, match="nothing has been made"):
        repair(context_of(base))
    assert not (base / "run" / "meds").exists()


def test_nothing_damaged(context):
    make_realization(context, "0")
    told, gone = removed_by(context)
    assert not gone
    assert str(told) == f"Tile {TILE}: nothing is damaged, nothing was removed."


def test_another_time_is_no_damage(context):
    touch(context.tree.image("g"))
    told, gone = removed_by(context)
    assert not gone
    assert not told.removed


def test_inputs_are_never_removed(context, base):
    source, product = base / "inputs" / "bal_config_exp.yaml", table(context.tree.meds("g"))
    with Step(context.tree.manifest("meds", "g"), "meds", about=context.about("g")) as step:
        step.read(source, context.tree.image("g"))
        step.wrote(product)
    source.write_text("edited")
    _, gone = removed_by(context)
    assert not gone


@pytest.mark.parametrize("name", ["/etc/passwd", "{base}/precious", "{dir}/../DES0240+0216/precious", "precious"])
def test_a_manifest_edited_by_hand_removes_nothing(context, base, name):
    flip(context.tree.fit("sof"))
    (base / "precious").write_text("x")
    manifest = context.tree.manifest("coadd", "g")
    document = json.loads(manifest.read_text())
    document["outputs"][0]["path"] = name.format(base=base, dir=context.tree.dir)
    manifest.write_text(json.dumps(document))
    before = files(base)
    with pytest.raises(ProductError) as caught:
        repair(context)
    assert files(base) == before
    assert document["outputs"][0]["path"] in str(caught.value)
    assert str(manifest) in str(caught.value)


def test_what_lies_behind_a_link_out_of_the_tile_stays(context, base):
    shared = base / "shared"
    context.tree.coadd.rename(shared)
    context.tree.coadd.symlink_to(shared)
    flip(shared / f"{TILE}_g.fits")
    told, gone = removed_by(context)
    assert not gone
    ((finding, why),) = told.refused
    assert finding.path == context.tree.image("g")
    assert "a link that leads out" in why


def test_a_tile_that_is_a_link_as_a_whole_is_repaired(context, base):
    context.tree.dir.rename(base / "big disk")
    context.tree.dir.symlink_to(base / "big disk")
    flip(context.tree.image("g"))
    told, _ = removed_by(context)
    assert names(told.removed) == {context.tree.image("g")}
    assert not context.tree.image("g").exists()


def test_a_link_is_removed_and_not_what_it_leads_to(context, base):
    path = context.tree.image("g")
    path.rename(base / "elsewhere.fits")
    path.symlink_to(base / "elsewhere.fits")
    flip(base / "elsewhere.fits")
    told, gone = removed_by(context)
    assert names(told.removed) == {path}
    assert gone == {path, context.tree.manifest("coadd", "g")}


def test_what_is_no_plain_file_stays(context):
    path = context.tree.image("g")
    path.unlink()
    path.mkdir()
    told, gone = removed_by(context)
    assert not gone
    assert "by hand" in told.refused[0][1]


def test_a_step_this_version_does_not_have_is_left_alone(context):
    path = table(context.tree.fit("shapelets"))
    with Step(context.tree.manifest("shapelets"), "shapelets", about=context.about()) as step:
        step.wrote(path)
    flip(path)
    told, gone = removed_by(context)
    assert not gone
    assert "this version has no step shapelets" in told.refused[0][1]


def test_adopted_products_stay(base):
    context = make_base(context_of(base), adopted=True)
    damaged = context.tree.nullwt("r", CHIP.format("r"))
    flip(damaged)
    flip(context.tree.image("g"))
    told, gone = removed_by(context)
    # What a run can make again goes all the same.
    assert gone == {context.tree.image("g"), context.tree.manifest("coadd", "g")}
    ((finding, why),) = told.refused
    assert finding.path == damaged
    assert f"restore it by hand, then balrog adopt {TILE}" in why


def test_adopted_files_may_lie_elsewhere_and_are_verified_and_stay(base):
    context = context_of(base)
    elsewhere = image(base / "archive" / "bkg.fits")
    with Step(context.tree.manifest("prep", "g"), "prep", about=context.about("g"), extra={"adopted": True}) as step:
        step.wrote(elsewhere)
    report = verify(context, deep=True)
    assert report.sound
    assert report.blocks[0].checked == 1
    flip(elsewhere)
    told, gone = removed_by(context)
    assert not gone
    assert names(finding for finding, _ in told.refused) == {elsewhere}


def test_a_broken_manifest_beside_adopted_ones_stays(base):
    context = make_base(context_of(base), adopted=True)
    context.tree.manifest("prep", "g").write_text("{")
    told, gone = removed_by(context)
    assert not gone
    assert "made elsewhere" in told.refused[0][1]


def test_a_tile_that_a_run_has_is_left_alone(context, monkeypatch):
    monkeypatch.setattr(runlock, "_PATIENCE", 0.1)
    flip(context.tree.image("g"))
    with context_of(context.site.base).lock:
        with pytest.raises(InputError, match="another run has this tile"):
            repair(context)
        assert context.tree.image("g").exists()
        assert names(repair(context, dry_run=True).removed) == {context.tree.image("g")}
    repair(context)
    assert not context.tree.image("g").exists()


def gone_product(tree):
    tree.image("g").unlink()
    return [], [tree.manifest("coadd", "g")]


def flipped_product(tree):
    flip(tree.image("g"))
    return [tree.image("g")], [tree.manifest("coadd", "g")]


def truncated_product(tree):
    tree.image("g").write_bytes(b"SIMPLE")
    return [tree.image("g")], [tree.manifest("coadd", "g")]


def damaged_manifest(tree):
    tree.manifest("coadd", "g").write_text("{")
    return [], [tree.manifest("coadd", "g")]


def damaged_chunk(tree):
    flip(tree.fit_chunk("sof", 10, 19))
    return [tree.fit_chunk("sof", 10, 19)], [tree.manifest("sof-chunk000010-000019"), tree.manifest("sof")]


def damaged_fit(tree):
    flip(tree.fit("sof"))
    return [tree.fit("sof")], [tree.manifest("sof")]


def file_of_all_bands(tree):
    tree.geometry.write_text("{}\n")
    return [tree.geometry], [tree.manifest("prep", band) for band in BANDS]


DAMAGES = [
    gone_product,
    flipped_product,
    truncated_product,
    damaged_manifest,
    damaged_chunk,
    damaged_fit,
    file_of_all_bands,
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_exactly_the_damaged_products_go_and_the_manifests_that_claim_them(context, damage):
    products, manifests = damage(context.tree)
    _, gone = removed_by(context, dry_run=True)
    assert not gone
    assert not verify(context, deep=True).sound
    told, gone = removed_by(context)
    assert gone == {*products, *manifests}
    assert not told.refused
    report = verify(context, deep=True)
    assert report.sound
    assert sum(block.steps_not_made for block in report.blocks) > 0
    _, gone = removed_by(context)
    assert not gone


def test_both_names_of_a_hard_link_go(context):
    tree = make_realization(context, "0").tree
    twins = {tree.nullwt("g", CHIP.format("g")), tree.injected("g", CHIP.format("g"))}
    flip(min(twins))
    _, gone = removed_by(context)
    assert gone == {*twins, tree.manifest("inject", "g")}


@pytest.mark.parametrize("damage", [flipped_product, damaged_chunk, file_of_all_bands])
def test_killed_in_between_nothing_damaged_is_left_with_a_manifest(context, damage, monkeypatch):
    (product,), manifests = damage(context.tree)
    unlink = Path.unlink

    def killed(path, missing_ok=False):
        if path == product:
            raise KeyboardInterrupt
        unlink(path, missing_ok=missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", killed)
        with pytest.raises(KeyboardInterrupt):
            repair(context)
    assert product.exists()
    assert not any(manifest.exists() for manifest in manifests)
    assert verify(context, deep=True).sound


def test_a_directory_that_refuses(context, monkeypatch):
    def refuse(path, missing_ok=False):
        raise PermissionError(13, "Permission denied", str(path))

    flip(context.tree.image("g"))
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refuse)
        told = repair(context)
    assert "Permission denied" in told.refused[0][1]
    assert not told.removed


def test_what_is_told(context):
    tree = context.tree
    tree.image("g").unlink()
    tree.manifest("prep", "g").write_text("{")
    flip(tree.fit("sof"))
    told = str(repair(context))
    assert f"    {TILE}_coadd_g.json removed; block 2 (coadd+catalogue, base) makes it again" in told
    assert "    removed; block 1 (prep, base) makes it again" in told
    assert f"    removed with {TILE}_sof.json; block 64 (SOF, base) makes it again" in told


def test_the_command_to_run_next(context):
    flip(context.tree.image("g"))
    assert repair(context, dry_run=True).command == f"snakemake --cores all tile={TILE}"
    command = repair(context, dry_run=True, settings=("seed=3", "galsim_config=my file.yaml")).command
    assert command == f"snakemake --cores all tile={TILE} --config seed=3 'galsim_config=my file.yaml'"


def test_the_command_to_run_next_names_realizations_and_blocks_that_are_not_made_by_default(base):
    pipeline = base / "etc" / "pipeline.yaml"
    pipeline.write_text(re.sub(r"(?m)^mode:.*", "mode: 3", pipeline.read_text()))
    context = make_base(context_of(base))
    assert context.pipeline.mode == 3
    tree = make_realization(context, "17").tree
    flip(tree.plan)
    told = repair(context, dry_run=True, settings=("realizations=0",))
    assert told.command == f"snakemake --cores all tile={TILE} --config mode=11 realizations=0,1,17"


def test_the_command_as_a_user_types_it(command, context, base):
    damaged = context.tree.nullwt("r", CHIP.format("r"))
    flip(damaged)
    assert command("balrog", "verify", TILE).returncode == 0
    before = files(base)
    ran = command("balrog", "repair", "--dry-run", TILE)
    assert ran.returncode == 0
    assert f"{damaged}\n    tile {TILE}, band r, base, step prep: its content has changed" in ran.stdout
    assert f"would be removed with {TILE}_prep_r.json; block 1 (prep, base) makes it again" in ran.stdout
    assert files(base) == before
    ran = command("balrog", "repair", TILE)
    assert ran.returncode == 0
    assert f"    removed with {TILE}_prep_r.json; block 1 (prep, base) makes it again" in ran.stdout
    assert f"Run next the command that made it, or: snakemake --cores all tile={TILE}" in ran.stdout
    assert set(before) - set(files(base)) == {damaged, context.tree.manifest("prep", "r")}
    ran = command("balrog", "repair", TILE)
    assert ran.returncode == 0
    assert "nothing is damaged" in ran.stdout
    plan = command("snakemake", "-n", f"tile={TILE}", "--config", "mode=1")
    assert re.search(r"(?m)^prep +1$", plan.stdout + plan.stderr)


def test_the_command_ends_with_status_1_when_something_had_to_stay(command, base):
    context = make_base(context_of(base), adopted=True)
    image(context.tree.nullwt("r", CHIP.format("r")), 99)
    ran = command("balrog", "repair", TILE)
    assert ran.returncode == 1
    assert "not removed: it was made elsewhere" in ran.stdout
    assert "Run next" not in ran.stdout
    context.tree.manifest("coadd", "g").write_text(
        json.dumps({"step": "coadd", "inputs": [], "outputs": [{"path": "/x", "size": 1, "mtime_ns": 1, "sha256": ""}]})
    )
    ran = command("balrog", "repair", TILE)
    assert ran.returncode == 1
    assert "a manifest names a file that is not the tile's: /x" in ran.stderr
    assert "Traceback" not in ran.stderr
