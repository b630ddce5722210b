# Block 64: single-object fits; the base run and realizations alike.

if RUN.has(64):

    rule sof:
        input:
            RUN.needs("sof"),
        output:
            RUN.made("sof", band=None),
        log:
            RUN.log("sof", band=None),
        wildcard_constraints:
            where=RUN.where(64, 64),
        threads: RUN.fit_workers
        resources:
            **RUN.resources("sof"),
        params:
            options=RUN.options("sof"),
            realization=RUN.realization,
        shell:
            "balrog sof {wildcards.tile:q} {params.realization} --workers {threads} --log {log:q} {params.options}"
