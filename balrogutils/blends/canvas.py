"""The stamps of a group put together: pixels of one image that several stamps share count once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from balrogutils.errors import FitError
from balrogutils.fitting.kernels import Links
from balrogutils.fitting.observation import LocalWCS, Stack
from balrogutils.fitting.parts import on_their_stamps

__all__ = ["Canvas", "Piece", "build_canvas", "complete", "part_of", "view_of"]

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

# Canvases with a longer side are cut into tiles of about this side, so that each holds the sources near it alone.
_WHOLE, _TILE = 96, 48


@dataclass(frozen=True)
class Piece:
    """One member of a group on one source image.

    Parameters
    ----------
    member : int
        Its place in the group.
    band : int
        Number of the band.
    image : int
        Which source image of the band.
    origin : (int, int)
        Row and column of the image that are the stamp's first.
    shape : (int, int)
        Rows and columns of the stamp; of one without pixels, how far around the member its light is looked for.
    wcs : LocalWCS
        Map around the member, in pixels of the stamp.
    psf : ndarray, shape (npsf, 6)
        PSF mixture at the member.
    pixels : ndarray, shape (nrow, ncol), optional
        Image; None where the stamp must not be used and only the light of the member counts.
    weight : ndarray, shape (nrow, ncol), optional
        Final weight, 0 for pixels of objects that are no members.
    owner : ndarray of int, shape (nrow, ncol), optional
        The member whose pixel it is in the segmentation, -1 where it is no member's.
    """

    member: int
    band: int
    image: int
    origin: tuple[int, int]
    shape: tuple[int, int]
    wcs: LocalWCS
    psf: F64
    pixels: F64 | None = None
    weight: F64 | None = None
    owner: NDArray[np.int64] | None = None

    @property
    def place(self) -> tuple[float, float]:
        """Row and column of the member in the source image."""
        return self.origin[0] + self.wcs.row0, self.origin[1] + self.wcs.col0


class Canvas(NamedTuple):
    """Pixels of a group, each once, and which member is where.

    data : stamps of all bands; links : every member on every stamp that its light can reach; member : int64 [nsource],
    the member that each source of the links is.
    """

    data: Stack
    links: Links
    member: I64


def complete(pieces: Sequence[Piece], offsets: F64) -> list[Piece]:
    """Add pieces without pixels for members that have no stamp in an image in which others have one.

    Parameters
    ----------
    pieces : sequence of Piece
        Stamps of all members.
    offsets : ndarray, shape (nmember, 2)
        Position (v, u) of each member, arcsec, from one point of the sky; NaN where it is not known.

    Returns
    -------
    list of Piece
        The pieces given, then those added: with WCS and PSF of the nearest member that is in the image.
    """
    out = list(pieces)
    images: dict[tuple[int, int], dict[int, Piece]] = {}
    side = np.zeros(len(offsets), np.int64)
    for piece in pieces:
        images.setdefault((piece.band, piece.image), {})[piece.member] = piece
        side[piece.member] = max(side[piece.member], *piece.shape)
    for (band, image), there in images.items():
        known = np.array(sorted(there))
        for member in np.setdiff1d(np.arange(len(offsets)), known):
            apart = np.hypot(*(offsets[known] - offsets[member]).T)
            if side[member] == 0 or not np.isfinite(apart).any():
                continue
            near = there[int(known[int(np.nanargmin(apart))])]
            dv, du = (float(value) for value in offsets[member] - offsets[near.member])
            wcs, det = near.wcs, near.wcs.determinant
            row = near.place[0] + (wcs.dudcol * dv - wcs.dvdcol * du) / det
            col = near.place[1] + (wcs.dvdrow * du - wcs.dudrow * dv) / det
            half = int(side[member]) // 2
            origin = (int(np.floor(row)) - half, int(np.floor(col)) - half)
            shape = (int(side[member]), int(side[member]))
            there_now = wcs.at(row - origin[0], col - origin[1])
            out.append(Piece(int(member), band, image, origin, shape, there_now, near.psf))
    return out


def _agree(known: F64, image: F64, weight: F64, piece: Piece) -> None:
    """Refuse stamps that say they are of one image and differ by more than packing does.

    Raises
    ------
    FitError
        When the pixels they share typically differ by more than their noise.
    """
    if weight.size and float(np.median(np.abs(known - image) * np.sqrt(weight))) > 1.0:
        raise FitError(
            f"stamps of image {piece.image} in band number {piece.band} hold different pixels at one place",
            remedy="check file_id and orig_start of the MEDS file",
        )


def _paste(pieces: Sequence[Piece], top: int, left: int, nrow: int, ncol: int) -> tuple[F64, F64]:
    """Return image and weight of one source image around the stamps; the smallest weight of those that overlap."""
    image, weight = np.zeros((nrow, ncol)), np.full((nrow, ncol), -1.0)
    for piece in pieces:
        if piece.pixels is None or piece.weight is None:
            continue
        r, c = piece.origin[0] - top, piece.origin[1] - left
        here = np.s_[r : r + piece.shape[0], c : c + piece.shape[1]]
        pixels, own = image[here], weight[here]
        shared = (own > 0.0) & (piece.weight > 0.0)
        _agree(pixels[shared], piece.pixels[shared], own[shared], piece)
        fresh = own < 0.0
        pixels[fresh] = piece.pixels[fresh]
        own[:] = np.where(fresh, piece.weight, np.minimum(own, piece.weight))
    return image, np.maximum(weight, 0.0)


def _tiles(length: int, whole: bool) -> list[tuple[int, int]]:
    count = 1 if whole else -(-length // _TILE)
    edges = np.linspace(0, length, count + 1).astype(int)
    return list(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True))


def build_canvas(pieces: Sequence[Piece], nmember: int, nband: int) -> Canvas:
    """Put the stamps of a group together.

    Parameters
    ----------
    pieces : sequence of Piece
        All members on all images; at least one has pixels.
    nmember, nband : int
        Numbers of members and bands.

    Returns
    -------
    Canvas
        A member alone keeps its stamps as they are. Large canvases are cut into tiles, and a member is linked to those
        within half a box of its own.

    Raises
    ------
    FitError
        When there is no pixel, or stamps of one image contradict each other.
    """
    images: dict[tuple[int, int], list[Piece]] = {}
    for piece in pieces:
        images.setdefault((piece.band, piece.image), []).append(piece)
    parts: list[tuple[int, F64, F64, list[tuple[Piece, LocalWCS]]]] = []
    for (band, _), here in sorted(images.items(), key=lambda item: item[0][0]):
        used = [piece for piece in here if piece.pixels is not None]
        if not used:
            continue
        top, left = (min(piece.origin[axis] for piece in used) for axis in (0, 1))
        nrow = max(piece.origin[0] + piece.shape[0] for piece in used) - top
        ncol = max(piece.origin[1] + piece.shape[1] for piece in used) - left
        image, weight = _paste(used, top, left, nrow, ncol)
        whole = max(nrow, ncol) <= _WHOLE or len(here) == 1
        for r0, r1 in _tiles(nrow, whole):
            for c0, c1 in _tiles(ncol, whole):
                inside = weight[r0:r1, c0:c1]
                if not (whole or (inside > 0.0).any()):
                    continue
                near = []
                for piece in here:
                    r, c = piece.origin[0] - top - r0, piece.origin[1] - left - c0
                    reach_r, reach_c = piece.shape[0] / 2, piece.shape[1] / 2
                    rows = -reach_r - piece.shape[0] <= r <= r1 - r0 + reach_r
                    cols = -reach_c - piece.shape[1] <= c <= c1 - c0 + reach_c
                    if whole or (rows and cols):
                        near.append((piece, piece.wcs.at(piece.wcs.row0 + r, piece.wcs.col0 + c)))
                parts.append((band, image[r0:r1, c0:c1], inside, near))
    if not parts:
        raise FitError("there is no stamp to fit")
    return Canvas(*_stack(parts, nband), np.arange(nmember))


def _stack(parts: Sequence[tuple[int, F64, F64, list[tuple[Piece, LocalWCS]]]], nband: int) -> tuple[Stack, Links]:
    shapes = np.array([image.shape for _, image, _, _ in parts], np.int64)
    weight = np.concatenate([np.ascontiguousarray(part[2], np.float64).ravel() for part in parts])
    image = np.concatenate([np.ascontiguousarray(part[1], np.float64).ravel() for part in parts])
    if not (np.all(np.isfinite(weight)) and np.all(np.isfinite(image[weight > 0.0]))):
        raise FitError("a weight is not finite, or a used pixel is not finite")
    image[weight == 0.0] = 0.0
    sizes = shapes.prod(axis=1)
    linked = [one for _, _, _, near in parts for one in near]
    first = np.concatenate([[0], np.cumsum([len(part[3]) for part in parts])]).astype(np.int64)
    # A stamp has no map of its own here: each member brings one. That of its first member stands for it.
    nowhere = LocalWCS(0.0, 0.0, 1.0, 0.0, 0.0, 1.0)
    data = Stack(
        image,
        weight,
        np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64),
        np.ascontiguousarray(shapes[:, 0]),
        np.ascontiguousarray(shapes[:, 1]),
        np.array([part[0] for part in parts], np.int64),
        np.array([part[3][0][1] if part[3] else nowhere for part in parts], np.float64),
        int(np.count_nonzero(weight)),
        nband,
    )
    return data, Links(
        first,
        np.array([piece.member for piece, _ in linked], np.int64),
        np.array([wcs for _, wcs in linked], np.float64).reshape(-1, 6),
        np.ascontiguousarray([piece.psf for piece, _ in linked], np.float64),
        np.zeros(1),
        np.full(len(linked), -1, np.int64),
    )


def part_of(canvas: Canvas, members: I64) -> tuple[Canvas, I64]:
    """Return the part of a canvas that some members are on, with these alone, and where its pixels are in the whole.

    Parameters
    ----------
    canvas : Canvas
        Of the whole group.
    members : ndarray of int, shape (n,)
        Sources to keep, in this order.

    Returns
    -------
    Canvas
        Its sources are numbered in the order of `members`.
    ndarray of int64, shape (npix,)
        Index of each of its pixels in the pixels of `canvas`.
    """
    data, links, pixels = on_their_stamps(canvas.data, canvas.links, members)
    return Canvas(data, links, canvas.member[members]), pixels


def view_of(pieces: Sequence[Piece], member: int, nmember: int, nband: int) -> tuple[Canvas, NDArray[np.int64]]:
    """Return the stamps of one member as they are, with all members linked to them, and whose pixels they are.

    Parameters
    ----------
    pieces : sequence of Piece
        As in `build_canvas`.
    member : int
        Whose stamps.
    nmember, nband : int
        Numbers of members and bands.

    Raises
    ------
    FitError
        When the member has no stamp to fit.

    Returns
    -------
    Canvas
        Each stamp for itself.
    ndarray of int64, shape (npix,)
        The member that owns each pixel, -1 for none.
    """
    images: dict[tuple[int, int], list[Piece]] = {}
    for piece in pieces:
        images.setdefault((piece.band, piece.image), []).append(piece)
    parts, owners = [], []
    for own in sorted((piece for piece in pieces if piece.member == member), key=lambda piece: piece.band):
        if own.pixels is None or own.weight is None:
            continue
        # The member first: the map of the stamp is then its own.
        here = sorted(images[own.band, own.image], key=lambda piece: piece.member != member)
        near = [
            (piece, piece.wcs.at(*(place - origin for place, origin in zip(piece.place, own.origin, strict=True))))
            for piece in here
        ]
        parts.append((own.band, own.pixels, own.weight, near))
        owners.append(np.full(own.pixels.size, -1) if own.owner is None else own.owner.ravel())
    if not parts:
        raise FitError("there is no stamp to fit")
    return Canvas(*_stack(parts, nband), np.arange(nmember)), np.concatenate(owners).astype(np.int64)
