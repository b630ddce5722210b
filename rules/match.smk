# Block 1024: truth matched to measurement, which injections were detected, the first plots.

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
            tmpdir=RUN.tmp,
        params:
            options=RUN.options("match"),
            fits=RUN.fits,
            realization=RUN.realization,
        shell:
            "balrog match {wildcards.tile:q} {params.realization} --log {log:q} {params.fits} {params.options}"
