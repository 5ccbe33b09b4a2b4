#!/usr/bin/env bash
# Runs main on one or more nodes of a SLURM cluster, again and again until it is done. Options are sbatch's; what follows -- is for main.
#   launch/slurm.sh --gpus-per-node=8 --partition=gpu --time=24:00:00 -- --config=configs/stl10.py --workdir=runs/stl10
#   launch/slurm.sh --nodes=4 --gpus-per-node=8 --partition=gpu -- --config=configs/stl10.py --workdir=runs/stl10
#   launch/slurm.sh --extra=cpu --cpus-per-task=64 --time=24:00:00 -- --config=configs/cifar10.py --workdir=runs/cifar10
# Called on the login node it installs into .venv and submits itself; the nodes should see .venv and the work directory. --extra= says
# what is installed: cuda (the default), tpu or cpu. A node has one process, with all its GPUs. Two minutes before the time is up, or when the job is preempted, main saves its state; the job is queued
# again and goes on. --dry-run prints what it would do.
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
      --extra | --extra=*) echo "error: $1: give --extra=cuda, --extra=tpu or --extra=cpu" >&2 && exit 2 ;;
      *) options+=("$1") ;;
    esac
    shift
  done
  shift || true
  if [[ "$*" != *--config=* || "$*" != *--workdir=* ]]; then
    echo "error: after -- main needs --config= and --workdir=" >&2 && exit 2
  fi
  submit=(sbatch "${options[@]}" launch/slurm.sh "$@")
  if [[ $dry ]]; then
    echo "source launch/environment.sh '$extra'" && printf '%q ' "${submit[@]}" && echo && exit
  fi
  source launch/environment.sh "$extra"
  exec "${submit[@]}"
fi

cd "$SLURM_SUBMIT_DIR" # the job runs a copy of this file
source "${VENV:-.venv}/bin/activate"
status=0
srun --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" python -m artifacts_jax.main "$@" || status=$?
case $status in
  # Told to stop, and saved; or stopped outside of training, by SIGTERM, SIGHUP, SIGUSR1, SIGUSR2 or SIGXCPU.
  75 | 143 | 129 | 138 | 140 | 152) scontrol requeue "$SLURM_JOB_ID" ;;
  *) exit $status ;;
esac
