#!/usr/bin/env bash
# Sets up a virtual environment and passes the checks: ruff, the order of the rooms, then pytest with any arguments given.
#   launch/test.sh                     the fast tests
#   launch/test.sh --changed           of these, those that changes affect which are not committed
#   launch/test.sh -m 'not nightly'    the fast and the slow ones, as in continuous integration
#   launch/test.sh -m nightly          the long ones
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/environment.sh '[test]'
ruff check .
ruff format --check .
lint-imports --no-cache --no-logo
exec python -m pytest -n 2 "$@"
