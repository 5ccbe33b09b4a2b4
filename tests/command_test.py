import os
import subprocess
import sys
from pathlib import Path

import pytest

from artifacts_jax.training import report

ROOT = Path(__file__).parent.parent
DEMO = '--config=configs/demo.py'


@pytest.mark.parametrize(
    ('module', 'arguments', 'message'),
    [
        (
            'main',
            [DEMO, '--config.artifacts.drop_rat=0.5'],
            'unknown key --config.artifacts.drop_rat: the nearest is --config.artifacts.drop_rate',
        ),
        ('main', ['--config=configs/stl10.py:no_repiar'], "no variant 'no_repiar'; the nearest is 'no_repair'"),
        ('main', ['--config=configs/stl1.py'], 'configs/stl1.py does not exist; .* nearest is configs/stl10.py'),
        ('main', ['--config=configs'], 'configs is a directory'),
        ('main', ['--config='], '--config= is empty'),
        ('main', [], '--config= is missing'),
        ('main', [DEMO, '--workdir='], '--workdir is empty'),
        ('main', [DEMO, 'runs/demo'], 'unexpected arguments: runs/demo'),
        ('main', [DEMO, '--config.seed=one'], 'invalid literal for int'),
        ('main', [DEMO, '--config.augment.crop_area=0.5'], r'crop_area=\(0.5,\): must be a range'),
        ('main', [DEMO, '--processes=2'], '--processes=2 --process=None: give all three'),
        ('study', ['--config=configs/study.py', '--sedes=2'], "Unknown command line flag 'sedes'"),
        ('study', ['--config=configs/study.py', '--variants=twize'], "no variant 'twize'; the nearest is 'twice'"),
        ('figures', ['--exampels=2'], "Unknown command line flag 'exampels'. Did you mean: examples"),
        ('figures', ['--layer=conv6'], 'value should be one of <conv1|conv2|conv3|conv4|conv5>'),
        ('figures', ['--out='], '--out is empty'),
        ('figures', [], 'error: .*/run is not a work directory: .*/run/config.json does not exist'),
        ('benchmark', [DEMO, '--batch=16,x'], "--batch=16,x: 'x' is not a batch size"),
        ('benchmark', [DEMO, '--out='], '--out is empty'),
        ('main', [DEMO, '--coordinator=host', '--processes=1', '--process=0'], 'give all three, such as'),
        ('figures', ['--seed=4000000000'], 'seed=4000000000'),
        ('study', ['--config=configs/study.py', '--variants='], '--variants= is empty'),
        pytest.param(
            *(
                'tf1',
                ['--checkpoint=nowhere', '--out=x'],
                'error: .*nowhere cannot be read as a TensorFlow checkpoint ',
            ),
            marks=pytest.mark.slow,  # imports TensorFlow
        ),
        ('tf1', ['--out=x'], '--checkpoint= is missing'),
    ],
)
def test_mistakes_end_in_one_line(forks, module, arguments, message, tmp_path):
    workdir = [f'--workdir={tmp_path / "run"}'] if module in ('main', 'study', 'figures') else []
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(forks.refused(*workdir, *arguments, module=module))
    assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize(
    ('name', 'message'),
    [
        ('gs://bucket/run', 'expected a local folder, not a gs: address'),
        ('s3://bucket', 'expected a local folder, not a s3: address'),
        ('runs/lr[0.1]', r"contains '\['"),
        ('all*', r"contains '\*'"),
        ('what?', r"contains '\?'"),
        ('back\\slash', 'checkpoints in such a folder'),
        ('', 'is empty'),
        ('~nobody_of_this_name/run', 'home directory'),
        ('file', 'file.*: (File exists|Not a directory)'),
        ('file/run', 'file/run.*: Not a directory'),
        ('a' * 300, 'File name too long'),
    ],
)
@pytest.mark.parametrize('module', ['main', 'study'])
def test_a_work_directory_that_cannot_be_is_refused(forks, photograph_folder, tmp_path, module, name, message):
    (tmp_path / 'file').touch()
    (tmp_path / 'small.py').write_text(SMALL.format(folder=str(photograph_folder)))
    said = forks.refused('--config=small.py', f'--workdir={name}', module=module, cwd=tmp_path)
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(said)
    assert {path.name for path in tmp_path.iterdir()} == {'file', 'small.py'}


SMALL = """
from configs import default, variants

def get_config(variant=''):
    config = default.get_config()
    config.batch_size, config.data.size, config.data.name = 8, 16, {folder!r}
    config.model.update(
        image_size=16, encoder_widths=(4, 8, 8), widths=(4, 8, 8, 8, 8), kernels=(3,) * 5, conv1_stride=1, hidden=16
    )
    config.autoencoder.steps, config.stages = 2, ('autoencoder',)
    return variants.apply(config, variant)
"""


@pytest.mark.slow
def test_configurations_are_found_from_anywhere(forks, photograph_folder, tmp_path):
    said = forks.refused('--config=configs/demo.py', '--workdir=run', '--config.seed=-1', cwd=tmp_path)
    assert 'seed=-1' in said
    (tmp_path / 'configs').mkdir()  # of someone's own, which should not be in the way
    (tmp_path / 'configs' / 'mine.py').write_text(SMALL.format(folder=str(photograph_folder)))
    printed = forks.done('--config=configs/mine.py:no_repair', '--workdir=run', cwd=tmp_path)
    assert '\nautoencoder: 2 steps, 8 images each\n' in printed
    assert (
        "--config=run/config.json --workdir=run --config.stages=\"('artifacts', 'probe')\"" in printed.splitlines()[-1]
    )
    assert (tmp_path / 'run' / 'autoencoder' / 'export' / 'config.json').exists()
    # What a run was made with is a configuration for another.
    saved = '--config=run/config.json:history'
    said = forks.refused(saved, '--workdir=other', '--config.batch_size=6', cwd=tmp_path)
    assert 'artifacts.history=1024: must be 0 or a multiple of half the batch size, 3' in said
    forks.done('--config=run/autoencoder/export/config.json', '--workdir=run', cwd=tmp_path)


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('def get_config(:', 'SyntaxError'),
        ('import no_such_package', "No module named 'no_such_package' .*mine.py, line 1"),
        ('', "has no attribute 'get_config'"),
        ('def get_config(): return None', 'must return a ConfigDict'),
        ('def get_config(): return {"seed": 1}', 'must return a ConfigDict'),
        ('def get_config(): return 1 / 0', 'ZeroDivisionError: division by zero .*mine.py, line 1'),
        ('def get_config(): raise OSError("gone")', 'gone'),
        ('import sys\ndef get_config(): raise KeyError("gone")', "KeyError: 'gone' .*mine.py, line 2"),
        (
            'from configs import default\ndef get_config():\n c = default.get_config()\n c.steps = 3\n return c',
            'Key "steps" does not exist',
        ),
        (
            'from configs import default\ndef get_config():\n c = default.get_config().unlock()\n c.a = 3\n return c',
            'the configuration and configs/default.py have different keys: a',
        ),
    ],
)
def test_a_configuration_that_cannot_be_read_is_one_line(forks, tmp_path, text, message):
    (tmp_path / 'mine.py').write_text(text)
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(forks.refused('--config=mine.py', '--workdir=run', cwd=tmp_path))


@pytest.mark.parametrize('platform', ['cuda', 'tpu', 'nonsense'])
@pytest.mark.parametrize('module', ['main', 'benchmark'])
def test_a_device_that_is_not_there_is_one_line(forks, module, platform, tmp_path):
    workdir = [f'--workdir={tmp_path}/run'] if module == 'main' else []
    assert f'JAX_PLATFORMS={platform}' in forks.refused(DEMO, *workdir, module=module, JAX_PLATFORMS=platform)
    assert not (tmp_path / 'run').exists()


def start(*arguments, **options):
    """Returns a process of main, as a user starts it."""
    pipes = {'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE, 'text': True}
    environment = {**os.environ, 'PYTHONPATH': str(ROOT), **options}
    return subprocess.Popen([sys.executable, '-m', 'artifacts_jax.main', *arguments], env=environment, **pipes)


def test_a_script_that_calls_the_program_is_not_started_again(tmp_path):
    script = tmp_path / 'script.py'
    script.write_text(
        'print("before")\n'
        'from artifacts_jax import command\n'
        'from artifacts_jax.devices import host\n'
        'command.run(lambda: print("inside"))\n'
    )
    environment = {name: value for name, value in os.environ.items() if name != 'GLIBC_TUNABLES'}
    done = subprocess.run(
        [sys.executable, script],
        env={**environment, 'PYTHONPATH': str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == 'before\ninside\n'


@pytest.mark.slow
def test_output_that_nobody_reads_stops_training_with_its_state_saved(photograph_folder, tmp_path):
    (tmp_path / 'small.py').write_text(SMALL.format(folder=str(photograph_folder)))
    options = ['--config.autoencoder.steps=20000', '--config.log_every=1', '--config.eval_every=20000']
    process = start(f'--config={tmp_path}/small.py', f'--workdir={tmp_path}/run', *options)
    while 'autoencoder 1/' not in process.stdout.readline():
        pass
    process.stdout.close()
    assert process.wait(timeout=120) == 75
    assert process.stderr.read() == ''
    process.stderr.close()
    last = report.read_metrics(tmp_path / 'run' / 'autoencoder' / 'metrics.jsonl')[-1]['step']
    steps = [int(path.name) for path in (tmp_path / 'run' / 'autoencoder' / 'checkpoints').iterdir()]
    assert steps
    assert max(steps) >= last - 1


def test_an_encoding_that_lacks_a_character_is_no_error(tmp_path):
    environment = {**os.environ, 'PYTHONPATH': str(ROOT), 'PYTHONIOENCODING': 'ascii'}
    command = [sys.executable, '-m', 'artifacts_jax.main', '--config=bücher.py', '--workdir=run']
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith('error: --config=b?cher.py')


def test_output_that_is_closed_from_the_start_is_no_error(tmp_path):
    environment = {**os.environ, 'PYTHONPATH': str(ROOT)}
    script = f'{sys.executable} -m artifacts_jax.main --config=nowhere.py --workdir=run >&- 2>&-'
    assert subprocess.run(script, shell=True, cwd=tmp_path, env=environment, check=False).returncode == 1
