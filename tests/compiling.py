"""How tests, and the runs that they start, compile: the environment is set when this is imported, before JAX.

They compile more than they compute. So most of XLA's optimisations are left out, with which the fast tests take twice
as long, and its newer emitters of code, which take longer, too. What is compared with other programs' numbers is jitted
with AS_USERS, which compiles as users do.
"""

import importlib.util
import mmap
import os
from pathlib import Path

EMITTERS, SPLITS = 'xla_cpu_use_fusion_emitters', 'xla_cpu_parallel_codegen_split_count'


def _knows(flag):
    """Returns whether this jaxlib has a flag of XLA's, which ends the process for one that it does not know.

    A flag is a string of C, between zeros; jaxlib 0.12 lists the names of former ones in another form.
    """
    folder = Path(importlib.util.find_spec('jaxlib').origin).parent
    for path in folder.rglob('*.so*'):
        if path.stat().st_size > 1e7:
            with path.open('rb') as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                if content.find(b'\0%b\0' % flag.encode()) >= 0:
                    return True
    return False


QUICK = {flag: value for flag, value in ((EMITTERS, 'false'), (SPLITS, '1')) if _knows(flag)}
# compiler_options of jax.jit
AS_USERS = {'xla_backend_optimization_level': 3, 'xla_llvm_disable_expensive_passes': False}
AS_USERS |= {EMITTERS: True} if EMITTERS in QUICK else {}


def xla_flags(devices: int) -> str:
    """Returns XLA_FLAGS for so many CPU devices."""
    quick = [f'--{flag}={value}' for flag, value in QUICK.items()]
    return ' '.join([f'--xla_force_host_platform_device_count={devices}', *quick])


os.environ['XLA_FLAGS'] = f'{os.environ.get("XLA_FLAGS", "")} {xla_flags(int(os.environ.get("DEVICES", 4)))}'
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
os.environ['JAX_DISABLE_MOST_OPTIMIZATIONS'] = '1'
