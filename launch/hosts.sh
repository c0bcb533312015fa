#!/usr/bin/env bash
# A Ray cluster over a list of hosts: hosts.sh up HOSTFILE | status HOSTFILE | down HOSTFILE
#
# A line of HOSTFILE: NAME [ADDRESS [ray start options]]   (# begins a comment; the first host is the head)
# NAME is what ssh understands, ADDRESS the host's own (default: NAME). Without HOSTFILE: this machine, on 127.0.0.1.
# The repository lies at the same path on all hosts. Training talks over the interface that carries ADDRESS.
# Environment: PORT (6379), SSH (ssh), STATE (folder for pids and logs, .cluster in the repository).
# Whoever holds the token ~/.ray/auth_token of this user may use the cluster; it is made if there is none.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
port=${PORT:-6379}
state=${STATE:-$root/.cluster}
read -ra ssh <<< "${SSH:-ssh}"
python=${PYTHON:-$root/.venv/bin/python}

usage() { sed -n '2,4s/^# //p' "${BASH_SOURCE[0]}" >&2; exit 2; }

# on NAME ARGUMENTS...: runs the script on standard input there. The token is not to be seen in a list of processes.
on() {
  local name=$1 there=("${ssh[@]}" "$1"); shift
  [ "$name" != 127.0.0.1 ] || there=()
  { printf 'export RAY_AUTH_MODE=token RAY_AUTH_TOKEN=%q\n' "$token"; cat; } | "${there[@]}" bash -s -- "$@"
}

start() { # NAME ADDRESS ROLE(head|worker) HEAD OPTIONS...
  on "$1" "$root" "$python" "$state" "$1" "$2" "$3" "$4" "$port" "${PYTHONPATH:-}" "${@:5}" <<'REMOTE'
set -euo pipefail
root=$1 python=$2 state=$3 name=$4 address=$5 role=$6 head=$7 port=$8 path=$9; shift 9
cd "$root"; mkdir -p "$state"
if [ -f "$state/$name.pid" ] && kill -0 "$(cat "$state/$name.pid")" 2>/dev/null; then echo "$name: is up already"; exit 0; fi
interface=$(ip -o address show 2>/dev/null | awk -v a="$address/" 'index($4, a) == 1 {print $2; exit}')
[ -z "$interface" ] || export GLOO_SOCKET_IFNAME=$interface NCCL_SOCKET_IFNAME=$interface
[ -z "$path" ] || export PYTHONPATH=$path
export RAY_USAGE_STATS_ENABLED=0 RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO=0 OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-PASSIVE}
place=(--address="$head:$port")
[ "$role" = worker ] || place=(--head --port="$port" --include-dashboard=false)
for try in 1 2 3; do
  setsid nohup "$python" -m ray.scripts.scripts start "${place[@]}" --node-ip-address="$address" --block "$@" \
    > "$state/$name.log" 2>&1 < /dev/null &
  pid=$!
  echo "$pid" > "$state/$name.pid"
  for _ in $(seq 240); do
    if grep -q "Ray runtime started" "$state/$name.log"; then echo "$name: up at $address (${interface:-any interface})"; exit 0; fi
    kill -0 "$pid" 2>/dev/null || break
    sleep 0.5
  done
  # Ray gives its processes 30 seconds, whatever else the host does.
  grep -q "timed out during startup" "$state/$name.log" || break
  kill -KILL -- "-$pid" 2>/dev/null || true
  echo "$name: Ray did not start in its 30 s (try $try of 3); is the host busy?" >&2
done
echo "$name: did not start; the end of $state/$name.log:" >&2; tail -5 "$state/$name.log" >&2; exit 1
REMOTE
}

stop() { # NAME
  on "$1" "$state" "$1" <<'REMOTE'
set -euo pipefail
file=$1/$2.pid
[ -f "$file" ] || { echo "$2: is not up"; exit 0; }
pid=$(cat "$file")
kill -TERM "$pid" 2>/dev/null || true
for _ in $(seq 60); do kill -0 "$pid" 2>/dev/null || break; sleep 0.5; done
kill -KILL -- "-$pid" 2>/dev/null || true
rm -f "$file"
echo "$2: down"
REMOTE
}

report() { # NAME HEAD ROLE
  on "$1" "$state" "$1" "$2" "$3" "$port" "$python" <<'REMOTE'
set -euo pipefail
file=$1/$2.pid
if [ -f "$file" ] && kill -0 "$(cat "$file")" 2>/dev/null; then echo "$2: up"; else echo "$2: not up"; fi
[ "$4" = worker ] || "$6" -m ray.scripts.scripts status --address="$3:$5" || true
REMOTE
}

[ $# -ge 1 ] || usage
token=$("$python" -m ray.scripts.scripts get-auth-token --generate 2>/dev/null) ||
  { echo "hosts.sh: $python has no Ray; run launch/install.sh, or set PYTHON" >&2; exit 2; }
names=() addresses=() extras=()
while read -r name address extra; do
  names+=("$name"); addresses+=("${address:-$name}"); extras+=("$extra")
done < <(if [ $# -ge 2 ]; then sed 's/#.*//; /^[[:space:]]*$/d' "$2"; else echo 127.0.0.1; fi)
[ ${#names[@]} -ge 1 ] || { echo "hosts.sh: $2 names no host" >&2; exit 2; }
head=${addresses[0]}

case $1 in
  up)
    for i in "${!names[@]}"; do
      read -ra options <<< "${extras[$i]}"
      role=worker; [ "$i" -ne 0 ] || role="head"
      start "${names[$i]}" "${addresses[$i]}" "$role" "$head" ${options[@]+"${options[@]}"}
    done
    echo "now: amn run CONFIG --address $head:$port" ;;
  status)
    for i in "${!names[@]}"; do
      role=worker; [ "$i" -ne 0 ] || role="head"
      report "${names[$i]}" "$head" "$role"
    done ;;
  down) for ((i = ${#names[@]} - 1; i >= 0; i--)); do stop "${names[$i]}"; done ;;
  *) usage ;;
esac
