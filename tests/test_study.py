"The study as it is run: processes of their own, cut off and gone on with, refused where results could not be compared"
import json, os, signal, subprocess, sys, time
from pathlib import Path
import pytest
from surroundings import said
for o in ('torch', 'fastai', 'pandas', 'sklearn', 'filelock'): pytest.importorskip(o, reason=f'the package {o}, which a study needs, is not installed')
from gender_classifier.atomic import JournalError
from gender_classifier.study import about_study, load_configs, md_report, read_results, run_id, run_study, settings, study_runs, study_state
from gender_classifier.synth import synth_faces

REPO = Path(__file__).parents[1]
GO = 'import sys; from gender_classifier.study import *; run_study(load_configs(sys.argv[1]), *sys.argv[2:])'

@pytest.fixture(scope='module')
def faces(tmp_path_factory):
    "A data set of drawn faces"
    path = tmp_path_factory.mktemp('faces')/'drawn'
    synth_faces(path, n=24, size=96)
    return path

def heed(): signal.signal(signal.SIGINT, signal.SIG_DFL) # what runs in the background is started with Ctrl-C ignored

def listed(path, *configs, **defaults):
    "A file of configurations"
    fn = path/'configs.json'
    fn.write_text(json.dumps(dict(defaults=dict(size=32, bs=8, epochs=1, seeds=[0])|defaults, configs=configs)))
    return fn

def alive(pid):
    try: return Path(f'/proc/{pid}/stat').read_text().split()[2]!='Z'
    except OSError: return False

def wait_for(cond, timeout=90):
    "Wait until `cond()` holds"
    end = time.time()+timeout
    while not cond():
        assert time.time()<end, 'this took too long'
        time.sleep(.05)


def test_runs_fails_and_goes_on(faces, tmp_path):
    "Every run is a line; one that fails is said and stops no other; what is done is not done again"
    said,fn = [],listed(tmp_path, dict(arch='cnn6', seeds=[0,1]), dict(name='too-small', arch='squeezenet1_1', size=16))
    failed = run_study(load_configs(fn), faces, tmp_path/'out', cache=tmp_path/'cache', report=said.append)
    assert failed==['too-small-s0']
    assert 'accuracy' in said[0] and 'it failed' in said[2] and 'log.txt' in said[2] and 'Traceback' not in said[2]
    row,other = read_results(tmp_path/'out')
    assert (row['seed'],other['seed'])==(0,1) and row['data']==other['data'] and row['history']!=other['history']
    assert row['name']=='cnn6-adam-0.001' and row['epochs']==1 and row['n_test']>=6 and row['parameters']>1e6 and row['infer_ms']>0
    assert str(faces) not in json.dumps(row) and str(tmp_path) not in json.dumps(row)
    assert study_state(load_configs(fn), tmp_path/'out').state.tolist()==['done','done','begun']
    assert run_study(load_configs(fn), faces, tmp_path/'out', only=['cnn6'], report=said.append)==[] and len(said)==3

    with pytest.raises(ValueError, match='with other settings'): run_study(load_configs(listed(tmp_path, dict(arch='cnn6', wd=.5))), faces, tmp_path/'out')
    with pytest.raises(ValueError, match='is of a study on'): run_study(load_configs(fn), tmp_path, tmp_path/'out')
    with pytest.raises(ValueError, match='no model'): run_study(load_configs(listed(tmp_path, dict(arch='resnet19'))), faces, tmp_path/'out')
    log = tmp_path/'out'/'results.jsonl'
    log.write_text('{"name": \n'+log.read_text())
    with pytest.raises(JournalError, match='line 1'): read_results(tmp_path/'out')


def test_pictures(tmp_path):
    "What is no data set for a study is refused"
    (tmp_path/'few').mkdir()
    synth_faces(tmp_path/'few', n=4, size=96)
    cs = load_configs(listed(tmp_path, dict(arch='cnn6')))
    with pytest.raises(ValueError, match='at least 10 pictures'): run_study(cs, tmp_path/'few', tmp_path/'out', cache=tmp_path/'cache')
    with pytest.raises(ValueError, match='is not there'): run_study(cs, tmp_path/'nothing', tmp_path/'out2', cache=tmp_path/'cache')


@pytest.mark.skipif(not Path('/proc').is_dir(), reason='processes are looked at in /proc')
def test_killed_and_resumed(faces, tmp_path):
    "A study that is killed leaves no process behind, and goes on with the epoch it had come to"
    fn,out = listed(tmp_path, dict(arch='cnn6'), epochs=400),tmp_path/'out'
    run = out/run_id('cnn6-adam-0.001', 0)
    env = {**os.environ, 'GENDER_CLASSIFIER_CACHE': str(tmp_path/'cache')}
    p = subprocess.Popen([sys.executable, '-c', GO, fn, faces, out], cwd=REPO, env=env, preexec_fn=heed)
    try:
        wait_for(lambda: (run/'history.json').exists() or p.poll() is not None)
        kids = [int(o) for o in Path(f'/proc/{p.pid}/task/{p.pid}/children').read_text().split()]
        assert len(kids)==1
        with pytest.raises(ValueError, match='under way'): run_study(load_configs(fn), faces, out)
    finally: p.kill()
    p.wait()
    wait_for(lambda: not alive(kids[0]))
    wait_for(lambda: (run/'checkpoint.pt').exists(), 5)
    was = json.loads((run/'history.json').read_text())
    assert len(was)<400 and read_results(out)==[]
    (run/'history.json').write_text(json.dumps(was+[dict(was[-1], epoch=999)])) # as if cut off before the checkpoint

    p = subprocess.Popen([sys.executable, '-c', GO, fn, faces, out], cwd=REPO, env=env, preexec_fn=heed)
    try:
        wait_for(lambda: len(json.loads((run/'history.json').read_text()))>len(was)+2)
        p.send_signal(signal.SIGINT)
        assert p.wait(30)!=0
    finally: p.kill()
    now = json.loads((run/'history.json').read_text())
    assert [o['epoch'] for o in now]==list(range(1, len(now)+1))
    assert now[:len(was)-1]==was[:-1]


GO_CLI = 'import sys; from gender_classifier.cli import main; sys.exit(main())'

def command(*args): return [sys.executable, '-c', GO_CLI, 'study', *map(str, args)]

def test_command(faces, tmp_path):
    "The command does the runs, writes the table, lists, and ends quietly by Ctrl-C"
    fn,out = listed(tmp_path, dict(arch='cnn6'), dict(name='long', arch='cnn6', epochs=4000)),tmp_path/'out'
    env = {**os.environ, 'GENDER_CLASSIFIER_CACHE': str(tmp_path/'cache')}
    p = subprocess.Popen(command(fn, '--data', faces, '--out', out), cwd=REPO, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True, preexec_fn=heed)
    try:
        wait_for(lambda: (out/'long-s0'/'history.json').exists() or p.poll() is not None)
        os.killpg(p.pid, signal.SIGINT) # as a terminal does
        printed,err = p.communicate(timeout=60)
    finally: p.kill()
    assert p.returncode==130 and said(err)=='' and '1 of 2  cnn6-adam-0.001, seed 0: accuracy' in printed and 'Written: ' in printed
    md = (out/'README.md').read_text()
    assert '1 of 2 runs are done.' in md and str(faces) not in md and str(tmp_path) not in md and (out/'study.png').stat().st_size>5000
    res = subprocess.run(command(fn, '--out', out, '--list'), cwd=REPO, env=env, capture_output=True, text=True)
    assert res.stdout.splitlines()==['done     cnn6-adam-0.001, seed 0', 'begun    long, seed 0', '1 of 2 runs are done.']
    res = subprocess.run(command(fn, '--out', out), cwd=REPO, env=env, capture_output=True, text=True)
    assert res.returncode==2 and '--data' in res.stderr and 'Traceback' not in res.stderr


def test_a_report_is_made_under_the_lock(tmp_path, monkeypatch):
    "At the end, also by Ctrl-C, while no one else can write; not where the study is another's, or refused"
    from gender_classifier import study
    cs,out,seen = load_configs(listed(tmp_path, dict(arch='cnn6'))),tmp_path/'out',[]
    def after():
        with pytest.raises(ValueError, match='under way'): study._lock(out)
        seen.append(1)
    def ctrl_c(*args): raise KeyboardInterrupt
    monkeypatch.setattr(study, 'study_data', lambda *args: dict(digest='0'))
    monkeypatch.setattr(study, '_next', ctrl_c)
    with pytest.raises(KeyboardInterrupt): run_study(cs, 'x', out, after=after)
    assert len(seen)==1
    with study._lock(out):
        with pytest.raises(ValueError, match='under way'): run_study(cs, 'x', out, after=after)
    (out/'results.jsonl').write_text(json.dumps(dict(name='a', seed=0, config={}, data='1'))+'\n')
    with pytest.raises(ValueError, match='other pictures'): run_study(cs, 'x', out, after=after)
    assert len(seen)==1


def test_a_run_begun_otherwise_is_refused(tmp_path, monkeypatch):
    "Where there is something to go on with; other seeds are no other settings"
    from gender_classifier import study
    cs,out = load_configs(listed(tmp_path, dict(arch='cnn6'))),tmp_path/'out'
    monkeypatch.setattr(study, 'study_data', lambda *args: dict(digest='0'))
    monkeypatch.setattr(study, '_next', lambda *args: [])
    d = out/run_id(cs[0]['name'], 0)
    d.mkdir(parents=True)
    (d/'config.json').write_text(json.dumps(cs[0]|dict(seed=0, seeds=[0,1], lr=.5)))
    assert run_study(cs, 'x', out)==[]
    for o in ('checkpoint.pt','result.json'):
        (d/o).touch()
        with pytest.raises(ValueError, match='begun with other settings: delete it'): run_study(cs, 'x', out)
        (d/o).unlink()
    (d/'checkpoint.pt').touch()
    (d/'config.json').write_text(json.dumps(cs[0]|dict(seed=0, seeds=[0,1])))
    assert run_study(cs, 'x', out)==[]


def test_committed_study():
    "The table that comes with the project is what its results give, of the configurations in its list, and names no folder"
    here = REPO/'nbs'/'study'
    if not (here/'results.jsonl').exists(): pytest.skip('no results are there')
    configs,rows = load_configs(here/'configs.json'),read_results(here)
    of = {c['name']: settings(c) for c in configs}
    assert all(of[r['name']]==r['config'] for r in rows) and len({r['data'] for r in rows})==1
    assert len({(r['name'],r['seed']) for r in rows})==len(rows)
    seeds = [sum(r['name']==o for r in rows) for o in of]
    assert len(of)>=24 and min(seeds)>=2
    assert (here/'README.md').read_text()==md_report(rows, len(study_runs(configs)), about_study(here/'configs.json'))
    assert (here/'study.png').exists() and not any('/' in json.dumps(r) for r in rows)
