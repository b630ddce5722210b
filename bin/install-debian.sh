#!/bin/sh
# Install the Debian packages that are missing; one clear line when that may not be done here.
set -eu

missing=""
command -v source-extractor >/dev/null 2>&1 || command -v sex >/dev/null 2>&1 || missing="$missing source-extractor"
command -v SWarp >/dev/null 2>&1 || command -v swarp >/dev/null 2>&1 || missing="$missing swarp"
command -v psfex >/dev/null 2>&1 || missing="$missing psfex"
{ command -v fpack && command -v funpack; } >/dev/null 2>&1 || missing="$missing libcfitsio-bin"
"${PYTHON:-python3}" -c 'import ensurepip, venv' >/dev/null 2>&1 || missing="$missing python3-venv"
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
$run apt-get update -qq
# shellcheck disable=SC2086
$run apt-get install -y -qq --no-install-recommends $missing >/dev/null
