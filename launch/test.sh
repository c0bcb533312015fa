#!/usr/bin/env bash
# Install, then pass the tests, some files at a time (-n 0: one by one). Arguments go to pytest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
./launch/install.sh
# An S3 server for the tests, apart: it needs other versions of packages that we have too.
if ! cmp -s tests/s3-server.lock .venv-s3/installed.lock; then
    .venv/bin/uv venv --quiet --clear --python .venv/bin/python .venv-s3
    .venv/bin/uv pip install --quiet --python .venv-s3/bin/python --require-hashes --requirements tests/s3-server.lock
    cp tests/s3-server.lock .venv-s3/installed.lock
fi
exec .venv/bin/python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder "$@"
