#!/usr/bin/env bash
# RunBfd.sh <meds base> <tile> [<ncpu>]; log: bfd_<tile>.log
# The meds base may be a realization: <MEDS_DATA>/<medsconf>/balrog_images/<R>
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/balrog-environment.sh"
usage $# 2 3 "RunBfd.sh <meds base> <tile> [<ncpu>]"
MEDS_DATA="$(meds_base "${1%/}")"
export MEDS_DATA
unset MEDS_DIR
logged "bfd_$2.log" BalrogBfd.py -t "$2" ${3:+-n "$3"}
