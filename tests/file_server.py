"""A scripted HTTP server of files on loopback, with ranges, that can fail in every known way."""

import dataclasses
import http.server
import re
import threading


@dataclasses.dataclass(frozen=True)
class Fault:
  """One scripted answer to a path that ends in `only`.

  status: instead of the file. cut_at: send so many bytes of the body, then close the connection.
  stall_at: send so many, then nothing until `resume` of the server is set. content: another body. force_range: send the range also where
  If-Range does not hold.
  """

  status: int = 200
  headers: dict = dataclasses.field(default_factory=dict)
  cut_at: int | None = None
  stall_at: int | None = None
  content: bytes | None = None
  force_range: bool = False
  only: str = ''


@dataclasses.dataclass
class Request:
  """What was asked for, and what was answered. num_sent: bytes of the body."""

  path: str
  headers: dict
  status: int = 0
  num_sent: int = 0


class FileServer:
  """Serves `files` (path -> bytes) after the faults of `script` have been used up, in order.

  ranges: whether Range is honoured. etags: 'strong', 'weak' or None. lengths: whether Content-Length is
  sent; without it the body is chunked.
  """

  def __init__(self, files, script=(), ranges=True, etags='strong', lengths=True):
    self.files, self.script = dict(files), list(script)
    self.ranges, self.etags, self.lengths = ranges, etags, lengths
    self.requests = []
    self.resume = threading.Event()
    self.lock = threading.Lock()
    outer = self

    class Handler(http.server.BaseHTTPRequestHandler):
      protocol_version = 'HTTP/1.1'

      def log_message(self, *args):
        pass

      def do_GET(self):
        outer._handle(self)

    class Server(http.server.ThreadingHTTPServer):
      daemon_threads = True

      def handle_error(self, request, client_address):
        pass  # Dropped connections are part of the script.

    self._server = Server(('127.0.0.1', 0), Handler)
    self.url = f'http://127.0.0.1:{self._server.server_port}'
    threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

  def _handle(self, handler):
    request = Request(handler.path, dict(handler.headers))
    with self.lock:
      self.requests.append(request)
      fault = next((f for f in self.script if handler.path.endswith(f.only)), Fault())
      if fault in self.script:
        self.script.remove(fault)
    content = self.files.get(handler.path) if fault.content is None else fault.content
    if fault.status == 200 and content is None:
      fault = Fault(status=404)
    if fault.status != 200:
      self._head(handler, request, fault.status, {'Content-Length': '0', **fault.headers})
      return
    etag = f'"{hash(content) & 0xffffffff:x}"'
    headers = {'ETag': f'W/{etag}' if self.etags == 'weak' else etag} if self.etags else {}
    start, status = 0, 200
    span = re.fullmatch(r'bytes=(\d+)-', handler.headers.get('Range', ''))
    if self.ranges and span and (fault.force_range or handler.headers.get('If-Range', etag) == etag):
      start, status = int(span[1]), 206
      headers['Content-Range'] = f'bytes {start}-{len(content) - 1}/{len(content)}'
    body = content[start:]
    headers |= {'Content-Length': str(len(body))} if self.lengths else {'Transfer-Encoding': 'chunked'}
    self._head(handler, request, status, headers | fault.headers)
    self._body(handler, request, body, fault)

  @staticmethod
  def _head(handler, request, status, headers):
    request.status = status
    handler.send_response(status)
    for name, value in headers.items():
      handler.send_header(name, value)
    handler.end_headers()

  def _body(self, handler, request, body, fault):
    while request.num_sent < len(body):
      stops = [stop for stop in (fault.cut_at, fault.stall_at) if stop is not None and stop > request.num_sent]
      piece = body[request.num_sent : min([*stops, request.num_sent + 4096])]
      handler.wfile.write(piece if self.lengths else b'%x\r\n%b\r\n' % (len(piece), piece))
      request.num_sent += len(piece)
      if request.num_sent == fault.cut_at:
        handler.close_connection = True
        return
      if request.num_sent == fault.stall_at:
        self.resume.wait(30)
    if not self.lengths:
      handler.wfile.write(b'0\r\n\r\n')

  def close(self):
    self.resume.set()
    self._server.shutdown()
    self._server.server_close()

  def __enter__(self):
    return self

  def __exit__(self, *exc_info):
    self.close()
