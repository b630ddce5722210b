#!/usr/bin/env bash
# RunInject.sh <meds base>/<medsconf> <tile> <galsim config> <ncpu>; log: base_<tile>.log
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/balrog-environment.sh"
usage $# 4 4 "RunInject.sh <meds base>/<medsconf> <tile> <galsim config> <ncpu>"
if [ "$(basename "$1")" != "${medsconf:-y3v02}" ]; then
    echo "RunInject.sh: the first argument must end in the MEDS configuration: ${1%/}/${medsconf:-y3v02}" >&2
    exit 2
fi
MEDS_DATA="$(dirname "$(meds_base "${1%/}")")"
export MEDS_DATA
unset MEDS_DIR
logged "base_$2.log" BalrogBase.py -c meds-y3v02.yaml -t "$2" -g "$3" -n "$4" -m 8
