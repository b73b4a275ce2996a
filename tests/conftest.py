"What the tests share. Tests that need what this machine does not have are skipped, with the reason."
import os, shutil, subprocess
from pathlib import Path
import pytest
from surroundings import beside, root, said, surroundings

env = surroundings(os.environ)
for k in set(os.environ)-set(env): del os.environ[k]
os.environ.update(env)

@pytest.fixture(scope='session')
def project(): return root

@pytest.fixture(scope='session')
def shared_data():
    "The folder of real data sets"
    path = Path(os.environ.get('GENDER_CLASSIFIER_DATA', beside/'data'))
    if not path.is_dir(): pytest.skip('GENDER_CLASSIFIER_DATA names no folder of real data')
    return path

@pytest.fixture
def call(capfd):
    "The command line with arguments, in this process: exit status, standard output and standard error"
    from gender_classifier.cli import main
    def _call(*args):
        capfd.readouterr()
        try: rc = main([str(o) for o in args])
        except SystemExit as e: rc = e.code
        out, err = capfd.readouterr()
        assert 'Traceback' not in out+err, out+err
        return rc, out, said(err)
    return _call

@pytest.fixture(scope='session')
def photo():
    "A real photograph of one woman, Grace Hopper, that matplotlib carries"
    data = pytest.importorskip('matplotlib.cbook')
    return Path(data.get_sample_data('grace_hopper.jpg', asfileobj=False))

@pytest.fixture(scope='session')
def shots():
    "Where the tests of the page leave pictures of what they saw; git ignores it"
    path = root/'build/screenshots'
    path.mkdir(parents=True, exist_ok=True)
    return path

@pytest.fixture(scope='session')
def chromium():
    "The browser's executable"
    for o in ('chromium', 'chromium-browser', 'google-chrome', 'chrome'):
        if (fn := shutil.which(o)) and subprocess.run([fn, '--version'], capture_output=True).returncode == 0: return fn # a stub that only says what to install does not run
    pytest.skip('no chromium here, so no test in a browser')

@pytest.fixture(scope='module')
def browser(chromium):
    sync_api = pytest.importorskip('playwright.sync_api', reason='playwright is not installed, so no test in a browser')
    with sync_api.sync_playwright() as p:
        b = p.chromium.launch(executable_path=chromium, args=['--no-sandbox'])
        yield b
        b.close()
