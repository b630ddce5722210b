# Index of the workflow: what to make, and the rules of every block. The logic is in balrogutils.
#
#   snakemake --cores 16 tile=DES0239+0216 [tile=...] [--config mode=63 ...]

from balrogutils.cli.workflow import open_run

RUN = open_run(config)


wildcard_constraints:
    tile=r"[A-Za-z0-9][A-Za-z0-9.+-]*",
    where=r"|balrog_images/[0-9]+/[A-Za-z0-9_.]+/",
    band=r"[A-Za-z0-9]+",


include: "rules/targets.smk"
include: "rules/prep.smk"
include: "rules/coadd.smk"
include: "rules/meds.smk"
include: "rules/inject.smk"
include: "rules/sof.smk"
include: "rules/match.smk"
