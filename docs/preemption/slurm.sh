#!/usr/bin/env bash
#SBATCH --job-name=countdown
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --time=24:00:00
#SBATCH --open-mode=append
# After a node has failed, or if this job makes room for another.
#SBATCH --requeue
# To the processes of srun, five minutes before the time is over.
#SBATCH --signal=TERM@300
set -u
srun --kill-on-bad-exit=1 jaxrl-reason train --distributed --preset countdown \
  --mesh fsdp=32 --run-dir "${RUN_DIR:-$HOME/run}" --resume auto \
  --stop.signals USR1 --stop.grace-seconds 240 "$@"
status=$?
if [ "$status" -eq 75 ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
