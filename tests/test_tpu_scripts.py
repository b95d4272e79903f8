"""tpu_scripts/ against stub gcloud, kubectl: what they are told, what they are never told, how failures end."""

import json
import os
import pathlib
import shlex
import shutil
import subprocess
import sys

import pytest
import yaml

ROOT = pathlib.Path(__file__).resolve().parent.parent
FOLDER = ROOT / 'tpu_scripts'
SCRIPTS = ('create.sh', 'setup.sh', 'launch.sh', 'logs.sh', 'resume.sh', 'teardown.sh', 'gke.sh')
KEY = 'sk-very-secret'
# A flag that every layer of quoting between here and a worker could break.
NASTY = '--simulator_extra_body={"a b": "$(touch /tmp/x) \'`;&|\\\\"}'

STUB = '''#!{python}
import json, os, pathlib, sys
here = pathlib.Path({folder!r})
words = [os.path.basename(sys.argv[0]), *sys.argv[1:]]
stdin = sys.stdin.read() if any('/dev/stdin' in w or w == '--filename=-' for w in words) else ''
with open(here / 'calls.jsonl', 'a') as file:
  file.write(json.dumps({{'argv': words, 'stdin': stdin}}) + '\\n')
for rule in json.loads((here / 'rules.json').read_text()):
  if all(word in ' '.join(words) for word in rule['words']):
    answers = rule['answers']
    out, err, status = answers.pop(0) if len(answers) > 1 else answers[0]
    rules = json.loads((here / 'rules.json').read_text())
    next(r for r in rules if r['words'] == rule['words'])['answers'] = answers
    (here / 'rules.json').write_text(json.dumps(rules))
    print(out, end='')
    print(err, end='', file=sys.stderr)
    sys.exit(status)
'''
SETTINGS = {'PROJECT': 'p1', 'ZONE': 'us-east5-b', 'TPU_NAME': 'emo', 'ACCELERATOR': 'v6e-16', 'STORAGE': 'gs://bucket',
            'IMAGE': 'docker.io/me/eijax:1', 'CLAIM': 'shared', 'TOPOLOGY': '4x4', 'POLL_SECS': '0.01'}


class Cloud:
  """Stub programs, first on the PATH."""

  def __init__(self, folder):
    self.folder = folder
    (folder / 'bin').mkdir()
    for name in ('gcloud', 'kubectl'):
      stub = folder / 'bin' / name
      stub.write_text(STUB.format(python=sys.executable, folder=str(folder)))
      stub.chmod(0o755)
    self.answer()

  def answer(self, *rules):
    """rules: (words of the command, [(stdout, stderr, status), ...]), one answer a call, the last for ever."""
    (self.folder / 'rules.json').write_text(json.dumps([{'words': words, 'answers': answers} for words, answers in rules]))

  def run(self, script, *words, **settings):
    environment = {'PATH': f'{self.folder / "bin"}:/usr/bin:/bin', 'HOME': str(self.folder), 'TMPDIR': str(self.folder),
                   **SETTINGS, **settings}
    (self.folder / 'calls.jsonl').unlink(missing_ok=True)
    return subprocess.run(
        [str(FOLDER / script), *words], env={name: value for name, value in environment.items() if value is not None},
        capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL)

  @property
  def calls(self):
    path = self.folder / 'calls.jsonl'
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

  @property
  def argvs(self):
    return [call['argv'] for call in self.calls]


@pytest.fixture
def cloud(tmp_path):
  return Cloud(tmp_path)


def verbs(argvs):
  """queued-resources create, tpu-vm ssh, apply, ..."""
  return [' '.join(argv[3:5]) if argv[0] == 'gcloud' else argv[1] for argv in argvs]


def remote(argv):
  """The shell command that an ssh call hands to its workers."""
  return next(word.removeprefix('--command=') for word in argv if word.startswith('--command='))


def test_the_scripts_are_clean():
  shellcheck = shutil.which('shellcheck', path=f'{os.path.dirname(sys.executable)}:{os.environ["PATH"]}')
  if not shellcheck:
    pytest.skip('no shellcheck here; the extra test brings one')
  files = [*sorted(str(path) for path in FOLDER.glob('*.sh')), str(FOLDER / 'settings.env'), str(ROOT / '.ci/run')]
  result = subprocess.run([shellcheck, '-x', '-S', 'style', *files], capture_output=True, text=True, cwd=FOLDER, check=False)
  assert result.returncode == 0, result.stdout


@pytest.mark.parametrize('script', SCRIPTS)
def test_help_needs_no_setting(cloud, script):
  result = cloud.run(script, '--help', **dict.fromkeys(SETTINGS))
  assert result.returncode == 0 and f'usage: {script}' in result.stdout and '--dry_run' in result.stdout
  assert '#' not in result.stdout and not cloud.calls


@pytest.mark.parametrize('script, words', [(script, ()) for script in SCRIPTS[:-1]] + [
    ('gke.sh', ('apply',)), ('gke.sh', ('logs',)), ('gke.sh', ('delete',)), ('gke.sh', ('secret',)), ('teardown.sh', ('--stop',))])
def test_a_dry_run_prints_and_runs_nothing(cloud, script, words):
  result = cloud.run(script, *words, '--dry_run', EIJAX_SIMULATOR_API_KEYS=KEY)
  assert result.returncode == 0, result.stderr
  assert result.stdout.strip() and not cloud.calls
  for line in result.stdout.splitlines():
    assert shlex.split(line)[0] in ('gcloud', 'kubectl', 'git')
  assert KEY not in result.stdout + result.stderr


def test_a_dry_run_prints_what_a_run_does(cloud):
  cloud.answer((['describe'], [('ACTIVE', '', 0)]))
  printed = [shlex.split(line) for line in cloud.run('create.sh', '--dry_run').stdout.splitlines()]
  assert cloud.run('create.sh').returncode == 0
  assert cloud.argvs == printed


@pytest.mark.parametrize('accelerator, runtime', [
    ('v6e-16', 'v2-alpha-tpuv6e'), ('v5p-32', 'v2-alpha-tpuv5'), ('v5litepod-32', 'v2-alpha-tpuv5-lite'), ('v4-32', 'tpu-ubuntu2204-base')])
def test_create_asks_for_the_right_software(cloud, accelerator, runtime):
  assert cloud.run('create.sh', '--no_wait', ACCELERATOR=accelerator).returncode == 0
  [argv] = cloud.argvs
  assert argv[:6] == ['gcloud', 'compute', 'tpus', 'queued-resources', 'create', 'emo']
  assert {'--project=p1', '--zone=us-east5-b', '--node-id=emo', f'--accelerator-type={accelerator}', f'--runtime-version={runtime}',
          '--spot'} <= set(argv)


def test_create_on_demand_with_all_settings(cloud):
  assert cloud.run('create.sh', '--no_wait', PROVISIONING='on-demand', RUNTIME_VERSION='mine', VALID_UNTIL='6h',
                   SERVICE_ACCOUNT='a@b').returncode == 0
  [argv] = cloud.argvs
  assert {'--runtime-version=mine', '--valid-until-duration=6h', '--service-account=a@b'} <= set(argv) and '--spot' not in argv


def test_create_waits_for_the_tpu_and_says_so_once(cloud):
  cloud.answer((['describe'], [('WAITING_FOR_RESOURCES', '', 0)] * 2 + [('PROVISIONING', '', 0), ('ACTIVE', '', 0)]))
  result = cloud.run('create.sh')
  assert result.returncode == 0
  assert result.stderr.splitlines() == ['emo: WAITING_FOR_RESOURCES', 'emo: PROVISIONING', 'emo: ACTIVE']


@pytest.mark.parametrize('script, rules, words', [
    ('create.sh', [(['create'], [('', 'ERROR: quota\n', 1)])], ['quota', 'ended with status 1']),
    ('create.sh', [(['describe'], [('FAILED', '', 0)])], ['emo is FAILED; teardown.sh removes it']),
    ('create.sh', [(['describe'], [('', 'ERROR: PERMISSION_DENIED\n', 1)])], ['PERMISSION_DENIED', 'cannot be read']),
    ('setup.sh', [(['scp'], [('', 'no route\n', 255)])], ['no route', 'tpus tpu-vm ... ended with status 255']),
    ('launch.sh', [(['ssh'], [('', 'eijax-train runs already\n', 2)])], ['runs already', 'ended with status 2']),
    ('resume.sh', [(['describe'], [('', 'ERROR: auth\n', 1)])], ['auth', 'cannot be read']),
])
def test_a_command_that_fails_ends_the_script(cloud, script, rules, words):
  cloud.answer(*rules)
  result = cloud.run(script)
  assert result.returncode == 1
  assert all(word in result.stderr for word in words), result.stderr
  assert result.stderr.count('error:') == 1 and not result.stdout


@pytest.mark.parametrize('script, words, settings, message', [
    ('create.sh', (), {'PROJECT': None}, 'PROJECT is not set; set it in '),
    ('create.sh', (), {'ZONE': ''}, 'ZONE is not set'),
    ('create.sh', (), {'ACCELERATOR': 'v9-4'}, 'ACCELERATOR=v9-4 must be v6e-N, v5p-N, v5litepod-N or v4-N'),
    ('create.sh', (), {'ACCELERATOR': 'v6e-x'}, 'ACCELERATOR=v6e-x must end in a number'),
    ('create.sh', (), {'PROVISIONING': 'cheap'}, 'PROVISIONING=cheap must be spot, on-demand or reserved'),
    ('create.sh', (), {'TPU_NAME': 'Em o'}, 'TPU_NAME=Em o must be lower-case'),
    ('create.sh', ('--now',), {}, 'unexpected argument --now; see --help'),
    ('create.sh', (), {'EIJAX_TPU_SETTINGS': '/nowhere'}, 'EIJAX_TPU_SETTINGS=/nowhere cannot be read'),
    ('setup.sh', (), {'STORAGE': None}, 'STORAGE is not set'),
    ('setup.sh', (), {'STORAGE': 'gs://a/b'}, 'STORAGE=gs://a/b must be a bucket alone'),
    ('setup.sh', (), {'STORAGE': 'disk'}, 'STORAGE=disk must be gs://BUCKET or HOST:/EXPORT'),
    ('launch.sh', ('--', f'--x=EIJAX_SIMULATOR_API_KEYS={KEY}'), {}, 'a key on a command line can be read by everyone'),
    ('logs.sh', ('--worker=one',), {}, '--worker=one must be a number from 0, or all'),
    ('teardown.sh', (), {}, 'teardown.sh deletes TPU emo in p1; give --yes'),
    ('gke.sh', (), {}, 'give one of secret, render, apply, logs, delete'),
    ('gke.sh', ('start',), {}, 'unknown command start'),
    ('gke.sh', ('render',), {'IMAGE': None}, 'IMAGE is not set'),
    ('gke.sh', ('render',), {'TOPOLOGY': '4by4'}, 'TOPOLOGY=4by4 must be AxB or AxBxC chips'),
    ('gke.sh', ('render',), {'TOPOLOGY': '1x1'}, 'has 1 chips; use one with a multiple of four'),
    ('gke.sh', ('secret',), {}, 'EIJAX_SIMULATOR_API_KEYS is not set in this shell'),
])
def test_what_is_wrong_or_missing_is_one_message(cloud, script, words, settings, message):
  result = cloud.run(script, *words, **settings)
  assert result.returncode == 2
  assert result.stderr.startswith('error: ') and message in result.stderr and result.stderr.count('\n') == 1
  assert KEY not in result.stderr and not result.stdout and not cloud.calls


def test_a_program_that_is_missing_is_named(cloud):
  (cloud.folder / 'bin' / 'kubectl').unlink()
  tools = cloud.folder / 'tools'
  tools.mkdir()
  for name in ('bash', 'dirname', 'env', 'sed'):
    (tools / name).symlink_to(shutil.which(name))
  result = cloud.run('gke.sh', 'logs', PATH=str(tools))
  assert result.returncode == 2 and 'kubectl is not on the PATH; install it' in result.stderr


def test_setup_ships_the_checkout_to_every_worker(cloud):
  result = cloud.run('setup.sh')
  assert result.returncode == 0, result.stderr
  assert verbs(cloud.argvs) == ['tpu-vm scp', 'tpu-vm ssh']
  assert all('--worker=all' in argv for argv in cloud.argvs)
  assert remote(cloud.argvs[1]).endswith('bash eijax/tpu_scripts/worker.sh setup gs://bucket /mnt/eijax')
  assert not list(cloud.folder.glob('tmp*')), 'the archive is removed'


def launched(argv, folder):
  """What worker.sh would be started with, once the worker's shell has read the command."""
  command = remote(argv)
  assert command.startswith('bash eijax/tpu_scripts/worker.sh start eijax-train ')
  echo = subprocess.run(
      ['bash', '-c', command.replace('bash eijax/tpu_scripts/worker.sh', "printf '%s\\0'")], capture_output=True, text=True,
      cwd=folder, check=True)
  return echo.stdout.split('\0')[2:-1]


def test_flags_arrive_as_they_were_given(cloud):
  assert cloud.run('launch.sh', '--', NASTY, '--seed=1').returncode == 0
  [argv] = cloud.argvs
  assert '--worker=all' in argv
  secret, *flags = launched(argv, cloud.folder)
  assert secret == '-' and flags[:2] == ['--tpu', '--workdir=/mnt/eijax/runs/emo'] and flags[-2:] == [NASTY, '--seed=1']
  assert '--preset=qwen3_8b' in flags
  assert not pathlib.Path('/tmp/x').exists()


def test_keys_go_by_name_only(cloud):
  result = cloud.run('launch.sh', SIMULATOR_KEYS_SECRET='sim-keys', EIJAX_SIMULATOR_API_KEYS=KEY)
  assert result.returncode == 0 and launched(cloud.argvs[0], cloud.folder)[0] == 'sim-keys'
  assert KEY not in json.dumps(cloud.calls) + result.stdout + result.stderr


def test_a_settings_file_of_ones_own(cloud):
  settings = cloud.folder / 'mine.env'
  settings.write_text((FOLDER / 'settings.env').read_text() + "\nTRAIN_FLAGS=('--workdir=a b' --seed=3)\n")
  assert cloud.run('launch.sh', EIJAX_TPU_SETTINGS=str(settings)).returncode == 0
  assert launched(cloud.argvs[0], cloud.folder)[-2:] == ['--workdir=a b', '--seed=3']


def test_logs(cloud):
  cloud.answer((['ssh'], [('step 1\n', '', 0)]))
  result = cloud.run('logs.sh', '--worker=2')
  assert result.stdout == 'step 1\n' and '--worker=2' in cloud.argvs[0] and remote(cloud.argvs[0]).endswith('--follow')
  cloud.run('logs.sh', '--no_follow')
  assert '--worker=0' in cloud.argvs[0] and '--follow' not in remote(cloud.argvs[0])


REBUILD = ['queued-resources create', 'queued-resources describe', 'tpu-vm scp', 'tpu-vm ssh', 'tpu-vm ssh']


@pytest.mark.parametrize('state', ('SUSPENDED', 'FAILED'))
def test_resume_replaces_what_was_taken_away(cloud, state):
  cloud.answer((['describe'], [(state, '', 0), ('ACTIVE', '', 0)]))
  result = cloud.run('resume.sh', '--', '--seed=5')
  assert result.returncode == 0, result.stderr
  assert verbs(cloud.argvs) == ['queued-resources describe', 'queued-resources delete', *REBUILD]
  assert '--force' in cloud.argvs[1] and launched(cloud.argvs[-1], cloud.folder)[-1] == '--seed=5'


def test_resume_where_nothing_exists(cloud):
  cloud.answer((['describe'], [('', 'ERROR: NOT_FOUND: no such resource\n', 1), ('ACTIVE', '', 0)]))
  assert cloud.run('resume.sh').returncode == 0
  assert verbs(cloud.argvs) == ['queued-resources describe', *REBUILD]


@pytest.mark.parametrize('unit, status, launches', [
    ('SubState=running\nExecMainStatus=0\n', 0, False), ('SubState=exited\nExecMainStatus=75\n', 0, True),
    ('ExecMainStatus=0\nSubState=exited\n', 0, False), ('SubState=dead\nExecMainStatus=0\n', 0, True),
    ('SubState=failed\nExecMainStatus=1\n', 1, False)])
def test_resume_where_the_tpu_is_there(cloud, unit, status, launches):
  cloud.answer((['describe'], [('ACTIVE', '', 0)]), (['systemctl show'], [(unit, '', 0)]))
  result = cloud.run('resume.sh')
  assert result.returncode == status, result.stderr
  assert verbs(cloud.argvs) == ['queued-resources describe', 'tpu-vm ssh'] + ['tpu-vm ssh'] * launches
  assert ('failed by itself (ExecMainStatus=1, SubState=failed)' in result.stderr) == bool(status)


def test_resume_watches_until_the_training_has_ended(cloud):
  cloud.answer(
      (['describe'], [('ACTIVE', '', 0), ('SUSPENDED', '', 0), ('PROVISIONING', '', 0), ('ACTIVE', '', 0)]),
      (['systemctl show'], [('SubState=running\n', '', 0), ('', '', 255), ('SubState=exited\nExecMainStatus=0\n', '', 0)]))
  result = cloud.run('resume.sh', '--watch')
  assert result.returncode == 0 and result.stderr.splitlines()[-1] == 'the training on emo has ended'
  assert verbs(cloud.argvs).count('queued-resources create') == verbs(cloud.argvs).count('queued-resources delete') == 1


def test_teardown_stops_the_training_first(cloud):
  cloud.answer((['describe'], [('ACTIVE', '', 0)]))
  assert cloud.run('teardown.sh', '--yes').returncode == 0
  assert verbs(cloud.argvs) == ['queued-resources describe', 'tpu-vm ssh', 'queued-resources delete']
  assert remote(cloud.argvs[1]) == 'sudo systemctl stop eijax-train'
  cloud.answer((['describe'], [('ACTIVE', '', 0)]), (['ssh'], [('', 'gone\n', 255)]))
  assert cloud.run('teardown.sh', '--yes').returncode == 0 and verbs(cloud.argvs)[-1] == 'queued-resources delete'
  cloud.answer()
  assert cloud.run('teardown.sh', '--stop').returncode == 0 and verbs(cloud.argvs) == ['tpu-vm ssh']


def test_the_manifest(cloud):
  result = cloud.run('gke.sh', 'render', '--', NASTY, QUEUE='multislice-queue', MAX_RESTARTS='7')
  assert result.returncode == 0 and '@' not in result.stdout
  manifest = yaml.safe_load(result.stdout)
  assert manifest['metadata'] == {'name': 'emo', 'labels': {'kueue.x-k8s.io/queue-name': 'multislice-queue'}}
  assert manifest['spec']['failurePolicy']['maxRestarts'] == 7
  job = manifest['spec']['replicatedJobs'][0]['template']['spec']
  assert job['parallelism'] == job['completions'] == 4 and job['backoffLimit'] == 0
  pod = job['template']['spec']
  assert pod['nodeSelector'] == {'cloud.google.com/gke-tpu-accelerator': 'tpu-v6e-slice', 'cloud.google.com/gke-tpu-topology': '4x4',
                                 'cloud.google.com/gke-spot': 'true'}
  [container] = pod['containers']
  assert container['image'] == 'docker.io/me/eijax:1' and container['resources']['limits'] == {'google.com/tpu': 4}
  assert container['args'][0] == '--tpu' and container['args'][-1] == NASTY
  # The run leaves before the pod is killed.
  grace = next(int(word.partition('=')[2]) for word in container['args'] if word.startswith('--grace_secs='))
  assert grace < pod['terminationGracePeriodSeconds']
  assert container['envFrom'] == [{'secretRef': {'name': 'eijax-keys', 'optional': True}}]
  on_demand = yaml.safe_load(cloud.run('gke.sh', 'render', PROVISIONING='on-demand').stdout)
  pod = on_demand['spec']['replicatedJobs'][0]['template']['spec']['template']['spec']
  assert 'cloud.google.com/gke-spot' not in pod['nodeSelector'] and on_demand['metadata']['labels'] == {}


def test_kubernetes_gets_the_manifest_and_the_keys_through_pipes(cloud):
  assert cloud.run('gke.sh', 'apply').returncode == 0
  assert verbs(cloud.argvs) == ['delete', 'apply'] and yaml.safe_load(cloud.calls[1]['stdin'])['kind'] == 'JobSet'
  result = cloud.run('gke.sh', 'secret', EIJAX_SIMULATOR_API_KEYS=KEY, EIJAX_JUDGE_API_KEY='other')
  assert result.returncode == 0 and verbs(cloud.argvs) == ['delete', 'create']
  assert cloud.calls[1]['stdin'] == f'EIJAX_SIMULATOR_API_KEYS={KEY}\nEIJAX_JUDGE_API_KEY=other\n'
  assert KEY not in json.dumps(cloud.argvs) + result.stdout + result.stderr
  cloud.answer((['apply'], [('', 'forbidden\n', 1)]))
  assert cloud.run('gke.sh', 'apply').returncode == 1


def test_the_worker_trains_with_the_key_in_its_environment_only(cloud):
  checkout = cloud.folder / 'eijax'
  (checkout / 'tpu_scripts').mkdir(parents=True)
  (checkout / '.venv/bin').mkdir(parents=True)
  shutil.copy(FOLDER / 'worker.sh', checkout / 'tpu_scripts')
  python = checkout / '.venv/bin/python'
  python.write_text('#!/bin/bash\nprintf "%s\\n" "$@" "key=$EIJAX_SIMULATOR_API_KEYS"\nexit 75\n')
  python.chmod(0o755)
  cloud.answer((['secrets', 'access', 'latest', '--secret=sim-keys'], [(KEY, '', 0)]))
  train = lambda secret: subprocess.run(
      ['bash', str(checkout / 'tpu_scripts/worker.sh'), 'train', secret, '--tpu', NASTY],
      env={'PATH': f'{cloud.folder / "bin"}:/usr/bin:/bin'}, capture_output=True, text=True, timeout=20, check=False)
  result = train('sim-keys')
  assert result.stdout.splitlines() == ['-m', 'eijax.train', '--tpu', NASTY, f'key={KEY}'] and result.returncode == 75
  assert train('-').stdout.splitlines()[-1] == 'key='
  cloud.answer((['secrets'], [('', 'denied\n', 1)]))
  assert train('sim-keys').returncode == 1  # No run without the key that it was to have.
