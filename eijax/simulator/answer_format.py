"""The simulator's answer as a JSON schema, for endpoints that can be held to one.

The same keys in the same order as the prompt asks for: what is written first, the reflection,
is what the numbers follow from.
"""

from typing import Any

_STEPS = ('core_need', 'reply_quality', 'inertia_check', 'decision', 'tone', 'rule')


def _object(**properties: dict[str, Any]) -> dict[str, Any]:
  # Strict servers take a schema only with all keys required and no others allowed.
  return {
      'type': 'object', 'properties': properties, 'required': list(properties), 'additionalProperties': False,
  }


# No bounds on the integers: not every server takes them, and the protocol clips in any case.
RESPONSE_FORMAT = {
    'type': 'json_schema',
    'json_schema': {
        'name': 'reaction',
        'strict': True,
        'schema': _object(**{
            'reflection': _object(**{name: {'type': 'string'} for name in _STEPS}),
            'anger_delta': {'type': 'integer'},
            'trust_delta': {'type': 'integer'},
            'reply': {'type': 'string'},
            'continue': {'type': 'string', 'enum': ['yes', 'no']},
            'stop_reason': {'type': 'string'},
        }),
    },
}
