#!/usr/bin/env bash
# Put this checkout on every worker, with an environment of its own, and mount the shared storage.
#
# usage: setup.sh [--dry_run]
#
#   --dry_run   print every command, run none
#
# Run again after a change of the code: it replaces the former copy. Uncommitted changes of tracked files go along, untracked files
# do not. The images have Python 3.10, so uv brings a newer one. Settings: PROJECT ZONE TPU_NAME STORAGE.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

read_arguments "$@"
no_arguments
need_tpu
need STORAGE
case $STORAGE in
  gs://*/*) die "STORAGE=$STORAGE must be a bucket alone, e.g. gs://my-bucket; RUN names the folder in it" ;;
  gs://?* | ?*:/*) ;;
  *) die "STORAGE=$STORAGE must be gs://BUCKET or HOST:/EXPORT" ;;
esac

if [ -n "$DRY_RUN" ]; then
  archive=/tmp/eijax.tar.gz
else
  archive=$(mktemp -d)/eijax.tar.gz
  trap 'rm -rf "$(dirname "$archive")"' EXIT
fi
if [ -n "$DRY_RUN" ]; then
  printf 'git -C %q ls-files -z | tar -C %q --null --files-from=- -czf %q\n' "$HERE/.." "$HERE/.." "$archive"
else
  git -C "$HERE/.." ls-files -z | tar -C "$HERE/.." --null --files-from=- -czf "$archive" || fail 'the checkout could not be packed'
fi
run gcloud compute tpus tpu-vm scp "$archive" "$TPU_NAME:eijax.tar.gz" "${PLACE[@]}" --worker=all
on_workers all "rm -rf eijax && mkdir eijax && tar -xzf eijax.tar.gz -C eijax && bash eijax/tpu_scripts/worker.sh setup $(quoted "$STORAGE" "$MOUNT")"
