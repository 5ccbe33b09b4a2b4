"""How tests, and the runs that they start, compile: the environment is set when this is imported, before JAX.

They compile more than they compute. So most of XLA's optimisations are left out, with which the fast tests take twice
as long, and its newer emitters of code, which take longer, too. COMPILE=users compiles as users do.
"""

import importlib.util
import mmap
import os
from pathlib import Path

EMITTERS = 'xla_cpu_use_fusion_emitters'


def _knows(flag):
    """Returns whether this jaxlib has a flag of XLA's, which ends the process for one that it does not know."""
    folder = Path(importlib.util.find_spec('jaxlib').origin).parent
    for path in folder.rglob('*.so*'):
        if path.stat().st_size > 1e7:
            with path.open('rb') as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                if content.find(flag.encode()) >= 0:
                    return True
    return False


AS_USERS = os.environ.get('COMPILE') == 'users'
QUICK = [] if AS_USERS or not _knows(EMITTERS) else [f'--{EMITTERS}=false']


def xla_flags(devices: int) -> str:
    """Returns XLA_FLAGS for so many CPU devices."""
    return ' '.join([f'--xla_force_host_platform_device_count={devices}', *QUICK])


os.environ['XLA_FLAGS'] = f'{os.environ.get("XLA_FLAGS", "")} {xla_flags(int(os.environ.get("DEVICES", 4)))}'
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
if not AS_USERS:
    os.environ['JAX_DISABLE_MOST_OPTIMIZATIONS'] = '1'
