"""Tests run on eight virtual CPU devices, with silent rank promotion forbidden."""

import gc
import importlib.metadata
import os
import tempfile

# Must stand before the first import of jax anywhere in the test process, and holds for the processes that tests start.
# Compilation is most of the time of these tests; what is compiled runs for milliseconds.
_XLA_FLAGS = ['--xla_force_host_platform_device_count=8', '--xla_backend_optimization_level=0',
              '--xla_llvm_disable_expensive_passes=true']
# Halves the compilation of a training step; XLA of later releases ends the process at flags that it does not know.
if importlib.metadata.version('jaxlib').startswith('0.10.'):
  _XLA_FLAGS.append('--xla_cpu_use_fusion_emitters=false')
_given = os.environ.get('XLA_FLAGS', '')
os.environ['XLA_FLAGS'] = ' '.join([_given, *(flag for flag in _XLA_FLAGS if flag.partition('=')[0] not in _given)])
os.environ.setdefault('JAX_PLATFORMS', 'cpu')

# Tests that build the same program anew share one compilation; it is most of their time. The environment hands
# the folder on to the processes that tests start, and to the workers that pytest-xdist starts.
if 'EIJAX_TEST_COMPILED' not in os.environ:
  _COMPILED = tempfile.TemporaryDirectory(prefix='eijax_test_compiled_')
  os.environ['EIJAX_TEST_COMPILED'] = os.environ['JAX_COMPILATION_CACHE_DIR'] = _COMPILED.name
  os.environ['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = '0.1'

import jax  # pylint: disable=wrong-import-position

jax.config.update('jax_numpy_rank_promotion', 'raise')
# Tracing makes many objects and few cycles; looking for these at the usual pace is a tenth of the time.
gc.set_threshold(200_000, 20, 50)


def pytest_configure(config):
  config.addinivalue_line('markers', 'slow: takes ten seconds to a minute; `make test-slow` runs it, and .ci/run after the others')


def pytest_collection_modifyitems(items):
  """The file that takes longest comes first, so that no worker is left alone with it at the end."""
  items.sort(key=lambda item: item.path.name != 'test_peer_runs.py')
