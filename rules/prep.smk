# Block 1: query the archive, fetch single-epoch images, null their weights.

if RUN.has(1):

    rule prep:
        input:
            RUN.needs("prep"),
        output:
            RUN.made("prep"),
        log:
            RUN.log("prep"),
        wildcard_constraints:
            where=RUN.where(1, 0),
        resources:
            **RUN.resources("prep"),
            archive_connections=RUN.connections,
        params:
            options=RUN.options("prep"),
        shell:
            "balrog prep {wildcards.tile:q} --band {wildcards.band} --log {log:q} {params.options}"
