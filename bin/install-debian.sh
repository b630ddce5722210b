#!/bin/sh
# Install the Debian packages that are missing; one clear line when that may not be done here.
#   install-debian.sh             what the pipeline needs
#   install-debian.sh services    the servers and the browser that the long tests start for themselves, as well
set -eu

missing=""
command -v source-extractor >/dev/null 2>&1 || command -v sex >/dev/null 2>&1 || missing="$missing source-extractor"
command -v SWarp >/dev/null 2>&1 || command -v swarp >/dev/null 2>&1 || missing="$missing swarp"
command -v psfex >/dev/null 2>&1 || missing="$missing psfex"
{ command -v fpack && command -v funpack; } >/dev/null 2>&1 || missing="$missing libcfitsio-bin"
"${PYTHON:-python3}" -c 'import ensurepip, venv' >/dev/null 2>&1 || missing="$missing python3-venv"
if [ "${1:-}" = services ]; then
    ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || missing="$missing postgresql"
    [ -x /usr/sbin/nginx ] || missing="$missing nginx"
    [ -x /usr/sbin/munged ] || missing="$missing munge"
    [ -x /usr/sbin/slurmctld ] || missing="$missing slurmctld"
    [ -x /usr/sbin/slurmd ] || missing="$missing slurmd"
    command -v sbatch >/dev/null 2>&1 || missing="$missing slurm-client"
    command -v chromium >/dev/null 2>&1 || command -v chromium-browser >/dev/null 2>&1 || missing="$missing chromium"
    command -v openssl >/dev/null 2>&1 || missing="$missing openssl"
fi
[ -z "$missing" ] && exit 0

if [ "$(id -u)" = 0 ]; then
    run=""
elif sudo -n true 2>/dev/null; then
    run="sudo -n"
else
    echo "install-debian: these Debian packages are missing and may not be installed from here; as root: apt-get install$missing" >&2
    exit 1
fi
echo "install-debian: installing$missing"
export DEBIAN_FRONTEND=noninteractive
# The tests start their own servers; Debian would start its own as soon as they are installed.
policy=/usr/sbin/policy-rc.d
if [ "${1:-}" = services ] && [ ! -e "$policy" ]; then
    trap '$run rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' | $run tee "$policy" >/dev/null
    $run chmod 755 "$policy"
fi
$run apt-get update -qq
# shellcheck disable=SC2086
$run apt-get install -y -qq --no-install-recommends $missing >/dev/null
