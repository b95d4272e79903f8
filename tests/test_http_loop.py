"""The frame of services on an event loop: bodies, limits, errors in JSON, an orderly end."""

import http.client
import json
import socket
import threading
import time

import pytest
import requests

from eijax import http_loop


class Echo(http_loop.LoopServer):
  """Sends a body back; /bug is one, /slow takes its time."""

  async def respond(self, request):
    if request.path == '/bug':
      raise KeyError('a bug')
    if request.path == '/slow':
      await http_loop.asyncio.sleep(30)
    body = await http_loop.read_body(request)
    return http_loop.bytes_response(200, body)


@pytest.fixture
def server():
  started = Echo('127.0.0.1', 0)
  thread = threading.Thread(target=started.serve_forever, daemon=True)
  thread.start()
  yield started
  started.shutdown()
  started.server_close()
  thread.join(5)
  assert not thread.is_alive()


def _talk(server, *pieces, wait_secs=0.0):
  """What comes back for raw bytes, until the server closes or falls silent."""
  host, port = server.url.split('/')[2].split(':')
  with socket.create_connection((host, int(port)), timeout=5) as connection:
    for piece in pieces:
      connection.sendall(piece)
      time.sleep(wait_secs)
    connection.settimeout(1.0)
    answer = b''
    try:
      while piece := connection.recv(1 << 16):
        answer += piece
    except TimeoutError:
      pass
    return answer


def test_bodies_come_with_a_length_or_in_chunks(server):
  assert requests.post(server.url, data=b'abc', timeout=5).content == b'abc'
  assert requests.post(server.url, data=iter([b'ab', b'c' * 100_000]), timeout=5).content == b'ab' + b'c' * 100_000
  head = b'POST / HTTP/1.1\r\nHost: x\r\n'
  answer = _talk(server, head + b'Expect: 100-continue\r\nContent-Length: 2\r\n\r\n', b'hi', wait_secs=0.2)
  assert answer.startswith(b'HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK') and answer.endswith(b'hi')
  assert b' 411 ' in _talk(server, head + b'\r\n').partition(b'\r\n')[0]


@pytest.mark.parametrize('data', [b'x' * (http_loop.MAX_BODY_BYTES + 1), iter([b'x' * 65_536] * 40)], ids=['length', 'chunks'])
def test_a_body_above_the_limit_is_refused_while_it_is_sent(server, data):
  # The client sees the answer, not a connection that broke under its hands.
  response = requests.post(server.url, data=data, timeout=10)
  assert response.status_code == 413 and str(http_loop.MAX_BODY_BYTES) in response.json()['error']['message']
  assert requests.post(server.url, data=b'next', timeout=5).content == b'next'


def test_what_is_no_http_is_refused_without_a_word_on_the_terminal(server, capfd):
  for raw in (b'\x16\x03\x01\x02\x00', b'GET\r\n\r\n', b'POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n', b'POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n'):
    assert b' 400 ' in _talk(server, raw + b'\r\n' * 2).partition(b'\r\n')[0]
  assert requests.post(server.url, data=b'next', timeout=5).content == b'next'
  assert capfd.readouterr() == ('', '')


def test_a_bug_is_shown_here_and_not_there(server, capfd):
  response = requests.get(server.url.replace('/v1', '/bug'), timeout=5)
  assert response.status_code == 500 and response.json() == {'error': {'message': 'internal error', 'code': 500}}
  assert "KeyError: 'a bug'" in capfd.readouterr().err
  assert requests.post(server.url, data=b'next', timeout=5).content == b'next'


def test_the_end_waits_for_nobody_and_may_come_before_the_beginning():
  server = Echo('127.0.0.1', 0)
  thread = threading.Thread(target=server.serve_forever, daemon=True)
  thread.start()
  host, port = server.url.split('/')[2].split(':')
  connection = http.client.HTTPConnection(host, int(port), timeout=10)
  connection.request('POST', '/slow', b'{}')
  time.sleep(0.2)
  start = time.monotonic()
  server.shutdown()
  assert time.monotonic() - start < 3
  thread.join(5)
  assert not thread.is_alive()
  early = Echo('127.0.0.1', 0)
  early.shutdown()
  early.serve_forever()  # Returns at once.
  early.server_close()


def test_a_taken_address_and_one_of_the_sixth_version():
  server = Echo('127.0.0.1', 0)
  with pytest.raises(OSError):
    Echo('127.0.0.1', int(server.url.split(':')[2].split('/')[0]))
  server.server_close()
  if socket.has_ipv6:
    try:
      six = Echo('::1', 0)
    except OSError:
      return  # This machine has none.
    assert six.url.startswith('http://[::1]:')
    six.server_close()


def test_keys_are_compared_whole():
  server = Echo('127.0.0.1', 0, api_key='right')
  threading.Thread(target=server.serve_forever, daemon=True).start()

  class Request:
    headers = {}

  for given, expected in (('Bearer right', True), ('Bearer righ', False), ('right', False), ('Bearer rüght', False), ('', False)):
    Request.headers = {'Authorization': given}
    assert server.is_authorised(Request) is expected
  assert json.loads(http_loop.problem_response(401, 'no').body)['error']['code'] == 401
  server.shutdown()
  server.server_close()
