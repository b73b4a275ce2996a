"The cleaner in a real JupyterLab in a real browser, Chromium: choose, switch the view, page, apply, undo, by mouse and by keyboard"
import json, re
from pathlib import Path
import nbformat, pytest
from serving import jupyterlab, run_in_lab, until

sync_api = pytest.importorskip('playwright.sync_api', reason='playwright is not installed, so no test in a browser')
for o in ('jupyterlab', 'anywidget', 'fastai'): pytest.importorskip(o)

SETUP = '''
from types import SimpleNamespace
import ipywidgets as w, pandas as pd, torch
from gender_classifier.cleaner import Cleaner, SafeCleaner
from gender_classifier.ingest import ingest

def cleaner(root, **kwargs):
    df = ingest(root).df
    n = len(df)
    found = df[['fn']].assign(is_blurry_issue=[i<5 for i in range(n)], blurry_score=[.1+.01*i for i in range(n)], is_near_duplicates_issue=[i in (6,7) for i in range(n)],
        near_duplicates_score=.2, copy_of=[df.fn[6] if i==7 else '' for i in range(n)])
    probs = pd.DataFrame([[.9,.1] if l=='female' else [.2,.8] for l in df.labels], columns=['female','male'])
    return Cleaner(df, root, issues=SimpleNamespace(df=found, pairs=None), probs=probs, **kwargs)
'''

LESSON = '''
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat
from gender_classifier.data import single_block
class Constant(torch.nn.Module):
    def __init__(self): super().__init__(); self.bias = torch.nn.Parameter(torch.tensor([1.,2.]))
    def forward(self, x): return self.bias.expand(len(x), -1)
safe = SafeCleaner(Learner(single_block(32).dataloaders('lesson', bs=4, num_workers=0), Constant(), CrossEntropyLossFlat()), height=64)
apply,undo = (w.Button(description=o) for o in ('apply it','undo it'))
apply.on_click(lambda _: safe.apply()); undo.on_click(lambda _: safe.undo())
w.VBox([safe.widget, w.HBox([apply, undo])])
'''

def make_data(path):
    "Folders of drawn faces, a notebook that shows cleaners of them, and JupyterLab's settings"
    from gender_classifier.synth import synth_faces
    for o in ('mouse', 'keys', 'broken', 'lesson'): synth_faces(path/o, 6, size=64)
    (path/'broken/female/female_0001.jpg').write_text('no picture')
    cells = [SETUP, *(f"{o} = cleaner({o!r}, n=4)\n{o}" for o in ('mouse', 'keys', 'broken')), LESSON]
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(o.strip()) for o in cells], metadata=dict(kernelspec=dict(name='python3', display_name='Python 3')))
    nbformat.write(nb, path/'clean.ipynb')

@pytest.fixture(scope='module')
def lab(tmp_path_factory, project, chromium):
    "The notebook, run, in a browser; its folder"
    path = tmp_path_factory.mktemp('lab')
    make_data(path)
    with jupyterlab(path, project) as url, sync_api.sync_playwright() as p:
        b = p.chromium.launch(executable_path=chromium, args=['--no-sandbox'])
        page = run_in_lab(b, url, 'clean.ipynb')
        page.faults = []
        page.on('pageerror', lambda e: page.faults.append(str(e)))
        try: page.locator('.jp-OutputArea-output .widget-vbox select').first.wait_for(timeout=120_000) # the last cell's
        except sync_api.TimeoutError: pytest.fail(page.locator('.jp-Notebook').inner_text()[-3000:])
        yield page,path
        b.close()

class Widget:
    "One of the cleaners on the page"
    def __init__(self, page, path, no, name):
        from gender_classifier.clean import Journal
        self.page,self.box,self.root = page,page.locator('.gc-cleaner').nth(no),path/name
        self.box.scroll_into_view_if_needed()
        self.cards,self.journal = self.box.locator('.gc-cleaner-card'),lambda: Journal(self.root)

    def names(self): return self.box.locator('.gc-cleaner-name').all_inner_texts()
    def choices(self): return self.cards.evaluate_all('es => es.map(e => e.dataset.choice)')
    def status(self, text): self.box.locator('.gc-cleaner-status', has_text=text).wait_for(timeout=20_000)
    def button(self, name): return self.box.get_by_role('button', name=name, exact=True)
    def where(self, text): self.box.locator('.gc-cleaner-where', has_text=text).wait_for(timeout=20_000)
    def select(self, label, value): self.box.get_by_label(label, exact=True).select_option(value)
    def pictures(self):
        "Wait until all pictures of the page are there"
        self.page.wait_for_function('e => [...e.querySelectorAll(".gc-cleaner-pic")].every(o => o.querySelector("img")?.naturalWidth > 0)', arg=self.box.element_handle(), timeout=20_000)
    def choose(self, i, value):
        self.cards.nth(i).locator(f'button[data-value={value}]').click()
        self.box.locator(f'.gc-cleaner-card >> nth={i}').and_(self.page.locator(f'[data-choice={value}]')).wait_for()
    def focused(self): return self.page.evaluate('document.activeElement.dataset.id ? [...document.activeElement.parentElement.children].indexOf(document.activeElement) : -1')
    def waiting(self): return {Path(o.fn).name:o.label or o.action for o in self.journal().pending().itertuples()}

def files(root):
    "The pictures under `root` as they are: bytes and time of each (one moved away by the kernel while we look is not there)"
    res = {}
    for o in sorted(root.glob('*ale/*')):
        try: res[o.relative_to(root).as_posix()] = o.read_bytes(),o.stat().st_mtime_ns
        except FileNotFoundError: pass
    return res

@pytest.fixture
def mouse(lab): return Widget(*lab, 0, 'mouse')
@pytest.fixture
def keys(lab): return Widget(*lab, 1, 'keys')

def test_pictures_and_texts(mouse):
    "Pictures come, none of them in what is saved; label, prediction and confidence are read out"
    mouse.pictures()
    assert mouse.cards.count() == 4 and mouse.where('1 to 4 of 6, page 1 of 2') is None
    assert mouse.cards.first.get_attribute('aria-label').startswith('female_0000.jpg. labelled female. the model says female, 90\u00a0%. blurred.')
    assert 'label: female · model: female 90\u00a0%' in mouse.cards.first.inner_text()
    alts = mouse.box.locator('img').evaluate_all('es => es.map(e => e.alt)')
    assert alts == mouse.names()
    assert mouse.box.locator('button').evaluate_all('es => es.every(e => e.innerText.trim() || e.getAttribute("aria-label"))')
    assert mouse.cards.evaluate_all('es => es.filter(e => e.tabIndex===0).length') == 1
    assert mouse.box.evaluate('e => e.scrollWidth<=e.clientWidth+1')

def test_choose_switch_page_apply_undo(mouse, lab):
    page,path = lab
    before,first = files(mouse.root),mouse.names()
    mouse.choose(0, 'remove'); mouse.choose(1, 'male')
    assert mouse.waiting() == {first[0]:'remove', first[1]:'male'} # on the disk already
    mouse.button('Next ›').click()
    mouse.where('5 to 6 of 6, page 2 of 2')
    mouse.choose(0, 'keep')
    kept = mouse.names()[0]

    mouse.select('Reason', 'blurred') # other views, and back
    mouse.select('Show', 'all')
    mouse.where('1 to 4 of 5')
    assert mouse.choices()[:2] == ['remove', 'male']
    mouse.select('Show', 'decided')
    mouse.where('1 to 3 of 3')
    mouse.select('Reason', 'all pictures'); mouse.select('Show', 'all')
    mouse.where('1 to 4 of 12, page 1 of 3')
    mouse.select('Label', 'male')
    mouse.where('of 6')
    mouse.select('Reason', 'any reason')
    assert mouse.waiting() == {first[0]:'remove', first[1]:'male', kept:'keep'}

    mouse.button('Apply …').click()
    assert '1 label to change, 1 picture to remove, 1 to keep.' in mouse.box.locator('.gc-cleaner-confirm').inner_text()
    mouse.button('Cancel').click()
    assert files(mouse.root) == before and not mouse.box.locator('.gc-cleaner-confirm').is_visible()
    mouse.button('Apply …').click()
    page.keyboard.press('Enter') # the focus is on Apply now
    mouse.status('Done: 1 moved to the trash, 1 relabelled, 1 kept as they are.')
    assert set(before)-set(files(mouse.root)) == {f'female/{first[0]}'}
    assert [o.read_bytes() for o in (mouse.root/'.gender_classifier/trash').rglob('*.jpg')] == [before[f'female/{first[0]}'][0]]
    assert {Path(k).name:v for k,v in mouse.journal().labels.items()} == {first[1]:'male'}
    assert mouse.box.locator('.gc-cleaner-counts').inner_text() == 'Nothing to apply.' and not mouse.button('Apply …').is_enabled()

    mouse.select('Show', 'all')
    mouse.where('1 to 4 of 6')
    mouse.pictures() # what lies in the trash can be seen
    assert 'in the trash' in mouse.cards.first.inner_text() and mouse.cards.first.get_by_role('button', name='bring back').is_visible()
    mouse.button('Undo the last …').click()
    mouse.button('Undo now').click()
    mouse.status('Taken back: 1 brought back')
    assert files(mouse.root) == before and mouse.journal().labels == {}
    mouse.box.locator('summary').click()
    assert '(taken back)' in mouse.box.locator('.gc-cleaner-history li').inner_text()

def test_bring_one_back(mouse):
    before = files(mouse.root)
    mouse.select('Reason', 'blurred'); mouse.select('Show', 'all')
    mouse.where('1 to 4 of 5')
    mouse.button('All on this page: remove').click()
    mouse.status('4 pictures: remove.')
    assert mouse.choices() == ['remove']*4
    mouse.button('Apply …').click(); mouse.button('Apply now').click()
    mouse.status('Done: 4 moved to the trash.')
    assert len(files(mouse.root)) == 8
    mouse.cards.nth(1).get_by_role('button', name='bring back').click()
    mouse.page.wait_for_function('e => !e.innerText.includes("in the trash")', arg=mouse.cards.nth(1).element_handle())
    assert len(files(mouse.root)) == 9
    mouse.button('Undo the last …').click(); mouse.button('Undo now').click()
    mouse.status('Taken back: 3 brought back.')
    assert files(mouse.root) == before

def test_keyboard(keys, lab):
    "Every key does what it says here, and none of what it does in JupyterLab (m and r change a cell, x cuts it, dd deletes it)"
    page,_ = lab
    cells = lambda: page.locator('.jp-Notebook .jp-Cell').evaluate_all('es => es.map(e => e.className.match(/jp-(Code|Markdown|Raw)Cell/)[1])')
    before = cells()
    keys.pictures()
    keys.cards.first.click(position=dict(x=100, y=60)) # on the picture
    assert keys.focused() == 0
    page.keyboard.press('r')
    page.wait_for_function('document.activeElement.parentElement.children[0].dataset.choice==="remove"')
    assert keys.focused() == 1
    for k in 'mn': page.keyboard.press(k)
    page.wait_for_function('document.activeElement.parentElement.children[2].dataset.choice==="neither"')
    assert keys.focused() == 3 and keys.choices() == ['remove', 'male', 'neither', '']
    page.keyboard.press('ArrowLeft'); page.keyboard.press('u')
    page.wait_for_function('document.activeElement.dataset.choice===""')
    assert keys.focused() == 2 and keys.choices() == ['remove', 'male', '', '']
    page.keyboard.press('Home'); page.keyboard.press('ArrowDown')
    columns = keys.cards.evaluate_all('es => es.filter(e => e.offsetTop===es[0].offsetTop).length')
    assert keys.focused() == (columns if columns<4 else 0)
    page.keyboard.press('ArrowUp'); assert keys.focused() == 0
    page.keyboard.press('End'); assert keys.focused() == 3
    page.keyboard.press('PageDown')
    keys.where('page 2 of 2')
    page.wait_for_function('document.activeElement.className.includes("gc-cleaner-card")')
    assert keys.focused() == 0
    page.keyboard.press('f'); page.keyboard.press('k')
    keys.page.wait_for_function('document.activeElement.dataset.choice==="keep"')
    page.keyboard.press('PageUp')
    keys.where('page 1 of 2')
    page.wait_for_function('document.activeElement.parentElement.children.length===4')
    assert keys.focused() == 3
    for k in ('x', 'd', 'd', 'a', 'b', 'y', 'Escape'): page.keyboard.press(k)
    assert cells() == before and keys.box.is_visible()
    keys.button('Next ›').focus() # not only on a picture
    for k in ('x', 'm'): page.keyboard.press(k)
    assert cells() == before
    keys.cards.nth(3).focus()
    assert sorted(keys.waiting().values()) == ['female', 'keep', 'male', 'remove']
    page.keyboard.press('Tab') # into the buttons of this picture
    assert page.evaluate('document.activeElement.dataset.value') == 'male'

def test_copies_side_by_side(keys):
    keys.select('Reason', 'copy'); keys.select('Show', 'all')
    keys.where('1 to 1 of 1')
    keys.pictures()
    alts = keys.box.locator('img').evaluate_all('es => es.map(e => e.alt)')
    assert len(alts) == 2 and alts[1] == 'The other picture, male_0000.jpg'

def test_a_file_that_is_no_picture(lab):
    v = Widget(*lab, 2, 'broken')
    v.box.get_by_text('female_0001.jpg is not a picture this program can read').wait_for(timeout=20_000)
    v.choose(1, 'remove')
    (v.root/'female/female_0002.jpg').unlink() # gone meanwhile
    v.cards.nth(2).locator('button[data-value=keep]').click()
    v.status('is not there: nothing can be chosen about it')
    assert v.choices()[2] == ''

def test_the_lesson_s_own(lab):
    page,path = lab
    box = page.locator('.jp-OutputArea-output', has=page.locator('.widget-dropdown')).last
    box.scroll_into_view_if_needed()
    assert box.locator('img').count() >= 3
    assert box.locator('img').first.evaluate('e => e.naturalWidth') > 0
    drop = box.locator('select').nth(2)
    drop.select_option('<Delete>')
    box.locator('select').nth(0).select_option('male'); box.locator('select').nth(0).select_option('female')
    page.wait_for_function("e => e.querySelectorAll('select')[2].value==='<Delete>'", arg=box.element_handle())
    before = files(path/'lesson')
    box.get_by_role('button', name='apply it').click()
    until(lambda: len(files(path/'lesson'))==11)
    assert len(list((path/'lesson/.gender_classifier/trash').rglob('*.jpg'))) == 1
    box.get_by_role('button', name='undo it').click()
    until(lambda: files(path/'lesson')==before)

def test_saved_and_loaded_again(lab):
    "Choices are there when the page is loaded again, and the saved notebook holds no picture; no script of the page has failed"
    page,path = lab
    v = Widget(page, path, 1, 'keys')
    waiting = v.waiting()
    page.keyboard.press('Escape')
    page.get_by_role('menuitem', name='File', exact=True).click()
    page.get_by_role('menuitem', name=re.compile('^Save Notebook( Ctrl.*)?$')).click()
    for _ in range(100):
        text = (path/'clean.ipynb').read_text()
        if 'application/vnd.jupyter.widget-view+json' in text: break
        page.wait_for_timeout(100)
    ours = [o for o in json.loads(text)['cells'][1:4]]
    assert len(ours) == 3 and not re.search(r'/9j/|data:image|iVBOR', json.dumps(ours))
    assert page.faults == []
    page.reload()
    page.locator('.gc-cleaner').nth(1).wait_for(timeout=60_000)
    v = Widget(page, path, 1, 'keys')
    v.select('Reason', 'any reason'); v.select('Show', 'decided')
    v.where(f'of {len(waiting)}')
    assert dict(zip(v.names(), v.choices())) == waiting
    v.pictures()
