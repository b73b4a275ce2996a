"Training, exporting and labelling from the command line, on drawn faces"
import json, os, re, sys
from pathlib import Path
import pytest
from test_cli import rows, run  # noqa: F401

pytest.importorskip('fastai', reason='fastai is not installed, so nothing can be trained')
pytest.importorskip('gender_classifier.synth')
small = '--size 64 --bs 8 --epochs 1 --weights none --valid 0.3 --threads 2'.split()

@pytest.fixture(scope='module')
def data(tmp_path_factory):
    "A folder of drawn faces for each class, and one file that is no picture"
    from gender_classifier.synth import synth_faces
    path = tmp_path_factory.mktemp('train')/'faces'
    synth_faces(path, n=10, neither=6)
    (path/'male/broken.jpg').write_text('not a picture')
    return path

@pytest.fixture(scope='module')
def trained(data, tmp_path_factory):
    "What a run writes, and what it says"
    path = tmp_path_factory.mktemp('models')
    rc, out, err = run('train', data, '--out', path/'tiny', '--cache', path/'cache', *small)
    assert rc == 0, err
    return path/'tiny', out, err

def test_train_writes_a_model_that_labels(call, trained, data):
    stem, out, err = trained
    assert 'broken.jpg (its content is of no known picture format)' in err and 'balanced accuracy' in out and f'--model {stem}.onnx' in out
    assert {o.suffix for o in stem.parent.iterdir() if o.is_file()} == {'.onnx', '.json', '.safetensors', '.pkl', '.md', '.csv'}
    from gender_classifier.evaluate import history
    assert {'train_loss', 'valid_loss'} <= set(history(f'{stem}.history.csv')) # for plot_curves
    spec = json.loads(Path(f'{stem}.json').read_text())
    assert spec['labels'] == ['female', 'male'] and spec['size'] == 64 and spec['training']['pictures']['train female'] >= 5
    assert str(data.parent) not in json.dumps(spec)
    rc, out, err = call('label', data/'female', '--csv', '-', '--model', f'{stem}.onnx')
    assert rc == 0 and len(rows(out)) >= 10
    rc, out, err = call('evaluate', f'{stem}.onnx', data, '--html', stem.parent/'report')
    assert rc in (0, 1) and 'How it was trained' in (stem.parent/'report/index.html').read_text()
    rc, out, err = call('doctor', '--model', f'{stem}.onnx')
    assert rc == 0 and 'balanced accuracy' in out

def test_face_weights_bring_their_head(data, tmp_path):
    "With the shipped model's labels its head is kept, so no epoch is spent on the head alone"
    from gender_classifier.evaluate import history
    from gender_classifier.inference import ModelError, carried_model
    try: shipped = carried_model().with_suffix('.json')
    except ModelError as e: pytest.skip(str(e))
    rc, out, err = run('train', data, '--out', tmp_path/'tuned', '--cache', tmp_path/'cache', *'--bs 8 --epochs 1 --valid 0.3 --threads 2'.split())
    assert rc == 0, err
    assert json.loads((tmp_path/'tuned.json').read_text())['head'] == json.loads(shipped.read_text())['head']
    assert len(history(tmp_path/'tuned.history.csv')) == 1
    rc, out, err = run('train', data, '--out', tmp_path/'other', '--cache', tmp_path/'cache', *'--bs 8 --valid 0.3 --threads 2 --epochs 1 --arch resnet18_small'.split())
    assert rc == 0 and json.loads((tmp_path/'other.json').read_text())['arch'] == 'resnet18_small', err
    rc, out, err = run('train', data, '--out', tmp_path/'third', '--cache', tmp_path/'cache', *'--bs 8 --valid 0.3 --threads 2 --epochs 1 --arch resnet34'.split())
    assert rc == 2 and 'is of another architecture' in err and 'start without weights' in err

def test_nothing_is_overwritten(call, trained, data):
    stem, _, _ = trained
    before = Path(f'{stem}.onnx').read_bytes()
    rc, out, err = call('train', data, '--out', stem, *small)
    assert rc == 2 and 'is there already' in err and Path(f'{stem}.onnx').read_bytes() == before
    rc, out, err = call('train', data, '--out', f'{stem}2', '--resume', *small)
    assert rc == 2 and 'no run to go on with' in err
    Path(f'{stem}3.ckpt').touch()
    rc, out, err = call('train', data, '--out', f'{stem}3', *small)
    assert rc == 2 and 'run that was cut off' in err

def test_export_of_a_pickle(call, trained, tmp_path):
    stem, _, _ = trained
    rc, out, err = call('export', f'{stem}.pkl', '--out', tmp_path/'again')
    assert rc == 2 and '--trust' in err and not list(tmp_path.iterdir())
    rc, out, err = call('export', f'{stem}.pkl', '--out', tmp_path/'again', '--trust')
    assert rc == 0, err
    assert (tmp_path/'again.onnx').is_file() and json.loads((tmp_path/'again.json').read_text())['size'] == 64
    rc, out, err = call('export', f'{stem}.safetensors', '--out', tmp_path/'rebuilt')
    assert rc == 0, err

def test_bad_data(call, data, tmp_path):
    (tmp_path/'empty').mkdir()
    (tmp_path/'one/female').mkdir(parents=True); (tmp_path/'one/male').mkdir()
    fns = sorted((data/'female').glob('*.jpg'))
    for i, fn in enumerate(fns[:5]): (tmp_path/f'one/female/{i}.jpg').write_bytes(fn.read_bytes())
    (tmp_path/'one/male/0.jpg').write_bytes(fns[5].read_bytes())
    for name, says in dict(empty='holds no pictures', one="only one picture of 'male'", nowhere='is not there').items():
        rc, out, err = call('train', tmp_path/name, '--out', tmp_path/'m', *small)
        assert rc == 2 and says in err and len(err.splitlines()) == 1, err
    for opt, says in [(['--arch', 'resnet1'], 'resnet1'), (['--weights', tmp_path/'nowhere.safetensors'], 'nowhere.safetensors'), (['--valid', '0'], 'not between 0 and 1')]:
        rc, out, err = call('train', data, '--out', tmp_path/'m', '--cache', tmp_path/'cache', *small, *opt)
        assert rc == 2 and says in err.splitlines()[-1], err
    assert not list(tmp_path.glob('m.*'))

@pytest.mark.skipif(sys.platform=='win32', reason='Windows has no pseudo-terminals')
def test_cut_off_in_a_terminal(data, tmp_path):
    "Ctrl-C says how to go on; then the bar stands at the epoch it is at, and no figure of an epoch is lost"
    import pty, signal, subprocess
    from test_cli import code
    from gender_classifier.evaluate import history
    record = tmp_path/'m.history.csv'
    def lines(): return len(record.read_text().splitlines())-1 if record.exists() else 0
    def tty(*args, until=None):
        ours, theirs = pty.openpty()
        cmd = [sys.executable, '-c', code, 'train', data, '--out', tmp_path/'m', '--cache', tmp_path/'cache', *small, *args]
        p = subprocess.Popen([str(o) for o in cmd], stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
        os.close(theirs)
        out = b''
        while True:
            try: s = os.read(ours, 65536)
            except OSError: break # it has ended
            if not s: break
            out += s
            if until and lines()>=until: p.send_signal(signal.SIGINT); until = None
        os.close(ours)
        return p.wait(timeout=60), out.decode()
    rc, out = tty('--epochs', '40', until=8)
    assert rc == 130 and '--resume' in out and 'Traceback' not in out, out
    done = lines()
    assert 8 <= done < 38
    rc, out = tty('--epochs', '40', '--resume')
    assert rc == 0 and 'Traceback' not in out, out
    assert re.findall(r'Epoch (\d+)/40', out)[-1] == '40' and not re.search(r'^\d+ +00:00', out, re.M)
    assert history(record).epoch.tolist() == [*range(40)]
