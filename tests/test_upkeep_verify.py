"""Products against their manifests: broken manifests first, then what can happen to a product, then the command."""

import errno
import json
import os
import shutil
import sys
from pathlib import Path

import fitsio
import numpy as np
import pytest
from upkeep_tile import BANDS, CHIP, TILE, context_of, done, flip, image, make_base, make_realization, table, touch

from balrogutils.context import Installation
from balrogutils.errors import ProductError
from balrogutils.fitsfile import pack
from balrogutils.graph import Job
from balrogutils.products import PART_PREFIX, Step
from balrogutils.upkeep import verify as module
from balrogutils.upkeep.inventory import inside
from balrogutils.upkeep.sums import wrong_sums
from balrogutils.upkeep.verify import Fault, verify


@pytest.fixture
def context(base):
    return make_base(context_of(base))


def faults(report):
    return {finding.path: finding.fault for finding in report.findings}


def entry(path, **changes):
    return {"path": str(path), "size": 1, "mtime_ns": 1, "sha256": "0" * 64} | changes


def manifest_text(outputs, **changes):
    return json.dumps({"step": "coadd", "inputs": [], "outputs": outputs, "ended": 1.0} | changes)


BROKEN = {
    "empty": "",
    "truncated": manifest_text([entry("/x")])[:-40],
    "garbage": b"\x80\x81\xff\x00SIMPLE",
    "a list": "[]",
    "null": "null",
    "a number": "17",
    "no outputs": '{"step": "coadd", "inputs": []}',
    "no step": '{"outputs": [], "inputs": []}',
    "outputs is a mapping": manifest_text({"path": "/x"}),
    "outputs is null": manifest_text(None),
    "outputs is text": manifest_text("/x"),
    "an output is text": manifest_text(["/x"]),
    "an output is a list": manifest_text([["/x"]]),
    "an output without size": manifest_text([{"path": "/x", "mtime_ns": 1, "sha256": ""}]),
    "an output without time": manifest_text([{"path": "/x", "size": 1, "sha256": ""}]),
    "an output without sum": manifest_text([{"path": "/x", "size": 1, "mtime_ns": 1}]),
    "size is text": manifest_text([entry("/x", size="1")]),
    "size is true": manifest_text([entry("/x", size=True)]),
    "time is null": manifest_text([entry("/x", mtime_ns=None)]),
    "sum is a number": manifest_text([entry("/x", sha256=1)]),
    "path is a number": manifest_text([entry("/x") | {"path": 3}]),
    "path is empty": manifest_text([entry("")]),
    "path with a zero byte": manifest_text([entry("/x\0y")]),
    "path that is no text": manifest_text([entry("/\ud800")]),
    "a number of thousands of digits": '{"step": "coadd", "inputs": [], "outputs": [], "n": ' + "1" * 9000 + "}",
    "thousands of brackets": "[" * 100000,
    "of another step": manifest_text([], step="meds"),
    "step is a list": manifest_text([], step=["coadd"]),
    "of another band": manifest_text([], band="r"),
    "of another tile": manifest_text([], tile="DES0240+0216"),
    "of a realization": manifest_text([], realization="0"),
}


def test_a_broken_manifest_is_damaged_itself_and_nothing_else_is(context):
    manifest = context.tree.manifest("coadd", "g")
    for name, text in BROKEN.items():
        manifest.write_bytes(text if isinstance(text, bytes) else text.encode())
        for deep in (False, True):
            report = verify(context, deep=deep)
            assert faults(report) == {manifest: Fault.MANIFEST}, name
            assert not report.sound
            assert report.findings[0].document()["step"] == "coadd"
            assert report.findings[0].document()["band"] == "g"
            coadds = next(block for block in report.blocks if (block.bit, block.realization) == (2, None))
            assert (coadds.checked, coadds.good, coadds.damaged) == (1, 0, 1)
            assert str(manifest) in str(report)


def test_a_directory_in_the_place_of_a_manifest(context):
    manifest = context.tree.manifest("coadd", "g")
    manifest.unlink()
    manifest.mkdir()
    assert faults(verify(context)) == {manifest: Fault.FORBIDDEN}


@pytest.mark.parametrize("ended", ["soon", None, True, -1, 10**400])
def test_a_manifest_without_its_end_still_speaks_of_its_products(context, ended):
    manifest = context.tree.manifest("coadd", "g")
    document = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(document | {"ended": ended}))
    assert verify(context, deep=True).sound


def test_nothing_made(base):
    with pytest.raises(ProductError, match="nothing has been made"):
        verify(context_of(base))
    assert not (base / "run" / "meds").exists()


def test_a_step_without_products_is_good(context):
    done(Job("coadd", context, "r"))
    assert verify(context, deep=True).sound


def test_what_is_counted(context):
    make_realization(context, "1")
    report = verify(context, deep=True)
    assert report.sound
    counted = {(block.bit, block.realization): block for block in report.blocks}
    made = {key: (block.checked, block.good) for key, block in counted.items() if block.checked}
    # The geometry of four preps is one product; so are chunks that two manifests claim.
    assert made == {(1, None): (9, 9), (2, None): (1, 1), (64, None): (3, 3), (8, "1"): (4, 4)}
    missing = {key: (block.steps_not_made, block.steps) for key, block in counted.items() if block.steps_not_made}
    assert missing[2, None] == (9, 10)
    assert missing[4, None] == (4, 4)
    assert missing[8, "0"] == (6, 6)
    assert missing[8, "1"] == (4, 6)
    assert (1, None) not in missing
    assert (64, None) not in missing


def test_a_realization_that_no_configuration_names_is_verified_too(context, base):
    here = make_realization(context, "17")
    assert verify(context).sound
    here.tree.plan.unlink()
    report = verify(context)
    assert faults(report) == {here.tree.plan: Fault.GONE}
    assert "realization 17, step plan" in str(report)
    # Behind it comes the report of all realizations alone.
    assert [block.realization for block in report.blocks][-2:] == ["17", None]
    alone = Installation.load({"realizations": "none"}, {"BALROG_BASE": str(base)}).context(TILE)
    assert faults(verify(alone)) == faults(report)
    assert {block.realization for block in verify(alone).blocks} == {None, "17"}


def cut(path):
    with path.open("r+b") as stream:
        stream.truncate(path.stat().st_size - 100)


def empty(path):
    path.write_bytes(b"")


def append(path):
    with path.open("ab") as stream:
        stream.write(b"x")


def flip_openly(path):
    flip(path)
    touch(path)


def rewrite(path):
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content)


def replace_by_directory(path):
    path.unlink()
    path.mkdir()


def replace_directory_by_file(path):
    shutil.rmtree(path.parent)
    path.parent.write_text("x")


def dangle(path):
    path.unlink()
    path.symlink_to(path.parent / "nowhere")


def loop(path):
    path.unlink()
    path.symlink_to(path)


def link_elsewhere(path):
    path.rename(path.parent / "moved")
    path.symlink_to(path.parent / "moved")


HAPPENED = [
    (lambda path: None, None, None),
    (lambda path: path.unlink(), Fault.GONE, Fault.GONE),
    (lambda path: shutil.rmtree(path.parent), Fault.GONE, Fault.GONE),
    (replace_directory_by_file, Fault.GONE, Fault.GONE),
    (dangle, Fault.GONE, Fault.GONE),
    (loop, Fault.UNREADABLE, Fault.UNREADABLE),
    (cut, Fault.RESIZED, Fault.RESIZED),
    (empty, Fault.RESIZED, Fault.RESIZED),
    (append, Fault.RESIZED, Fault.RESIZED),
    (flip, None, Fault.CHANGED),
    (flip_openly, Fault.TOUCHED, Fault.CHANGED),
    (touch, Fault.TOUCHED, None),
    (rewrite, Fault.TOUCHED, None),
    (replace_by_directory, Fault.FORBIDDEN, Fault.FORBIDDEN),
    (link_elsewhere, None, None),
]


@pytest.mark.parametrize(("happen", "fast", "deep"), HAPPENED)
def test_what_happens_to_a_product(context, happen, fast, deep):
    paths = [context.tree.coadd / name / f"a.{name}" for name in ("fits", "psf", "list")]
    image(paths[0])
    table(paths[1])
    paths[2].parent.mkdir()
    paths[2].write_text("2 words\n" * 200)
    done(Job("coadd", context, "r"), *paths)
    for path in paths:
        happen(path)
    assert faults(verify(context)) == ({} if fast is None else dict.fromkeys(paths, fast))
    report = verify(context, deep=True)
    assert faults(report) == ({} if deep is None else dict.fromkeys(paths, deep))
    if deep is Fault.CHANGED:
        told = {finding.path: finding.what for finding in report.findings}
        assert "HDU 2 MSK: DATASUM" in told[paths[0]]
        assert told[paths[2]] == "its content has changed"


def test_the_page_of_a_report_has_the_time_that_snakemake_gave_it(context):
    page = context.tree.report
    page.parent.mkdir()
    page.write_text("<html>" * 200)
    done(Job("report", context), page)
    touch(page)
    assert verify(context).sound
    flip_openly(page)
    assert faults(verify(context)) == {page: Fault.TOUCHED}


def test_a_product_recorded_after_it_was_damaged(context):
    path = context.tree.image("r")
    image(path)
    flip(path)
    done(Job("coadd", context, "r"), path)
    assert verify(context).sound
    report = verify(context, deep=True)
    assert faults(report) == {path: Fault.SUMS}
    assert "HDU 2 MSK: DATASUM" in report.findings[0].what


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (OSError(errno.EIO, "Input/output error"), Fault.UNREADABLE),
        (PermissionError(errno.EACCES, "Permission denied"), Fault.FORBIDDEN),
    ],
)
def test_a_disk_that_fails(context, monkeypatch, error, fault):
    bad, whole = context.tree.image("g"), module.sha256

    def read(path):
        if path == bad:
            raise error
        return whole(path)

    monkeypatch.setattr(module, "sha256", read)
    assert verify(context).sound
    assert faults(verify(context, deep=True)) == {bad: fault}


def test_hard_links_are_one_file_under_two_names_and_read_once(context, monkeypatch):
    here = make_realization(context, "0")
    names = [here.tree.nullwt("g", CHIP.format("g")), here.tree.injected("g", CHIP.format("g"))]
    read, whole = [], module.sha256
    monkeypatch.setattr(module, "sha256", lambda path: (read.append(path), whole(path))[1])
    flip(names[0])
    assert verify(context).sound
    assert faults(verify(context, deep=True)) == dict.fromkeys(names, Fault.CHANGED)
    assert len([path for path in read if path in names]) == 1


def test_one_of_several_records_is_enough_for_size_and_time_but_content_must_be_the_newest(context):
    path = context.tree.geometry
    first = json.loads(context.tree.manifest("prep", "g").read_text())["outputs"][-1]
    assert first["path"] == str(path)
    # The time the first band's prep recorded; the others wrote the file again after it.
    os.utime(path, ns=(first["mtime_ns"], first["mtime_ns"]))
    assert verify(context).sound
    newest = context.tree.manifest("prep", "z")
    path.write_text('{"tile": 2}\n')
    assert faults(verify(context)) == {path: Fault.TOUCHED}
    assert faults(verify(context, deep=True)) == {path: Fault.CHANGED}
    done(Job("prep", context, "z"), path)
    assert verify(context, deep=True).sound
    path.write_text('{"tile": 1}\n')
    report = verify(context, deep=True)
    assert faults(report) == {path: Fault.CHANGED}
    assert report.findings[0].maker.path == newest
    assert len(report.findings[0].manifests) == len(BANDS)


def test_a_step_that_starts_meanwhile_is_not_damage(context, monkeypatch):
    path, whole = context.tree.image("g"), module.sha256

    def read(asked):
        if asked == path:
            # A step that starts removes its manifest, then writes its products anew.
            Job("coadd", context, "g").manifest.unlink()
            image(path, 99)
        return whole(asked)

    monkeypatch.setattr(module, "sha256", read)
    report = verify(context, deep=True)
    assert report.sound
    assert next(block for block in report.blocks if block.bit == 2).checked == 0


def test_unfinished_files_are_named_and_are_not_damage(context):
    tree = context.tree
    left = [
        tree.coadd / f"{PART_PREFIX}12-ab-x.fits",
        tree.fit("sof").with_name(f"{PART_PREFIX}12-ab-{tree.fit('sof').name}"),
    ]
    for path in left:
        path.write_text("half")
    report = verify(context, deep=True)
    assert report.sound
    assert set(report.leftovers) == set(left)
    assert all(str(path) in str(report) for path in left)


@pytest.mark.parametrize(
    "name",
    [
        "/etc/passwd",
        "inside.txt",
        "{dir}/../DES0240+0216/coadd/x.fits",
        "{dir}/coadd/../../DES0240+0216/x.fits",
        "{dir}/..",
        "{fits}/y3v02-sof/output/DES0240+0216-y3v02-sof.fits",
        "{fits}/y3v02-sof/DES0240+0216/x.fits",
        "{fits}/other/DES0239+0216/x.fits",
        "{base}/inputs/bal_config_exp.yaml",
    ],
)
def test_a_manifest_that_names_a_file_outside_its_tile(context, base, name):
    tree = context.tree
    stranger = name.format(dir=tree.dir, fits=tree.fits_root, base=base)
    manifest = tree.manifest("coadd", "r")
    manifest.write_text(manifest_text([entry(stranger), entry("/another/one")]))
    report = verify(context, deep=True)
    assert [finding.fault for finding in report.findings] == [Fault.OUTSIDE]
    assert [str(finding.path) for finding in report.findings] == [stranger]
    assert f"manifest {manifest} names it and 1 more" in report.findings[0].what


@pytest.mark.parametrize("name", ["{dir}/a", "{dir}/b/../c", "{fits}/y3v02-mof/output/DES0239+0216-y3v02-mof.fits"])
def test_names_inside_a_tile(context, name):
    tree = context.tree
    path = Path(name.format(dir=tree.dir, fits=tree.fits_root))
    assert inside(tree, path)
    assert inside(tree, path, follow=True)


def test_products_made_under_another_name_of_the_same_directory(context, base):
    other = base / "other name"
    other.symlink_to(base / "run" / "meds")
    assert verify(context_of(base, MEDS_DATA=str(other)), deep=True).sound


def test_checksums_are_those_of_cfitsio(tmp_path):
    plain = image(tmp_path / "a.fits")
    pack(plain, tmp_path / "a.fits.fz", "test")
    rows = table(tmp_path / "b.fits")
    with fitsio.FITS(str(tmp_path / "sum.fits"), "rw") as fits:
        # Big enough that a sum of 32-bit words carries many times, and not a whole number of blocks.
        fits.write(np.full(3_000_001, 0xFFFFFFF0, dtype=np.uint32))
        fits[-1].write_checksum()
    for path in (plain, tmp_path / "a.fits.fz", rows, tmp_path / "sum.fits"):
        assert wrong_sums(path) == ""
        with fitsio.FITS(str(path)) as fits:
            summed = [hdu for hdu in fits if "DATASUM" in hdu.read_header()]
            for hdu in summed:
                hdu.verify_checksum()
            places = [(hdu.get_extnum(), hdu.get_extname(), hdu.get_offsets()) for hdu in summed]
        assert places
        for number, name, place in places:
            for at, word in ((place["data_start"] - 1, "CHECKSUM"), (place["data_start"], "DATASUM")):
                if at < place["data_end"]:
                    flip(path, at)
                    assert wrong_sums(path) == f"HDU {number} {name}".strip() + f": {word}"
                    flip(path, at)


def test_files_without_checksums_or_that_are_no_fits(tmp_path):
    fitsio.write(str(tmp_path / "a.fits"), np.ones((3, 3)))
    assert wrong_sums(tmp_path / "a.fits") == ""
    (tmp_path / "b.fits").write_text("no image")
    assert "cannot be read as FITS" in wrong_sums(tmp_path / "b.fits")
    cut(image(tmp_path / "c.fits"))
    assert "ends early" in wrong_sums(tmp_path / "c.fits")


def test_the_command_when_all_is_good(command, context):
    ran = command("balrog", "verify", TILE)
    assert ran.returncode == 0, ran.stderr
    assert "Everything that has been made is good." in ran.stdout
    assert "Not made, or not whole: 2 coadd+catalogue (base), 4 MEDS (base)" in ran.stdout
    row = next(line for line in ran.stdout.splitlines() if line.split()[:3] == ["1", "prep", "base"])
    assert row.split()[3:] == ["9", "9", "0", "0", "0"]
    assert command("balrog", "verify", "--deep", TILE).returncode == 0


def test_the_command_names_what_is_damaged_and_what_is_suspect(command, context):
    here = make_realization(context, "1")
    damaged, suspect = here.tree.nullwt("g", CHIP.format("g")), context.tree.fit("sof")
    cut(damaged)
    touch(suspect)
    ran = command("balrog", "verify", TILE)
    assert ran.returncode == 1
    for words in (
        f"{damaged}\n    tile {TILE}, band g, realization 1, step inject: it has ",
        f"{suspect}\n    tile {TILE}, base, step sof: its size is right",
        f"balrog verify --deep {TILE}",
        f"balrog repair {TILE}",
    ):
        assert words in ran.stdout
    touch(damaged)
    ran = command("balrog", "verify", "--deep", "--json", TILE)
    assert ran.returncode == 1
    (report,) = json.loads(ran.stdout)
    assert report["deep"] is True
    assert {one["file"]: (one["fault"], one["bit"], one["step"], one["realization"]) for one in report["findings"]} == {
        str(damaged): ("resized", 8, "inject", "1"),
        str(here.tree.injected("g", CHIP.format("g"))): ("resized", 8, "inject", "1"),
    }
    row = next(block for block in report["blocks"] if (block["bit"], block["realization"]) == (8, "1"))
    assert (row["name"], row["checked"], row["good"], row["damaged"]) == ("injection", 4, 2, 2)


def test_suspect_alone_ends_with_status_1(command, context):
    touch(context.tree.image("g"))
    ran = command("balrog", "verify", TILE)
    assert ran.returncode == 1
    assert "Suspect, 1" in ran.stdout
    assert "Damaged" not in ran.stdout


def test_the_command_on_broken_manifests(command, context):
    for number, text in enumerate(BROKEN.values()):
        path = context.tree.manifest("coadd", f"b{number}")
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    ran = command("balrog", "verify", TILE)
    assert ran.returncode == 1
    assert f"Damaged, {len(BROKEN)}" in ran.stdout
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["verify", TILE, "DES0239+0217"], 2, "did you mean 'DES0239+0216'"),
        (["repair", "des0239+0216"], 2, "did you mean 'DES0239+0216'"),
        (["verify"], 2, "TILE..."),
        # As `balrog summary` has it.
        (["verify", TILE], 1, "nothing has been made of this tile yet"),
        (["repair", TILE], 1, "nothing has been made of this tile yet"),
    ],
)
def test_refusals(command, base, words, status, message):
    ran = command("balrog", *words)
    assert ran.returncode == status
    assert message in ran.stderr
    assert "Traceback" not in ran.stderr
    assert not (base / "run" / "meds").exists()


def test_a_step_of_another_version_is_checked_under_other(context):
    tree = context.tree
    path = table(tree.fit("shapelets"))
    with Step(tree.manifest("shapelets"), "shapelets", about=context.about()) as step:
        step.wrote(path)
    report = verify(context, deep=True)
    assert report.sound
    assert [block.checked for block in report.blocks if block.bit == 0] == [1]
    path.unlink()
    assert faults(verify(context)) == {path: Fault.GONE}


def test_the_table_of_moments_is_the_tile_s(context):
    """Its name has no dash after the tile: it lies in a directory that all tiles share."""
    moments = table(context.tree.moments(tuple(BANDS)), 5)
    done(Job("bfd", context), moments)
    left = moments.with_name(f"{PART_PREFIX}12-ab-{moments.name}")
    left.write_text("x")
    report = verify(context)
    assert report.findings == ()
    assert report.leftovers == (left,)
    assert not inside(context.tree, moments.with_name("DES0240+0216_BFDgriz.fits"))


def test_a_look_at_sizes_and_times_loads_no_numerics(context, command):
    """What keeps it under a second: nearly all of the time of a small tile is the start of the program."""
    code = "import sys; from balrogutils.cli.main import main; main(['verify', sys.argv[1]], standalone_mode=False);"
    seen = command(
        sys.executable, "-c", f"{code} print(sorted({{'numpy', 'fitsio', 'scipy'}} & set(sys.modules)))", TILE
    )
    assert seen.returncode == 0, seen.stderr
    assert seen.stdout.splitlines()[-1] == "[]"
