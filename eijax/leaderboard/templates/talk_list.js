// The list of talks: filters, full-text search, pages.
const PAGE_SIZE = 30;
const SNIPPET_CHARS = 120;
const listState = {terms: [], found: [], page: 0, search: 0};
// Model -> one lower-case text a talk.
const haystacks = new Map();

function startTalks() {
  byId('talks-section').hidden = false;
  const every = (label, names) => [['', label], ...names.map((name, place) => [String(place), name])];
  options(byId('by-model'), every('all', MODELS.map((model) => model.label)));
  options(byId('by-scene'), every('all', BOARD.scenes.map(capitalised)));
  options(byId('by-ending'), every('any', BOARD.endings.map((_, place) => endingOf(place))));
  options(byId('by-rule'), every('any', BOARD.rules.map(words)));
  options(byId('by-flag'), [['', 'any'], ['flagged', 'flagged'], ...every('', BOARD.flags.map(words)).slice(1)]);
  byId('by-rule').closest('label').hidden = !BOARD.rules.length;
  byId('by-flag').closest('label').hidden = !BOARD.flags.length;
  options(byId('order'), [['board', 'by model and scenario'], ['scenario', 'by scenario'], ['high', 'highest score first'],
    ['low', 'lowest score first'], ['long', 'longest first']]);
  const form = byId('filters');
  let waiting = 0;
  form.addEventListener('input', (event) => {
    clearTimeout(waiting);
    waiting = setTimeout(update, event.target.type === 'search' || event.target.type === 'number' ? 200 : 0);
  });
  form.addEventListener('reset', () => setTimeout(update));
  form.addEventListener('submit', (event) => {
    event.preventDefault();
    update();
  });
  // Whoever is about to search need not wait for the unpacking afterwards.
  byId('query').addEventListener('focus', () => MODELS.forEach((_, model) => textsOf(model).catch(() => null)), {once: true});
  byId('page-back').addEventListener('click', () => turnPage(-1));
  byId('page-on').addEventListener('click', () => turnPage(1));
  byId('talk-list').addEventListener('keydown', arrowKeys);
  update();
}

// Terms of a query, lower case: words, and phrases between double quotes.
function termsOf(query) {
  return [...query.toLowerCase().matchAll(/"([^"]*)"?|[^\s"]+/g)].map((match) => (match[1] ?? match[0]).trim()).filter(Boolean);
}

async function update() {
  const search = ++listState.search;
  listState.terms = termsOf(byId('query').value);
  const kept = TALKS.filter(passes(readFilters()));
  if (listState.terms.length) {
    const models = new Set(kept.map((talk) => talk.model));
    // All are begun at once: unpacking goes on beside this thread.
    models.forEach((model) => textsOf(model).catch(() => null));
    try {
      for (const model of models) {
        if (!haystacks.has(model)) {
          byId('found').textContent = `Reading the talks of ${MODELS[model].label} …`;
          haystacks.set(model, (await textsOf(model)).map(haystack));
          if (search !== listState.search) return;  // A newer search has begun.
        }
      }
    } catch (error) {
      byId('found').textContent = error.message;
      return;
    }
  }
  if (search !== listState.search) return;
  listState.found = kept.filter((talk) => listState.terms.every((term) => haystacks.get(talk.model)[talk.place].includes(term)));
  listState.found.sort(ORDERS[byId('order').value]);
  listState.page = 0;
  byId('found').textContent = listState.found.length === TALKS.length
    ? `${count(TALKS.length, 'talk')}.` : `${listState.found.length.toLocaleString('en')} of ${count(TALKS.length, 'talk')}.`;
  drawList();
}

function haystack([turns, , , closing]) {
  return [...turns.flatMap(([defender, thought, simulator]) => [defender, thought, simulator]), closing].join('\n').toLowerCase();
}

function readFilters() {
  const number = (id) => (byId(id).value === '' ? null : byId(id).valueAsNumber);
  const values = Object.fromEntries(['by-model', 'by-scene', 'by-ending', 'by-rule', 'by-flag'].map((id) => [id, byId(id).value]));
  return {...values, min: number('score-min'), max: number('score-max')};
}

function passes(filters) {
  const is = (filter, place) => filter === '' || Number(filter) === place;
  return (talk) => is(filters['by-model'], talk.model) && is(filters['by-scene'], talk.scene) && is(filters['by-ending'], talk.ending)
    && (filters['by-rule'] === '' || talk.rules.includes(Number(filters['by-rule'])))
    && (filters['by-flag'] === '' || (filters['by-flag'] === 'flagged' ? talk.flags.length > 0 : talk.flags.includes(Number(filters['by-flag']))))
    && (filters.min === null || (talk.score !== null && talk.score >= filters.min))
    && (filters.max === null || (talk.score !== null && talk.score <= filters.max));
}

const byBoard = (a, b) => a.model - b.model || a.place - b.place;
const ORDERS = {
  board: byBoard,
  scenario: (a, b) => BOARD.ids[a.scenario].localeCompare(BOARD.ids[b.scenario]) || byBoard(a, b),
  high: (a, b) => (b.score ?? -Infinity) - (a.score ?? -Infinity) || byBoard(a, b),
  low: (a, b) => (a.score ?? Infinity) - (b.score ?? Infinity) || byBoard(a, b),
  long: (a, b) => b.turns - a.turns || byBoard(a, b),
};

function drawList() {
  const {found, page} = listState;
  const shown = found.slice(page * PAGE_SIZE, (page + 1) * PAGE_SIZE);
  const numPages = Math.max(1, Math.ceil(found.length / PAGE_SIZE));
  byId('talk-list').replaceChildren(...shown.map(listItem));
  byId('talk-list').start = page * PAGE_SIZE + 1;
  byId('page-back').disabled = page === 0;
  byId('page-on').disabled = page >= numPages - 1;
  byId('page-at').textContent = found.length ? `Page ${page + 1} of ${numPages}` : 'No talk fits';
  markOpen();
}

function listItem(talk) {
  const button = el('button', {type: 'button', on: {click: () => showTalk(talk)}},
    el('span', {class: 'score'}, talk.score === null ? 'failed' : signed(talk.score, 0)),
    el('span', {}, el('span', {dir: 'auto'}, titleOf(talk.scenario)),
      el('small', {}, `${MODELS[talk.model].label} · ${sceneName(talk)}${HAS_SAMPLES ? ` · talk ${talk.sample + 1}` : ''}`),
      el('small', {}, `ended by ${endingOf(talk.ending)}, ${count(talk.turns, 'turn')}${talk.flags.length ? ' · imitation' : ''}`)));
  if (listState.terms.length) addSnippet(button, talk);
  button.talk = talk;
  return el('li', {}, button);
}

async function addSnippet(button, talk) {
  const [turns, , , closing] = (await textsOf(talk.model))[talk.place];
  for (const text of [...turns.flatMap((turn) => turn.slice(0, 3)), closing]) {
    const [first] = hits(text);
    if (first) {
      const before = Math.max(0, first[0] - SNIPPET_CHARS / 3);
      const start = before && text.lastIndexOf(' ', first[0] - 1) >= before ? text.indexOf(' ', before) + 1 : before;
      const cut = text.slice(start, start + SNIPPET_CHARS);
      button.append(el('span', {class: 'snippet', dir: 'auto'}, start ? '… ' : '', ...marked(cut), start + SNIPPET_CHARS < text.length ? ' …' : ''));
      return;
    }
  }
}

// [start, end] of every term in a text, in order and without overlap.
function hits(text) {
  const lower = text.toLowerCase();
  if (lower.length !== text.length) return [];  // A few letters change their length; then nothing is marked.
  const found = [];
  for (const term of listState.terms) {
    for (let at = lower.indexOf(term); at >= 0; at = lower.indexOf(term, at + term.length)) found.push([at, at + term.length]);
  }
  found.sort((a, b) => a[0] - b[0]);
  return found.filter(([start], place) => place === 0 || start >= Math.max(...found.slice(0, place).map((hit) => hit[1])));
}

// The text with what was searched for marked, as nodes.
function marked(text) {
  const nodes = [];
  let end = 0;
  for (const [from, to] of hits(text)) {
    nodes.push(text.slice(end, from), el('mark', {}, text.slice(from, to)));
    end = to;
  }
  nodes.push(text.slice(end));
  return nodes.filter((node) => node !== '');
}

function markOpen() {
  for (const button of byId('talk-list').querySelectorAll('button')) {
    if (button.talk === openTalk) button.setAttribute('aria-current', 'true');
    else button.removeAttribute('aria-current');
  }
}

function turnPage(step) {
  listState.page += step;
  drawList();
  byId('found').scrollIntoView({block: 'nearest'});
}

function arrowKeys(event) {
  if (event.key !== 'ArrowDown' && event.key !== 'ArrowUp') return;
  const buttons = [...byId('talk-list').querySelectorAll('button')];
  const next = buttons[buttons.indexOf(document.activeElement) + (event.key === 'ArrowDown' ? 1 : -1)];
  if (next) next.focus();
  event.preventDefault();
}

// The talk before or after the open one in the list as it is filtered now.
function neighbour(step) {
  return listState.found[listState.found.indexOf(openTalk) + step] || null;
}

function stepTalk(step) {
  const talk = neighbour(step);
  if (!talk) return;  // The filters have changed since the button was drawn.
  const page = Math.floor(listState.found.indexOf(talk) / PAGE_SIZE);
  if (page !== listState.page) {
    listState.page = page;
    drawList();
  }
  showTalk(talk);
}

// Sets filters (all others are cleared) and goes to the list.
function showTalks(filters) {
  byId('filters').reset();
  for (const [id, value] of Object.entries(filters)) byId(id).value = value === '-1' ? '' : value;
  closeTalk();
  update();
  byId('talks').scrollIntoView();
}
