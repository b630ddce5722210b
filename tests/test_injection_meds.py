"""Shapes that were injected come back through MEDS stamps with the right signs."""

from types import SimpleNamespace

import fitsio
import galsim
import meds_frames
import numpy as np
import pytest
from meds_frames import BAND, COADD_SHAPE, TILE, tan_header, write_tile

from balrogutils.blocks.meds import meds
from balrogutils.exposures.lists import read_flist, read_zero_points
from balrogutils.fitsfile import read_image
from balrogutils.injection.chips import Chip, Recipe
from balrogutils.injection.imagefile import inject_chip
from balrogutils.injection.planning import _dtype
from balrogutils.injection.shapes import Shapes
from balrogutils.layout import chip_of
from balrogutils.meds import MEDS
from balrogutils.wcs import ImageWCS

SHEARS = ((0.3, 0.0), (-0.3, 0.0), (0.0, 0.3), (0.0, -0.3))
ROW, COL = np.array([110.2, 110.7, 185.3, 184.8]), np.array([105.4, 175.1, 104.6, 176.3])


@pytest.mark.parametrize("by", ["shape", "shear"])
def test_g1_alone_and_g2_alone_come_back_with_their_signs(tmp_path, monkeypatch, by):
    """Frames turned by a quarter, back, and mirrored; the shape as the object's own, and as a shear of a round one."""
    monkeypatch.setattr(meds_frames, "positions", lambda count: (ROW, COL))
    made = write_tile(tmp_path, count=4)
    tree = made.tree
    plan = np.zeros(4, _dtype(BAND))
    plan["bal_id"] = plan["noise_key"] = np.arange(1, 5)
    plan["model"], plan["T"], plan["magnification"], plan[f"flux_{BAND}"] = "gauss", 1.5, 1.0, 1e5
    plan["ra"], plan["dec"] = ImageWCS(tan_header(COADD_SHAPE)).pixel_to_sky(ROW, COL)
    names = ("g1", "g2") if by == "shape" else ("shear_g1", "shear_g2")
    plan[names[0]], plan[names[1]] = np.transpose(SHEARS)
    settings = SimpleNamespace(gal=SimpleNamespace(items=()))
    shapes = Shapes(settings, tmp_path, TILE, "0", 1)
    reach = np.array([shapes.reach(row) for row in plan])
    recipe = Recipe(galsim.GSParams(), False, 1, TILE, "0", "0")
    for (path, magzp), background in zip(
        read_zero_points(tree.flist("nullwt", BAND)), read_flist(tree.flist("bkg", BAND)), strict=True
    ):
        with fitsio.FITS(str(path), "rw") as fits:
            fits["SCI"].write(read_image(background, "SCI"))
        name = chip_of(path)
        rows = inject_chip(
            Chip(name, BAND, path, tmp_path / path.name, tree.psf(name), magzp), plan, reach, recipe, shapes
        )
        assert len(rows) == 4
        (tmp_path / path.name).replace(path)
    meds(made, BAND, keep_plain=tmp_path / "plain.fits")
    found = 0
    with MEDS(tmp_path / "plain.fits") as file:
        for number, (g1, g2) in enumerate(SHEARS):
            for cutout in range(1, file["ncutout"][number]):
                stamp = file.get_cutout(number, cutout, type="image").astype(float)
                # The epochs' zero points are taken out: fluxes at 30.
                assert stamp.sum() == pytest.approx(1e5, rel=0.02)
                rows, cols = np.indices(stamp.shape)
                rows = rows - file["cutout_row"][number, cutout]
                cols = cols - file["cutout_col"][number, cutout]
                matrix = file.get_jacobian_matrix(number, cutout)
                u, v = (line[0] * rows + line[1] * cols for line in matrix)
                uu, vv, uv = ((stamp * one).sum() / stamp.sum() for one in (u * u, v * v, u * v))
                e1, e2 = (uu - vv) / (uu + vv), 2 * uv / (uu + vv)
                # Without the PSF e is 2 g / (1 + g^2) = 0.55; a round PSF makes it smaller, and keeps its sign.
                assert 0.35 < np.hypot(e1, e2) < 0.56
                assert e1 == pytest.approx(np.hypot(e1, e2) * np.sign(g1), abs=0.02)
                assert e2 == pytest.approx(np.hypot(e1, e2) * np.sign(g2), abs=0.02)
                found += 1
    assert found >= 12
