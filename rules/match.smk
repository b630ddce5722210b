# Block 1024: truth matched to measurement, which injections were detected, plots; the report of the tile.

if RUN.has(1024):

    rule match:
        input:
            RUN.needs("match"),
        output:
            RUN.made("match", band=None),
        log:
            RUN.log("match", band=None),
        wildcard_constraints:
            where=RUN.where(0, 1024),
        resources:
            **RUN.resources("match"),
        params:
            options=RUN.options("match"),
            fits=RUN.fits,
            realization=RUN.realization,
        shell:
            "balrog match {wildcards.tile:q} {params.realization} --log {log:q} {params.fits} {params.options}"

    # The page is an output too, since Snakemake's own report takes nothing else; no step reads it.
    rule tile_report:
        input:
            RUN.needs("report"),
        output:
            RUN.made("report", band=None),
            report(RUN.page, category="Injections", labels={"tile": "{tile}"}),
        log:
            RUN.log("report", band=None),
        wildcard_constraints:
            where=RUN.where(1024, 0),
        resources:
            **RUN.resources("report"),
        params:
            options=RUN.options("report"),
            realizations=RUN.matched,
        shell:
            "balrog report {wildcards.tile:q} --log {log:q} {params.realizations} {params.options}"
