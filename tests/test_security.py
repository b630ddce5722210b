"""What comes from databases, lists and users stays where it belongs, reaches no shell, and is run by nobody."""

import ast
import os
import stat
import subprocess
import textwrap
from pathlib import Path
from types import SimpleNamespace

import pytest
from small_archive import TILE, SmallArchive, context

from balrogutils.archive.noirlab import build_archive
from balrogutils.blocks.prep import prep
from balrogutils.cli.reporting import parse_overrides
from balrogutils.cli.workflow import Run
from balrogutils.context import Context, Installation
from balrogutils.errors import ArchiveError, BalrogError, ConfigError, InputError
from balrogutils.scratch import scratch
from balrogutils.settings.yamlfile import load_yaml
from balrogutils.tilelist import tile_names

PACKAGE = Path(__file__).resolve().parents[1] / "balrogutils"
CHIP = "D00229300_g_c01_r2356p01"

# Table, column and what is put in its place.
HARMFUL = [
    ("y3a2_file_archive_info", "path", "../../../../outside"),
    ("y3a2_file_archive_info", "path", "OPS/../../../../outside/red/immask"),
    ("y3a2_file_archive_info", "path", "OPS/$(touch outside)/red/immask"),
    ("y3a2_file_archive_info", "path", "OPS/\n31.2/red/immask"),
    ("y3a2_file_archive_info", "path", "OPS/\0/red/immask"),
    ("y3a2_file_archive_info", "path", 7),
    ("y3a2_file_archive_info", "compression", "/../../../outside"),
    ("y3a2_file_archive_info", "compression", ".fz(outside)"),
    ("y3a2_desfile", "compression", "/../../../outside"),
    ("y3a2_desfile", "compression", "[1]"),
    ("y3a2_desfile", "md5sum", "/../../../outside"),
    ("y3a2_desfile", "md5sum", None),
    ("y3a2_desfile", "filesize", "many"),
    ("y3a2_image", "expnum", "../outside"),
    ("y3a2_image", "ccdnum", "1; touch outside"),
]


def damaged(directory, table, column, value):
    """A small archive in which every row of the first CCD has something harmful, past the types of the columns."""
    archive = SmallArchive(directory).write()
    from sqlite3 import connect

    database = connect(directory / "archive.db")
    with database:
        # Strict columns keep nothing out: SQLite takes anything.
        database.execute("pragma writable_schema = 1")
        database.execute("update sqlite_master set sql = replace(sql, 'NOT NULL', '') where type = 'table'")
    database.close()
    database = connect(directory / "archive.db")
    names = f"filename like '%{CHIP[:15]}%'"
    with database:
        done = database.execute(f"update {table} set {column} = ? where {names}", (value,))
        assert done.rowcount > 0
    database.close()
    return archive


def files_below(directory):
    return {path for path in directory.rglob("*") if path.is_file()}


@pytest.mark.parametrize(("table", "column", "value"), HARMFUL)
def test_nothing_of_a_database_leaves_the_tile(tmp_path, monkeypatch, table, column, value):
    here = tmp_path / "a" / "b" / "c"
    here.mkdir(parents=True)
    monkeypatch.chdir(here)
    damaged(here, table, column, value)
    run = context(here)
    before = files_below(tmp_path)
    with pytest.raises(ArchiveError) as caught:
        prep(run, "g")
    assert caught.value.remedy
    assert "repair the archive" in caught.value.remedy or "se_proctag" in caught.value.remedy
    new = files_below(tmp_path) - before
    assert all(path.is_relative_to(run.tree.dir) for path in new)
    assert not list(run.tree.dir.rglob("*_nullwt.fits"))
    assert not list(tmp_path.rglob("outside*"))
    # The terminal gets what can be shown and no more.
    assert all(line.isprintable() for line in str(caught.value).splitlines())


@pytest.mark.parametrize("name", ["../../outside.fits", "/etc/passwd", "images/a\nb", "images/a(b)", "images/$(id)"])
def test_nothing_of_a_community_pipeline_database_leaves_the_tile(tmp_path, name):
    from sqlite3 import connect

    here = tmp_path / "decam"
    geometry = build_archive(Path(__file__).parent / "data" / "decam_satstars_z_1exp", here)
    database = connect(here / "archive.db")
    with database:
        database.execute("update ccds set weight_filename = ?", (name,))
        database.execute("update files set filename = ? where filename like '%_oow_%'", (name,))
    database.close()
    plain = context(tmp_path, "z", kind="noirlab", database=f"sqlite:///{here}/archive.db", archive=f"file://{here}/")
    run = Context(plain.site, plain.pipeline, plain.campaign, geometry.tilename)
    with pytest.raises(ArchiveError, match=r"file name that cannot be one|outside itself"):
        prep(run, "z")
    assert not list(run.tree.dir.rglob("*.fits*"))


BOMBS = [
    "!!python/object/apply:os.system ['touch outside']",
    "!!python/object/new:os.system ['touch outside']",
    "!!python/name:os.system ''",
    "!!python/module:antigravity ''",
    "!!python/object/apply:subprocess.check_output [['touch', 'outside']]",
]


@pytest.mark.parametrize("bomb", BOMBS)
def test_yaml_makes_no_objects(tmp_path, monkeypatch, bomb):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "configuration.yaml"
    file.write_text(f"mode: {bomb}\n")
    with pytest.raises(ConfigError, match="could not determine a constructor"):
        load_yaml(file)
    with pytest.raises(InputError, match="cannot be read"):
        parse_overrides((f"mode={bomb}",))
    assert not (tmp_path / "outside").exists()


@pytest.mark.parametrize(
    "name",
    ["../outside", "/etc/passwd", "DES0239+0216/..", "DES0239+0216\n", "DES0239+0216;id", "$(id)", "DES0239+0216\0"],
)
def test_a_tile_is_a_name_and_no_path(base, tmp_path, name):
    installation = Installation.load({"campaign": "synthetic"}, {"BALROG_BASE": str(base)})
    with pytest.raises(InputError, match="not the name of a tile"):
        installation.context(name)
    listed = tmp_path / "tiles"
    listed.write_text(f"DES0239+0216\n{name}\n")
    tiles = [tile for tile in tile_names(listed).values() if tile != "DES0239+0216"]
    # A line ends where the name did, and what is left is the tile above.
    assert bool(tiles) is (name != "DES0239+0216\n")
    for tile in tiles:
        with pytest.raises(InputError, match="not the name of a tile"):
            installation.context(tile)


@pytest.mark.parametrize(
    ("key", "value"),
    [("medsconf", "../x"), ("medsconf", "a/b"), ("realizations", "../0"), ("bands", "../g"), ("bands", "g;id")],
)
def test_settings_that_are_parts_of_paths_are_plain_words(base, key, value):
    with pytest.raises(BalrogError) as caught:
        found = Installation.load({key: value}, {"BALROG_BASE": str(base)}).context("DES0239+0216")
        assert found.det_bands == found.realizations
    assert caught.value.exit_status == 2


@pytest.mark.parametrize("word", ["$(touch outside)", "`touch outside`", "a; touch outside", "a' ; touch outside ; '"])
def test_settings_reach_no_shell(tmp_path, word):
    """Snakemake hands a job's words to a shell, with these options in them."""
    run = Run.__new__(Run)
    run._kept = {"galsim_config": word}
    options = run.options("plan")(SimpleNamespace(tile="DES0239+0216"))
    shell = ["bash", "-c", f"printf '%s\\n' {options}"]
    done = subprocess.run(shell, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines() == ["--set", f"galsim_config={word}"]
    assert list(tmp_path.iterdir()) == []


def test_every_word_of_a_rule_is_quoted():
    """Wildcards and files stand in commands with :q; `params` are made of quoted words."""
    rules = PACKAGE.parent / "rules"
    commands = [line for file in rules.glob("*.smk") for line in file.read_text().splitlines() if "balrog " in line]
    assert len(commands) >= 9
    fields = [field for line in commands for field in _fields(line)]
    plain = [field for field in fields if not field.endswith(":q")]
    assert {field.split(".")[0] for field in plain} <= {"params", "threads", "wildcards"}
    # Of wildcards without :q only what is constrained to letters and digits.
    assert {field for field in plain if field.startswith("wildcards")} <= {"wildcards.band"}


def _fields(text):
    from string import Formatter

    return [
        name + (f":{spec}" if spec else "") for _, name, spec, _ in Formatter().parse(text.strip().strip('"')) if name
    ]


def test_temporary_files_are_private(tmp_path):
    old = os.umask(0)
    try:
        with scratch(tmp_path, TILE) as directory:
            assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    finally:
        os.umask(old)


FORBIDDEN = {
    "os.system",
    "os.popen",
    "eval",
    "exec",
    "pickle.load",
    "pickle.loads",
    "marshal.loads",
    "yaml.unsafe_load",
}
FORBIDDEN |= {"yaml.full_load", "yaml.load_all", "tempfile.mktemp", "ssl._create_unverified_context", "shelve.open"}


def _calls(file):
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def test_the_package_has_no_call_that_runs_text():
    found = []
    for file in PACKAGE.rglob("*.py"):
        for name, node in _calls(file):
            settings = {word.arg: ast.unparse(word.value) for word in node.keywords}
            bad = name in FORBIDDEN or settings.get("shell", "False") != "False" or settings.get("verify") == "False"
            # Our own loaders are SafeLoader with more refusals.
            bad |= name == "yaml.load" and settings.get("Loader") not in ("_Loader", "_Words")
            bad |= settings.get("allow_pickle", "False") != "False"
            if bad:
                found.append(f"{file.relative_to(PACKAGE)}:{node.lineno} {name}")
    assert found == []


def test_the_list_of_forbidden_calls_finds_them(tmp_path):
    file = tmp_path / "x.py"
    file.write_text(textwrap.dedent("import os, yaml\nos.system('x')\nyaml.load(a, Loader=yaml.Loader)\n"))
    assert [name for name, _ in _calls(file)] == ["os.system", "yaml.load"]
