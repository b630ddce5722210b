"""The workflow as a user calls it: targets, refusals, the graph."""

import json
import re

import pytest

TILE = "DES0239+0216"
BANDS = "griz"
# One base run and two realizations; a realization has inject in place of prep, and plan, truth and match.
JOBS = {"prep": 4, "coadd": 12, "detection": 3, "catalog": 12, "meds": 12, "plan": 2, "inject": 8, "truth": 2, "sof": 3}
JOBS |= {"match": 2}


def counted(text):
    """Jobs by rule in the table of a dry run."""
    return {name: int(count) for name, count in re.findall(r"^([\w=+.-]+) +(\d+)$", text, re.MULTILINE)}


def fake(base, tile, step, band, product, realization=None):
    """Leave a manifest and a product as an earlier run would have."""
    root = base / "run/meds/y3v02" / (f"balrog_images/{realization}/y3v02" if realization else "") / tile
    manifest = root / "manifests" / (f"{tile}_{step}_{band}.json" if band else f"{tile}_{step}.json")
    manifest.parent.mkdir(parents=True, exist_ok=True)
    (root / product).parent.mkdir(parents=True, exist_ok=True)
    (root / product).write_text("x")
    manifest.write_text(json.dumps({"step": step, "inputs": [], "outputs": [{"path": str(root / product)}]}))
    return root / product


def test_a_bare_call_explains_itself(command):
    done = command("snakemake")
    assert done.returncode == 0
    assert f"snakemake --cores 16 tile={TILE}" in done.stderr
    assert "1 prep, 2 coadd" in done.stderr


def test_the_whole_graph_of_one_tile(command):
    done = command("snakemake", "-n", "--cores", "2", f"tile={TILE}")
    assert done.returncode == 0, done.stderr
    assert counted(done.stdout + done.stderr) == {**JOBS, f"tile={TILE}": 1, "total": sum(JOBS.values()) + 1}


def test_config_tile_means_the_same(command):
    done = command("snakemake", "-n", "--cores", "2", "--config", f"tile={TILE}")
    assert done.returncode == 0, done.stderr
    assert counted(done.stdout + done.stderr) == {**JOBS, "tiles": 1, "total": sum(JOBS.values()) + 1}


def test_several_tiles_at_once_and_bands_of_each(command):
    done = command("snakemake", "-n", "--cores", "2", f"tile={TILE}", "tile=DES1226+2527")
    assert done.returncode == 0, done.stderr
    assert counted(done.stdout + done.stderr)["prep"] == 4 + 3


def test_a_realization_more_is_a_realization_more(command):
    done = command("snakemake", "-n", f"tile={TILE}", "--config", "realizations=0,1,2")
    jobs = counted(done.stdout + done.stderr)
    assert jobs["prep"] == 4
    assert jobs["plan"] == 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["tile=DES0239+0217"], "did you mean 'DES0239+0216'"),
        (["tile=des0239+0216"], "did you mean 'DES0239+0216'"),
        (["tile="], "tile= names no tile"),
        ([f"tile={TILE}", "--config", "mod=8"], "did you mean 'mode'"),
        ([f"tile={TILE}", "--config", "mode=0"], "mode"),
        ([f"tile={TILE}", "--config", "mode=2048"], "mode"),
        ([f"tile={TILE}", "--config", "mode=128"], "this version does not have: 128"),
        ([f"tile={TILE}", "--config", "bands=g,y"], "band y is not in campaign synthetic"),
        ([f"tile={TILE}", "--config", "bands=g"], "none of the detection bands"),
        ([f"tile={TILE}", "--config", "galsim_config=absent.yaml"], "absent.yaml"),
        ([f"tile={TILE}", "--config", "campaign=synthetc"], "did you mean 'synthetic'"),
        ([f"tile={TILE}", "--config", "medsconf=y9"], "medsconf"),
        ([f"tile={TILE}", "--config", "mode=4"], "block 1 makes it"),
        ([f"tile={TILE}", "--config", "mode=8"], "block 1 makes it"),
        ([f"tile={TILE}", "--config", "mode=16"], "block 8 makes it"),
    ],
)
def test_refusals_are_plain_and_end_with_status_2(command, base, words, message):
    done = command("snakemake", "-n", *words)
    assert done.returncode == 2
    assert message in done.stderr
    assert "remedy:" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (base / "run" / "meds").exists()


def test_a_tile_without_its_archive(command, base):
    (base / "run/archive/synthetic/archive.db").unlink()
    done = command("snakemake", "-n", f"tile={TILE}")
    assert done.returncode == 2
    assert "balrog archive synthetic" in done.stderr


def test_a_contradicting_environment(command):
    done = command("snakemake", "-n", f"tile={TILE}", medsconf="y6")
    assert done.returncode == 2
    assert "medsconf=y6" in done.stderr


def test_one_block_takes_the_others_products_as_they_are(command, base):
    for band in BANDS:
        fake(base, TILE, "prep", band, f"lists/{TILE}_{band}_nullwt-flist-y3v02.dat")
    done = command("snakemake", "-n", "--forceall", f"tile={TILE}", "--config", "mode=8")
    assert done.returncode == 0, done.stderr
    jobs = counted(done.stdout + done.stderr)
    assert set(jobs) == {"plan", "inject", "truth", f"tile={TILE}", "total"}


def test_a_product_that_is_gone_is_made_again(command, base):
    products = [fake(base, TILE, "prep", band, f"lists/{TILE}_{band}_nullwt-flist-y3v02.dat") for band in BANDS]
    assert "prep" not in counted(command("snakemake", "-n", f"tile={TILE}").stdout)
    products[0].unlink()
    done = command("snakemake", "-n", f"tile={TILE}")
    assert counted(done.stdout + done.stderr)["prep"] == 1
    assert "is gone or unreadable; step prep will be made again" in done.stderr


def test_lint_finds_no_class_but_the_missing_container(command):
    done = command("snakemake", "--lint", "text", f"tile={TILE}")
    classes = set(re.findall(r"^    \* (.*)$", done.stdout + done.stderr, re.MULTILINE))
    assert classes == {"Specify a conda environment or container for each rule.:"}
