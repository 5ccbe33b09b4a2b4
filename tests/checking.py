"""Checks what tests call of the package against its annotations, shapes of arrays included, once this is imported.

It comes before the package: modules that are there already stay unchecked.
"""

import jaxtyping

# An int may stand for a float, as in Python's own rules for annotations.
jaxtyping.install_import_hook('artifacts_jax', 'beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))')
