#!/usr/bin/env bash
# Starts a command again for as long as it ends with status 75:
#
#   requeue.sh jaxrl-reason train --preset countdown --run-dir runs/mine --resume auto
#
# SIGTERM to this script stops the command and the loop; Ctrl-C goes to both anyway.
set -u
stop=''
trap 'stop=1; kill -TERM "$child" 2>/dev/null' TERM
trap 'stop=1' INT HUP
while true; do
  "$@" &
  child=$!
  while true; do # a signal ends wait, not the command
    wait "$child"
    status=$?
    kill -0 "$child" 2>/dev/null || break
  done
  if [ "$status" -ne 75 ] || [ -n "$stop" ]; then
    exit "$status"
  fi
  sleep "${REQUEUE_SECONDS:-5}"
done
