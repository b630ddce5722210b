"""The table of docs/chaos.md from what the rows have shown: ``python tests/chaos/table.py FILE``.

FILE is the one that BALROG_CHAOS_TABLE named when `make chaos` ran: a line for each fault and block that passed. The
status is 1 when a cell is empty.
"""

import json
import re
import sys
from pathlib import Path

# As test_faults.py notes them.
FAULTS = (
    "killed before the write",
    "killed during the write",
    "killed after the write",
    "killed, --keep-incomplete",
    "out of memory",
    "input edited, time kept",
    "clock an hour back",
    "clock an hour ahead",
    "data disk full",
    "scratch disk full",
    "Snakemake's records full",
    "a band of a realization lost",
)
# Names of blocks in the order of a tile, as in test_faults.py.
BLOCKS = ("1", "2", "4", "8", "16", "32", "64", "128", "256", "512", "1024 matching", "1024 report")
_PLACE = re.compile(r"/\S*(?: \S+)*?/(?=[^/ ]+$|[^/]+\)$)")


def main(file):
    """Print the table, and an example of what is told for each fault; return how many cells are empty."""
    shown = {fault: {} for fault in FAULTS}
    for line in Path(file).read_text(encoding="utf-8").splitlines():
        fault, step, told = json.loads(line)
        shown[fault][step if step.startswith("1024") else step.split()[0]] = told
    rows = ["| fault | " + " | ".join(BLOCKS) + " |", "|---" * (len(BLOCKS) + 1) + "|"]
    for fault, told in shown.items():
        cells = ["" if name not in told else "no need" if "needs none" in told[name] else "yes" for name in BLOCKS]
        rows.append(f"| {fault} | " + " | ".join(cells) + " |")
    for fault, told in shown.items():
        words = next((one for one in told.values() if one and "needs none" not in one), None)
        rows += [] if words is None else [f"- {fault}: `{_PLACE.sub('.../', words)}`"]
    sys.stdout.write("\n".join(rows) + "\n")
    return sum(name not in told for told in shown.values() for name in BLOCKS)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]) > 0)
