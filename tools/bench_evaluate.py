"""How long does `gender_classifier evaluate --html` take, and how much memory, for many faces?

    python tools/bench_evaluate.py [--faces FOLDER] [--n 5000] [--model FILE]

Takes N pictures of FOLDER (by default utkface in ../shared/data, or in what GENDER_CLASSIFIER_DATA names), some of them several times if there are fewer,
and runs the command on them in a process of its own. Prints seconds, milliseconds a picture, the largest memory, and what 25,000 would take."""
import argparse, os, random, subprocess, sys, tempfile, time
from pathlib import Path
from gender_classifier.core import cpu_name, image_files, n_cpus
from gender_classifier.ingest import utk_fields

root = Path(__file__).resolve().parent.parent

def data_folder():
    "Where faces are kept on this machine"
    return Path(os.environ.get('GENDER_CLASSIFIER_DATA', root.parent/'shared/data'))/'utkface'

def fill(path, faces, n):
    "Folders female and male of links to `n` pictures, one name each"
    fns = [o for o in image_files(faces) if utk_fields(o.name)]
    if not fns: sys.exit(f'{faces} holds no pictures that are named as those of UTKFace')
    random.Random(42).shuffle(fns)
    for lbl in ('female', 'male'): (path/lbl).mkdir(parents=True)
    for i in range(n):
        fn = fns[i%len(fns)]
        os.symlink(fn.resolve(), path/utk_fields(fn.name)[1]/f'{i:06}_{fn.name}')

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--faces', type=Path, default=data_folder())
    p.add_argument('--n', type=int, default=5000)
    p.add_argument('--model', default='default')
    a = p.parse_args()
    with tempfile.TemporaryDirectory() as tmp:
        tmp = Path(tmp)
        fill(tmp/'data', a.faces, a.n)
        start = time.perf_counter()
        code = 'import sys; from gender_classifier.cli import main; sys.exit(main())'
        q = subprocess.Popen([sys.executable, '-c', code, 'evaluate', a.model, str(tmp/'data'), '--html', str(tmp/'out')], stdout=subprocess.DEVNULL)
        _, status, use = os.wait4(q.pid, 0)
        secs = time.perf_counter()-start
        if os.waitstatus_to_exitcode(status): sys.exit(f'evaluate ended with status {os.waitstatus_to_exitcode(status)}')
        size = (tmp/'out/index.html').stat().st_size
    print(f'{cpu_name()}, {n_cpus()} usable: {a.n:,} faces in {secs:.0f} s, {1000*secs/a.n:.1f} ms each; at most {use.ru_maxrss/1024:,.0f} MB; page of {size/1024:,.0f} kB')
    print(f'25,000 faces at this pace: {25_000*secs/a.n/60:.1f} min')

if __name__ == '__main__': main()
