"""The honest figure: a small net trained on all sources but one and measured on that one, for each, beside the usual figure.

    pip install -c constraints.txt -e ".[train]"
    python tools/leave_one_out.py FACES [--faces 1000] [--epochs 6] [--size 64]

FACES is as in `train_default.py`. Of each source `--faces` faces are drawn, as many women as men, ten years or older; pictures without a face are
always trained on. Every net starts from scratch, so that none has seen the source that is left out. A few minutes on one core.
"""
import argparse
from pathlib import Path
import pandas as pd
from train_default import read
from gender_classifier.core import LABELS, with_big_pages
from gender_classifier.crops import make_crops
from gender_classifier.data import picture_groups
from gender_classifier.evaluate import md_table, pct
from gender_classifier.fairness import leave_one_source_out
from gender_classifier.pretrain import crop_fit


def drawn(df, n, seed):
    "`n` faces of each source, half of them women, and half as many pictures of neither"
    face = df[(df.labels!='')&~(df.age<10)]
    parts = [g.sample(min(n//2, len(g)), random_state=seed) for _,g in face.groupby(['source','labels'])]
    no = df[df.labels=='']
    return pd.concat([*parts, no.sample(min(n//2, len(no)), random_state=seed)], ignore_index=True)


def table(res):
    "The figures as markdown"
    num = lambda v: '–' if pd.isna(v) else f'{v*100:.1f}'
    ci = lambda r, *cols: num(r[cols[0]]) if pd.isna(r[cols[1]]) else pct(dict(zip(('value','low','high'), r[list(cols)])))
    row = lambda k, r: [k, num_faces(r.n), ci(r, 'value','low','high'), *(num(r[f'recall {o}']) for o in LABELS), num_faces(r.home_n), ci(r, 'home','home_low','home_high'), ci(r, 'drop','drop_low','drop_high')]
    head = ['source left out','faces','balanced accuracy, %','women, %','men, %','faces in a random fifth','balanced accuracy there, %','lost']
    return md_table([head, *(row(k, r) for k,r in res.iterrows())])

def num_faces(n): return '' if pd.isna(n) else f'{int(n):,}'


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('faces_dir', metavar='FACES', type=Path)
    p.add_argument('--faces', type=int, default=1000, help='of each source')
    p.add_argument('--epochs', type=int, default=6)
    p.add_argument('--size', type=int, default=64, help='side of the crops, pixels')
    p.add_argument('--seed', type=int, default=42)
    a = p.parse_args()
    with_big_pages()
    df,bad = make_crops(drawn(read(a.faces_dir), a.faces, a.seed), progress=False)
    df['group'] = picture_groups(df)
    print(f'A resnet18 from scratch, {a.epochs} epochs at {a.size} px, seed {a.seed}, {len(df):,} pictures: how much such a net loses elsewhere, not what the shipped model does.\n', flush=True)
    print(table(leave_one_source_out(df, crop_fit(a.epochs, a.size, seed=a.seed), seed=a.seed)))


if __name__=='__main__': main()
