// Mean anger and trust over the turns and the talks still running, small charts by scene.
const MAX_CHOSEN = 6;
const curveState = {kind: 'all', chosen: []};

function startCurves() {
  byId('curves-section').hidden = false;
  const numFirst = MODELS.length <= MAX_CHOSEN ? MODELS.length : 4;
  curveState.chosen = MODELS.map((_, model) => model).slice(0, numFirst);
  const checks = byId('curve-models').querySelector('fieldset');
  MODELS.forEach((model, place) => {
    const input = el('input', {type: 'checkbox', value: place, on: {change: () => toggle(checks)}});
    input.checked = curveState.chosen.includes(place);
    checks.append(el('label', {}, input, model.label));
  });
  limit(checks);
  radios(byId('curve-kind'), [['all', 'count on with their last level'], ['running', 'are left out']], 'all', (kind) => {
    curveState.kind = kind;
    drawCurves();
  });
}

function toggle(checks) {
  curveState.chosen = [...checks.querySelectorAll('input:checked')].map((input) => Number(input.value));
  limit(checks);
  drawCurves();
}

function limit(checks) {
  const isFull = curveState.chosen.length >= MAX_CHOSEN;
  for (const input of checks.querySelectorAll('input')) input.disabled = isFull && !input.checked;
}

function drawCurves() {
  byId('curve-legend').replaceChildren(...curveState.chosen.map((model, place) =>
    el('span', {}, svg('svg', {viewBox: '0 0 36 12', 'aria-hidden': 'true'}, svg('path', {d: 'M0 6H36', class: `model-${place}`})),
      MODELS[model].label)));
  byId('curve-charts').replaceChildren(...PARTS.filter((part) => part !== 'overall').map(sceneRow));
  byId('curve-numbers').replaceChildren(numbersTable());
}

function sceneRow(scene) {
  const meaning = BOARD.meaning[scene];
  const level = (axis) => (model) => MODELS[model].curves[scene][axis][curveState.kind];
  const running = (model) => {
    const {num_running: numbers} = MODELS[model].curves[scene];
    return numbers.map((number) => (numbers[0] ? (100 * number) / numbers[0] : null));
  };
  return el('section', {class: 'scene-row'},
    el('h3', {}, capitalised(scene)),
    el('p', {class: 'quiet'}, `Anger: ${meaning.anger}. Trust: ${meaning.trust}.`),
    el('div', {class: 'three'},
      chart('Anger', level('anger'), scene, levelRange()), chart('Trust', level('trust'), scene, levelRange()),
      chart('Talks still running, % of all', running, scene, [0, 100])));
}

// One range for all charts of levels, so that they compare: as wide as the means, in tens.
function levelRange() {
  const means = MODELS.flatMap((model) => BOARD.scenes.flatMap((scene) =>
    ['anger', 'trust'].flatMap((axis) => model.curves[scene][axis][curveState.kind]))).filter((value) => value !== null);
  return means.length ? [Math.floor(Math.min(...means) / 10) * 10, Math.max(10, Math.ceil(Math.max(...means) / 10) * 10)] : [0, 100];
}

function chart(title, valuesOf, scene, [low, high]) {
  const [width, height, left, bottom, top] = [320, 170, 30, 22, 8];
  const x = scale(0, Math.max(1, BOARD.rounds), left, width - 8);
  const y = scale(low, Math.max(high, low + 10), height - bottom, top);
  const parts = [];
  for (let value = low; value <= high; value += high - low > 50 ? 20 : 10) {
    parts.push(svg('line', {x1: left, x2: width - 8, y1: y(value), y2: y(value), class: value !== low ? 'grid-line' : 'axis'}),
      svg('text', {x: left - 6, y: y(value) + 4, 'text-anchor': 'end', class: 'tick'}, String(value)));
  }
  const every = Math.ceil(BOARD.rounds / 10);
  for (let turn = 0; turn <= BOARD.rounds; turn += every) {
    parts.push(svg('text', {x: x(turn), y: height - 6, 'text-anchor': 'middle', class: 'tick'}, String(turn)));
  }
  MODELS.forEach((_, model) => {
    if (!curveState.chosen.includes(model)) parts.push(line(valuesOf(model), x, y, 'other'));
  });
  const told = [];
  curveState.chosen.forEach((model, place) => {
    const values = valuesOf(model);
    parts.push(line(values, x, y, `chosen model-${place}`));
    const seen = values.filter((value) => value !== null);
    if (seen.length) told.push(`${MODELS[model].label} from ${seen[0].toFixed(0)} to ${seen[seen.length - 1].toFixed(0)}`);
  });
  return el('figure', {class: 'curve'}, el('figcaption', {}, title),
    svg('svg', {viewBox: `0 0 ${width} ${height}`, role: 'img', 'aria-label': `${scene}, ${title}: ${told.join('; ')}`}, ...parts));
}

function line(values, x, y, className) {
  let d = '';
  values.forEach((value, turn) => {
    if (value !== null) d += `${d ? 'L' : 'M'}${x(turn).toFixed(1)} ${y(value).toFixed(1)}`;
  });
  return svg('path', {d, class: className});
}

function numbersTable() {
  const turns = [...Array(BOARD.rounds + 1).keys()];
  const rows = [];
  for (const scene of BOARD.scenes) {
    for (const model of curveState.chosen) {
      const data = MODELS[model].curves[scene];
      for (const [name, values] of [['anger', data.anger[curveState.kind]], ['trust', data.trust[curveState.kind]], ['talks running', data.num_running]]) {
        const digits = name === 'talks running' ? 0 : 1;
        rows.push(el('tr', {}, el('th', {scope: 'row'}, MODELS[model].label), el('td', {}, scene), el('td', {}, name),
          ...turns.map((turn) => el('td', {class: 'num'}, values[turn] === null ? '\u2013' : values[turn].toFixed(digits)))));
      }
    }
  }
  const heads = ['Model', 'Scene', 'What'].map((name) => el('th', {scope: 'col'}, name));
  return el('table', {}, el('thead', {}, el('tr', {}, ...heads, ...turns.map((turn) => el('th', {scope: 'col', class: 'num'}, String(turn))))),
    el('tbody', {}, ...rows));
}
