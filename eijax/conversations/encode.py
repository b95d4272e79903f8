"""A conversation in token ids: each assistant turn as a demonstration, as a talk of the policy would have it."""

from eijax.conversations.record import Conversation
from eijax.errors import DataError
from eijax.text.contexts import Demonstration
from eijax.text.ports import ChatFormat


def demonstrations(
    conversation: Conversation, chat_format: ChatFormat, *, thinking: bool, max_tokens: int,
) -> tuple[list[Demonstration], int]:
  """The assistant turns in order, up to the first that does not fit.

  A prompt is what the policy would read at that point: earlier assistant turns stand in it as the ids that were
  demonstrated, without their thoughts. A response ends with the stop token. Whitespace at the ends of a turn is not
  learned: templates differ in whether they keep it.

  Args:
    thinking: learn the thoughts at the head of turns, with the policy's own think tags; else they are left out.
    max_tokens: of prompt and response together.
  Returns:
    (demonstrations, number of turns that did not fit).
  Raises:
    DataError: the chat template refuses the conversation.
  """
  result, seen, own = [], [], []
  for message in conversation.messages:
    if message.role == 'assistant':
      spoken = message.content.strip() if thinking else message.words
      try:
        prompt = chat_format.prompt(seen, own)
        response = chat_format.response(spoken)
      except DataError as error:
        raise DataError(f'{conversation.where}: {error}') from None
      if len(prompt) + len(response) > max_tokens:
        break
      own.append(response)
      result.append(Demonstration(prompt_ids=prompt, response_ids=response))
    content = message.words if message.role == 'assistant' else message.content
    seen.append({'role': message.role, 'content': content})
  return result, conversation.num_replies - len(result)
