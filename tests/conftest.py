"""Tests run on eight virtual CPU devices, with silent rank promotion forbidden."""

import os
import tempfile

# Must stand before the first import of jax anywhere in the test process.
if 'xla_force_host_platform_device_count' not in os.environ.get('XLA_FLAGS', ''):
  os.environ['XLA_FLAGS'] = (os.environ.get('XLA_FLAGS', '') + ' --xla_force_host_platform_device_count=8').strip()
# Compilation is most of the time of these tests; what is compiled runs for milliseconds.
os.environ['XLA_FLAGS'] += ' --xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true'
os.environ.setdefault('JAX_PLATFORMS', 'cpu')

import jax  # pylint: disable=wrong-import-position

jax.config.update('jax_numpy_rank_promotion', 'raise')

# Tests that build the same program anew share one compilation; it is most of their time.
_COMPILED = tempfile.TemporaryDirectory(prefix='eijax_test_compiled_')
jax.config.update('jax_compilation_cache_dir', _COMPILED.name)
jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.3)


def pytest_configure(config):
  config.addinivalue_line('markers', 'slow: takes more than a few seconds')
