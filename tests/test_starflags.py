"""Saturated pixels of bright stars, carried between epochs and bands."""

from dataclasses import replace

import numpy as np
import pytest

from balrogutils.fitting.observation import LocalWCS, Observation
from balrogutils.masks import MaskBit
from balrogutils.measurement.starflags import StarRule, propagate
from balrogutils.measurement.target import Coadd

PLAIN = LocalWCS(15.5, 15.5, 0.263, 0.0, 0.0, 0.263)
COADD = Coadd(PLAIN, (32, 32))
STAR = int(MaskBit.SATURATE | MaskBit.STAR)


def epoch(bits=0, wcs=PLAIN, seg=None):
    bmask = np.zeros((32, 32), np.int32)
    bmask[10, 20] = bits
    return Observation(np.ones((32, 32)), np.full((32, 32), 2.0), wcs, None, bmask, None, 0, seg)


def without(observation):
    return np.argwhere(np.asarray(observation.weight) == 0).tolist()


@pytest.mark.parametrize(
    "bits",
    [0, MaskBit.SATURATE, MaskBit.STAR, MaskBit.STAR | MaskBit.CRAY, STAR | MaskBit.SSXTALK, MaskBit.TAPEBUMP],
)
def test_other_pixels_stay_where_they_are(bits):
    bands = [[epoch(int(bits)), epoch()], [epoch()]]
    out = propagate(bands, [COADD, COADD], StarRule(int(MaskBit.SSXTALK)))
    assert all(a is b for some, others in zip(out, bands, strict=True) for a, b in zip(some, others, strict=True))


@pytest.mark.parametrize("bits", [STAR, int(MaskBit.INTERP | MaskBit.STAR)])
def test_a_star_is_carried_to_every_epoch_and_grows_by_two_pixels(bits):
    out = propagate([[epoch(bits), epoch()], [epoch()]], [COADD, COADD], StarRule())
    square = [[row, col] for row in range(8, 13) for col in range(18, 23)]
    assert all(without(one) == square for band in out for one in band)


def test_positions_follow_the_maps():
    turned = LocalWCS(15.5, 15.5, 0.0, 0.263, 0.263, 0.0)
    shifted = PLAIN.at(13.5, 17.5)
    out = propagate([[epoch(STAR), epoch(wcs=turned), epoch(wcs=shifted)]], [COADD], StarRule())[0]
    assert np.mean(without(out[1]), axis=0) == pytest.approx([20, 10])
    assert np.mean(without(out[2]), axis=0) == pytest.approx([8, 22])


def test_objects_keep_their_pixels_and_missing_maps_do_no_harm():
    seg = np.zeros((32, 32), np.int32)
    seg[9:12, 19:22] = 7
    out = propagate([[epoch(STAR, seg=seg), replace(epoch(), bmask=None)]], [COADD], StarRule())[0]
    assert len(without(out[0])) == 16
    assert len(without(out[1])) == 25


def test_a_star_beyond_the_coadd_stamp_is_not_carried():
    small = Coadd(LocalWCS(3.5, 3.5, 0.263, 0.0, 0.0, 0.263), (8, 8))
    assert without(propagate([[epoch(STAR), epoch()]], [small], StarRule())[0][1]) == []
    nothing = Coadd(LocalWCS(0.0, 0.0, 1.0, 0.0, 0.0, 1.0), (0, 0))
    assert without(propagate([[epoch(STAR), epoch()]], [nothing], StarRule())[0][1]) == []
