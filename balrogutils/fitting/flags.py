"""Flag bits of fits and objects, named once."""

from __future__ import annotations

import enum

__all__ = ["FitFlag", "ImageFlag", "MofFlag", "ObjectFlag"]


class FitFlag(enum.IntFlag):
    """Why one fit has no result one should use. 0 is a good fit."""

    NO_ATTEMPT = 1 << 0
    CEN_SHIFT = 1 << 1
    NONPOS_FLUX = 1 << 2
    NONPOS_SIZE = 1 << 3
    LOW_DET = 1 << 4
    MAXITER = 1 << 5
    """The solver used all its evaluations without converging."""
    NONPOS_VAR = 1 << 6
    GMIX_RANGE_ERROR = 1 << 7
    """The model cannot be evaluated at the start, or nowhere around it."""
    NONPOS_SHAPE_VAR = 1 << 8
    LM_SINGULAR_MATRIX = 1 << 9
    LM_NEG_COV_EIG = 1 << 10
    LM_NEG_COV_DIAG = 1 << 11
    LM_FUNC_NOTFINITE = 1 << 12
    EIG_NOTFINITE = 1 << 13
    DIV_ZERO = 1 << 14
    ZERO_DOF = 1 << 15


class ObjectFlag(enum.IntFlag):
    """Why one catalogue row has no result one should use. 0 is good."""

    PSF_FIT_FAILURE = 1 << 0
    GAL_FIT_FAILURE = 1 << 1
    PSF_FLUX_FIT_FAILURE = 1 << 2
    LOW_PSF_FLUX = 1 << 3
    METACAL_FAILURE = 1 << 4
    FORCEPHOT_FAILURE = 1 << 5
    OBJECT_IN_BLACKLIST = 1 << 24
    BAD_OBJ = 1 << 25
    IMAGE_FLAGS = 1 << 26
    """All epochs of a band were dropped: flagged images, masked stamps, or unusable PSFs."""
    NO_CUTOUTS = 1 << 27
    """A band has no single-epoch stamp."""
    BOX_SIZE_TOO_BIG = 1 << 28
    UTTER_FAILURE = 1 << 29
    NO_ATTEMPT = 1 << 30


class ImageFlag(enum.IntFlag):
    """Why one epoch was not used."""

    IMAGE_FLAGS_SET = 1 << 0
    PSF_IN_BLACKLIST = 1 << 1
    PSF_MISSING_S2N = 1 << 2
    PSF_LOW_S2N = 1 << 3
    PSF_FILE_READ_ERROR = 1 << 4
    """The PSF stamp is missing, has no flux, or holds a value that is not finite."""
    ZERO_IMAGE = 1 << 5
    """The stamp has no usable pixel value."""
    MASKED = 1 << 6
    """Too many pixels have weight zero or mask bits, or none is left."""
    PSF_FIT = 1 << 7
    """The mixture could not be fit to the PSF."""
    BAD_JACOBIAN = 1 << 8
    """The WCS derivatives are singular or not finite."""


class MofFlag(enum.IntFlag):
    """What is wrong with the fit of a group, for one of its members (M 5.2): the first four bits are about its
    neighbours, the next four about other members, the last two about itself."""

    NBR_NOT_CONVERGED = 1 << 0
    NBR_BAD_FIT = 1 << 1
    NBR_NOT_FIT = 1 << 2
    NBR_SKIPPED = 1 << 3
    FOFMEM_NOT_CONVERGED = 1 << 4
    FOFMEM_BAD_FIT = 1 << 5
    FOFMEM_NOT_FIT = 1 << 6
    FOFMEM_SKIPPED = 1 << 7
    NOT_CONVERGED = 1 << 8
    SKIPPED = 1 << 9
