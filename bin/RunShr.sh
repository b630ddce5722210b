#!/usr/bin/env bash
# RunShr.sh <meds base> <tile> <shr config> <ncpu>; log: shr_<tile>.log
# The meds base may be a realization: <MEDS_DATA>/<medsconf>/balrog_images/<R>
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/balrog-environment.sh"
usage $# 4 4 "RunShr.sh <meds base> <tile> <shr config> <ncpu>"
MEDS_DATA="$(meds_base "${1%/}")"
export MEDS_DATA
unset MEDS_DIR
logged "shr_$2.log" BalrogShrMegamixer.py -c "$3" -t "$2" -n "$4"
