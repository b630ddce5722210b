# Block 128: fits of groups of neighbours; the base run and realizations alike.

if RUN.has(128):

    rule mof:
        input:
            RUN.needs("mof"),
        output:
            RUN.made("mof", band=None),
        log:
            RUN.log("mof", band=None),
        wildcard_constraints:
            where=RUN.where(128, 128),
        threads: RUN.fit_workers
        resources:
            **RUN.resources("mof"),
        params:
            options=RUN.options("mof"),
            realization=RUN.realization,
        shell:
            "balrog mof {wildcards.tile:q} {params.realization} --workers {threads} --log {log:q} {params.options}"
