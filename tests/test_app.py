"The page in a real browser, Chromium, against the real server: what a visitor sees, hears and can press"
import base64, csv, io, json, os, re, shutil, subprocess, sys, sysconfig, time
from pathlib import Path
import numpy as np, pytest
from PIL import Image
from serving import jupyterlab, run_in_lab, serving
from gender_classifier.inference import ModelError, default_model, synth_model
from gender_classifier.page import KEEP, MAX_SIDE

sync_api = pytest.importorskip('playwright.sync_api', reason='playwright is not installed, so no test in a browser')
pytest.importorskip('anywidget')

def real_model():
    "The model that comes with the project, or None while it is not there"
    try: return default_model()
    except ModelError: return None

@pytest.fixture(scope='module')
def model(tmp_path_factory): return real_model() or synth_model(tmp_path_factory.mktemp('model'))

@pytest.fixture(scope='module')
def server(model, tmp_path_factory):
    log = tmp_path_factory.mktemp('log')/'server.txt'
    with serving(log, model) as (url, p): yield url,p,log

@pytest.fixture(scope='module')
def browser(chromium):
    with sync_api.sync_playwright() as p:
        b = p.chromium.launch(executable_path=chromium, args=['--no-sandbox', '--use-fake-device-for-media-stream', '--use-fake-ui-for-media-stream'])
        yield b
        b.close()

READ = '''() => { const s = document.querySelector('.gc-picker-status')?.textContent ?? '';
  return s.startsWith('Looking at') || document.querySelector('.gc-picker-progress:not([hidden])') ? '' : s + [...document.querySelectorAll('.gc-page :is(.gc-result,.gc-note)')].map(o => o.outerHTML).join() }'''

class Visit:
    "One visitor on the page; all that the browser asks for is written down, and with `listen` (slow) all it hears"
    def __init__(self, browser, url, width=1280, height=900, listen=False, read=True):
        self.page,self.url,self.requests,self.console,self.frames = browser.new_page(viewport=dict(width=width, height=height)),url,[],[],[]
        self.page.on('request', lambda r: self.requests.append(r.url))
        self.page.on('console', lambda m: self.console.append(m.text))
        if listen: self.page.on('websocket', lambda w: w.on('framereceived', lambda f: self.frames.append(f if isinstance(f, bytes) else f.encode())))
        self.page.goto(url)
        self.choose = self.button('Choose pictures')
        self.choose.wait_for()
        if read: self.read()

    def button(self, name): return self.page.get_by_role('button', name=name, exact=True)
    def read(self):
        "Read the notice"
        self.button('I understand').click()
        self.page.wait_for_function('() => !document.querySelector(".gc-picker fieldset").disabled')

    def send(self, *files):
        "Choose files, each a path or (name, bytes)"
        files = [o if isinstance(o, tuple) else (Path(o).name, Path(o).read_bytes()) for o in files]
        files = [dict(name=k, mimeType='image/heic' if k.lower().endswith('heic') else 'image/jpeg', buffer=b) for k,b in files]
        self.page.locator('.gc-picker input[type=file]').set_input_files(files)

    def answer(self, *files, timeout=60_000):
        "Choose files, wait until all are done, and give the text of the page"
        old = self.page.evaluate(READ)
        self.send(*files)
        self.page.wait_for_function(f'old => {{ const now = ({READ})(); return now && now!=old }}', arg=old, timeout=timeout)
        return self.text()

    def ask(self, name, slot):
        "Press a button of a card, and give what its place says then"
        self.button(name).click()
        place = self.page.locator(f'[data-gc-slot="{slot}"]')
        self.page.wait_for_function('o => document.querySelector(`[data-gc-slot="${o}"]`).innerText.length>0', arg=slot)
        return place.inner_text()

    def text(self): return self.page.locator('.gc-page').inner_text()
    def status(self): return self.page.locator('.gc-picker-status').inner_text()
    def picture(self): return Image.open(io.BytesIO(base64.b64decode(self.page.locator('figure img').get_attribute('src').split(',')[1])))
    def foreign(self): return [o for o in self.requests if not o.startswith((self.url, 'data:', 'blob:'))] + [o for o in self.console if 'Content Security Policy' in o]

@pytest.fixture
def visit(browser, server):
    v = Visit(browser, server[0])
    yield v
    assert v.foreign() == [], 'the page asked another machine for something'
    v.page.close()

def as_bytes(img, format, **kwargs):
    buf = io.BytesIO()
    img.save(buf, format, **kwargs)
    return buf.getvalue()

@pytest.fixture(scope='module')
def small(photo): return as_bytes(Image.open(photo).resize((256,300)), 'JPEG')

@pytest.fixture(scope='module')
def sky():
    x = np.linspace(0, 255, 400)
    a = np.stack([np.tile(x, (300,1)), np.full((300,400), 160), np.tile(x[::-1], (300,1))], -1).astype(np.uint8)
    return as_bytes(Image.fromarray(a), 'PNG')

@pytest.fixture(scope='module')
def crowd(photo):
    "Thirty faces in one photo"
    face = Image.open(photo).convert('RGB').crop((130,10,370,310)).resize((240,300))
    img = Image.new('RGB', (6*250,5*310), '#334455')
    for i in range(30): img.paste(face, (i%6*250,i//6*310))
    return as_bytes(img, 'JPEG', quality=92)

# ---- what is said beforehand

def test_the_notice_comes_first(browser, server, photo, shots):
    "No picture is taken before it was read; it is about this model; then it is folded"
    v = Visit(browser, server[0], read=False)
    said = v.text()
    for o in ('guess at how a face appears in this photo', 'nothing about who someone is', 'processed in memory and not kept', 'may be wrong', 'not for decisions about people',
              'of people who agreed', 'article 50(3)'): assert o in said, o
    if real_model(): assert re.search(r'it was right for \d+ % of female and \d+ % of male faces', said) and 'less often for' in said
    assert not v.choose.is_enabled()
    v.send(photo)
    v.page.wait_for_timeout(500)
    assert v.page.locator('.gc-result').count() == 0
    v.page.screenshot(path=shots/'notice.png')
    v.read()
    assert v.page.locator('details.gc-notice').count() == 1 and v.button('I understand').count() == 0
    v.page.wait_for_function('() => document.activeElement.textContent=="Choose pictures"')
    v.page.close()

def test_the_card(visit, model, shots):
    panel = visit.page.locator('.gc-panel')
    assert 'female' not in panel.inner_text()
    panel.locator('summary').click()
    said = panel.inner_text()
    if Path(model).with_suffix('.md').is_file(): assert 'Limits' in said and 'Data' in said and panel.locator('table').count()>2
    else: assert 'without a card' in said
    visit.page.screenshot(path=shots/'card.png', full_page=True)

# ---- what it is for

def test_a_photo_is_labelled(visit, photo, shots):
    said = visit.answer(photo)
    assert '1 face found in grace_hopper.jpg' in said
    assert re.search(r'(Looks (fe)?male, (over )?\d+\s%|Neither: |Unsure: )', said)
    assert re.search(r'female\s+(under |over )?\d+ %.*?\smale\s+(under |over )?\d+ %', said, re.S) # as text, not as bars alone
    assert visit.page.locator('.gc-no').inner_text() == '1'
    assert visit.page.get_by_role('img', name='Face 1', exact=True).count() == 1
    assert visit.page.locator('.gc-track > i').count() == 2 # the thresholds
    assert 'Traceback' not in said
    visit.page.screenshot(path=shots/'photo.png', full_page=True)

def test_boxes_are_drawn_where_the_face_is(visit, photo):
    visit.answer(photo)
    img = visit.picture().convert('RGB')
    assert max(img.size) <= 1000
    before = np.asarray(Image.open(photo).convert('RGB').resize(img.size)).astype(int)
    ys,xs = np.nonzero(np.abs(np.asarray(img).astype(int)-before).max(-1) > 90)
    assert .3*img.width < xs.min() and xs.max() < .8*img.width and ys.max() < .65*img.height

def test_the_same_again_and_another(visit, photo, sky):
    "The same file can be chosen twice; a new one takes its place, and both stay as tiles"
    assert '1 face found' in visit.answer(photo)
    visit.answer(photo)
    assert visit.page.locator('.gc-tile').count() == 2
    said = visit.answer(('sky.png', sky))
    assert visit.page.locator('.gc-result h2').inner_text() == 'No face found in sky.png'
    assert 'no face found, the whole picture was looked at' in said
    assert visit.page.locator('.gc-no').count() == 0
    visit.page.locator('.gc-tile').first.click()
    visit.page.wait_for_selector('[data-gc-slot="answer-1"]:focus')

def test_examples(visit):
    assert visit.page.locator('.gc-picker-example').count() == 4
    visit.page.locator('.gc-picker-example').first.click()
    visit.page.wait_for_selector('.gc-card')
    assert re.search('Looks|Unsure|Neither', visit.text())

def percent_female(name):
    "What the library says of an example, taken in as the page takes it in"
    from gender_classifier.inference import Labeller
    from gender_classifier.page import example_files, take_in
    img, _ = take_in(name, example_files()[name][1].read_bytes())
    return round(100*Labeller().label(img)[0].probs['female']) if real_model() else 0

def test_ten_visitors_at_once(browser, server):
    "Each gets the answer to the picture they chose, and the right one"
    url,kinds = server[0],[('An astronaut', 'astronaut.png', rf'(Looks|Unsure: {percent_female("astronaut.png")}\s%) female'), ('A cat', 'chelsea.png', 'Neither'), ('A rocket', 'rocket.jpg', 'Neither')]
    pages = [(browser.new_page(), *kinds[i%3]) for i in range(10)]
    for p,*_ in pages: p.goto(url, wait_until='commit')
    for p,*_ in pages: p.get_by_role('button', name='I understand').click(timeout=180_000)
    for p,title,*_ in pages: p.get_by_role('button', name=title).click()
    for p,_,fn,right in pages:
        p.wait_for_selector(f'h2:has-text("found in {fn}")', timeout=120_000)
        assert re.search(right, p.locator('.gc-card h3').inner_text()) or not real_model()
        p.close()

# ---- every kind of picture

def test_kinds_of_pictures(visit, photo, shots):
    img = Image.open(photo)
    exif = Image.Exif()
    exif[0x112] = 6
    import pillow_heif
    pillow_heif.register_heif_opener()
    files = {'turned.jpg':as_bytes(img.transpose(Image.Transpose.ROTATE_90), 'JPEG', exif=exif), 'iphone.HEIC':as_bytes(img, 'HEIF'), 'alpha.png':as_bytes(img.convert('RGBA'), 'PNG'),
             'cmyk.jpg':as_bytes(img.convert('CMYK'), 'JPEG'), 'palette.gif':as_bytes(img, 'GIF'), 'new.webp':as_bytes(img, 'WEBP'), 'scan.tiff':as_bytes(img, 'TIFF')}
    for name,b in files.items():
        assert f'1 face found in {name}' in visit.answer((name, b)), name
        w,h = visit.picture().size
        assert w < h, f'{name} is not upright'
        assert visit.page.locator('.gc-no').count() == 1, name
        visit.page.screenshot(path=shots/f'{Path(name).suffix[1:].lower()}.png')

def test_large_photos(visit, photo, shots):
    "12 megapixels, and 25 MB: more than Voila lets through by itself"
    img = Image.open(photo).resize((3072,3600))
    b,t = as_bytes(img, 'JPEG', quality=90),time.time()
    assert '1 face found in phone.jpg' in visit.answer(('phone.jpg', b))
    t = time.time()-t
    print(f'{len(b)/2**20:.1f} MB, 11 megapixels: answered after {t:.2f} s')
    assert t < 10 # generous: other tests may run beside it
    b = as_bytes(img, 'JPEG', quality=95)
    assert '1 face found in large.jpg' in visit.answer(('large.jpg', b + bytes(25*2**20-len(b))))
    assert max(visit.picture().size) == 1000
    visit.page.screenshot(path=shots/'large.png')

def test_thirty_faces(visit, crowd, shots):
    said = visit.answer(('crowd.jpg', crowd))
    assert '30 faces found in crowd.jpg' in said and visit.page.locator('.gc-card').count() == 30
    assert visit.page.locator('.gc-crop').count() == 30
    assert 'And 27 more' in visit.status()
    visit.page.screenshot(path=shots/'crowd.png')

# ---- several photos

def test_sixty_at_once(visit, server, small, sky, shots):
    "A tile each, the first one large, a table; and memory has a bound"
    from serving import kernels
    k = max(kernels(server[1]), key=lambda o: o.create_time())
    files = [(f'{i:02}.jpg', small if i%5 else sky) for i in range(60)]
    visit.answer(('warm.jpg', small))
    before,t = k.memory_info().rss/2**20,time.time()
    visit.answer(*files, timeout=240_000)
    print(f'60 pictures in {time.time()-t:.1f} s, {k.memory_info().rss/2**20:.0f} MB a visitor, {before:.0f} MB before')
    assert visit.page.locator('.gc-tile').count() == KEEP
    assert visit.page.locator('.gc-result h2').inner_text() == 'No face found in 00.jpg'
    assert visit.page.locator('.gc-all tbody tr').count() == KEEP
    assert k.memory_info().rss/2**20 < before+100
    visit.page.locator('.gc-tile').last.click()
    visit.page.wait_for_selector('h2:has-text("found in 59.jpg")')
    visit.page.screenshot(path=shots/'sixty.png', full_page=True)

def test_some_cannot_be_read(visit, photo, tmp_path, shots):
    "Each is named, and the others go on"
    from gender_classifier.synth import synth_bomb
    good = photo.read_bytes()
    said = visit.answer(('empty.jpg', b''), ('text.jpg', b'not a picture at all'), ('half.jpg', good[:len(good)//2]), ('bomb.png', synth_bomb(tmp_path/'bomb.png').read_bytes()), ('good.jpg', good))
    for o in ('empty.jpg', 'text.jpg is not a picture this program can read', 'half.jpg is not a picture', 'bomb.png is too large', '1 face found in good.jpg'): assert o in said, said
    assert 'Traceback' not in said
    assert visit.page.locator('.gc-bad').count() == 4 and visit.page.locator('[role=alert].gc-error').count() == 4
    visit.page.screenshot(path=shots/'bad.png', full_page=True)
    said = visit.answer(photo)
    assert '1 face found in grace_hopper.jpg' in said and visit.page.locator('.gc-error').count() == 0 # said once

def test_too_large_a_file(visit, photo):
    "What the browser cannot make smaller is not even sent"
    visit.send(('huge.heic', bytes(31*2**20)))
    visit.page.wait_for_function('() => document.querySelector(".gc-picker-status").textContent.includes("huge.heic is larger than 30 MB")')
    assert '1 face found' in visit.answer(photo)

def test_a_name_is_only_a_name(visit, photo):
    name = '<img src=x onerror=document.title="hacked">.jpg'
    assert name in visit.answer((name, photo.read_bytes()))
    assert visit.page.title() == 'Female, male or neither?'

# ---- why

def test_what_mattered_and_does_it_hold(visit, photo, shots):
    "The answer comes under the card, is announced, and the button keeps the focus"
    visit.answer(photo)
    assert visit.page.locator('[data-gc-slot="why-1.1"]').get_attribute('aria-live') == 'polite'
    said = visit.ask('What mattered? (face 1)', 'why-1.1')
    assert 'Green places' in said and visit.page.locator('.gc-heat img').last.get_attribute('alt').startswith('Heat map')
    assert visit.page.evaluate('document.activeElement.textContent').startswith('What mattered?')
    visit.page.screenshot(path=shots/'heat.png', full_page=True)
    visit.button('Does it hold? (face 1)').click()
    visit.page.wait_for_selector('.gc-slot table')
    said = visit.page.locator('.gc-slot').inner_text()
    assert 'mirrored' in said and 'changes' in said
    assert visit.page.evaluate('document.activeElement.textContent').startswith('Does it hold?')
    visit.page.screenshot(path=shots/'hold.png', full_page=True)

def test_a_whole_picture_can_be_asked_about(visit, sky):
    visit.answer(('sky.png', sky))
    assert 'Green places' in visit.ask('What mattered? (face 1)', 'why-1.1')
    assert visit.page.locator('.gc-heat img').first.get_attribute('alt') == 'The picture as the model sees it'

# ---- files to take away

def test_downloads(visit, photo, sky):
    visit.answer(photo, ('sky, blue.png', sky), ('text.jpg', b'text'))
    with visit.page.expect_download() as d: visit.button('Save the answers as a table (CSV)').click()
    assert d.value.suggested_filename == 'answers.csv'
    rows = list(csv.DictReader(open(d.value.path(), encoding='utf-8-sig', newline='')))
    assert [o['file'] for o in rows] == ['grace_hopper.jpg', 'sky, blue.png', 'text.jpg'] and rows[2]['decision'] == 'error' and 0<=float(rows[0]['p_female'])<=1
    with visit.page.expect_download() as d: visit.button('Save this picture with its boxes').click()
    img = Image.open(d.value.path())
    assert d.value.suggested_filename == 'grace_hopper_faces.jpg' and img.format == 'JPEG' and max(img.size) <= MAX_SIDE and not img.getexif()

def test_remove_all(visit, photo, sky):
    visit.answer(photo, ('sky.png', sky))
    visit.button('Remove all pictures').click()
    visit.page.wait_for_function('() => !document.querySelector(".gc-result, .gc-tile, .gc-all")')
    assert 'removed' in visit.status()
    visit.page.wait_for_function('() => document.activeElement.textContent=="Choose pictures"')
    assert '1 face found' in visit.answer(photo)

# ---- this is wrong

def test_wrong_is_not_offered(visit, photo): assert 'This is wrong' not in visit.answer(photo)

def tree(path): return sorted(str(o.relative_to(path)) for o in path.rglob('*') if o.is_file())

def test_this_is_wrong(browser, model, photo, tmp_path, shots):
    "Kept only when the visitor says what is right and agrees, and then the crop and a line"
    path = tmp_path/'review'
    with serving(tmp_path/'log.txt', model, review=str(path)) as (url,_):
        v = Visit(browser, url)
        v.answer(photo)
        assert 'I agree' in v.ask('This is wrong (face 1)', 'why-1.1')
        right = v.button('Female')
        assert not right.is_visible()
        v.page.get_by_role('checkbox').check()
        v.page.screenshot(path=shots/'wrong.png', full_page=True)
        assert tree(path) == []
        right.click()
        v.page.wait_for_selector('text=Thank you')
        crop,lines = tree(path)
        assert lines == 'review.jsonl' and re.fullmatch(r'female/[0-9a-f]{16}\.png', crop)
        line = json.loads((path/lines).read_text())
        img = Image.open(path/crop)
        assert line['file'] == crop and line['label'] == 'female' and line['consent'] is True and set(line['probs']) == {'female','male'} and len(line['model_sha256']) == 64
        assert img.size[0] == img.size[1] <= 224 and not img.info and 'grace' not in json.dumps(line)
        assert 'Thank you' in v.ask('This is wrong (face 1)', 'why-1.1') and len(tree(path)) == 2
        for o in ('female', 'review.jsonl'): (path/o).rename(tmp_path/o)
        path.rmdir()
        path.write_text('in the way')
        v.answer(('again.jpg', photo.read_bytes()))
        v.ask('This is wrong (face 1)', 'why-2.1')
        v.page.get_by_role('checkbox').check()
        v.button('Male').click()
        v.page.wait_for_selector('text=This could not be kept')
        assert 'Traceback' not in v.text()
        v.page.close()

# ---- nothing stays

def test_nothing_on_disk(browser, model, photo, crowd, tmp_path):
    "Neither in the home folder nor among temporary files does a picture leave a trace, nor does the kernel hold a file open that could"
    from serving import kernels
    homes = {k: str(tmp_path/k.lower()) for k in ('HOME','TMPDIR','XDG_CACHE_HOME','XDG_DATA_HOME','XDG_CONFIG_HOME','XDG_STATE_HOME','IPYTHONDIR','JUPYTER_RUNTIME_DIR','GENDER_CLASSIFIER_CACHE')}
    for o in homes.values(): Path(o).mkdir()
    with serving(tmp_path/'log.txt', model, env=homes) as (url,p):
        v = Visit(browser, url)
        before = tree(tmp_path)
        v.answer(photo, ('crowd.jpg', crowd), ('text.jpg', b'text'))
        v.button('Does it hold? (face 1)').click()
        v.page.wait_for_selector('.gc-slot table')
        with v.page.expect_download(): v.button('Save this picture with its boxes').click()
        assert set(tree(tmp_path)) <= set(before)
        if sys.platform == 'linux':
            for k in kernels(p): assert not [o.path for o in k.open_files() if 'w' in o.mode and Path(o.path) != tmp_path/'log.txt']
        v.page.close()

# ---- the camera

def test_live(visit, shots):
    "Frames replace one answer in place, are not kept, and stop"
    visit.button('Use the camera').click()
    visit.button('Start live labelling').click()
    visit.page.wait_for_selector('.gc-live')
    src = visit.page.locator('.gc-live figure img').get_attribute('src')
    visit.page.wait_for_function('o => document.querySelector(".gc-live figure img").src!=o', arg=src) # Chromium's fake camera shows a clock
    assert visit.page.locator('.gc-live').count() == 1 and visit.page.locator('.gc-live button').count() == 0 and visit.page.locator('.gc-tile').count() == 0
    visit.page.screenshot(path=shots/'live.png', full_page=True)
    visit.button('Stop live labelling').click()
    visit.button('Take a picture').click()
    visit.page.wait_for_selector('h2:has-text("camera 1.jpg")')
    assert visit.page.locator('.gc-live').count() == 0

# ---- for everybody

def axe_source():
    "axe-core, from a Python package or what was put beside"
    pkg = pytest.importorskip('axe_playwright_python', reason='axe-core is not installed')
    return next(Path(pkg.__file__).parent.rglob('axe*.js')).read_text(encoding='utf-8')

def violations(page, source):
    "What axe-core calls serious or critical"
    page.evaluate(source)
    res = page.evaluate('() => axe.run(document, {resultTypes: ["violations"]})')
    return [(o['id'], o['impact'], [n['html'][:120] for n in o['nodes'][:3]]) for o in res['violations'] if o['impact'] in ('serious','critical')]

def test_axe(browser, server, photo, sky):
    source = axe_source()
    v = Visit(browser, server[0], read=False)
    assert violations(v.page, source) == []
    v.read()
    v.answer(photo, ('sky.png', sky), ('text.jpg', b'text'))
    v.button('What mattered? (face 1)').click()
    v.page.wait_for_selector('.gc-heat')
    assert violations(v.page, source) == []
    v.button('Does it hold? (face 1)').click()
    v.page.wait_for_selector('.gc-slot table')
    v.page.locator('.gc-panel summary').click()
    assert violations(v.page, source) == []
    v.page.close()

def test_names_and_contrast(visit, photo, sky):
    "By hand, as axe-core may not be there: every button has a name, every picture a text or none on purpose, one h1, no heading left out, one language"
    visit.answer(photo, ('sky.png', sky))
    page = visit.page
    assert page.evaluate('[...document.querySelectorAll(".gc-page button, .gc-page summary")].filter(o => !o.innerText.trim() && !o.ariaLabel).length') == 0
    assert page.evaluate('[...document.querySelectorAll(".gc-page img")].filter(o => !o.hasAttribute("alt")).length') == 0
    levels = page.evaluate('[...document.querySelectorAll(".gc-page :is(h1,h2,h3,h4,h5,h6)")].filter(o => o.checkVisibility()).map(o => +o.tagName[1])')
    assert levels.count(1) == 1 and all(b-a <= 1 for a,b in zip(levels, levels[1:])), levels
    assert page.evaluate('document.documentElement.lang') == 'en'
    assert page.evaluate('new Set([...document.querySelectorAll("[id]")].map(o => o.id)).size == document.querySelectorAll("[id]").length')

def test_keyboard_alone(browser, server, photo):
    "From the notice to the reasons, without a mouse"
    v = Visit(browser, server[0], read=False)
    v.page.on('filechooser', lambda o: None) # from now on choosers come here: what is switched on by the wait for one may be too late for a key
    def tab_to(text, n=60):
        for _ in range(n):
            v.page.keyboard.press('Tab')
            if v.page.evaluate('document.activeElement.textContent').startswith(text): return
        raise AssertionError(f'{text} cannot be reached')
    tab_to('I understand')
    v.page.keyboard.press('Enter')
    v.page.wait_for_function('() => document.activeElement.textContent=="Choose pictures"')
    with v.page.expect_file_chooser() as fc: v.page.keyboard.press('Enter')
    fc.value.set_files(photo)
    v.page.wait_for_selector('.gc-card')
    tab_to('What mattered?')
    outline = v.page.evaluate('getComputedStyle(document.activeElement).outlineStyle')
    v.page.keyboard.press('Space')
    v.page.wait_for_selector('.gc-heat')
    tab_to('Does it hold?', 1)
    v.page.keyboard.press('Enter')
    v.page.wait_for_selector('.gc-slot table')
    tab_to('Save', 3)
    tab_to('How accurate')
    v.page.keyboard.press('Enter')
    assert outline == 'solid' and v.page.locator('.gc-panel').get_attribute('open') is not None
    v.page.close()

def test_announcements(visit, photo):
    "A place that was there before says what came: the picker's line, a card's slot; an alert is one"
    status = visit.page.locator('.gc-picker-status')
    assert status.get_attribute('role') == 'status'
    handle = status.element_handle()
    visit.answer(photo)
    assert handle.inner_text().startswith('1 face found in grace_hopper.jpg. Face 1: ')
    visit.answer(('text.jpg', b'text'))
    assert visit.page.locator('.gc-error[role=alert]').inner_text().startswith('text.jpg is not a picture')

def test_on_a_phone(browser, server, photo, sky, shots):
    v = Visit(browser, server[0], width=390, height=844, read=False)
    fits = '[...document.querySelectorAll("#rendered_cells, .gc-page, .gc-notice, .gc-card, .gc-picker")].every(o => o.scrollWidth<=o.clientWidth+1) && document.documentElement.scrollWidth<=391'
    v.page.screenshot(path=shots/'phone_notice.png', full_page=True)
    assert v.page.evaluate(fits)
    v.read()
    v.answer(photo, ('sky.png', sky))
    v.button('Does it hold? (face 1)').click()
    v.page.wait_for_selector('.gc-slot table')
    v.page.locator('.gc-panel summary').click()
    assert v.page.evaluate(fits)
    v.page.locator('.gc-panel summary').click()
    v.page.screenshot(path=shots/'phone.png', full_page=True)
    v.page.close()

# ---- faults

def faulty_model(path):
    "A model that can be opened, and fails as soon as it is used"
    onnx = pytest.importorskip('onnx')
    from gender_classifier.core import sha256
    fn = synth_model(path, name='faulty')
    m = onnx.load(fn)
    g = m.graph
    g.initializer.append(onnx.numpy_helper.from_array(np.array([7,2]), 'shape'))
    g.node[-1].output[0] = 'p'
    g.node.append(onnx.helper.make_node('Reshape', ['p', 'shape'], ['probs']))
    g.output[0].type.tensor_type.shape.dim[0].dim_param = 'n'
    fn.write_bytes(m.SerializeToString())
    j = fn.with_suffix('.json')
    j.write_text(json.dumps(json.loads(j.read_text()) | {'sha256':{'onnx':sha256(fn)}}))
    return fn

def test_a_fault_of_ours(browser, photo, tmp_path):
    "It has a number, under which the server's log has the traceback, and the visitor has not"
    log = tmp_path/'log.txt'
    with serving(log, faulty_model(tmp_path)) as (url,_):
        v = Visit(browser, url, listen=True)
        said = v.answer(photo)
        no = re.search(r'Something went wrong.*\(Error (\w{6})\)', said).group(1)
        assert 'Traceback' not in said and v.frames and not [o for o in v.frames if b'Traceback' in o]
        assert 'Something went wrong' in v.answer(('again.jpg', photo.read_bytes())) # and the page still listens
        v.page.close()
    assert f'error {no} in on_photo' in log.read_text() and 'Traceback' in log.read_text()

def test_no_model(browser, tmp_path):
    (tmp_path/'half.onnx').write_bytes(b'and no JSON beside it')
    with serving(tmp_path/'log.txt', tmp_path/'half.onnx') as (url,_):
        v = Visit(browser, url, read=False)
        said = v.text()
        assert 'This page has no model' in said and 'gender_classifier train' in said and 'Traceback' not in said
        assert not v.choose.is_enabled()
        v.page.close()

def test_a_model_without_figures(browser, photo, tmp_path):
    "What nobody measured is said to be unknown"
    with serving(tmp_path/'log.txt', synth_model(tmp_path)) as (url,_):
        v = Visit(browser, url, read=False)
        assert 'nobody has written down how often this model is' in v.text()
        v.read()
        assert '1 face found' in v.answer(photo)
        assert 'Green places' in v.ask('What mattered? (face 1)', 'why-1.1')
        v.page.close()

# ---- the other ipywidgets

@pytest.fixture(scope='module')
def other_python(tmp_path_factory):
    "A Python with Voila and ipywidgets 8 of its own; all else it borrows from this one"
    import ipywidgets
    if ipywidgets.version_info[0] >= 8: pytest.skip('this is ipywidgets 8 already')
    wheels = Path(sys.prefix)/'wheels'
    if not wheels.is_dir(): pytest.skip('no packages were put aside to install ipywidgets 8 from (make test does that)')
    path = tmp_path_factory.mktemp('other')/'venv'
    subprocess.run([sys.executable, '-m', 'venv', path], check=True)
    env = {k: v for k, v in os.environ.items() if not k.startswith('PIP_')} | {'PIP_CONFIG_FILE': os.devnull}
    subprocess.run([path/'bin/python', '-m', 'pip', 'install', '-q', '--no-index', '--find-links', wheels, 'voila', 'ipywidgets>=8', 'ipykernel', 'anywidget'], check=True, env=env)
    own = next(path.glob('lib/python*/site-packages'))
    import gender_classifier
    (own/'borrowed.pth').write_text(f'{sysconfig.get_paths()["purelib"]}\n{Path(gender_classifier.__file__).parents[1]}\n')
    return path/'bin/python'

def test_ipywidgets_8(browser, other_python, model, photo, sky, tmp_path):
    said = subprocess.run([other_python, '-c', 'import ipywidgets; print(ipywidgets.__version__)'], capture_output=True, text=True).stdout
    assert said.startswith('8.')
    with serving(tmp_path/'log.txt', model, python=other_python) as (url,_):
        v = Visit(browser, url)
        assert '1 face found in grace_hopper.jpg' in v.answer(photo)
        assert 'Green places' in v.ask('What mattered? (face 1)', 'why-1.1')
        assert 'text.jpg is not a picture' in v.answer(('text.jpg', b'text'), ('sky.png', sky))
        assert v.page.locator('.gc-tile').count() == 3
        assert '1 face found' in v.answer(('large.jpg', photo.read_bytes()+bytes(25*2**20)))
        assert v.foreign() == []
        v.page.close()

def test_in_jupyterlab(browser, model, photo, project, shots, tmp_path, monkeypatch):
    "The same notebook, as it is"
    pytest.importorskip('jupyterlab')
    monkeypatch.setenv('GENDER_CLASSIFIER_MODEL', str(model))
    shutil.copy(project/'app/gender_classifier.ipynb', tmp_path)
    with jupyterlab(tmp_path, project) as url:
        v = Visit.__new__(Visit)
        v.page = run_in_lab(browser, url, 'gender_classifier.ipynb')
        v.button('I understand').wait_for(timeout=120_000)
        v.read()
        assert '1 face found in grace_hopper.jpg' in v.answer(photo)
        assert 'Green places' in v.ask('What mattered? (face 1)', 'why-1.1')
        v.page.screenshot(path=shots/'jupyterlab.png')
        v.page.close()

def test_reload_when_all_places_are_taken(browser, model, tmp_path):
    "A browser asks for the page before it lets the old one go: so the one that says so tries again by itself"
    with serving(tmp_path/'log.txt', model, max_visitors=1) as (url, _):
        page = browser.new_page()
        ready = page.get_by_role('button', name='I understand')
        page.goto(url)
        ready.wait_for(timeout=60_000)
        page.reload()
        ready.or_(page.get_by_text('All places are taken')).first.wait_for(timeout=60_000)
        ready.wait_for(timeout=60_000)
        page.close()
