#!/usr/bin/env bash
# Keeps a run going on Spot TPUs, from a machine that stays: asks for a queued resource,
# runs the command on all its workers, and asks again when it was preempted.
#
#   NAME=my-run ZONE=us-east5-a TYPE=v6e-16 VERSION=v2-alpha-tpuv6e \
#     tpu_queued_resource.sh jaxrl-reason train --distributed --preset countdown \
#     --run-dir /shared/run --resume auto
set -u
: "${NAME:?}" "${ZONE:?}" "${TYPE:?}" "${VERSION:?}"
tpus=(gcloud compute tpus)
log=$(mktemp)

state() {
  "${tpus[@]}" queued-resources describe "$NAME" --zone "$ZONE" \
    --format='value(state.state)' 2>/dev/null
}

while true; do
  if [ "$(state)" != ACTIVE ]; then
    # A preempted one stays in the list, SUSPENDED, until it is deleted.
    "${tpus[@]}" queued-resources delete "$NAME" --zone "$ZONE" --force --quiet \
      2>/dev/null
    "${tpus[@]}" queued-resources create "$NAME" --node-id "$NAME" --zone "$ZONE" \
      --accelerator-type "$TYPE" --runtime-version "$VERSION" --spot || exit 1
    until [ "$(state)" = ACTIVE ]; do
      sleep "${REQUEUE_SECONDS:-60}"
    done
  fi
  "${tpus[@]}" tpu-vm ssh "$NAME" --zone "$ZONE" --worker=all \
    --command="$*; echo run-status=\$?" | tee "$log"
  if grep -q 'run-status=0$' "$log"; then
    "${tpus[@]}" queued-resources delete "$NAME" --zone "$ZONE" --force --quiet
    exit 0
  fi
  # Neither interrupted nor preempted: an error, which would come again.
  if ! grep -q 'run-status=75$' "$log" && [ "$(state)" = ACTIVE ]; then
    exit 1
  fi
  sleep "${REQUEUE_SECONDS:-60}"
done
