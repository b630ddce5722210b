#!/usr/bin/env bash
# RunBase.sh <meds base> <tile> <galsim config> <mode> [<ncpu>, default the number of bands]; log: base_<tile>.log
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/balrog-environment.sh"
usage $# 4 5 "RunBase.sh <meds base> <tile> <galsim config> <mode> [<ncpu>]"
MEDS_DATA="$(meds_base "$1")"
export MEDS_DATA
unset MEDS_DIR
logged "base_$2.log" BalrogBase.py -c meds-y3v02.yaml -t "$2" -g "$3" -m "$4" ${5:+-n "$5"}
