// The data of the page: what is read at once, and the talks of each model, unpacked when asked for.
const BOARD = JSON.parse(byId('board').textContent);
const PARTS = ['overall', ...BOARD.scenes];
const MODELS = BOARD.models;

// One record a talk, for lists and filters.
const TALKS = BOARD.talks.flatMap((rows, model) =>
  rows.map(([scenario, sample, scene, score, ending, turns, rules, flags], place) => ({
    model, place, scenario, sample, scene, score, ending, turns, rules, flags,
  })),
);
const HAS_SAMPLES = TALKS.some((talk) => talk.sample > 0);

const unpacked = new Map();

// Promise of the texts of a model's talks, in the order of BOARD.talks[model].
function textsOf(model) {
  if (!unpacked.has(model)) unpacked.set(model, unpack(byId(`packed-${model}`)));
  return unpacked.get(model);
}

async function unpack(element) {
  if (typeof DecompressionStream === 'undefined') {
    throw new Error('This browser cannot unpack the talks (it has no DecompressionStream). Browsers since May 2023 can.');
  }
  const letters = atob(element.textContent);
  element.remove();  // The packed copy is not needed twice.
  const bytes = new Uint8Array(letters.length);
  for (let i = 0; i < letters.length; i++) bytes[i] = letters.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream('gzip'));
  return new Response(stream).json();
}

// How a talk ended, as the end of "Ended by ...".
const ENDINGS = {
  simulator_stop: 'the user', max_rounds: 'the round limit', simulator_failed: 'a failure of the simulator', model_failed: 'a failure of the model',
};

function endingOf(ending) {
  return ENDINGS[BOARD.endings[ending]] || words(BOARD.endings[ending]);
}

function titleOf(scenario) {
  const about = BOARD.scenarios[scenario];
  return about ? about[0] : BOARD.ids[scenario];
}

function sceneName(talk) {
  return BOARD.scenes[talk.scene];
}
