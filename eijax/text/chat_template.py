"""A model's own chat template, rendered in a sandbox as transformers does.

Environment (trimmed blocks, loop controls, `generation` blocks, raise_exception,
strftime_now, tojson without escapes). Source:
https://huggingface.co/docs/transformers/chat_templating_writing
"""

from collections.abc import Mapping, Sequence
import datetime
import json
import pathlib
from typing import Any

import jinja2
import jinja2.ext
import jinja2.sandbox

from eijax.errors import DataError


class _Generation(jinja2.ext.Extension):
  """`{% generation %}` marks what the model wrote; here it only opens a scope."""

  tags = {'generation'}

  def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node:
    line = next(parser.stream).lineno
    return jinja2.nodes.Scope(parser.parse_statements(('name:endgeneration',), drop_needle=True), lineno=line)


def _raise_exception(message: str) -> None:
  raise jinja2.TemplateError(message)


def _to_json(value: Any, ensure_ascii: bool = False, indent: int | None = None, separators: tuple | None = None,
             sort_keys: bool = False) -> str:
  return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


class ChatTemplate:
  """A compiled template.

  Args:
    source: Jinja source.
    path: where it stands, for messages.
    variables: what it may read beside the messages, such as bos_token.
    moment: the present that `strftime_now` tells.
  Raises:
    DataError: the source is no Jinja template.
  """

  def __init__(self, source: str, path: pathlib.Path, variables: Mapping[str, Any], moment: datetime.datetime):
    self.source = source
    self.path = path
    self._variables = dict(variables)
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, jinja2.ext.loopcontrols])
    environment.filters['tojson'] = _to_json
    environment.globals.update(raise_exception=_raise_exception, strftime_now=moment.strftime)
    try:
      self._template = environment.from_string(source)
    except jinja2.TemplateSyntaxError as error:
      raise DataError(f'{path}: chat template, line {error.lineno}: {error.message}; download the file again') from None

  def render(self, messages: Sequence[Mapping[str, str]], *, add_generation_prompt: bool, enable_thinking: bool) -> str:
    """The talk as one string.

    Raises:
      DataError: the template refuses the talk, or fails.
    """
    try:
      return self._template.render(
          **{'messages': [dict(message) for message in messages], 'tools': None, 'documents': None,
             'add_generation_prompt': add_generation_prompt, 'enable_thinking': enable_thinking, **self._variables})
    except jinja2.exceptions.SecurityError as error:
      raise DataError(f'{self.path}: the chat template asks for what no template may have ({error}); use another one') from None
    except jinja2.UndefinedError as error:
      raise DataError(f'{self.path}: the chat template needs what a talk does not have ({error}); use another one') from None
    except jinja2.TemplateError as error:
      roles = ', '.join(message['role'] for message in messages)
      raise DataError(f'{self.path}: the chat template refuses a talk of roles {roles}: {error}; '
                            'use a template that takes such talks') from None
    except Exception as error:  # pylint: disable=broad-exception-caught
      # Whatever the expressions of a foreign template may raise.
      raise DataError(f'{self.path}: the chat template fails ({type(error).__name__}: {error}); use another one') from None
