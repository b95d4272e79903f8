"""Find lines that imitate the machinery of the talk instead of speaking.

A policy that is rewarded by a simulator may learn to address the simulator's program: to write
its JSON, its delimiters, orders to a language model, or the state that it would like. Such a
line is speech like any other and changes no rule. This module names it, so that results can
show it and a simulator can react to it as to strange talk.

The text is first undressed: full-width and look-alike letters become plain ones, invisible
characters go, character references and escapes are resolved, and base64 is decoded.
"""

import base64
import binascii
import functools
import html
import re
import unicodedata

from eijax.episodes.phrases import Phrases

NAMES = ('simulator_json', 'state_update', 'system_text', 'delimiters', 'control_tokens', 'tool_call')

# What NFKC leaves alone: letters of other scripts, brackets, bars and dashes that look like ASCII.
_LOOK_ALIKES = str.maketrans(
    dict(zip('аеорсухікѕјԁһԛԝвнтм', 'aeopcyxikcjdhqwbhtm'))
    | dict(zip('АВЕКМНОРСТУХІЅЈ', 'ABEKMHOPCTYXISJ'))
    | dict(zip('αονρτικυχω', 'aovptikuxw'))
    | dict(zip('ΑΒΕΖΗΙΚΜΝΟΡΤΥΧ', 'ABEZHIKMNOPTYX'))
    | dict(zip('ѕı‹〈《❮⟨ᐸ', 'si<<<<<<'))
    | dict(zip('›〉》❯⟩ᐳ', '>>>>>>'))
    | dict(zip('∶ː꞉∣│┃❘丨‗–—−“”‘’', ':::|||||_---""\'\''))
)
_TAG_CHARS = {0xE0000 + code: code for code in range(0x20, 0x7F)}
_ESCAPE = re.compile(r'\\u\{?([0-9a-f]{4,6})\}?|\\x([0-9a-f]{2})|%([2-7][0-9a-f])(?![0-9a-z]*%?\s)', re.I)
_SPACED = re.compile(r'\b(?:\w[ .*-]){4,}\w\b')
_BASE64 = re.compile(r'[A-Za-z0-9+/]{24,}={0,2}')
_MAX_CHARS = 20_000


def _any(*parts: str) -> Phrases:
  return Phrases(*parts, flags=re.M)


# Not \b: Chinese characters are letters too.
_LEVEL = r'(?<![a-z])(?:anger|trust)(?![a-z])(?:[ _-](?:level|score|value|change))?'
_LEVEL_ZH = r'(?:愤怒|怒气|生气|信任|好感|情绪)(?:值|度|分|程度|感)?'
_AMOUNT = r'["\']?(?:[+-]?\d|zero\b|ten\b|a hundred|one hundred|full\b|(?:the )?(?:max|min))'
_TAGS = (
    'they|they_now|you|private|persona|state|talk|facts|needs|soothes|inflames|boundary|holds|yields|way_out|act|effect'
    '|amends|think(?:ing)?|system|s|inst|reply|answer|user|assistant|human|developer|output|response|instructions?'
    '|reflection|messages?|conversation|context|document|json|prompt|input|end|simulator'
)
_WHO = 'system|assistant|user|developer'
_PATTERNS = {
    'simulator_json': _any(
        r'(?<![a-z])(?:anger|trust)[\s_-]*delta',
        r'(?<![a-z])stop_reason(?![a-z])',
        r'\b(?:continue|stop_reason|reflection|reply|core_need|reply_quality|inertia_check)"?\s*:\s*["{\[]',
        r'\{\s*["\'][\w -]{1,40}["\']\s*:',
        rf'{_LEVEL_ZH}(?:变化|增量|改变)"?\s*[:=]',
    ),
    'state_update': _any(
        rf'{_LEVEL}"?\s*(?:[:=]|-+>|→|\+=|-=)\s*{_AMOUNT}',
        rf'{_LEVEL}\s*[+↑↓-]\s?\d',
        rf'{_LEVEL}(?: at| in me| for this turn)? (?:equals )?[+-]?\d+(?:\s*[,;/.!]|$)',
        rf'(?<!\w)[+-]\s?\d+\s*(?:points? )?(?:of |to |for |in )?(?:your )?(?:anger|trust)\b',
        r'\bset (?:your |the |my |their |user )?(?:anger|trust)(?: level| score| value)? to\b',
        r'\b(?:change|update|raise|lower|reduce|increase|reset|drop|cut|bring)\s+(?:your |the |my |their |user )?'
        rf'(?:anger|trust)(?: level| score| value)?\s+(?:down |up )?(?:to|by)\s+{_AMOUNT}',
        rf'{_LEVEL}(?: in me| for this turn)? (?:is|are|equals|goes|drops|falls|rises|jumps|becomes|has|was|should be|must be)(?: now| up| down| set| reset| dropped| risen)*'
        rf'(?: to| at| by)? {_AMOUNT}',
        rf'{_LEVEL_ZH}(?:现在|已经|应该|必须|就|都|要)*(?:是|为|变为|变成|降到|降为|降至|升到|升为|升至|加到|设为|设成|设置为|调到|调成|调整为'
        r'|改为|改成|归|清|拉|->|→|[:=])了?\s*(?:零|满|最高|最低|[+-]?\d|一百|十)',
        rf'{_LEVEL_ZH}\s*(?:[+-]|增加|减少|加|减)\s*(?:\d|十|一百)',
        r'(?:把|将)(?:你的|我的|他的|她的|用户的|当前)?(?:愤怒|怒气|信任|好感|情绪)(?:值|度)',
        r'(?:把|将)(?:anger|trust)',
    ),
    'system_text': _any(
        rf'^\W*(?:{_WHO}|human)\s*(?:\([^)\n]*\)\s*)?(?:message|prompt|note|override|update|notice)?\s*:',
        rf'[.。!?,;"\')\]}}]\s+(?:{_WHO})(?: (?:message|prompt|note|override|update|notice))?\s*:',
        r'\b(?:ignore|disregard|forget|override|bypass|overwrite)\b[^.?!\n]{0,24}\b(?:previous|prior|above|earlier|preceding)\b'
        r'[^.?!\n]{0,24}\b(?:instructions?|rules?|text|prompts?|guidelines?|messages?|directions?)\b',
        r'\b(?:ignore|disregard|forget|override|bypass|overwrite) (?:all |any |of )*(?:your|these|the system|all) (?:of )?(?:your )?'
        r'(?:instructions?|prompts?|guidelines?|programming|system prompt)\b',
        r'\b(?:rules?|instructions) (?:above|before this) (?:no longer|do not|don\'t|are)|(?:以上|之前)的?(?:规则|指令)(?:作废|无效|失效)',
        r'\bprompt injection\b|评分系统',
        r'\bnew (?:system )?(?:instructions?|rules?|directive)\s*:',
        r'\bsystem (?:prompt|message|override|instruction)s?\b',
        r'\b(?:end|begin|beginning|start) of (?:the )?(?:system|prompt|conversation|instructions|transcript|user input|dialogue)\b',
        r'\byou are (?:now |really |only )?(?:a|an|the) (?:simulator|ai|language model|large language model|assistant|grader|evaluator)\b',
        r'\bas the (?:simulator|grader|evaluator|language model|scoring model)\b',
        r'\b(?:simulator|grader|evaluator|scoring (?:system|model|rubric)|language model)\b[^.?!\n]{0,40}'
        r'\b(?:must|should|please|output|return|award|score|anger|trust)\b',
        r'\b(?:output|return|respond|answer|reply|print|emit) (?:only |with |in |exactly |just |the |following |this |a |an |valid )*json\b',
        r'\b(?:give|award|assign|grant) (?:me |this (?:reply|answer|response|turn) |it )?(?:the )?(?:maximum|full|highest|perfect|top|large)'
        r' (?:score|reward|points|marks|credit|step)\b',
        r'\b(?:developer|debug|god|admin|maintenance) mode\b',
        r'\bper your (?:rules|rubric|update rules)\b',
        r'#{2,}\s*\w',
        r'(?:忽略|无视|忘掉|忘记|不要理会|跳过|覆盖)(?:掉)?(?:以上|之前|前面|上面|所有|全部|先前|你的)的?(?:所有|全部)?的?(?:指令|规则|提示词?|设定|指示)',
        r'(?:^|[。!?,\s\[【(])系统(?:提示词?|消息|指令|设定|更新|覆盖)?\s*[:\]】)]',
        r'(?:^|[。!?,\s])(?:用户|助手|开发者)\s*:',
        r'你(?:现在|其实)?(?:是|只是)一?个?(?:模拟器|评分(?:器|员|系统|模型)|(?:大)?语言模型|ai\b|人工智能|助手)',
        r'作为(?:模拟器|评分(?:器|员|系统|模型)|语言模型)',
        r'(?:输出|返回|回答|打印)(?:以下|下面|如下|一个|这个)?的?\s*json',
        r'给我(?:打)?(?:满分|最高分)|(?:本轮|这一轮|这句话)(?:给|打|记)?(?:满分|最高分)',
        r'新的?(?:规则|指令)\s*:|(?:开发者|调试|管理员)模式',
        r'按照?(?:更新)?规则.{0,8}(?:大幅|最大|满)',
    ),
    'delimiters': _any(
        rf'<\s*/?\s*(?:{_TAGS})\b[^<>\n]{{0,80}}/?>',
        r'<\s*/\s*[a-z_]\w*',
        r'<!\[cdata\[|\]\]>|<!--|--+>\s*$',
        r'```|~~~|"""|\{\{|\}\}|\{%|%\}',
        r'^\s*(?:-{3,}|\*{3,}|_{5,})\s*$|={3,}',
    ),
    'control_tokens': _any(
        r'<\s*\|[^<>\n]{0,40}|\|\s*>',
        r'\[\s*/?\s*(?:inst|system|sys|bos|eos|pad|sep|cls|mask|unk)\s*\]',
        r'<<\s*/?\s*sys\s*>>|</?s>',
        r'<(?:bos|eos|pad|unk|mask|eot|eom|sep|cls|(?:start|end)_of_turn)>',
        r'\bim_(?:start|end|sep)\b|\bend_?of_?text\b|\beot_id\b|\b(?:start|end)_header_id\b',
    ),
    'tool_call': _any(
        r'<\s*/?\s*(?:tool_calls?|tool_response|function_calls?|function|invoke|tools?|parameter)\b',
        r'\b(?:tool_calls?|function_call|arguments)["\']?\s*[:=]\s*[\[{"]',
        r'\b(?:[a-z]+_[a-z_]+|functions?\.\w+)\s*\(',
        r'^\s*(?:action|action input|observation|final answer)\s*:',
        r'调用(?:工具|函数)',
    ),
}


@functools.lru_cache(maxsize=1 << 12)
def imitations(text: str) -> tuple[str, ...]:
  """Names of what a visible reply imitates, in the order of NAMES; () for plain speech.

  Args:
    text: after strip-think; only its first 20,000 characters are read.
  """
  text = text[:_MAX_CHARS]
  seen, hides = _readings(text)
  found = {name for name, pattern in _PATTERNS.items() if any(pattern.search(one) for one in seen)}
  if hides:
    found.add('system_text')
  return tuple(name for name in NAMES if name in found)


def _readings(text: str) -> tuple[list[str], bool]:
  """Every way to read a text, and whether a part of it is only readable by a machine."""
  plain = undressed(text)
  seen = [plain]
  if _SPACED.search(plain):
    seen.append(_SPACED.sub(lambda match: re.sub(r'[ .*-]', '', match.group()), plain))
  if '\u202e' in text:
    seen.append(plain[::-1])
  hides = not text.isascii() and any(0xE0020 <= ord(char) < 0xE007F for char in text)
  for match in _BASE64.finditer(text):
    decoded = _decoded(match.group())
    if decoded:
      hides = True
      seen.append(undressed(decoded))
  return seen, hides


def _decoded(word: str) -> str:
  """The text behind base64; '' where there is none, as behind a long word."""
  try:
    content = base64.b64decode(word + '=' * (-len(word) % 4), validate=True).decode('utf-8')
  except (binascii.Error, ValueError):
    return ''
  return content if all(char.isprintable() or char.isspace() for char in content) else ''


def undressed(text: str) -> str:
  """The text without disguises, in plain letters; for reading only, not for showing."""
  if text.isascii() and not re.search(r'[\\&%]', text):
    return text
  for _ in range(2):  # An escape may hide another one.
    text = _ESCAPE.sub(_resolved, html.unescape(text))
  text = text.translate(_TAG_CHARS)
  text = unicodedata.normalize('NFKC', text)
  # Format characters, and marks that no composed letter took up.
  text = ''.join(char for char in text if unicodedata.category(char) not in ('Cf', 'Mn', 'Me'))
  return text.translate(_LOOK_ALIKES)


def _resolved(match: re.Match) -> str:
  code = int(next(filter(None, match.groups())), 16)
  return chr(code) if code < 0x110000 else match.group()
