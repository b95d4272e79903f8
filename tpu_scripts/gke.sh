#!/usr/bin/env bash
# The same training on GKE or an XPK cluster, through kubectl's current context.
#
# usage: gke.sh secret|render|apply|logs|delete [--dry_run] [-- FLAG...]
#
#   secret      keep the EIJAX_*_API_KEY(S) of this shell's environment as a Kubernetes secret
#   render      print the manifest
#   apply       submit it; what it trained before goes on from its checkpoint
#   logs        follow the output of the first pod
#   delete      end the run; its files stay on the shared volume
#   --dry_run   print every command, run none
#   -- FLAG...  further flags of eijax.train, after TRAIN_FLAGS
#
# Settings: TPU_NAME ACCELERATOR TOPOLOGY PROVISIONING IMAGE CLAIM QUEUE KEYS_SECRET MAX_RESTARTS RUN TRAIN_FLAGS.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

read_arguments "$@"
[ ${#ARGUMENTS[@]} = 1 ] || die 'give one of secret, render, apply, logs, delete; see --help'
need TPU_NAME KEYS_SECRET
for name in TPU_NAME KEYS_SECRET; do
  [[ ${!name} =~ ^[a-z0-9]([-a-z0-9]*[a-z0-9])?$ ]] || die "$name=${!name} must be lower-case letters, digits and hyphens"
done

# A word as JSON, which is YAML.
json() {
  local text=${1//\\/\\\\}
  text=${text//\"/\\\"}
  [[ $text != *[[:cntrl:]]* ]] || die "a flag holds a control character: $(quoted "$1")"
  printf '"%s"' "$text"
}

render() {
  need ACCELERATOR TOPOLOGY IMAGE CLAIM PROVISIONING MAX_RESTARTS RUN
  refuse_keys
  [[ $TOPOLOGY =~ ^[1-9][0-9]*(x[1-9][0-9]*){1,2}$ ]] || die "TOPOLOGY=$TOPOLOGY must be AxB or AxBxC chips, e.g. 4x8"
  [[ $MAX_RESTARTS =~ ^[0-9]+$ ]] || die "MAX_RESTARTS=$MAX_RESTARTS must be a number"
  [[ $CLAIM =~ ^[a-z0-9][-.a-z0-9]*$ ]] || die "CLAIM=$CLAIM must be the name of a persistent volume claim"
  [[ $IMAGE =~ ^[-A-Za-z0-9./:_@]+$ ]] || die "IMAGE=$IMAGE must be the name of an image"
  local chips=$((${TOPOLOGY//x/*})) spot='' labels='' args='' word text
  # Hosts of a slice have four chips each. https://cloud.google.com/kubernetes-engine/docs/concepts/plan-tpus
  ((chips % 4 == 0)) || die "TOPOLOGY=$TOPOLOGY has $chips chips; use one with a multiple of four"
  case $PROVISIONING in
    spot) spot='              cloud.google.com/gke-spot: "true"' ;;
    on-demand | reserved) ;;
    *) die "PROVISIONING=$PROVISIONING must be spot, on-demand or reserved" ;;
  esac
  [ -z "$QUEUE" ] || labels="kueue.x-k8s.io/queue-name: $(json "$QUEUE")"
  # The bound is below the 15 seconds that a pod has.
  for word in --tpu "--workdir=$MOUNT/$RUN" --grace_secs=13 ${TRAIN_FLAGS[@]+"${TRAIN_FLAGS[@]}"} ${EXTRA[@]+"${EXTRA[@]}"}; do
    args+=${args:+, }$(json "$word")
  done
  text=$(<"$HERE/gke/train_jobset.yaml")
  text=${text//@NAME@/"$TPU_NAME"}
  text=${text//@LABELS@/"$labels"}
  text=${text//@MAX_RESTARTS@/"$MAX_RESTARTS"}
  text=${text//@HOSTS@/$((chips / 4))}
  text=${text//@CHIPS_PER_HOST@/4}
  text=${text//@GKE_ACCELERATOR@/"$GKE_ACCELERATOR"}
  text=${text//@TOPOLOGY@/"$TOPOLOGY"}
  text=${text//@SPOT@/"$spot"}
  text=${text//@IMAGE@/"$IMAGE"}
  text=${text//@CLAIM@/"$CLAIM"}
  text=${text//@KEYS_SECRET@/"$KEYS_SECRET"}
  text=${text//@ARGS@/"[$args]"}
  printf '%s\n' "$text"
}

kubectl_program() { need_program kubectl https://kubernetes.io/docs/tasks/tools/; }

case ${ARGUMENTS[0]} in
  render) render ;;
  apply)
    kubectl_program
    manifest=$(render)
    # A JobSet cannot be changed in place.
    run kubectl delete jobset "$TPU_NAME" --ignore-not-found
    if [ -n "$DRY_RUN" ]; then
      run kubectl apply --filename=-
    else
      printf '%s\n' "$manifest" | run kubectl apply --filename=-
    fi
    ;;
  logs)
    kubectl_program
    run kubectl logs --follow "--selector=jobset.sigs.k8s.io/jobset-name=$TPU_NAME,batch.kubernetes.io/job-completion-index=0" --tail=200
    ;;
  delete)
    kubectl_program
    run kubectl delete jobset "$TPU_NAME" --ignore-not-found
    ;;
  secret)
    kubectl_program
    # Through a pipe: not on a command line, not in a file.
    found=()
    for name in EIJAX_SIMULATOR_API_KEYS EIJAX_MODEL_API_KEY EIJAX_JUDGE_API_KEY; do
      [ -z "${!name-}" ] || found+=("$name")
    done
    [ ${#found[@]} -gt 0 ] || die 'EIJAX_SIMULATOR_API_KEYS is not set in this shell; export it first'
    run kubectl delete secret "$KEYS_SECRET" --ignore-not-found
    if [ -n "$DRY_RUN" ]; then
      run kubectl create secret generic "$KEYS_SECRET" --from-env-file=/dev/stdin
    else
      for name in "${found[@]}"; do printf '%s=%s\n' "$name" "${!name}"; done |
        run kubectl create secret generic "$KEYS_SECRET" --from-env-file=/dev/stdin
    fi
    ;;
  *) die "unknown command ${ARGUMENTS[0]}; use secret, render, apply, logs or delete" ;;
esac
