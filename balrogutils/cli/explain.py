"""The command that says where a product or a number came from: ``balrog explain``."""

from __future__ import annotations

import json

import click

from balrogutils.cli.reporting import parse_overrides, reporting

__all__ = ["explain"]


@click.command()
@click.argument("targets", nargs=-1, required=True, metavar="FILE|FILE[ROW]|BAL_ID...")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with everything: every setting, every file.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a key of etc/pipeline.yaml.")
def explain(targets: tuple[str, ...], as_json: bool, overrides: tuple[str, ...]) -> None:
    """Say where a product, a row of it or an injected object came from, and whether a run would make it again.

    From the manifests: steps, inputs, configuration, versions and seeds. Rows are counted from 0. Ends with status 0
    also when it would be made again.
    """
    with reporting(None):
        from balrogutils.context import Installation
        from balrogutils.upkeep.explain import explain as work
        from balrogutils.upkeep.explaintext import in_words

        installation = Installation.load(parse_overrides(overrides))
        found = [work(installation, target) for target in targets]
        if as_json:
            click.echo(json.dumps([one.document() for one in found], indent=1))
        else:
            click.echo("\n\n".join(in_words(one) for one in found))
