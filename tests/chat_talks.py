"""Talks on which tokenizers are compared: English, Chinese, emoji, and what breaks merges at a boundary."""

SHEETS = {
    'en': '### Background\nYou are Bo, 31, a nurse on nights.\n\n### Facts\n- 14 pages since Friday.\n- The dog is called "Rex".\n',
    'zh': '### 背景\n你是小林，二十九岁，值夜班。\n\n### 已知事实\n- 周五以来一共十四页。\n- 狗叫“豆豆”。',
    'emoji': 'You are Bo 🐶.  Speak briefly 🙏🏽; no lists.',
    'spaced': '  \n\nTwo  spaces,\ttabs and\r\nline ends.  \n\n',
    'short': 'x',
}
LINES = {
    'en': ["I can't do this any more. You said so last week, didn't you?",
           'Fine. And the 1,250 euros?', "Whatever.\n\nJust go, I'll manage."],
    'zh': ['我真的受不了了。你上周不是这么说的吗？', '好吧。那一千二百五十块呢？', '随便。\n\n你走吧，我自己来。'],
    'emoji': ['Really?? 😢😢', '👩‍👧 and 🇩🇪 — who cares 🤷🏽‍♂️', '好吧👍 ok'],
    'spaced': ['  leading and trailing  ', '\n\nnew lines around\n\n', '\ttab,  two  spaces   , three\n \n \n'],
    'odd': ['', '...', 'naïve café e\u0301 ﬁ \u200d\u3000 <b>bold</b> $x_1^2$ {{ user }} {% raw %} [INST] < | >'],
}
REPLIES = {
    'en': ['I hear you, and I am sorry.', "Let's look at it together: 14 pages hurt.", 'I stay.'],
    'zh': ['我在听，对不起。', '我们一起看：十四页确实很多。', '我不走。'],
    'emoji': ['I hear you 💛', '你说得对 🙏', 'ok 👍🏽'],
}


def conversations() -> list[list[dict[str, str]]]:
  """36 talks: with and without a sheet, of one to three rounds, each ending with the user."""
  talks = []
  kinds = list(LINES)
  for number in range(36):
    sheet = [*SHEETS, None][number % (len(SHEETS) + 1)]
    lines, replies = LINES[kinds[number % len(kinds)]], REPLIES[list(REPLIES)[number // 2 % len(REPLIES)]]
    if number % 7 == 6:  # Languages mixed in one talk.
      lines = [LINES[kind][i % 3] for i, kind in enumerate(kinds)][:3]
    talk = [] if sheet is None else [{'role': 'system', 'content': SHEETS[sheet]}]
    rounds = number % 3 + 1
    for i in range(rounds):
      talk.append({'role': 'user', 'content': lines[i]})
      if i + 1 < rounds:
        talk.append({'role': 'assistant', 'content': replies[i]})
    talks.append(talk)
  return talks
