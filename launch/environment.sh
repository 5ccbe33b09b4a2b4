# The other scripts source this file from the root of the repository. It creates .venv with the extras in $1 and
# activates it. A second call installs nothing, unless setup.py has changed. The environment variable PYTHON selects
# another interpreter, VENV another path.
# uv installs three times as fast as pip. pip is the fallback, for example if only pip is configured for a PyPI mirror.
VENV=${VENV:-.venv}
stamp=$VENV/installed$1
if [[ ! -f $stamp || setup.py -nt $stamp ]]; then
  [[ -x $VENV/bin/python ]] || "${PYTHON:-python3}" -m venv "$VENV"
  {
    "$VENV/bin/python" -m pip install --quiet 'uv>=0.9,<1' &&
      "$VENV/bin/python" -m uv pip install --quiet --compile-bytecode --python "$VENV/bin/python" --editable ".$1"
  } || "$VENV/bin/python" -m pip install --quiet --editable ".$1"
  touch "$stamp"
fi
source "$VENV/bin/activate"
