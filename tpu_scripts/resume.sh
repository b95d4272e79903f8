#!/usr/bin/env bash
# Bring a run back after its TPU was taken away: remove what is left, ask again, set up, launch.
#
# usage: resume.sh [--watch] [--dry_run] [-- FLAG...]
#
#   --watch     stay, and do so again whenever it happens, until the training has ended well
#   --dry_run   print every command for a TPU that was taken away, run none
#   -- FLAG...  as for launch.sh
#
# Where the TPU is there and trains, nothing is done. Settings: those of create.sh, setup.sh and launch.sh.
# States: https://cloud.google.com/tpu/docs/queued-resources
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

read_arguments "$@"
watch=
for argument in ${ARGUMENTS[@]+"${ARGUMENTS[@]}"}; do
  [ "$argument" = --watch ] || die "unexpected argument $argument; see --help"
  watch=1
done
need_tpu
need ACCELERATOR STORAGE RUN POLL_SECS
refuse_keys
dry=${DRY_RUN:+--dry_run}

remove() { run gcloud compute tpus queued-resources delete "$TPU_NAME" "${PLACE[@]}" --force --quiet; }
launch() { "$HERE/launch.sh" ${dry:+"$dry"} -- ${EXTRA[@]+"${EXTRA[@]}"}; }
rebuild() {
  "$HERE/create.sh" ${dry:+"$dry"}
  "$HERE/setup.sh" ${dry:+"$dry"}
  launch
}
# What systemd says of the service on the first worker, e.g. SubState=exited and ExecMainStatus=75; empty where it cannot be asked.
unit_state() {
  gcloud compute tpus tpu-vm ssh "$TPU_NAME" "${PLACE[@]}" --worker=0 \
    "--command=systemctl show $UNIT --property=SubState,ExecMainStatus" 2>/dev/null || true
}

if [ -n "$DRY_RUN" ]; then
  remove
  rebuild
  exit
fi
while :; do
  state=$(queued_state) || exit
  case $state in
    SUSPENDED | SUSPENDING | FAILED)
      say "$TPU_NAME is $state: asking for another"
      remove
      rebuild
      ;;
    '')
      say "$TPU_NAME does not exist: asking for it"
      rebuild
      ;;
    ACTIVE)
      unit=$(unit_state | sort)
      case $unit in
        *SubState=running*) [ -n "$watch" ] || say "$TPU_NAME is there and trains: nothing to do" ;;
        *SubState=failed*)
          fail "the training on $TPU_NAME failed by itself (${unit//$'\n'/, }); see logs.sh --no_follow, mend it, then launch.sh" ;;
        *SubState=exited*)
          # Status 75: stopped by SIGTERM, or left by another worker; the same command goes on.
          if [[ $unit == *ExecMainStatus=75* ]]; then launch; else say "the training on $TPU_NAME has ended"; exit 0; fi
          ;;
        *SubState=dead*) launch ;;
        *) say "worker 0 of $TPU_NAME cannot be asked yet" ;;
      esac
      ;;
    *) say "$TPU_NAME is $state: waiting" ;;
  esac
  [ -n "$watch" ] || exit 0
  sleep "$POLL_SECS"
done
