#!/usr/bin/env bash
# Ask for the TPU and wait until it is there.
#
# usage: create.sh [--no_wait] [--dry_run]
#
#   --no_wait   return once the request is in the queue
#   --dry_run   print every command, run none
#
# Settings (settings.env or environment): PROJECT ZONE TPU_NAME ACCELERATOR PROVISIONING RUNTIME_VERSION VALID_UNTIL
# SERVICE_ACCOUNT POLL_SECS. Source: https://cloud.google.com/tpu/docs/queued-resources
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

read_arguments "$@"
wait=1
for argument in ${ARGUMENTS[@]+"${ARGUMENTS[@]}"}; do
  [ "$argument" = --no_wait ] || die "unexpected argument $argument; see --help"
  wait=
done
need_tpu
need ACCELERATOR PROVISIONING POLL_SECS

command=(gcloud compute tpus queued-resources create "$TPU_NAME" "${PLACE[@]}" "--node-id=$TPU_NAME"
  "--accelerator-type=$ACCELERATOR" "--runtime-version=$RUNTIME_VERSION" --scopes=https://www.googleapis.com/auth/cloud-platform)
case $PROVISIONING in
  spot) command+=(--spot) ;;
  on-demand) ;;
  reserved) command+=(--reserved) ;;
  *) die "PROVISIONING=$PROVISIONING must be spot, on-demand or reserved" ;;
esac
[ -z "$SERVICE_ACCOUNT" ] || command+=("--service-account=$SERVICE_ACCOUNT")
[ -z "$VALID_UNTIL" ] || command+=("--valid-until-duration=$VALID_UNTIL")
run "${command[@]}"

[ -n "$wait" ] || exit 0
if [ -n "$DRY_RUN" ]; then
  run gcloud compute tpus queued-resources describe "$TPU_NAME" "${PLACE[@]}" '--format=value(state.state)'
  exit 0
fi
former=
while :; do
  state=$(queued_state) || exit
  [ "$state" = "$former" ] || say "$TPU_NAME: ${state:-not known yet}"
  former=$state
  case $state in
    ACTIVE) exit 0 ;;
    FAILED | SUSPENDED | SUSPENDING | DELETING) fail "queued resource $TPU_NAME is $state; teardown.sh removes it, then ask again" ;;
  esac
  sleep "$POLL_SECS"
done
