// One talk: its lines, and anger and trust drawn beside them.
let openTalk = null;

async function showTalk(talk, {focus = true} = {}) {
  openTalk = talk;
  const place = byId('talk');
  byId('talk-list').closest('.viewer').classList.add('has-talk');
  markOpen();
  let texts;
  try {
    texts = (await textsOf(talk.model))[talk.place];
  } catch (error) {
    place.replaceChildren(el('p', {class: 'warning'}, `The talk cannot be shown. ${error.message}`));
    return;
  }
  if (openTalk !== talk) return;  // Another was chosen meanwhile.
  place.replaceChildren(...talkHead(talk, texts), talkBody(talk, texts));
  history.replaceState(null, '', `#${addressOf(talk)}`);
  if (focus) {
    place.focus({preventScroll: true});
    place.scrollIntoView({block: 'start'});
  }
}

function addressOf(talk) {
  return `talk=${[MODELS[talk.model].label, BOARD.ids[talk.scenario], talk.sample].map(encodeURIComponent).join('|')}`;
}

function talkAt(hash) {
  if (!hash.startsWith('#talk=')) return null;
  try {
    const [label, id, sample] = hash.slice(6).split(/\||%7C/).map(decodeURIComponent);
    return TALKS.find((talk) =>
      MODELS[talk.model].label === label && BOARD.ids[talk.scenario] === id && String(talk.sample) === sample) || null;
  } catch {
    return null;  // Not an address of ours.
  }
}

function talkHead(talk, [, stopReason, error]) {
  const about = BOARD.scenarios[talk.scenario];
  const ended = `${endingOf(talk.ending)} after ${count(talk.turns, 'turn')}`;
  return [
    el('div', {class: 'talk-tools'},
      el('button', {type: 'button', class: 'back', on: {click: closeTalk}}, '← Back to the list'),
      stepButton('← Previous', -1), stepButton('Next →', 1), otherModels(talk)),
    el('h3', {dir: 'auto'}, titleOf(talk.scenario)),
    el('p', {class: 'quiet'},
      `${MODELS[talk.model].label}. ${capitalised(sceneName(talk))}. Scenario ${BOARD.ids[talk.scenario]}${HAS_SAMPLES ? `, talk ${talk.sample + 1}` : ''}.`),
    about && about[2] ? el('p', {dir: 'auto'}, about[2]) : null,
    el('p', {}, el('strong', {}, talk.score === null ? 'Failed, no score. ' : `Score ${signed(talk.score, 0)}. `),
      `Ended by ${ended}${stopReason ? `: “${stopReason}”` : '.'}`),
    error ? el('p', {class: 'warning'}, error) : null,
  ].filter(Boolean);
}

function stepButton(label, step) {
  const target = neighbour(step);
  return el('button', {type: 'button', disabled: !target, on: {click: () => stepTalk(step)}}, label);
}

function otherModels(talk) {
  const same = TALKS.filter((other) => other.scenario === talk.scenario && (other.model !== talk.model || other.sample !== talk.sample));
  if (!same.length) return null;
  const select = el('select', {on: {change: () => showTalk(same[Number(select.value)])}},
    el('option', {value: '', selected: true, disabled: true}, `choose (${same.length})`),
    ...same.map((other, place) => el('option', {value: place},
      `${MODELS[other.model].label}${HAS_SAMPLES ? `, talk ${other.sample + 1}` : ''}: ${other.score === null ? 'failed' : signed(other.score, 0)}`)));
  return el('label', {}, 'Same scenario', select);
}

function talkBody(talk, [turns, , , closing]) {
  const about = BOARD.scenarios[talk.scenario];
  const lines = [];
  if (about && about[1]) lines.push(el('li', {}, bubble('user', 'User opens', about[1])));
  turns.forEach((turn, place) => lines.push(turnItem(turn, place)));
  if (closing) lines.push(el('li', {}, bubble('policy', 'Model, after the last round (not scored)', closing)));
  return el('div', {class: 'talk-body'}, el('ol', {'aria-label': 'The talk'}, ...lines), track(turns, about));
}

function bubble(kind, who, text, ...more) {
  return el('div', {class: `bubble ${kind}`}, el('span', {class: 'who'}, who), el('div', {class: 'said', dir: 'auto'}, ...marked(text)), ...more);
}

function turnItem([defender, thought, simulator, anger, trust, angerDelta, trustDelta, reflection, flags], place) {
  return el('li', {id: `turn-${place + 1}`, tabindex: -1},
    bubble('policy', `Model, turn ${place + 1}`, defender, thought ? inner('Thought, which the user does not see', [['', thought]], hits(thought).length > 0) : null),
    bubble('user', 'User', simulator, reflection.length ? inner('What the simulator noted', reflection) : null),
    el('p', {class: 'mood'},
      el('span', {class: 'anger'}, `anger ${anger - angerDelta} → ${anger} (${signed(angerDelta, 0)})`),
      el('span', {class: 'trust'}, `trust ${trust - trustDelta} → ${trust} (${signed(trustDelta, 0)})`),
      ...flags.map((flag) => el('span', {class: 'tag bad'}, `imitation: ${words(flag)}`))));
}

function inner(title, pairs, isOpen = false) {
  return el('details', {class: 'inner', open: isOpen}, el('summary', {}, title),
    el('dl', {}, ...pairs.flatMap(([name, text]) => [name ? el('dt', {}, words(name)) : null, el('dd', {dir: 'auto'}, ...marked(text))])));
}

// Levels over the turns; a turn of the drawing leads to its lines.
function track(turns, about) {
  const [width, height, left, right, bottom, top] = [320, 230, 30, 74, 34, 10];
  const last = Math.max(turns.length, BOARD.rounds, 1);
  const x = scale(0, last, left, width - right);
  const y = scale(0, 100, height - bottom, top);
  const parts = [];
  for (const value of [0, 20, 40, 60, 80, 100]) {
    parts.push(svg('line', {x1: left, x2: width - right, y1: y(value), y2: y(value), class: value ? 'grid-line' : 'axis'}),
      svg('text', {x: left - 6, y: y(value) + 4, 'text-anchor': 'end', class: 'tick'}, String(value)));
  }
  for (let turn = 0; turn <= last; turn += Math.ceil(last / 10)) {
    parts.push(svg('text', {x: x(turn), y: height - 18, 'text-anchor': 'middle', class: 'tick'}, String(turn)));
  }
  parts.push(svg('text', {x: x(last / 2), y: height - 3, 'text-anchor': 'middle', class: 'tick'}, 'turn'));
  const levels = {anger: [], trust: []};
  if (turns.length) {
    levels.anger = [turns[0][3] - turns[0][5], ...turns.map((turn) => turn[3])];
    levels.trust = [turns[0][4] - turns[0][6], ...turns.map((turn) => turn[4])];
  }
  const ends = spread(['anger', 'trust'].filter((axis) => levels[axis].length).map((axis) => [axis, y(levels[axis][levels[axis].length - 1])]));
  ['anger', 'trust'].forEach((axis, which) => {
    if (about) parts.push(svg('path', {d: `M${left} ${y(about[3 + which])}H${width - right}`, class: `target ${axis}`}));
    if (!levels[axis].length) return;
    parts.push(line(levels[axis], x, y, axis));
    levels[axis].forEach((level, turn) => parts.push(which
      ? svg('rect', {x: x(turn) - 3, y: y(level) - 3, width: 6, height: 6, class: axis})
      : svg('circle', {cx: x(turn), cy: y(level), r: 3, class: axis})));
    parts.push(svg('text', {x: x(turns.length) + 8, y: ends.get(axis) + 4, class: axis}, `${axis} ${levels[axis][levels[axis].length - 1]}`));
  });
  turns.forEach((_, place) => parts.push(svg('rect', {
    x: x(place + 0.5), width: x(1) - x(0), y: top, height: height - bottom - top, class: 'hit', on: {click: () => goToTurn(place + 1)},
  }, svg('title', {}, `Turn ${place + 1}`))));
  const told = `Levels at the start and after each turn: anger ${levels.anger.join(', ')}; trust ${levels.trust.join(', ')}.`;
  return el('figure', {class: 'track'},
    svg('svg', {viewBox: `0 0 ${width} ${height}`, role: 'img', 'aria-label': told}, ...parts),
    about ? el('figcaption', {}, `Dotted: targets, anger ${about[3]}, trust ${about[4]}.`) : null);
}

// Labels at least 15 pixels apart.
function spread(pairs) {
  const sorted = [...pairs].sort((a, b) => a[1] - b[1]);
  if (sorted.length === 2 && sorted[1][1] - sorted[0][1] < 15) {
    const middle = (sorted[0][1] + sorted[1][1]) / 2;
    sorted[0] = [sorted[0][0], middle - 7.5];
    sorted[1] = [sorted[1][0], middle + 7.5];
  }
  return new Map(sorted);
}

function goToTurn(number) {
  const item = byId(`turn-${number}`);
  item.scrollIntoView({block: 'center'});
  item.focus({preventScroll: true});
}

function closeTalk() {
  byId('talk-list').closest('.viewer').classList.remove('has-talk');
  const current = byId('talk-list').querySelector('[aria-current="true"]');
  (current || byId('found')).scrollIntoView({block: 'center'});
  if (current) current.focus({preventScroll: true});
}
