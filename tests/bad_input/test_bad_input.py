"""Every row of docs/bad-input.md: what the user sees, and that nothing on disk comes to harm."""

import importlib.util
import json
import os
import re
from fnmatch import fnmatch
from pathlib import Path

import pytest
import table
from world import Worlds


@pytest.fixture(scope="session")
def worlds(tmp_path_factory):
    return Worlds(tmp_path_factory.mktemp("bad input"))


def _param(row):
    return pytest.param(row, id=row.wrong.replace(" ", "-"), marks=[pytest.mark.long] if row.is_long else [])


def _allowed(file, patterns):
    return any(fnmatch(file, pattern) for pattern in patterns)


@pytest.mark.parametrize("row", [_param(row) for row in table.ROWS])
def test_bad_input_is_told_and_does_no_harm(row, worlds):
    if row.lacking and importlib.util.find_spec(row.lacking):
        pytest.skip(f"{row.lacking} is installed")
    world = worlds.at(row.stage)
    row.breaks(world)
    before = world.files()
    seen = world.run(row.words)
    after = world.files()

    assert seen.status == row.status, seen.err[-3000:]
    shown = seen.told if row.status else seen.told or seen.err
    assert world.limited or re.search(row.pattern, shown), seen.err[-3000:]
    assert not row.remedy or "\n  remedy: " in seen.told
    assert "Traceback" not in seen.err
    assert "Traceback" not in world.logs()

    changes = {
        "removed": sorted(set(before) - set(after)),
        "replaced": sorted(file for file in before if after.get(file, before[file]) != before[file]),
        "new": sorted(set(after) - set(before)),
    }
    for kind, patterns in (("removed", row.redone), ("replaced", row.redone), ("new", row.leaves)):
        assert [file for file in changes[kind] if not _allowed(file, patterns)] == [], kind
    for file in changes["replaced"] + changes["new"]:
        world.require_whole(file)
    assert world.litter() == []

    noted = row.check(world, seen) if row.check else ""
    if row.again:
        world.mend()
        world.succeed(row.words)
    if directory := os.environ.get("BALROG_BAD_INPUT_DIR"):
        told = [row.wrong, table.line(row, seen, before, changes, noted)]
        Path(directory, f"{table.ROWS.index(row):03d}.json").write_text(json.dumps(told), encoding="utf-8")


def test_the_table_has_every_row_and_what_it_says():
    entries = table.read()
    assert [entry[:3] for entry in entries] == [(row.wrong, row.words, str(row.status)) for row in table.ROWS]
    for row, entry in zip(table.ROWS, entries, strict=True):
        assert row.status == 0 or re.search(row.pattern, entry[3]), row.wrong


def test_names_are_unique():
    assert len({row.wrong for row in table.ROWS}) == len(table.ROWS)
