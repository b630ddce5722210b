"""The workflow as a user calls it: targets, refusals, the graph."""

import json
import re
import shutil
from types import SimpleNamespace

from conftest import CHECKOUT

from balrogutils.cli.workflow import Run
from balrogutils.context import Installation
from balrogutils.layout import MODE_BITS
from balrogutils.report.summary import BLOCK_NAMES

TILE = "DES0239+0216"
BANDS = "griz"
# One base run and two realizations; a realization has inject in place of prep, and plan, truth and match. One report.
JOBS = {"prep": 4, "plan": 2, "inject": 8, "truth": 2, "coadd": 12, "detection": 3, "psf_maps": 3, "catalog": 12}
JOBS |= {"meds": 12, "sof": 3, "match": 2, "tile_report": 1}


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


def test_a_slip_in_the_configuration_of_a_late_block_is_told_when_that_block_is_to_run(command, base):
    file = base / "desmeds-config" / "meds-y3v02.yaml"
    file.write_text(file.read_text().replace("sigma_fac: ", "sigma_fact: "))
    done = command("snakemake", "-n", f"tile={TILE}")
    assert done.returncode == 2
    assert "did you mean 'sigma_fac'" in done.stderr
    assert command("snakemake", "-n", f"tile={TILE}", "--config", "mode=3").returncode == 0


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


def test_the_base_run_alone(command):
    done = command("snakemake", "-n", f"tile={TILE}", "--config", "realizations=none", "mode=199")
    assert counted(done.stdout + done.stderr) == {
        **{"prep": 4, "coadd": 4, "detection": 1, "psf_maps": 1, "catalog": 4, "meds": 4, "sof": 1, "mof": 1},
        **{f"tile={TILE}": 1, "total": 21},
    }
    refused = command("snakemake", "-n", f"tile={TILE}", "--config", "mode=71")
    assert refused.returncode == 2
    assert "realizations=none for the base run alone" in refused.stderr


def commands(text):
    """The balrog commands that a dry run with -p shows, by subcommand."""
    found = re.findall(r"^(?:Shell command:)? *(balrog (\w+) .*)$", text, re.MULTILINE)
    return {name: [line for line, other in found if other == name] for _, name in found}


def test_realizations_of_the_call_need_not_be_those_of_the_injection_configuration(command):
    done = command("snakemake", "-n", "-p", f"tile={TILE}", "--config", "realizations=17")
    plan = next(line for line in commands(done.stdout + done.stderr)["inject"] if "--plan-only" in line)
    ran = command("bash", "-c", plan)
    # The realization is accepted: what is missing is what block 1 would have made.
    assert "geometry" in ran.stderr
    assert "is not one of" not in ran.stderr


def test_settings_reach_the_steps_that_obey_them_and_no_others(command, base):
    mine = base / "mine"
    mine.mkdir()
    for name in ("inputs/bal_config_stars.yaml", "sof-config/run-y3v02-sof.yaml"):
        shutil.copy(base / name, mine)
    words = [f"galsim_config={mine}/bal_config_stars.yaml", f"sof_config={mine}/run-y3v02-sof.yaml", "seed=3"]
    done = command("snakemake", "-n", "-p", f"tile={TILE}", "--config", *words)
    shown = commands(done.stdout + done.stderr)
    assert set(shown) == {"prep", "coadd", "detect", "meds", "inject", "sof", "match", "report"}
    for step, lines in shown.items():
        for line in lines:
            assert ("galsim_config=" in line) == (step == "inject")
            assert ("sof_config=" in line) == (step == "sof")
            assert "--set seed=3" in line


def test_connections_to_a_server_of_files_count_and_those_to_a_disk_do_not(base):
    file = base / "etc" / "campaigns.yaml"
    text = file.read_text()
    remote = text.replace(
        "archive: file://{run}/archive/synthetic/desarchive/", "archive: https://h/\n    connections: 3"
    )
    for content, count in ((text, 0), (remote, 3)):
        file.write_text(content)
        run = Run.__new__(Run)
        run.installation = Installation.load({}, {"BALROG_BASE": str(base)})
        assert run.connections(SimpleNamespace(tile=TILE)) == count
    # All jobs together: the profile that is picked up by itself.
    profile = (CHECKOUT / "profiles" / "default" / "config.yaml").read_text()
    assert re.search(r"^resources: archive_connections=\d+", profile, re.MULTILINE)


def test_a_tile_without_its_archive(command, base):
    (base / "run/archive/synthetic/archive.db").unlink()
    done = command("snakemake", "-n", f"tile={TILE}")
    assert done.returncode == 2
    assert "balrog archive synthetic" in done.stderr


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


def test_every_block_has_a_name_in_the_summary():
    assert set(BLOCK_NAMES) == set(MODE_BITS.values())
