"""What `balrog plan` says of a tile beside what the tile took: `python benchmarks/planned.py DIRECTORY --side 2000`.

Makes a checkout of its own in DIRECTORY, with a synthetic survey of one tile of that many pixels a side, its archive,
and a run of the base tile and one realization. Prints, block by block, what was predicted before anything was made
(from the archive), what was predicted from the counts of the manifests, and what the steps took. The same command again
goes on. On an idle machine a tile of 2000 pixels takes some 25 minutes of CPU, a third of it for its archive.
"""

import argparse
import json
import logging
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import yaml
from tabulate import tabulate

CHECKOUT = Path(__file__).resolve().parents[1]
COPIED = ("etc", "inputs", "desmeds-config", "sof-config", "mof-config", "shr-config", "bfd-config")
LINKED = ("Snakefile", "rules", "profiles")
TILE = "DES0239+0216"
# Of a tile of 1000 pixels a side at the spacing of bal_config_hex.yaml.
INJECTIONS = 208
DITHERS = [[-22.1, -31.6], [0.0, 0.0], [22.1, 34.2], [-11.0, 60.0], [11.0, -60.0]]
UNITS = {"cpu": ("CPU s", 1.0), "memory": ("MiB", 2**20), "disk": ("MB", 1e6)}

_log = logging.getLogger("benchmark")


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--side", type=int, default=2000, help="pixels of the tile a side")
    parser.add_argument("--mode", type=int, default=1151, help="blocks to run")
    parser.add_argument("--cores", type=int, default=1)
    return parser.parse_args()


def prepare(base: Path, side: int) -> None:
    """Make a checkout whose survey is one tile, under five exposures that cover it."""
    for name in COPIED:
        shutil.copytree(CHECKOUT / name, base / name, ignore=shutil.ignore_patterns("decam_grz_9exp"))
    for name in LINKED:
        (base / name).symlink_to(CHECKOUT / name)
    file = base / "etc" / "survey.yaml"
    survey = yaml.safe_load(file.read_text())
    camera = survey["camera"]
    reach = side + 2 * max(abs(step) for dither in DITHERS for step in dither) / survey["tile_scale"]
    number = math.ceil(reach / (min(camera["ccd_columns"], camera["ccd_rows"]) + camera["gap"]))
    survey["tiles"] = survey["tiles"][:1]
    survey["tile_pixels"], survey["dithers"], camera["mosaic"] = side, DITHERS, [number, number]
    survey["population"]["bright_stars"] = round(survey["population"]["bright_stars"] * (side / 1000) ** 2)
    file.write_text(yaml.safe_dump(survey))
    campaigns = base / "etc" / "campaigns.yaml"
    campaigns.write_text(campaigns.read_text().replace("tiles: [DES0239+0216, DES0240+0216]", f"tiles: [{TILE}]"))


def main() -> None:
    """Make the tile and say what it took."""
    asked = arguments()
    base = asked.directory.absolute()
    environment = {key: value for key, value in os.environ.items() if key not in ("MEDS_DATA", "MEDS_DIR", "medsconf")}
    environment |= {"BALROG_BASE": str(base), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    settings = {"mode": asked.mode, "realizations": 0}

    def run(*words: object) -> str:
        done = subprocess.run(
            [str(word) for word in words], cwd=base, env=environment, stdout=subprocess.PIPE, text=True, check=True
        )
        return done.stdout

    def plan(*words: object) -> dict[str, dict]:
        given = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
        return {one["name"]: one for one in json.loads(run("balrog", "plan", TILE, "--json", *given, *words))["blocks"]}

    if not base.exists():
        prepare(base, asked.side)
    run("balrog", "archive", "synthetic", "--workers", asked.cores)
    kept = base / "predicted.json"
    if not kept.exists():
        kept.write_text(json.dumps(plan("--injections", round(INJECTIONS * (asked.side / 1000) ** 2))))
    before = json.loads(kept.read_text())
    words = [f"{key}={value}" for key, value in settings.items()]
    run("snakemake", "--cores", asked.cores, f"tile={TILE}", "--config", *words)
    rows = []
    for name, block in plan().items():
        row = [block["bit"], name, f"{block['done']:g} of {block['jobs']:g}"]
        for key, (_, unit) in UNITS.items():
            fact, counted, first = (
                one / unit for one in (block["fact"][key], block["expected"][key], before[name]["cost"][key])
            )
            shares = [f"{fact / one:.0%}" if one else "" for one in (first, counted)]
            row += [f"{first:.4g}", f"{counted:.4g}", f"{fact:.4g}", *shares]
        rows.append(row)
    heads = ["bit", "block", "done"]
    for title, _ in UNITS.values():
        heads += [f"{title} before", "by counts", "fact", "of before", "of counts"]
    _log.info("%s", tabulate(rows, headers=heads, tablefmt="github", disable_numparse=True))


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    main()
