#!/usr/bin/env bash
# Install everything into .venv beside this folder, at the versions and hashes of requirements.lock; does nothing when all
# is there. PYTHON names the interpreter (default: the one of .venv, else python3).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
fail() {
    echo "install: $1" >&2
    exit 2
}

system="$(uname -s) $(uname -m)"
case $system in
    "Linux x86_64" | "Linux aarch64") ;;
    *) fail "$system found; supported is Linux on x86_64 or aarch64 (on Windows in WSL 2, on a Mac in a Linux container)" ;;
esac
getconf GNU_LIBC_VERSION >/dev/null 2>&1 || fail "no glibc found (Alpine?); the packages are built for glibc 2.28 or newer, take a Debian, Ubuntu or Red Hat image"

python=${PYTHON:-.venv/bin/python}
[ -n "${PYTHON:-}" ] || [ -x "$python" ] || python=python3
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || fail "$python does not run; set PYTHON to Python 3.11 to 3.14"
case $version in
    3.11 | 3.12 | 3.13 | 3.14) ;;
    *) fail "Python $version found ($python), 3.11 to 3.14 expected; set PYTHON to one of them" ;;
esac
stamp=.venv/installed.sha256
wanted=$(cat requirements.lock pyproject.toml launch/bootstrap.lock <(echo "$version") | sha256sum)
[ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ] && exit 0

include=$("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))')
[ -f "$include/Python.h" ] || fail "$include/Python.h is missing; install the headers of Python $version (Debian: apt-get install python$version-dev)"
command -v "${CXX:-c++}" >/dev/null || fail "no C++ compiler (${CXX:-c++}); install one (Debian: apt-get install g++)"
"$python" -c 'import venv, ensurepip' 2>/dev/null || fail "$python has no venv or no pip; install them (Debian: apt-get install python$version-venv)"

made=$(.venv/bin/python -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || true)
if [ "$made" != "$version" ]; then
    "$python" -m venv --clear .venv
elif ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
    .venv/bin/python -m ensurepip >/dev/null # the first attempt was cut short
fi
.venv/bin/python -m pip install --quiet --require-hashes --requirement launch/bootstrap.lock
# pydensecrf2 asks for a Cython that knows no Python 3.13; it builds with the one installed above.
.venv/bin/uv pip install --quiet --compile-bytecode --python .venv/bin/python --require-hashes \
    --no-build-isolation-package pydensecrf2 --build-constraints requirements.lock --requirements requirements.lock
.venv/bin/uv pip install --quiet --python .venv/bin/python --no-build-isolation --no-deps --editable .
# Compiles the kernels, which the first run would else do, and shows what this machine can do.
.venv/bin/amn doctor --try
echo "$wanted" > "$stamp"
