"""From matched catalogues to tables and plots: what is found, how it is measured, whether errors are right.

    python examples/science_products.py OUTPUT_DIRECTORY [MATCH_CATALOGUE.fits ...]

Without catalogues it makes a mock pair of 5000 injections with metacal and shears of +-0.02. Half a minute on a laptop.
In a notebook leave out the writing: tables and figures show themselves.
"""

import sys
from pathlib import Path

from balrogutils.analysis.matched import read_matched
from balrogutils.analysis.mock import mock_matched
from balrogutils.analysis.pairs import shear_bias_table
from balrogutils.analysis.products import (
    class_table,
    detection_model,
    efficiency_tables,
    input_row_table,
    metacal_table,
    pull_tables,
    transfer_tables,
)
from balrogutils.analysis.skymap import efficiency_map, write_map
from balrogutils.report.efficiencyplot import efficiency_figure, input_row_figure, map_figure
from balrogutils.report.style import save_svg
from balrogutils.report.transferplot import (
    bias_figure,
    confusion_figure,
    pull_figure,
    response_figure,
    transfer_figure,
)


def main(out: Path, catalogues: list[str]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    minus = None
    if catalogues:
        matched = read_matched(catalogues)
    else:
        matched, minus = mock_matched(5000, shear=(0.02, 0.0)), mock_matched(5000, shear=(-0.02, 0.0))

    # What fraction is found. A table is an astropy Table: units, descriptions, and a sentence in its meta.
    efficiency = efficiency_tables(matched)
    model = detection_model(matched)
    print(model.note)
    print(model.table()["parameter", "value", "low", "high", "unit"])
    save_svg(out / "efficiency.svg", efficiency_figure(efficiency, "What is detected", model))
    efficiency[f"true {matched.band} magnitude"].write(out / "efficiency.ecsv", overwrite=True)

    clear = matched.clear
    sky = efficiency_map(matched.number("true_ra")[clear], matched.number("true_dec")[clear], matched.detected[clear])
    write_map(out / "efficiency_map.fits", sky)
    save_svg(out / "map.svg", map_figure(sky, "Fraction detected"))

    rows = input_row_table(matched)
    print(rows.meta["note"])
    save_svg(out / "input_rows.svg", input_row_figure(rows, "Input rows"))

    # How what is measured relates to the truth, and whether its errors are right.
    for name, panels in transfer_tables(matched).items():
        save_svg(out / f"{name}.svg", transfer_figure(panels, f"Measured and true: {name}"))
    pulls = pull_tables(matched)
    for kind in ("galaxies", "stars"):
        save_svg(out / f"pulls_{kind}.svg", pull_figure(pulls, f"Pulls of {kind}", kind=kind))
    classes = class_table(matched)
    print(classes.meta["note"])
    save_svg(out / "classes.svg", confusion_figure(classes, "Stars and galaxies"))

    # How shapes respond to shear.
    response = metacal_table(matched)
    print(response.meta["note"])
    save_svg(out / "response.svg", response_figure(response, "Metacal response"))
    if minus is not None:
        bias = shear_bias_table(matched, minus)
        print(bias.meta["note"])
        save_svg(out / "bias.svg", bias_figure(bias, "Shear bias of the pair"))


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), sys.argv[2:])
