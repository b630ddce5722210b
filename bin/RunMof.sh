#!/usr/bin/env bash
# RunMof.sh <meds base> <tile> <mof config> <ncpu>; log: mof_<tile>.log
# The meds base may be a realization: <MEDS_DATA>/<medsconf>/balrog_images/<R>
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/balrog-environment.sh"
usage $# 4 4 "RunMof.sh <meds base> <tile> <mof config> <ncpu>"
MEDS_DATA="$(meds_base "${1%/}")"
export MEDS_DATA
unset MEDS_DIR
logged "mof_$2.log" BalrogMofMegamixer.py -c "$3" -t "$2" -n "$4"
