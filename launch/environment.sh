# Sourced by the other scripts, from the repository's root: makes .venv with the extras in $1 and activates it.
# A second call installs nothing unless setup.py has changed. PYTHON picks another interpreter, VENV another place.
# uv installs three times as fast as pip, which does it where uv cannot, as where only pip knows the mirror of PyPI.
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
