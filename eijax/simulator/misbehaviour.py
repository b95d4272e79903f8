"""Answers one request as a broken endpoint would: what a client meets for each of `faults.FAULTS`."""

import asyncio
import os
import socket
import struct

from aiohttp import web

from eijax import http_loop
from eijax.simulator import faults


async def act_out(request: web.BaseRequest, fault: str) -> web.StreamResponse:
  """Answer with one of FAULTS. Where the connection is gone afterwards, what is returned goes nowhere."""
  if fault in ('rate_limited', 'rate_limited_bare'):
    headers = {'Retry-After': '0'} if fault == 'rate_limited' else {}
    return http_loop.problem_response(429, 'slow down (injected fault)', headers)
  if fault == 'server_error':
    return http_loop.problem_response(500, 'injected fault')
  if fault == 'overloaded':
    page = b'<html><body><h1>503 Service Temporarily Unavailable</h1></body></html>'
    return http_loop.bytes_response(503, page, {'Content-Type': 'text/html'})
  if fault in _BODIES:
    return http_loop.bytes_response(200, _BODIES[fault])
  if fault == 'silence':
    await asyncio.sleep(faults.SILENCE_SECS)
  if request.transport is None:  # The client has left before we could.
    return web.Response()
  if fault == 'silence':
    request.transport.close()
  elif fault == 'reset':
    _reset(request.transport)
  else:
    request.transport.write(_CUT_SHORT[fault])
    request.transport.close()
  return web.Response()


def _reset(transport: asyncio.Transport) -> None:
  # Linger 0 makes close() send RST, as a crashed peer would.
  with socket.socket(fileno=os.dup(transport.get_extra_info('socket').fileno())) as connection:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
  transport.abort()


_HEAD = b'HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=utf-8\r\nConnection: close\r\n'
_CUT_SHORT = {
  'cut_body': _HEAD + b'Content-Length: 4000\r\n\r\n{"choices": [{"message": {"con',
  'cut_chunks': _HEAD + b'Transfer-Encoding: chunked\r\n\r\n1e\r\n{"choices": [{"message": {"con\r\n',
}
_BODIES = {
  'broken_body': b'{"choices": [{"message": {"con',
  'html': b'<!DOCTYPE html><html><head><title>Just a moment...</title></head></html>',
  'error_object': b'{"error": {"message": "upstream failed (injected fault)", "code": 502}}',
  'no_choices': b'{"id": "x", "object": "chat.completion", "choices": [], "usage": {"completion_tokens": 0}}',
  'wrong_types': b'{"choices": [{"index": "0", "message": {"role": "assistant", "content": 17}}], "usage": []}',
  'refusal': (
    b'{"choices": [{"message": {"role": "assistant", "content": null, "refusal": "I can\'t help with that."},'
    b' "finish_reason": "stop"}]}'
  ),
  'filtered': (
    b'{"choices": [{"message": {"role": "assistant", "content": "I was about to"}, "finish_reason": "content_filter"}]}'
  ),
}
