#!/bin/sh
# Finds a Python 3.11 and hands over to setup_env.py. The variable PYTHON names another one.
set -eu
cd "$(dirname "$0")/.."

is_python_311() {
    "$1" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null
}

if [ -n "${PYTHON:-}" ]; then
    if is_python_311 "$PYTHON"; then exec "$PYTHON" tools/setup_env.py "$@"; fi
    echo "error[69]: PYTHON=$PYTHON is not a Python 3.11; name the path of a Python 3.11, or leave PYTHON unset" >&2
    exit 69
fi
for candidate in python3.11 python3; do
    if is_python_311 "$candidate"; then exec "$candidate" tools/setup_env.py "$@"; fi
done
echo "error[69]: no Python 3.11 found on PATH; install python3.11 with its venv and headers" \
     "(Debian, Ubuntu: python3.11-venv python3.11-dev), or name one: make setup PYTHON=/path/to/python3.11" >&2
exit 69
