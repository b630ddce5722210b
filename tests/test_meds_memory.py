"""Memory of the MEDS writer does not grow with the number of exposures or cut-outs."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).resolve().parents[1] / "benchmarks" / "meds_writer.py"


def measure(tmp_path, **options):
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    done = subprocess.run(
        [sys.executable, str(BENCHMARK), *words, "--scratch", str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        timeout=500,
    )
    return json.loads(done.stdout)


@pytest.mark.long
def test_peak_memory_is_that_of_one_source_image(tmp_path):
    few = measure(tmp_path, objects=300, exposures=2, rows=2048, cols=1536)
    many = measure(tmp_path, objects=300, exposures=29, rows=2048, cols=1536)
    assert many["plain_MB"] > 9 * few["plain_MB"]
    image = few["image_MB"]
    for one in (few, many):
        assert one["peak_MB"] < image + 300
    assert many["peak_MB"] - few["peak_MB"] < image
    assert many["fpack_peak_MB"] - few["fpack_peak_MB"] < image


@pytest.mark.long
def test_peak_memory_of_a_coadd_is_not_that_of_the_coadd(tmp_path):
    """A plane of 400 MB: of one source image and 300 MB, the 300 MB are enough."""
    took = measure(tmp_path, objects=300, exposures=0, rows=10000, cols=10000)
    assert took["image_MB"] == 400
    assert took["peak_MB"] < 300


@pytest.mark.long
def test_a_tile_of_430_objects_takes_a_few_seconds_of_cpu(tmp_path):
    took = measure(tmp_path, objects=430, exposures=5)
    # 1.5 s on the machine this was written on; the limit of the project is 6 s a band.
    assert took["cpu_s"] + took["fpack_cpu_s"] < 6
