"""The Qwen3 forward pass in float64 NumPy, one token and one head at a time.

Written from the formulas and sharing no code with the decoder. Source:
https://arxiv.org/abs/2505.09388, section 2, and what it names: RMSNorm
(https://arxiv.org/abs/1910.07467, equation 4), rotary positions
(https://arxiv.org/abs/2104.09864, equation 34, with the halves of a head paired),
grouped queries (https://arxiv.org/abs/2305.13245), SwiGLU
(https://arxiv.org/abs/2002.05202, equation 6).
"""

import numpy as np


def rms_norm(x, scale, eps):
  return x / np.sqrt((x**2).mean() + eps) * scale


def rotate(x, position, theta):
  half = len(x) // 2
  result = np.empty_like(x)
  for i in range(half):
    # The complex number (x_i, x_{i + H/2}), turned by position * theta^(-2i/H).
    turned = complex(x[i], x[i + half]) * np.exp(1j * position * theta ** (-2 * i / len(x)))
    result[i], result[i + half] = turned.real, turned.imag
  return result


def attention(config, w, rows):
  """Outputs [D] of one layer's attention for the normed inputs of one segment."""
  group = config.num_heads // config.num_kv_heads
  outputs = []
  keys = [[rotate(rms_norm(x @ w['key']['kernel'][:, k], w['key_norm']['scale'], config.norm_eps), s, config.rope_theta)
           for k in range(config.num_kv_heads)] for s, x in enumerate(rows)]
  values = [[x @ w['value']['kernel'][:, k] for k in range(config.num_kv_heads)] for x in rows]
  for t, x in enumerate(rows):
    out = np.zeros(config.hidden_dim)
    for n in range(config.num_heads):
      query = rms_norm(x @ w['query']['kernel'][:, n], w['query_norm']['scale'], config.norm_eps)
      query = rotate(query, t, config.rope_theta)
      scores = np.array([query @ keys[s][n // group] for s in range(t + 1)]) / np.sqrt(config.head_dim)
      weights = np.exp(scores - scores.max())
      weights /= weights.sum()
      out += sum(weight * values[s][n // group] for s, weight in enumerate(weights)) @ w['out']['kernel'][n]
    outputs.append(out)
  return outputs


def forward(config, params, tokens):
  """Logits float64[T, V] of one segment of tokens."""
  xs = [params['embedding'][token] for token in tokens]
  for layer in range(config.num_layers):
    w = {name: {part: value[layer] for part, value in parts.items()} for name, parts in params['layers'].items()}
    normed = [rms_norm(x, w['attention_norm']['scale'], config.norm_eps) for x in xs]
    xs = [x + out for x, out in zip(xs, attention(config, w, normed))]
    for t, x in enumerate(xs):
      y = rms_norm(x, w['mlp_norm']['scale'], config.norm_eps)
      gate = y @ w['gate']['kernel']
      xs[t] = x + (gate / (1 + np.exp(-gate)) * (y @ w['up']['kernel'])) @ w['down']['kernel']
  head = params['embedding'] if config.tie_embeddings else params['head']
  return np.array([head @ rms_norm(x, params['final_norm']['scale'], config.norm_eps) for x in xs])
