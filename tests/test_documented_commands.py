"""Every command that the documents show is run: here as it stands, or by the test that is named here."""

import ast
import json
import re
import shutil
import subprocess
import tomllib

import pytest
from click.testing import CliRunner
from conftest import CHECKOUT, REAL_TILE
from documented import DOCUMENTS, LANGUAGES, blocks, commands
from one_image import HEAD, ROUND, write_input

from balrogutils.cli.main import main
from balrogutils.fitsfile import read_table

TILE = "test_tile.py::test_a_tile_on_one_and_two_cores_and_one_block_again"
SLURM = "cluster/test_slurm.py::test_a_tile_through_slurm_is_the_local_one"
MAKE = "test_documented_commands.py::test_make_passes_its_variables_on"
PIP = "test_documented_commands.py::test_what_pip_is_to_install_is_an_extra_of_the_package"

# Where another test runs a command, or, of what takes a machine of one's own, the script that does.
ELSEWHERE = {
    "make tile": ".ci/run",
    "make test": ".ci/run",
    "make tile TILE=DES1226+2527 CORES=4": MAKE,
    "make bench NGMIX=PYTHON MEDS=PYTHON": MAKE,
    'pip install "snakemake-executor-plugin-htcondor>=0.3"': PIP,
    'pip install -e "CHECKOUT[slurm]"': PIP,
    "pip install oracledb": PIP,
    "apt-get install munge slurmctld slurmd slurm-client": "bin/install-debian.sh",
    "python -m balrogutils.settings.reference docs/configuration.md": (
        "test_configuration.py::test_the_reference_is_that_of_these_settings"
    ),
    "python -m balrogutils.fitting.sersicbank": "test_fit.py::test_bank_is_what_its_maker_writes",
    "snakemake --cores 16 tile=DES0239+0216 tile=DES0240+0216": (
        "test_workflow.py::test_several_tiles_at_once_and_bands_of_each"
    ),
    "snakemake --cores 16 tile=DES0239+0216 --forceall --config mode=8": TILE,
    "snakemake --cores 16 tile=T --config mode=1151 --forceall": TILE,
    "snakemake --cores 16 tile=T --config keep=none": (
        "test_temporary.py::test_a_realization_that_is_added_makes_nothing_of_the_others_again"
    ),
    "snakemake --cores 16 tile=T --config keep=differences": "test_differences.py::test_a_run",
    "snakemake --cores 2 tile=DES0239+0216 --config mode=9 galsim_config=examples/14_production.yaml realizations=30": (
        "test_injection_tiles.py::test_on_the_tile_of_real_sky"
    ),
    "balrog audit DES0239+0216 --redraw --set galsim_config=examples/14_production.yaml --set realizations=30": (
        "test_injection_tiles.py::test_on_the_tile_of_real_sky"
    ),
    "balrog campaign tiles.txt --set mode=63 -- --cores 16": (
        "test_campaign.py::TestCampaign::test_it_goes_on_where_it_was_interrupted"
    ),
    "balrog adopt T --set campaign=NAME": "test_adopt_tile.py::test_a_foreign_tile_is_adopted_and_injected_into",
    "snakemake --cores 16 tile=T --config campaign=NAME mode=1144": (
        "test_adopt_tile.py::test_a_foreign_tile_is_adopted_and_injected_into"
    ),
    "balrog campaign tiles.txt -- --profile profiles/slurm": SLURM,
    "snakemake --profile profiles/slurm tile=DES0239+0216": SLURM,
    "snakemake --profile profiles/slurm --slurm-status-command squeue tile=DES0239+0216": SLURM,
    "python tests/cluster/slurm.py /tmp/one-node > /tmp/one-node.env &": SLURM,
    ". /tmp/one-node.env": SLURM,
    "balrog image": "test_oneimage_command.py::test_without_arguments_the_example_is_run",
    "balrog image --pyconfig inputs/pyconfig/01_constants.py": "test_oneimage_command.py::test_numbered_rules_files",
    "balrog image --realizations 10 --ngal 40 --seed 1 --noiseseed 2 --sexparam etc/image_sex_nosim.param": (
        "test_oneimage_results.py::test_realizations_are_runs_of_their_own"
    ),
}

# What no test can run, and the words by which its document says so.
NOT_RUN = {
    "conda install -c conda-forge ngmix": "the tests install nothing",
    "pip install git+https://github.com/esheldon/ngmix": "the tests install nothing",
    "snakemake --profile profiles/slurm tile=DES0239+0216 "
    "--default-resources slurm_account=ACCOUNT slurm_partition=PARTITION": "so `slurm_account` was not run",
    "snakemake --profile profiles/htcondor tile=DES0239+0216": "It was not run on a pool",
    "python benchmarks/survey_build.py DIRECTORY 2": "by hand",
    "python benchmarks/planned.py DIRECTORY --side 2000 --cores 2": "by hand",
    "BALROG_CHAOS_DIR=DIRECTORY BALROG_CHAOS_TABLE=FILE make chaos": "By hand",
    "python tests/chaos/table.py FILE": "By hand",
}

# Commands run below in this order, and what each says or makes. Names of the documents stand for those of a small tile.
AS_THEY_STAND = {
    "source .venv/bin/activate": "",
    "export MEDS_DATA=/shared/meds TMPDIR=/scratch": "",
    "chmod 600 ~/.desservices.ini": "",
    "balrog --help": r"\n  prep ",
    "balrog archive TILE": "run/archive/decam/archive.db",
    "balrog doctor T": "A run can begin",
    "snakemake --cores 16 tile=DES0239+0216 --config mode=63": (
        "run/meds/y3v02/balrog_images/0/y3v02/T/T_g_meds-y3v02.fits.fz"
    ),
    "snakemake --cores 16 tile=DES0239+0216": "run/meds/y3v02/T/report/T_report.html",
    "snakemake -n tile=T": "Nothing to be done",
    "snakemake --report run.html tile=T": "run.html",
    "balrog plan T": "CPU",
    "balrog plan T --cores 16": "CPU",
    "balrog plan T --tiles 1000 --set realizations=0,1,2 --cores 512": "1000 tiles",
    "balrog plan T --calibrate": "run/plan.json",
    "balrog status": "T",
    "balrog status T --set realizations=0 --json": '"tiles"',
    "balrog status --html status.html --every 30": "status.html",
    "balrog summary T": "run/summary_T.json",
    "balrog verify T": "T",
    "balrog verify --deep T": "T",
    "balrog audit T": "0 problems",
    "balrog replay TILE -r R --bal-id ID --chip CHIP": "replay",
    "balrog explain FILE": "sof",
    "balrog explain run/meds/y3v02/T/T_g_meds-y3v02.fits.fz": "seed",
    "balrog explain 'run/meds/y3v02-sof/output/T-y3v02-sof.fits[12]'": "cm_flux",
    "balrog explain 2023902160000001": "catalog",
    "balrog report T": "run/meds/y3v02/T/report/T_report.html",
    "balrog merge run/all T1 T2": "run/all/merge.json",
    "balrog report --merged run/all": "run/all_report/campaign_report.html",
    "balrog repair T": "T",
    "balrog restore T": "none was let go",
    "balrog clean T": "injected",
    "balrog clean T --remove injected -r 0": "Remove these",
    "balrog image --help --pyconfig FILE": "--catalog",
    "balrog image --image my.fits --weight my.wht.fits --psf my.psf --pyconfig rules.py --outdir my_run": (
        "my_run/balrog_cat/my.truthcat.sim.fits"
    ),
    "balrog image --image my.fits --weight my.wht.fits --psf my.psf --zeropoint 30 --gain 4 "
    "--outdir my_run --ngal 200": ("my_run/balrog_cat/my.truthcat.sim.fits"),
    "snakemake --cores 4 -s rules/image.smk --config images=LIST.csv": "run/images/images.csv",
    "snakemake --cores 4 -s rules/image.smk --config images=LIST.csv outdir=run/images": "Nothing to be done",
    "balrog images LIST.csv": "north +made",
    "balrog images LIST --name NAME": "",
}

# Where the Python of a document is run, all of it.
PYTHON = {
    "balrog-image.md": "test_oneimage_command.py::test_without_arguments_the_example_is_run",
    "measurement.md": "test_documentation.py::test_fits_by_hand",
    "science-analysis.md": "test_science_products.py::test_the_lines_of_the_document_run",
    "science-products.md": "test_documented_commands.py::test_commands_run_as_they_stand",
}


# which commands there are


def test_every_block_says_what_it_is():
    for file in DOCUMENTS:
        assert {language for language, _ in blocks(file)} <= LANGUAGES, file
        # Indented text is a block too, and would be overlooked.
        text = re.sub(r"^```.*?^```$", "", file.read_text(), flags=re.MULTILINE | re.DOTALL)
        assert re.findall(r"(?:\A|\n)\s*\n {4,}\S.*", text) == [], file


def test_every_python_block_has_a_test():
    shown = {file.name for file in DOCUMENTS if any(language == "python" for language, _ in blocks(file))}
    assert shown == set(PYTHON)
    for name, test in PYTHON.items():
        assert name in source_of(test), name


def test_every_command_is_run():
    known = [*ELSEWHERE, *NOT_RUN, *AS_THEY_STAND]
    assert len(known) == len(set(known))
    found = commands()
    assert len(found) > 100
    shown = {one.text for one in found}
    assert [text for text in known if text not in shown] == []
    for one in found:
        # Text may name a command in short.
        short = not one.in_block and (is_short(one.words) or any(text.startswith(f"{one.text} ") for text in known))
        assert one.text in known or short, f"{one.document}: nobody runs {one.text}"


def is_short(words):
    """Whether a command of the package is named by its subcommand and by options that it has."""
    if words[0] == "make":
        return len(words) == 2 and re.search(rf"^{words[1]}:", (CHECKOUT / "Makefile").read_text(), re.MULTILINE)
    if words[0].endswith(".sh"):
        return (CHECKOUT / "bin" / words[0]).is_file()
    if words[0] != "balrog" or words[1] == "image":
        return words == ["balrog", "image"]
    told = CliRunner().invoke(main, [words[1], "--help"])
    options = [word.strip("[]") for word in words if word.lstrip("[").startswith("-")]
    return told.exit_code == 0 and all(re.search(rf"[ ,]{option}\b", told.stdout) for option in options)


def source_of(test):
    """Return the source of a test with all that it uses of its module and of conftest.py, or of a script."""
    file, _, name = test.partition("::")
    if not name:
        return (CHECKOUT / file).read_text()
    parts, words = {}, {}
    tests = CHECKOUT / "tests"
    helpers = re.findall(r"^from (\w+) import", (tests / file).read_text(), re.MULTILINE)
    modules = [path for path in (tests / f"{one}.py" for one in helpers) if path.is_file()]
    for module in dict.fromkeys([*modules, tests / "conftest.py", tests / file]):
        text = module.read_text()
        for node in ast.walk(ast.parse(text)):
            names = [node.name] if isinstance(node, ast.FunctionDef | ast.ClassDef) else []
            if isinstance(node, ast.Assign):
                names = [target.id for target in node.targets if isinstance(target, ast.Name)]
            for one in names:
                parts[one] = ast.get_source_segment(text, node)
                words[one] = {inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name)}
                words[one] |= {inner.arg for inner in ast.walk(node) if isinstance(inner, ast.arg)}
    used, ahead = [], [name.rpartition("::")[2]]
    assert ahead[0] in parts, f"there is no {test}"
    while ahead:
        one = ahead.pop()
        if one not in used and one in parts:
            used.append(one)
            ahead += words[one]
    # Attributes of a class that the test is in.
    outer = name.rpartition("::")[0]
    return "\n".join([parts[one] for one in used] + ([parts[outer]] if outer else []))


def marks(text):
    """Return what a test that runs a command must have in it: program, what it is to do, options, keys."""
    words = [word for word in re.split(r"[\s\"'>&]+", text) if word]
    if words[0] == "apt-get":
        return words[2:]
    found = [words[0]] if words[0] in ("balrog", "snakemake", "make") else []
    for before, word in zip(["", *words], words, strict=False):
        if word.startswith("-") and word not in ("-m", "--", "-e", "-"):
            found.append(word.partition("=")[0])
        elif before in ("balrog", "make", "--profile", "-s", "-m"):
            found.append(word.rpartition(".")[2])
        elif re.match(r"\w+=", word):
            found.append(word.partition("=")[0] + "=")
    return found


@pytest.mark.parametrize("text", ELSEWHERE)
def test_the_test_that_is_named_has_the_command(text):
    source = source_of(ELSEWHERE[text])
    assert [mark for mark in marks(text) if mark not in source] == []


@pytest.mark.parametrize("text", NOT_RUN)
def test_what_nobody_runs_is_said_to_be_so(text):
    for file in {one.document for one in commands() if one.text == text}:
        path = CHECKOUT / file if file == "README.md" else CHECKOUT / "docs" / file
        whole = " ".join(path.read_text().replace("**", "").split())
        assert NOT_RUN[text] in whole, file


def test_make_passes_its_variables_on():
    def said(*words):
        return subprocess.run(["make", "-n", *words], cwd=CHECKOUT, capture_output=True, text=True, check=True).stdout

    told = said("tile", "TILE=DES1226+2527", "CORES=4")
    assert 'balrog archive "DES1226+2527"' in told
    assert "snakemake --cores 4 tile=DES1226+2527" in told
    assert "benchmarks/speed.py --ngmix PYTHON --meds PYTHON" in said("bench", "NGMIX=PYTHON", "MEDS=PYTHON")


def test_what_pip_is_to_install_is_an_extra_of_the_package():
    extras = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert extras["htcondor"] == ["snakemake-executor-plugin-htcondor>=0.3"]
    assert extras["slurm"][0].startswith("snakemake-executor-plugin-slurm")
    assert extras["oracle"][0].startswith("oracledb")


# what they do


def prepare(base):
    """Put beside the archive what the documents take for given: a checkout, a list of tiles, an image of one's own."""
    for name in ("Snakefile", "rules", "profiles"):
        (base / name).symlink_to(CHECKOUT / name)
    campaigns = base / "etc" / "campaigns.yaml"
    # Two bands say as much as three.
    edited = campaigns.read_text().replace("bands: [g, r, z]\n    det: [r, z]", "bands: [g, r]\n    det: [r]")
    assert edited != campaigns.read_text()
    campaigns.write_text(edited)
    with (base / "etc" / "pipeline.yaml").open("a") as file:
        file.write("realizations: [0]\n")
    write_input(base, (150, 160))
    for suffix in ("fits", "wht.fits", "psf"):
        (base / f"field.{suffix}").rename(base / f"my.{suffix}")
    (base / "rules.py").write_text(HEAD + ROUND)
    (base / "LIST.csv").write_text("name,image,weight,psf,pyconfig,ngal\nnorth,my.fits,my.wht.fits,my.psf,rules.py,8\n")
    # A Sersic fit of every object takes most of a run's time.
    shutil.copy(base / "etc" / "image_sex_nosim.param", base / "etc" / "image_sex.param")


def stands_for(text, base):
    """Return a command or a file of the documents with the names of what there is here."""
    if "explain FILE" in text:
        text = text.replace("FILE", "run/meds/y3v02-sof/output/T-y3v02-sof.fits")
    names = {"T1 T2": "T", "--name NAME": "--name north", "LIST ": "LIST.csv "}
    names |= {"-r R": "-r 0", "DES0239+0216": "T", "TILE": "T", ".venv": "VENV"}
    names |= {"FILE": "inputs/pyconfig/02_catalogue.py", "fits[12]": "fits[3]"}
    for name, here in names.items():
        text = text.replace(name, here)
    if re.search(r"ID|CHIP|20239", text):
        (chips,) = base.glob("run/meds/y3v02/balrog_images/0/**/*_balrog_truth_chips.fits")
        rows = read_table(chips, "CHIPS")
        row = rows[rows["flux_on_chip"] > 0][0]
        text = text.replace("ID", str(row["bal_id"])).replace("CHIP", row["chip"].strip())
        text = re.sub("20239[0-9]+", str(row["bal_id"]), text)
    text = re.sub(r"(?<![A-Za-z])T(?![A-Za-z0-9])", REAL_TILE, text)
    return re.sub(r"(snakemake --cores) \d+", r"\1 2", text)


@pytest.mark.long
@pytest.mark.slowest
def test_commands_run_as_they_stand(archive, base, terminal, tmp_path, monkeypatch):
    prepare(base)
    (tmp_path / ".desservices.ini").touch()
    (base / "VENV" / "bin").mkdir(parents=True)
    (base / "VENV" / "bin" / "activate").touch()
    env = terminal["env"] | {"HOME": str(tmp_path)}
    for command, says in AS_THEY_STAND.items():
        text, shown = stands_for(command, base), stands_for(says, base)
        done = subprocess.run(
            ["bash", "-c", text], cwd=base, env=env, input="y\n", capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{text}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
        if "/" in shown or shown.endswith(".html"):
            assert (base / shown).exists(), text
        else:
            told = done.stdout + done.stderr
            assert re.search(shown.replace("+2527", "[+]2527"), told), f"{text}\n{told[-3000:]}"
    assert json.loads((base / "run" / "plan.json").read_text())
    assert not list(base.glob("run/meds/y3v02/balrog_images/0/y3v02/*/nullwt-*/*"))
    (product,) = base.glob("run/meds/**/*_detection_cat.parquet")
    monkeypatch.chdir(product.parent)
    for language, text in blocks(CHECKOUT / "docs" / "science-products.md"):
        if language == "python":
            names = {}
            exec(text.replace("DES0239+0216", REAL_TILE), names)
            assert len(names["clean"]) > 0
