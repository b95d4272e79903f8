"""Get hold of the simulated user: the given endpoints, or an embedded one of our own."""

import contextlib
from collections.abc import Iterator

from eijax.chat.client import ChatClient
from eijax.chat.recording import Exchanges, Replayer
from eijax.chat.request_fields import api_keys, request_fields
from eijax.chat.usage import UsageMeter
from eijax.simulator.client import SimulatorClient
from eijax.simulator.config import SimulatorConfig
from eijax.simulator.process import running_server

KEYS_VARIABLE = 'EIJAX_SIMULATOR_API_KEYS'
# A client needs a URL even where a recording answers for it.
NOWHERE = 'http://127.0.0.1:9/v1'


@contextlib.contextmanager
def open_simulator(
    settings: SimulatorConfig, seed: int, *, meter: UsageMeter | None = None, exchanges: Exchanges | None = None
) -> Iterator[SimulatorClient]:
  """Yield a client that has been checked; what was started for it ends with the block.

  Args:
    seed: of the embedded simulator's noise and wording.
    meter, exchanges: see ChatClient. With a recording to replay nothing is started.
  Raises:
    SimulatorError: it cannot serve, or did not come up.
  """
  with contextlib.ExitStack() as stack:
    urls = settings.urls
    if not urls:
      urls = (NOWHERE,) if isinstance(exchanges, Replayer) else (stack.enter_context(running_server(seed=seed)),)
    chat = ChatClient(
        urls, settings.model, [] if settings.embedded else api_keys(KEYS_VARIABLE), timeout_secs=settings.timeout_secs,
        max_retries=settings.max_retries, concurrency=settings.concurrency, key_variable=KEYS_VARIABLE,
        meter=meter, exchanges=exchanges)
    stack.callback(chat.close)
    client = SimulatorClient(
        chat, temperature=settings.temperature, max_tokens=settings.max_tokens, max_attempts=settings.max_attempts,
        extra_body=request_fields(settings.thinking, settings.extra_body, 'simulator'))
    client.check()
    yield client
