"""Embedded archives: made once, before the first tile."""

from __future__ import annotations

import logging
import time
from pathlib import Path

from balrogutils.errors import InputError
from balrogutils.layout import Site
from balrogutils.settings.campaign import Campaign
from balrogutils.tools import TIMEOUT

__all__ = ["build"]

_log = logging.getLogger(__name__)


def build(site: Site, campaign: Campaign, workers: int, timeout: float = TIMEOUT) -> None:
    """Build the archive of a campaign where it is absent.

    Parameters
    ----------
    site : Site
        Directories.
    campaign : Campaign
        With the name of its builder.
    workers : int
        Processes to use.
    timeout : float
        Seconds after which an external program counts as hanging.

    Raises
    ------
    InputError
        When the campaign's archive is not an embedded one.
    """
    prefix = "sqlite:///"
    if not campaign.builder or not campaign.database.startswith(prefix):
        raise InputError(f"the archive of campaign {campaign.name} is not one of ours to build", key="builder")
    directory = Path(campaign.database.removeprefix(prefix)).parent
    started = time.monotonic()
    if campaign.kind == "noirlab":
        from balrogutils.archive.noirlab import build_archive as build_noirlab

        build_noirlab(site.base / campaign.builder, directory)
    else:
        from balrogutils.survey.build import build_archive as build_survey
        from balrogutils.survey.parameters import SurveyParameters

        build_survey(SurveyParameters.load(site.base / campaign.builder), directory, workers, timeout)
    _log.info("archive of campaign %s is at %s (%.0f s)", campaign.name, directory, time.monotonic() - started)
