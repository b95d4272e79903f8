"""The induction circuit: a policy that has never been trained repeats what stands in its context."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eijax.errors import UsageError
from eijax.policy.config import PolicyConfig
from eijax.policy.decoder import Decoder
from eijax.policy.initial import with_induction_circuit

DEMO = PolicyConfig(vocab_size=2000, num_layers=3, hidden_dim=128, num_heads=2, num_kv_heads=1, head_dim=64, mlp_dim=96,
                    tie_embeddings=True)
# With the share of copied tokens to be met. Foretelling any token of the phrase at
# random is right in 1 of 32; of the vocabulary, in 1 of 2000. Found: 0.64, 0.77 and,
# with codes of 32 dimensions instead of 42 and 49, 0.27.
CASES = {
    'demo': (DEMO, 0.5),
    'own_kv_heads': (dataclasses.replace(DEMO, num_heads=2, num_kv_heads=2, hidden_dim=100), 0.6),
    'grouped': (dataclasses.replace(DEMO, num_heads=6, num_kv_heads=2, head_dim=32, hidden_dim=144), 0.2),
}
# Rows of random tokens without repetition, each row said three times.
PERIOD, ROWS = 32, 4


@functools.cache
def random_params(config):
  one = jnp.ones((1, 1), jnp.int32)
  return nn.unbox(jax.jit(Decoder(config).init)(jax.random.key(0), one, one, one))['params']


@functools.partial(jax.jit, static_argnums=0)
def logits_of(config, params, tokens):
  positions = jnp.broadcast_to(jnp.arange(tokens.shape[1])[None], tokens.shape)
  return Decoder(config).apply({'params': params}, tokens, positions, jnp.ones_like(tokens))


def copied_share(config, params):
  """Share of the second and third repetition that the argmax foretells."""
  rng = np.random.default_rng(0)
  phrases = np.array([rng.choice(config.vocab_size, PERIOD, replace=False) for _ in range(ROWS)])
  tokens = np.tile(phrases, 3).astype(np.int32)
  guesses = np.asarray(logits_of(config, params, tokens).argmax(-1))[:, PERIOD:-1]
  return (guesses == tokens[:, PERIOD + 1:]).mean()


@pytest.mark.parametrize('name', CASES)
def test_argmax_is_the_copied_token(name):
  config, least = CASES[name]
  params = random_params(config)
  assert copied_share(config, with_induction_circuit(params, config, jax.random.key(1))) > least
  assert copied_share(config, params) < 0.05  # The circuit does it, not the weights it was put into.


@pytest.mark.parametrize('change', [
    {'num_layers': 1}, {'tie_embeddings': False}, {'head_dim': 8}, {'hidden_dim': 3}, {'rope_theta': 100}])
def test_too_small_policy_is_refused(change):
  (name, value), = change.items()
  # Refused by the config alone, before any of the params is looked at.
  with pytest.raises(UsageError, match=f'{name}={value}.*use larger values'):
    with_induction_circuit({}, dataclasses.replace(DEMO, **change), jax.random.key(0))


def test_keeps_shapes_dtypes_and_other_layers():
  params = jax.tree.map(lambda x: x.astype(jnp.bfloat16), random_params(DEMO))
  changed = with_induction_circuit(params, dataclasses.replace(DEMO, param_dtype='bfloat16'), jax.random.key(1))
  assert jax.tree.map(lambda x: (x.shape, x.dtype), changed) == jax.tree.map(lambda x: (x.shape, x.dtype), params)
  for name in ('query', 'key', 'value', 'gate', 'up'):
    np.testing.assert_array_equal(changed['layers'][name]['kernel'][2], params['layers'][name]['kernel'][2])


def test_same_key_same_weights():
  params = random_params(DEMO)
  first, same, other = (with_induction_circuit(params, DEMO, jax.random.key(seed)) for seed in (1, 1, 2))
  assert all(jax.tree.leaves(jax.tree.map(np.array_equal, first, same)))
  assert not np.array_equal(first['embedding'], other['embedding'])


def test_lead_in_asks_for_the_line_of_a_list_and_not_for_what_was_led_in_before():
  # Dash, space and newline; a list of two lines, then one of them led in by "space dash", then another lead-in.
  dash, space, newline, list_line, said = 10, 11, 12, 100, 200
  context = [newline, dash, list_line, 101, 102, 5, space, dash, said, 201, 6, space, dash]
  params = random_params(DEMO)
  chosen = {
      lead_in: int(logits_of(DEMO, with_induction_circuit(params, DEMO, jax.random.key(1), lead_in),
                             np.array([context], np.int32))[0, -1].argmax())
      for lead_in in (None, (dash, space, newline))
  }
  assert chosen == {None: said, (dash, space, newline): list_line}


def test_what_was_led_in_before_is_not_asked_for_again():
  dash, space, newline = lead_in = 10, 11, 12
  firsts = np.arange(100, 112)
  rng = np.random.default_rng(0)
  context = [token for first in firsts for token in (newline, dash, first, *rng.integers(300, 2000, 8))]
  said = [int(first) for first in rng.choice(firsts, 4, replace=False)]
  context += [token for first in said for token in (*rng.integers(300, 2000, 6), space, dash, first, *rng.integers(300, 2000, 5))]
  params = random_params(DEMO)
  circuit = with_induction_circuit(params, DEMO, jax.random.key(1), lead_in)
  logits = np.asarray(logits_of(DEMO, circuit, np.array([[*context, space, dash]], np.int32)))[0, -1]
  left = np.setdiff1d(firsts, said)
  assert logits[left].min() > logits[said].max()
  # Phrases are copied as well as without a lead-in.
  assert copied_share(DEMO, circuit) > CASES['demo'][1]
