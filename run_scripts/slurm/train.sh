#!/usr/bin/env bash
# From the project's folder: sbatch run_scripts/slurm/train.sh experiment=stage1_vit_g trainer=ddp; many nodes: sbatch --nodes=4 …
# Two minutes before its time is over the run is saved and queued again; it goes on where it was, also after a node was lost.
#SBATCH --nodes=1 --ntasks-per-node=8 --gpus-per-node=8 --cpus-per-task=8
#SBATCH --time=24:00:00 --signal=USR1@120 --requeue --open-mode=append
set -euo pipefail
: "${SLURM_JOB_ID:?is not set: start this script with sbatch, as its first lines show}"
source "${SLURM_SUBMIT_DIR:-.}/run_scripts/_environment.sh"
RUN="${RUN:-$PWD/outputs/slurm_$SLURM_JOB_ID}" status=0  # the number stays the same when a job is queued again
if compgen -G "$RUN/checkpoints/*.ckpt" >/dev/null; then set -- "$@" "resume_from='$RUN'"; fi
srun --cpus-per-task="$SLURM_CPUS_PER_TASK" --kill-on-bad-exit=0 "$PYTHON" "$ROOT/scripts/train.py" \
  "trainer.devices=$SLURM_NTASKS_PER_NODE" "trainer.num_nodes=$SLURM_JOB_NUM_NODES" "paths.run_dir='$RUN'" "$@" || status=$?
[ "$status" -ne 138 ] || exec scontrol requeue "$SLURM_JOB_ID"  # 138: stopped by SIGUSR1 and saved
exit "$status"
