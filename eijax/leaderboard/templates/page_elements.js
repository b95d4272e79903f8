// Builders of elements. Texts of models and scenarios become text nodes and nothing else.
const SVG = 'http://www.w3.org/2000/svg';
const MINUS = '\u2212';

function byId(id) {
  return document.getElementById(id);
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name === 'on') {
      for (const [event, listener] of Object.entries(value)) node.addEventListener(event, listener);
    } else if (value === true) {
      node.setAttribute(name, '');
    } else if (value !== false && value !== null && value !== undefined) {
      node.setAttribute(name, value);
    }
  }
  node.append(...children.filter((child) => child !== null && child !== undefined && child !== ''));
  return node;
}

function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function signed(value, digits = 1) {
  if (value === null || value === undefined) return '\u2013';
  const text = Math.abs(value).toFixed(digits);
  return Number(text) === 0 ? text : (value < 0 ? MINUS : '+') + text;
}

function percent(part, whole) {
  return whole ? `${((100 * part) / whole).toFixed(part && part < 0.1 * whole ? 1 : 0)} %` : '\u2013';
}

function count(number, noun) {
  return `${number.toLocaleString('en')} ${noun}${number === 1 ? '' : 's'}`;
}

function capitalised(word) {
  return word.charAt(0).toUpperCase() + word.slice(1);
}

function words(name) {
  return name.replaceAll('_', ' ');
}

// A row of radio buttons; calls onChange with the chosen value, also once at the start.
function radios(fieldset, options, chosen, onChange) {
  for (const [value, label] of options) {
    const input = el('input', {type: 'radio', name: fieldset.id, value, on: {change: () => onChange(value)}});
    input.checked = value === chosen;
    fieldset.append(el('label', {}, input, label));
  }
  fieldset.hidden = false;
  onChange(chosen);
}

function choose(fieldset, value) {
  for (const input of fieldset.querySelectorAll('input')) input.checked = input.value === value;
}

// Options of a select: [value, label] pairs; the first one stands for all.
function options(select, pairs) {
  select.replaceChildren(...pairs.map(([value, label]) => el('option', {value}, label)));
}

// A linear scale from data to pixels.
function scale(low, high, from, to) {
  return (value) => from + ((value - low) / (high - low)) * (to - from);
}
