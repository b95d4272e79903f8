"""A headless Chromium for tests of pages; tests skip where there is none."""

import contextlib
import shutil
import tempfile

import pytest

_SWITCHES = (
    '--headless=new', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
    '--disable-component-update', '--disable-sync', '--disable-dev-shm-usage', '--hide-scrollbars',
)
DESKTOP, PHONE = (1280, 900), (390, 844)


@contextlib.contextmanager
def chromium(size=DESKTOP):
  """A WebDriver with an empty profile of its own. It never downloads a browser or a driver."""
  binary = shutil.which('chromium') or shutil.which('chromium-browser') or shutil.which('google-chrome')
  driver_path = shutil.which('chromedriver')
  if not binary or not driver_path:
    pytest.skip('no Chromium with chromedriver on the PATH; on Debian: apt install chromium chromium-driver')
  webdriver = pytest.importorskip('selenium.webdriver', reason="no selenium; pip install '.[test]'")
  with tempfile.TemporaryDirectory(prefix='eijax_chromium_', ignore_cleanup_errors=True) as profile:
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for switch in (*_SWITCHES, f'--user-data-dir={profile}', f'--window-size={size[0]},{size[1]}'):
      options.add_argument(switch)
    options.set_capability('goog:loggingPrefs', {'browser': 'ALL'})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=driver_path))
    try:
      driver.set_page_load_timeout(120)
      driver.set_script_timeout(60)
      if size[0] < 500:  # Narrower than a desktop window can be.
        driver.execute_cdp_cmd(
            'Emulation.setDeviceMetricsOverride', {'width': size[0], 'height': size[1], 'deviceScaleFactor': 1, 'mobile': True}
        )
      yield driver
    finally:
      driver.quit()
