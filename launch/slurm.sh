#!/usr/bin/env bash
# Runs main on one or more nodes of a SLURM cluster, and queues the job again until main is complete.
# Options before -- go to sbatch, flags after -- go to main.
#   launch/slurm.sh --gpus-per-node=8 --partition=gpu --time=24:00:00 -- --config=configs/stl10.py --workdir=runs/stl10
#   launch/slurm.sh --nodes=4 --gpus-per-node=8 --partition=gpu -- --config=configs/stl10.py --workdir=runs/stl10
#   launch/slurm.sh --extra=cpu --cpus-per-task=64 --time=24:00:00 -- --config=configs/cifar10.py --workdir=runs/cifar10
# Call it on the login node: it installs into .venv and submits itself. The nodes must share .venv and the work directory.
# --extra= selects the version of JAX to install: cuda (the default), tpu or cpu. Each node runs one process, which uses
# all GPUs of the node. Two minutes before the time limit, or when the job is preempted, main saves its state; the job is
# queued again and resumes. --dry-run prints the commands and runs none of them.
#SBATCH --job-name=artifacts --nodes=1 --ntasks-per-node=1 --cpus-per-task=16
#SBATCH --signal=TERM@120 --requeue --open-mode=append --output=%x-%j.log
set -euo pipefail

if [[ -z ${SLURM_JOB_ID:-} ]]; then
  cd "$(dirname "$0")/.."
  options=() dry='' extra='[cuda]'
  while [[ $# -gt 0 && $1 != -- ]]; do
    case $1 in
      --dry-run) dry=1 ;;
      --extra=cpu) extra='' ;;
      --extra=cuda | --extra=tpu) extra="[${1#--extra=}]" ;;
      --extra | --extra=*) echo "error: $1: unknown extra; expected --extra=cuda, --extra=tpu or --extra=cpu" >&2 && exit 2 ;;
      *) options+=("$1") ;;
    esac
    shift
  done
  shift || true
  if [[ "$*" != *--config=* || "$*" != *--workdir=* ]]; then
    echo "error: main needs --config= and --workdir= after --" >&2 && exit 2
  fi
  submit=(sbatch "${options[@]}" launch/slurm.sh "$@")
  if [[ $dry ]]; then
    echo "source launch/environment.sh '$extra'" && printf '%q ' "${submit[@]}" && echo && exit
  fi
  source launch/environment.sh "$extra"
  exec "${submit[@]}"
fi

cd "$SLURM_SUBMIT_DIR" # because SLURM runs a copy of this file in another directory
source "${VENV:-.venv}/bin/activate"
status=0
srun --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" python -m artifacts_jax.main "$@" || status=$?
case $status in
  # 75: main saved its state after a signal. The others: SIGTERM, SIGHUP, SIGUSR1, SIGUSR2 or SIGXCPU ended main outside of training.
  75 | 143 | 129 | 138 | 140 | 152) scontrol requeue "$SLURM_JOB_ID" ;;
  *) exit $status ;;
esac
