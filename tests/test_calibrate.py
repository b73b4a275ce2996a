"What is promised by calibration: on numbers for which the truth is known, and of the shipped model on the half of its held-out pictures that no temperature or threshold was chosen by"
import importlib.util, json
from pathlib import Path
import numpy as np, pandas as pd, pytest
from hypothesis import given, settings, strategies as st
from gender_classifier.calibrate import calibrate, calibrate_model, calibration_table, error_check, error_thresholds, fit_temperature, halves, md_error_check, n_allowed, n_needed, rescored
from gender_classifier.evaluate import scored
from gender_classifier.inference import Labeller, ModelError, synth_model, temper

SPEC = dict(labels=['female', 'male'], thresholds=dict(female=.5, male=.5), neither_below=.3)
root = Path(__file__).parents[1]

def answers(n=2000, seed=0, t=.6):
    "Answers whose logits are too small by `t`"
    rng = np.random.default_rng(seed)
    y = rng.choice(['female', 'male', ''], n, p=[.4, .4, .2])
    z = rng.normal(6, 3.4, n)*np.where(y=='male', 1, -1)
    z = np.stack([-z, z], 1)
    z[y==''] = -5
    return scored(pd.DataFrame(dict(fn=[f'{i}.jpg' for i in range(n)], labels=y)), 1/(1+np.exp(-z*t)), SPEC)

@given(st.floats(.1, 5), st.lists(st.floats(.001, .999), min_size=1, max_size=20))
@settings(deadline=None, max_examples=50)
def test_tempering_keeps_order_and_can_be_undone(t, ps):
    p = np.array(ps)[:, None]
    q = temper(p, [t])
    order = np.argsort(p[:, 0])
    assert (np.diff(q[order, 0]) >= 0).all() and ((q>=.5) == (p>=.5)).all()
    np.testing.assert_allclose(temper(q, [1/t]), p, rtol=1e-3, atol=1e-6)

@given(st.integers(1, 3000), st.floats(.005, .4))
@settings(deadline=None, max_examples=100)
def test_allowed(n, error):
    m = n_allowed(n, error)
    assert (m+1)/(n+1) <= error+1e-9 and (m>=0) == (n>=n_needed(error))
    assert n_allowed(n, error, .9) <= max(m, n_allowed(n, error, .5))

def test_no_more_than_stated():
    "Over many calibrations, the share of each class beyond the other's threshold"
    rates = []
    for i in range(60):
        d = answers(3000, i)
        t = error_thresholds(d[:800], .04)
        rates.append([(d[f'p_{b}'][800:][d.labels[800:]==a]>=t[b]).mean() for a, b in (('female', 'male'), ('male', 'female'))])
    assert (np.mean(rates, 0) <= .042).all()

def test_calibrated_twice_is_calibrated_once(tmp_path):
    d, fn = answers(), synth_model(tmp_path)
    c = calibrate_model(fn, d)
    assert calibrate(rescored(d, SPEC, **c), {**SPEC, **c}) == c
    got = json.loads(fn.with_suffix('.json').read_text())
    assert {k: got[k] for k in c} == c and Labeller(fn).spec.temperature == c['temperature']

@pytest.mark.parametrize('harm,says', [
    (lambda d: d[:0], 'no pictures'), (lambda d: d[d.labels=='male'], "no picture of 'female'"),
    (lambda d: d.rename(columns=dict(p_female='p_cat')), 'of a model with the labels'), (lambda d: d.assign(p_male=np.nan), 'NaN'),
    (lambda d: pd.concat([d[d.labels=='male'], d[d.labels=='female'][:9]]), '49 pictures of'), (lambda d: d.assign(p_male=1.), 'Allow a larger error')])
def test_what_cannot_be_calibrated(harm, says):
    with pytest.raises(ValueError, match=says): calibrate(harm(answers()), SPEC)

def test_a_group_of_three_is_named_not_judged():
    d = answers().assign(race='A')
    d.loc[d.index[d.labels=='male'][:3], 'race'] = 'B'
    t = error_check(d, .02, ['race'])
    assert t.small['race', 'B'] and t.holds['race', 'B'] is None and '| B † |' in md_error_check(t)

@pytest.mark.parametrize('bad', [dict(female=0), dict(cat=1.), [1, 1], dict(male='warm'), dict(male=float('nan'))])
def test_a_temperature_that_is_none(tmp_path, bad):
    fn = synth_model(tmp_path)
    d = json.loads(fn.with_suffix('.json').read_text())
    fn.with_suffix('.json').write_text(json.dumps({**d, 'temperature': bad}))
    with pytest.raises(ModelError, match='its temperature'): Labeller(fn)

def test_a_refused_calibration_leaves_the_list(tmp_path, monkeypatch):
    s = importlib.util.spec_from_file_location('train_default', root/'tools'/'train_default.py')
    tool = importlib.util.module_from_spec(s)
    s.loader.exec_module(tool)
    few = answers().iloc[:8].assign(fn=[str(tmp_path/f'{i}.jpg') for i in range(8)], person='', group=range(8))
    stem, was = synth_model(tmp_path).with_suffix(''), 'as it was\n'
    tool.calibration_file(stem).write_text(was)
    for k, v in dict(halves=lambda *a: few.index >= few.index[0], linked_groups=lambda df: None).items(): monkeypatch.setattr(tool, k, v)
    monkeypatch.setattr(tool, 'evaluate_model', lambda out, df: type('Ev', (), dict(df=df)))
    with pytest.raises(ValueError): tool.calibrated(tmp_path, stem, few)
    assert tool.calibration_file(stem).read_text() == was

@pytest.fixture(scope='module', params=['gender_resnet18', 'gender_small'])
def judged(shared_data, request):
    "A shipped model on the half of its held-out pictures by which no threshold was chosen: as calibrated, and before"
    out = root/'models'/request.param
    if not Path(f'{out}.calibration.txt').exists(): pytest.skip('there is no list of the pictures that the model was calibrated on')
    s = importlib.util.spec_from_file_location('train_default', root/'tools'/'train_default.py')
    tool = importlib.util.module_from_spec(s)
    s.loader.exec_module(tool)
    df = tool.held_out(Path(shared_data), out)
    used = tool.in_calibration(Path(shared_data), out, df)
    assert .49 < used.mean() < .51 and not set(df.person[used].dropna())-{''} & set(df.person[~used].dropna())-{''}
    from gender_classifier.evaluate import evaluate_model
    ev = evaluate_model(out, df[~used])
    return ev.df, rescored(ev.df, ev.spec, temperature={}), ev.spec

def test_the_shipped_model(judged):
    after, before, spec = judged
    face = after.labels!=''
    t = calibration_table(before, after)
    assert (t.after < t.before/2).all()
    assert (after.larger==before.larger)[face].all()
    assert (after.decision=='neither')[~face].mean() >= .995 and (after.decision=='neither')[face].mean() <= .003
    assert (after.decision=='unsure')[face].mean() < .07
    chk = error_check(after, spec.calibration['error'])
    assert chk.promised['sex'].all() and chk.holds['all'].all() and chk.holds['sex'].all() and chk.holds['race'].all()
    bad = chk.index[chk.holds==False]
    assert all(f'{o[1]}' in md_error_check(chk) for o in bad)
