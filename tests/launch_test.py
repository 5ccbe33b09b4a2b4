import os
import re
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# A mock of gcloud: it records its arguments, and prints the next line of a file of states or of exit statuses of main.
GCLOUD = """#!/usr/bin/env bash
cd "$(dirname "$0")"
echo "$*" >> calls
pop() { head -n 1 "$1"; sed -i 1d "$1"; }
case $* in
  *describe*) pop states ;;
  *"$(cat fails)"*) exit 1 ;;
  *'cat '*run.status*) pop statuses ;;
esac
"""

# A mock of gcloud that runs commands and copies files; its own folder is the disk of the VM.
VM = """#!/usr/bin/env bash
for argument; do
  case $argument in --command=*) cd "$(dirname "$0")" && exec bash -c "${argument#--command=}" ;; esac
done
case $* in
  *scp*) tar czf "$(dirname "$0")/${6#*:}" --files-from=/dev/null ;;
  *'storage rsync'*)
    for argument; do [[ $argument != --exclude=* ]] || excluded=${argument#--exclude=}; done
    from=${*: -2:1} to=${*: -1}
    rm -rf "$to" && cp -r "$from" "$to" && find "$to" -regex "$excluded" -delete ;;
  *'storage ls'*) cat "$(dirname "$0")/output" && exit 1 ;;
esac
"""


def tpu_vm(*arguments, path=None):
    environment = {**os.environ, 'PATH': f'{path}:{os.environ["PATH"]}'} if path else None
    command = [ROOT / 'launch' / 'tpu_vm.sh', *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)


def test_dry_run_prints_every_command_and_needs_no_gcloud():
    options = ['--name=a', '--zone=z', '--type=v5litepod-8', '--spot', '--queued', '--bucket=gs://b/c', '--dry-run']
    run = tpu_vm('all', *options, '--', '--config=configs/stl10.py', "--config.stages=('autoencoder',)")
    assert run.returncode == 0
    lines = run.stdout.splitlines()
    create = 'gcloud compute tpus queued-resources create a --node-id=a --zone=z --accelerator-type=v5litepod-8'
    ssh = 'gcloud compute tpus tpu-vm ssh a --zone=z --worker='
    setup = ['git archive', 'gcloud compute tpus tpu-vm scp', *[f'{ssh}all'] * 4]
    run_main = [f'{ssh}all', f'{ssh}0']
    delete = ['gcloud compute tpus tpu-vm delete a', 'gcloud compute tpus queued-resources delete a']
    look = ['# every 60 seconds:', 'gcloud compute tpus tpu-vm describe a', f'{ssh}0']
    again = ['# after a preemption:', *delete, create, *setup, *run_main, '# after exit status 75', *run_main]
    begins = [create, *setup, *run_main, *look, *again]
    assert len(lines) == len(begins)
    for line, begin in zip(lines, begins):
        assert line.startswith(begin)
    assert lines[0].rstrip().endswith('--spot')
    assert '--config=configs/stl10.py' in lines[7]
    assert 'stages' in lines[7]
    assert 'rsync' in lines[6]
    assert 'rsync' in lines[8]
    assert 'run.status' in lines[11]
    run = tpu_vm('delete', *options)
    assert [line.rstrip().split(' --')[0] for line in run.stdout.splitlines()] == delete


def test_dry_run_of_create_setup_and_logs_without_a_queued_resource():
    options = ['--name=a', '--zone=z', '--nfs=10.0.0.2:/runs', '--dry-run']
    create, mount, log = (tpu_vm(command, *options).stdout for command in ('create', 'setup', 'logs'))
    assert create.startswith('gcloud compute tpus tpu-vm create a --zone=z --accelerator-type=v5litepod-8 --version=')
    assert 'mount\\ -t\\ nfs\\ 10.0.0.2:/runs\\ runs' in mount
    assert '--worker=0' in log
    assert 'run.log' in log


@pytest.fixture
def gcloud(tmp_path):
    """Writes the mock of gcloud and its answers; returns the folder to add to PATH."""
    (tmp_path / 'gcloud').write_text(GCLOUD)
    (tmp_path / 'gcloud').chmod(0o755)

    def answers(states, statuses, fails='nothing'):
        for name, lines in (('states', states), ('statuses', statuses), ('fails', [fails])):
            (tmp_path / name).write_text(''.join(f'{line}\n' for line in lines))
        (tmp_path / 'calls').write_text('')
        return tmp_path

    return answers


def test_watch_creates_a_preempted_vm_again_and_starts_main_again_after_a_signal(gcloud):
    folder = gcloud(['READY', 'PREEMPTED', 'STARTING', 'READY', 'READY', 'READY'], ['', '', '75', '0'])
    run = tpu_vm('watch', '--name=a', '--zone=z', '--spot', '--poll=0', '--', '--config=configs/demo.py', path=folder)
    assert run.returncode == 0, run.stderr
    assert run.stdout.count('creating it again') == 1
    assert run.stdout.count('starting it again') == 1
    assert 'a: main is complete' in run.stdout
    calls = (folder / 'calls').read_text()
    assert calls.count('tpu-vm delete a') == calls.count('tpu-vm create a') == calls.count('tpu-vm scp') == 1
    assert calls.count('artifacts_jax.main') == 2
    assert calls.count('configs/demo.py') == 2


def test_watch_creates_a_slice_again_after_a_host_was_preempted(gcloud):
    folder = gcloud(['READY', 'PREEMPTED', 'PREEMPTED', 'READY'], ['134', '0'])
    run = tpu_vm('watch', '--name=a', '--zone=z', '--poll=0', '--nfs=10.0.0.2:/runs', path=folder)
    assert run.returncode == 0, run.stderr
    assert run.stdout.count('a is PREEMPTED: creating it again') == 1
    mounts = [
        line for line in (folder / 'calls').read_text().splitlines() if 'mount -t nfs 10.0.0.2:/runs runs' in line
    ]
    assert len(mounts) == 1
    assert '--worker=all' in mounts[0]


def test_watch_tries_again_when_there_is_no_capacity(gcloud):
    folder = gcloud(['MISSING', 'MISSING', 'READY'], ['0'], fails='tpu-vm create')
    run = tpu_vm('watch', '--name=a', '--zone=z', '--poll=0', path=folder)
    assert run.returncode == 0, run.stderr
    calls = (folder / 'calls').read_text()
    assert calls.count('tpu-vm create a') == 2
    assert 'tpu-vm scp' not in calls


def test_a_queued_resource_that_is_not_granted_is_an_error_at_once(gcloud):
    folder = gcloud(['PROVISIONING', 'WAITING_FOR_RESOURCES', 'MISSING', 'FAILED'], [])
    run = tpu_vm('create', '--name=a', '--zone=z', '--queued', '--poll=0', path=folder)
    assert run.returncode == 1
    assert 'the queued resource a was not granted' in run.stderr


@pytest.mark.parametrize(('output', 'status'), [('matched no objects', 0), ('could not be reached', 1)])
def test_an_unreadable_bucket_is_an_error_but_an_empty_one_is_not(tmp_path, output, status):
    (tmp_path / 'gcloud').write_text(VM)
    (tmp_path / 'output').write_text(output)
    (tmp_path / 'gcloud').chmod(0o755)
    (tmp_path / 'artifacts_jax_run' / 'launch').mkdir(parents=True)
    (tmp_path / 'artifacts_jax_run' / 'launch' / 'environment.sh').touch()
    run = tpu_vm('setup', '--name=a', '--zone=z', '--bucket=gs://b/c', path=tmp_path)
    assert run.returncode == status, run.stderr


@pytest.mark.parametrize('fails', ['tpu-vm scp', 'environment.sh', 'nohup'])
def test_failing_to_start_main_is_an_error_at_once(gcloud, fails):
    folder = gcloud(['PREEMPTED', 'READY'], [], fails=fails)
    run = tpu_vm('watch', '--name=a', '--zone=z', '--poll=0', path=folder)
    assert run.returncode == 1
    assert 'main could not be started on a' in run.stderr
    assert fails in (folder / 'calls').read_text().splitlines()[-2]  # the last call only reads the state


def test_the_exit_status_appears_after_the_last_copy_to_the_bucket(tmp_path):
    (tmp_path / 'gcloud').write_text(VM)
    (tmp_path / 'gcloud').chmod(0o755)
    folder, bucket = tmp_path / 'artifacts_jax_run', tmp_path / 'bucket'
    for path in (folder / '.venv' / 'bin', folder / 'runs' / 'a', bucket):
        path.mkdir(parents=True)
    (bucket / 'deleted_by_the_run').touch()
    (folder / 'runs' / 'a' / '8.orbax-checkpoint-tmp-1').touch()
    main = 'python() { sleep 0.5; echo 75 > runs/a/results.txt; return 75; }'
    (folder / '.venv' / 'bin' / 'activate').write_text(main)
    run = tpu_vm('run', '--name=a', '--zone=z', f'--bucket={bucket}', '--every=1', path=tmp_path)
    assert run.returncode == 0, run.stderr
    end = time.monotonic() + 30
    while not (folder / 'run.status').exists():
        assert time.monotonic() < end
        time.sleep(0.05)
    assert (folder / 'run.status').read_text() == '75\n'
    assert (bucket / 'results.txt').read_text() == '75\n'
    assert [path.name for path in bucket.iterdir()] == ['results.txt']


def test_watch_ends_with_an_error_of_main(gcloud):
    folder = gcloud(['READY', 'READY'], ['1'])
    run = tpu_vm('watch', '--name=a', '--zone=z', '--poll=0', path=folder)
    assert run.returncode == 1
    assert 'main ended with status 1 on a; see launch/tpu_vm.sh logs --name=a --zone=z' in run.stderr


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['create'], '--zone= is missing'),
        (['create', '--zone=z', '--spto'], '--spto: unknown option'),
        (['bogus', '--zone=z'], 'Runs main on a Cloud TPU VM'),
    ],
)
def test_user_errors(arguments, message):
    run = tpu_vm(*arguments)
    assert run.returncode == 2
    assert message in run.stderr


def slurm(*arguments, **environment):
    command = [ROOT / 'launch' / 'slurm.sh', *arguments]
    environment = {**os.environ, **environment}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)


def test_slurm_submits_itself_with_the_options_before_the_dashes():
    main = ['--config=configs/stl10.py', '--workdir=runs/stl10']
    run = slurm('--nodes=2', '--gpus-per-node=8', '--dry-run', '--', *main)
    assert run.returncode == 0
    install, submit = run.stdout.splitlines()
    assert install == "source launch/environment.sh '[cuda]'"
    assert submit.split() == ['sbatch', '--nodes=2', '--gpus-per-node=8', 'launch/slurm.sh', *main]
    run = slurm('--gpus=8', '--', '--config=configs/stl10.py')
    assert run.returncode == 2
    assert 'main needs --config= and --workdir=' in run.stderr


@pytest.mark.parametrize(('extra', 'installed'), [('cuda', '[cuda]'), ('tpu', '[tpu]'), ('cpu', '')])
def test_slurm_installs_the_selected_extra(extra, installed):
    run = slurm('--dry-run', f'--extra={extra}', '--', '--config=configs/stl10.py', '--workdir=runs/stl10')
    install, submit = run.stdout.splitlines()
    assert install == f"source launch/environment.sh '{installed}'"
    assert '--extra' not in submit
    run = slurm('--dry-run', '--extra=gpu', '--', '--config=configs/stl10.py', '--workdir=runs/stl10')
    assert run.returncode == 2
    assert '--extra=gpu: unknown extra; expected --extra=cuda, --extra=tpu or --extra=cpu' in run.stderr


@pytest.mark.parametrize(
    ('status', 'requeued'), [(0, False), (1, False), (75, True), (143, True), (138, True), (129, True), (130, False)]
)
def test_slurm_queues_a_job_again_after_a_signal(tmp_path, status, requeued):
    (tmp_path / '.venv' / 'bin').mkdir(parents=True)
    (tmp_path / '.venv' / 'bin' / 'activate').write_text('')
    for name, ends in (('srun', status), ('scontrol', 0)):
        (tmp_path / name).write_text(f'#!/usr/bin/env bash\necho "{name} $*" >> calls\nexit {ends}\n')
        (tmp_path / name).chmod(0o755)
    path = f'{tmp_path}:{os.environ["PATH"]}'
    run = slurm('--config=c', '--workdir=w', SLURM_JOB_ID='7', SLURM_SUBMIT_DIR=str(tmp_path), PATH=path, VENV='.venv')
    assert run.returncode == (0 if requeued else status)
    calls = (tmp_path / 'calls').read_text().splitlines()
    assert (
        calls
        == ['srun --cpus-per-task=1 python -m artifacts_jax.main --config=c --workdir=w']
        + ['scontrol requeue 7'] * requeued
    )


def test_what_the_container_copies_is_there_and_not_ignored():
    copies = re.findall(r'^COPY (.+) \S+$', (ROOT / 'launch' / 'Dockerfile').read_text(), flags=re.MULTILINE)
    sources = {source for line in copies for source in line.split()}
    admitted = re.findall(r'^!(.+)$', (ROOT / '.dockerignore').read_text(), flags=re.MULTILINE)
    assert sources == {*admitted}
    assert all((ROOT / source).exists() for source in sources)


def test_continuous_integration_runs_the_oldest_jax_that_is_admitted():
    setup, workflow = (ROOT / 'setup.py').read_text(), (ROOT / '.github' / 'workflows' / 'ci.yml').read_text()
    assert re.search(r"'jax==([\d.]+)'", workflow)[1] == re.search(r"'jax>=([\d.]+),", setup)[1]
