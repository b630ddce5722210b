"""Names that come from an archive: what may become part of a path here."""

from __future__ import annotations

import re

from balrogutils.errors import ArchiveError

__all__ = ["path_parts", "whole_number"]

# Nothing that a shell, a list of files or cfitsio's extended file names give a meaning to; no dash or dot at the
# beginning, which make an option or a hidden file; nothing that does not show.
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+,=~ -]*")
_LONGEST = 255


def path_parts(path: object, **where: str | None) -> tuple[str, ...]:
    """Return the components of a path below the archive's root.

    Parameters
    ----------
    path : object
        What the database holds, with ``/``; SQLite keeps anything in any column.
    **where
        Tile, band and chip for the error.

    Raises
    ------
    ArchiveError
        When it is absolute, leads out of the archive, or has a character that no file of a survey needs.
    """
    parts = path.split("/") if isinstance(path, str) else []
    remedy = "repair the archive's database; nothing has been fetched under this name"
    if not parts or not parts[0] or ".." in parts:
        raise ArchiveError("the archive names a file outside itself", **where, file=repr(path), remedy=remedy)
    for part in parts:
        if len(part) > _LONGEST or not _PART.fullmatch(part):
            raise ArchiveError(
                f"the archive has a file name that cannot be one: {part[:_LONGEST]!r}",
                **where,
                file=repr(path),
                remedy=remedy,
            )
    return tuple(parts)


def whole_number(value: object, what: str, **where: str | None) -> int:
    """Return an exposure, CCD or attempt number of the database.

    Raises
    ------
    ArchiveError
        When it is none: these numbers become parts of file names too.
    """
    try:
        number = int(str(value))
    except ValueError as error:
        raise ArchiveError(
            f"the archive has a {what} that is no number: {value!r}", **where, remedy="repair the archive's database"
        ) from error
    return number
