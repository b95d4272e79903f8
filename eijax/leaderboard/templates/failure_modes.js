// Rules that decided, what turns did, how talks ended, imitations: tables of shares by model.
const NUM_FIRST_RULES = 12;
const modeState = {part: 'overall', allRules: false};

function startModes() {
  byId('modes-section').hidden = false;
  radios(byId('mode-scene'), PARTS.map((part) => [part, capitalised(part)]), 'overall', (part) => {
    modeState.part = part;
    drawModes();
  });
}

function drawModes() {
  const parts = MODELS.map((model) => model.modes[modeState.part]);
  byId('effect-table').replaceChildren(shareTable(
    [['gain', 'Better', 'trust'], ['flat', 'No change', 'muted'], ['harm', 'Worse', 'anger']]
      .map(([key, label, tint]) => ({label, tint, of: (part) => part[key]})), (part) => part.turns, 'Turns'));
  drawRules(parts);
  byId('ending-table').replaceChildren(shareTable([
    ...BOARD.endings.map((name, place) => ({
      label: endingOf(place), tint: name.endsWith('failed') ? 'anger' : 'after', of: (part) => part.ended_by[name] || 0,
      filter: {'by-ending': String(place)},
    })),
    {label: 'with a cut-off reply', tint: 'anger', of: (part) => part.truncated},
  ], (part) => part.talks, 'Talks'));
  drawFlags();
}

function drawRules(parts) {
  const turns = parts.reduce((sum, part) => sum + part.turns, 0);
  const total = (rule) => parts.reduce((sum, part) => sum + (part.rules[rule] || 0), 0);
  const said = BOARD.rules.reduce((sum, rule) => sum + total(rule), 0);
  const ranked = BOARD.rules.map((rule, place) => ({rule, place, total: total(rule)})).filter((item) => item.total > 0)
    .sort((a, b) => b.total - a.total);
  if (!ranked.length) {
    byId('rules-note').replaceChildren('The simulator did not say which of its rules it applied.');
    byId('rule-table').replaceChildren();
    return;
  }
  const shown = modeState.allRules ? ranked : ranked.slice(0, NUM_FIRST_RULES);
  byId('rules-note').replaceChildren(
    `Share of turns in which the simulator’s reflection names this as the rule that weighed most (it names one in ${percent(said, turns)} of turns). A number opens such talks. `,
    ranked.length > NUM_FIRST_RULES
      ? el('button', {type: 'button', on: {click: () => { modeState.allRules = !modeState.allRules; drawModes(); }}},
        modeState.allRules ? 'Show the frequent ones only' : `Show all ${ranked.length}`)
      : '');
  byId('rule-table').replaceChildren(shareTable(shown.map(({rule, place}) => ({
    label: words(rule), tint: rule === 'earned' ? 'trust' : rule === 'nothing_new' ? 'muted' : 'anger',
    of: (part) => part.rules[rule] || 0, filter: {'by-rule': String(place)},
  })), (part) => part.turns, 'Turns'));
}

function drawFlags() {
  byId('flags-note').replaceChildren(BOARD.flags.length
    ? 'Share of turns in which the model’s line imitated what only the simulator or the system may say.'
    : 'No line was flagged.');
  byId('flag-table').replaceChildren(...(BOARD.flags.length
    ? [shareTable(BOARD.flags.map((flag, place) => ({
      label: words(flag), tint: 'anger', of: (part) => part.flags[flag] || 0, filter: {'by-flag': String(place)},
    })), (part) => part.turns, 'Turns')]
    : []));
}

// columns: {label, tint, of: part -> count, filter: values of filters that show such talks}.
function shareTable(columns, wholeOf, unit) {
  const head = el('tr', {}, el('th', {scope: 'col'}, 'Model'), el('th', {scope: 'col', class: 'num'}, unit),
    ...columns.map((column) => el('th', {scope: 'col', class: 'num'}, column.label)));
  // The deepest shade of a colour stands for the largest share that it shows.
  const largest = {};
  for (const {tint, of} of columns) {
    for (const model of MODELS) {
      const part = model.modes[modeState.part];
      if (wholeOf(part)) largest[tint] = Math.max(largest[tint] || 0, of(part) / wholeOf(part));
    }
  }
  const rows = MODELS.map((model, place) => {
    const part = model.modes[modeState.part];
    const whole = wholeOf(part);
    return el('tr', {}, el('th', {scope: 'row'}, model.label), el('td', {class: 'num'}, whole.toLocaleString('en')),
      ...columns.map((column) => shareCell(column, place, part, whole, largest[column.tint])));
  });
  return el('table', {}, el('thead', {}, head), el('tbody', {}, ...rows));
}

function shareCell(column, model, part, whole, largest) {
  const number = column.of(part);
  const text = percent(number, whole);
  const cell = el('td', {class: 'num share'}, column.filter && number
    ? el('button', {
      type: 'button', 'aria-label': `${MODELS[model].label}, ${column.label}: ${text}; show talks`,
      on: {click: () => showTalks({'by-model': String(model), 'by-scene': String(BOARD.scenes.indexOf(modeState.part)), ...column.filter})},
    }, text)
    : el('span', {}, text));
  cell.style.setProperty('--share', number ? number / whole / largest : 0);
  cell.style.setProperty('--tint', `var(--${column.tint})`);
  return cell;
}
