#!/usr/bin/env bash
# What happens on a worker; the other scripts call it over ssh, or in a pod.
#
# usage: worker.sh setup STORAGE MOUNT
#        worker.sh start UNIT SECRET TRAIN_FLAG...   as a service, which gets SIGTERM when the machine is taken back
#        worker.sh train SECRET TRAIN_FLAG...        what that service runs
#
# SECRET: name in Secret Manager of the simulator's keys; - for none. The key goes from there into the environment of one process.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=$here/.venv/bin/python

mount_storage() {
  local storage=$1 mount=$2
  mountpoint -q "$mount" && return
  sudo mkdir -p "$mount"
  case $storage in
    gs://*)
      if ! command -v gcsfuse >/dev/null; then
        # https://cloud.google.com/storage/docs/cloud-storage-fuse/install
        local repo
        repo=gcsfuse-$(lsb_release -c -s)
        curl -fsS https://packages.cloud.google.com/apt/doc/apt-key.gpg | sudo tee /usr/share/keyrings/cloud.google.asc >/dev/null
        echo "deb [signed-by=/usr/share/keyrings/cloud.google.asc] https://packages.cloud.google.com/apt $repo main" |
          sudo tee /etc/apt/sources.list.d/gcsfuse.list >/dev/null
        sudo apt-get update -qq && sudo apt-get install -y -qq gcsfuse
      fi
      sudo chown "$(id -u):$(id -g)" "$mount"
      gcsfuse --implicit-dirs "${storage#gs://}" "$mount"
      ;;
    *)
      command -v mount.nfs >/dev/null || { sudo apt-get update -qq && sudo apt-get install -y -qq nfs-common; }
      sudo mount -t nfs -o hard,vers=3 "$storage" "$mount"
      ;;
  esac
}

case ${1-} in
  setup)
    [ $# = 3 ] || { echo 'error: worker.sh setup takes STORAGE and MOUNT' >&2; exit 2; }
    mount_storage "$2" "$3"
    command -v uv >/dev/null || python3 -m pip install --quiet --user uv
    export PATH=$HOME/.local/bin:$PATH
    uv venv --quiet --clear --python 3.12 "$here/.venv"
    uv pip install --quiet --python "$python" --editable "${here}[tpu]"
    "$python" -c 'import eijax, jax; print("eijax", eijax.__version__, "jax", jax.__version__)'
    ;;
  start)
    [ $# -ge 3 ] || { echo 'error: worker.sh start takes UNIT, SECRET and flags' >&2; exit 2; }
    unit=$2
    shift 2
    if systemctl show "$unit" --property=SubState | grep -q =running; then
      echo "error: $unit runs on $(hostname) already; stop it first: teardown.sh --stop" >&2
      exit 2
    fi
    sudo systemctl stop "$unit" 2>/dev/null || true  # What a former one left, so that its status could be read.
    sudo systemctl reset-failed "$unit" 2>/dev/null || true
    # A service, not a process of this session: at a shutdown it gets SIGTERM and its time. mixed: the main process alone gets
    # the signal, so that the update under way is finished before its helpers go.
    sudo systemd-run --unit="$unit" --uid="$(id -u)" --gid="$(id -g)" --working-directory="$HOME" --setenv=HOME="$HOME" \
      --property=KillMode=mixed --property=TimeoutStopSec=30 --property=SuccessExitStatus=75 --property=RemainAfterExit=yes \
      -- bash "${BASH_SOURCE[0]}" train "$@"
    ;;
  train)
    [ $# -ge 2 ] || { echo 'error: worker.sh train takes SECRET and flags' >&2; exit 2; }
    secret=$2
    shift 2
    if [ "$secret" != - ]; then
      EIJAX_SIMULATOR_API_KEYS=$(gcloud secrets versions access latest --secret="$secret")
      export EIJAX_SIMULATOR_API_KEYS
    fi
    exec "$python" -m eijax.train "$@"
    ;;
  --help | -h) sed -n '2,/^[^#]/{s/^# \{0,1\}//p}' "$0" ;;
  *) echo "error: unknown command ${1-(none)}; use setup, start or train" >&2; exit 2 ;;
esac
