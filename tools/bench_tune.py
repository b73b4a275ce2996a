"""What do two hundred photos of one's own change, and how long does it take?

    pip install -c constraints.txt -e ".[train]"
    python tools/bench_tune.py FACES [--source lfw] [--photos 200] [--draws 3] [--model MODEL]

Of one source (as `tools/train_default.py` reads it; one that MODEL never saw, or the figures are too good) half as many men and
half as many women as --photos are drawn and put into two folders. `gender_classifier train` makes a model of them, once from the face weights
and once from none, each a new process that is timed from start to exit; both, and the model as it is, are measured on the source's other
people. Printed are balanced accuracies with 95 % intervals, and the paired differences to the untouched model."""
import argparse, os, platform, shutil, subprocess, sys, tempfile, time
from pathlib import Path
import numpy as np, pandas as pd
from bench_label import exe
from train_default import read
from gender_classifier.compare import paired_difference
from gender_classifier.core import cpu_name, n_cpus
from gender_classifier.evaluate import balanced, evaluate_model, md_table, older, pct
from gender_classifier.inference import ModelError, find_model, load_spec

def draw(df, n, seed):
    "Which rows: `n` pictures, as many men as women, all pictures of a person or none; fewer if that does not come out even"
    own,left = np.zeros(len(df), bool),dict.fromkeys(('female','male'), n//2)
    people = df.person.where(df.person!='', df.fn.map(str))
    rows = df.groupby(people).indices
    for o in np.random.default_rng(seed).permutation(sorted(rows)):
        here = df.labels.iloc[rows[o]].value_counts()
        if any(left[k]<v for k,v in here.items()): continue
        own[rows[o]] = True
        for k,v in here.items(): left[k] -= v
    return own

def folders(df, path):
    "A folder a label"
    for i,r in enumerate(df.itertuples()):
        (path/r.labels).mkdir(parents=True, exist_ok=True)
        shutil.copy(r.fn, path/r.labels/f'{i:04}{Path(r.fn).suffix}')

def trained(path, out, arch, weights, cache):
    "Seconds of the command line, which writes the model `out`"
    start = time.perf_counter()
    res = subprocess.run([*exe, 'train', path, '--arch', arch, '--weights', weights, '--out', out, '--cache', cache], capture_output=True, text=True)
    if res.returncode: sys.exit(f'train ended with status {res.returncode}: {res.stderr[-2000:]}')
    return time.perf_counter()-start

def measured(stem, df):
    "Right or not, for each face"
    d = evaluate_model(stem, df).df
    return d.set_index('fn').correct.reindex(df.fn, fill_value=False).to_numpy(bool)

def once(df, n, seed, stem, res):
    "Draw, train and measure once"
    own = draw(df, n, seed)
    rest = df[~own].reset_index(drop=True)
    ok,secs = {'as it is': measured(stem, rest)},{}
    print(f'draw {seed}: {", ".join(f"{v} {k}" for k,v in df.labels[own].value_counts().items())}, and {len(rest):,} of other people', flush=True)
    with tempfile.TemporaryDirectory() as tmp:
        folders(df[own], Path(tmp)/'own')
        for name,w in (('tuned',f'{stem}.safetensors'),('from scratch','none')):
            secs[name] = trained(Path(tmp)/'own', Path(tmp)/name.replace(' ', '_'), load_spec(f'{stem}.json').arch, w, Path(tmp)/'cache'/name)
            ok[name] = measured(Path(tmp)/name.replace(' ', '_'), rest)
    for k,v in ok.items():
        diff = paired_difference(ok['as it is'], v, rest.labels.to_numpy())
        res.append(dict(draw=seed, model=k, own=int(own.sum()), others=len(rest), seconds=secs.get(k), **balanced(v, rest.labels), diff=diff))
        print(f"draw {seed}, {k}: {pct(balanced(v, rest.labels))} %"+(f' after {secs[k]:.0f} s' if k in secs else ''), flush=True)

def table(res):
    "One row a model: means over the draws"
    rows = [['model','draws','balanced accuracy, %','95 % intervals, mean','points more than as it is','seconds']]
    for k,g in pd.DataFrame(res).groupby('model', sort=False):
        d = [np.mean([o[c] for o in g['diff']])*100 for c in ('value','low','high')]
        rows.append([k, len(g), f'{g.value.mean()*100:.1f} ({", ".join(f"{o*100:.1f}" for o in g.value)})', f'{g.low.mean()*100:.1f} to {g.high.mean()*100:.1f}',
            '' if k=='as it is' else f'{d[0]:+.1f} ({d[1]:+.1f} to {d[2]:+.1f})', '' if g.seconds.isna().any() else f'{g.seconds.mean():.0f}'])
    return md_table(rows)

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('faces', type=Path); p.add_argument('--source', default='lfw'); p.add_argument('--photos', type=int, default=200)
    p.add_argument('--draws', type=int, default=3); p.add_argument('--model', default='default')
    a = p.parse_args()
    try: stem = find_model(a.model).with_suffix('')
    except ModelError as e: sys.exit(str(e))
    df = older(read(a.faces), 10)
    df = df[(df.source==a.source)&(df.labels!='')].reset_index(drop=True)
    if not len(df): sys.exit(f'{a.faces} has no faces of {a.source}')
    print(f'{cpu_name()}, {n_cpus(most=10**6)} usable, load {os.getloadavg()[0]:.1f}; Python {platform.python_version()}; {len(df):,} faces of {a.source}, {stem.name}')
    res = []
    for seed in range(a.draws): once(df, a.photos, seed, stem, res)
    print('\n'+table(res))

if __name__=='__main__': main()
