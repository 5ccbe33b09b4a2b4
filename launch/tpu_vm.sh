#!/usr/bin/env bash
# Runs main on a Cloud TPU VM. It needs gcloud and a project with TPUs. Usage: COMMAND OPTIONS -- FLAGS OF MAIN
#   launch/tpu_vm.sh all --name=artifacts --zone=us-west4-a --spot --bucket=gs://mine/artifacts -- --config=configs/stl10.py
#     create    create the TPU VM (with --queued: request it as a queued resource, and wait for it)
#     setup     copy the committed code, install it, and copy the work directory from the bucket or mount it
#     run       start main on all workers, under nohup, in the work directory runs/NAME
#     logs      follow the log of worker 0
#     watch     until main is complete: create the VM again after a preemption, start main again after a signal
#     delete    delete the VM and its queued resource
#     all       create, setup, run and watch; keeps the VM for its logs, so delete it afterwards
# Options: --name=artifacts --zone= --type=v5litepod-8 --version=v2-alpha-tpuv5-lite --spot --queued --bucket= --nfs= --dry-run
# The disk of a preempted VM is lost. With --bucket=gs://... the work directory is copied to the bucket every --every=300 seconds, and
# back on setup. Files that the run deletes, such as older checkpoints, are deleted in the bucket, too: use one bucket folder per run.
# A slice of several hosts needs a shared work directory: --nfs=ADDRESS:/SHARE, such as a Filestore, is mounted on all hosts as runs/.
# --dry-run prints every command and runs none of them.
set -euo pipefail
cd "$(dirname "$0")/.."

name=artifacts zone='' type=v5litepod-8 version=v2-alpha-tpuv5-lite bucket='' nfs='' every=300 poll=60 spot='' queued='' dry=''
command=${1:-}
shift || true
while [[ $# -gt 0 && $1 != -- ]]; do
  case $1 in
    --name=* | --zone=* | --type=* | --version=* | --bucket=* | --nfs=* | --every=* | --poll=*) option=${1#--} && printf -v "${option%%=*}" %s "${option#*=}" ;;
    --spot) spot=--spot ;;
    --queued) queued=1 ;;
    --dry-run) dry=1 ;;
    *) echo "error: $1: unknown option of launch/tpu_vm.sh; flags of main come after --" >&2 && exit 2 ;;
  esac
  shift
done
shift || true
if [[ -z $zone ]]; then echo "error: --zone= is missing; expected a zone, such as --zone=us-west4-a" >&2 && exit 2; fi

folder=artifacts_jax_run workdir=runs/$name
tpu=(gcloud compute tpus tpu-vm)
queue=(gcloud compute tpus queued-resources)

try() { # runs a command; in a dry run, prints it
  if [[ $dry ]]; then printf '%q ' "$@" && echo; else "$@"; fi
}

on() { # on WORKERS COMMAND: runs a command in the shell of these workers
  try "${tpu[@]}" ssh "$name" --zone="$zone" --worker="$1" --command="$2"
}

# The functions return explicitly after a failed command, because bash ignores `set -e` in a function whose status is tested.

create() {
  if [[ $queued ]]; then
    try "${queue[@]}" create "$name" --node-id="$name" --zone="$zone" --accelerator-type="$type" --runtime-version="$version" $spot || return
    until [[ $dry || $(state) == READY ]]; do
      case $("${queue[@]}" describe "$name" --zone="$zone" --format='value(state.state)' 2> /dev/null) in
        FAILED | SUSPEND*) echo "error: the queued resource $name was not granted; delete it and run create again" >&2 && return 1 ;;
      esac
      sleep "$poll"
    done
  else
    try "${tpu[@]}" create "$name" --zone="$zone" --accelerator-type="$type" --version="$version" $spot
  fi
}

setup() {
  local archive=${TMPDIR:-/tmp}/$name.tar.gz
  try git archive --format=tar.gz --output="$archive" HEAD || return
  try "${tpu[@]}" scp "$archive" "$name:$name.tar.gz" --zone="$zone" --worker=all || return
  on all "mkdir -p $folder && tar xzf $name.tar.gz -C $folder" || return
  on all "command -v python3.11 || (sudo apt-get update && sudo apt-get install -y python3.11 python3.11-venv)" || return
  on all "cd $folder && PYTHON=python3.11 bash -c 'source launch/environment.sh [tpu]'" || return
  if [[ $nfs ]]; then
    on all "cd $folder && mkdir -p runs && sudo apt-get install -y nfs-common && { mountpoint -q runs || sudo mount -t nfs $nfs runs; } && sudo chmod a+rwx runs" || return
  fi
  if [[ $bucket ]]; then
    on all "cd $folder && mkdir -p $workdir && if output=\$(gcloud storage ls $bucket 2>&1); then gcloud storage rsync -r $bucket $workdir; else echo \"\$output\" && [[ \$output == *'matched no objects'* ]]; fi" || return # an empty bucket folder is a new run; any other failure is an error
  fi
}

run() {
  local ended=run.status program copy="gcloud storage rsync -r --delete-unmatched-destination-objects --exclude='.*orbax-checkpoint-tmp.*' $workdir $bucket"
  if [[ $bucket ]]; then ended=run.ended; fi # becomes run.status only after the last results are in the bucket
  program="source .venv/bin/activate; python -m artifacts_jax.main --workdir=$workdir$(printf ' %q' "$@") > run.log 2>&1; echo \$? > $ended"
  on all "cd $folder && rm -f run.status run.ended && (nohup bash -c $(printf %q "$program") > /dev/null 2>&1 &)" || return
  if [[ $bucket ]]; then
    on 0 "cd $folder && (nohup bash -c $(printf %q "until [[ -f run.ended ]]; do sleep $every; $copy; done; $copy; mv run.ended run.status") > sync.log 2>&1 &)"
  fi
}

describe() {
  try "${tpu[@]}" describe "$name" --zone="$zone" --format='value(state)'
}

state() { # prints the state of the VM: READY, PREEMPTED, ..., MISSING, or UNKNOWN if gcloud failed
  local output
  if output=$(describe 2>&1); then echo "$output"
  elif [[ $output == *NOT_FOUND* ]]; then echo MISSING; else echo UNKNOWN; fi
}

status() { # prints the exit status of main on worker 0; nothing while main runs
  on 0 "cat $folder/run.status 2> /dev/null || true"
}

install_and_run() {
  setup && run "$@"
}

start() { # start FUNCTION ARGUMENTS: an error only if the VM is READY; otherwise watch creates the VM again
  "$@" || [[ $(state) != READY ]] || { echo "error: main could not be started on $name; see the messages above" >&2 && return 1; }
}

watch() {
  if [[ $dry ]]; then
    echo "# every $poll seconds:" && describe && status
    echo "# after a preemption:" && delete && create && install_and_run "$@"
    echo "# after exit status 75 or 143 of main:" && run "$@"
    return
  fi
  while true; do
    now=$(state) ended=''
    case $now in
      READY) ended=$(status 2> /dev/null) || ended='' ;;
      PREEMPTED | TERMINATED | STOPPED | MISSING)
        echo "$name is $now: creating it again"
        delete || true
        if create; then start install_and_run "$@" || return; fi # if not, the next poll tries again, when there may be capacity
        ;;
    esac
    case $ended in
      '') ;;
      0) echo "$name: main is complete" && return ;;
      75 | 143) echo "$name: main stopped after a signal; starting it again" && { start run "$@" || return; } ;;
      *)
        sleep "$poll" # if another host of the slice was preempted, the state changes soon
        if [[ $(state) == READY ]]; then
          echo "error: main ended with status $ended on $name; see launch/tpu_vm.sh logs --name=$name --zone=$zone" >&2 && return 1
        fi
        ;;
    esac
    sleep "$poll"
  done
}

delete() {
  try "${tpu[@]}" delete "$name" --zone="$zone" --quiet
  if [[ $queued ]]; then try "${queue[@]}" delete "$name" --zone="$zone" --force --quiet; fi
}

case $command in
  create | setup | delete) $command ;;
  run | watch) $command "$@" ;;
  logs) on 0 "tail -n 1000 -F $folder/run.log" ;;
  all) create && install_and_run "$@" && watch "$@" ;;
  *) sed -n '2,15s/^# \{0,1\}//p' "$0" >&2 && exit 2 ;;
esac
