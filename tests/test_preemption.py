"""SIGTERM: whenever it comes, the run saves in time, leaves with its own status, and goes on to the same end."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import orbax.checkpoint as ocp
import pytest

from eijax import train
from eijax.checkpoints import layout
from eijax.errors import PreemptedError, UsageError
from eijax.learning import sharding
from eijax.simulator.client import SimulatorClient
from eijax.training.machine import MachineConfig
from eijax.training.preemption import Preemption
from forked import every_program_is_kept
from test_train import assert_equal_runs
from tiny_run import sigterm, sigterm_at, tiny_config, use_one_device, write_scenarios

ROOT = pathlib.Path(__file__).resolve().parent.parent


# Moment, and the step that the run goes on from. Each start of the run meets the next one.
MOMENTS = (
    # Four held-out talks of at most three rounds come first: this is among the four talks of step 0.
    ('talks', (SimulatorClient, 'submit', 15), 0),
    # The second mini-batch of step 0: its updates are finished, so the run is at step 1, which has no checkpoint of its own.
    ('update', (sharding, 'put_batch', 2), 1),
    # The checkpoint after step 2, at a moment when its files are half there.
    ('save', (ocp.StandardCheckpointHandler, 'finalize', 1), 2),
)


@pytest.fixture(scope='module')
def scenarios(tmp_path_factory):
  return write_scenarios(tmp_path_factory.mktemp('scenarios'))


@pytest.fixture(autouse=True, scope='module')
def every_program_is_compiled_once():
  with every_program_is_kept():  # Each start of a run builds the same programs anew.
    yield


def start(config, path):
  with pytest.MonkeyPatch.context() as patch:
    use_one_device(patch.setattr)
    # Seconds of drawing, and tested elsewhere.
    patch.setattr(train, 'write_report', lambda path: (path / 'report.html').touch())
    train.train(config, str(path), tpu=False, resume=True)


@pytest.mark.slow
def test_a_run_that_is_stopped_at_any_moment_equals_one_that_is_not(scenarios, tmp_path, capsys):
  config = tiny_config(scenarios)
  start(config, tmp_path / 'whole')
  for moment, call, step in MOMENTS:
    capsys.readouterr()
    with sigterm_at(*call), pytest.raises(PreemptedError, match=f'stopped by SIGTERM; saved at step {step}: the same command goes on'):
      start(config, tmp_path / 'stopped')
    assert layout.latest_step(tmp_path / 'stopped' / 'checkpoints') == step, moment
    assert (tmp_path / 'stopped/eval/step_000000/summary.json').exists()
    assert 'SIGTERM: saving and leaving within 25 s' in capsys.readouterr().err
  assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL and signal.set_wakeup_fd(-1) == -1
  start(config, tmp_path / 'stopped')
  assert_equal_runs(tmp_path / 'stopped', tmp_path / 'whole', config)


def test_before_there_is_anything_to_save(scenarios, tmp_path):
  with sigterm_at(sharding, 'put_batch', 1), pytest.raises(PreemptedError, match='nothing was to be saved yet'):  # In the warm-up.
    start(tiny_config(scenarios), tmp_path)
  assert layout.latest_step(tmp_path / 'checkpoints') is None


def test_what_is_held_is_finished_and_a_second_signal_changes_nothing():
  preemption, finished = Preemption(30.0), []
  with pytest.raises(PreemptedError, match='saved at step 7'):
    with preemption.watch(), preemption.leaving(lambda: sigterm() or 7):
      with preemption.held():
        with preemption.held():
          sigterm()
        finished.append('held')
      finished.append('never')
  assert finished == ['held'] and preemption.noticed


def test_a_notice_is_not_taken_for_the_failure_of_a_talk():
  preemption = Preemption(30.0)
  with pytest.raises(PreemptedError), preemption.watch():
    try:
      sigterm()
    except Exception:  # pylint: disable=broad-exception-caught
      pytest.fail('a notice must pass by whoever catches errors')


def program(tmp_path, body):
  """Run `body` in a process of its own: (its process, after it has printed a line)."""
  script = tmp_path / 'program.py'
  script.write_text('import ctypes, os, signal, sys, time\nfrom eijax import command\n'
                    f'from eijax.training.preemption import Preemption\n{body}\ncommand.run(main)\n')
  process = subprocess.Popen(
      [sys.executable, str(script)], env=os.environ | {'PYTHONPATH': str(ROOT)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
      text=True)
  assert process.stdout.readline() == 'ready\n'
  return process


# In a save, or in foreign code that no signal interrupts, as a compiler or a device that is waited for.
@pytest.mark.parametrize('stuck', ('time.sleep(60)', 'ctypes.CDLL(None).pause() and [ctypes.CDLL(None).pause() for _ in range(9)]'))
def test_the_process_leaves_in_time_wherever_it_is_stuck(tmp_path, stuck):
  seconds = 1.0
  process = program(tmp_path, f'''
def main(argv):
  preemption = Preemption({seconds})
  def save():
    {stuck}
  with preemption.watch(), preemption.leaving(save):
    print('ready', flush=True)
    {'time.sleep(60)' if 'time' in stuck else stuck}''')
  process.send_signal(signal.SIGTERM)
  start = time.monotonic()
  _, err = process.communicate(timeout=30)
  assert time.monotonic() - start < seconds + 3
  assert process.returncode == PreemptedError.exit_code == 75
  assert 'not saved within grace_secs=1: the same command goes on from the last checkpoint' in err and 'Traceback' not in err


def test_a_thread_that_waits_for_the_network_does_not_hold_up_the_exit(tmp_path):
  process = program(tmp_path, '''
import concurrent.futures
def main(argv):
  preemption = Preemption(60.0)
  concurrent.futures.ThreadPoolExecutor().submit(time.sleep, 60)
  with preemption.watch(), preemption.leaving(lambda: 3):
    print('ready', flush=True)
    time.sleep(60)''')
  process.send_signal(signal.SIGTERM)
  _, err = process.communicate(timeout=10)
  assert process.returncode == 75 and 'error: stopped by SIGTERM; saved at step 3' in err and 'Traceback' not in err


def test_a_bound_that_is_none_is_refused():
  with pytest.raises(UsageError, match='grace_secs=0 must be above 0'):
    MachineConfig(grace_secs=0)
