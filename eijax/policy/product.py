"""The product of activations with a weight, and the type that its gradient is added up in."""

import functools

import jax
import jax.numpy as jnp


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def product(x: jax.Array, kernel: jax.Array, num_in: int, gradient_dtype: str) -> jax.Array:
  """Contract the last num_in axes of x with the first num_in of kernel, in the type of x.

  The gradient of the kernel is a sum over all tokens, and those of other devices are added to it. Plain
  differentiation hands the sum over in the type of x; here it is handed over in gradient_dtype, or in the type of x
  where that is wider.
  """
  dims = tuple(range(x.ndim - num_in, x.ndim)), tuple(range(num_in))
  return jax.lax.dot_general(x, kernel.astype(x.dtype), (dims, ((), ())))


def _forward(x, kernel, num_in, gradient_dtype):
  return product(x, kernel, num_in, gradient_dtype), (x, kernel)


def _backward(num_in, gradient_dtype, residuals, g):
  x, kernel = residuals
  num_out, rows = kernel.ndim - num_in, x.ndim - num_in
  outputs = tuple(range(rows, g.ndim)), tuple(range(num_in, kernel.ndim))
  dx = jax.lax.dot_general(g, kernel.astype(g.dtype), (outputs, ((), ())))
  wide = jnp.promote_types(gradient_dtype, x.dtype)
  dims = tuple(range(rows)), tuple(range(g.ndim - num_out))
  dw = jax.lax.dot_general(x, g, (dims, ((), ())), preferred_element_type=wide)
  return dx.astype(x.dtype), dw.astype(kernel.dtype)


product.defvjp(_forward, _backward)
