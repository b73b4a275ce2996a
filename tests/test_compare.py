"Two models on the same pictures: the test and the intervals keep what they promise"
import numpy as np, pandas as pd, pytest
for o in ('pandas', 'scipy', 'fairlearn'): pytest.importorskip(o, reason=f'the package {o}, which comparing needs, is not installed')
from math import comb
from hypothesis import given, settings, strategies as st
from gender_classifier.compare import compare_tables, group_differences, match_tables, mcnemar, paired_difference
from gender_classifier.evaluate import scored

spec = dict(labels=['female', 'male'], thresholds=dict(female=.6, male=.6), neither_below=.3)

def answers(n=300, seed=0, shift=0., faces=True):
    "A table of random answers; those of two seeds are of the same pictures"
    truth, rng = np.random.default_rng(1), np.random.default_rng(seed)
    labels = truth.choice(['female', 'male', ''] if faces else [''], n)
    y = (labels == 'female')*1.
    f = np.clip(y*.5+rng.normal(.25+shift, .2, n), 0, 1)
    df = pd.DataFrame(dict(fn=[f'{i:05}.jpg' for i in range(n)], labels=labels, source=truth.choice(['a', 'b'], n), age=truth.integers(0, 90, n)*1.))
    return scored(df, np.c_[f, 1-f], spec)

bools = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60)

@settings(deadline=None, max_examples=100)
@given(bools)
def test_mcnemar_is_the_binomial_test(pairs):
    a, b = map(list, zip(*pairs))
    r = mcnemar(a, b)
    x, n = r['only_a'], r['only_a']+r['only_b']
    assert r['both']+r['neither']+n == len(a)
    tail = sum(comb(n, i) for i in range(min(x, n-x)+1))/2**n
    assert r['p'] == pytest.approx(min(1., 2*tail))
    assert mcnemar(b, a)['p'] == pytest.approx(r['p'])

@settings(deadline=None, max_examples=100)
@given(bools)
def test_difference_is_antisymmetric_and_inside(pairs):
    a, b = map(list, zip(*pairs))
    r, q = paired_difference(a, b), paired_difference(b, a)
    assert r['value'] == pytest.approx(np.mean(b)-np.mean(a)) and r['value'] == pytest.approx(-q['value'])
    assert -1 <= r['low'] <= r['value'] <= r['high'] <= 1
    assert r['low'] == pytest.approx(-q['high'])

@pytest.mark.parametrize('pa,only_b,n', [(.05, .05, 40), (.02, .06, 200), (.01, .01, 1000)])
def test_interval_covers(pa, only_b, n):
    "The true difference lies in 95 % of the intervals, also where disagreement is rare"
    rng, inside = np.random.default_rng(7), 0
    for _ in range(400):
        u = rng.random(n)
        a, b = u >= only_b, (u < only_b) | (u >= only_b+pa)
        r = paired_difference(a, b)
        inside += r['low'] <= only_b-pa <= r['high']
    assert inside/400 >= .93

def test_balanced_interval_covers():
    rng, inside = np.random.default_rng(8), 0
    k = np.array(['male']*400+['female']*60)
    for _ in range(300):
        u = rng.random(460)
        gain = np.where(k == 'male', .02, .1)
        a, b = u >= gain, u < .99
        r = paired_difference(a, b, k)
        inside += r['low'] <= .5*(.02+.1)-.01 <= r['high']
    assert inside/300 >= .93

def test_no_difference_is_rarely_found():
    "Of models that are equally good, one in twenty pairs at most is called different"
    found = 0
    for seed in range(200):
        u = np.random.default_rng(seed).random(300)
        found += mcnemar(u >= .05, (u < .05) | (u >= .1))['p'] < .05
    assert found/200 <= .08

def test_a_worse_model_is_named():
    good, bad = answers(seed=2), answers(seed=3, shift=.35)
    c = compare_tables(good, bad, ('good', 'bad'))
    assert c.better() == 'good' and c.verdict().startswith('good is better: balanced accuracy')
    assert compare_tables(bad, good, ('bad', 'good')).better() == 'good'
    assert c.figures.loc['balanced accuracy', 'high'] < 0
    d = c.disagreements(1)
    assert len(d) == c.mcnemar['only_b']+sum(c.df.correct_b & ~c.df.correct & (c.df.labels == '')) and set(d.right) <= {'bad'}
    assert c.to_md().count('| p |') == 1+len(c.groups)

def test_a_winner_is_named_only_where_both_ways_of_counting_agree():
    "900 men and 100 women: one model is right more often on all, the other balanced over labels"
    y = np.array(['male']*900+['female']*100)
    d = pd.DataFrame(dict(fn=[f'{i:04}' for i in range(1000)], labels=y, decision=y, larger=y))
    a, b = np.ones((2, 1000), bool)
    a[:60], b[900:913] = False, False
    of = lambda x, y: compare_tables(*(d.assign(correct=o, decided_correct=o) for o in (x, y)), sensitive_features=[])
    c = of(a, b)
    assert c.mcnemar['p'] < .05 and c.figures.value['balanced accuracy'] < 0 and c.better() == of(b, a).better() == ''
    assert 'B is right more often on all faces together, but less often balanced' in c.verdict() and 'together 94.0 and 98.7 % right' in c.verdict()
    assert c.figures.p[['balanced accuracy', 'balanced accuracy, decided']].isna().all() and 'nan' not in c.to_md()

def test_order_of_rows_does_not_matter():
    a, b = answers(seed=2), answers(seed=3)
    one, two = compare_tables(a, b), compare_tables(a.sample(frac=1, random_state=1), b.sample(frac=1, random_state=2))
    pd.testing.assert_frame_equal(one.figures, two.figures)

def test_errors_say_what_is_wrong():
    a, b = answers(), answers(seed=3)
    for x, y, says in [(a, b.iloc[5:], 'not of the same pictures: 5 are only in the first table, such as 00000.jpg'), (a.iloc[1:], b, '1 is only in the second table'),
            (a, b.assign(labels='male'), 'do not agree what'), (a[:0], b, 'the first table is empty'), (a, b.drop(columns='correct'), 'the second table has no column correct'),
            (pd.concat([a, a]), b, 'is twice in the first table')]:
        with pytest.raises(ValueError, match=says): compare_tables(x, y)
    m = match_tables(a, b)
    with pytest.raises(ValueError, match='there is no column race'): group_differences(m, 'race')
    with pytest.raises(ValueError, match='is not known of a single face'): group_differences(m.assign(race=''), 'race')

def test_no_faces_and_small_groups():
    a, b = answers(faces=False), answers(seed=3, faces=False)
    c = compare_tables(a, b)
    assert not c.groups and list(c.figures.index) == ['no face, called neither'] and c.verdict()
    few = compare_tables(answers().iloc[:9], answers(seed=3).iloc[:9])
    assert few.groups['source'].small.all() and '†' in few.to_md() and few.plot() is not None
