"""How tight should a face be cut out? The model in models/, its crops wider and tighter than it is used with.

    python tools/try_margin.py FACES [--margins 1.05 1.1 1.15 1.2 1.25 1.35] [--sample N] [--out models/gender_resnet18]

FACES is as for `tools/train_default.py`. Only the half of the held-out pictures that the model was calibrated on is looked at, so that the other half
still judges what is chosen. Faces of 10 years and up; balanced accuracy, men and women of each source, and what is called neither, in per cent.
"""
import argparse, sys
from functools import partial
from pathlib import Path
import numpy as np
from tqdm.auto import tqdm
from train_default import held_out, in_calibration
from gender_classifier.core import LABELS, PictureError, in_order, open_image
from gender_classifier.evaluate import balanced, md_table, older, pct, rate
from gender_classifier.faces import crop_face, find_faces
from gender_classifier.inference import Labeller


def views(fn, lbl, margins):
    "Probabilities of the largest face of a photo, float (margins, labels); None if it cannot be read"
    try: a = np.asarray(open_image(fn))
    except PictureError: return None
    faces = find_faces(a, lbl.score, lbl.max_side, lbl.detector)
    return lbl.probs(np.stack([crop_face(a, faces[0] if faces else None, lbl.spec.size, m) for m in margins]))


def row(m, p, df, neither_below):
    "One line of the table"
    face,ok = (df.labels!='').to_numpy(),np.array(LABELS)[p.argmax(1)]==df.labels.to_numpy()
    said = [m]
    for s in sorted(set(df.source[face])):
        g = face&(df.source==s).to_numpy()
        said += [pct(balanced(ok[g], df.labels[g])), *(f'{ok[g&(df.labels==o).to_numpy()].mean()*100:.1f}' for o in LABELS[::-1])]
    low = p.max(1)<neither_below
    return [*said, pct(rate(low[~face]), 2), pct(rate(low[face]), 2)]


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('faces', type=Path); p.add_argument('--out', type=Path, default=Path('models/gender_resnet18'))
    p.add_argument('--margins', type=float, nargs='+', default=[1.05,1.1,1.15,1.2,1.25,1.35]); p.add_argument('--sample', type=int)
    a = p.parse_args()
    df = held_out(a.faces, a.out)
    df = older(df[in_calibration(a.faces, a.out, df)], 10).reset_index(drop=True)
    if a.sample: df = df.sample(min(a.sample, len(df)), random_state=42).reset_index(drop=True)
    lbl = Labeller(f'{a.out}.onnx', precision='fp32')
    res = list(tqdm(in_order(partial(views, lbl=lbl, margins=a.margins), df.fn, lbl.threads), total=len(df), unit=' photos'))
    read = np.array([o is not None for o in res])
    if not read.any(): sys.exit('not one of the pictures could be read')
    z,df = np.stack([o for o in res if o is not None]),df[read].reset_index(drop=True)
    heads = [f'{s}{o}' for s in sorted(set(df.source[df.labels!=''])) for o in (', balanced',', men',', women')]
    print(f'{lbl!r}, {len(df):,} pictures\n')
    print(md_table([['margin', *heads, 'no face, neither', 'faces, neither'], *(row(m, z[:,i], df, lbl.spec.neither_below) for i,m in enumerate(a.margins))]))


if __name__=='__main__': main()
