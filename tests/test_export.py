"A learner written down and used elsewhere: by a fresh process, by onnxruntime, by a learner built anew; and files that are not what they seem"
import json, os, pickle, subprocess, sys, threading
from pathlib import Path
import pytest

pytest.importorskip('torch', reason='torch is not installed, so nothing can be exported')
import numpy as np, onnx, onnxruntime as ort, torch
from fastai.vision.all import Adam, BCEWithLogitsLossFlat, resnet18, vision_learner
from gender_classifier.core import sha256
from gender_classifier.export import *
from gender_classifier.inference import Labeller, ModelError, load_spec
from gender_classifier.pickles import load_learner_file
from gender_classifier.rebuild import rebuild_learner
from onnx import numpy_helper

SZ = 64
SPEC = dict(labels=['female','male'], size=SZ, mean=[.5,.4,.4], std=[.25]*3)

def noise(n=5, seed=0): return np.random.default_rng(seed).integers(0, 256, (n,SZ,SZ,3), dtype=np.uint8)

def learner(arch=resnet18, seed=0, **kwargs):
    "An untrained learner, with statistics in its batch normalisation as after training"
    torch.manual_seed(seed)
    spec = dict(SPEC, **{k:kwargs.pop(k) for k in ('activation',) if k in kwargs})
    learn = vision_learner(blank_dls(spec), arch, pretrained=False, normalize=False, n_out=2, **kwargs)
    for o in learn.model.modules():
        if hasattr(o, 'running_var'): o.running_mean.normal_(0, .1); o.running_var.uniform_(.5, 2)
    return learn

def preds(learn, x):
    "What a learner says of crops, by way of its own transforms"
    with learn.no_bar(), learn.no_logging(): return learn.get_preds(dl=learn.dls.test_dl(list(x), num_workers=0))[0].numpy()

@pytest.fixture(scope='module')
def small(tmp_path_factory):
    "A learner, the stem of its files, and what it says of noise"
    learn, stem = learner(lin_ftrs=[], concat_pool=False), tmp_path_factory.mktemp('export')/'small'
    export_learner(learn, stem, dict(training=dict(data='noise')))
    return learn, stem, preds(learn, noise())

def test_one_set_of_files(small):
    _, stem, _ = small
    assert sorted(o.name for o in stem.parent.iterdir()) == [f'small.{o}' for o in ('json','md','onnx','pkl','safetensors')]
    spec = json.loads(Path(f'{stem}.json').read_text())
    for k, v in spec['sha256'].items(): assert sha256(f'{stem}.{k}') == v
    assert load_spec(f'{stem}.json').labels == ['female','male']
    assert Path(f'{stem}.onnx').stat().st_size < 23e6 and Path(f'{stem}.safetensors').stat().st_size < 23e6
    assert len({oct(o.stat().st_mode) for o in stem.parent.iterdir()}) == 1 # all can be read by the same people
    here = str(Path(__file__).parents[1]).encode()
    for o in ('onnx','safetensors','json','md'): assert here not in Path(f'{stem}.{o}').read_bytes()

def test_same_numbers_everywhere(small):
    "Every weight of the learner is in the safetensors and in the ONNX file, to the bit"
    learn, stem, _ = small
    from safetensors.numpy import load_file
    state, st = learn.model.state_dict(), load_file(f'{stem}.safetensors')
    consts = {o.name.removesuffix('_f16'):numpy_helper.to_array(o) for o in onnx.load(f'{stem}.onnx').graph.initializer}
    assert set(st) == set(state)
    for k, v in state.items(): assert (st[k].astype(v.numpy().dtype) == v.numpy()).all(), k
    used = {k:v for k, v in state.items() if not k.endswith('num_batches_tracked')}
    assert {f'model.{k}' for k in used} <= set(consts)
    for k, v in used.items(): assert (consts[f'model.{k}'].astype('f4') == v.numpy()).all(), k

@pytest.mark.parametrize('n', [1, 5])
def test_onnx_says_the_same(small, n):
    _, stem, want = small
    assert np.abs(Labeller(f'{stem}.onnx').probs(noise()[:n]) - want[:n]).max() < 1e-5

def test_casts_are_done_at_load(small, tmp_path):
    "Storage in float16 costs nothing in use: one cast is left, of the picture"
    so = ort.SessionOptions()
    so.graph_optimization_level, so.optimized_model_filepath, so.log_severity_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED, str(tmp_path/'o.onnx'), 4
    ort.InferenceSession(f'{small[1]}.onnx', so, providers=['CPUExecutionProvider'])
    ops = [o.op_type for o in onnx.load(tmp_path/'o.onnx').graph.node]
    assert ops.count('Cast') == 1 and not ops.count('BatchNormalization') > 1

def test_rebuilt_without_pickle(small):
    _, stem, want = small
    again = rebuild_learner(stem)
    assert np.abs(preds(again, noise()) - want).max() < 1e-5
    assert not again.model.training

def test_rebuilt_can_be_trained_on(small):
    again = rebuild_learner(small[1])
    before = again.model[1][-1].weight.clone()
    with again.no_bar(), again.no_logging(): again.dls.train.bs = 1; again.opt_func = Adam; again.create_opt()
    x = torch.rand(2,3,SZ,SZ)
    BCEWithLogitsLossFlat()(again.model.train()(x), torch.ones(2,2)).backward()
    again.opt.step()
    assert not torch.equal(before, again.model[1][-1].weight)

def test_pickles_load_in_a_fresh_process(small, trained, tmp_path):
    "With the package and nothing else, in another folder; that of a learner from memory too, which had no way to open a picture"
    from PIL import Image
    for i, o in enumerate(noise()): Image.fromarray(o).save(tmp_path/f'{i}.png')
    fns = [f'{small[1]}.pkl', str(trained[1].with_suffix('.pkl'))]
    code = f'''import numpy as np
from gender_classifier.pickles import load_learner_file
for i,fn in enumerate({fns}):
    learn = load_learner_file(fn, trust=True)
    with learn.no_bar(): np.save(f"p{{i}}.npy", [learn.predict(o)[2].numpy() for o in ("0.png", "1.png")])'''
    root = str(Path(__file__).absolute().parents[1])
    subprocess.run([sys.executable, '-W', 'ignore', '-c', code], cwd=tmp_path, check=True, env=dict(os.environ, PYTHONPATH=root, OMP_NUM_THREADS='1'), timeout=300)
    for i, o in enumerate((small, trained)): assert np.abs(np.load(tmp_path/f'p{i}.npy') - o[2][:2]).max() < 1e-4

def test_single_label(tmp_path):
    "A softmax is in the graph where the learner has one"
    learn = learner(activation='softmax', loss_func=None)
    fn = export_learner(learn, tmp_path/'single', pkl=False)
    p = Labeller(fn).probs(noise())
    assert np.abs(p.sum(1)-1).max() < 1e-5
    assert np.abs(p - preds(learn, noise())).max() < 1e-5
    assert np.abs(preds(rebuild_learner(tmp_path/'single'), noise()) - p).max() < 1e-5
    assert not Path(tmp_path/'single.pkl').exists()

def test_timm(tmp_path):
    "A net of timm, with fastai's own head of two layers"
    pytest.importorskip('timm')
    learn = learner('test_resnet')
    p = Labeller(export_learner(learn, tmp_path/'timm', pkl=False)).probs(noise())
    assert np.abs(p - preds(learn, noise())).max() < 1e-4
    assert np.abs(p - preds(rebuild_learner(tmp_path/'timm'), noise())).max() < 1e-4

class NoExport(torch.nn.Module):
    def forward(self, x): return x.mean((2,3))[:,:2] if x.mean()>.3 else x.amax((2,3))[:,:2]

class Noisy(torch.nn.Module):
    def forward(self, x): return x.mean((2,3))[:,:2] + torch.randn(2)

@pytest.mark.parametrize('net,why', [(NoExport, 'cannot be written as ONNX'), (Noisy, 'differs from the learner')])
def test_what_was_there_survives_a_failure(tmp_path, net, why):
    learn = learner()
    for o in ('.onnx','.json','.safetensors','.pkl','.md'): Path(f'{tmp_path/"m"}{o}').write_text(f'old{o}')
    learn.model = net()
    dls = learn.dls
    with pytest.raises(ExportError, match=why): export_learner(learn, tmp_path/'m')
    assert learn.dls is dls
    assert {o.name:o.read_text() for o in tmp_path.iterdir()} == {f'm{o}':f'old{o}' for o in ('.onnx','.json','.safetensors','.pkl','.md')}

def test_learner_that_cannot_be_pickled(tmp_path):
    learn = learner()
    learn.model = torch.nn.Sequential(torch.nn.Conv2d(3,2,3,stride=4), torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()))
    learn.lock = threading.Lock()
    dls = learn.dls
    with pytest.raises(ExportError, match='pkl=False'): export_learner(learn, tmp_path/'m')
    assert learn.dls is dls and not list(tmp_path.iterdir())

def test_model_cut_short_or_changed(small, tmp_path):
    _, stem, _ = small
    for o in ('json','onnx','safetensors'): (tmp_path/f'm.{o}').write_bytes(Path(f'{stem}.{o}').read_bytes())
    with open(tmp_path/'m.onnx', 'r+b') as f: f.truncate(1_000_000)
    with pytest.raises(ModelError, match='cut short'): Labeller(tmp_path/'m.onnx')
    with open(tmp_path/'m.safetensors', 'r+b') as f: f.seek(1_000_000); f.write(b'\1'*64)
    with pytest.raises(ModelError, match='SHA-256'): rebuild_learner(tmp_path/'m')
    (tmp_path/'m.safetensors').unlink()
    with pytest.raises(ModelError, match='no weights at'): rebuild_learner(tmp_path/'m')
    (tmp_path/'m.json').write_text('{"labels"')
    with pytest.raises(ModelError, match='cut short'): rebuild_learner(tmp_path/'m')

class Stranger:
    def __init__(self, fn): self.fn = str(fn)
    def __reduce__(self): return open, (self.fn, 'w')

@pytest.mark.parametrize('proto', [2, 4, 5])
@pytest.mark.parametrize('zipped', [True, False])
def test_pickle_from_a_stranger_is_not_run(tmp_path, proto, zipped):
    fn, mark = tmp_path/'s.pkl', tmp_path/'was_here'
    if zipped: torch.save(Stranger(mark), fn, pickle_protocol=proto)
    else: fn.write_bytes(pickle.dumps(Stranger(mark), proto))
    with pytest.raises(ModelError, match='trust=True'): load_learner_file(fn)
    assert not mark.exists()

def test_pickle_of_protocol_0_is_not_run_even_if_trusted(tmp_path):
    fn, mark = tmp_path/'s.pkl', tmp_path/'was_here'
    fn.write_bytes(pickle.dumps(Stranger(mark), 0))
    with pytest.raises(ModelError, match='not a learner'): load_learner_file(fn, trust=True)
    assert not mark.exists()

def test_pickle_changed_since_export(small, tmp_path):
    for o in ('json','pkl'): (tmp_path/f'm.{o}').write_bytes(Path(f'{small[1]}.{o}').read_bytes())
    spec = json.loads((tmp_path/'m.json').read_text())
    spec['sha256']['pkl'] = '0'*64
    (tmp_path/'m.json').write_text(json.dumps(spec))
    with pytest.raises(ModelError, match='SHA-256 differs'): load_learner_file(tmp_path/'m.pkl', trust=True)

def test_pickle_damaged(small, tmp_path):
    b = bytearray(Path(f'{small[1]}.pkl').read_bytes())
    b[len(b)//2:len(b)//2+64] = b'\1'*64
    (tmp_path/'d.pkl').write_bytes(b)
    with pytest.raises(ModelError, match='damaged'): load_learner_file(tmp_path/'d.pkl', trust=True)

def memory_learner(seed=0):
    "A learner that was trained for a moment on crops in memory, in bf16, with averaged weights"
    from gender_classifier.learner import EMA, face_learner
    from gender_classifier.memory import memory_dls
    x, y = noise(12, seed), np.tile([[1,0],[0,1],[0,0]], (4,1))
    learn = face_learner(memory_dls(x, y, np.arange(12)>=8, bs=4, device=torch.device('cpu')), weights=None, precision='bf16', cbs=EMA(.5), seed=seed, lin_ftrs=[], concat_pool=False)
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(1, 1e-3)
    return learn

@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    "The learner from memory, its .onnx, and what it says of noise"
    from gender_classifier.learner import learn_probs
    learn = memory_learner()
    fn = export_learner(learn, tmp_path_factory.mktemp('trained')/'trained', dict(labels=['female','male']))
    return learn, fn, learn_probs(learn, noise())

def test_learner_from_memory_needs_labels(trained, tmp_path):
    with pytest.raises(ExportError, match='names of its labels'): export_learner(trained[0], tmp_path/'m')

def test_learner_from_memory(trained):
    "All of them say what the learner says in float32, and the learner can go on"
    learn, fn, want = trained
    assert np.abs(Labeller(fn).probs(noise()) - want).max() < 1e-4
    again = rebuild_learner(fn)
    assert np.abs(preds(again, noise()) - want).max() < 1e-4
    with learn.no_bar(), learn.no_logging(): learn.fit(1)

def test_rebuild_with_data_of_ones_own(trained):
    "The learner that is rebuilt goes on training on what one has"
    from gender_classifier.memory import memory_dls
    again = rebuild_learner(trained[1], memory_dls(noise(12), np.tile([[1,0],[0,1],[0,0]], (4,1)), np.arange(12)>=8, bs=4, device=torch.device('cpu')))
    with again.no_bar(), again.no_logging(): again.fit(1)
    assert np.isfinite(again.recorder.values[-1][0])

def test_export_of_what_was_exported(small, tmp_path):
    "A learner that was built again, or came out of the pickle, gives the same files to the byte"
    _, stem, _ = small
    for i, learn in enumerate((rebuild_learner(stem), load_learner_file(f'{stem}.pkl', trust=True))):
        export_learner(learn, tmp_path/f'm{i}', pkl=False)
        for o in ('onnx','safetensors'): assert sha256(tmp_path/f'm{i}.{o}') == sha256(f'{stem}.{o}'), (i, o)

def test_export_keeps_a_calibration(small, tmp_path):
    "Weights of a calibrated model that are exported again say the same, and decide the same"
    from gender_classifier.cli import main
    learn, _, _ = small
    use = dict(thresholds=dict(female=.7, male=.8), neither_below=.2, margin=1.5)
    export_learner(learn, tmp_path/'a', use, pkl=False)
    new = dict(temperature=dict(female=1.5, male=2.), calibration=dict(error=.02))
    update_spec(tmp_path/'a', **new)
    def again(name, *args):
        assert main(['export', str(tmp_path/'a.safetensors'), '--out', str(tmp_path/name), *args]) == 0
        return json.loads((tmp_path/f'{name}.json').read_text())
    d = again('b')
    assert {k: d[k] for k in use} == use and d['calibration'] == new['calibration'] and 'temperature' not in d
    d = again('c', '--labels', 'f,m')
    assert d['thresholds'] == dict(f=.7, m=.8) and 'calibration' not in d
    assert 'calibration' not in again('d', '--margin', '1.2')
