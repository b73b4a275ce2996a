"The report as a page in a real browser, its size with many pictures, and that a kill leaves the old one whole"
import json, os, subprocess, sys, time
from types import SimpleNamespace
import numpy as np, pytest
pd = pytest.importorskip('pandas', reason='pandas is not installed')
from PIL import ImageFilter
from gender_classifier.report import make_report
from gender_classifier.synth import synth_face, synth_faces, synth_scene

def messy(root):
    "A folder with faults, and what a check would say of it"
    synth_faces(root, n=20)
    synth_face('female', 1).filter(ImageFilter.GaussianBlur(8)).save(root/'female'/f'{"a_long_name_"*8}.jpg')
    synth_scene(3).resize((1200, 300)).save(root/'female'/'<i>scene & wall.jpg')
    (root/'male'/'broken.jpg').write_text('<html>404</html>')
    fns = sorted(map(str, root.rglob('*.jpg')))
    df = pd.DataFrame(dict(fn=fns, labels=[o.split(os.sep)[-2] for o in fns], source='web', race='', person=''))
    df['age'], df['split'] = np.linspace(20, 80, len(df)), np.where(np.arange(len(df))%5, 'train', 'valid')
    found = df[['fn']].assign(is_unreadable_issue=df.fn.str.contains('broken'), is_blurry_issue=df.fn.str.contains('long_name'), blurry_score=.1,
        is_no_face_issue=df.fn.str.contains('scene'), is_near_duplicates_issue=df.fn.str.contains('_000[0-5]'), is_dark_issue=df.fn.str.contains('_001'), dark_score=.2)
    pairs = pd.DataFrame(dict(a=df.fn[df.fn.str.contains('female_000[0-5]')].values, b=df.fn[df.fn.str.contains('/male_000[0-5]')].values)).assign(kind='near', score=.95, cross_split=False, cross_label=True)
    skipped = pd.DataFrame([(str(root/'notes.txt'), 'its suffix is not that of a picture')], columns=['fn', 'reason'])
    return make_report(df, SimpleNamespace(df=found, pairs=pairs), root=root, skipped=skipped)

@pytest.fixture(scope='module')
def report(tmp_path_factory): return messy(tmp_path_factory.mktemp('data')/'messy')

@pytest.fixture(params=[390, 1280])
def page(browser, report, tmp_path, request):
    page = browser.new_page(viewport=dict(width=request.param, height=900))
    page.said, page.asked = [], []
    page.on('console', lambda m: page.said.append(m.text))
    page.on('request', lambda r: page.asked.append(r.url))
    page.goto(report.to_html(tmp_path/'report.html').as_uri())
    yield page
    page.close()

def test_page_fits_and_asks_for_nothing(page):
    assert page.evaluate('document.documentElement.scrollWidth') <= page.viewport_size['width']
    assert not page.said and not [o for o in page.asked if not o.startswith(('file:', 'data:'))]
    assert page.evaluate('[...document.images].every(o => o.complete && o.naturalWidth>0 && o.alt)')
    assert page.locator('i:has-text("scene")').count() == 0
    assert float(page.evaluate('getComputedStyle(document.querySelector("figcaption")).fontSize').replace('px', '')) >= 12

def test_keyboard_alone(page):
    "Tab leads to each part; Enter opens and closes a block; nothing of it needs a mouse"
    page.keyboard.press('Tab')
    assert page.evaluate('document.activeElement.textContent') == 'To the report'
    page.locator('nav a', has_text='Counts').focus()
    page.keyboard.press('Enter')
    page.wait_for_function("location.hash=='#counts'")
    block = page.locator('#issue-blurry')
    page.locator('#issue-blurry summary').focus()
    page.keyboard.press('Enter')
    assert not block.evaluate('o => o.open') and not page.locator('#issue-blurry img').is_visible()
    page.keyboard.press('Enter')
    assert block.evaluate('o => o.open')

def test_page_has_no_known_barrier(page):
    pkg = pytest.importorskip('axe_playwright_python', reason='axe-core is not installed')
    from axe_playwright_python.sync_playwright import Axe
    bad = Axe().run(page).response['violations']
    assert not bad, [(o['id'], [n['html'][:200] for n in o['nodes']][:2]) for o in bad]

def test_many_pictures(tmp_path):
    "Counts, page and JSON of 100,000 pictures, a third of them with an issue"
    n = 100_000
    rng = np.random.default_rng(0)
    df = pd.DataFrame(dict(fn=[f'{tmp_path}/male/{i:06d}.jpg' for i in range(n)], labels=rng.choice(['male', 'female', ''], n), source=rng.choice(list('abc'), n), split='', age=rng.integers(0, 90, n), race='', person=''))
    found = df[['fn']].assign(is_blurry_issue=rng.random(n)<.3, blurry_score=rng.random(n), is_near_duplicates_issue=rng.random(n)<.1)
    pairs = pd.DataFrame(dict(a=df.fn[:5000].values, b=df.fn[5000:10_000].values)).assign(kind='near', score=.95, cross_split=False, cross_label=False)
    t = time.perf_counter()
    rep = make_report(df, SimpleNamespace(df=found, pairs=pairs), root=tmp_path)
    d = json.loads(rep.to_json(tmp_path/'r.json').read_text())
    page = rep.to_html(tmp_path/'r.html')
    assert time.perf_counter()-t < 60
    assert d['pictures'] == n and len(d['issues'][1]['files']) == found.is_blurry_issue.sum() and len(d['pairs']) == 5000
    assert page.stat().st_size < 2**20

KILL = """
import os, sys
from gender_classifier import report
os.replace = lambda *a: os._exit(9)
report.write_text(sys.argv[1], 'new', ['.html'])
"""

def test_killed_while_writing(tmp_path):
    fn = tmp_path/'r.html'
    fn.write_text('old')
    assert subprocess.run([sys.executable, '-c', KILL, fn]).returncode == 9
    assert fn.read_text() == 'old'
