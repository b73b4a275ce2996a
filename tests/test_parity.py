"The learner and the shipped ONNX file say the same of the same pictures, from the file onward"
import random
from pathlib import Path
import pytest

pytest.importorskip('torch', reason='torch is not installed, so there is no learner to compare with')
import numpy as np, pandas as pd
from gender_classifier.core import image_files
from gender_classifier.crops import load_crops, make_crops
from gender_classifier.evaluate import labeller_probs
from gender_classifier.inference import decide_many
from gender_classifier.inference import Labeller, ModelError, default_model
from gender_classifier.learner import learn_probs
from gender_classifier.rebuild import rebuild_learner

@pytest.fixture(scope='module')
def model():
    "The .onnx of the shipped model"
    try: return default_model()
    except ModelError as e: pytest.skip(str(e))

@pytest.fixture(scope='module')
def learn(model):
    "The learner in float32, built again from safetensors and JSON"
    return rebuild_learner(model)

def both(learn, model, fns, cache):
    "What the learner says by way of the crops it trains on, and what the `Labeller` says of the files; and the decisions of both"
    labeller = Labeller(model, precision='fp32')
    spec = labeller.spec
    df, bad = make_crops(pd.DataFrame(dict(fn=[str(o) for o in fns])), spec.size, spec.margin, cache=cache, progress=False)
    assert not len(bad) and len(df) == len(fns)
    a = learn_probs(learn, load_crops(df.crop))
    lp = labeller_probs(list(df.fn), labeller)
    return a, lp[[f'p_{o}' for o in spec.labels]].to_numpy(), decide_many(a, spec.labels, spec.thresholds, spec.neither_below), lp.decision.to_numpy()

def check(learn, model, fns, cache):
    a, b, da, db = both(learn, model, fns, cache)
    far = [(fns[i].name, a[i].round(4), b[i].round(4)) for i in np.flatnonzero(np.abs(a-b).max(1) > 1e-3)]
    assert not far, f'{len(far)} of {len(fns)} differ: {far[:5]}'
    other = [(fns[i].name, da[i], db[i]) for i in np.flatnonzero(da != db)]
    assert not other, f'{len(other)} of {len(fns)} decisions differ: {other[:5]}'
    return a

PARTS = dict(utkface=200, celeba=100, lfw=100, not_a_face=75, photos=25)

def test_500_real_pictures(learn, model, shared_data, tmp_path):
    rng, fns = random.Random(42), []
    for k, n in PARTS.items():
        if (shared_data/k).is_dir(): found = list(image_files(shared_data/k)); fns += rng.sample(found, min(n, len(found)))
    if len(fns) < 500: pytest.skip(f'{shared_data} has {len(fns)} pictures in {", ".join(PARTS)}, and 500 are wanted')
    p = check(learn, model, fns, tmp_path)
    assert len(set(p.argmax(1))) == 2 # it is no model that always says the same

def test_synthetic_faces(learn, model, tmp_path):
    "Drawings, which any machine has"
    from gender_classifier.synth import synth_faces
    synth_faces(tmp_path/'faces', n=12, neither=4)
    check(learn, model, list(image_files(tmp_path/'faces')), tmp_path/'cache')

def test_pickle_and_predict(learn, model, tmp_path):
    "`learn.predict` of a picture file, by fastai's own transforms, on crops that were saved"
    from gender_classifier.synth import synth_faces
    synth_faces(tmp_path/'faces', n=2)
    df, _ = make_crops(pd.DataFrame(dict(fn=[str(o) for o in image_files(tmp_path/'faces')])), learn.dls.after_item[0].size[0], cache=tmp_path/'cache', progress=False)
    with learn.no_bar(): got = np.stack([learn.predict(o)[2].numpy() for o in df.crop])
    assert np.abs(got - Labeller(model, precision='fp32').probs(load_crops(df.crop))).max() < 1e-3
