# Balrog on many images: every line of a list is a job of `balrog image`.
#
#   snakemake --cores 4 -s rules/image.smk --config images=LIST.csv [outdir=run/images]

from balrogutils.cli.images import open_list

IMAGES = open_list(config)


wildcard_constraints:
    name=r"[A-Za-z0-9][A-Za-z0-9_.+-]*",


rule images:
    default_target: True
    input:
        [str(IMAGES.manifest(name)) for name in IMAGES.words],
    output:
        str(IMAGES.report),
    localrule: True
    shell:
        "balrog images {IMAGES.file:q} --outdir {IMAGES.root:q}"


rule image:
    input:
        # One that is not there is told by the job of its image, and the others are made.
        lambda wildcards: [
            str(file)
            for file in IMAGES.inputs.get(wildcards.name, [])
            if file.is_file()
        ],
    output:
        str(IMAGES.manifest("{name}")),
    resources:
        mem_mb=2000,
    params:
        # Not in the command, which reads the list; a line that was changed makes its image again.
        words=lambda wildcards: list(IMAGES.words.get(wildcards.name, ())),
    shell:
        "balrog images {IMAGES.file:q} --outdir {IMAGES.root:q} --name {wildcards.name:q}"
