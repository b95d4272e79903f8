"""One request over the network: its bounds in time, its connection, its way there."""

import contextlib
import pathlib
import ssl
import time

import pytest

from eijax.chat import errors, wire
from eijax.chat.client import ChatClient
from eijax.chat.routes import make_routes
from fake_endpoint import FakeEndpoint, Fault, chat_body

MESSAGES = [{'role': 'user', 'content': 'Hi.'}]


def test_an_answer_may_take_longer_than_a_connection(monkeypatch):
  monkeypatch.setattr(wire, '_CONNECT_TIMEOUT_SECS', 0.1)
  with FakeEndpoint(script=[Fault(200, chat_body('Late.'), delay_secs=0.4)]) as endpoint:
    with ChatClient([endpoint.url], 'm', timeout_secs=10, max_retries=0) as client:
      assert client.complete([{'role': 'user', 'content': 'Hi.'}]).text == 'Late.'


def test_a_thread_keeps_its_connection_until_it_breaks():
  with FakeEndpoint() as endpoint, ChatClient([endpoint.url], 'm', max_retries=1) as client:
    ask = lambda: client.complete([{'role': 'user', 'content': 'Hi.'}])
    for _ in range(4):
      ask()
    assert endpoint.num_connections == 1
    endpoint.script.append(Fault(drop=True))
    assert ask().retries == 1 and endpoint.num_connections == 2
    ask()
    assert endpoint.num_connections == 2


def test_an_account_in_the_url_is_used_and_never_shown():
  with FakeEndpoint() as endpoint:
    url = endpoint.url.replace('http://', 'http://ann:secret@')
    with ChatClient([url], 'm', max_retries=0) as client:
      client.complete([{'role': 'user', 'content': 'Hi.'}])
      assert endpoint.headers[0]['Authorization'] == 'Basic YW5uOnNlY3JldA==' and 'secret' not in client.display


def test_a_proxy_of_the_environment_is_used_where_it_may_be(monkeypatch):
  with FakeEndpoint() as proxy, FakeEndpoint() as endpoint:
    monkeypatch.setenv('http_proxy', proxy.url.removesuffix('/v1'))
    monkeypatch.delenv('NO_PROXY', raising=False)
    for no_proxy, expected in (('', (1, 0)), ('127.0.0.1,example.org', (1, 1))):
      monkeypatch.setenv('no_proxy', no_proxy)
      with ChatClient([endpoint.url], 'm', max_retries=0) as client:
        # The stand-in for a proxy answers by itself whatever whole URL it is asked for.
        with contextlib.suppress(errors.ChatError):
          client.complete(MESSAGES)
      assert (proxy.num_connections, endpoint.num_connections) == expected


def test_a_certificate_that_nobody_signed_is_named(monkeypatch):
  # Of 127.0.0.1, good for a hundred years; the key is no secret.
  folder = pathlib.Path(__file__).parent / 'tls'
  context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
  context.load_cert_chain(folder / 'certificate.pem', folder / 'key.pem')
  with FakeEndpoint(tls=context) as endpoint:
    assert endpoint.url.startswith('https://')
    with ChatClient([endpoint.url], 'm', max_retries=0) as client:
      with pytest.raises(errors.Unreachable, match='certificate'):
        client.complete(MESSAGES)
    # A bundle that holds it, as other programs are given one.
    monkeypatch.setenv('REQUESTS_CA_BUNDLE', str(folder / 'certificate.pem'))
    with ChatClient([endpoint.url], 'm', max_retries=0) as client:
      assert client.complete(MESSAGES).text == 'Hello.'


def test_closing_a_client_breaks_off_what_is_under_way():
  with FakeEndpoint(script=[Fault(delay_secs=4.0)]) as endpoint:
    client = ChatClient([endpoint.url], 'm', max_retries=3)
    asked = client.submit(MESSAGES)
    while not endpoint.requests:
      time.sleep(0.01)
    start = time.monotonic()
    client.close()
    with pytest.raises(errors.Closed):
      asked.result(timeout=10)
    assert time.monotonic() - start < 2.5
    assert len(endpoint.requests) == 1
    endpoint.script.clear()


def test_a_closed_wire_says_so():
  with FakeEndpoint() as endpoint:
    [route] = make_routes([endpoint.url], [], 'KEYS')
    closed = wire.Wire([route], 5.0, 20.0)
    assert closed.send(route, 'GET', '/models').status == 200
    closed.close()
    for _ in range(2):  # With the handle that was closed, and with a new one.
      exchange = closed.send(route, 'GET', '/models')
      assert (exchange.status, exchange.trouble, exchange.reason) == (0, 'unreachable', 'the client was closed')
    assert endpoint.num_connections == 1


def test_a_redirect_is_not_followed():
  with FakeEndpoint() as other, FakeEndpoint(script=[Fault(302, b'', {'Location': other.url})]) as endpoint:
    with ChatClient([endpoint.url], 'm', max_retries=0) as client, pytest.raises(errors.ChatError, match='redirect'):
      client.complete(MESSAGES)
    assert other.num_connections == 0
