# The targets: all tiles of the call, and one rule named `tile=NAME` for each. Without a tile: nothing.

if RUN.tiles:

    rule tiles:
        input:
            RUN.products(*RUN.tiles),
        localrule: True

else:

    # The Snakefile has said how; without this rule Snakemake would take the first block for its target.
    rule explain:
        localrule: True


for tile in RUN.tiles:

    rule:
        name:
            f"tile={tile}"
        input:
            RUN.products(tile),
        localrule: True
