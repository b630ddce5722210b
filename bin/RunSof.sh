#!/usr/bin/env bash
# RunSof.sh <meds base> <tile> <sof config> <ncpu>; log: sof_<tile>.log
# The meds base may be a realization: <MEDS_DATA>/<medsconf>/balrog_images/<R>
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/balrog-environment.sh"
usage $# 4 4 "RunSof.sh <meds base> <tile> <sof config> <ncpu>"
MEDS_DATA="$(meds_base "${1%/}")"
export MEDS_DATA
unset MEDS_DIR
logged "sof_$2.log" BalrogSofMegamixer.py -c "$3" -t "$2" -n "$4"
