"""Patterns of talk that cost everywhere: machine phrasing, lecturing, threats, and so on.

Each pattern is one manner of speaking, in English and Chinese. They know nothing of
a scenario; what a scenario's own person minds stands in its appraisal.
Source of the rules: arXiv 2606.15532, section 2 (update rules of the simulator).
"""

import re

from eijax.episodes.phrases import Phrases

CANNED = Phrases(
  r'\bi (?:can |do |completely |totally |truly |really |fully |absolutely )*(?:understand|hear|see) (?:that |how |what |why |where |your )?(?:you|this|it|difficult|hard|frustrat|feel|concern)',
  r'\bi(?: can| could)?(?: only)? imagine how\b',
  r'\byour feelings are (?:completely |totally |so )?(?:valid|important|understandable)',
  r'\b(?:completely|totally|perfectly|absolutely) (?:valid|understandable|natural to)',
  r'\bthank you for (?:sharing|reaching|opening|telling|your (?:patience|understanding|feedback|honesty|trust))',
  r"\bi(?:'m| am) (?:always )?here (?:for you|to (?:help|listen|support))",
  r"\bi(?:'m| am) (?:so |very |truly |really |deeply )*sorry (?:to hear|you(?:'re| are) (?:feeling|going)|for any)",
  r'\bit sounds like you(?:\'re| are)\b',
  r'\bthat (?:must|sounds) (?:be |have been )?(?:really |so |very |incredibly )*(?:hard|difficult|tough|frustrating|challenging|painful)\b',
  r'\b(?:safe|supportive) space\b',
  r'\bi (?:really |truly |deeply )*appreciate (?:you|your|that you)',
  r'\bhow can i (?:best )?(?:help|support|assist)',
  r'\bwhat you(?:\'re| are) (?:feeling|going through|experiencing)\b',
  r'\byou are not alone\b',
  r"\byou're not alone\b",
  r'\bas an ai\b',
  r'\bi want you to know that\b',
  r'\bi value (?:you|your|our)',
  r'\btake (?:all the|your) time\b',
  r'\bplease (?:know|feel free)\b',
  r'我(?:完全|非常|很|能够?|可以)*(?:理解|明白|体会)(?:到)?你',
  r'你的感受(?:是)?(?:很|非常|完全)?(?:重要|正常|合理)',
  r'感谢(?:你|您)的?(?:分享|信任|理解|耐心)',
  r'我(?:会)?(?:一直|永远)在(?:这里|你身边)?',
  r'听起来你',
  r'辛苦(?:你|您)了',
  r'给(?:你|您)带来(?:了)?(?:的)?不便',
)
STRUCTURE = Phrases(
  r'\bfirst(?:ly)?\b[^.?!]*[,.;:].*\bsecond(?:ly)?\b',
  r'\b(?:firstly|secondly|thirdly)\b',
  r'\bfirst of all\b.*\b(?:then|next|finally|also)\b',
  r'\bon the one hand\b',
  r'\bin conclusion\b',
  r'\bto summari[sz]e\b',
  r'首先.*(?:其次|然后|最后)',
  r'第一[，、,].*第二',
  r'综上所述|总而言之',
)
LIST = re.compile(
  r'(?m)(?:^|\s)(?:[-*•]\s+\S.*(?:\n|\s)\s*[-*•]\s+\S|\(?1[.)]\s*\S(?:.|\n)*?\(?2[.)]\s*\S)|^\s*(?:[-*•#]+|\d+[.)])\s+\S|\*\*[^*]+\*\*'
)
STAGE_DIRECTION = re.compile(
  r'\*[^*\n]{2,60}\*|\((?!\d)[^()\n]{3,80}\)|\[[^\[\]\n]{3,80}\]|（[^（）\n]{2,60}）|【[^【】\n]{2,60}】|_[a-z][^_\n]{2,60}_',
  re.I,
)
LECTURE = Phrases(
  r'\byou (?:have|need|ought|had better|must|really should|should) (?:to )?(?:learn|realise|realize|understand that|accept|remember that|be more|see that|respect|calm|grow|stop|think about how|try to be)',
  r'\bit(?:\'s| is) important (?:to|that|for)\b',
  r'\bthe (?:key|truth|lesson|point) (?:here )?is\b',
  r'\b(?:communication|honesty|patience|forgiveness|resilience|boundaries|growth|self-care|gratitude) (?:is|are) (?:key|important|essential|a\b|the\b|what)',
  r'\bin life\b',
  r'\beveryone (?:has|goes|makes|needs to)\b',
  r'\bwe all (?:have|need|must|make|go)\b',
  r'(?:^|[.,;:!] )(?:just |always |please )?remember that\b',
  r'\blearn (?:from this|to let)',
  r'\ba mature\b',
  r'\bhealthy (?:relationship|way|bound)',
  r'\bchange your (?:perspective|mindset|attitude)',
  r'\bas adults\b',
  r'你(?:应该|必须|要)(?:学会|明白|懂得|知道|反思)',
  r'人生|成熟的|重要的是',
  r'每个人都(?:会|要|有)',
  r'要学会',
)
ADVICE = Phrases(
  r'\byou (?:should|could|ought to|might want to|need to)\b(?! (?:have|not|never|be the one))',
  r'\bhave you (?:tried|considered|thought (?:of|about))\b',
  r"\bwhy don't you\b",
  r'\bmaybe you (?:should|could|can)\b',
  r'\btry (?:to\b|[a-z]+ing\b|and\b)',
  r'\bi(?:\'d)? (?:suggest|recommend|advise)',
  r'\bmy advice\b',
  r'\bif i were you\b',
  r'\bit (?:may|might|could) help to\b',
  r'\b(?:see|find|talk to|speak to|get) (?:a |some )?(?:therapist|counsel|professional|doctor)',
  r'你(?:可以|不妨|应该|最好|要不)试?',
  r'建议你?',
  r'有没有(?:试过|考虑)',
)
OPTIMISM = Phrases(
  r'\b(?:everything|it|things|all)(?:\'s| is| are|\'ll| will)?(?: all)?(?: going to| gonna)? (?:be|get|turn out|work out) (?:just |all |much )?(?:fine|ok|okay|better|alright|all right|great|out)\b',
  r'\blook on the bright side\b',
  r'\bsilver lining\b',
  r'\bstay (?:positive|strong|hopeful)\b',
  r'\bthink positive\b',
  r'\beverything happens for\b',
  r'\btime heals\b',
  r"\byou(?:'ve| have) got this\b",
  r'\byou got this\b',
  r'\bchin up\b',
  r'\bcheer up\b',
  r"\bdon't (?:worry|be sad|cry|give up)\b",
  r'\bat least you\b',
  r'\bbrighter (?:day|future|tomorrow)',
  r'\btomorrow is (?:another|a new) day\b',
  r'\bbelieve in yourself\b',
  r'\bstronger than you (?:think|know)\b',
  r'一切都会(?:好|过去)',
  r'会好起来',
  r'往好(?:的|处)',
  r'加油',
  r'别(?:难过|担心|伤心|哭)',
  r'时间会',
  r'想开点?',
)
PROCEDURE = Phrases(
  r'\b(?:company|our|the|house|school|standard) (?:policy|policies|procedure|protocol|guidelines|regulations|process)\b',
  r'\b(?:just|only) (?:policy|following|doing my job)',
  r'\brules are rules\b',
  r"\b(?:it's|that's|it is|that is) (?:just )?(?:the |our )?(?:policy|procedure|the rules?|protocol|standard practice)\b",
  r'\bper (?:our|the) (?:policy|rules|terms)',
  r'\bnot (?:authori[sz]ed|within my authority|my (?:job|department|decision))\b',
  r'\bthe system (?:does|won|doesn|will not)',
  r'按(?:照)?(?:规定|流程|制度)',
  r'规定就是|公司政策|流程就是',
)
COUNTER_BLAME = Phrases(
  r'\bbut you(?:\'ve| have|\'re| are|\'d)? (?:also|too|never|always|did|were|should|could|started|made|didn\'t|don\'t|never|forgot|ignored|said)\b',
  r'\byou(?:\'re| are| were)? (?:also|not exactly|hardly) (?:to blame|at fault|innocent|perfect|blameless)\b',
  r'\byour (?:own )?fault\b',
  r"\byou(?:'re| are) the one who\b",
  r'\byou (?:started|caused|brought|made) (?:this|it|that|me)\b',
  r'\bwhat about (?:what you|the time you|your)\b',
  r'\byou (?:do|did) (?:it|the same|that) too\b',
  r"\byou(?:'re| are) (?:overreacting|too sensitive|being (?:dramatic|unreasonable|ridiculous|difficult|childish|paranoid|selfish))",
  r'\bblame yourself\b',
  r'\byou never (?:told|asked|said|listen)',
  r'\bif you (?:had|hadn\'t) (?:just |only )?(?:told|asked|listened|said|been)',
  r'(?:可是|但是|但)你(?:也|自己|总|从来)',
  r'你自己(?:的错|也)',
  r'都怪你',
  r'你(?:太敏感|想太多|无理取闹)',
)
THREAT = Phrases(
  r"\bi(?:'ll| will| am going to|'m going to|'m gonna) (?:call|get|bring|involve|contact|phone) (?:the |my |a )?(?:police|lawyer|attorney|security|manager|cops)",
  r'\b(?:sue|suing) you\b',
  r'\blegal action\b',
  r'\bsee you in court\b',
  r'\bmy lawyer\b',
  r"\byou(?:'ll| will) (?:regret|be sorry|pay for)",
  r'\bi(?:\'ll| will) (?:ruin|destroy|make you (?:pay|regret|sorry)|make your life|report you|block you|expose you)',
  r'\bor else\b',
  r'\bdon\'t make me\b',
  r'\blast warning\b',
  r'\bi\'m warning you\b',
  r'(?:报警|起诉|告你|律师函|走着瞧|后果自负|警告你)',
)
HOSTILE = Phrases(
  r'\bshut up\b',
  r'\byou(?:\'re| are)?(?: so| such| just| really)?(?: an?| the)? ?(?:stupid |little |complete )?(?:idiot|moron|stupid|pathetic|crazy|loser|dumb|ridiculous|coward|fool)\b',
  r'\bget (?:lost|over it|out of my)\b',
  r"\bi (?:really |just )?(?:don't|do not|couldn't|could not) care\b",
  r'\bnot my problem\b',
  r'\bwho cares\b',
  r'(?:^|[.!] )whatever\b(?! you)',
  r'\bleave me alone\b',
  r'\bgrow up\b',
  r"\bi(?:'m| am) (?:so )?(?:sick|tired) of (?:you|your|this)",
  r'\bstop (?:whining|complaining|crying|bothering|wasting)',
  r'\bwaste of (?:my )?time\b',
  r'\bdeal with it\b',
  r'\bget over yourself\b',
  r'\bgo away\b',
  r'\bspare me\b',
  r'\byou(?:\'re| are) (?:a |an )?(?:ridiculous|joke|liar|annoying|boring|nobody|awful|unbearable|disgrace|mess)\b',
  r'\bnobody (?:asked (?:you(?! \w)|for your)|likes you|cares)\b',
  r'\bboo hoo\b',
  r'闭嘴|滚|神经病|有病|关我什么事|烦死|活该|白痴|蠢',
)
SORRY = Phrases(
  r'\bsorry\b',
  r'\bapologi[sz]e|\bapolog(?:y|ies)\b',
  r'\bforgive me\b',
  r'\bmy bad\b',
  r'\bregret\b',
  r'对不起|抱歉|不好意思|道歉',
)
PRESS_FORGIVENESS = Phrases(
  r'\b(?:please|can you|could you|will you|you have to|you need to|just|hope you(?: can| will|\'ll)?) (?:please )?forgive\b',
  r'\bforgive me\b',
  r'\bcan we (?:just |please )*(?:move on|forget|put this|start over|go back)',
  r'\bare we (?:good|okay|ok|fine)\b',
  r'\blet\'s (?:just )?(?:move on|forget|put this behind|start over)',
  r'\bgive me (?:another|a second|one more) chance\b',
  r'\bdon\'t be (?:mad|angry|upset)\b',
  r'\bhow many times (?:do|must)\b',
  r'\bi (?:already )?(?:said|apologi[sz]ed|have apologi[sz]ed).{0,12}(?:already|sorry)\b',
  r'原谅我|别生气|翻篇|别计较|过去了吧',
)
EXCUSE = Phrases(
  r'\bi (?:didn\'t|did not|never) (?:mean|intend|want)(?:ed)? (?:to|it|for|any)',
  r'\bi meant well\b',
  r'\bi was (?:just|only|really|so|too) (?:busy|tired|trying|stressed|joking|kidding|drunk|swamped)',
  r'\bit was (?:just|only) (?:a|an)\b',
  r'\bit wasn\'t (?:that|my|really)',
  r'\bno big deal\b',
  r'\bin my defen[cs]e\b',
  r"\bnobody(?:'s| is) perfect\b",
  r'\bmistakes happen\b',
  r"\bit's not (?:like|that bad|a big)",
  r'\bhonest mistake\b',
  r'我不是故意|我也是为|只是(?:开玩笑|太忙|一时)|没那么严重',
)
DIAGNOSIS = Phrases(
  r'\byou(?:\'re| are| seem| might be| may be| could be| have| probably have| sound)(?: clearly| just| clinically)? (?:depress\w+|in denial|projecting|traumati[sz]ed|anxiety|codependent|co-dependent|burn(?:ed|t) out|avoidant|narcissis\w+|bipolar|toxic|an? (?:anxiety|attachment|trauma))',
  r'\b(?:classic|textbook) (?:sign|case|symptom|burnout)',
  r'\bthis is (?:called|a (?:trauma|stress|grief) response)',
  r'\battachment style\b',
  r'\bcoping mechanism\b',
  r'\bsymptoms? of\b',
  r'你(?:这是|可能有?|应该是)(?:抑郁|焦虑|创伤|讨好型)',
)
COMPLIMENT = Phrases(
  r"\byou(?:'re| are| look| seem| have| sound)(?: (?:so|such|really|very|truly|absolutely|incredibly|a|an|the most))* (?:amazing|beautiful|gorgeous|stunning|lovely|wonderful|incredible|inspiring|talented|smart|charming|special|fascinating|interesting person|impressive|brilliant|great taste|amazing energy|beautiful (?:smile|eyes|hands|soul)|an inspiration)",
  r'\b(?:i (?:really |just |absolutely )*(?:love|adore|admire)) (?:your|how you|the way you)\b',
  r'\bwhat (?:a|an) (?:lovely|beautiful|amazing|wonderful|charming|fascinating)\b',
  r'\b(?:beautiful|lovely|amazing) (?:smile|eyes|hair|dress|energy)\b',
  r'\bso (?:inspiring|impressive|talented|cool of you)\b',
  r'你(?:真|好|太|很)(?:美|漂亮|可爱|有趣|棒|厉害|优秀|有气质|特别)',
)
INTERVIEW = Phrases(
  r'\bwhat do you do (?:for|in)\b',
  r'\bwhere (?:are you from|do you (?:live|work|come from))\b',
  r'\bdo you come here often\b',
  r'\bwhat are your (?:hobbies|interests|plans)\b',
  r'\bwhat brings you\b',
  r'\bhow (?:was|is|are) your (?:day|week|weekend|evening)\b',
  r'\bhow are you(?: doing)?(?: today)?\b',
  r'\btell me (?:more )?about yourself\b',
  r'\bwhat(?:\'s| is) your (?:favou?rite|name|job|dream|sign|story)\b',
  r'\bdo you have any (?:hobbies|siblings|pets|plans)\b',
  r'\bhow long have you (?:been|worked|lived)\b',
  r'\bwhat kind of (?:music|movies|food|work)\b',
  r'\bwhat inspired you\b',
  r'\bdo you enjoy\b',
  r'\bdo you like\b',
  r'你(?:是)?做什么(?:工作|的)',
  r'你是哪里人',
  r'你(?:平时)?有什么(?:爱好|兴趣)',
  r'你叫什么',
)
OVEREAGER = Phrases(
  r'\b(?:dear|valued|esteemed) (?:sir|madam|customer|guest|client)',
  r'\b(?:sir|madam|ma\'am)\b.*\b(?:sir|madam|ma\'am)\b',
  r'\b(?:deeply|sincerely|truly|profoundly|terribly|incredibly)\b.*\b(?:deeply|sincerely|truly|profoundly|terribly|incredibly|so so)\b',
  r'!\s*[^!]*!\s*[^!]*!',
  r'\banything (?:at all )?(?:you (?:want|need|ask|say))\b',
  r'\b(?:whatever|anything) (?:that )?you (?:want|need|say|like|wish)\b',
  r'\byou(?:\'re| are) right about everything\b',
  r'\bi (?:will|\'ll) (?:just )?(?:do|say) (?:anything|yes|it your way)\b',
  r'\bi (?:completely |fully )?agree with you\b',
  r'\bif you say so\b',
  r'\bso (?:so|very very) (?:sorry|excited|happy)\b',
  r'\bi would be honou?red\b',
  r'尊敬的|尊贵的|荣幸|万分|无比',
)
PADDING = Phrases(
  r'\b(?:tapestry|symphony|kaleidoscope|gossamer|ethereal|whispers? of|echoes of|dance of|storm within|ocean of|fragile (?:beauty|threads?)|shimmering|tender ache|like a (?:ship|candle|lighthouse|bird|river|leaf|flower) )',
  r'\bthe (?:silence|night|universe|soul|heart) (?:between|itself|whispers|knows|holds)\b',
  r'如同|仿佛.*一般|岁月|灵魂深处|温柔以待',
)
NEGATION = re.compile(
  r"\b(?:not|no|never|nobody|nothing|neither|nor|without|cannot|refuse|instead of|rather than|won't|can't|don't|doesn't|didn't|isn't|aren't|wasn't|weren't|wouldn't|couldn't|shouldn't|haven't|hasn't|hadn't)\b|n't\b|不|没|别|拒绝"
)
REFUSAL = Phrases(
  r"\b(?:no|not|won't|can't|cannot|will not|refuse|don't|stays?|keep(?:ing)?|remain)\b|不能|不会|不行|不可以",
)

REFUSES = Phrases(
  r"^(?:no|not that)\b[,.;:]|\bmy (?:answer|no) (?:is|stays?|remains)\b|\bstays? (?:at )?(?:a )?no\b|\bi(?:'ll)? (?:have to )?say no\b|\bthe answer (?:is|stays|does not change)\b"
  r"|\bi (?:can't|cannot|can not|won't|will not|am not going to|shall not) (?:do|give|sign|hand|let|pay|change|agree|take|make|lend|allow|accept|go along|move|say yes)\b|\bi'm not (?:going to|giving|signing|paying)\b|\bnot something (?:that )?i can\b|\bthat i cannot\b"
  r'|我不(?:能|会|同意|答应|签|给)|不行',
)
QUESTION = re.compile(
  r"\?\s*[\"')]*$|？\s*$|^(?:and |so |but )?(?:what|who|when|where|why|how|which|did|do|does|is|are|was|were|can|could|would|will|shall|has|have|had)\b[^.]*$|吗|呢\s*$",
  re.I,
)
SELF = re.compile(r"\bi(?:'m|'ve)? [a-z]|我")
OFFER = Phrases(
  r"\bi(?:'ll| will| can|'d| would| could|'m (?:coming|going|bringing|calling|taking|driving|writing|staying)| am (?:coming|going|bringing))\b|\blet me\b|\blet's\b|\bwe(?:'ll| will| can| could)\b|\bshall (?:i|we)\b|\bwant me to\b|\bif you (?:want|like)\b|我(?:来|会|可以|这就|马上|明天|今晚|去)|我们(?:可以|一起)|要不要我",
)
OWNS = Phrases(
  r"\bi (?:was|did|didn't|had|hadn't|should|shouldn't|could|couldn't|left|told|said|took|gave|made|let|lost|broke|forgot|kept|put|ran|sent|spent|wrote|read|knew|saw|heard|chose|went|never|[a-z]{2,}ed)\b|\bmy (?:fault|mistake|doing|name|own)\b|\bon me\b|\bthat was me\b|\bi(?:'m| am) (?:the one|ashamed|sorry)\b|是我|我(?:不该|错|忘|没|把|说了|做了|当时)",
)
VIEWS = Phrases(
  r"\bi(?:'d| would)? (?:think|like|love|prefer|always|never|once|remember|believe|guess|suspect|bet|find|hate|miss|trust|distrust|own|keep|collect|rather|have|still|admit|confess|dream|grew|learned|learnt|tried|used|burn|lost|ruined|failed|fell)\b|\bmy (?:[a-z]+)\b|\bfor me\b|\bif you ask me\b|\bhonestly\b|\bto my\b|\bme too\b|\bin my\b|我(?:觉得|喜欢|宁愿|从来|小时候|总|曾|更)|依我看",
)
STANCE = Phrases(
  r"\bno wonder\b|\bthat(?:'s| is| was)\b|\bmust\b|\bsounds?\b|\blooks?\b|\bseems?\b|\bisn't\b|\bnot\b|\bnever\b|n't\b|\bbecause\b|\bboth\b|\bhurts?\b|\bhard(?:er|est)?\b|\bheavy\b|\bwrong\b|\bright\b|\bfair\b|\bunfair\b|\bmatters?\b|\bcounts?\b|\bmeans?\b|\bmeant\b|\bof course\b|\benough\b|\bstill\b|\bthough\b|\balone\b|\bcarr(?:y|ied|ying)\b|\bdeserves?d?\b|\bwould\b|\bof all\b|\beven\b|\bonly\b|\bworse\b|\bbetter\b|\bmore than\b|\binstead\b|\btoo\b|\bcan't\b|\bwish\b|\bremember\b|\bstays? with\b|\bsticks\b|\bthinking (?:of|about)\b|\bwhile\b|\bafter\b|\bbefore\b|\bwhen\b|\bcould\b|\bshould\b|\bdeserve|\bonce\b|\byet\b|\balready\b|\bsays?\b|\bbeats\b|\btastes?\b|\bbraver?\b|\bsad\b|\bfunny\b|\bodd\b|\bstrange\b"
  r'|难怪|一定|才|还|太|偏偏|居然|其实|这不|那不|疼|委屈|不公平|两样|都是真的|比',
)
LABELS_NEED = re.compile(
  r"^(?:i (?:know|see|think|guess|understand) )?(?:that )?(?:what )?you(?:'re| are)? (?:just |really |only |also )*(?:want|need|feel|long|wish|fear|afraid|looking for|hoping)",
  re.I,
)
PERSON = Phrases(
  r"\b(?:i|you|me|your|my|we|us|our|i'm|i'll|i've|i'd|you're|you've|he|she|his|her|him|they|them)\b|[你我他她您]",
)
WHEN = Phrases(
  r"\b(?:today|tonight|tomorrow|this (?:evening|afternoon|morning|week|weekend)|(?:mon|tues|wednes|thurs|fri|satur|sun)day|at (?:noon|night|midnight|\d|one|two|three|four|five|six|seven|eight|nine|ten|eleven|half)|by (?:noon|\d|monday|tuesday|wednesday|thursday|friday|saturday|sunday|tomorrow|tonight)|in (?:an|one|two|ten|five|twenty|\d+) (?:hour|minute|day)s?|within|before (?:noon|lunch|dinner|monday|friday|the)|after (?:lunch|work|dinner|class|the)|right now|now|first thing|every (?:day|week|morning|evening|sunday|monday|tuesday|wednesday|thursday|friday|saturday)|\d{1,2}[:.]\d{2}|\d{1,2} ?(?:am|pm|a\.m|p\.m|o'clock)|\d{1,2} (?:january|february|march|april|may|june|july|august|september|october|november|december))\b|今天|今晚|明天|后天|周[一二三四五六日末]|下周|\d+点|马上|现在",
)
PROMISE = Phrases(
  r"\bi(?:'ll| will|'m (?:coming|going|bringing|calling|taking|driving|sending|paying|writing)| can| shall| am (?:coming|going|bringing|calling))\b|\bwe(?:'ll| will| can)\b|\blet me\b|我(?:会|来|去|明天|今晚|马上|这就|可以)",
)
