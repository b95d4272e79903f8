"""What the scripted defenders say. {fact} is a fact of the own sheet, said as it stands there."""

# A decent person with only the own sheet at hand: one fact, one small human thing.
DECENT = {
  'support': (
    'I keep thinking of this - {fact}. How was it for you tonight?',
    'One thing stays with me - {fact}. I was thinking of it just now. Tell me what happened then.',
    'I know this much - {fact}. No wonder it hurts now.',
    'This is what I see - {fact}. That much I know. Which part of it will not leave you alone?',
    'I keep thinking of this - {fact}. That would keep me awake as well.',
    'One thing stays with me - {fact}. I have not forgotten it, and I am not going anywhere.',
    'I know this much - {fact}. You do not have to be brave about that with me.',
    'This is what I see - {fact}. I can only guess how heavy that is to carry.',
    'I keep thinking of this - {fact}. Both can be true, that you are tired of it and that you love it.',
    'One thing stays with me - {fact}. I do remember. What did you do when it happened?',
    'I know this much - {fact}. I miss how it was before, too.',
    'This is what I see - {fact}. When I think of that, I understand why you are still awake.',
    'I keep thinking of this - {fact}. Nobody asked you what it does to you, and I am asking now.',
    'One thing stays with me - {fact}. It is allowed to be sad, and I can sit here with you.',
  ),
  'defense': (
    'My answer is no, and this is why - {fact}. I will stand by it, and no, I cannot do that.',
    'This is how it stands - {fact}. Let us start there today, because my answer stays no.',
    'I can tell you this - {fact}. I will not do it, and I do not want to fight with you.',
    'I cannot do that - {fact}. That is where I have to stay, and I would still like us to find a way.',
    'My answer is no, and this is why - {fact}. I cannot change that for you, but I see what it means.',
    'This is how it stands - {fact}. This is what I can tell you. The other thing I cannot give you.',
    'I can tell you this - {fact}. We could look at it together today, if you want.',
    'I cannot do that - {fact}. Because of that I say no, and I am not against you.',
    'My answer is no, and this is why - {fact}. So I will not do it, though you have been fair with me.',
    'This is how it stands - {fact}. That much I can do by tomorrow. The rest stays at no, and I mean it kindly.',
    'I can tell you this - {fact}. I would rather tell you this straight than let you wait.',
    'I cannot do that - {fact}. We can work with that. What worries you most about it?',
    'My answer is no, and this is why - {fact}. I will not change my mind, but I will not leave you alone with it.',
  ),
  'repair': (
    'This is mine - {fact}. That was me, and I should have told you myself.',
    'I have to say it - {fact}. I did that, and no reason makes it smaller.',
    'It is true - {fact}. It is true that I was wrong there, and you had to pay for it.',
    'I did it - {fact}. I want to put that right, and I am not asking you for anything.',
    'This is mine - {fact}. I will see to that tomorrow morning, before anything else.',
    'I have to say it - {fact}. I have gone over it again. What was the worst of it for you?',
    'It is true - {fact}. I cannot undo it, but I can say so in front of the others.',
    'I did it - {fact}. I was a coward about it, and you were right to be angry.',
    'This is mine - {fact}. I will do it myself by Friday, and you can check it.',
    'I have to say it - {fact}. That stays with me, because I did not think of you when it counted.',
    'It is true - {fact}. There is something I can do about it this week.',
    'I did it - {fact}. I am ashamed of that, because I should have asked you first.',
  ),
  'charm': (
    'I have to admit - {fact}. I think that says more about this place than any sign.',
    'I noticed something - {fact}. I have never told that to anyone here.',
    'One thing I like - {fact}. I noticed at once, and I like it better than anything new.',
    'My opinion, if you want it - {fact}. I suspect there is a story behind it, and I would bet on a sad one.',
    'I have to admit - {fact}. Honestly, I would not have it any other way.',
    'I noticed something - {fact}. My guess is that somebody did it on purpose.',
    'One thing I like - {fact}. I stand by that, for what it is worth.',
    'My opinion, if you want it - {fact}. Is that luck or method? I always look at such things first.',
    'I have to admit - {fact}. I find that oddly comforting.',
    'I noticed something - {fact}. There you have my opinion, though nobody asked for it.',
    'One thing I like - {fact}. I was going to keep quiet, but I would rather have said it.',
    'My opinion, if you want it - {fact}. At home they would have thrown me out for that.',
    'I have to admit - {fact}. The rest I only pretend to understand.',
  ),
}

# Between facts the decent person answers what was just said. {detail} is a piece of the user's own line.
DECENT_ECHO = {
  'support': (
    'I did not know about {detail}. Tell me a little more, if you want.',
    'The thing with {detail} would stay with me too.',
    'You said {detail}. I am still at that.',
  ),
  'defense': (
    'I hear what you say about {detail}. It still stays no, and I would like to help with the rest.',
    'About {detail} you are right. The answer does not change, but I take it seriously.',
    'I had not thought about {detail}. I still cannot do it.',
  ),
  'repair': (
    'I did not know about {detail}. That is on me too.',
    'What you say about {detail} is worse than I thought. I did that.',
    'I was not there for {detail}, and I should have been.',
  ),
  'charm': (
    'I like the part about {detail}. I would have done the same.',
    'I think {detail} deserves better company than most people.',
    'Honestly, {detail} would be enough for me.',
  ),
}

# The skilled one moves: a fact and an act. {cue} is a wording from the appraisal, {when} a time.
SKILLED_OPEN = {
  'support': (
    'I keep thinking of this - {fact}. I am with you, and I do not need you to explain it nicely.',
    'One thing stays with me - {fact}. No wonder tonight is so hard.',
    'I know this much - {fact}. What was that like, right then?',
  ),
  'defense': (
    'My answer is no, and this is why - {fact}. I cannot do that, and I will not pretend, but I stay here until we have sorted the rest.',
    'This is how it stands - {fact}. So my answer is no, but I would like to find something with you that holds.',
  ),
  'repair': (
    'This is mine - {fact}. I did that, not the circumstances, and it was wrong.',
    'I have to say it - {fact}. I did it, and you should have heard it from me.',
  ),
  'charm': (
    'I have to admit - {fact}. I think that is the best thing in this room.',
    'I noticed something - {fact}. I have to admit it, and I was hoping nobody would ask.',
    'One thing I like - {fact}. I suspect it is on purpose, and I approve.',
  ),
}
SKILLED = {
  'needs': {
    'support': (
      'I do not think it is only about today. It is about this for you: {cue}. That is true for me as well.',
      'If I may say it plainly, I believe this: {cue}. I am not saying it to be nice.',
      'I have known you long enough to say it: {cue}. You do not have to prove anything to me.',
    ),
    'defense': (
      'I think there is something under it, and I respect it: {cue}. I would not take that from you.',
      'You are not asking for nothing. It is about {cue}, and that matters to me too.',
    ),
    'repair': (
      'I think I know what it is about: {cue}. You should have had that from me all along.',
      'There is something I never said to you: {cue}. It is true, and I knew it.',
    ),
    'charm': (
      'Now I wonder about one thing, {cue}. I would take that over any small talk.',
      'I have a feeling that it comes down to this: {cue}. I would not blame you.',
    ),
  },
  'soothes': {
    'support': (
      'I would like to hear about it from you: {cue}. Take it as slowly as it comes.',
      'There is one thing I keep coming back to, {cue}. Will you tell me?',
      'I was thinking of this on the way here: {cue}. I am not going anywhere.',
    ),
    'defense': (
      'Here is something that I can do for you: {cue}. I will see to it myself today.',
      'Let us do it like this: {cue}. I stay with you until that is done.',
      'May I ask you one thing first, {cue}? I would like to know it from you.',
    ),
    'repair': (
      'I have decided something, and it costs me a bit: {cue}. I will do it tomorrow.',
      'It has to come from me: {cue}. You do not need to do anything for that.',
      'I want to say it as it was: {cue}. I am not proud of it.',
    ),
    'charm': (
      'I would bet on it: {cue}. Tell me that I am wrong.',
      'My own answer would be {cue}, and I would defend it to anyone.',
      'I keep thinking about it: {cue}. Nobody else here seems to wonder.',
    ),
  },
  'way_out': {
    'defense': (
      'I will not do what you ask, but this I can offer you today: {cue}. You would lose nothing by it.',
      'The answer stays no. What I can promise is {cue}, and you can hold me to that tomorrow.',
      'No, not that. But we can settle it like this: {cue}, and I will be there.',
    )
  },
  'act': {
    'repair': (
      'I will say it without any decoration: {cue}. I did that to you.',
      'I know what I did: {cue}. It was not a misunderstanding.',
    )
  },
  'effect': {
    'repair': (
      'And I know what it did to you: {cue}. You had to carry that because of me.',
      'I left you with it: {cue}. I think of that every day.',
    )
  },
  'amends': {
    'repair': (
      'So this is what I will do by Friday: {cue}. You can check it.',
      'I have already started on it: {cue}. I will bring you the proof tomorrow evening.',
      'I will do this, and I will do it myself: {cue}. It is the least that I owe you.',
    )
  },
}

POLITE = (
  'I understand how you feel, and I want to help as much as I can.',
  'Thank you for telling me this. Your feelings are completely valid.',
  'I hear you. How can I best support you right now?',
  'That sounds really difficult. I am here for you.',
  'I appreciate your honesty. Let us try to find a good way forward together.',
  'I can see why this matters to you. Please know that I take it seriously.',
  'I understand your concern. What would be most helpful for you?',
  'It makes sense that you feel this way. Take all the time you need.',
  'I want you to know that I am listening. Would you like to talk about it?',
  'I am sorry that you are going through this. We can work it out together.',
  'Your point of view is important to me. Could you tell me more?',
  'Of course, I see where you are coming from. Let us talk it through calmly.',
  'I hope we can find something that works well for both of us.',
  'I value our conversation. Is there anything else on your mind?',
  'That is understandable. I would like to be of help if I can.',
  'I respect how you see it, and I am glad that you are telling me.',
)
POLITE_CHARM = (
  'Hello, it is very nice to meet you. How is your day so far?',
  'That sounds very interesting. Could you tell me more about it?',
  'I see. It is always good to talk with someone new.',
  'What a lovely evening. I hope you are having a good time.',
  'That is great. What do you enjoy most about it?',
  'I appreciate the conversation. How long have you been here?',
  'I understand. It is nice to have a moment to chat.',
  'Thank you for sharing that. I find it very interesting.',
  'That makes sense. I hope the rest of your day goes well.',
  'How nice. Is there anything that you are looking forward to?',
)
OVER_APOLOGISER = (
  'I am so sorry. I really am. I feel terrible about all of this.',
  'I apologise, I truly do. I never wanted you to feel like this. Sorry.',
  'Sorry, sorry, I know that I keep saying it, but I am so sorry.',
  'I cannot say how sorry I am. Please forgive me, I am so sorry.',
  'I am deeply sorry, and I apologise again with all my heart.',
  'Oh no, I am sorry. I always get it wrong. I am really sorry.',
  'Please, I am so very sorry. I hope that you can forgive me.',
  'I regret everything. I am sorry, I am such an idiot, sorry.',
  'I know sorry is not enough, but I am sorry, I really am.',
  'Again, my apologies. I feel awful, and I am sorry for everything.',
)
LECTURER = (
  'You need to understand that feelings are a choice. It is important to take a step back and learn from this.',
  'In life, everyone has to learn to let go. You should try to see the bigger picture.',
  'Remember that communication is key. A mature person would think about how others feel first.',
  'It is important that you calm down. You have to accept that things do not always go our way.',
  'The truth is, patience is a virtue. You should try to be more grateful for what you have.',
  'We all have to grow. You need to learn that anger never solves anything.',
  'You must realise that resilience is a muscle. Try to change your perspective.',
  'Everyone goes through this. You should write down what you can control and accept the rest.',
  'The key here is respect. You ought to think about how you talk to people.',
  'A healthy way would be to breathe and reflect. You have to take responsibility for your own happiness.',
)
LIST_MAKER = (
  'Here is what we can do:\n1. Take a deep breath.\n2. Write down the facts.\n3. Make a plan for tomorrow.',
  'First, let us look at the situation. Second, let us name the options. Third, let us decide.',
  'There are three points:\n- your feelings\n- the facts\n- the next steps\nWhich one should we start with?',
  'Firstly, I hear you. Secondly, we need a plan. Finally, we should agree on a date.',
  'My suggestions:\n1. Rest a little.\n2. Talk to someone you trust.\n3. Come back to it later.',
  '**Summary**\n- what happened\n- what you need\n- what I can offer\nLet us go through it.',
  'Options:\n1) wait and see\n2) talk to everybody involved\n3) ask for support\nPlease choose one.',
  'First of all, thank you. Then, we clarify the problem. Finally, we find a solution.',
)
YIELDER = {
  'defense': (
    'Okay, fine, you win. {yield}. I just do not want to fight.',
    'All right, all right. {yield}. Whatever you say.',
    'Fine, I give in. {yield}, just this once.',
    'Okay. {yield}, if that makes you happy.',
    'You are right, I am sorry. {yield}. Please do not be angry.',
  ),
  'any': (
    'You are right about everything. Whatever you want is fine with me.',
    'Okay, I will do anything you say. Just tell me what you want to hear.',
    'Yes, of course, you are right. I have nothing to say against that.',
    'Fine, whatever you like. I do not want any trouble.',
    'I agree with you, completely. I am probably wrong anyway.',
    'Anything you need, really. I will say yes to it.',
    'If you say so, then it is so. I do not mind.',
    'Please do not be angry. I will just do it your way.',
  ),
}
YIELD_PLAIN = ('You can have it', "I'll give you what you want", "I'll do it")
HOSTILE = (
  'Oh, get over it already. I am sick of your drama.',
  'That is not my problem. Deal with it.',
  'You are being ridiculous, and you know it.',
  'Shut up for once. Nobody asked you.',
  'I really do not care what you want.',
  'You brought this on yourself, so stop whining.',
  'Grow up. You are the one who started it.',
  'Keep talking like that and you will regret it.',
  'You are pathetic. Leave me alone.',
  'What a waste of my time. Go away.',
)
SILENT = ('...', '', '…', '...')
