#!/usr/bin/env bash
# A run on this machine alone, nothing listening beyond it: launch/local.sh CONFIG [options of `amn run`]
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
[ $# -ge 1 ] || { echo "local.sh: give a configuration, for example configs/demo.yaml" >&2; exit 2; }
"$root/launch/install.sh"
export GLOO_SOCKET_IFNAME=lo NCCL_SOCKET_IFNAME=lo RAY_USAGE_STATS_ENABLED=0
exec "$root/.venv/bin/python" -m amn_dist run "$@"
