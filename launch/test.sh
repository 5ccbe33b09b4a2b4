#!/usr/bin/env bash
# Creates a virtual environment and runs the checks: ruff, the import order of the subpackages, then pytest with the arguments.
#   launch/test.sh                     the fast tests
#   launch/test.sh --changed           the fast tests that uncommitted changes affect
#   launch/test.sh -m 'not nightly'    the fast and the slow tests, as in continuous integration
#   launch/test.sh -m nightly          the longest tests
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/environment.sh '[test]'
ruff check .
ruff format --check .
lint-imports --no-cache --no-logo
exec python -m pytest -n 2 "$@"
