# Sourced by the Run scripts: finds the checkout and its environment, and makes a meds base absolute.

BALROG_BASE="${BALROG_BASE:-$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)}"
export BALROG_BASE
PATH="$(dirname "${BASH_SOURCE[0]}"):$PATH"
[ -x "$BALROG_BASE/.venv/bin/python" ] && PATH="$BALROG_BASE/.venv/bin:$PATH"
export PATH
# Sourced without arguments: these are the script's own.
WANTED="${1:-}"

# meds_base DIRECTORY: relative ones start above the checkout, as they always did.
meds_base() {
    case "$1" in
        '')
            echo "$(basename "$0"): the meds base is empty; name a directory" >&2
            exit 2
            ;;
        /*) printf '%s\n' "$1" ;;
        *) printf '%s\n' "$(cd "$BALROG_BASE/.." && pwd)/$1" ;;
    esac
}

# usage COUNT-GIVEN LEAST MOST TEXT
usage() {
    case "$WANTED" in -h | --help)
        echo "usage: $4"
        exit 0
        ;;
    esac
    if [ "$1" -lt "$2" ] || [ "$1" -gt "$3" ]; then
        echo "usage: $4" >&2
        exit 2
    fi
}

# logged FILE COMMAND...: the full output goes to the log, what went wrong also to the terminal; ends with the command's status.
logged() {
    log="$1"
    shift
    status=0
    # Appended to: a run that is refused must not take another's log away.
    if ! { echo "--- $(date '+%Y-%m-%d %H:%M:%S') $(basename "$0")" >>"$log"; } 2>/dev/null; then
        echo "$(basename "$0"): the log $log cannot be written; give the name of a tile, and run it in a directory of yours" >&2
        exit 2
    fi
    # In the background, so that whoever ends this script ends the run and not the script alone.
    begin=$(wc -c <"$log")
    "$@" >>"$log" 2>&1 &
    child=$!
    trap 'kill -TERM "$child" 2>/dev/null' TERM INT HUP
    wait "$child" || status=$?
    while kill -0 "$child" 2>/dev/null; do
        status=0
        wait "$child" || status=$?
    done
    if [ "$status" -ne 0 ]; then
        tail -c "+$((begin + 1))" "$log" | grep -E -A3 '^(balrog|balrogutils): ' >&2 || tail -n 20 "$log" >&2
        echo "$(basename "$0"): failed with status $status; see $log" >&2
    fi
    exit "$status"
}
