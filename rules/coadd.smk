# Blocks 2 and 16: band coadds, the detection image, joined PSF maps, catalogues; the base run and realizations alike.

if RUN.has(2, 16):

    rule coadd:
        input:
            RUN.needs("coadd"),
        output:
            RUN.made("coadd"),
        log:
            RUN.log("coadd"),
        wildcard_constraints:
            band=r"(?!(?:det|all)\b)[A-Za-z0-9]+",
            where=RUN.where(2, 16),
        priority: 3
        resources:
            **RUN.resources("coadd"),
        params:
            options=RUN.options("coadd"),
            realization=RUN.realization,
        shell:
            "balrog coadd {wildcards.tile:q} {params.realization} --band {wildcards.band} --log {log:q} {params.options}"

    rule detection:
        input:
            RUN.needs("coadd", band="det"),
        output:
            RUN.made("coadd", band="det"),
        log:
            RUN.log("coadd", band="det"),
        wildcard_constraints:
            where=RUN.where(2, 16),
        priority: 4
        resources:
            **RUN.resources("coadd"),
        params:
            options=RUN.options("coadd", band="det"),
            realization=RUN.realization,
        shell:
            "balrog detect {wildcards.tile:q} {params.realization} --image-only --log {log:q} {params.options}"

    # By itself, so that a band which is added does not have the detection image made again.
    rule psf_maps:
        input:
            RUN.needs("coadd", band="all"),
        output:
            RUN.made("coadd", band="all"),
        log:
            RUN.log("coadd", band="all"),
        wildcard_constraints:
            where=RUN.where(2, 16),
        resources:
            **RUN.resources("coadd all"),
        params:
            options=RUN.options("coadd", band="all"),
            realization=RUN.realization,
        shell:
            "balrog detect {wildcards.tile:q} {params.realization} --maps-only --log {log:q} {params.options}"

    rule catalog:
        input:
            RUN.needs("catalog"),
        output:
            RUN.made("catalog"),
        log:
            RUN.log("catalog"),
        wildcard_constraints:
            where=RUN.where(2, 16),
        priority: 5
        resources:
            **RUN.resources("catalog"),
        params:
            options=RUN.options("catalog"),
            realization=RUN.realization,
        shell:
            "balrog detect {wildcards.tile:q} {params.realization} --band {wildcards.band} --log {log:q} {params.options}"
