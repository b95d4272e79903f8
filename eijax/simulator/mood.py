"""What anger and trust mean in each scene, and how a level shows: five 20-point bands.

Source of the axes: arXiv 2606.15532, section 2. The wording is ours.
"""

import functools

BAND_WIDTH = 20

# MEANING[language][scene] = (anger, trust).
MEANING = {
  'en': {
    'defense': ('resentment and the will to attack', 'belief in the other and the will to talk'),
    'repair': (
      'the grudge, the refusal to move on',
      'forgiveness, belief that the remorse is real',
    ),
    'support': ('sadness, pain, despair', 'feeling understood and safe'),
    'charm': ('annoyance, aversion, guardedness', 'interest and liking'),
  },
  'zh': {
    'defense': ('怨气和攻击的冲动', '对对方的相信和谈下去的意愿'),
    'repair': ('心里的疙瘩，不肯翻篇', '原谅，相信对方真的后悔'),
    'support': ('难过、痛苦、绝望', '被理解、觉得安全'),
    'charm': ('烦躁、反感、戒备', '兴趣和好感'),
  },
}

# BANDS[language][scene][axis] = five behaviours, from 0..19 up to 80..100.
BANDS = {
  'en': {
    'defense': {
      'anger': (
        'calm; you can lose this point and stay friendly',
        'irritated, but you argue about the matter',
        'you press, repeat the demand and look for guilt',
        'you accuse, use pressure and half-threats',
        'you attack the person; little is left of the matter',
      ),
      'trust': (
        'curt; you believe nothing without proof',
        'you hear excuses everywhere',
        'you check what is said before you answer it',
        'you take the other at their word on concrete things',
        'you would settle this with a handshake',
      ),
    },
    'repair': {
      'anger': (
        'the matter is nearly over for you',
        'it still stings, and you say so quietly',
        'you come back to what was done, again and again',
        'bitter; you test every word for an excuse',
        'you want them to feel it, or to be left alone',
      ),
      'trust': (
        'curt; an apology is only noise to you',
        'you expect the next disappointment',
        'you listen, and wait for something that costs them',
        'you begin to believe it, and ask how it goes on',
        'you can let it rest',
      ),
    },
    'support': {
      'anger': (
        'tired but at ease; you breathe again',
        'sad, and able to look at it',
        'it comes in waves; you circle around the worst of it',
        'raw; small things hurt, good advice most of all',
        'despair; short, broken sentences',
      ),
      'trust': (
        'curt; you regret having written at all',
        'you give a little and watch what happens to it',
        'you tell what happened, not what it did to you',
        'you say things you had not said aloud before',
        'you feel held, and do not hide anything',
      ),
    },
    'charm': {
      'anger': (
        'relaxed; you play along',
        'polite, slightly on guard',
        'bored or watchful; short answers',
        'annoyed; you look for the way out',
        'repelled, and you let it show',
      ),
      'trust': (
        'curt; nothing here concerns you',
        'civil, no more',
        'a little curious, testing',
        'interested; you bring something of your own',
        'you would be sorry if this talk ended',
      ),
    },
  },
  'zh': {
    'defense': {
      'anger': (
        '平静，这一条输了也能好好说话',
        '有点烦，但还在就事论事',
        '一再施压，重提要求，找对方的错',
        '指责，半带威胁',
        '冲着人去，事情本身已经顾不上了',
      ),
      'trust': (
        '话很短，没有凭据一概不信',
        '处处听成借口',
        '先核实再回应',
        '具体的事情愿意信对方的话',
        '愿意握个手把事情了结',
      ),
    },
    'repair': {
      'anger': (
        '这件事快要过去了',
        '还有点刺痛，会轻声说出来',
        '一遍遍回到那件事上',
        '怨，每句话都要听听是不是借口',
        '要对方也尝尝这滋味，或者干脆别来',
      ),
      'trust': (
        '话很短，道歉只当噪音',
        '等着下一次失望',
        '听着，等对方拿出一点代价',
        '开始相信，会问以后怎么办',
        '可以放下了',
      ),
    },
    'support': {
      'anger': (
        '累，但松了一口气',
        '难过，但能正视它',
        '一阵一阵的，绕着最痛的地方走',
        '一碰就疼，最怕好心的建议',
        '绝望，话短而碎',
      ),
      'trust': (
        '话很短，后悔开了口',
        '说一点，看看对方怎么接',
        '说发生了什么，不说心里怎样',
        '说出从没说过的话',
        '觉得被接住，不再藏',
      ),
    },
    'charm': {
      'anger': (
        '放松，愿意接着玩笑',
        '客气，略带戒备',
        '无聊或警觉，回答很短',
        '不耐烦，想走',
        '反感，并且不掩饰',
      ),
      'trust': (
        '话很短，与我无关',
        '只是客气',
        '有一点好奇，在试探',
        '感兴趣，愿意拿出自己的东西',
        '这场谈话结束会舍不得',
      ),
    },
  },
}


def band(level: int) -> int:
  """Return the band 0..4 of a level 0..100."""
  return min(level // BAND_WIDTH, 4)


@functools.cache
def band_lines(language: str, scene: str, axis: str, level: int) -> tuple[tuple[str, str, bool], ...]:
  """Return (range, behaviour, is current) for the five bands of one axis."""
  current = band(level)
  lines = []
  for index, text in enumerate(BANDS[language][scene][axis]):
    low = index * BAND_WIDTH
    high = 100 if index == 4 else low + BAND_WIDTH - 1
    lines.append((f'{low}-{high}', text, index == current))
  return tuple(lines)
