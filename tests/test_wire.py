"""One request over the network: its bounds in time."""

from eijax.chat import wire
from eijax.chat.client import ChatClient
from fake_endpoint import FakeEndpoint, Fault, chat_body


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
