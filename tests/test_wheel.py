"The wheel, built from the sdist, in a fresh environment with nothing but what it asks for: labels a photo, serves the page"
import csv, io, json, os, re, subprocess, sys, time, urllib.request
from pathlib import Path
from zipfile import ZipFile
import pytest
from gender_classifier.inference import Labeller

carried = [f'models/{m}.{o}' for m in ('gender_resnet18', 'gender_small') for o in ('onnx', 'int8.onnx', 'json', 'safetensors', 'md')] + ['app/gender_classifier.ipynb']

def sh(*args, timeout=600, **kwargs):
    "Run `args`; the finished process, whose output is text"
    return subprocess.run(list(map(str, args)), capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL, **kwargs)

def ok(res):
    assert res.returncode == 0, f'{res.args}\n{res.stdout}\n{res.stderr}'
    return res.stdout

@pytest.fixture(scope='session')
def source(project, tmp_path_factory):
    "A copy of what git would commit, so that nothing left by an earlier build gets in"
    path = tmp_path_factory.mktemp('source')
    files = ok(sh('git', 'ls-files', '-co', '--exclude-standard', cwd=project)).splitlines()
    for o in files:
        if not (project/o).is_file(): continue
        (path/o).parent.mkdir(parents=True, exist_ok=True)
        (path/o).write_bytes((project/o).read_bytes())
    return path

@pytest.fixture(scope='session')
def wheel(source, tmp_path_factory):
    "`python -m build` makes the sdist, and the wheel out of it"
    out = tmp_path_factory.mktemp('dist')
    ok(sh(sys.executable, '-m', 'build', '--no-isolation', '-o', out, source))
    return next(out.glob('*.whl'))

@pytest.fixture(scope='session')
def bin(wheel, project, tmp_path_factory):
    "The programs of a fresh environment with the wheel in it; packages come from what was put aside at set-up"
    wheels = Path(sys.prefix)/'wheels'
    if not wheels.is_dir(): pytest.skip('no packages were put aside to install the wheel with (make test does that)')
    path = tmp_path_factory.mktemp('fresh')/'venv'
    ok(sh(sys.executable, '-m', 'venv', path))
    env = {k: v for k, v in os.environ.items() if not k.startswith('PIP_')} | {'PIP_CONFIG_FILE': os.devnull}
    ok(sh(path/'bin/python', '-m', 'pip', 'install', '-q', '--no-compile', '--no-index', '--find-links', wheels, wheel, env=env))
    return path/'bin'

@pytest.fixture
def empty(tmp_path, monkeypatch):
    "An empty folder to work in, far from the checkout"
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv('PYTHONPATH', raising=False)
    return tmp_path

def test_wheel_carries_model_and_page(wheel, project):
    names = set(ZipFile(wheel).namelist())
    assert {f'gender_classifier/{o}' for o in carried if (project/o).exists()} <= names
    assert not [o for o in names if o.endswith('.pkl') or o.startswith(('tests', 'nbs'))]

def test_wheel_carries_what_the_browser_runs(wheel, project):
    assert {f'gender_classifier/static/{o.name}' for o in (project/'gender_classifier/static').iterdir()} <= set(ZipFile(wheel).namelist())

def test_wheel_carries_what_runs_the_peers(wheel, project):
    here = [o for o in (project/'gender_classifier/runners').iterdir() if o.suffix in ('.js', '.py')]
    assert len(here) > 4 and {f'gender_classifier/runners/{o.name}' for o in here} <= set(ZipFile(wheel).namelist())

def test_model_is_there(project):
    assert [o for o in carried if not (project/o).exists()] == []

def test_has_no_training_packages(bin, empty):
    code = 'import importlib.util as u; print([o for o in ("torch", "fastai", "pandas", "matplotlib", "sklearn") if u.find_spec(o)])'
    assert ok(sh(bin/'python', '-c', code)).strip() == '[]'

def here(photo):
    "What the checkout's own model says of the one face in `photo`: the installed wheel must say the same"
    return Labeller().label(photo)[0]

def test_label(bin, empty, photo):
    photos = json.loads(ok(sh(bin/'gender_classifier', 'label', photo, '--json')))
    assert [o['decision'] for o in photos[0]['faces']] == [here(photo).decision]

def test_label_small(bin, empty, photo):
    photos = json.loads(ok(sh(bin/'gender_classifier', 'label', photo, '--model', 'small', '--json')))
    got, want = photos[0]['faces'][0], Labeller('small').label(photo)[0]
    assert got['decision'] == want.decision and abs(got['probs']['female']-want.probs['female']) < 1e-3

def test_label_csv(bin, empty, photo):
    ok(sh(bin/'gender_classifier', 'label', photo, '--csv', 'out.csv'))
    rows = list(csv.DictReader(io.StringIO(Path('out.csv').read_text())))
    assert list(rows[0]) == 'file face x y w h decision p_female p_male note'.split()
    want = here(photo)
    assert rows[0]['decision'] == want.decision and abs(float(rows[0]['p_female'])-want.probs['female']) < 1e-3

def test_bad_file_is_a_row(bin, empty, photo):
    Path('broken.jpg').write_text('not a picture')
    res = sh(bin/'gender_classifier', 'label', 'broken.jpg', photo, '--csv', 'out.csv')
    decisions = [o['decision'] for o in csv.DictReader(io.StringIO(Path('out.csv').read_text()))]
    assert res.returncode != 0 and decisions == ['error', here(photo).decision] and 'Traceback' not in res.stderr

def test_doctor(bin, empty):
    said = ok(sh(bin/'gender_classifier', 'doctor'))
    assert 'onnxruntime' in said and 'gender_resnet18' in said

def get(url, tries=60):
    "The page at `url`, once it is served"
    for _ in range(tries):
        try: return urllib.request.urlopen(url, timeout=60).read().decode()
        except OSError: time.sleep(.5)
    raise AssertionError(f'nothing is served at {url}')

def free_port():
    import socket
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]

def test_app(bin, empty):
    "The page comes up, outside a checkout, in an environment with ipywidgets 8"
    port = free_port()
    p = subprocess.Popen([str(bin/'gender_classifier'), 'app', '--port', str(port)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try: page = get(f'http://127.0.0.1:{port}/')
    finally:
        p.terminate()
        said = p.communicate(timeout=30)[0]
    assert str(port) in said and 'Traceback' not in said, said
    assert 'widget' in page and not re.search(r'Traceback|ModuleNotFoundError|error occurred', page), page[-3000:]
