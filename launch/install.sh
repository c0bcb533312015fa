#!/usr/bin/env bash
# Install everything into .venv beside this folder, at the versions of requirements.lock; does nothing when they are there.
# Needs Python 3.11 or newer with pip, and a C++ compiler (pydensecrf2 is built from source).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${PYTHON:-python3}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "install: $("$python" -V) found, Python 3.11 or newer is needed; set PYTHON" >&2; exit 2; }
stamp=.venv/installed.sha256
wanted=$(cat requirements.lock pyproject.toml | sha256sum)
[ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ] && exit 0
[ -x .venv/bin/python ] || "$python" -m venv .venv
.venv/bin/python -m pip install --quiet uv
.venv/bin/uv pip install --quiet --compile-bytecode --python .venv/bin/python --require-hashes --requirements requirements.lock
.venv/bin/uv pip install --quiet --python .venv/bin/python --no-deps --editable .
# Compiles the kernels, which the first run would else do, and shows what this machine can do.
.venv/bin/amn doctor --try
echo "$wanted" > "$stamp"
