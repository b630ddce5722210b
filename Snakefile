# Index of the workflow: the targets of this call, and the rules of every block. The logic is in balrogutils.
#
#   snakemake --cores 16 tile=DES0239+0216 [tile=...] [--config mode=63 ...]

from balrogutils.cli.workflow import open_run

RUN = open_run(config)


onstart:
    RUN.start()


onsuccess:
    RUN.end()


onerror:
    RUN.end()


wildcard_constraints:
    tile=r"[A-Za-z0-9][A-Za-z0-9.+-]*",
    where=r"|balrog_images/[0-9]+/[A-Za-z0-9_.]+/",
    band=r"[A-Za-z0-9]+",


# Every tile of the call; nothing when it names none, and then the Snakefile has said how to name one.
rule tiles:
    input:
        RUN.products(*RUN.tiles),
    localrule: True


for tile in RUN.tiles:

    rule:
        name:
            f"tile={tile}"
        input:
            RUN.products(tile),
        localrule: True


include: "rules/prep.smk"
include: "rules/coadd.smk"
include: "rules/meds.smk"
include: "rules/inject.smk"
include: "rules/sof.smk"
include: "rules/mof.smk"
include: "rules/mcal.smk"
include: "rules/bfd.smk"
include: "rules/match.smk"
