"""The leaderboard page as a reader uses it, in a headless Chromium."""

import re
import time

import numpy as np
import pytest

from browser import DESKTOP, PHONE, chromium
from eijax.leaderboard import entries as entries_lib
from eijax.leaderboard.write import write_leaderboard
from evaluation_folders import fail, made_up_rows, write_folder
from test_leaderboard import HOSTILE, hostile_folder

# Three models on 44 scenarios: more talks than one page of the list holds.
NAMES = ('good', 'middling', 'bad')


@pytest.fixture(name='folders', scope='module')
def _folders(tmp_path_factory):
  folder = tmp_path_factory.mktemp('page')
  rng = np.random.default_rng(0)
  rows = {}
  for name, skill in zip(NAMES, (0.9, 0.5, 0.1)):
    rows[name] = made_up_rows(rng, skill, (11, 11, 11, 11))
  rows['bad'][3] = fail(rows['bad'][3])
  rows['good'][7]['turns'][1]['defender'] = 'The Kettle was still warm; "yes", said the <b>ÄRZTIN</b>.'
  rows['bad'][5]['turns'][0]['simulator'] = 'A kettle? Still?'
  for name in NAMES:
    write_folder(folder / name, rows[name], name)
  return folder


@pytest.fixture(name='entries', scope='module')
def _entries(folders):
  return entries_lib.read_entries([str(folders / name) for name in NAMES])


@pytest.fixture(name='address', scope='module')
def _address(folders, entries):
  return write_leaderboard(entries, folders, title='Three models', scenarios={})[-1].as_uri()


@pytest.fixture(name='desktop', scope='module')
def _desktop():
  with chromium(DESKTOP) as driver:
    yield driver


@pytest.fixture(name='page')
def _page(desktop, address):
  """A fresh page; afterwards nothing may have been fetched, refused or broken."""
  desktop.get('about:blank')
  desktop.get(address)
  desktop.get_log('browser')
  yield desktop
  assert desktop.get_log('browser') == []
  assert desktop.execute_script("return performance.getEntriesByType('resource').length") == 0


def find(driver, selector):
  return driver.find_element('css selector', selector)


def texts(driver, selector):
  return driver.execute_script(
      'return [...document.querySelectorAll(arguments[0])].map((node) => node.textContent.trim())', selector
  )


def wait(condition, secs=30):
  """Waits until the condition holds; the machine may be busy."""
  deadline = time.monotonic() + secs
  while not condition():
    assert time.monotonic() < deadline, 'nothing happened'
    time.sleep(0.02)


def click(driver, selector):
  driver.execute_script('arguments[0].click()', find(driver, selector))


def set_filter(driver, name, value):
  """Sets a field as a person would, and waits for the list."""
  before = driver.execute_script('return window.waited = document.getElementById("found").firstChild')
  driver.execute_script(
      'const node = document.getElementById(arguments[0]); node.value = arguments[1];'
      'node.dispatchEvent(new Event("input", {bubbles: true}));', name, value,
  )
  assert before is not None
  wait(lambda: driver.execute_script(
      'const node = document.getElementById("found"); return node.firstChild !== window.waited && !/Reading/.test(node.textContent)'
  ))


def num_found(driver):
  return int(re.match(r'[\d,]+', find(driver, '#found').text).group().replace(',', ''))


def open_first(driver):
  click(driver, '#talk-list button')
  wait(lambda: driver.find_elements('css selector', '#talk .bubble'))


def test_the_table_sorts_by_every_column(page, entries):
  by_label = {entry.label: entry for entry in entries}
  rows = lambda: texts(page, '#scores tbody th')
  assert rows() == ['good', 'middling', 'bad']
  heads = page.find_elements('css selector', '#scores thead th')
  charm = lambda label: by_label[label].scores['scenes']['charm']['score']
  click(page, '#scores th[data-key=charm] button')
  assert rows() == sorted(NAMES, key=charm, reverse=True)
  assert find(page, '#scores th[data-key=charm]').get_attribute('aria-sort') == 'descending'
  assert sum(head.get_attribute('aria-sort') is not None for head in heads) == 1
  click(page, '#scores th[data-key=charm] button')
  assert rows() == sorted(NAMES, key=charm)
  find(page, '#scores th[data-key=model] button').send_keys('\ue007')  # Enter: the keyboard sorts, too.
  assert rows() == ['bad', 'good', 'middling']
  click(page, '#scores th[data-key=p] button')
  assert rows()[-1] == 'good'  # It has no p value: nothing goes last.
  for head in heads:
    click(page, f'#scores th[data-key={head.get_attribute("data-key")}] button')
    assert head.get_attribute('aria-sort') in ('ascending', 'descending') and sorted(rows()) == sorted(NAMES)


def test_bars_follow_the_part_that_ranks(page, entries):
  click(page, '#rank-by input[value=repair]')
  repair = {entry.label: entry.scores['scenes']['repair']['score'] for entry in entries}
  ranked = sorted(repair, key=repair.get, reverse=True)
  assert texts(page, '#scores tbody th') == ranked
  told = find(page, '#bars svg').get_attribute('aria-label').replace('\u2212', '-')
  assert re.findall(r'(\w+) ([+-]?\d+\.\d)', told) == [(label, f'{repair[label]:+.1f}') for label in ranked]
  assert len(page.find_elements('css selector', '#bars .bar')) == 3 == len(page.find_elements('css selector', '#bars .whisker'))


def test_curves_show_means_and_talks_still_running(page, entries):
  assert len(page.find_elements('css selector', '#curve-charts svg')) == 12
  path = lambda: find(page, '#curve-charts .chosen').get_attribute('d')
  held = path()
  click(page, '#curve-kind input[value=running]')
  assert path() != held
  first = texts(page, '#curve-numbers tr:nth-child(3) td')
  rows = [row for row in entries[0].rows if row['scene_tag'] == 'support']
  assert first[:2] == ['support', 'talks running']
  assert first[2:] == [str(sum(len(row['turns']) >= turn for row in rows)) for turn in range(9)]
  page.execute_script("document.querySelector('#curve-models').open = true")
  click(page, '#curve-models input')
  assert texts(page, '#curve-legend span') == ['middling', 'bad']
  assert len(page.find_elements('css selector', '#curve-charts .other')) == 12


def test_filters_agree_with_the_rows(page, entries):
  rows = [(entry.label, row) for entry in entries for row in entry.rows]
  assert num_found(page) == len(rows) == 132 and len(page.find_elements('css selector', '#talk-list button')) == 30
  options = lambda name: {option.text: option.get_attribute('value') for option in find(page, f'#{name}').find_elements('css selector', 'option')}
  set_filter(page, 'by-model', options('by-model')['bad'])
  set_filter(page, 'by-scene', options('by-scene')['Support'])
  assert num_found(page) == 11
  set_filter(page, 'by-ending', options('by-ending')['a failure of the simulator'])
  assert num_found(page) == 1 and texts(page, '#talk-list .score') == ['failed']
  click(page, '#filters [type=reset]')
  wait(lambda: num_found(page) == 132)
  set_filter(page, 'score-min', '-20')
  set_filter(page, 'score-max', '35')
  inside = [row for _, row in rows if row['score'] is not None and -20 <= round(100 * row['score'], 1) <= 35]
  assert num_found(page) == len(inside) > 0
  set_filter(page, 'by-rule', options('by-rule')['empty apology'])
  assert num_found(page) == sum(any(turn['reflection']['rule'] == 'empty_apology' for turn in row['turns']) for row in inside)
  set_filter(page, 'order', 'low')
  shown = [int(text.replace('\u2212', '-')) for text in texts(page, '#talk-list .score')]
  assert shown == sorted(shown)
  click(page, '#filters [type=reset]')
  wait(lambda: num_found(page) == 132)
  set_filter(page, 'by-flag', 'flagged')
  assert num_found(page) == sum(any(turn['flags'] for turn in row['turns']) for _, row in rows) > 0


def test_pages_of_the_list(page):
  first = texts(page, '#talk-list button')
  assert find(page, '#page-at').text == 'Page 1 of 5' and not find(page, '#page-back').is_enabled()
  for _ in range(4):
    click(page, '#page-on')
  assert find(page, '#page-at').text == 'Page 5 of 5' and len(texts(page, '#talk-list button')) == 12
  assert not find(page, '#page-on').is_enabled()
  for _ in range(4):
    click(page, '#page-back')
  assert texts(page, '#talk-list button') == first
  find(page, '#talk-list button').send_keys('\ue015')  # Arrow down.
  assert page.switch_to.active_element.text.split('\n')[1] == texts(page, '#talk-list button span span')[1]


def test_full_text_search(page):
  for query, number in (
      ('KETTLE', 2), ('kettle warm', 1), ('"kettle was still"', 1), ('"kettle still"', 0), ('ärztin', 1), ('<b>', 1), ('kettle zzz', 0),
      ('"', 132), ('still? kettle?', 1),
  ):
    set_filter(page, 'query', query)
    assert num_found(page) == number, query
  set_filter(page, 'query', 'kettle warm')
  wait(lambda: page.find_elements('css selector', '.snippet mark'))
  assert texts(page, '.snippet mark') == ['Kettle', 'warm']
  open_first(page)
  assert texts(page, '#talk .said mark') == ['Kettle', 'warm']
  assert 'The Kettle was still warm; "yes", said the <b>ÄRZTIN</b>.' in texts(page, '#talk .policy .said')


def test_a_talk_is_shown_as_it_was(page, entries):
  open_first(page)
  row = entries[0].rows[0]
  assert texts(page, '#talk .policy > .said') == [turn['defender'] for turn in row['turns']]
  assert texts(page, '#talk .user > .said') == [turn['simulator'] for turn in row['turns']]
  assert texts(page, '#talk .policy dd') == [turn['thought'] for turn in row['turns']]
  assert row['turns'][0]['reflection']['core_need'] in texts(page, '#talk .user dd')
  levels = [row['turns'][0]['anger'] - row['turns'][0]['anger_delta'], *(turn['anger'] for turn in row['turns'])]
  assert f'anger {", ".join(map(str, levels))};' in find(page, '#talk .track svg').get_attribute('aria-label')
  assert len(page.find_elements('css selector', '#talk .track circle')) == len(levels)
  beside, talk = find(page, '#talk .track').rect, find(page, '#talk .talk-body ol').rect
  assert beside['x'] >= talk['x'] + talk['width']
  assert page.switch_to.active_element.get_attribute('id') == 'talk'
  assert find(page, '#talk-list [aria-current=true] .score').text.replace('\u2212', '-') == f'{100 * row["score"]:+.0f}'


def test_walking_from_talk_to_talk_and_coming_back_by_address(page, entries):
  open_first(page)
  head = lambda: find(page, '#talk h3').text
  for _ in range(30):
    click(page, '#talk .talk-tools button:nth-of-type(3)')
  wait(lambda: head() == entries[0].rows[30]['id'])
  assert find(page, '#page-at').text == 'Page 2 of 5'
  page.execute_script(
      "const select = document.querySelector('#talk .talk-tools select'); select.value = '1';"
      "select.dispatchEvent(new Event('change'))"
  )
  other = next(row for row in entries[2].rows if row['id'] == entries[0].rows[30]['id'])
  wait(lambda: texts(page, '#talk .policy > .said') == [turn['defender'] for turn in other['turns']])
  address = page.current_url
  assert '#talk=bad' in address
  page.get('about:blank')
  page.get(address)
  wait(lambda: texts(page, '#talk .policy > .said') == [turn['defender'] for turn in other['turns']])


def test_a_share_of_a_failure_mode_opens_its_talks(page, entries):
  click(page, '#mode-scene input[value=defense]')
  places = {label: place for place, label in enumerate(texts(page, '#rule-table thead th'))}
  cell = f'#rule-table tbody tr:nth-child(3) td:nth-child({places["lecture"] + 1}) button'
  shown = float(find(page, cell).text.rstrip(' %'))
  rows = [row for row in entries[2].rows if row['scene_tag'] == 'defense']
  turns = [turn['reflection']['rule'] for row in rows for turn in row['turns']]
  assert shown == pytest.approx(100 * turns.count('lecture') / len(turns), abs=0.51)
  click(page, cell)
  wait(lambda: num_found(page) != 132)
  assert num_found(page) == sum(any(turn['reflection']['rule'] == 'lecture' for turn in row['turns']) for row in rows)


def test_hostile_text_is_shown_as_text(desktop, tmp_path):
  entries = entries_lib.read_entries([str(hostile_folder(tmp_path / 'run'))])
  *_, path = write_leaderboard(entries, tmp_path, title=HOSTILE, scenarios={})
  desktop.get(path.as_uri())
  set_filter(desktop, 'query', '<img')
  assert num_found(desktop) == 1
  open_first(desktop)
  shown = '</script><script>window.broken = 1</script><img src=x onerror="window.broken = 2">&lt;b&gt; `${1}` \n[U+202E]␀'
  assert texts(desktop, '#talk .policy > .said') == [shown, shown]
  assert shown in texts(desktop, '#talk .policy dd') and shown in texts(desktop, '#talk .user dd')
  assert shown in texts(desktop, '#talk p.warning')
  assert desktop.title.startswith('</script><script>window.broken')
  assert desktop.execute_script('return window.broken === undefined && document.images.length === 0 && document.scripts.length === 2')
  assert desktop.get_log('browser') == []
  # Even a script that did get into the page would not run.
  desktop.execute_script(
      "const node = document.createElement('script'); node.textContent = 'window.broken = 3'; document.body.append(node);"
  )
  assert desktop.execute_script('return window.broken === undefined')
  assert 'Content Security Policy' in desktop.get_log('browser')[0]['message']


def test_on_a_phone(address):
  with chromium(PHONE) as driver:
    driver.get(address)
    fits = 'return document.documentElement.scrollWidth <= innerWidth'
    assert driver.execute_script(fits)
    small = [
        node.get_attribute('outerHTML')[:80] for node in driver.find_elements('css selector', '#filters select, #filters input, .pager button')
        if node.is_displayed() and node.rect['height'] < 24
    ]
    assert not small
    open_first(driver)
    assert driver.execute_script(fits) and not find(driver, '#talk-list').is_displayed()
    assert find(driver, '#talk .track').rect['y'] < find(driver, '#talk .bubble').rect['y']
    click(driver, '#talk .back')
    assert find(driver, '#talk-list').is_displayed()


def test_every_control_has_a_name_and_every_text_contrast(page):
  open_first(page)
  unnamed = page.execute_script('''
    return [...document.querySelectorAll('button, input, select')].filter((node) => node.offsetParent !== null
      && !(node.textContent.trim() || node.getAttribute('aria-label') || node.labels?.length)).map((node) => node.outerHTML.slice(0, 90))
  ''')
  assert not unnamed
  ids = page.execute_script("return [...document.querySelectorAll('[id]')].map((node) => node.id)")
  assert len(ids) == len(set(ids))
  for scheme in ('light', 'dark'):
    page.execute_cdp_cmd('Emulation.setEmulatedMedia', {'features': [{'name': 'prefers-color-scheme', 'value': scheme}]})
    palette = page.execute_script('''
      const style = getComputedStyle(document.documentElement);
      return Object.fromEntries(['paper', 'raised', 'ink', 'muted', 'anger', 'trust', 'after'].map((name) => [name, style.getPropertyValue('--' + name).trim()]))
    ''')
    for name in ('ink', 'muted', 'anger', 'trust', 'after'):
      # WCAG 2.2, 1.4.3: 4.5 to 1 for text.
      assert _contrast(palette[name], palette['paper']) >= 4.5, (scheme, name)
  page.execute_cdp_cmd('Emulation.setEmulatedMedia', {'features': []})


def _contrast(one, other):
  bright, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
  return (bright + 0.05) / (dark + 0.05)


def _luminance(color):
  channels = [int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)]
  linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
  return sum(weight * value for weight, value in zip((0.2126, 0.7152, 0.0722), linear))


@pytest.mark.slow
def test_fifteen_models_on_213_scenarios(desktop, tmp_path):
  """25,560 turns: the size of the page, and the time until it can be used."""
  rng = np.random.default_rng(0)
  for number in range(15):
    write_folder(tmp_path / f'm{number}', made_up_rows(rng, number / 15, (54, 53, 53, 53), num_turns=8), f'model {number}')
  entries = entries_lib.read_entries([str(tmp_path / f'm{number}') for number in range(15)])
  *_, path = write_leaderboard(entries, tmp_path, title='Many', scenarios={})
  assert path.stat().st_size < 13e6
  desktop.get(path.as_uri())
  drawn = desktop.execute_script("return performance.getEntriesByName('board-drawn')[0].startTime")
  started = time.monotonic()
  open_first(desktop)
  opened = time.monotonic() - started
  set_filter(desktop, 'query', 'friend')
  started = time.monotonic()
  set_filter(desktop, 'query', 'friend mother')
  searched = time.monotonic() - started
  assert 0 < num_found(desktop) < 3195
  print(f'{path.stat().st_size / 1e6:.1f} MB, drawn after {drawn:.0f} ms, a talk in {opened:.2f} s, a search in {searched:.2f} s')
  # Many times what an idle machine needs; a page that draws all talks at once would take minutes.
  assert drawn < 30_000 and opened < 20 and searched < 20
