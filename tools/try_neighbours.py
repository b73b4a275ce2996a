"""Are people on both sides of the split? Held-out faces that have one like theirs among those trained on, and what that does to the figures.

    python tools/try_neighbours.py FACES [--runs runs/default] [--out models/gender_resnet18] [--near 0.35 0.4 0.41 0.45]

FACES and `--runs` are as for `tools/train_default.py`, whose prepared table is taken if it is there. Faces are compared by the 128 numbers of dlib's
face recognition network. Its authors take 0.6 for the limit of one person; of LFW's nearest pairs, looked at, about half of those below 0.42 are plainly of one person, and hardly any beyond.
Pictures without a face are compared as `data.picture_groups` does. Faces of ten years and up are judged by the model; two minutes on one core.
"""
import argparse
from pathlib import Path
import numpy as np
from train_default import crops_of, prepared
from gender_classifier.core import LABELS
from gender_classifier.data import picture_groups
from gender_classifier.distill import teacher_embeddings
from gender_classifier.evaluate import balanced, md_table, pct
from gender_classifier.inference import Labeller


def nearest(a, b, chunk=500):
    "Distance of each row of `a` to the nearest of `b`, and which that is"
    sq,res = (b**2).sum(1),[]
    for i in range(0, len(a), chunk):
        d = (a[i:i+chunk]**2).sum(1)[:,None]+sq-2*a[i:i+chunk]@b.T
        res.append((np.sqrt(d.min(1).clip(0)), d.argmin(1)))
    return [np.concatenate(o) for o in zip(*res)]


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('faces', type=Path); p.add_argument('--runs', type=Path, default=Path('runs/default'))
    p.add_argument('--out', type=Path, default=Path('models/gender_resnet18')); p.add_argument('--near', type=float, nargs='+', default=[.35,.4,.41,.45])
    a = p.parse_args()
    a.runs.mkdir(parents=True, exist_ok=True)
    df,_ = prepared(a.faces, a.runs)
    f,no = df[df.labels!=''],df[df.labels=='']
    e = teacher_embeddings(f.fn)
    f,e = f[~np.isnan(e).any(1)],e[~np.isnan(e).any(1)]
    v = f.valid.to_numpy(bool)
    held,trained = f[v],f[~v]
    d,at = nearest(e[v], e[~v])
    held = held.assign(d=d, of=trained.source.to_numpy()[at])
    held = held[~(held.age<10)].reset_index(drop=True)
    lbl = Labeller(f'{a.out}.onnx', precision='fp32')
    held['correct'] = np.array(LABELS)[lbl.probs(crops_of(a.out, held.drop(columns='crop'))).argmax(1)]==held.labels.to_numpy()
    rows = [['held out', 'nearer than', 'faces', 'of all', 'like one of', 'balanced accuracy without them, %']]
    for (s,g),near in ((o,n) for o in held.groupby('source') for n in (0.,*a.near)):
        far,close = g[g.d>=near],g[g.d<near]
        rows.append([s, near or '', len(close) if near else '', f'{len(g):,}', ', '.join(f'{k} {n}' for k,n in close.of.value_counts().items()), pct(balanced(far.correct, far.labels))])
    print(md_table(rows))
    groups,v = picture_groups(no),no.valid.to_numpy(bool)
    print(f'\nWithout a face: {np.isin(groups[v], groups[~v]).sum()} of {v.sum()} that are held out have a near copy among those trained on')


if __name__=='__main__': main()
