"Where a net looks: maps that agree with theory, checks that tell good maps from bad, and nets of other kinds"
import pytest

pytest.importorskip('torch', reason='torch is not installed, so there is no net to ask')
pytest.importorskip('captum', reason='captum is not installed')
import numpy as np, torch
from fastai.vision.all import resnet18, resnet34, vision_learner
from gender_classifier.export import blank_dls, export_learner
from gender_classifier.inference import Labeller, default_model
from gender_classifier.look import *
from gender_classifier.look import _geometry
from gender_classifier.sanity import *
from gender_classifier.synth import synth_face
from torch import nn
from torchvision import models

SZ = 64
SPEC = dict(labels=['female','male'], size=SZ, mean=[.5,.4,.4], std=[.25]*3)
SIMPLE = dict(lin_ftrs=[], concat_pool=False)

def learner(arch=resnet18, seed=0, activation='sigmoid', **kwargs):
    "An untrained learner, with statistics in its batch normalisation as after training"
    torch.manual_seed(seed)
    learn = vision_learner(blank_dls(dict(SPEC, activation=activation)), arch, pretrained=False, normalize=False, n_out=2, **kwargs)
    for o in learn.model.modules():
        if isinstance(getattr(o, 'running_var', None), torch.Tensor): o.running_mean.normal_(0, .1); o.running_var.uniform_(.5, 2)
    return learn

def faces(n=4, size=SZ): return np.stack([np.asarray(synth_face(['female','male'][i%2], seed=i, size=size)) for i in range(n)])

@pytest.fixture(scope='module')
def shipped(): return Looker(default_model().with_suffix(''))

@pytest.mark.parametrize('arch', [resnet18, resnet34])
def test_agrees_with_the_graph(arch, tmp_path):
    "Where a net averages over places and is linear from there, Grad-CAM, HiRes-CAM and the graph's own maps differ by one constant a label"
    learn, x = learner(arch, **SIMPLE), faces()
    export_learner(learn, tmp_path/'m', pkl=False)
    looker, cam = Looker(learn), Labeller(tmp_path/'m.onnx').maps(x)
    for i, label in enumerate(looker.labels):
        grad, hires = (looker.maps(x, label, o) for o in ('Grad-CAM','HiRes-CAM'))
        diff = cam[:,i]-grad
        assert np.ptp(diff) < 1e-3*max(np.ptp(cam[:,i]), 1) and np.allclose(grad, hires, atol=1e-4)
        assert np.allclose(grad.mean((1,2))+diff.mean(), looker.logits(x)[:,i], atol=1e-3)

def test_shipped_model_agrees(shipped):
    labeller, x = Labeller(default_model(), precision='fp32'), faces(size=shipped.size)
    assert np.abs(shipped.probs(x)-labeller.probs(x)).max() < 1e-4
    cam, own = labeller.maps(x)[:,0], shipped.maps(x, 'female')
    assert np.corrcoef(cam.ravel(), own.ravel())[0,1] > .9999

def test_asks_a_copy():
    "Neither maps nor shuffles change the learner"
    learn, x = learner(**SIMPLE), faces(2)
    was = {k: v.clone() for k, v in learn.model.state_dict().items()}
    looker = Looker(learn)
    before = looker.logits(x)
    for o in METHODS: looker.maps(x, 'male', o)
    for _ in cascade(looker): pass
    assert (looker.logits(x) == before).all()
    assert all((v == was[k]).all() for k, v in learn.model.state_dict().items())
    assert all(o.requires_grad for o in learn.model[1].parameters())

def test_weights_matter_to_gradcam_only(shipped):
    "Shuffled weights change Grad-CAM at once; guided backpropagation redraws the picture without the last stage (Adebayo et al., 2018)"
    x = faces(4, shipped.size)
    own = {o: shipped.maps(x, 'male', o) for o in ('Grad-CAM','guided backpropagation')}
    sim = {o: [] for o in own}
    for seed in range(4):
        for name, net in cascade(shipped, seed):
            if name == '0.7.0':
                for o in own: sim[o].append(similarity(own[o], net.maps(x, 'male', o)).mean())
                break
    assert abs(np.mean(sim['Grad-CAM'])) < .6 and np.mean(sim['guided backpropagation']) > .85
    assert np.mean(sim['guided backpropagation'])-abs(np.mean(sim['Grad-CAM'])) > .3

def test_same_seed_same_shuffle(shipped):
    a, b, c = (torch.cat([o.flatten() for o in next(cascade(shipped, s))[1].net[1].parameters()]) for s in (0, 0, 1))
    assert (a == b).all() and (a != c).any()

@pytest.mark.parametrize('layer', ['0.4','0.5'])
def test_places_are_where_they_are(layer):
    "The picture that one place of a layer answers to lies about the centre given for it"
    net = Looker(learner(**SIMPLE))
    at, x = net.centres(layer)*SZ-.5, torch.rand(1, 3, SZ, SZ, requires_grad=True)
    kept = []
    hook = net.net.get_submodule(layer).register_forward_hook(lambda m, i, o: kept.append(o))
    net.net(x)
    hook.remove()
    for j in range(len(at)//2-1, len(at)//2+1):
        seen = torch.autograd.grad(kept[0][0,:,len(at)//2,j].sum(), x, retain_graph=True)[0].abs().sum((0,1,2)).numpy()
        assert abs((seen*np.arange(SZ)).sum()/seen.sum()-at[j]) < 2.5

def test_geometry_of_pooling():
    net = nn.Sequential(nn.Conv2d(3, 2, 3), nn.MaxPool2d(2), nn.Conv2d(2, 2, 5, padding='same'), nn.Conv2d(2, 2, 3, 2, 1))
    assert {k: v for k, v in _geometry(net, torch.zeros(1, 3, 18, 18)).items() if k < 18} == {16: (1., 1.), 8: (1.5, 2.), 4: (1.5, 4.)}

@pytest.mark.parametrize('arch', [models.vgg11_bn, models.squeezenet1_1, models.mobilenet_v3_small, 'resnet10t'], ids=str)
def test_other_nets(arch):
    "Nets of other kinds can be asked, taken apart, and shown"
    looker, x = Looker(learner(arch)), faces(2)
    assert len(parts(looker.net)) >= 5
    for o in ('Grad-CAM','guided backpropagation'):
        m = looker.maps(x, 'male', o)
        assert m.shape[0] == 2 and m.shape[1] == m.shape[2] > 1 and np.isfinite(m).all()
    at = looker.centres()
    assert ((at > 0) & (at < 1)).all() and (np.diff(at) > 0).all()
    assert first_filters(looker).shape[-1] == 3

def test_parts_cover_all_weights():
    for arch in (resnet18, models.vgg11_bn, 'resnet10t'):
        net = Looker(learner(arch)).net
        assert sum(p.numel() for m in parts(net).values() for p in m.parameters()) == sum(p.numel() for p in net.parameters())

def test_softmax():
    looker, x = Looker(learner(activation='softmax')), faces(2)
    assert np.allclose(looker.probs(x).sum(1), 1, atol=1e-5) and looker.maps(x).shape[0] == 2

def test_similarity_is_spearman():
    from scipy.stats import spearmanr
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 5, (2,6,4,4)).astype(float)
    assert np.allclose(similarity(a, b), [spearmanr(i.ravel(), j.ravel()).statistic for i, j in zip(a, b)])

def test_batches_do_not_matter(shipped):
    x = faces(5, shipped.size)
    two = Looker(default_model().with_suffix(''), bs=2)
    assert np.allclose(shipped.maps(x), two.maps(x), atol=1e-3) and np.allclose(shipped.logits(x), two.logits(x), atol=1e-4)

@pytest.mark.parametrize('crops', [np.zeros((0,112,112,3), np.uint8), np.zeros((1,64,64,3), np.uint8), np.zeros((1,112,112,3)), np.zeros((112,112,3), np.uint8), []])
def test_wrong_crops(shipped, crops):
    for f in (shipped.maps, shipped.logits, lambda c: sanity_check(shipped, c)):
        with pytest.raises(ValueError, match='crops must be uint8 of shape'): f(crops)

def test_wrong_requests(shipped):
    x = faces(2, shipped.size)
    with pytest.raises(ValueError, match='no label'): shipped.maps(x, ['male','cat'])
    with pytest.raises(ValueError, match='no method'): sanity_check(shipped, x, ['magic'])
    with pytest.raises(ValueError, match='no layer'): shipped.features(x, 'layer9')
    with pytest.raises(ValueError, match='2 crops, but 1 labels'): shipped.maps(x, ['male'])

def test_names_places_that_matter(shipped, shared_data):
    "On real faces, covering what Grad-CAM names undoes the answer sooner than covering at random, and the rest later"
    fns = sorted((shared_data/'utkface').glob('3?_*.jpg'))[::200][:16]
    from gender_classifier.core import open_image
    from gender_classifier.faces import crop_face, find_faces, main_face
    x = [np.asarray(open_image(o)) for o in fns]
    x = np.stack([crop_face(a, main_face(find_faces(a), a.shape[:2]), shipped.size) for a in x])
    labeller = Labeller(default_model(), precision='fp32')
    told = [shipped.labels[o] for o in labeller.probs(x).argmax(1)]
    gap = deletion_gap(deletion(labeller, x, shipped.maps(x, told), told, shipped.centres()))
    assert gap['first'] > .5 and gap['last'] > .2
