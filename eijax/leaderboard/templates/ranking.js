// The table of scores, sortable by each column, and the bars of the column that ranks.
function startRanking() {
  const table = byId('scores');
  for (const head of table.tHead.rows[0].cells) {
    // A small line below the name stays outside of the button, so that the arrow stands by the name.
    const button = el('button', {type: 'button', on: {click: () => sortBy(head, nextDirection(head))}}, head.firstChild);
    head.prepend(button);
  }
  radios(byId('rank-by'), PARTS.map((part) => [part, capitalised(part)]), 'overall', (part) => {
    sortBy(table.querySelector(`th[data-key="${part}"]`), 'descending');
  });
  byId('bars').hidden = false;
}

function nextDirection(head) {
  const natural = head.dataset.kind === 'text' || head.dataset.key === 'p' ? 'ascending' : 'descending';
  const opposite = natural === 'ascending' ? 'descending' : 'ascending';
  return head.getAttribute('aria-sort') === natural ? opposite : natural;
}

function sortBy(head, direction) {
  const table = byId('scores');
  const body = table.tBodies[0];
  const sign = direction === 'ascending' ? 1 : -1;
  const isText = head.dataset.kind === 'text';
  const valued = [...body.rows].map((row) => [row, row.cells[head.cellIndex].dataset.value]);
  valued.sort(([one, a], [other, b]) => {
    if (a === '' || b === '') return (a === '') - (b === '') || one.dataset.model - other.dataset.model;  // Nothing goes last.
    const order = isText ? a.localeCompare(b) : a - b;
    return sign * order || one.dataset.model - other.dataset.model;
  });
  body.append(...valued.map(([row]) => row));
  for (const cell of table.tHead.rows[0].cells) cell.removeAttribute('aria-sort');
  head.setAttribute('aria-sort', direction);
  const part = PARTS.includes(head.dataset.key) ? head.dataset.key : 'overall';
  choose(byId('rank-by'), part);
  drawBars(part, valued.map(([row]) => Number(row.dataset.model)));
}

function drawBars(part, order) {
  const scores = order.map((model) => [MODELS[model].label, MODELS[model].scores[part]]);
  const scored = scores.filter(([, score]) => score.score !== null);
  const width = Math.max(300, Math.min(960, byId('bars').parentElement.clientWidth));
  const narrow = width < 560;
  const left = narrow ? 8 : Math.min(260, 24 + 7.4 * Math.max(...scores.map(([label]) => label.length)));
  const step = narrow ? 44 : 28;
  const top = 22;
  const height = top + step * scores.length + 4;
  const bounds = scored.flatMap(([, score]) => [score.score, ...score.ci95]).filter((value) => value !== null);
  const low = Math.min(-10, ...bounds.map((value) => Math.floor(value / 10) * 10));
  const high = Math.max(10, ...bounds.map((value) => Math.ceil(value / 10) * 10));
  const x = scale(low, high, left + 8, width - 62);
  const every = high - low > 120 ? 50 : high - low > 50 ? 20 : 10;
  const parts = [];
  for (let value = Math.ceil(low / every) * every; value <= high; value += every) {
    parts.push(
      svg('line', {x1: x(value), x2: x(value), y1: top, y2: height, class: value === 0 ? 'axis' : 'grid-line'}),
      svg('text', {x: x(value), y: 14, 'text-anchor': 'middle', class: 'tick'}, signed(value, 0)),
    );
  }
  scores.forEach(([label, score], place) => {
    const y = top + step * (place + (narrow ? 0.68 : 0.5));
    const shown = label.length > 34 ? `${label.slice(0, 33)}…` : label;
    parts.push(narrow
      ? svg('text', {x: left, y: y - 13}, shown)
      : svg('text', {x: left, y: y + 4.5, 'text-anchor': 'end'}, shown));
    if (score.score === null) return;
    const [from, to] = [x(0), x(score.score)].sort((a, b) => a - b);
    parts.push(svg('rect', {x: from, width: Math.max(0.5, to - from), y: y - 7, height: 14, class: 'bar'}));
    const [first, last] = score.ci95;
    if (first !== null) {
      parts.push(svg('path', {
        d: `M${x(first)} ${y - 5}v10m0-5H${x(last)}m0-5v10`, class: 'whisker',
      }));
    }
    parts.push(svg('text', {x: width - 2, y: y + 4.5, 'text-anchor': 'end'}, signed(score.score)));
  });
  const told = scores.map(([label, score]) => `${label} ${signed(score.score)}`).join('; ');
  byId('bars').replaceChildren(
    svg('svg', {viewBox: `0 0 ${width} ${height}`, role: 'img', 'aria-label': `${capitalised(part)} score: ${told}`}, ...parts),
    el('figcaption', {}, `${capitalised(part)}: mean score × 100, bars from 0 (the talk left the user as it found them); whiskers are 95 % intervals.`),
  );
}
