#!/bin/sh
# Installs what the system tests need from npm and PyPI into .test/ at the top of the workspace: WebSocket clients that
# are not ours, and real market data. Does nothing if that is there already. Needs node, npm and python3.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
target=$(cd "$here/../../../.." && pwd)/.test

for tool in node npm python3; do
    command -v "$tool" >/dev/null || { echo "setup.sh: $tool is missing" >&2; exit 1; }
done

# The stamp holds the pins that are installed; the tests compare it too.
pins() { cat "$here/package.json" "$here/package-lock.json" "$here/requirements.txt"; }
if pins | cmp -s - "$target/stamp"; then
    exit 0
fi

mkdir -p "$target"
rm -f "$target/stamp"
cp "$here/package.json" "$here/package-lock.json" "$target"
npm ci --prefix "$target" --ignore-scripts --no-audit --no-fund --loglevel=error
python3 -m venv --clear "$target/venv"
"$target/venv/bin/pip" install --quiet --disable-pip-version-check --requirement "$here/requirements.txt"
pins >"$target/stamp"
