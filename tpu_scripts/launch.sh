#!/usr/bin/env bash
# Start (or go on with) the training on all workers.
#
# usage: launch.sh [--dry_run] [-- FLAG...]
#
#   --dry_run   print every command, run none
#   -- FLAG...  further flags of eijax.train, after TRAIN_FLAGS
#
# Every worker gets the same command and finds the others by itself. The run is a service of each machine: it goes on when this script
# has ended, and saves at SIGTERM when the machine is taken back; the same command goes on with it.
# Settings: PROJECT ZONE TPU_NAME RUN TRAIN_FLAGS SIMULATOR_KEYS_SECRET.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

read_arguments "$@"
no_arguments
need_tpu
need RUN
refuse_keys
on_workers all "bash eijax/tpu_scripts/worker.sh start $UNIT $(quoted "${SIMULATOR_KEYS_SECRET:--}") $(train_words)"
