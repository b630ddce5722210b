# Block 8: what to inject where, drawing it into every chip, the truth tables.

if RUN.has(8):

    rule plan:
        input:
            RUN.needs("plan"),
        output:
            RUN.made("plan", band=None),
        log:
            RUN.log("plan", band=None),
        wildcard_constraints:
            where=RUN.where(0, 8),
        priority: 1
        resources:
            **RUN.resources("plan"),
        params:
            options=RUN.options("plan"),
            realization=RUN.realization,
        shell:
            "balrog inject {wildcards.tile:q} {params.realization} --plan-only --log {log:q} {params.options}"

    rule inject:
        input:
            RUN.needs("inject"),
        output:
            RUN.made("inject"),
        log:
            RUN.log("inject"),
        wildcard_constraints:
            where=RUN.where(0, 8),
        priority: 2
        resources:
            **RUN.resources("inject"),
        params:
            options=RUN.options("inject"),
            realization=RUN.realization,
        shell:
            "balrog inject {wildcards.tile:q} {params.realization} --band {wildcards.band} --log {log:q} {params.options}"

    rule truth:
        input:
            RUN.needs("truth"),
        output:
            RUN.made("truth", band=None),
        log:
            RUN.log("truth", band=None),
        wildcard_constraints:
            where=RUN.where(0, 8),
        priority: 2
        resources:
            **RUN.resources("truth"),
        params:
            options=RUN.options("truth"),
            realization=RUN.realization,
        shell:
            "balrog inject {wildcards.tile:q} {params.realization} --truth-only --log {log:q} {params.options}"
