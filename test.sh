#!/bin/sh
# Install warpwise with what its tests need, and run them in two processes: ./test.sh [pytest options]; -n 0 for one.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
"$here/tools/install.sh" dev
cd "$here"
exec .venv/bin/python -m pytest -n 2 --dist worksteal "$@"
