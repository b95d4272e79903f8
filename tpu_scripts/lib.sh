# What the scripts of this folder share. Sourced, never run.
# shellcheck shell=bash

set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
DRY_RUN=
MOUNT=/mnt/eijax
# Of systemd, on the workers.
export UNIT=eijax-train

# Bad usage: one line, status 2. Failure of a command: one line, status 1.
die() { printf 'error: %s\n' "$*" >&2; exit 2; }
fail() { printf 'error: %s\n' "$*" >&2; exit 1; }
say() { printf '%s\n' "$*" >&2; }

# Words as a shell would read them back.
quoted() { local text; text=$(printf '%q ' "$@"); printf '%s' "${text% }"; }

# Run a command; with --dry_run print it instead.
run() {
  if [ -n "$DRY_RUN" ]; then quoted "$@"; echo; return; fi
  local status=0
  "$@" || status=$?
  [ "$status" = 0 ] || fail "$(quoted "${@:1:4}") ... ended with status $status; its own message stands above"
}

# The comment at the top of the script is its help.
show_help() { sed -n '2,/^[^#]/{s/^# \{0,1\}//p}' "$0"; }

# read_arguments "$@": the flags that every script has; the rest into ARGUMENTS, what follows -- into EXTRA.
read_arguments() {
  ARGUMENTS=() EXTRA=()
  while [ $# -gt 0 ]; do
    case $1 in
      --help | -h) show_help; exit 0 ;;
      --dry_run | --dry-run) DRY_RUN=1 ;;
      --) shift; EXTRA=("$@"); break ;;
      *) ARGUMENTS+=("$1") ;;
    esac
    shift
  done
  local file=${EIJAX_TPU_SETTINGS:-$HERE/settings.env}
  [ -r "$file" ] || die "EIJAX_TPU_SETTINGS=$file cannot be read; name a copy of $HERE/settings.env"
  # shellcheck source=settings.env
  . "$file"
  [ -z "${ACCELERATOR-}" ] || check_accelerator
}

no_arguments() { [ ${#ARGUMENTS[@]} = 0 ] || die "unexpected argument ${ARGUMENTS[0]}; see --help"; }

# need NAME...: settings that must not be empty.
need() {
  local name
  for name in "$@"; do
    [ -n "${!name-}" ] || die "$name is not set; set it in ${EIJAX_TPU_SETTINGS:-$HERE/settings.env} or in the environment"
  done
}

# What an accelerator needs. Software: https://cloud.google.com/tpu/docs/runtimes (JAX).
# GKE's names: https://cloud.google.com/kubernetes-engine/docs/concepts/plan-tpus
check_accelerator() {
  local runtime
  case $ACCELERATOR in
    v6e-*) runtime=v2-alpha-tpuv6e GKE_ACCELERATOR=tpu-v6e-slice ;;
    v5p-*) runtime=v2-alpha-tpuv5 GKE_ACCELERATOR=tpu-v5p-slice ;;
    v5litepod-*) runtime=v2-alpha-tpuv5-lite GKE_ACCELERATOR=tpu-v5-lite-podslice ;;
    v4-*) runtime=tpu-ubuntu2204-base GKE_ACCELERATOR=tpu-v4-podslice ;;
    *) die "ACCELERATOR=$ACCELERATOR must be v6e-N, v5p-N, v5litepod-N or v4-N" ;;
  esac
  [[ ${ACCELERATOR##*-} =~ ^[1-9][0-9]*$ ]] || die "ACCELERATOR=$ACCELERATOR must end in a number, e.g. v5litepod-32"
  RUNTIME_VERSION=${RUNTIME_VERSION:-$runtime}
  export GKE_ACCELERATOR
}

need_program() { [ -n "$DRY_RUN" ] || command -v "$1" >/dev/null || die "$1 is not on the PATH; install it, see $2"; }

need_tpu() {
  need PROJECT ZONE TPU_NAME
  [[ $TPU_NAME =~ ^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$ ]] ||
    die "TPU_NAME=$TPU_NAME must be lower-case letters, digits and hyphens, beginning with a letter"
  need_program gcloud https://cloud.google.com/sdk/docs/install
  PLACE=("--project=$PROJECT" "--zone=$ZONE")
}

# on_workers WHICH COMMAND: a shell command on worker WHICH (all, 0, 1, ...).
on_workers() { run gcloud compute tpus tpu-vm ssh "$TPU_NAME" "${PLACE[@]}" "--worker=$1" "--command=$2"; }

# State of the queued resource, e.g. ACTIVE; empty where there is none. Fails where gcloud fails otherwise.
queued_state() {
  local out err
  err=$(mktemp)
  if out=$(gcloud compute tpus queued-resources describe "$TPU_NAME" "${PLACE[@]}" '--format=value(state.state)' 2>"$err"); then
    rm -f "$err"
    printf '%s' "$out"
  elif grep -q NOT_FOUND "$err"; then
    rm -f "$err"
  else
    cat "$err" >&2
    rm -f "$err"
    fail "the state of queued resource $TPU_NAME cannot be read; gcloud's own message stands above"
  fi
}

# The command that a worker trains with. EXTRA comes last, so that it wins.
train_words() {
  quoted --tpu "--workdir=$MOUNT/$RUN" ${TRAIN_FLAGS[@]+"${TRAIN_FLAGS[@]}"} ${EXTRA[@]+"${EXTRA[@]}"}
}

refuse_keys() {
  local word
  for word in ${TRAIN_FLAGS[@]+"${TRAIN_FLAGS[@]}"} ${EXTRA[@]+"${EXTRA[@]}"}; do
    case $word in
      *EIJAX_*_API_KEY*) die 'a key on a command line can be read by everyone on the machine; keep it in Secret Manager, see SIMULATOR_KEYS_SECRET' ;;
    esac
  done
}
