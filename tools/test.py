"Run every check, notebook and test, whatever fails on the way. Arguments are nbdev flags (slow, cuda); the last line is the sum"
import os, subprocess, sys, tempfile, time
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from xml.etree import ElementTree

import check, readme

root = check.root
limit,limit_tests = 900,3600  # seconds for one notebook, and for all tests

sys.path.insert(0, str(root/'tests'))

@cache
def env():
    "The environment of the tests, made once"
    from surroundings import surroundings
    return surroundings(os.environ)

def run(args, **kwargs): return subprocess.run([sys.executable, *map(str, args)], cwd=root, env=env(), stdin=subprocess.DEVNULL, **kwargs)

def test_notebook(fn, flags):
    "nbdev_test on one notebook, in a process of its own: whether it passed"
    start, call = time.time(), f'from nbdev.test import nbdev_test; nbdev_test({str(fn)!r}, flags={flags!r}, n_workers=0)'
    try: res = run(['-c', call], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=limit)
    except subprocess.TimeoutExpired as e: ok, said = False, f'stopped after {limit} s\n{(e.stdout or b"").decode(errors="replace")}'
    else: ok, said = res.returncode == 0, res.stdout.decode(errors='replace')
    print(f'{"ok    " if ok else "FAILED"} {fn.name} ({time.time()-start:.0f} s)' + ('' if ok else f'\n{said}'), flush=True)
    return ok

def test_notebooks(flags, n_workers=2):
    "How many notebooks of nbs/ pass and fail"
    fns = [o for o in check.notebooks() if o.parent.name == 'nbs']
    with ThreadPoolExecutor(n_workers) as ex: res = list(ex.map(lambda o: test_notebook(o, flags), fns))
    return sum(res), len(res) - sum(res), 0

def counts(xml):
    "Passed, failed and skipped, from the report pytest leaves; no report is one failure"
    if not xml.exists(): return 0, 1, 0
    res = [{k: int(o.get(k)) for k in ('tests', 'failures', 'errors', 'skipped')} for o in ElementTree.parse(xml).iter('testsuite')]
    total = {k: sum(o[k] for o in res) for k in res[0]}
    failed = total['failures'] + total['errors']
    return total['tests'] - failed - total['skipped'], failed, total['skipped']

def test_pytest():
    "How many tests of tests/ pass, fail and are skipped"
    with tempfile.TemporaryDirectory() as tmp:
        xml = Path(tmp)/'report.xml'
        args = ['-m', 'pytest', '-q', '-rs', '--durations=5', '-o', 'faulthandler_timeout=600', f'--junitxml={xml}', 'tests']
        try: rc = run(args, timeout=limit_tests).returncode
        except subprocess.TimeoutExpired: rc = f'stopped after {limit_tests} s'; print(rc, flush=True)
        passed, failed, skipped = counts(xml)
    return passed, failed or int(rc not in (0, 5)), skipped

def main():
    os.chdir(root)
    print('Checks', flush=True)
    parts = [check.run(check.checks | {'README is in step with index.ipynb': readme.out_of_step}) + (0,)]
    print('Notebooks', flush=True)
    parts.append(test_notebooks(' '.join(sys.argv[1:])))
    print('Tests', flush=True)
    parts.append(test_pytest())
    passed, failed, skipped = map(sum, zip(*parts))
    print(f'\n{passed} passed, {failed} failed' + (f', {skipped} skipped' if skipped else ''), flush=True)
    sys.exit(failed > 0)

if __name__ == '__main__': main()
