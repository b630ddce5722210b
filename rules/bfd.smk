# Block 512: BFD moments; the base run and realizations alike.

if RUN.has(512):

    rule bfd:
        input:
            RUN.needs("bfd"),
        output:
            RUN.made("bfd", band=None),
        log:
            RUN.log("bfd", band=None),
        wildcard_constraints:
            where=RUN.where(512, 512),
        threads: RUN.fit_workers
        resources:
            **RUN.resources("bfd"),
        params:
            options=RUN.options("bfd"),
            realization=RUN.realization,
        shell:
            "balrog bfd {wildcards.tile:q} {params.realization} --workers {threads} --log {log:q} {params.options}"
