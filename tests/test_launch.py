"""What belongs to a launch: compiled programs that stay, profiles, curves for TensorBoard, time and memory in the report."""

import errno
import os
import struct
import types

from absl import flags
import jax
import jax.experimental.compilation_cache.compilation_cache
import jax.numpy as jnp
import pytest
from tensorboardX.proto import event_pb2

from eijax import flags as flags_lib
from eijax.errors import EijaxError, UsageError
from eijax.report import machine as machine_report
from eijax.training import compilation, devices
from eijax.training.machine import MachineConfig
from eijax.training.profile import ProfileWindow
from eijax.training.scalars import ScalarLog
from eijax.training.measures import Stopwatch, TimedSampler


@pytest.fixture
def jax_cache():
  """jax's own setting, put back at the end."""
  names = ('jax_compilation_cache_dir', 'jax_persistent_cache_min_compile_time_secs')
  former = {name: getattr(jax.config, name) for name in names}
  reset = jax.experimental.compilation_cache.compilation_cache.reset_cache
  yield reset
  for name, value in former.items():
    jax.config.update(name, value)
  reset()


def test_compiled_programs_are_kept(tmp_path, jax_cache):
  compilation.use_cache(str(tmp_path / 'kept'))
  [folder] = (tmp_path / 'kept').iterdir()
  assert folder.name.startswith('cpu-') and jax.config.jax_compilation_cache_dir == str(folder)
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)
  jax_cache()
  jax.jit(lambda x: x * 3 + 1)(jnp.ones(3))
  assert any(folder.iterdir())


def test_the_users_folder_unless_jax_was_told_of_one(tmp_path, monkeypatch, jax_cache):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  former = jax.config.jax_compilation_cache_dir
  compilation.use_cache('')
  assert jax.config.jax_compilation_cache_dir == former and not list(tmp_path.iterdir())
  jax.config.update('jax_compilation_cache_dir', None)
  compilation.use_cache('')
  assert jax.config.jax_compilation_cache_dir.startswith(str(tmp_path / 'eijax/compiled/cpu-'))
  compilation.use_cache(compilation.OFF)
  assert jax.config.jax_compilation_cache_dir is None


def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch, jax_cache, capsys):
  blocked = tmp_path / 'file'
  blocked.touch()
  with pytest.raises(UsageError, match='compilation_cache=.*file.* cannot be written .*; choose another folder, or --compilation_cache=off'):
    compilation.use_cache(str(blocked))
  monkeypatch.setenv('XDG_CACHE_HOME', str(blocked))
  jax.config.update('jax_compilation_cache_dir', None)
  compilation.use_cache('')  # Nobody asked for it: the run goes on.
  assert 'compiling without a cache' in capsys.readouterr().err and jax.config.jax_compilation_cache_dir is None


def build(*arguments):
  values = flags.FlagValues()
  flags_lib.define(values)
  values(['train', *arguments])
  return flags_lib.build_machine(values)


def test_flags_reach_the_launch():
  assert build() == MachineConfig()
  assert build('--grace_secs=13', '--compilation_cache=off', '--profile_steps=2:4') == MachineConfig(
      grace_secs=13.0, compilation_cache='off', profile_steps=(2, 4))


@pytest.mark.parametrize('text', ('3', '3:', '4:4', '5:4', '-1:2', '1:2:3', 'a:b'))
def test_windows_that_are_none(text):
  with pytest.raises(UsageError, match='profile_steps=.* must be FIRST:END with 0 <= FIRST < END'):
    build(f'--profile_steps={text}')


def test_a_profile_of_the_window_alone(tmp_path, capsys):
  with ProfileWindow((1, 3), tmp_path / 'profile') as window:
    for step in range(4):
      with window.step(step):
        jax.jit(lambda x: x + 1)(jnp.ones(3)).block_until_ready()
      assert (tmp_path / 'profile').exists() == (step >= 1)
      assert bool(list(tmp_path.rglob('*.xplane.pb'))) == (step >= 2)
  assert capsys.readouterr().out == f'profile: {tmp_path / "profile"}\n'


def test_a_profile_is_written_when_the_run_ends_early(tmp_path):
  with pytest.raises(KeyboardInterrupt), ProfileWindow((0, 9), tmp_path) as window, window.step(0):
    raise KeyboardInterrupt
  assert list(tmp_path.rglob('*.xplane.pb'))


def scalars(folder):
  """(step, tag, value) of all event files, in order. The format: length, its checksum, event, its checksum."""
  result = []
  for path in sorted(folder.iterdir()):
    data = path.read_bytes()
    while data:
      size = struct.unpack('<Q', data[:8])[0]
      event = event_pb2.Event.FromString(data[12:12 + size])
      data = data[16 + size:]
      result += [(event.step, value.tag, value.simple_value) for value in event.summary.value]
      result += [(event.step, 'purged', None)] * (event.session_log.status == event_pb2.SessionLog.START and event.step > 0)
  return result


def test_curves_for_tensorboard(tmp_path):
  with ScalarLog(tmp_path, 0) as log:
    log.add(0, {'step': 0, 'reward': 0.5, 'reward/charm': None, 'episodes': 4, 'thinking': True})
    log.add(0, {'score': -3.5}, 'held_out/')
  assert scalars(tmp_path) == [(0, 'reward', 0.5), (0, 'episodes', 4.0), (0, 'held_out/score', -3.5)]
  with ScalarLog(tmp_path, 1) as log:  # Goes on: later steps of the former are void.
    log.add(1, {'reward': 0.75})
  assert sorted(scalars(tmp_path), key=str)[-2:] == [(1, 'purged', None), (1, 'reward', 0.75)]


def test_curves_on_a_full_disk_are_one_error(tmp_path, monkeypatch, capfd):
  def full(_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

  with pytest.raises(EijaxError, match='tensorboard cannot be written .No space left on device.; make room'):
    with ScalarLog(tmp_path / 'tensorboard', 0) as log:
      monkeypatch.setattr(os, 'fsync', full)
      log.add(0, {'reward': 0.5})
  assert capfd.readouterr() == ('', '')


def test_a_stopwatch_adds_up_and_begins_anew(monkeypatch):
  clock = iter(range(100))
  monkeypatch.setattr('time.perf_counter', lambda: float(next(clock)))
  watch = Stopwatch()
  sampler = TimedSampler(types.SimpleNamespace(max_prompt_tokens=7, submit=lambda requests: [*requests, 'done']), watch, 'sampling')
  assert sampler.submit([1]) == [1, 'done'] and sampler.submit([]) == ['done'] and sampler.max_prompt_tokens == 7
  assert watch.take() == {'sampling': 2.0} and watch.take() == {}


def test_memory_of_devices(monkeypatch):
  assert not devices.device_memory()  # A CPU does not tell.
  one = lambda **stats: types.SimpleNamespace(memory_stats=lambda: stats)
  full = {'bytes_in_use': 2**20, 'peak_bytes_in_use': 3 * 2**20, 'bytes_limit': 2**30}
  monkeypatch.setattr(jax, 'local_devices', lambda: [one(**full), one(**{**full, 'bytes_in_use': 2**21})])
  assert devices.device_memory() == {'device_memory_mib': 2.0, 'device_peak_memory_mib': 3.0, 'device_memory_limit_mib': 1024.0}


def test_time_and_memory_in_the_report():
  row = {'seconds/rollout': 6.0, 'rollout_secs/sampling': 3.0, 'rollout_secs/weights': 1.0, 'update_secs/packing': 0.5,
         'update_secs/devices': 2.5, 'seconds/checkpoint': 1.0, 'peak_memory_mib': 2048.0}
  parts = machine_report.breakdown([row, row])
  assert [(part.secs, part.share) for part in parts] == [
      ('3.00', '30 %'), ('1.00', '10 %'), ('2.00', '20 %'), ('0.50', '5 %'), ('2.50', '25 %'), ('1.00', '10 %')]
  assert machine_report.memory_words([row]) == 'Largest memory: 2.0 GiB of the host.'
  assert machine_report.memory_words([{**row, 'device_peak_memory_mib': 10240.0, 'device_memory_limit_mib': 16128.0}]) == (
      'Largest memory: 2.0 GiB of the host, 10.0 of 15.8 GiB of the fullest device.')
  # A run of before, and one without steps.
  assert machine_report.breakdown([{'seconds/rollout': 6.0}]) == machine_report.breakdown([]) == [] and machine_report.memory_words([]) == ''
