#!/usr/bin/env bash
# Show what the training prints, and go on showing it.
#
# usage: logs.sh [--worker=N] [--no_follow] [--dry_run]
#
#   --worker=N   of worker N instead of 0; all for those of every worker
#   --no_follow  the last 200 lines, and end
#   --dry_run    print every command, run none
#
# Settings: PROJECT ZONE TPU_NAME.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

read_arguments "$@"
worker=0 follow=--follow
for argument in ${ARGUMENTS[@]+"${ARGUMENTS[@]}"}; do
  case $argument in
    --worker=*)
      worker=${argument#*=}
      [[ $worker =~ ^([0-9]+|all)$ ]] || die "$argument must be a number from 0, or all"
      ;;
    --no_follow) follow= ;;
    *) die "unexpected argument $argument; see --help" ;;
  esac
done
need_tpu
on_workers "$worker" "sudo journalctl --unit=$UNIT --output=cat --lines=200 --no-pager${follow:+ $follow}"
