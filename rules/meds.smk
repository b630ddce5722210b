# Blocks 4 and 32: MEDS files; the base run and realizations alike.

if RUN.has(4, 32):

    rule meds:
        input:
            RUN.needs("meds"),
        output:
            RUN.made("meds"),
        log:
            RUN.log("meds"),
        wildcard_constraints:
            where=RUN.where(4, 32),
        priority: 6
        resources:
            **RUN.resources("meds"),
        params:
            options=RUN.options("meds"),
            realization=RUN.realization,
        shell:
            "balrog meds {wildcards.tile:q} {params.realization} --band {wildcards.band} --log {log:q} {params.options}"
