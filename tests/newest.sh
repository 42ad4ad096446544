#!/usr/bin/env bash
# Run the tests with the newest release of every dependency on the newest Python: what a user gets who installs today.
#
#   tests/newest.sh short   within three minutes: everything but torch; samples, doctor and the decoding tests
#   tests/newest.sh all     torch too, as pip brings it (on Linux several GB); the whole suite
#
# Python is $NEWEST_PYTHON, else the newest that is found from 3.13 on, else that of a Debian 13 root, which
# debootstrap makes where the user is root. The environments are in .venv-newest-*, the root in .newest-root.
set -euo pipefail
cd "$(dirname "$0")/.."
mode=${1:?short or all}
root=.newest-root

find_python() {
    local candidate
    for candidate in ${NEWEST_PYTHON:-python3.15 python3.14 python3.13} \
        "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.1[3-9].*/bin/python3; do
        # A name may be a stand-in that only says where the real one would be.
        if "$candidate" -c 'import sys, venv; sys.exit(sys.version_info < (3, 13))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
}

# Names of what pyproject.toml needs, without versions; the short form does without what only training needs.
dependencies() {
    "$1" - "$2" <<'PYTHON'
import re, sys, tomllib

project = tomllib.load(open("pyproject.toml", "rb"))["project"]
names = [re.split(r"[<>=!~ ]", line)[0] for line in project["dependencies"]]
left_out = () if sys.argv[1] == "all" else ("torch", "scikit-learn", "matplotlib")
print(*(name for name in names if name not in left_out))
PYTHON
}

in_debian_root() {
    [ "$(id -u)" = 0 ] || { echo "error: no Python from 3.13 on, and only root may make a Debian root" >&2; exit 1; }
    command -v debootstrap >/dev/null || { apt-get update -qq && apt-get install -y -qq debootstrap; } >/dev/null
    if [ ! -e $root/.made ]; then
        rm -rf $root
        # The same archive as this machine's own packages come from.
        mirror=$(apt-get indextargets --format '$(REPO_URI)' | grep -v security | head -n 1)
        debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates,git,make trixie $root "$mirror" >/dev/null
        touch $root/.made
    fi
    # The network settings of this machine apply there too.
    for file in /etc/resolv.conf /etc/hosts /etc/pip.conf /etc/ssl/certs/ca-certificates.crt; do
        [ ! -e $file ] || cp --dereference $file $root$file
    done
    rm -rf $root/work && mkdir $root/work
    git ls-files -z | tar --null --files-from=- --create | tar --extract --directory=$root/work
    trap 'umount -l $root/proc $root/dev 2>/dev/null || true' EXIT
    mount -t proc proc $root/proc && mount --rbind /dev $root/dev
    chroot $root env HOME=/root NEWEST_PYTHON=python3 bash /work/tests/newest.sh "$mode"
}

python=$(find_python)
if [ -z "$python" ]; then
    in_debian_root
    exit
fi
environment=.venv-newest-$mode
"$python" -m venv "$environment"
pip="$environment/bin/python -m pip --disable-pip-version-check install --quiet --no-compile --upgrade"
$pip $(dependencies "$environment/bin/python" "$mode") pytest pytest-timeout pytest-xdist
if [ "$mode" = all ]; then
    $pip --editable '.[dev]'
else
    $pip --no-deps --editable .
fi
echo "Python $("$environment/bin/python" --version), $("$environment/bin/python" -m pip freeze | grep -iE '^(av|numpy|soundfile|torch|typer|huggingface)' | tr '\n' ' ')"
if [ "$mode" = all ]; then
    "$environment/bin/python" -m pytest --numprocesses auto --dist worksteal
else
    "$environment/bin/python" -m pytest --numprocesses auto --dist worksteal tests/test_installation.py \
        tests/audio/test_decode.py tests/audio/test_broken_files.py tests/audio/test_longer_than_header.py
fi
