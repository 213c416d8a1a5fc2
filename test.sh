#!/bin/sh
# Install warpwise with what its tests need, and run them: ./test.sh [pytest options].
set -eu
here=$(cd "$(dirname "$0")" && pwd)
"$here/tools/install.sh" dev
cd "$here"
exec .venv/bin/python -m pytest "$@"
