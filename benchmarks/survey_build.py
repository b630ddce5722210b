"""Time the build of the embedded archive: `python benchmarks/survey_build.py DIRECTORY [WORKERS]`.

Reports wall and CPU seconds and the peak memory of the largest process. On two cores the default survey must take
at most three minutes.
"""

import json
import logging
import resource
import sys
import time
from pathlib import Path

from balrogutils.survey.build import REPORT, build_archive
from balrogutils.survey.parameters import SurveyParameters

_log = logging.getLogger("benchmark")


def main() -> None:
    """Build the default survey and report what it took."""
    directory, workers = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 2
    survey = SurveyParameters.load(Path(__file__).resolve().parents[1] / "etc" / "survey.yaml")
    started = time.monotonic()
    build_archive(survey, directory, workers)
    wall = time.monotonic() - started
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cpu = sum(usage.ru_utime + usage.ru_stime for usage in usages)
    peak = max(usage.ru_maxrss for usage in usages) / 1024
    _log.info("%s", json.loads((directory / REPORT).read_text())["summary"])
    _log.info("wall %.0f s, CPU %.0f s, %d processes, largest process %.0f MiB", wall, cpu, workers, peak)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    main()
