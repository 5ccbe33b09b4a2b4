#!/usr/bin/env bash
# Creates a virtual environment and builds the documentation in docs/ as docs/_build/html. Warnings are errors.
#   launch/docs.sh
#   launch/docs.sh --links    also checks the links to other sites (needs the network)
set -euo pipefail
cd "$(dirname "$0")/.."
if [[ $# -gt 0 && "$*" != --links ]]; then
  echo "error: $*: unknown option of launch/docs.sh; expected --links or nothing" >&2 && exit 2
fi
source launch/environment.sh '[docs]'
python -m sphinx -W --keep-going -n -b html docs docs/_build/html
if [[ $# -gt 0 ]]; then python -m sphinx -W --keep-going -n -b linkcheck docs docs/_build/links; fi
echo "built: docs/_build/html/index.html"
