"The page in a real browser, Chromium, against the real server"
import base64, io, json, os, re, shutil, signal, subprocess, sys, tempfile, time, urllib.error, urllib.request
from contextlib import contextmanager
from pathlib import Path
import numpy as np, pytest
from PIL import Image
from gender_classifier.app import MAX_UPLOAD, app_notebook
from gender_classifier.inference import ModelError, default_model, synth_model

sync_api = pytest.importorskip('playwright.sync_api', reason='playwright is not installed, so no test in a browser')

def real_model():
    "The model that comes with the project, or None while it is not there"
    try: return default_model()
    except ModelError: return None

def kill(p):
    "End a server, quietly or not"
    if p.poll() is None: p.send_signal(signal.SIGINT)
    try: p.wait(20)
    except subprocess.TimeoutExpired: p.kill()

@contextmanager
def serving(log, model=None, python=sys.executable, pre='', env=None):
    "A server in a process of its own, which stops with the block; gives the page's address, and the process"
    code = f'import gender_classifier.app as a\n{pre}\na.serve(port=0, model={str(model) if model else None!r})'
    with open(log, 'w') as err:
        p = subprocess.Popen([str(python), '-c', code], stdout=subprocess.PIPE, stderr=err, text=True, env=os.environ | (env or {}))
        try:
            said = p.stdout.readline()
            assert 'The page is at http' in said, said + Path(log).read_text()
            yield re.search(r'http\S+', said).group(), p
        finally: kill(p)

@pytest.fixture(scope='module')
def model(tmp_path_factory): return real_model() or synth_model(tmp_path_factory.mktemp('model'))

@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    "A copy of the app's folder, with things beside the notebook that are nobody's business"
    path = tmp_path_factory.mktemp('app')
    shutil.copy(app_notebook(), path)
    for o in ('me.jpg', 'me.png', 'secret.txt', 'key.pem', 'model.onnx', '.env'): (path/o).write_bytes(b'private')
    return path

@pytest.fixture(scope='module')
def foreign(tmp_path_factory):
    "A place where another environment has registered its kernel as python3"
    path = tmp_path_factory.mktemp('foreign')
    (path/'kernels/python3').mkdir(parents=True)
    (path/'kernels/python3/kernel.json').write_text(json.dumps(dict(argv=['false', '{connection_file}'], display_name='Python 3', language='python')))
    return path

@pytest.fixture(scope='module')
def server(folder, foreign, model, tmp_path_factory):
    log = tmp_path_factory.mktemp('log')/'server.txt'
    pre = f'from pathlib import Path; a.app_notebook = lambda: Path({str(folder/"gender_classifier.ipynb")!r})'
    with serving(log, model, pre=pre, env={'JUPYTER_PATH': str(foreign)}) as (url, p):
        yield url, p, log

@pytest.fixture(scope='module')
def browser(chromium):
    with sync_api.sync_playwright() as p:
        b = p.chromium.launch(executable_path=chromium, args=['--no-sandbox'])
        yield b
        b.close()

class Visit:
    "One visitor on the page; all that the browser asks for is written down, and with `listen` (slow) all it hears"
    def __init__(self, browser, url, width=1280, listen=False):
        self.page,self.url,self.requests,self.console,self.frames = browser.new_page(viewport=dict(width=width, height=900)),url,[],[],[]
        self.page.on('request', lambda r: self.requests.append(r.url))
        self.page.on('console', lambda m: self.console.append(m.text))
        if listen: self.page.on('websocket', lambda w: w.on('framereceived', lambda f: self.frames.append(f if isinstance(f, bytes) else f.encode())))
        self.page.goto(url)
        self.upload = self.page.get_by_role('button', name='Choose a picture')
        self.label = self.page.get_by_role('button', name='Label', exact=True)
        self.upload.wait_for()

    def choose(self, file):
        "Choose `file`, a path or (name, bytes), and wait until something is said of it"
        last = '[...document.querySelectorAll(".gc-page .widget-html-content")].at(-1).innerHTML'
        old = self.page.evaluate(last)
        with self.page.expect_file_chooser() as fc: self.upload.click()
        with tempfile.TemporaryDirectory() as tmp:
            if isinstance(file, tuple):
                (Path(tmp)/file[0]).write_bytes(file[1])
                file = Path(tmp)/file[0]
            fc.value.set_files(file)
            self.page.wait_for_function(f'o => {last}!=o && !document.querySelector(".gc-busy")', arg=old)
        return self.text()

    def answer(self, file):
        "Choose `file`, press Label, and give the text of the answer"
        assert 'Press Label' in self.choose(file)
        return self.press()

    def press(self):
        "Press Label, and give the text of the answer"
        self.label.click()
        self.page.wait_for_selector('.gc-card, .gc-error')
        return self.text()

    def text(self): return self.page.locator('.gc-page').inner_text()
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

# ---- what it is for

def test_a_photo_is_labelled(visit, photo):
    said = visit.answer(photo)
    assert '1 face found in grace_hopper.jpg' in said
    assert re.search(r'(Looks (fe)?male, (over )?\d+ %|Neither: |Unsure: )', said)
    assert re.search(r'female\s+(under |over )?\d+ %\s+male\s+(under |over )?\d+ %', said) # as text, not as bars alone
    assert 'guess' in said and 'appears in this photo' in said and 'not kept' in said
    assert visit.page.locator('.gc-no').inner_text() == '1'
    assert 'Traceback' not in said

def test_boxes_are_drawn_where_the_face_is(visit, photo):
    visit.choose(photo)
    before = np.asarray(visit.picture().convert('RGB')).astype(int)
    visit.press()
    img = visit.picture().convert('RGB')
    assert max(img.size) <= 1000
    ys,xs = np.nonzero(np.abs(np.asarray(img).astype(int)-before).max(-1) > 60)
    assert .3*img.width < xs.min() and xs.max() < .8*img.width and ys.max() < .65*img.height

def test_the_same_again_and_another(visit, photo):
    "The same file can be chosen twice, and a new one clears the old answer"
    first = visit.answer(photo)
    assert visit.answer(photo) == first
    visit.choose(('blue.png', as_bytes(Image.new('RGB', (300,200), 'navy'), 'PNG')))
    assert 'grace_hopper' not in visit.text() and '300 × 200 pixels' in visit.text()

def test_no_face(visit):
    x = np.linspace(0, 255, 400)
    sky = np.stack([np.tile(x, (300,1)), np.full((300,400), 160), np.tile(x[::-1], (300,1))], -1).astype(np.uint8)
    said = visit.answer(('sky.png', as_bytes(Image.fromarray(sky), 'PNG')))
    assert 'No face found in sky.png' in said and 'no face found, the whole picture was looked at' in said
    assert visit.page.locator('.gc-no').count() == 0

# ---- every kind of picture

def test_kinds_of_pictures(visit, photo):
    img = Image.open(photo)
    turned = img.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x112] = 6
    import pillow_heif
    pillow_heif.register_heif_opener()
    files = {'turned.jpg':as_bytes(turned, 'JPEG', exif=exif), 'iphone.HEIC':as_bytes(img, 'HEIF'), 'alpha.png':as_bytes(img.convert('RGBA'), 'PNG'),
             'cmyk.jpg':as_bytes(img.convert('CMYK'), 'JPEG'), 'palette.gif':as_bytes(img, 'GIF'), 'new.webp':as_bytes(img, 'WEBP')}
    for name,b in files.items():
        assert f'1 face found in {name}' in visit.answer((name, b)), name
        w,h = visit.picture().size
        assert w < h, f'{name} is not upright'

def test_a_large_photo(visit, photo):
    "25 MB, 12 megapixels: more than Voila lets through by itself"
    img = Image.open(photo).resize((3072,3600))
    b = as_bytes(img, 'JPEG', quality=95)
    said = visit.answer(('large.jpg', b + bytes(25*2**20-len(b))))
    assert '1 face found in large.jpg' in said and max(visit.picture().size) == 1000

# ---- what goes wrong

def test_broken_pictures(visit, photo):
    good = photo.read_bytes()
    bad = {'empty.jpg':(b'', 'the file is empty'), 'text.jpg':(b'not a picture at all', 'is not a picture this program can read'),
           'half.jpg':(good[:len(good)//2], 'is not a picture this program can read'),
           'bomb.png':(as_bytes(Image.new('1', (20_000,20_000)), 'PNG'), 'is too large')}
    for name,(b,why) in bad.items():
        said = visit.choose((name, b))
        assert name in said and why in said and 'Traceback' not in said, said
        assert not visit.label.is_enabled(), name
    assert '1 face found' in visit.answer(photo) # and it goes on

def test_too_large_a_file(visit, photo, tmp_path):
    "It is not even sent"
    said,fn = [],tmp_path/'huge.jpg'
    fn.write_bytes(photo.read_bytes() + bytes(MAX_UPLOAD*2**20))
    visit.page.on('dialog', lambda o: (said.append(o.message), o.dismiss()))
    with visit.page.expect_file_chooser() as fc: visit.upload.click()
    fc.value.set_files(fn)
    visit.page.wait_for_timeout(300)
    assert said == [f'huge.jpg is too large: it is larger than {MAX_UPLOAD} MB.']
    assert '1 face found' in visit.answer(photo)

def test_a_name_is_only_a_name(visit, photo):
    name = '<img src=x onerror=document.title="hacked">.jpg'
    assert name in visit.answer((name, photo.read_bytes()))
    assert visit.page.title() == 'Female, male or neither?'

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
        v.page.close()
    assert f'error {no} in on_label' in log.read_text() and 'Traceback' in log.read_text()

def test_no_model(browser, tmp_path):
    with serving(tmp_path/'log.txt', tmp_path/'nothing.onnx') as (url,_):
        v = Visit(browser, url)
        said = v.text()
        assert 'This page has no model' in said and 'gender_classifier train' in said and 'Traceback' not in said
        assert not v.upload.is_enabled()
        v.page.close()

# ---- what is served, and what is not

def get(url):
    "Status and body"
    try:
        with urllib.request.urlopen(url, timeout=30) as r: return r.status,r.read()
    except urllib.error.HTTPError as e: return e.code,e.read()

@pytest.mark.parametrize('path', ['voila/files/me.jpg', 'voila/files/me.png', 'me.jpg', 'secret.txt', 'voila/files/secret.txt', 'voila/files/key.pem', 'voila/files/model.onnx',
    'voila/files/.env', 'voila/files/gender_classifier.ipynb', 'gender_classifier.ipynb', 'voila/files/../../../../etc/passwd', 'voila/files/..%2f..%2f..%2f..%2fetc%2fpasswd',
    'voila/static/..%2f..%2f..%2f..%2f..%2f..%2f..%2f..%2fetc%2fpasswd', 'voila/tree', 'voila/render/gender_classifier.ipynb', 'voila/api/contents/', 'api/contents/', 'api/kernels'])
def test_nothing_else_is_served(server, path):
    status,body = get(server[0]+path)
    assert status in (403, 404), path
    assert b'private' not in body and b'root:' not in body

def test_the_template_cannot_be_changed(server):
    status,body = get(server[0]+'?template=classic&theme=dark')
    assert status == 200 and b'Getting ready' in body and b'theme-dark' not in body and b'cdn.' not in body

def kernels(p):
    "The visitors' processes of server `p`"
    import psutil
    return [o for o in psutil.Process(p.pid).children(recursive=True) if 'ipykernel_launcher' in ' '.join(o.cmdline())]

def test_a_visitor_costs_little(visit, server, photo):
    "Own Python, one thread of OpenMP, no training library in memory, gone when the page is left"
    visit.answer(photo)
    k = max(kernels(server[1]), key=lambda o: o.create_time())
    assert k.cmdline()[0] == sys.executable and k.environ()['OMP_NUM_THREADS'] == '1'
    if sys.platform == 'linux':
        maps = Path(f'/proc/{k.pid}/maps').read_text()
        assert not re.search(r'libtorch|sklearn|pandas|matplotlib', maps)
    rss = k.memory_info().rss/2**20
    print(f'{rss:.0f} MB a visitor')
    assert rss < 300
    visit.page.goto('about:blank')
    for _ in range(50):
        if not k.is_running() or k.status() == 'zombie': break
        time.sleep(.2)
    else: raise AssertionError('the process of a visitor who left is still there')

def test_on_a_phone(browser, server, photo):
    v = Visit(browser, server[0], width=390)
    v.answer(photo)
    assert v.page.evaluate('[...document.querySelectorAll("#rendered_cells, .gc-page, .gc-card")].every(o => o.scrollWidth<=o.clientWidth+1)')
    v.page.close()

def test_ready_soon(browser, server):
    "Time from asking for the page to its first button; generous, as other tests may run beside it"
    t = time.time()
    v = Visit(browser, server[0])
    print(f'ready in {time.time()-t:.1f} s')
    assert time.time()-t < 15
    v.page.close()

# ---- the server's own manners

def test_port_in_use_and_ctrl_c(server, tmp_path):
    port = int(server[0].rstrip('/').split(':')[-1])
    p = subprocess.Popen([sys.executable, '-c', f'from gender_classifier.app import serve; serve(port={port})'], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=tmp_path)
    try:
        assert f'Port {port} is in use' in p.stdout.readline()
        url = re.search(r'http\S+', p.stdout.readline()).group()
        assert url != server[0] and get(url)[0] == 200
        ks,t = kernels(p),time.time()
        p.send_signal(signal.SIGINT)
        said = p.communicate(timeout=30)[0]
    finally: kill(p)
    assert p.returncode == 0 and said.strip() == '', said
    assert not [o for o in ks if o.is_running()] and time.time()-t < 10

# ---- the other ipywidgets

@pytest.fixture(scope='module')
def other_python(tmp_path_factory):
    "A Python with Voila and ipywidgets 8 of its own; all else it borrows from this one"
    import ipywidgets, sysconfig
    if ipywidgets.version_info[0] >= 8: pytest.skip('this is ipywidgets 8 already')
    wheels = Path(sys.prefix)/'wheels'
    if not wheels.is_dir(): pytest.skip('no packages were put aside to install ipywidgets 8 from (make test does that)')
    path = tmp_path_factory.mktemp('other')/'venv'
    subprocess.run([sys.executable, '-m', 'venv', path], check=True)
    env = {k: v for k, v in os.environ.items() if not k.startswith('PIP_')} | {'PIP_CONFIG_FILE': os.devnull}
    subprocess.run([path/'bin/python', '-m', 'pip', 'install', '-q', '--no-index', '--find-links', wheels, 'voila', 'ipywidgets>=8', 'ipykernel'], check=True, env=env)
    own = next(path.glob('lib/python*/site-packages'))
    import gender_classifier
    (own/'borrowed.pth').write_text(f'{sysconfig.get_paths()["purelib"]}\n{Path(gender_classifier.__file__).parents[1]}\n')
    return path/'bin/python'

def test_ipywidgets_8(browser, other_python, model, photo, tmp_path):
    said = subprocess.run([other_python, '-c', 'import ipywidgets; print(ipywidgets.__version__)'], capture_output=True, text=True).stdout
    assert said.startswith('8.')
    with serving(tmp_path/'log.txt', model, python=other_python) as (url,_):
        v = Visit(browser, url)
        first = v.answer(photo)
        assert '1 face found in grace_hopper.jpg' in first and v.answer(photo) == first
        assert 'is not a picture' in v.choose(('text.jpg', b'text'))
        assert '1 face found' in v.answer(('large.jpg', photo.read_bytes()+bytes(25*2**20)))
        test_too_large_a_file(v, photo, tmp_path)
        assert v.foreign() == []
        v.page.close()
