"Figures against scikit-learn's and Fairlearn's on random answers, their intervals, and what cannot be measured"
import time, warnings
from types import SimpleNamespace
import numpy as np, pandas as pd, pytest
from hypothesis import given, settings, strategies as st
from sklearn import metrics as sk
from gender_classifier.evaluate import (age_band, auc, balanced, check_scored, ece, evaluate_model, evaluate_scores, history, label_metrics, macro_f1, metrics_table, rate,
    reliability, scored, target_labels, to_md, wilson, with_bands)
from gender_classifier.fairness import by_group, gaps, leave_one_source_out, md_gaps
from gender_classifier.mistakes import decision_confusion, mistakes_sheet, no_face, top_mistakes

LABELS = ['female','male']
SPEC = dict(labels=LABELS, thresholds=dict(female=.5, male=.6), neither_below=.3)
quick = settings(max_examples=40, deadline=None)

def answers(n=400, seed=0, skill=1.):
    "Random faces of both labels and pictures of neither, and what a model of this skill says; with ties"
    rng = np.random.default_rng(seed)
    labels = np.concatenate([LABELS, [''], rng.choice([*LABELS,''], n-3, p=[.5,.3,.2])])
    df = pd.DataFrame(dict(fn=[f'{i}.jpg' for i in range(n)], labels=labels, source=rng.choice(['a','b','c'], n), race=rng.choice(list('XYZ'), n), age=rng.integers(0,90,n)*1.))
    z = rng.normal(0, 1, (n,2))+skill*np.stack([labels==o for o in LABELS], 1)-.5
    return scored(df, (1/(1+np.exp(-z))).round(2), SPEC)

seeds = st.builds(answers, n=st.integers(4, 300), seed=st.integers(0, 10**6), skill=st.floats(-1, 5))

# ---- figures are scikit-learn's

@quick
@given(seeds)
def test_label_metrics(df):
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        for by,d in (('decision',df),('larger',df[df.labels!=''])):
            lm = label_metrics(df, by=by)
            p,r,f,_ = sk.precision_recall_fscore_support(d.labels, d[by], labels=LABELS, zero_division=np.nan)
            np.testing.assert_allclose(lm.value.unstack().loc[LABELS, ['precision','recall']], np.stack([p,r], 1))
            np.testing.assert_allclose(lm.value.unstack().loc[LABELS,'F1'], sk.f1_score(d.labels, d[by], labels=LABELS, average=None, zero_division=0))
            for o in LABELS:
                assert lm.value[o,'accuracy']==pytest.approx(sk.accuracy_score(d.labels==o, d[by]==o))
                assert lm.value[o,'AUC']==pytest.approx(sk.roc_auc_score(d.labels==o, d[f'p_{o}']))
            ok = lm[lm.value.notna()]
            assert ((ok.low<=ok.value+1e-12)&(ok.value<=ok.high+1e-12)&(ok.low>=0)&(ok.high<=1)).all()

@quick
@given(seeds)
def test_table(df):
    m,f,no = metrics_table(df),df[df.labels!=''],df[df.labels=='']
    assert m.value['accuracy']==pytest.approx(sk.accuracy_score(f.labels, f.larger))
    assert m.value['balanced accuracy']==pytest.approx(sk.balanced_accuracy_score(f.labels, f.larger))
    assert m.value['macro F1']==pytest.approx(sk.f1_score(f.labels, f.larger, average='macro'))
    assert m.value['recall male']==pytest.approx(sk.recall_score(f.labels, f.larger, pos_label='male'))
    assert m.value['no face, called neither']==pytest.approx((no.decision=='neither').mean())
    ok = m[m.value.notna()]
    assert ((ok.low<=ok.value+1e-9)&(ok.value<=ok.high+1e-9)).all()

@quick
@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=60))
def test_auc_with_ties(rows):
    p,y = np.array([o[0]/5 for o in rows]),np.array([o[1] for o in rows])
    a = auc(p, y)
    if y.all() or not y.any(): assert np.isnan(a['value'])
    else:
        assert a['value']==pytest.approx(sk.roc_auc_score(y, p))
        assert 0<=a['low']<=a['value']+1e-12 and a['value']-1e-12<=a['high']<=1

@quick
@given(seeds)
def test_confusion(df):
    cm = decision_confusion(df, SPEC)
    assert cm.to_numpy().sum()==len(df)
    assert list(cm.index)==[*LABELS,'neither'] and list(cm.columns)==[*LABELS,'neither','both','unsure']
    assert cm.sum(axis=1).to_dict()==df.labels.replace('','neither').value_counts().reindex(cm.index, fill_value=0).to_dict()
    said = ['female','male','neither']
    want = sk.confusion_matrix(df.labels.replace('','neither'), df.decision, labels=[*said,'unsure'])[:3]
    np.testing.assert_array_equal(cm[said].to_numpy(), want[:,:3])
    np.testing.assert_array_equal((cm.both+cm.unsure).to_numpy(), want[:,3])
    both = (df.p_female>=.5)&(df.p_male>=.6)
    assert cm.both.sum()==both.sum()

@quick
@given(seeds)
def test_groups(df):
    for cols in ('source',['race','sex']):
        gm = by_group(df, cols, min_n=1)
        assert gm.by_group.n.sum()==(df.labels!='').sum()
        for k,g in df[df.labels!=''].groupby(cols):
            r = gm.by_group.loc[k]
            assert r.n==len(g) and r.accuracy==pytest.approx(g.correct.mean()) and r.unsure==pytest.approx((g.decision=='unsure').mean())
            assert (r.low,r.high)==pytest.approx(wilson(g.correct.sum(), len(g)))
            if g.labels.nunique()>1: assert r['balanced accuracy']==pytest.approx(sk.balanced_accuracy_score(g.labels, g.larger))
        if gm.comparable:
            acc = gm.by_group.accuracy
            assert gm.difference()['accuracy']==pytest.approx(acc.max()-acc.min())
            if acc.max()>0: assert gm.ratio()['accuracy']==pytest.approx(acc.min()/acc.max())
            assert gm.worst().accuracy==acc.min()
            g = gm.gap()
            assert g['best']==gm.worst(best=True).name
            assert g['low']<=g['value']+1e-9<=g['high']+2e-9 and 0<=g['p']<=1

def test_targets():
    t = np.random.default_rng(0).integers(0, 2, (200,2))
    t = t[t.sum(1)<2]
    back = np.stack([np.array(target_labels(t, LABELS))==o for o in LABELS], 1)
    np.testing.assert_array_equal(back, t.astype(bool))

# ---- intervals hold what they promise

def covered(draw, true, n=400):
    "How often the interval that `draw` gives contains `true`"
    hits = [r['low']-1e-12<=true<=r['high']+1e-12 for r in (draw(np.random.default_rng(i)) for i in range(n))]
    return np.mean(hits)

@pytest.mark.parametrize('p,n', [(.5,40),(.97,60),(.99,400)])
def test_rate_covers(p, n): assert covered(lambda g: rate(g.random(n)<p), p)>=.92

def test_balanced_covers():
    y = np.array(['male']*300+['female']*60)
    assert covered(lambda g: balanced(g.random(360)<np.where(y=='male', .98, .9), y), .94)>=.94

def test_auc_covers():
    from scipy.stats import norm
    y = np.arange(200)<60
    assert covered(lambda g: auc(g.normal(y*1.5, 1), y), norm.cdf(1.5/2**.5))>=.92

def test_macro_f1_covers():
    y = np.array(['male']*200+['female']*100)
    def said(g): return np.where(g.random(300)<np.where(y=='male', .95, .9), y, np.where(y=='male', 'female', 'male'))
    cm = np.array([[90,10],[10,190]])
    true = (2*np.diag(cm)/(cm.sum(0)+cm.sum(1))).mean()
    assert covered(lambda g: macro_f1(y, said(g), n_boot=500), true)>=.92

def test_one_error_is_no_less_proof():
    y = LABELS*30
    none,one = balanced([True]*60, y),balanced([False]+[True]*59, y)
    assert one['low']<none['low'] and one['high']<=none['high']

def test_gap_of_groups_that_do_not_differ():
    "Best and worst of ten are picked after looking; the interval must not be taken in by that"
    rng,wrong = np.random.default_rng(0),0
    df = pd.DataFrame(dict(labels=LABELS*1000, race=np.repeat(list('ABCDEFGHIJ'), 200), decision='male'))
    for _ in range(20):
        ok = rng.random(2000)<.95
        d = df.assign(correct=ok, larger=np.where(ok, df.labels, np.where(df.labels=='male', 'female', 'male')))
        wrong += by_group(d, 'race').gap()['low']>0
    assert wrong<=1

def test_no_error_is_no_proof():
    y = LABELS*15
    for r in (rate([True]*30), balanced([True]*30, y), macro_f1(y, y), auc(np.tile([0.,1], 15), np.tile([0,1], 15))): assert r['value']==1 and r['low']<.96 and r['high']==1

# ---- what cannot be measured is said in a line

def line(contains, f, *args, **kw):
    with pytest.raises(ValueError) as e: f(*args, **kw)
    assert contains in str(e.value) and '\n' not in str(e.value)

def test_one_class_only():
    df = answers()
    for f in (label_metrics, check_scored, lambda d: evaluate_scores(d, SPEC)): line('are labelled male', f, df[df.labels=='male'])
    m = metrics_table(df[df.labels=='male']) # a table of what there is, for a training that has no more
    assert m.n['recall male']==m.n['balanced accuracy']

def test_three_people():
    df = answers()
    i = df.index[df.labels!=''][:3]
    gm = by_group(df.assign(race=['few' if o in i else 'many' for o in df.index]), 'race')
    assert gm.small==['few'] and gm.by_group.n['few']==3
    for f in (gm.difference, gm.ratio, gm.group_min, gm.worst, gm.gap): line('race: fewer than two groups are large enough to be compared; the largest are many (', f)
    assert 'too few faces to compare' in md_gaps(gaps(dict(race=gm)))

def test_feature_that_is_not_there():
    df = answers()
    line("there is no column ['rcae']", evaluate_scores, df, SPEC, sensitive_features=['rcae'])
    young = df.assign(race=df.race.where(df.age<10, ''))
    assert 'race' not in evaluate_scores(young, SPEC, min_age=10).groups # known of children only, who are left out
    line('not known of a single face', evaluate_scores, young, SPEC, sensitive_features=['race'], min_age=10)

def test_min_age_holds_for_all_figures():
    df = answers(2000)
    ev,old = evaluate_scores(df, SPEC, min_age=40),evaluate_scores(df[~(df.age<40)], SPEC)
    for o in ('metrics','risk_coverage'): pd.testing.assert_frame_equal(getattr(ev, o)(), getattr(old, o)())
    for k,r in ev.reliability().items(): pd.testing.assert_frame_equal(r, old.reliability()[k])

def test_labels_missing():
    df = answers()[['fn','labels']]
    p = np.full((len(df),2), .5)
    line('of 1 of 400 pictures is missing', scored, df.assign(labels=df.labels.mask(df.index==3)), p, SPEC)
    line('no column "labels"', scored, df[['fn']], p, SPEC)
    line("['3']", scored, df.assign(labels=[3 if i==7 else o for i,o in enumerate(df.labels)]), p, SPEC)

def test_odd_probabilities():
    df = answers()[['fn','labels']]
    p = np.full((len(df),2), .5)
    p[:3,0] = np.nan
    line('3 of 400 rows', scored, df, p, SPEC)
    line('400 of 400 rows', scored, df, np.full((400,2), 7.), SPEC)
    line('not (400, 3)', scored, df, np.full((400,3), .5), SPEC)

def test_other_labels():
    df,seen = answers()[['fn','labels']],[]
    lab = SimpleNamespace(spec=SimpleNamespace(labels=['cat','dog'], thresholds=.5, neither_below=.3), label_many=lambda *a, **kw: seen.append(1) or iter([]))
    line("these true labels are not among ['cat', 'dog']: ['female', 'male']", evaluate_model, 'm', df, labeller=lab)
    assert not seen # said before the pictures are gone through

def test_no_faces():
    df = answers()
    no = df[df.labels=='']
    for f in (label_metrics, lambda d: evaluate_scores(d, SPEC)): line('is labelled as a face', f, no)
    line('not known of a single face', by_group, no, 'source')
    assert no_face(no).n['called a face']==len(no)
    line('all 300 pictures are labelled as faces', no_face, answers(1500)[lambda d: d.labels!=''].head(300))

def test_empty():
    df = answers()[:0]
    for f in (label_metrics, lambda d: evaluate_scores(d, SPEC)): line('the table is empty', f, df)
    lab = SimpleNamespace(spec=SimpleNamespace(labels=LABELS, thresholds=.5, neither_below=.3))
    line('the table is empty', evaluate_model, 'm', df, labeller=lab)
    line('no mistake', mistakes_sheet, top_mistakes(df))
    assert decision_confusion(df, SPEC).to_numpy().sum()==0

@pytest.mark.parametrize('nobody', [None, np.nan, pd.NA, ''])
def test_feature_nobody_knows(nobody):
    df = answers()
    assert [*evaluate_scores(df.assign(race=nobody), SPEC).groups]==['source','sex','age_band']
    some = df.assign(race=df.race.astype(object).where(df.index%2==0, nobody)) # half of it is known
    n = evaluate_scores(some, SPEC).groups['sex x race'].by_group.n.sum()
    assert n==((df.labels!='')&(df.index%2==0)).sum()

def test_labels_as_categories():
    df = answers()[['fn','labels','age','race']]
    p = np.random.default_rng(0).random((len(df),2))
    cat = scored(df.assign(labels=df.labels.astype('category')), p, SPEC)
    pd.testing.assert_frame_equal(cat, scored(df, p, SPEC))
    pd.testing.assert_frame_equal(metrics_table(cat), metrics_table(scored(df, p, SPEC)))

def test_table_of_something_else():
    df = answers()
    plain,bare = df[['fn','labels','race','source']],pd.DataFrame(dict(file=['a']))
    for f in (metrics_table, label_metrics, check_scored, lambda d: by_group(d, 'race'), lambda d: evaluate_scores(d, SPEC)):
        for d in (plain, bare): line('make it with `scored`', f, d)
    line('has no column p_female, p_male', label_metrics, df.drop(columns=['p_female','p_male']))
    line('the table has no column larger', metrics_table, df.drop(columns='larger'))

def test_reliability_of_nothing():
    none,some = reliability([], []),reliability([.2,.7], [False,True])
    assert not len(none) and [*none]==[*some] and (none.dtypes==some.dtypes).all() and np.isnan(ece(none))

def test_age_bands_of_other_edges():
    assert [*age_band([0, 9.5, 59, 60, -1, np.nan], [0,10,60])]==['0-9','0-9','10-59','60+','','']
    assert [*age_band([3, 70])]==['0-3','70+']

def test_all_too_young():
    line('the table is empty', evaluate_scores, answers()[lambda d: d.labels!=''].assign(age=3.), SPEC, min_age=10)

def test_records(tmp_path):
    fn = tmp_path/'h.csv'
    fn.write_bytes(b'\x00\xff\xfe')
    line('h.csv is not the record', history, fn)
    fn.write_text('a,b\n1,2\n')
    line("it has the columns ['a', 'b']", history, fn)

def test_leave_out():
    df = answers()
    fit = lambda d: lambda t: t[['p_female','p_male']].to_numpy()
    res = leave_one_source_out(df, fit)
    want = {o: sk.balanced_accuracy_score(g.labels, g.larger) for o,g in df[df.labels!=''].groupby('source')}
    assert res.value[['a','b','c']].to_dict()==pytest.approx(want)
    assert res.trained_on['a']==len(df)-((df.labels!='')&(df.source=='a')).sum() # pictures of neither stay
    assert (res.drop_low<=res['drop'])[:3].all() and res.home_n['a']<100
    line('two with 30 faces', leave_one_source_out, df[df.source=='a'], fit)
    line('gave no number for', leave_one_source_out, df, lambda d: lambda t: np.full((len(t),2), np.nan))

# ---- size

def test_25000_faces():
    df = with_bands(answers(25000).assign(side=lambda d: np.random.default_rng(0).integers(20, 3000, len(d)), face_side=100., sharpness=-.4))
    t = time.process_time()
    ev = evaluate_scores(df, SPEC)
    text = to_md(ev)
    label_metrics(df), gaps(ev.groups), decision_confusion(df, SPEC), top_mistakes(df)
    assert time.process_time()-t<40
    assert '### By size band' in text and '### By sex x race' in text and 'face_band' not in ev.groups # one band is nothing to compare
