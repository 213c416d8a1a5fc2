#!/bin/sh
# Install warpwise and run it: ./start.sh FIXED MOVING [options], or without files the demo.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
"$here/tools/install.sh" report
if [ $# -eq 0 ]; then
    exec "$here/.venv/bin/warpwise" demo --overwrite
fi
case " $* " in
    *" -o "* | *" --output "*) exec "$here/.venv/bin/warpwise" register "$@" ;;
    *) exec "$here/.venv/bin/warpwise" register "$@" -o warpwise-out ;;
esac
