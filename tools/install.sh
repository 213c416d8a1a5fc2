#!/bin/sh
# Make .venv beside this checkout's README and install warpwise into it: tools/install.sh [EXTRA].
# Where the extra brings torch, that comes first and pinned, so that a CPU build is taken where one is at hand.
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
extra=${1:-}
stamp="$here/.venv/.installed-${extra:-core}"
if [ -f "$stamp" ] && [ "$stamp" -nt "$here/pyproject.toml" ]; then
    exit 0
fi
for python in ${PYTHON:-} python3 python3.13 python3.12 python3.11; do
    if command -v "$python" >/dev/null 2>&1 && "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
        found=$python
        break
    fi
done
if [ -z "${found:-}" ]; then
    echo "warpwise needs Python 3.11 or newer; set PYTHON to one." >&2
    exit 2
fi
[ -x "$here/.venv/bin/python" ] || "$found" -m venv "$here/.venv"
pip="$here/.venv/bin/python -m pip --disable-pip-version-check install --quiet"
echo "Installing warpwise into .venv …" >&2
case "$extra" in *learn* | dev) $pip "torch==2.13.0" ;; esac
if [ -n "$extra" ]; then
    $pip -e "$here[$extra]"
else
    $pip -e "$here"
fi
touch "$stamp"
echo "warpwise is in .venv/bin; to have it at hand: source .venv/bin/activate" >&2
