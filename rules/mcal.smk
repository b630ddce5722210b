# Block 256: metacal; the base run and realizations alike.

if RUN.has(256):

    rule mcal:
        input:
            RUN.needs("mcal"),
        output:
            RUN.made("mcal", band=None),
        log:
            RUN.log("mcal", band=None),
        wildcard_constraints:
            where=RUN.where(256, 256),
        threads: RUN.fit_workers
        resources:
            **RUN.resources("mcal"),
        params:
            options=RUN.options("mcal"),
            realization=RUN.realization,
        shell:
            "balrog mcal {wildcards.tile:q} {params.realization} --workers {threads} --log {log:q} {params.options}"
