#!/usr/bin/env bash
# Install, then pass the tests. Arguments go to pytest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
./launch/install.sh
exec .venv/bin/python -m pytest "$@"
