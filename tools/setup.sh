#!/bin/sh
# Finds a Python for the stack (STACK=modern: 3.11 or 3.12, else 3.11) and hands over to setup_env.py.
# The variable PYTHON names another one.
set -eu
cd "$(dirname "$0")/.."

if [ "${STACK:-}" = modern ]; then fitting="3.11 or 3.12" names="python3.11 python3.12 python3"
else fitting="3.11" names="python3.11 python3"; fi

fits() {
    version=$("$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || return 1
    case " $fitting " in *" $version "*) return 0 ;; *) return 1 ;; esac
}

if [ -n "${PYTHON:-}" ]; then
    if fits "$PYTHON"; then exec "$PYTHON" tools/setup_env.py "$@"; fi
    echo "error[69]: PYTHON=$PYTHON is not a Python $fitting; name the path of one, or leave PYTHON unset" >&2
    exit 69
fi
for candidate in $names; do
    if fits "$candidate"; then exec "$candidate" tools/setup_env.py "$@"; fi
done
echo "error[69]: no Python $fitting found on PATH; install python3.11 with its venv and headers" \
     "(Debian, Ubuntu: python3.11-venv python3.11-dev), or name one: make setup PYTHON=/path/to/python3.11" >&2
exit 69
