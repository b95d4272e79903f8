#!/usr/bin/env bash
# Stop the training and give the TPU back. What the run has written to the shared storage stays.
#
# usage: teardown.sh [--stop] [--yes] [--dry_run]
#
#   --stop     only stop the training: it saves and can be launched again
#   --yes      do not ask
#   --dry_run  print every command, run none
#
# Settings: PROJECT ZONE TPU_NAME.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

read_arguments "$@"
only_stop='' yes=
for argument in ${ARGUMENTS[@]+"${ARGUMENTS[@]}"}; do
  case $argument in
    --stop) only_stop=1 ;;
    --yes) yes=1 ;;
    *) die "unexpected argument $argument; see --help" ;;
  esac
done
need_tpu
if [ -z "$only_stop$yes$DRY_RUN" ]; then
  [ -t 0 ] || die "teardown.sh deletes TPU $TPU_NAME in $PROJECT; give --yes"
  read -r -p "Delete TPU $TPU_NAME in project $PROJECT, zone $ZONE? [y/N] " answer
  [ "$answer" = y ] || fail 'nothing was deleted'
fi
if [ -n "$only_stop" ]; then
  on_workers all "sudo systemctl stop $UNIT"
else
  # Deleting sends SIGTERM as well, but does not wait for the save.
  if [ -n "$DRY_RUN" ] || [ "$(queued_state)" = ACTIVE ]; then
    (on_workers all "sudo systemctl stop $UNIT") || say 'the training could not be stopped; deleting all the same'
  fi
  run gcloud compute tpus queued-resources delete "$TPU_NAME" "${PLACE[@]}" --force --quiet
fi
