"""What injecting, auditing and replaying have in common: the settings in force, and how chips are drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING

from balrogutils.context import Context
from balrogutils.errors import ConfigError, InputError
from balrogutils.settings.injection import Injection

if TYPE_CHECKING:
    from balrogutils.injection.chips import Recipe
    from balrogutils.injection.shapes import Shapes

__all__ = ["recipe_of", "settings_of"]


def settings_of(context: Context) -> tuple[Injection, int, str]:
    """Return the injection configuration, the seed in force and the realization.

    Raises
    ------
    InputError
        In a base run, or when the configuration is for another medsconf.
    """
    if context.realization is None:
        raise InputError(
            "injection makes realizations, and none is named", tile=context.tile, remedy="name one with --realization"
        )
    settings = context.injection
    if settings.image.version not in (None, context.site.medsconf):
        raise ConfigError(
            f"image.version is {settings.image.version}, but medsconf is {context.site.medsconf}",
            file=context.galsim_file,
            key="image.version",
            remedy="remove the key",
        )
    own = settings.image.random_seed
    return settings, context.seed if own is None else own, context.realization


def recipe_of(context: Context, settings: Injection, seed: int, realization: str) -> tuple[Recipe, Shapes]:
    """Return how chips are drawn, and what makes the profiles of objects."""
    import galsim

    from balrogutils.injection.chips import Recipe
    from balrogutils.injection.shapes import Shapes

    twin = settings.twin(realization)
    recipe = Recipe(
        gsparams=galsim.GSParams(**settings.stamp.gsparams.model_dump(exclude_none=True)),
        poisson=settings.poisson,
        seed=seed,
        tile=context.tile,
        realization=realization,
        noise_realization=twin,
        update_weights=settings.image.noise.update_weights,
        mask_bit=settings.image.mask_bit,
        blank=settings.blank,
        recenter=settings.psf.recenter_psf,
        psf=settings.psf,
        base=context.site.base,
    )
    return recipe, Shapes(settings, context.site.base, context.tile, twin, seed)
