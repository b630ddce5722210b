"""Products that were let go on purpose, to save room: what is known of them beside the manifest of their step."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from balrogutils.products import sha256, writing_text

__all__ = ["forget", "let_go", "lost", "make_alike", "note", "record_of"]

# cfitsio writes the time into their comments, on which the value of the first one depends.
_CARDS = (b"CHECKSUM=", b"DATASUM =")


def record_of(manifest: Path) -> Path:
    """Return where it is kept which products of a manifest were let go."""
    return manifest.parent / "let-go" / manifest.name


def _read(manifest: Path) -> dict[Path, dict[str, str]]:
    try:
        document = json.loads(record_of(manifest).read_text(encoding="utf-8"))
        if document["manifest_sha256"] != sha256(manifest):
            return {}
        return {Path(name): dict(cards) for name, cards in document["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        # Without a record they count as gone, and a run makes them again.
        return {}


def let_go(manifest: Path) -> frozenset[Path]:
    """Return the products that a manifest speaks of and that were let go; they need not be there, and may be.

    Nothing is said of the products of another manifest: a step that was done again has left them anew.
    """
    return frozenset(_read(manifest))


def lost(manifest: Path, outputs: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the products of a manifest that are gone, but for those that were let go."""
    spared = let_go(manifest)
    return [one["path"] for one in outputs if Path(one["path"]) not in spared and not Path(one["path"]).is_file()]


def note(manifest: Path, files: Iterable[Path]) -> None:
    """Record that products of a manifest are let go, before they are removed."""
    known = _read(manifest) | {path: _cards(path) for path in files}
    document = {"manifest_sha256": sha256(manifest), "files": {str(path): cards for path, cards in known.items()}}
    writing_text(record_of(manifest), json.dumps(document, indent=1) + "\n")


def make_alike(manifest: Path, path: Path, made: Path) -> None:
    """Give a file that was made again the one thing in which it differs from what was let go: when it was written.

    Parameters
    ----------
    manifest : pathlib.Path
        Of the step.
    path : pathlib.Path
        The product as it is called.
    made : pathlib.Path
        What was made again; cfitsio has written the time into it.
    """
    with made.open("r+b") as stream:
        for place, card in _read(manifest).get(path, {}).items():
            stream.seek(int(place))
            if stream.read(len(_CARDS[0])) in _CARDS:
                stream.seek(int(place))
                stream.write(card.encode("ascii"))


def _cards(path: Path) -> dict[str, str]:
    """Return the checksum cards of a FITS file, by the byte at which each begins."""
    # Imported when used: the graph asks this module too, and starts faster.
    import fitsio

    found = {}
    with fitsio.FITS(str(path)) as fits, path.open("rb") as stream:
        for hdu in fits:
            places = hdu.get_offsets()
            stream.seek(places["header_start"])
            header = stream.read(places["data_start"] - places["header_start"])
            for at in range(0, len(header), 80):
                if header[at : at + len(_CARDS[0])] in _CARDS:
                    found[str(places["header_start"] + at)] = header[at : at + 80].decode("ascii")
    return found


def forget(manifest: Path) -> None:
    """Remove the record: the products are there again, or are to count as gone."""
    record_of(manifest).unlink(missing_ok=True)
