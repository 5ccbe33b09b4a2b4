#!/usr/bin/env bash
# Creates a virtual environment and runs the demonstration. Arguments are passed to main.
#   launch/local.sh
#   launch/local.sh --config=configs/cifar10.py --workdir=runs/cifar10
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/environment.sh ''
if [[ $# -eq 0 || "$*" != *--config=* ]]; then set -- --config=configs/demo.py "$@"; fi
if [[ "$*" != *--workdir=* ]]; then set -- --workdir=runs/demo "$@"; fi
exec python -m artifacts_jax.main "$@"
