"""One group from stamps to catalogue rows, and a run of them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from balrogutils.blends.canvas import Piece, build_canvas, complete, view_of
from balrogutils.blends.catalogue import group_rows, nbr_rows
from balrogutils.blends.iteration import Convergence, View, fit_iteratively
from balrogutils.blends.joint import LARGEST, fit_jointly
from balrogutils.blends.neighbours import pairs_of_table
from balrogutils.blends.solve import GroupFit, MemberFit, Recipe, mof_flags
from balrogutils.blends.source import GroupSource, Member
from balrogutils.blends.weights import alone_weight, joined_weight
from balrogutils.errors import FitError
from balrogutils.fitsfile import read_table
from balrogutils.fitting.composite import CompositeFit
from balrogutils.fitting.flags import ObjectFlag
from balrogutils.fitting.observation import stack
from balrogutils.measurement.catalogue import Rows, epoch_rows
from balrogutils.measurement.modelprior import fracdev_prior
from balrogutils.measurement.modelstage import Fitted, ModelStage, fill_model
from balrogutils.measurement.psfstage import PSFStage, Seen, psf_fluxes
from balrogutils.randomness import stream
from balrogutils.settings.mof import Mof

__all__ = ["GroupFitter", "MofRun"]

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
_log = logging.getLogger(__name__)

# Groups of more members than one system takes are fit in turns: the cost of each turn grows as their number.
_MANY = Convergence(maxabs=(0.0,) * 6, maxfrac=(0.0,) * 6, maxerr=0.1, min_itr=2)


@dataclass(frozen=True)
class _Ready:
    """A member that can be fit: its place in the group, its epochs with all pixels of the group, and with its own."""

    place: int
    member: Member
    joined: list[list[Seen]]
    alone: list[list[Seen]]

    @property
    def lit(self) -> bool:
        """Whether it has pixels of its own in every band."""
        return all(any(one.observation.weight.any() for one in epochs) for epochs in self.alone)


class GroupFitter:
    """Fits groups one at a time; what comes out depends on the group and the settings, never on the order.

    Parameters
    ----------
    settings : Mof
        The run.
    bands : tuple of str
        Bands of every object, in order.
    """

    def __init__(self, settings: Mof, bands: tuple[str, ...]) -> None:
        self.settings, self.bands, self.model = settings, bands, settings.model
        self.psfs = PSFStage(settings, bands, use_region=False)
        self.models = ModelStage(settings, len(bands))
        pars, limits = settings.max_pars, settings.mof
        self.recipe = Recipe(
            self.model,
            self.models.prior,
            self.models.options,
            fracdev_prior(settings.priors) if self.model == "cm" else None,
            pars.fracdev_range,
            pars.TdByTe_range,
            settings.cov_pars.fracdev == "free",
        )
        self.rules = Convergence(
            limits.maxabs_conv,
            limits.maxfrac_conv,
            limits.maxerr_conv,
            limits.min_itr,
            limits.max_itr,
            limits.min_useg_itr,
        )

    def __call__(self, fofid: int, members: Sequence[Member], pairs: I64) -> tuple[Rows, Rows, Rows]:
        """Fit one group.

        Parameters
        ----------
        fofid : int
            Number of the group.
        members : sequence of Member
            Its objects.
        pairs : ndarray of int, shape (npair, 2)
            Members that are neighbours.

        Returns
        -------
        (ndarray, ndarray, ndarray)
            Rows of ``model_fits``, one for each member, of ``epoch_data`` and ``nbrs_data``. A failure is a flag, never
            an exception.
        """
        ncomp = self.psfs.options.ncomp
        rows = self._rows(fofid, members)
        try:
            return self._fit(members, pairs, rows)
        except (FitError, ArithmeticError, np.linalg.LinAlgError) as error:
            ids = " ".join(str(one.target.id) for one in members[:5])
            _log.warning("group %d of objects %s could not be fit: %s", fofid, ids, error)
            rows = self._rows(fofid, members)
            rows["flags"] = rows["obj_flags"] = ObjectFlag.UTTER_FAILURE
            rows[f"{self.model}_mof_flags"] = mof_flags(["not fit"] * len(members), pairs)
            return rows, epoch_rows(ncomp, 0), nbr_rows(ncomp, 0)

    def _rows(self, fofid: int, members: Sequence[Member]) -> Rows:
        rows = group_rows(self.model, len(self.bands), len(members))
        for row, member in zip(rows, members, strict=True):
            for name in ("id", "number", "ra", "dec", "box_size"):
                row[name] = getattr(member.target, name)
            row["nimage_tot"] = [len(epochs) for epochs in member.target.bands]
        rows["fofid"] = fofid
        rows["fofind"] = np.arange(len(members))
        return rows

    def _fit(self, members: Sequence[Member], pairs: I64, rows: Rows) -> tuple[Rows, Rows, Rows]:
        seen, tables = [], []
        for row, member in zip(rows, members, strict=True):
            epochs, table = self.psfs(member.target, row)
            seen.append(epochs)
            tables.append(table)
        ready = self._ready(members, seen, rows)
        states = ["not fit"] * len(members)
        neighbours = nbr_rows(self.psfs.options.ncomp, 0)
        if ready:
            rank = np.full(len(members), -1, np.int64)
            rank[[one.place for one in ready]] = np.arange(len(ready))
            some = rank[pairs.reshape(-1, 2)]
            some = some[(some >= 0).all(axis=1)]
            pieces = complete(self._pieces(ready), np.array([one.member.offset for one in ready]))
            found = self._solve(ready, pieces, some, rows)
            for k, one in enumerate(ready):
                states[one.place] = self._fill(rows[one.place], one, found, k)
            neighbours = self._neighbours(ready, pieces, some)
        rows[f"{self.model}_mof_flags"] = mof_flags(states, pairs.reshape(-1, 2))
        return rows, np.concatenate(tables), neighbours

    def _ready(self, members: Sequence[Member], seen: list[list[list[Seen]]], rows: Rows) -> list[_Ready]:
        """Return the members that can be fit; those whose pixels all belong to others that cannot are flagged."""
        while True:
            places = [k for k in range(len(members)) if not rows["flags"][k]]
            numbers = np.array([members[k].target.number for k in places])
            out, dark = [], False
            for k in places:
                joined = self._weighted(members[k], seen[k], numbers)
                if all(epochs for epochs in joined):
                    out.append(_Ready(k, members[k], joined, self._alone(members[k], joined)))
                    continue
                rows["flags"][k] = rows["obj_flags"][k] = ObjectFlag.IMAGE_FLAGS
                dark = True
            if not dark:
                break
        for one in out:
            if len(members) > 1 and one.lit:
                psf_fluxes(one.alone, rows[one.place])
        return out

    def _weighted(self, member: Member, bands: list[list[Seen]], numbers: I64) -> list[list[Seen]]:
        out = []
        for epochs, labels in zip(bands, member.labels, strict=True):
            some = [
                _with(one, joined_weight(one.observation.weight, labels[one.place], numbers, self.settings.region))
                for one in epochs
            ]
            out.append([one for one in some if one.observation.weight.any()])
        return out

    @staticmethod
    def _alone(member: Member, bands: list[list[Seen]]) -> list[list[Seen]]:
        out = []
        for epochs, labels in zip(bands, member.labels, strict=True):
            number = member.target.number
            out.append([_with(one, alone_weight(one.observation.weight, labels[one.place], number)) for one in epochs])
        return out

    def _pieces(self, ready: Sequence[_Ready], *, alone: bool = False) -> list[Piece]:
        order = {one.member.target.number: k for k, one in enumerate(ready)}
        pieces = []
        for k, one in enumerate(ready):
            for band, epochs in enumerate(one.alone if alone else one.joined):
                for place, observation, psf in epochs:
                    labels = one.member.labels[band][place]
                    owner = np.full(labels.shape, -1, np.int64)
                    for label in np.unique(labels).tolist():
                        owner[labels == label] = order.get(label, -1)
                    pieces.append(
                        Piece(
                            k,
                            band,
                            one.member.target.bands[band][place].file_id,
                            one.member.origins[band][place],
                            (observation.image.shape[0], observation.image.shape[1]),
                            observation.wcs,
                            psf.mixture,
                            np.asarray(observation.image, np.float64),
                            np.asarray(observation.weight, np.float64),
                            owner,
                        )
                    )
        return pieces

    def _solve(self, ready: Sequence[_Ready], pieces: Sequence[Piece], pairs: I64, rows: Rows) -> GroupFit:
        count, nband = len(ready), len(self.bands)
        each = [self.models.starts(one.member.target.id, rows[one.place]) for one in ready]
        starts = [np.array(start) for start in zip(*each, strict=True)]
        recipe = self.recipe if count == 1 else replace(self.recipe, largest=self._largest(ready))
        joint = self.settings.strategy == "joint"
        if joint and count <= LARGEST:
            offsets = np.array([one.member.offset for one in ready])
            return fit_jointly(build_canvas(pieces, count, nband), recipe, starts, offsets, pairs)
        own = self._pieces(ready, alone=True)
        views = []
        for k, one in enumerate(ready):
            joined, owner = view_of(pieces, k, count, nband)
            alone = view_of(own, k, count, nband)[0] if one.lit else None
            views.append(View(joined, owner, alone, one.member.target.box_size))
        name = ready[0].member.target.id

        def random(number: int) -> np.random.Generator:
            return stream(self.settings.global_seed, "mof turns", name, number)

        return fit_iteratively(views, recipe, starts, _MANY if joint else self.rules, random)

    def _largest(self, ready: Sequence[_Ready]) -> tuple[float, ...]:
        """Return the largest T of each member, arcsec^2, from its box."""
        if self.settings.largest_T is None:
            return ()
        out = []
        for one in ready:
            scale = one.joined[0][0].observation.wcs.scale
            out.append(self.settings.largest_T * (0.5 * one.member.target.box_size * scale) ** 2)
        return tuple(out)

    def _fill(self, row: Rows, one: _Ready, found: GroupFit, k: int) -> str:
        """Fill the columns of a member; returns its state."""
        fitted: MemberFit = found.members[k]
        data = stack([[seen.observation for seen in epochs] for epochs in one.joined])
        mixtures = np.array([seen.psf.mixture for epochs in one.joined for seen in epochs])
        made = None if fitted.mix is None else CompositeFit(fitted.fit, fitted.fit, fitted.fit, *fitted.mix)
        profile = fitted.model or self.models.profile
        good = fill_model(row, self.model, Fitted(fitted.fit, profile, data, mixtures, made))
        row["flags"] = 0 if good else ObjectFlag.GAL_FIT_FAILURE
        row[f"{self.model}_mof_num_itr"] = found.rounds
        if not good:
            return "bad fit"
        for kind, values in zip(("abs", "frac", "err"), found.changes[k], strict=True):
            row[f"{self.model}_mof_{kind}_diff"] = values
        return "good" if found.converged[k] else "not converged"

    def _neighbours(self, ready: Sequence[_Ready], pieces: Sequence[Piece], pairs: I64) -> Rows:
        ncomp = self.psfs.options.ncomp
        where = {(piece.member, piece.band, piece.image): piece for piece in pieces}
        both = np.concatenate([pairs, pairs[:, ::-1]])
        parts = [nbr_rows(ncomp, 0)]
        for k, nbr in both[np.lexsort((both[:, 1], both[:, 0]))].tolist():
            target, other = ready[k].member.target, ready[nbr].member.target
            for band, epochs in enumerate(ready[k].joined):
                rows = nbr_rows(ncomp, len(epochs))
                rows["id"], rows["number"], rows["nbr_id"], rows["nbr_number"] = (
                    target.id, target.number, other.id, other.number,
                )  # fmt: skip
                rows["band"], rows["band_num"] = self.bands[band].encode(), band
                for row, seen in zip(rows, epochs, strict=True):
                    epoch = target.bands[band][seen.place]
                    row["cutout_index"], row["file_id"] = epoch.cutout_index, epoch.file_id
                    row["image_id"] = epoch.image_id.encode()
                    piece = where.get((nbr, band, epoch.file_id))
                    if piece is None:
                        continue
                    origin = ready[k].member.origins[band][seen.place]
                    map_ = piece.wcs.at(piece.place[0] - origin[0], piece.place[1] - origin[1])
                    for name, value in zip(map_._fields, map_, strict=True):
                        row[f"nbr_jac_{name}"] = value
                    row["nbr_psf_fit_pars"] = piece.psf.ravel()
                    row["nbr_flags"] = 0
                parts.append(rows)
        return np.concatenate(parts)


def _with(seen: Seen, weight: F64) -> Seen:
    return seen._replace(observation=replace(seen.observation, weight=weight))


@dataclass(frozen=True)
class MofRun:
    """Fits of the groups of one tile, as `balrogutils.measurement.chunks` shares them out.

    Parameters
    ----------
    settings : Mof
        The run.
    meds : mapping of str to Path
        MEDS file of each band.
    nbrs, fofs : Path
        Tables of neighbours and groups.
    """

    settings: Mof
    meds: Mapping[str, Path]
    nbrs: Path
    fofs: Path
    kind: str = "mof"

    @property
    def bands(self) -> tuple[str, ...]:
        """Bands, in order."""
        return tuple(self.meds)

    def fit(self, first: int, last: int) -> dict[str, Rows]:
        """Fit groups `first` to `last`, both included; return ``model_fits``, ``epoch_data`` and ``nbrs_data``."""
        fitter = GroupFitter(self.settings, self.bands)
        groups = read_table(self.fofs)
        parts: list[tuple[Rows, ...]] = []
        with GroupSource(self.meds) as source:
            number = source.numbers()
            place = {int(label): row for row, label in enumerate(number)}
            pairs = pairs_of_table(number, read_table(self.nbrs))
            for fofid in range(first, last + 1):
                rows = [place[int(label)] for label in groups["number"][groups["fofid"] == fofid]]
                rank = np.full(number.size, -1, np.int64)
                rank[rows] = np.arange(len(rows))
                some = rank[pairs]
                parts.append(fitter(fofid, source.group(rows), some[(some >= 0).all(axis=1)]))
        names = ("model_fits", "epoch_data", "nbrs_data")
        return {name: np.concatenate(some) for name, some in zip(names, zip(*parts, strict=True), strict=True)}

    def rows(self, first: int, last: int) -> int:
        """Number of catalogue rows of a chunk."""
        groups = read_table(self.fofs)["fofid"]
        return int(np.count_nonzero((groups >= first) & (groups <= last)))
