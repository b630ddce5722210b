"""What the Snakefile asks: tiles, patterns and input functions of one run."""

from __future__ import annotations

import logging
import os
import re
import secrets
import shlex
import sys
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

from balrogutils.cli.releasing import Releasing
from balrogutils.cli.reporting import refused
from balrogutils.cli.signals import Interrupt, relay_sigterm
from balrogutils.context import Context, Installation
from balrogutils.errors import BalrogError, ConfigError, InputError
from balrogutils.graph import (
    Job,
    check_mode,
    installation_tiles,
    jobs,
    matched_fits,
    matched_realizations,
    needs,
    settle,
)
from balrogutils.resources import Demand, counts_of_run, demand
from balrogutils.runlock import TOKEN
from balrogutils.settings.pipeline import TEMPORARY, Pipeline
from balrogutils.upkeep.future import settle_future
from balrogutils.upkeep.leftovers import remove_leftovers

__all__ = ["Run", "open_run"]

EXPLANATION = """\
balrogutils makes DES-style tiles: name one.

  snakemake --cores 16 tile=DES0239+0216                     everything, one tile
  snakemake --cores 16 tile=DES0239+0216 tile=DES0240+0216   more tiles
  snakemake --cores 16 tile=DES0239+0216 --config mode=63    the first six blocks only

Mode bits: 1 prep, 2 coadd and catalogue, 4 MEDS, 8 injection, 16 and 32 the same for injected data, 64 SOF,
128 MOF, 256 metacal, 512 BFD, 1024 matching and report.
Tiles of the embedded archives: {tiles}
"""

# Keys that choose what to make rather than how; a job's command must not change with them.
_CHOICES = frozenset(("tile", "mode", "realizations", "fit_workers", "keep"))

# Keys that only some steps obey; the commands of the others must not change with them either.
_OBEYED_BY = {
    "galsim_config": frozenset(("plan", "inject", "truth")),
    "desmeds_config": frozenset(("meds",)),
    "sof_config": frozenset(("sof",)),
    "mof_config": frozenset(("mof",)),
    "shr_config": frozenset(("mcal",)),
    "bfd_config": frozenset(("bfd",)),
    "truth_parquet": frozenset(("truth",)),
    "tool_timeout": frozenset(("prep", "coadd", "catalog", "meds")),
    "match_radius": frozenset(("match",)),
    "match_bands": frozenset(("match",)),
    "match_fits": frozenset(("match",)),
}

# Steps of one band that nothing of the other bands goes into, and those that see the detection bands besides.
_ALONE = frozenset(("prep", "coadd", "inject"))
_DETECTED = frozenset(("catalog", "meds"))


class Run:
    """One invocation of Snakemake.

    Parameters
    ----------
    overrides : mapping
        Snakemake's ``config``.
    words : list of str
        Its command line.
    """

    def __init__(self, overrides: Mapping[str, Any], words: list[str]) -> None:
        self.installation = Installation.load(overrides)
        self.installation.site.check()
        records = Path(".snakemake").absolute()
        place = records if records.is_dir() else records.parent
        if not os.access(place, os.W_OK):
            raise ConfigError(
                f"{place} is not writable, and Snakemake keeps its records in .snakemake of the directory it runs in",
                remedy="give it another one: snakemake --directory DIRECTORY ...",
            )
        _refuse_strays(words, overrides)
        self.mode = self.installation.pipeline.mode
        self.tiles = installation_tiles(self.installation, words)
        self._touched = _tiles_of_targets(words)
        self._kept = {key: _text(value) for key, value in sorted(overrides.items()) if key not in _CHOICES}
        self.fit_workers = self.installation.pipeline.fit_workers
        self._releasing: Releasing | None = None
        self._interrupt = Interrupt()
        for tile in self.tiles:
            context = self._context(tile)
            check_mode(context, self.mode)
            settle(context, self.mode)
            settle_future(context, self.mode)

    @cached_property
    def _contexts(self) -> dict[str, Context]:
        return {}

    def _context(self, tile: str, realization: str | None = None) -> Context:
        if tile not in self._contexts:
            self._contexts[tile] = self.installation.context(tile)
        context = self._contexts[tile]
        return context if realization is None else context.at(realization)

    def start(self) -> None:
        """Take the tiles for this run, and clear away what killed runs left; a refusal ends Snakemake with its status.

        Snakemake calls this when jobs are about to run: not for a dry run, not when nothing is to be done.
        """
        token = secrets.token_hex(8)
        try:
            for tile in dict.fromkeys([*self.tiles, *self._touched]):
                context = self._context(tile)
                context.lock.hold(token)
                remove_leftovers(context)
        except BalrogError as error:
            _refuse(error)
        except OSError as error:
            _refuse(refused(error))
        # Jobs inherit it, and so know which run they are part of.
        os.environ[TOKEN] = token
        relay_sigterm()
        self._interrupt.delay()
        if set(self.installation.pipeline.keep) != set(TEMPORARY):
            self._releasing = Releasing(list(self._contexts.values()))

    def end(self) -> None:
        """Let go what no step needs any more; Snakemake calls this when a run is over, well or not."""
        self._interrupt.end()
        if self._releasing is not None:
            self._releasing.end()

    def options(self, step: str, band: str | None = None) -> Callable[[Any], str]:
        """Return what gives the options of a step: the user's settings, those it obeys and no others.

        All of one job's settings travel on its command line, so that a job means the same wherever it runs. Of the
        bands it gets those that go into it, whoever named them: a band that is added is no change of the others.
        """

        def chosen(wildcards: Any) -> str:
            obeyed = {key: value for key, value in self._kept.items() if step in _OBEYED_BY.get(key, (step,))}
            bands = self._bands_of(step, wildcards.tile, band or getattr(wildcards, "band", None))
            if bands:
                obeyed["bands"] = ",".join(bands)
            return " ".join(f"--set {shlex.quote(f'{key}={value}')}" for key, value in sorted(obeyed.items()))

        return chosen

    def _bands_of(self, step: str, tile: str, band: str | None) -> list[str]:
        """Return the bands that go into a job, in the campaign's order; none for a job of all of the tile's."""
        if band is None or band == "all" or (band != "det" and step not in _ALONE | _DETECTED):
            return []
        context = self._context(tile)
        det = set(context.campaign.det) & set(context.bands)
        chosen = det if band == "det" else {band} | (det if step in _DETECTED else set())
        return [one for one in context.campaign.bands if one in chosen]

    def has(self, *bits: int) -> bool:
        """Return whether the mode has any of these bits."""
        return bool(self.mode & sum(bits))

    def products(self, *tiles: str) -> list[str]:
        """Return the manifests of everything the mode makes of some tiles."""
        return [str(job.manifest) for tile in tiles for job in jobs(self._context(tile)) if job.bit & self.mode]

    @property
    def explanation(self) -> str:
        """What a call without a tile says."""
        known = [tile for campaign in self.installation.campaigns.campaigns.values() for tile in campaign.tiles]
        return EXPLANATION.format(tiles=", ".join(known))

    def where(self, base_bit: int, injected_bit: int) -> str:
        """Return the pattern of the roots a block works on in this mode: the base run, realizations, or both."""
        medsconf = self.installation.site.medsconf.replace(".", r"\.")
        choices = ["(?:)"] if self.mode & base_bit else []
        choices += [rf"balrog_images/[0-9]+/{medsconf}/"] if self.mode & injected_bit else []
        return "|".join(choices) if choices else "(?!)"

    def _pattern(self, kind: str, step: str, band: str | None) -> str:
        tree = self.installation.site.tree("@tile@")
        files = {"manifest": tree.manifest, "log": tree.log, "page": lambda *_: tree.report}
        path = str(files[kind](step, band))
        root = str(tree.root)
        inside = (
            path.removeprefix(root)
            .lstrip("/")
            .replace("{", "{{")
            .replace("}", "}}")
            .replace("@tile@", "{tile}")
            .replace("@band@", "{band}")
        )
        return root.replace("{", "{{").replace("}", "}}") + "/{where}" + inside

    def made(self, step: str, band: str | None = "@band@") -> str:
        """Return the pattern of a step's manifest; `band` None for steps of a whole tile."""
        return self._pattern("manifest", step, band)

    def log(self, step: str, band: str | None = "@band@") -> str:
        """Return the pattern of a step's log."""
        return self._pattern("log", step, band)

    @property
    def page(self) -> str:
        """The pattern of a tile's report."""
        return self._pattern("page", "report", None)

    def matched(self, wildcards: Any) -> str:
        """Return the option that names the realizations a report is of: a job does not know what else was matched."""
        return f"--set realizations={','.join(matched_realizations(self._context(wildcards.tile)))}"

    def needs(self, step: str, band: str | None = None) -> Callable[[Any], list[Any]]:
        """Return the input function of a step: predecessors' manifests and the configuration files it obeys."""
        # Snakemake is there when it asks; nothing else waits for it.
        from snakemake.io import ancient

        def inputs(wildcards: Any) -> list[Any]:
            context = self._context(wildcards.tile, _realization(wildcards.where))
            job = Job(step, context, band or getattr(wildcards, "band", None))
            before, files = needs(job)
            manifests = [ancient(str(one.manifest)) if job.outlives(one) else str(one.manifest) for one in before]
            return [*manifests, *map(str, files)]

        return inputs

    def connections(self, wildcards: Any) -> int:
        """Return how many connections to a server of files a job of block 1 opens; the profile limits their sum."""
        campaign = self._context(wildcards.tile).campaign
        return campaign.connections if campaign.archive.startswith("http") else 0

    def fits(self, wildcards: Any) -> str:
        """Return the option that names the fits a matched catalogue has: a job does not know the mode."""
        if "match_fits" in self._kept:
            return ""
        kinds = matched_fits(self._context(wildcards.tile, _realization(wildcards.where)))
        return f"--set match_fits={','.join(kinds) or 'none'}"

    def resources(self, step: str) -> dict[str, Any]:
        """Return what a step's jobs ask for, in the words of Snakemake, Slurm's plugin and HTCondor's.

        Memory, time and scratch are functions that Snakemake calls for every job, and again when it tries one again.
        """

        def asked(wildcards: Any, attempt: int) -> Demand:
            context = self._context(wildcards.tile, _realization(getattr(wildcards, "where", "")))
            return demand(step, counts_of_run(context), self.fit_workers).again(attempt)

        def memory(wildcards: Any, attempt: int) -> int:
            return asked(wildcards, attempt).memory

        def minutes(wildcards: Any, attempt: int) -> int:
            return asked(wildcards, attempt).minutes

        def scratch(wildcards: Any, attempt: int) -> int:
            return asked(wildcards, attempt).scratch

        return {
            # Snakemake sets TMPDIR for every job; it is to be the documented one.
            "tmpdir": str(self.installation.site.tmp),
            "mem_mb": memory,
            "runtime": minutes,
            "disk_mb": scratch,
            "htcondor_request_mem_mb": memory,
            "htcondor_request_disk_mb": scratch,
        }

    @staticmethod
    def realization(wildcards: Any) -> str:
        """Return the options that name a job's realization, which need not be one of the injection configuration's."""
        name = _realization(wildcards.where)
        return "" if name is None else f"--realization {name} --set realizations={name}"


def _tiles_of_targets(words: list[str]) -> list[str]:
    """Return the tiles of manifests that a command line names as targets."""
    paths = [Path(word) for word in words if word.endswith(".json")]
    return [path.parents[1].name for path in paths if path.parent.name == "manifests"]


def _refuse_strays(words: list[str], overrides: Mapping[str, Any]) -> None:
    """Refuse words that are meant for us and that Snakemake would take for targets or files.

    Raises
    ------
    InputError
        For the name of a tile alone, a misspelt ``tile=``, and a key of the configuration without ``--config``.
    """
    for before, word in zip(["", *words], words, strict=False):
        if re.fullmatch(r"\s*DES\d[\d+-]*\s*", word, re.IGNORECASE) and before not in ("-d", "--directory"):
            raise InputError(f"{word!r} is no target: did you mean tile={word.strip()}?", remedy="write tile=NAME")
        key, equals, value = word.partition("=")
        if not equals or not key.isidentifier() or key == "tile" or key in overrides:
            continue
        if key in Pipeline.model_fields:
            raise InputError(f"{word!r} is no target: did you mean --config {word}?", key=key, remedy="add --config")
        if re.match(r"\s*DES\d", value, re.IGNORECASE):
            raise InputError(f"{word!r} is no target: did you mean tile={value.strip()}?", remedy="write tile=NAME")


def _realization(where: str) -> str | None:
    return where.split("/")[1] if where else None


def _text(value: Any) -> str:
    if value is None:
        # A key without a value, --config bands=, is given to jobs without one too.
        return ""
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _refuse(error: BalrogError) -> NoReturn:
    sys.stderr.write(f"balrogutils: {error}\n")
    sys.exit(error.exit_status)


def open_run(config: Mapping[str, Any], words: list[str] | None = None) -> Run:
    """Return the run the Snakefile is read for; a refused one ends Snakemake with status 2 and a plain message."""
    # A handler of our own: one at the root would print every line of Snakemake a second time.
    ours = logging.getLogger("balrogutils")
    ours.propagate = False
    if not ours.handlers:
        ours.addHandler(logging.StreamHandler())
        ours.handlers[0].setFormatter(logging.Formatter("balrogutils: %(message)s"))
    words = sys.argv[1:] if words is None else words
    try:
        run = Run(config, words)
    except BalrogError as error:
        _refuse(error)
    except OSError as error:
        _refuse(refused(error))
    # Jobs that Snakemake starts as processes of its own name no tile either.
    if not run.tiles and "--target-jobs" not in words:
        sys.stderr.write(run.explanation)
    return run
