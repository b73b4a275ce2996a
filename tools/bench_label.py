"""How fast is `gender_classifier label`, and how much memory does it take?

    python tools/bench_label.py [--data FOLDER] [--n 1000] [--size 200] [--runs 3] [--model FILE] [--threads N]

Makes a temporary folder of N faces of SIZE x SIZE pixels out of FOLDER (by default ../shared/data/utkface or what
GENDER_CLASSIFIER_DATA names), labels it with the command line as a person would, each run a new process, and prints the machine,
photos a second from process start to exit, the largest resident memory, and the time of the first label of a new process."""
import argparse, os, platform, random, subprocess, sys, tempfile, time
from pathlib import Path

from gender_classifier.core import cpu_name, image_files, n_cpus, open_image

root = Path(__file__).resolve().parent.parent
exe = [sys.executable, '-c', 'import sys; from gender_classifier.cli import main; sys.exit(main())']

def make_faces(src, dst, n, size):
    "Write `n` pictures of `src` to `dst` as `size` x `size` JPEGs, again from the start if there are fewer"
    fns = list(image_files(src))
    random.Random(42).shuffle(fns)
    for i in range(n): open_image(fns[i%len(fns)]).resize((size, size)).save(dst/f'{i:06}.jpg', quality=92)

def timed(args):
    "(seconds, largest resident megabytes, processor seconds) of a command in a process of its own"
    start = time.perf_counter()
    p = subprocess.Popen(args, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, use = os.wait4(p.pid, 0)
    if status: sys.exit(f'{" ".join(map(str, args))} ended with status {os.waitstatus_to_exitcode(status)}')
    return time.perf_counter()-start, use.ru_maxrss/1024, use.ru_utime+use.ru_stime

def main():
    data = Path(os.environ.get('GENDER_CLASSIFIER_DATA') or root.parent/'shared/data')
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--data', type=Path, default=data/'utkface'); p.add_argument('--n', type=int, default=1000)
    p.add_argument('--size', type=int, default=200); p.add_argument('--runs', type=int, default=3)
    p.add_argument('--model'); p.add_argument('--threads')
    args = p.parse_args()
    opts = [o for k in ('model', 'threads') if (v := getattr(args, k)) for o in (f'--{k}', v)]
    print(f'{cpu_name()}, {n_cpus(most=10**6)} usable, load {os.getloadavg()[0]:.1f}; Python {platform.python_version()}')
    with tempfile.TemporaryDirectory() as d:
        d = Path(d)
        (d/'faces').mkdir()
        make_faces(args.data, d/'faces', args.n, args.size)
        timed([*exe, 'label', d/'faces/000000.jpg', *opts])  # files into the system's cache
        for i in range(args.runs):
            first, _, _ = timed([*exe, 'label', d/'faces/000000.jpg', *opts])
            secs, mb, cpu = timed([*exe, 'label', d/'faces', '--csv', d/'labels.csv', *opts])
            print(f'run {i+1}: {args.n} photos in {secs:.1f} s, {args.n/secs:.0f} a second ({cpu/args.n*1e3:.1f} ms of processor each), '
                  f'at most {mb:.0f} MB; one photo in a new process {first:.2f} s', flush=True)

if __name__ == '__main__': main()
