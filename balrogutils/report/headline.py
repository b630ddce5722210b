"""A matched catalogue in a few sentences, and the numbers to be seen first."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from balrogutils.analysis.intervals import binomial_interval, robust
from balrogutils.analysis.likelihood import Estimate
from balrogutils.analysis.matched import Matched
from balrogutils.analysis.results import Results
from balrogutils.analysis.tables import counted
from balrogutils.report.page import Card

__all__ = ["Totals", "cards", "sentences", "totals_of"]


class Totals(NamedTuple):
    """Injections and those detected, of all and of the clear ones; and how many are stars."""

    injected: int
    detected: int
    clear: int
    clear_detected: int
    stars: int


def totals_of(matched: Matched) -> Totals:
    """Return the totals of a catalogue, or of a part of one: they add up."""
    found, clear = matched.detected, matched.clear
    counts = (len(matched), found.sum(), clear.sum(), (clear & found).sum(), matched.star.sum())
    return Totals(*(int(count) for count in counts))


def sentences(results: Results, totals: Totals | None = None) -> list[str]:
    """Return the result of a matched catalogue in sentences; the first is the headline.

    Parameters
    ----------
    results : Results
        Of the catalogue, or of a sample of it.
    totals : Totals, optional
        Of the whole catalogue, where `results` is of a sample.
    """
    matched = results.matched
    total = totals or totals_of(matched)
    if not total.injected:
        return ["Nothing was injected, so there is nothing to report."]
    model, band = results.model, matched.band
    head = f"{total.detected} of {counted(total.injected, 'injection')} detected"
    middle = model.crossing(0.5)
    if np.isfinite(middle.value):
        head += f", 50 % completeness at {band} = {_estimate(middle)}"
    out = [f"{head}."]
    out.append(
        f"{total.clear_detected} of {counted(total.clear, 'clear injection')} detected: seen well in every "
        "band, and with no original detection within the match radius."
        if total.clear
        else "No injection is clear: all lie on masked pixels, off the chips or on an original detection."
    )
    if not np.isfinite(middle.value):
        out.append(model.note)
    out += _measured(results)
    out += [f"Stars and galaxies ({kind.upper()}): {table.meta['note']}" for kind, table in results.classes.items()]
    if results.response is not None and len(results.response):
        out.append(
            f"Metacal response of {results.response['objects'][0]} galaxies, with selection: {_response(results)}."
        )
    elif results.response is not None:
        out.append(f"Metacal response: {results.response.meta['note']}")
    out += [f"Shear bias, realizations {pair}: {table.meta['note']}" for pair, table in results.bias.items()]
    return out


def cards(results: Results, totals: Totals | None = None) -> list[Card]:
    """Return the numbers to be seen first; those that are unknown are left out. Parameters as in `sentences`."""
    matched = results.matched
    whole = totals or totals_of(matched)
    total, found = whole.injected, whole.detected
    out = [Card("Injected", f"{total}", f"{whole.stars} stars, {total - whole.stars} galaxies")]
    low, high = (float(end[0]) for end in binomial_interval([found], [total]))
    remark = f"{100 * found / total:.1f} % ({100 * low:.1f} to {100 * high:.1f} %)" if total else ""
    out.append(Card("Detected", f"{found}", remark))
    if not total:
        return out
    middle = results.model.crossing(0.5)
    if np.isfinite(middle.value):
        out.append(Card(f"50 % completeness, {matched.band}", f"{middle.value:.2f} mag", _errors(middle)))
    for kind, (median, error, width) in _offsets(results).items():
        value, plus = _offset(median, error)
        remark = f"{plus}, width {width:.3f} mag".removeprefix(", ")
        out.append(Card(f"Measured − true {matched.band}, {kind}", f"{value} mag", remark))
    return out


def _measured(results: Results) -> list[str]:
    band = results.matched.band
    out = []
    for kind, (median, error, width) in _offsets(results).items():
        value = "\u00a0".join(filter(None, _offset(median, error)))
        text = f"median of measured − true {value} mag, width {width:.3f} mag."
        out.append(f"{band} magnitudes of {kind}: {text}")
    for kind, table in results.pulls.get(f"{band} flux", {}).items():
        number, widths = np.asarray(table["objects"], float), np.asarray(table["width"], float)
        use = np.isfinite(widths) & (number > 0)
        if use.any():
            mean = float(np.average(widths[use], weights=number[use]))
            out.append(f"Pulls of {band} flux of {kind}: mean width of the bins {mean:.2f}; right errors have 1.")
    return out


def _response(results: Results) -> str:
    rows = results.response if results.response is not None else []
    parts = [f"{row['element']} = {row['total']:+.2f} ± {row['total_err']:.2f}" for row in rows]
    return ", ".join(parts).replace("-", "−")


def _offsets(results: Results) -> dict[str, tuple[float, float, float]]:
    """Return median, its error and robust width of measured less true magnitude, by kind."""
    matched: Matched = results.matched
    if matched.model is None:
        return {}
    delta = matched.magnitude(matched.band) - matched.true_magnitude(matched.band)
    out = {}
    for kind, rows in (("galaxies", matched.fitted & ~matched.star), ("stars", matched.fitted & matched.star)):
        values = delta[rows & np.isfinite(delta)]
        if values.size:
            its = robust(values)
            out[kind] = (its.median, its.median_err, its.width)
    return out


def _offset(median: float, error: float) -> tuple[str, str]:
    """Return a median and its error as text, with a digit that the error leaves; no error where it is unknown."""
    places = 4 if error < 0.001 else 3
    return f"{median:+.{places}f}".replace("-", "−"), f"±\u00a0{error:.{places}f}" if np.isfinite(error) else ""


def _estimate(one: Estimate) -> str:
    """Return a value with its errors, as one where both are the same."""
    return f"{one.value:.2f}\u00a0{_errors(one)}"


def _errors(one: Estimate) -> str:
    up, down = one.high - one.value, one.value - one.low
    if not (np.isfinite(up) and np.isfinite(down)):
        return "(one side open)"
    if f"{up:.2f}" == f"{down:.2f}":
        return f"±\u00a0{up:.2f}"
    return f"+{up:.2f}\u00a0−{down:.2f}"
