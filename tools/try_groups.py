"""Fewer errors where they are most: what sampling, group DRO, augmentation and cleaning each do to the worst group, and to all.

    python tools/try_groups.py FACES [--rows 8000] [--seeds 2] [--runs runs/groups] [--only NAME ...]

Each try goes on from the model in models/ for one epoch of as many rows, and is measured on the held-out pictures (faces of 10 years and
up, groups of sex x age band, or sex x source where the age is unknown). FACES is as for `tools/train_default.py`. Finished tries lie in
`--runs` and are not repeated; `--table` prints what is there: points more than by going on as it was with the same seed (for that, more
than the model they start from), with 95 % intervals over the pictures, not over seeds. Two cores need about two minutes a try, one needs about four.
"""
import argparse, json, pickle, platform, time
from pathlib import Path
import numpy as np, pandas as pd
from fastai.torch_core import set_seed
from train_default import prepared
from gender_classifier.core import LABELS, cpu_name, with_big_pages
from gender_classifier.compare import paired_difference
from gender_classifier.crops import load_crops
from gender_classifier.evaluate import md_table
from gender_classifier.export import load_weights, read_json
from gender_classifier.groups import GroupDROLoss, even_rows, group_names
from gender_classifier.learner import EMA, SmoothBCE, face_learner, learn_probs
from gender_classifier.memory import FaceAug, memory_dls
from gender_classifier.pretrain import more_rows

STEM = Path(__file__).resolve().parent.parent/'models'/'gender_resnet18'
TRIES = { # name: what it changes
    'as it was': 'as many women as men of each source',
    'even': 'every group seen as often as any other',
    'half even': 'groups drawn by the square root of their size',
    'group DRO': 'group DRO (step 0.01, adjustment 1), groups as large as they are',
    'wider augmentation': 'zoom 0.65 to 1.3, turns to 25 degrees, shifts to 16 %',
    'cleaned': 'without the pictures whose label the teacher contradicts with 93.6 % and more',
}


def rows_of(name, df, y, groups, n, seed):
    "The training pictures of a try, and how often"
    train = np.flatnonzero(~df.valid)
    base = np.r_[train, more_rows(df, seed)]
    if name=='cleaned':
        own = np.where(df.labels=='female', y[:,0], y[:,1])
        base = base[(df.labels.to_numpy()[base]=='')|(own[base]>.53)]
    if name in ('even','half even'): return train[even_rows(groups[train], n, 1. if name=='even' else .5, seed)]
    return np.random.default_rng(seed).choice(train if name=='group DRO' else base, n, replace=False)


def learner(name, x, y, g, valid, seed):
    "The shipped model, ready to go on"
    aug = FaceAug(zoom=(.65,1.3), degrees=25., shift=.16) if name=='wider augmentation' else True
    dro = name=='group DRO'
    dls = memory_dls(x, np.c_[y,g] if dro else y, valid, bs=128, aug=aug)
    loss = GroupDROLoss(np.bincount(g[~valid]), adjust=1.) if dro else SmoothBCE()
    learn = face_learner(dls, weights=None, loss_func=loss, metrics=[], clip=1., seed=seed, wd=.05, n_out=2, lin_ftrs=[], concat_pool=False, ps=.2, cbs=EMA(.99))
    load_weights(learn.model, f'{STEM}.safetensors')
    return learn


def figures(p, df):
    "What is kept of one try: which held-out pictures it got right"
    ok = np.where(df.labels=='', p.max(1)<.4, np.array(LABELS)[p.argmax(1)]==df.labels)
    return dict(right=np.packbits(ok).tobytes().hex())


def right(r, n):
    "Booleans, one a held-out picture"
    return np.unpackbits(np.frombuffer(bytes.fromhex(r['right']), np.uint8))[:n].astype(bool)


def attempt(name, seed, df, x, y, groups, n, lr):
    "Train and measure one try"
    start,valid = time.time(),df.valid.to_numpy(bool)
    names = sorted(set(groups[~valid]))
    g = np.array([names.index(o) if o in names else 0 for o in groups])
    rows = rows_of(name, df, y, groups, n, seed)
    some = np.flatnonzero(valid)[:256] # fastai wants a validation set; the figures come from all of it
    part = np.r_[rows, some]
    learn = learner(name, x[part], y[part], g[part], np.r_[np.zeros(len(rows), bool), np.ones(len(some), bool)], seed)
    if lr: learn.fit_one_cycle(1, lr, pct_start=.2)
    return dict(name=name, seed=seed, seconds=round(time.time()-start), pictures=len(set(rows)), **figures(learn_probs(learn, x[valid]), df[valid]))


def change(a, b, sel, classes=None):
    "How much more often `b` is right than `a` where `sel`, in points, as the mean over the seeds of value and interval"
    ds = [paired_difference(o[sel], p[sel], None if classes is None else classes[sel]) for o,p in zip(a, b)]
    v,lo,hi = (np.mean([d[k] for d in ds])*100 for k in ('value','low','high'))
    return f'{v:+.1f} ({lo:+.1f} to {hi:+.1f})'


def gap(a, b, groups, n=2000, seed=42):
    "Distance of the best group from the worst with `b`, and how much more that is than with `a`, in points; 95 % percentile bootstrap over the pictures of each group, mean over the seeds"
    rng,ids = np.random.default_rng(seed),[np.flatnonzero(groups==o) for o in np.unique(groups)]
    boot = [ids,*([rng.choice(o, len(o)) for o in ids] for _ in range(n))]
    def spread(os): return np.array([np.ptp([o[i].mean() for i in ids]) for ids in boot for o in os]).reshape(len(boot), -1).mean(1)*100
    was,now = spread(a),spread(b)
    lo,hi = np.percentile((now-was)[1:], [2.5,97.5])
    return f'{now[0]:.1f} points, {now[0]-was[0]:+.1f} ({lo:+.1f} to {hi:+.1f})'


def table(res, df):
    "What each try changed beside going on as it was, as markdown"
    df = df[df.valid].reset_index(drop=True)
    groups,labels = group_names(df),df.labels.to_numpy()
    bits = {k:{o['seed']:right(o, len(df)) for o in res if o['name']==k} for k in {o['name'] for o in res}}
    face = ((df.labels!='')&~(df.age<10)).to_numpy()
    acc = pd.Series(bits['shipped'][0][face]).groupby(groups[face]).agg(['mean','size'])
    worst = list(acc[acc['size']>=30].sort_values('mean').index[:3]) # of the model they start from, so that they are not picked after looking
    more = {'Black women':face&(df.race=='Black').to_numpy()&(labels=='female'), 'under ten':((labels!='')&(df.age<10)).to_numpy()} # where the card says that promises are broken, or figures are low
    rows = [['what was changed', 'seeds', 'all, balanced', *(f'{o} ({acc["size"][o]})' for o in worst), *(f'{k} ({v.sum()})' for k,v in more.items()), 'gap, best to worst', 'no face, neither']]
    for k in ['shipped', *TRIES]:
        if k not in bits: continue
        plain = bits.get('as it was', {}) if k!='as it was' else {}
        b,ref = list(bits[k].values()),[plain.get(s, bits['shipped'][0]) for s in bits[k]]
        cols = [(face,labels), *((face&(groups==o),None) for o in worst), (more['Black women'],None), (more['under ten'],labels)]
        level = lambda s,c: np.mean([pd.Series(o[s]).groupby(labels[s]).mean().mean() for o in b])*100
        big = face&np.isin(groups, acc.index[acc['size']>=30])
        dist = gap([o[big] for o in ref], [o[big] for o in b], groups[big])
        said = [f'{level(s,c):.1f} %' if k=='shipped' else f'{level(s,c):.1f} %, {change(ref, b, s, c)}' for s,c in cols]
        no = np.mean([o[labels==''].mean() for o in b])*100
        rows.append([TRIES.get(k, 'nothing: the model they start from'), len(b), *said, dist.split(',')[0] if k=='shipped' else dist, f'{no:.1f} %'])
    return md_table(rows)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('faces', type=Path); p.add_argument('--runs', type=Path, default=Path('runs/groups'))
    p.add_argument('--rows', type=int, default=8000); p.add_argument('--seeds', type=int, default=2)
    p.add_argument('--lr', type=float, default=5e-4); p.add_argument('--only', nargs='+', choices=list(TRIES)); p.add_argument('--table', action='store_true')
    a = p.parse_args()
    a.runs.mkdir(parents=True, exist_ok=True)
    log = a.runs/'tries.jsonl'
    res = [json.loads(o) for o in log.read_text().splitlines()] if log.exists() else []
    if not a.table: with_big_pages()
    df,y = prepared(a.faces, a.runs, read_json(STEM)['margin'])
    df = df.reset_index(drop=True)
    if a.table: return print(table(res, df))
    x,y,groups = load_crops(df.crop),y[:,:2],group_names(df)
    jobs = [('shipped',0,None), *((k,s,a.lr) for s in range(a.seeds) for k in a.only or TRIES)]
    print(f'{cpu_name()}, {platform.machine()}; {a.rows} rows, {len(df[df.valid])} held-out pictures', flush=True)
    for name,seed,lr in jobs:
        if any((o['name'],o['seed'])==(name,seed) for o in res): continue
        set_seed(seed)
        res.append(attempt(name, seed, df, x, y, groups, a.rows if lr else 128, lr))
        with log.open('a') as f: f.write(json.dumps(res[-1])+'\n')
        print(f"{name}, seed {seed}: {res[-1]['seconds']} s", flush=True)
    print(table(res, df))


if __name__=='__main__': main()
