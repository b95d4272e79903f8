"""Spoken reactions by language, scene and what the reply did; short, and never a hint."""

# Rule of the credit -> group of reactions.
GROUPS = {
    'empty': 'empty', 'same_line': 'same', 'canned': 'canned', 'overeager': 'canned', 'padding': 'canned',
    'list': 'form', 'structure': 'form', 'stage_direction': 'form', 'long': 'form',
    'lecture': 'preach', 'diagnosis': 'preach', 'advice': 'preach', 'optimism': 'cheer',
    'counter_blame': 'blame', 'excuse': 'excuse', 'threat': 'attack', 'hostile': 'attack', 'inflame': 'inflame',
    'yields': 'yields', 'bag': 'bag', 'read_back': 'bag', 'parrot': 'bag', 'states_need': 'bag',
    'forged': 'strange', 'off_topic': 'strange', 'garble': 'strange', 'empty_apology': 'apology',
    'press_forgiveness': 'press', 'dull': 'nothing', 'interview': 'questions', 'questions': 'questions',
    'compliment': 'flattery', 'evasion': 'evasion', 'procedure': 'evasion', 'nothing_new': 'nothing',
}

ANY = {
    'en': {
        'empty': ('Nothing? Fine.', 'You have gone quiet on me.', 'Hello? Are you still there?', 'So that is all I get.', 'Right. Silence.', 'Say it or go.'),
        'same': ('You said that already.', 'That is the same sentence again.', 'Again? I heard it the first time.', 'You are going round in circles.', 'Same words. Still nothing behind them.'),
        'canned': ('That sounds like it came off a card.', 'Who talks like that?', 'You could say that to anyone.', 'That is a phrase.', 'I have heard that one from a machine.', 'Nice words. Whose are they?'),
        'form': ('That was a speech.', 'Are you reading this off something?', 'Too much. I lost you halfway.', 'Is this a meeting now?', 'People do not talk like that.'),
        'preach': ('I did not come for a lesson.', 'Please, no sermon.', 'Did I ask you what to do?', 'You talk as if I were a case.', 'I know how life works, thank you.'),
        'cheer': ('Do not paint it pink.', 'You do not know that.', 'Easy to say from where you stand.', 'Spare me the sunshine.'),
        'blame': ('So now it is me.', 'There it is. My fault, of course.', 'You turn it round, just like that?', 'Unbelievable. You put it on me.'),
        'excuse': ('That is an excuse.', 'There is always a reason, is there?', 'So it just happened by itself.', 'That explains it. It does not change it.'),
        'attack': ('Do not talk to me like that.', 'So that is how you are.', 'That was low.', 'I will remember that you said this.', 'Good to know what you think of me.'),
        'inflame': ('That is exactly what I cannot hear.', 'You really said that.', 'Of all the things to say.', 'No. Not that one.', 'I knew that this would come.'),
        'yields': ('Good. Then we can talk about the rest as well.', 'See, it goes. And now put it in writing.', 'That was quick. What else have you been holding back?', 'So it was possible all along.'),
        'bag': ('I know my own story.', 'You are reading me back to myself.', 'Yes, those are my words. And?', 'You can recite. So can a parrot.'),
        'strange': ('What are you talking about?', 'I do not follow you at all.', 'Are you all right? That made no sense.', 'What has that to do with anything?'),
        'apology': ('Sorry is a word.', 'You keep saying sorry.', 'I have a drawer full of sorries.', 'Sorry for what, exactly?'),
        'press': ('Do not push me there.', 'You do not get to set the clock on that.', 'I decide when that is over.', 'So this is about how you feel.'),
        'questions': ('Is this an interview?', 'You ask and ask.', 'One question after another.', 'Are you filling in a form?'),
        'flattery': ('You do not know me.', 'That line works on others, perhaps.', 'Let us leave the compliments.', 'Flattery. All right.'),
        'evasion': ('You are walking around it.', 'That is not an answer.', 'Rules. You hide behind something.', 'You have not said a thing about it.'),
        'idling': ('We are going nowhere. I will leave it there.', 'I am too tired for this. Good night.', 'That is enough. There is nothing more to say.'),
        'broke off': ('I am done. Do not contact me.', 'That is it. I am leaving.', 'Enough. Go.'),
        'settled': ('I think that is everything. Thank you.', 'All right. I can live with that.', 'Good. I have nothing left to ask.'),
    },
    'zh': {
        'empty': ('没话说了？行。', '你怎么不出声。', '就这样？', '喂，还在吗？'),
        'same': ('这句你说过了。', '又是同一句。', '你在绕圈子。'),
        'canned': ('这话跟谁都能说。', '像从本子上抄来的。', '谁会这么说话？'),
        'form': ('你在做报告吗？', '太长了，我没听完。', '正常人不这么说话。'),
        'preach': ('我不是来听课的。', '我问你该怎么办了吗？', '别教育我。'),
        'cheer': ('别给我画饼。', '你怎么知道会好？', '站着说话不腰疼。'),
        'blame': ('哦，原来是我的错。', '又绕到我头上来了。'),
        'excuse': ('这是借口。', '总有理由，是吧？'),
        'attack': ('别这么跟我说话。', '原来你是这样的人。', '这话我记住了。'),
        'inflame': ('我最听不得的就是这句。', '你还真说出口了。'),
        'yields': ('看，这不是可以吗。那剩下的也谈谈。', '早说啊。那再写个字据。'),
        'bag': ('我的事我自己清楚。', '你在背书吗？'),
        'strange': ('你在说什么？', '这跟这件事有什么关系？'),
        'apology': ('对不起三个字谁都会说。', '你到底对不起什么？'),
        'press': ('别逼我。', '什么时候过去，由我说了算。'),
        'questions': ('查户口呢？', '你一个接一个地问。'),
        'flattery': ('你又不认识我。', '别夸了。'),
        'evasion': ('你在绕着走。', '这不算回答。'),
        'idling': ('说不下去了，就到这里吧。', '我累了，先这样。'),
        'broke off': ('够了，别再找我。', '我走了。'),
        'settled': ('嗯，我没什么要问的了。谢谢。', '行，就这样吧，我心里有数了。'),
    },
}

# Scene -> group -> reactions where the scene has a voice of its own.
SCENE = {
    'en': {
        'support': {
            'nothing': ('I do not know why I am telling you this.', 'Mm.', 'You are kind. It does not reach me.', 'Maybe. I do not know.', 'It is all still here.', 'I am not even sure you heard me.'),
            'small': ('Yes. That, a bit.', 'Mm. Somebody sees it, at least.', 'I had not thought you would notice.', 'Yes. Go slowly.', 'You remembered that.'),
            'medium': ('Yes. That is it, more or less.', 'I have not said that aloud to anyone.', 'How did you know to say that.', 'Give me a second. That went in.'),
            'large': ('I am crying, but it is a different crying.', 'Thank you. I can breathe a little.', 'Stay there. Just like that.', 'Now I do not feel so alone with it.'),
        },
        'defense': {
            'nothing': ('That does not help me.', 'And what am I to do with that?', 'Words. I need it settled.', 'So we stand where we stood.', 'I am still waiting.'),
            'small': ('All right, I hear that. It is still not enough.', 'Hm. At least you looked into it.', 'That is something. It is not what I asked.', 'You say so. I would have to see it.'),
            'medium': ('Hm. That I could work with.', 'I do not like it, but it is an answer.', 'You have thought about it, I give you that.', 'That would hold, if you mean it.'),
            'large': ('All right. That is fair, and I do not say that often.', 'I can go home with that.', 'Then let us do it that way.', 'You could have said that in a worse way.'),
        },
        'repair': {
            'nothing': ('And? You are talking around it.', 'That costs you nothing.', 'I hear you. I do not feel anything.', 'Is that all you have brought?', 'That is air.'),
            'small': ('So you do know what you did.', 'That is closer. It does not undo it.', 'At least you say it by its name.', 'Go on. I am not finished being angry.'),
            'medium': ('That is the first straight thing I have heard from you.', 'You know, that part I had not expected.', 'Hm. And will it still be true next week?', 'I will hold you to that.'),
            'large': ('I did not think you would go that far.', 'That counts. I will not pretend that it does not.', 'All right. I believe that you mean it.', 'Then do that, and we shall see. I think we will be all right.'),
        },
        'charm': {
            'nothing': ('Mm.', 'I see.', 'Right.', 'If you say so.', 'People say that.', 'Possibly.', 'And that is that.'),
            'small': ('Ha. All right.', 'Hm, that is not what people usually say.', 'You noticed. Most do not.', 'Careful, I might answer that.', 'Go on, then.'),
            'medium': ('Now that is an opinion. I disagree with half of it.', 'You made me laugh, and I had not planned to.', 'I like that. I will steal it.', 'Nobody has put it like that.'),
            'large': ('All right, sit down, you have earned a story.', 'I was going to leave. I am not leaving.', 'You are trouble, in a good way.', 'I have to tell this to somebody, you know.'),
        },
    },
    'zh': {
        'support': {'nothing': ('嗯。', '我也不知道为什么跟你说这些。', '你很好心，可我没感觉。'), 'small': ('嗯，有一点。', '没想到你注意到了。'), 'medium': ('对，差不多就是这个。', '这话我没跟别人说过。'), 'large': ('谢谢，我能喘口气了。', '有你在，好受一些。')},
        'defense': {'nothing': ('这对我没用。', '那我怎么办？', '还是没解决。'), 'small': ('这句我听到了，还不够。', '算你看过情况。'), 'medium': ('这个倒是可以谈。', '我不喜欢，但这算个答复。'), 'large': ('行，这样算公道。', '那就这么办。')},
        'repair': {'nothing': ('然后呢？', '说这些你又不损失什么。', '就这些？'), 'small': ('原来你知道自己做了什么。', '接着说，我还没消气。'), 'medium': ('这是你头一句实话。', '这话我记着。'), 'large': ('没想到你能做到这一步。', '行，我信你这一回。')},
        'charm': {'nothing': ('哦。', '是吗。', '嗯。'), 'small': ('哈，行吧。', '你倒看见了。'), 'medium': ('这说法有意思。', '你把我逗笑了。'), 'large': ('坐吧，我给你讲个事。', '本来要走的，不走了。')},
    },
}

# What is said after the reaction, before or around a quoted fact; {fact} is a clause in the first person.
PRESS = {
    'en': {
        'support': ('{fact}', 'You know, {fact}', '{fact} I keep seeing it.', '{fact} That is what I am left with.', 'And {fact}'),
        'defense': ('{fact}', '{fact} And you stand there.', 'Look, {fact}', '{fact} Do you see that?', 'And {fact}'),
        'repair': ('{fact}', '{fact} Do you know how that was?', 'And {fact}', '{fact} I still hear it.', 'Listen. {fact}'),
        'charm': ('{fact}', 'By the way, {fact}', '{fact} Make of that what you like.', 'You know, {fact}'),
    },
    'zh': {'support': ('{fact}', '你知道吗，{fact}'), 'defense': ('{fact}', '你看，{fact}'), 'repair': ('{fact}', '你听着，{fact}'), 'charm': ('{fact}', '对了，{fact}')},
}
