"""Are the notebooks clean, and the library in step with them? Prints what to run where they are not.
   --staged and --clean are for the git hooks, which send notebook names on standard input."""
import json, re, shutil, subprocess, sys, tempfile
from pathlib import Path
from nbdev.clean import clean_nb, nbdev_clean
from nbdev.config import get_config
from execnb.nbio import nb2str

root = Path(__file__).absolute().parents[1]
max_image = 300_000  # characters of pictures in the outputs of one notebook
litter = re.compile(r'/tmp/|/home/|/root/|/Users/|<progress|\bit/s\b')

def notebooks():
    "The notebooks that are ours: the library's and the app's"
    return sorted(o for d in ('nbs', 'app') for o in (root/d).glob('*.ipynb') if not o.name.startswith(('.', '_')))

def cleaned(text):
    "What nbdev_clean makes of a notebook's text"
    nb, cfg = json.loads(text), get_config(path=root)
    clean_nb(nb, cfg.clear_all, cfg.allowed_metadata_keys.split(), cfg.allowed_cell_metadata_keys.split(), cfg.clean_ids)
    return nb2str(nb)

def code_cells(nb): return [o for o in nb['cells'] if o['cell_type'] == 'code']
def outputs(nb): return [o for c in code_cells(nb) for o in c.get('outputs', [])]
def src(cell): return ''.join(cell['source'])

def is_unclean(text, nb): return text != cleaned(text) and 'not clean (make prepare cleans it)'

def has_widgets(text, nb):
    return 'widgets' in nb['metadata'] and 'holds the state of widgets, which can contain a photo: clear its outputs and save it'

def is_heavy(text, nb):
    n = sum(len(''.join(v)) for o in outputs(nb) for k, v in o.get('data', {}).items() if k.startswith('image/'))
    return n > max_image and f'{n//1000} kB of pictures in its outputs, {max_image//1000} at most: keep the few that teach'

def has_litter(text, nb):
    found = litter.search(json.dumps(outputs(nb)))
    return found and f'an output has a path of this machine or a progress bar in it ({found[0]}): clear that cell'

def has_late_directive(text, nb):
    late = [o for o in map(src, code_cells(nb)) if re.search(r'^#\|', o, re.M) and not o.startswith('#|')]
    return late and f'#| is not on the first line of a cell, which nbdev passes over: {late[0].splitlines()[0][:60]!r}'

def problems(test):
    "What `test` says of each notebook it finds fault with"
    for fn in notebooks():
        text = fn.read_text(encoding='utf-8')
        if said := test(text, json.loads(text)): yield f'{fn.relative_to(root)}: {said}'

def exported(tmp):
    "Export the notebooks into a copy of the project under `tmp`"
    tmp = Path(tmp)
    shutil.copy(root/'settings.ini', tmp)
    shutil.copytree(root/'nbs', tmp/'nbs', ignore=shutil.ignore_patterns('.*'))
    (tmp/'gender_classifier').mkdir()
    shutil.copy(root/'gender_classifier/__init__.py', tmp/'gender_classifier')
    for o in root.glob('gender_classifier/*/__init__.py'): shutil.copytree(o.parent, tmp/'gender_classifier'/o.parent.name, ignore=shutil.ignore_patterns('__pycache__')) # written by hand
    subprocess.run([sys.executable, '-c', 'from nbdev.doclinks import nbdev_export; nbdev_export()'], cwd=tmp, check=True)
    return tmp/'gender_classifier'

def modules(path): return {o.name: o.read_text(encoding='utf-8') for o in path.glob('*.py')}

def out_of_step():
    "Modules that are not what their notebooks export"
    with tempfile.TemporaryDirectory() as tmp: new = modules(exported(tmp))
    old = modules(root/'gender_classifier')
    for o in sorted(new | old):
        if new.get(o) != old.get(o): yield f'gender_classifier/{o} is not what the notebooks say (make prepare writes it)'

checks = {
    'notebooks are clean': lambda: problems(is_unclean), 'no state of widgets': lambda: problems(has_widgets),
    'outputs are small': lambda: problems(is_heavy), 'outputs are of no one machine': lambda: problems(has_litter),
    'directives come first': lambda: problems(has_late_directive), 'library is in step with notebooks': out_of_step}

def said_by(check):
    "What `check` finds fault with; one that cannot be run is a fault too"
    try: return list(check())
    except Exception as e: return [f'{type(e).__name__}: {e}']

def run(checks):
    "Print how each check went; how many passed and failed"
    failed = 0
    for name, check in checks.items():
        said = said_by(check)
        failed += bool(said)
        print('ok    ' if not said else 'FAILED', name, *(f'\n         {o}' for o in said), flush=True)
    return len(checks) - failed, failed

def clean_files(fns):
    "Clean the notebooks `fns` in the work tree, those that need it, and name them"
    for fn in map(Path, fns):
        text = fn.read_text(encoding='utf-8')
        if text != cleaned(text):
            nbdev_clean(str(fn))
            print(f'cleaned {fn}')

def staged(fns):
    "Names of the notebooks `fns` that are about to be committed unclean"
    show = lambda fn: subprocess.run(['git', 'show', f':{fn}'], capture_output=True, check=True).stdout.decode()
    return [o for o in fns if (text := show(o)) != cleaned(text)]

def main():
    fns = [] if sys.stdin is None or len(sys.argv) < 2 else sys.stdin.read().splitlines()
    if '--clean' in sys.argv: return clean_files(fns)
    if '--staged' in sys.argv:
        if not (bad := staged(fns)): return
        clean_files(bad)
        sys.exit(f'These notebooks were staged with outputs or metadata to clean: {" ".join(bad)}\nThey are clean now: git add them and commit again.')
    sys.exit(run(checks)[1] > 0)

if __name__ == '__main__': main()
