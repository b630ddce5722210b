"""The table docs/bad-input.md: ``python tests/bad_input/table.py [-k ROWS]`` runs rows and writes what was seen."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent)] if str(HERE.parent) not in sys.path else []

import archived  # noqa: E402 (the directory of the tests is put on the path first)
import asked  # noqa: E402
import configured  # noqa: E402
import damaged  # noqa: E402
import imaged  # noqa: E402
import injected  # noqa: E402
import machine  # noqa: E402
import matched  # noqa: E402
import programs  # noqa: E402
import served  # noqa: E402
from row import Row  # noqa: E402
from world import Seen  # noqa: E402

__all__ = ["ROWS", "TABLE", "line", "read"]

TABLE = HERE.parents[1] / "docs" / "bad-input.md"
ROWS: list[Row] = [
    *asked.ROWS,
    *configured.ROWS,
    *archived.ROWS,
    *served.ROWS,
    *programs.ROWS,
    *machine.ROWS,
    *damaged.ROWS,
    *injected.ROWS,
    *imaged.ROWS,
    *matched.ROWS,
]

HEAD = """\
# Bad input

What goes wrong, what you see, and what is on disk before and after. Every row is a test (`tests/bad_input`); this file
is written by `python tests/bad_input/table.py` from what the tests saw.

Status 2 is a refusal: the input or the configuration is wrong. Status 1 is a failure. Snakemake ends with 1 when a job
of it fails, whatever the job's own status was. With status 0 the run goes on without what cannot be used, and says so.

Every file that was there before is there afterwards, byte for byte, except for what the last column names: the manifest
of the step that failed, so that the same command makes it again, and finished products of that step. No row leaves an
unfinished file, a scratch directory or a traceback. Logs are not counted. Files are named from the checkout on.
"""
_COLUMNS = ("What is wrong", "Command", "Status", "What you see", "Before", "After")
_WIDTH = 110
_DETAIL = 3


def _said(seen: Seen, row: Row) -> list[str]:
    """Return the message, without the command lines of programs and the middle of their logs."""
    text = seen.told
    if not row.status:
        lines = [line for line in (seen.told or seen.err).splitlines() if re.search(row.pattern, line)]
        text = re.sub(r"^\d{4}-\d\d-\d\d [\d:]+ INFO ", "", lines[-1])
    kept: list[str] = []
    detail: list[str] = []
    for said in [*text.splitlines(), ""]:
        if said.startswith("    "):
            detail.append(said if len(said) < _WIDTH else said[:_WIDTH] + " ...")
            continue
        kept += detail[-_DETAIL:]
        detail = []
        kept.append(said)
    return [said for said in kept if said.strip()]


def _place(file: str) -> str:
    """Return the part of a tile a file belongs to."""
    parts = [part for part in Path(file).parts if part not in ("run", "meds", "y3v02")]
    inner = [part for part in parts[:-1] if not part.startswith("DES") and part not in ("balrog_images", "0")]
    return inner[0] if inner else "the tile"


def _listed(files: list[str]) -> str:
    if len(files) <= 2:
        return ", ".join(Path(file).name for file in files)
    return ", ".join(f"{number} in {place}" for place, number in sorted(Counter(map(_place, files)).items()))


def _before(files: dict[str, str]) -> str:
    archive = sum(file.startswith("run/archive/") for file in files)
    made = [file for file in files if file.startswith("run/meds")]
    manifests = sum("/manifests/" in file for file in made)
    if not made:
        return f"archive of {archive} files" if archive > 3 else "nothing made"
    return f"archive of {archive} files, {len(made) - manifests} products, {manifests} manifests"


def line(row: Row, seen: Seen, before: dict[str, str], changes: dict[str, list[str]], noted: str) -> str:
    """Return one line of the table."""
    words = {"removed": "removed", "replaced": "made again", "new": "new"}
    after = [f"{words[kind]}: {_listed(files)}" for kind, files in changes.items() if files]
    after = [noted] if noted else after or ["the same"]
    after += ["then the same command succeeds"] if row.again else []
    said = _code("\n".join(_said(seen, row)))
    cells = [row.wrong, _code(row.words), str(seen.status), said, _before(before), "; ".join(after)]
    return f"| {' | '.join(cells)} |"


def _code(text: str) -> str:
    """Return text as it is typed or seen, for a cell of a table."""
    lines = [line.strip() if "remedy:" in line else line.rstrip() for line in text.splitlines()]
    fence = "``" if "`" in text else "`"
    pad = " " if fence == "``" else ""
    return "<br>".join(f"{fence}{pad}{line}{pad}{fence}" for line in lines if line).replace("|", "\\|")


def _plain(cell: str) -> str:
    """Return the text of a cell that `_code` made."""
    text = cell.strip().replace("\\|", "|").replace("<br>", "\n")
    lines = [re.sub(r"^(`` ?|`)|( ?``|`)$", "", line) for line in text.splitlines()]
    return "\n".join(f"  {line}" if line.startswith("remedy: ") else line for line in lines)


def _cells(text: str) -> list[str]:
    """Return the cells of a line of the table; nothing for any other line."""
    cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", text)[1:-1]]
    return [] if len(cells) != len(_COLUMNS) or cells[0] == _COLUMNS[0] or cells[0].startswith("---") else cells


def read() -> list[tuple[str, ...]]:
    """Return the rows of the committed table: what is wrong, the command, the status and the message."""
    found = [_cells(text) for text in TABLE.read_text(encoding="utf-8").splitlines()]
    return [(cells[0], _plain(cells[1]), cells[2], _plain(cells[3])) for cells in found if cells]


def write(new: dict[str, str]) -> None:
    """Write the table: new lines by what is wrong, those of the committed table for the rest."""
    old = {cells[0]: text for text in TABLE.read_text(encoding="utf-8").splitlines() if (cells := _cells(text))}
    lines, section = [HEAD.rstrip()], ""
    for row in ROWS:
        if row.section != section:
            section = row.section
            lines += [f"\n## {section}\n", f"| {' | '.join(_COLUMNS)} |", "|" + "---|" * len(_COLUMNS)]
        lines.append((old | new)[row.wrong])
    TABLE.write_text("\n".join(lines) + "\n", encoding="utf-8")


def main(chosen: list[str]) -> int:
    """Run rows, all of them or those that pytest's options choose, and write the table; return the tests' status."""
    with tempfile.TemporaryDirectory() as directory:
        environment = {**os.environ, "BALROG_BAD_INPUT_DIR": directory}
        test = f"{HERE / 'test_bad_input.py'}::test_bad_input_is_told_and_does_no_harm"
        tests = [sys.executable, "-m", "pytest", "-q", "-n", "2", test, *chosen]
        status = subprocess.run(tests, env=environment, check=False).returncode
        write(dict(json.loads(file.read_text(encoding="utf-8")) for file in Path(directory).glob("*.json")))
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
