"""Words, sentences and stems: the only view of language that the appraisal has.

English is stemmed with Snowball; Chinese is cut into character pairs, so that the
same set operations serve both.
"""

import functools
import re
import threading

import spellchecker
import Stemmer

_STEMMER = Stemmer.Stemmer('english')
_STEMMER_LOCK = threading.Lock()
_WORD_LIST_LOCK = threading.Lock()
_WORD = re.compile(r"[a-z0-9à-öø-ÿ]+(?:'[a-z]+)*")
_CJK = re.compile(r'[\u4e00-\u9fff]+')
# A full stop between digits ("15.30") and a dotted "a.m." do not end a sentence.
_SENTENCE = re.compile(r'(?<=[.!?…。！？])["”’\')\]]*\s+|(?<=[。！？；])|\n+|;\s+')
_LETTER = re.compile(r'\w')
_CLAUSE = re.compile(
  r'[,:;—–，：；、]|\s-\s|\b(?:but|and|so|because|then|if|when)\b|但是|可是|所以'
)

FUNCTION_WORDS = frozenset(
  """
a about above across after again against all almost already also although always am an and another any
anybody anyone anything are aren't around as at away back be because been before behind being below between
both but by came can can't cannot come could couldn't did didn't do does doesn't doing don't done down during
each either else enough even ever every everybody everyone everything few first for from get gets getting give
go goes going gone got had hadn't has hasn't have haven't having he he'd he'll he's her here here's hers herself
him himself his how how's i i'd i'll i'm i've if in instead into is isn't it it'd it'll it's its itself just
keep last least less let let's like little made make many may maybe me might mine more most much must my myself
near never next no nobody none nor not nothing now of off often on once one only or other our ours out over own
per perhaps put quite rather really right same say says see shall she she'd she'll she's should shouldn't since
so some somebody someone something sometimes soon still such take than that that'd that'll that's the their
theirs them then there there's these they they'd they'll they're they've thing things this those though through
till to today together tomorrow tonight too toward under until up upon us very was wasn't way we we'd we'll we're
we've well went were weren't what what's when where where's whether which while who who's whom whose why will with
without won't would wouldn't yes yet you you'd you'll you're you've your yours yourself
""".split()
)

# Words that any kind sentence may hold: they tie a reply to no situation.
CONVERSATION_WORDS = frozenset(
  """
able afraid agree alone angry answer anymore apologise apologize apology appreciate ask asked bad believe best
better bit bring call care change clear course day deal decide deserve difficult easy else end evening exactly
expect explain face fact fair far feel feeling feelings felt fine find forget forgive friend frustrated
frustrating full gave give given glad good great guess guy happen happened happening happens hard hate hear
heard hello help helped helpful helping hey hi hold honest honestly hope hour hours hurt hurts idea imagine
important interested interesting kind knew know known leave left life like listen listening live long look looking
lot love lovely made make man matter matters mean means meant mind minute minutes mistake moment morning move
need needed needs new nice night offer ok okay open pain part people person place plan please point possible
problem promise question quite ready real reason regret remember rest room sad said sense share sit situation
small someone sorry sound sounds space speak spend start stay step stop story strong stuff sure talk talking tell
telling terrible thank thanks thing things think thinking thought time times tired told took tough tried true
trust truth try trying turn understand understanding understandable upset use used valid wait want wanted wants
week weeks wish woman wonder word words work world worried worry worse worst write wrong year years yesterday
""".split()
)


def normalise(text: str) -> str:
  """Lower-case, with typographic apostrophes and quotes made plain."""
  if text.isascii():
    return text.lower()
  return text.lower().replace('’', "'").replace('‘', "'").replace('“', '"').replace('”', '"')


@functools.lru_cache(maxsize=1 << 16)
def stem(word: str) -> str:
  """Return the Snowball stem of one lower-case word."""
  # A stemmer works on a state of its own: two threads in one would mix their words up.
  with _STEMMER_LOCK:
    return _STEMMER.stemWord(word)


def find_words(text: str) -> list[str]:
  """Return the lower-case Latin words and numbers of a text, in order."""
  return _WORD.findall(normalise(text))


@functools.lru_cache(maxsize=1 << 11)
def words(text: str) -> tuple[str, ...]:
  """The same, remembered: for lines that are looked at again and again."""
  return tuple(find_words(text))


@functools.lru_cache(maxsize=1 << 11)
def stems(text: str) -> tuple[str, ...]:
  """Return stems of Latin words plus character pairs of Chinese runs, in order."""
  found = [stem(word) for word in words(text)]
  if not text.isascii():
    for run in _CJK.findall(text):
      found.extend(run[i : i + 2] for i in range(len(run) - 1) if run[i : i + 2] not in _CJK_COMMON)
  return tuple(found)


@functools.lru_cache(maxsize=1 << 11)
def content_stems(text: str) -> frozenset[str]:
  """Return stems that are neither function nor conversation words."""
  return content(frozenset(stems(text)))


def content(stems_of_text: frozenset[str]) -> frozenset[str]:
  """Of the stems of a text those that are neither function nor conversation words."""
  return frozenset(s for s in stems_of_text - COMMON_STEMS if len(s) > 1)


@functools.lru_cache(maxsize=1 << 14)
def is_english(word: str) -> bool:
  """Whether a lower-case word stands in the word list, in British or American spelling."""
  word = word.removesuffix("'s").removesuffix("s'")
  known = _word_list()
  return word in known or any(
    british.sub(american, word) in known for british, american in _SPELLINGS
  )


def load() -> None:
  """Load the word list, about a second's work, before the first text needs it."""
  _word_list()


def _word_list() -> frozenset[str]:
  # A server's first requests come together: a cache alone would have each of them load the list.
  with _WORD_LIST_LOCK:
    return _loaded_word_list()


@functools.cache
def _loaded_word_list() -> frozenset[str]:
  # The list of a spelling checker; nothing is corrected here.
  return frozenset(spellchecker.SpellChecker(language='en').word_frequency.dictionary)


# British spelling -> the American one that the word list prefers.
_SPELLINGS = tuple((re.compile(british), american) for british, american in (
  (r'our', 'or'),
  (r'is(e[drs]?|ing|ations?)$', r'iz\1'),
  (r're(s|d)?$', r'er\1'),
  (r'lle([drs])|lling$', r'l\1'),
  (r'mme(s)?$', r'm\1'),
  (r'ogue', 'og'),
  (r'ae|oe', 'e'),
  (r'ence$', 'ense'),
  (r'mould', 'mold'),
))


def sentences(text: str) -> list[str]:
  """Cut into sentences (end punctuation kept), empty ones dropped."""
  return [part.strip() for part in _SENTENCE.split(text) if part and _LETTER.search(part)]


def clauses(sentence: str) -> list[str]:
  """Cut a sentence at commas, dashes and conjunctions."""
  return [part for part in _CLAUSE.split(sentence) if part and part.strip()]


def chinese_chars(text: str) -> int:
  """Count Chinese characters."""
  return 0 if text.isascii() else sum(map(len, _CJK.findall(text)))


FUNCTION_STEMS = frozenset(_STEMMER.stemWord(word) for word in FUNCTION_WORDS)
COMMON_STEMS = FUNCTION_STEMS | frozenset(_STEMMER.stemWord(word) for word in CONVERSATION_WORDS)
# Pairs that stand in nearly any Chinese sentence.
_CJK_COMMON = frozenset(
  '我们 你们 他们 她们 什么 怎么 这个 那个 这样 那样 没有 不是 就是 还是 但是 可是 因为 所以 如果 自己 知道 觉得 可以 '
  '现在 时候 已经 一个 一下 一点 不要 不会 真的 是的 是我 是你 你的 我的 他的 她的 的时 我知 我觉 你是 我是 我会 你会 不知 '
  '理解 感受 对不 不起 抱歉 谢谢 帮助 请问 希望 能够 应该 可能 非常 很多 问题 事情 一切 大家 今天 明天 我能 我在 你说 你不 '
  '我不 也不 都不 了我 了你 我也 你也 到你 对你 给你 让你 和你 跟你 我想 你想 我很 你很 很难 难过 起来 出来 过来 这么 那么'.split()
)
