import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(
    ('module', 'arguments', 'message'),
    [
        (
            'main',
            ['--config=configs/demo.py', '--config.artifacts.drop_rat=0.5'],
            'unknown key --config.artifacts.drop_rat: the nearest is --config.artifacts.drop_rate',
        ),
        (
            'main',
            ['--config=configs/stl10.py:no_repiar'],
            "there is no variant 'no_repiar'; the nearest is 'no_repair'",
        ),
        ('main', ['--config=configs/nowhere.py'], "[Errno 2] No such file or directory: 'configs/nowhere.py'"),
        (
            'study',
            ['--config=configs/study.py', '--sedes=2'],
            "Unknown command line flag 'sedes'. Did you mean: seeds ?",
        ),
        ('figures', ['--exampels=2'], "Unknown command line flag 'exampels'. Did you mean: examples ?"),
        ('figures', ['--layer=conv6'], 'value should be one of <conv1|conv2|conv3|conv4|conv5>'),
        ('study', ['--config=configs/study.py', '--variants=twize'], "no variant 'twize'; the nearest is 'twice'"),
    ],
)
def test_mistakes_end_in_one_line(module, arguments, message, tmp_path):
    command = [sys.executable, '-m', f'artifacts_jax.{module}', f'--workdir={tmp_path / "run"}', *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith('error: ')
    assert message in done.stderr
    assert done.stderr.count('\n') == 1
    assert not (tmp_path / 'run').exists()
