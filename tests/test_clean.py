"Cleaning a data set: whatever is done to it can be undone, and nothing is lost when it is cut off"
import errno, json, os, pickle, shutil, signal, subprocess, sys, time, traceback, warnings
from collections import Counter
from pathlib import Path
import pytest

pd = pytest.importorskip('pandas')
pytest.importorskip('filelock')
from gender_classifier import clean
from gender_classifier.clean import Journal, JournalError, read_review, with_edits
from gender_classifier.core import STATE

FILES = [f'{d}/{n}.jpg' for d in ('male', 'female') for n in 'abc'] + ['neither/a.jpg', 'train/male/a.jpg']

def make(root, files=FILES):
    "A data set whose files have contents and times of their own"
    for i, o in enumerate(files):
        fn = root/o
        fn.parent.mkdir(parents=True, exist_ok=True)
        fn.write_bytes(o.encode('utf-8', 'surrogateescape')*(i+1))
        os.utime(fn, ns=(10**18+i, 10**18+i*1000+1))
    return root

def inside(path):
    "Files below a folder"
    return [Path(d)/o for d, _, fs in os.walk(path) for o in fs]

def shot(root):
    "Names, contents, times and modes of the pictures"
    fns = [o for o in inside(root) if STATE not in o.relative_to(root).parts]
    return {o.relative_to(root).as_posix(): (o.read_bytes(), o.stat().st_mtime_ns, o.stat().st_mode) for o in fns}

def everything(root, state=None):
    "How often each content is there, in its place or in the trash; what is half done counts too"
    trash = (Path(state) if state else root/STATE)/'trash'
    return Counter([v[0] for v in shot(root).values()]+[o.read_bytes() for o in inside(trash)])

def table(root):
    "What `ingest` would say of it"
    fns = sorted(shot(root))
    lbls = [next(p for p in o.split('/') if p in ('male', 'female', 'neither')) for o in fns]
    return pd.DataFrame(dict(fn=[str(root/o) for o in fns], labels=['' if o == 'neither' else o for o in lbls]))

def left(root, state=None):
    "What lies in the folder of the journal, without the journal"
    return sorted(o.name for o in (Path(state) if state else root/STATE).iterdir() if not o.name.startswith('journal.'))

def quiet(f, *args, **kwargs):
    "Call without the warning that something was cut off"
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        return f(*args, **kwargs)

def in_child(f, *args):
    "Call in a forked process: its result, or -9 if it was killed"
    r, w = os.pipe()
    pid = os.fork()
    if not pid:
        try: res = True, f(*args)
        except BaseException: res = False, traceback.format_exc()
        with open(w, 'wb') as o: pickle.dump(res, o)
        os._exit(0)
    os.close(w)
    with open(r, 'rb') as i: raw = i.read()
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status): return -os.WTERMSIG(status)
    ok, res = pickle.loads(raw)
    assert ok, res
    return res

@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    "What a killed process has written is there without waiting for the disk"
    monkeypatch.setattr(os, 'fsync', lambda fd: None)

@pytest.fixture
def few_at_a_time(monkeypatch):
    "Three changes for each wait for the disk, so that there are several such groups"
    monkeypatch.setattr(clean, '_chunks', lambda xs: (xs[i:i+3] for i in range(0, len(xs), 3)))

@pytest.fixture
def data(tmp_path): return make(tmp_path/'faces')

@pytest.fixture(params=['beside', 'other disk'])
def state(request, tmp_path):
    "No `state`, or one on another disk"
    if request.param == 'beside': yield None; return
    import tempfile
    shm = Path('/dev/shm')
    if not os.access(shm, os.W_OK) or shm.stat().st_dev == tmp_path.stat().st_dev: pytest.skip('there is no other disk here')
    path = Path(tempfile.mkdtemp(dir=shm))
    yield path
    shutil.rmtree(path)

# any sequence of changes

hypothesis = pytest.importorskip('hypothesis')
from hypothesis import HealthCheck, example, given, settings, strategies as st

pick, lbl = st.integers(0, 20), st.sampled_from(['male', 'female', '', 'neither'])
step = st.one_of(st.tuples(st.just('relabel'), pick, lbl), st.tuples(st.just('remove'), pick), st.tuples(st.just('keep'), pick), st.tuples(st.just('clear'), pick),
    st.tuples(st.just('apply'), st.booleans()), st.tuples(st.just('apply'), st.booleans()), st.tuples(st.just('undo'), st.integers(1, 2)),
    st.tuples(st.just('undo_batch'), pick), st.tuples(st.just('undo_fn'), pick), st.tuples(st.just('open')))

class Model:
    "What should be the case, by content: the label is that of the last change not undone"
    def __init__(self, root):
        self.root, self.was, self.pending, self.ops = root, {v[0]: row for v, row in zip((shot(root)[o] for o in sorted(shot(root))), table(root).labels)}, {}, {}
        self.count = everything(root)

    def contents(self): return {str(self.root/k): v[0] for k, v in shot(self.root).items()}
    def labels(self):
        gone, res = set(), dict(self.was)
        for c, action, l in self.ops.values():
            if action == 'remove': gone.add(c)
            if action == 'relabel': res[c] = '' if l == 'neither' else l
        return {k: v for k, v in res.items() if k not in gone}

    def check(self, j, before):
        here = self.contents()
        assert everything(self.root) == self.count
        for df in (table(self.root), before):
            df = with_edits(df, self.root)
            assert {here[o]: l for o, l in zip(df.fn, df.labels)} == self.labels()
        assert {here[o]: (a, l) for o, a, l in j.pending()[['fn', 'action', 'label']].values if o in here} == {c: v for c, v in self.pending.items() if c in here.values()}

    def ids(self, j, states):
        df = j.history()
        return [k for k, s in zip(df.id, df.state) if s in states]

def act(j, m, name, *args):
    "One step, in the journal and in the model"
    here = m.contents()
    fns = sorted(here)
    if name in ('relabel', 'remove', 'keep', 'clear') and fns:
        fn = fns[args[0] % len(fns)]
        getattr(j, name)(fn, *args[1:])
        m.pending.pop(here[fn], None)
        if name != 'clear': m.pending[here[fn]] = (name, (args[1] or 'neither') if name == 'relabel' else '')
    if name == 'apply':
        res = j.apply(move_labels=args[0])
        assert not len(res.failed), res
        rows = j.history()
        for k, fn, action, l in rows[rows.batch == res.batch][['id', 'fn', 'action', 'label']].values: m.ops[k] = (here[fn], action, l)
        m.pending.clear()
    if name == 'undo': return j.undo(args[0])
    if name == 'undo_batch' and (bs := j.batches().query('undone<removed+relabelled+kept').index.tolist()): return j.undo(batch=bs[args[0] % len(bs)])
    if name == 'undo_fn' and (fs := sorted(set(j.history().query('not undone').fn))): return j.undo(fn=fs[args[0] % len(fs)])

@settings(max_examples=60, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@example([('relabel', 0, ''), ('apply', True), ('keep', 5), ('undo', 1), ('open',)])
@given(st.lists(step, max_size=25))
def test_any_sequence_comes_back(tmp_path_factory, few_at_a_time, steps):
    root = make(tmp_path_factory.mktemp('any')/'faces')
    before, df, m, j = shot(root), table(root), Model(root), Journal(root)
    for name, *args in steps:
        if name == 'open': j = Journal(root)
        else: act(j, m, name, *args)
        m.ops = {k: v for k, v in m.ops.items() if k in set(m.ids(j, ['applied']))}
        m.check(j, df)
    res = j.undo(n=None)
    j.clear()
    assert not len(res.failed), res
    assert shot(root) == before
    pd.testing.assert_frame_equal(with_edits(df, root), df)
    assert not (root/STATE).exists() or left(root) == []
    assert not j.labels and not j.removed and not j.kept and not len(j.pending())
    shutil.rmtree(root)

# killed anywhere

HOOKS = 'link', 'unlink', 'rename', 'replace', 'mkdir', 'rmdir', 'fsync', 'ftruncate', 'write', 'symlink', 'utime'

def killing(k, f, *args):
    "Call `f`, and kill this process before the k-th time it changes something on a disk, or in the middle of that where it can be in the middle"
    n = [0]
    def now():
        n[0] += 1
        return n[0] == k
    def kill(): os.kill(os.getpid(), signal.SIGKILL)
    def hook(name, old):
        def _inner(*a, **kw):
            if not now(): return old(*a, **kw)
            if name == 'write': old(a[0], a[1][:len(a[1])//2+1])
            kill()
        return _inner
    for o in HOOKS: setattr(os, o, hook(o, getattr(os, o)))
    old = shutil.copyfileobj
    def copy(i, o, n=0):
        if not now(): return old(i, o)
        o.write(i.read(3))
        o.flush()
        kill()
    shutil.copyfileobj = copy
    f(*args)
    return n[0]

def choose(root, state):
    "Some of everything"
    j = Journal(root, state)
    j.remove([root/'male/a.jpg', root/'train/male/a.jpg', root/'female/b.jpg'], why='blurred')
    j.relabel([root/'male/b.jpg', root/'female/c.jpg'], 'neither')
    j.relabel(root/'female/a.jpg', 'male')
    j.keep(root/'neither/a.jpg')

def apply(root, state, move): quiet(Journal, root, state).apply(move_labels=move)
def undo(root, state): quiet(Journal, root, state).undo(n=None)

def labelled(root, state):
    "Contents and labels, names aside"
    here = {str(root/k): v[0] for k, v in shot(root).items()}
    df = with_edits(table(root), root, state)
    return {here[o]: l for o, l in zip(df.fn, df.labels)}

def placed(root):
    "Contents, times and folders"
    return {(Path(k).parent.as_posix(), *v) for k, v in shot(root).items()}

def fresh(tmp_path, state, name):
    "A new data set, and a new state"
    root = make(tmp_path/name)
    return root, None if state is None else state/name

def whole(root, state, count):
    "Each content is there, in one place; a copy that was in the making is gone"
    assert everything(root, state) == count
    assert not [o for o in inside(root) if o.name.startswith('.part')]

def test_killed_while_applying(tmp_path, state):
    "At each step; beside the pictures, relabelled ones are moved too"
    move = state is None
    root, s = fresh(tmp_path, state, 'right')
    before, count = shot(root), everything(root)
    choose(root, s)
    n = in_child(killing, 0, apply, root, s, move)
    want, labels = placed(root), labelled(root, s)
    assert n > 20 and shot(root) != before
    for k in range(1, n+1):
        root, s = fresh(tmp_path, state, f'k{k}')
        choose(root, s)
        assert in_child(killing, k, apply, root, s, move) == -9, k
        assert set(everything(root, s)) >= set(count), k  # nothing is lost, even before it is opened again
        j = quiet(Journal, root, s)
        whole(root, s, count)
        assert j.history().state.isin(['applied']).all()
        j.apply(move_labels=move)
        assert (placed(root), labelled(root, s)) == (want, labels), k  # a name may lack its number, where the one that had it went before
        assert not len(j.undo(n=None).failed)
        assert shot(root) == before and left(root, s) == [], k
        shutil.rmtree(root)

def test_killed_while_undoing(tmp_path, state, few_at_a_time):
    move = state is None
    root, s = fresh(tmp_path, state, 'right')
    before, count = shot(root), everything(root)
    choose(root, s)
    apply(root, s, move)
    n = in_child(killing, 0, undo, root, s)
    assert n > 20 and shot(root) == before
    for k in range(1, n+1):
        root, s = fresh(tmp_path, state, f'k{k}')
        choose(root, s)
        apply(root, s, move)
        assert in_child(killing, k, undo, root, s) == -9, k
        assert set(everything(root, s)) >= set(count), k
        j = quiet(Journal, root, s)
        whole(root, s, count)
        assert not len(j.undo(n=None).failed)
        assert shot(root) == before and not j.labels, k
        assert [o for o in left(root, s) if o != 'trash'] == [] and not inside((s or root/STATE)/'trash'), k
        shutil.rmtree(root)

def test_killed_while_recovering(tmp_path, state, few_at_a_time):
    "Killed, and killed again while the next run puts things right"
    for k in (10, 20):
        for k2 in range(1, 60, 4):
            root, s = fresh(tmp_path, state, f'k{k}-{k2}')
            before, count = shot(root), everything(root)
            choose(root, s)
            assert in_child(killing, k, apply, root, s, True) == -9
            again = in_child(killing, k2, quiet, Journal, root, s)
            assert set(everything(root, s)) >= set(count), (k, k2)
            quiet(Journal, root, s).undo(n=None)
            whole(root, s, count)
            assert shot(root) == before, (k, k2)
            shutil.rmtree(root)
            if again != -9: break

def test_killed_while_choosing(tmp_path):
    root = make(tmp_path/'faces')
    def few():
        j = Journal(root)
        for o in ('male/a.jpg', 'male/b.jpg', 'male/c.jpg'): j.remove(root/o)
    n = in_child(killing, 0, few)
    for k in range(1, n+1):
        shutil.rmtree(root)
        make(root)
        assert in_child(killing, k, few) == -9
        assert Journal(root).pending().fn.tolist() == [str(root/f'male/{o}.jpg') for o in 'abc'][:len(Journal(root).pending())]
        few()
        assert len(Journal(root).pending()) == 3

def test_torn_journal(data):
    "Whatever of the last lines is lost, the files are found"
    before = shot(data)
    choose(data, None)
    fn = data/STATE/'journal.jsonl'
    j = Journal(data)
    j.apply()
    raw = fn.read_bytes()
    done = raw.index(b'{"op": "done"')
    for i in range(done, len(raw)+1):
        fn.write_bytes(raw[:i]+b'\0'*(i % 3))
        j = quiet(Journal, data)
        assert len(j.history().query('state=="applied"')) == 7 and len(inside(data/STATE/'trash')) == 3
    j.undo()
    assert shot(data) == before

def test_damaged_journal(data):
    "A line between good ones that cannot be read is not passed over"
    choose(data, None)
    fn = data/STATE/'journal.jsonl'
    lines = fn.read_text().splitlines(True)
    fn.write_text(''.join([*lines[:2], 'oops\n', *lines[2:]]))
    with pytest.raises(JournalError, match='line 3 of .*journal.jsonl cannot be read: mend that line, or delete it'): Journal(data)

def test_killed_from_outside(tmp_path):
    "A process of its own, killed while it works"
    root = make(tmp_path/'faces', [f'male/{i:03}.jpg' for i in range(400)])
    before = shot(root)
    Journal(root).remove(sorted(before))
    code = f'from gender_classifier.clean import Journal; j = Journal({str(root)!r}); print("go", flush=True); j.apply()'
    p = subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE)
    p.stdout.readline()
    while len(os.listdir(root/'male')) > 250 and p.poll() is None: pass
    p.kill()
    p.wait()
    j = quiet(Journal, root)
    assert everything(root) == Counter(v[0] for v in before.values())
    j.apply()
    assert not shot(root)
    j.undo(n=None)
    assert shot(root) == before

# what goes wrong

def failing(mp, name, when, no):
    "Let `os.name` fail with the error number `no` where `when` says so"
    old = getattr(os, name)
    def _inner(*a, **kw):
        if when(*a): raise OSError(no, os.strerror(no), str(a[0]))
        return old(*a, **kw)
    mp.setattr(os, name, _inner)

def test_disk_full_for_one_file(data, monkeypatch):
    before = shot(data)
    choose(data, None)
    j = Journal(data)
    with monkeypatch.context() as mp:
        for o in ('link', 'rename'): failing(mp, o, lambda a, b, *_: 'female/b.jpg' in str(a), errno.ENOSPC)
        res = j.apply()
    assert res.failed[['fn', 'error']].values.tolist() == [[str(data/'female/b.jpg'), 'the disk is full: make room, and try again']]
    assert len(res.removed) == 2 and len(res.relabelled) == 3
    assert '1 change could not be made' in str(res) and 'Traceback' not in str(res)
    assert j.pending().fn.tolist() == [str(data/'female/b.jpg')]
    assert j.apply().removed == [str(data/'female/b.jpg')]
    assert not len(j.undo(n=None).failed) and shot(data) == before

def test_disk_full_while_copying(tmp_path, monkeypatch):
    "To another disk: no half copy is left"
    data, s = make(tmp_path/'faces'), tmp_path/'state'
    before = shot(data)
    j = Journal(data, s)
    j.remove([data/'male/a.jpg', data/'male/b.jpg'])
    with monkeypatch.context() as mp:
        failing(mp, 'link', lambda a, b, *_: Path(a).parent != Path(b).parent, errno.EXDEV)
        def full(i, o, n=0): o.write(b'x'); raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        with mp.context() as mp2:
            mp2.setattr(shutil, 'copyfileobj', full)
            res = j.apply()
        assert set(res.failed.error) == {'the disk is full: make room, and try again'} and shot(data) == before and not inside(s/'trash')
        assert len(j.apply().removed) == 2 and len(inside(s/'trash')) == 2
        with mp.context() as mp2:
            mp2.setattr(shutil, 'copyfileobj', full)
            assert len(j.undo().failed) == 2
        assert len(j.undo().removed) == 2
    assert shot(data) == before

def test_disk_full_for_the_journal(data, monkeypatch):
    "What cannot be written down is not done, and half of it is not left"
    j = Journal(data)
    j.remove(data/'male/a.jpg')
    raw = (data/STATE/'journal.jsonl').read_bytes()
    old, n = os.write, [0]
    def full(fd, b):
        n[0] += 1
        if n[0] > 1: raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return old(fd, b[:5])
    with monkeypatch.context() as mp:
        mp.setattr(os, 'write', full)
        with pytest.raises(JournalError, match='No space left on device.*make room'): j.remove([data/'male/b.jpg', data/'male/c.jpg'])
        n[0] = 0
        with pytest.raises(JournalError, match='make room'): j.apply()
    assert (data/STATE/'journal.jsonl').read_bytes() == raw and len(shot(data)) == len(FILES)
    j.remove(data/'male/b.jpg')
    assert len(j.apply().removed) == 2

def test_disk_full_when_done(data, monkeypatch):
    "The files have moved, but that cannot be written down: the next run sees it"
    before = shot(data)
    j = Journal(data)
    j.remove([data/'male/a.jpg', data/'male/b.jpg'])
    with monkeypatch.context() as mp:
        old = os.write
        def full(fd, b):
            if b'"done"' in b: raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return old(fd, b)
        mp.setattr(os, 'write', full)
        with pytest.raises(JournalError, match='nothing is lost'): j.apply()
    assert len(inside(data/STATE/'trash')) == 2
    with pytest.warns(UserWarning, match='an earlier run was cut off: 2 changes that it had begun are finished now'): j = Journal(data)
    assert len(j.removed) == 2 and not len(j.pending())
    j.undo()
    assert shot(data) == before

@pytest.fixture
def small_disk(tmp_path):
    "A disk of 100 kB"
    path = tmp_path/'disk'
    path.mkdir()
    if not shutil.which('mount') or subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=100k', 'none', path], capture_output=True).returncode: pytest.skip('no disk can be made here')
    yield path
    subprocess.run(['umount', path], check=True)

def test_really_full_disk(tmp_path, small_disk):
    "Pictures go to the trash while there is room; the others stay, and so does what is known"
    data = make(tmp_path/'faces', [f'male/{i}.jpg' for i in range(20)])
    for o in inside(data): o.write_bytes(o.name.encode()*3000)
    before, count = shot(data), everything(data)
    j = Journal(data, small_disk)
    j.remove(sorted(str(o) for o in inside(data)))
    res = j.apply()
    assert len(res.removed) > 3 and len(res.failed) > 3 and set(res.failed.error) == {'the disk is full: make room, and try again'}
    assert everything(data, small_disk) == count and not [o for o in inside(small_disk) if o.name.startswith('.part')]
    (small_disk/'big').write_bytes(b'x'*max(0, shutil.disk_usage(small_disk).free))
    with pytest.raises(JournalError, match='No space left on device'):
        for _ in range(200): j.keep(data/'male/19.jpg', why='w'*200)
    (small_disk/'big').unlink()
    assert set(Journal(data, small_disk).removed) == set(res.removed)
    assert not len(j.undo(n=None).failed) and shot(data) == before

def test_name_is_taken(data):
    j = Journal(data)
    j.remove([data/'male/a.jpg', data/'male/b.jpg'])
    j.apply()
    (data/'male/a.jpg').write_text('another')
    res = j.undo()
    assert res.removed == [str(data/'male/b.jpg')] and 'there is another file at' in res.failed.error[0]
    assert (data/'male/a.jpg').read_text() == 'another'
    (data/'male/a.jpg').unlink()
    assert j.undo().removed == [str(data/'male/a.jpg')]

def test_vanished(data):
    j = Journal(data)
    j.relabel([data/'male/a.jpg', data/'male/b.jpg'], 'female')
    j.remove([data/'male/c.jpg', data/'female/a.jpg'])
    for o in ('male/a.jpg', 'male/c.jpg'): (data/o).unlink()
    res = j.apply()
    assert set(res.failed.error) == {'it is not there any more'} and len(res.done) == 2
    assert not len(j.pending()) and j.labels == {str(data/'male/b.jpg'): 'female'}

def test_trash_emptied_by_hand(data):
    "What is gone for good is said once, and does not stand in the way of what was done before"
    j = Journal(data)
    j.remove(data/'male/a.jpg')
    first = j.apply()
    j.remove(data/'male/b.jpg')
    shutil.rmtree(data/STATE/'trash'/j.apply().batch)
    assert j.undo().failed.error.tolist() == ['it is not in the trash any more']
    assert j.history().state.tolist() == ['applied', 'lost'] and j.removed == {str(data/'male/a.jpg'), str(data/'male/b.jpg')}
    assert j.undo().batch == first.batch

def test_no_second_names(data, monkeypatch):
    "A file system without hard links"
    before = shot(data)
    choose(data, None)
    with monkeypatch.context() as mp:
        failing(mp, 'link', lambda *a: True, errno.EPERM)
        assert not len(Journal(data).apply(move_labels=True).failed) and shot(data) != before
        assert not len(Journal(data).undo().failed)
    assert shot(data) == before and not (data/STATE/'journal.room').exists()

def test_read_only_and_odd_files(tmp_path, state):
    "Modes, links and names are kept"
    names = ['male/-rf.jpg', 'male/new\nline "quoted", comma.jpg', 'male/ünïcödé 照片.jpg', 'female/\udcff\udcfe.jpg', f'female/{"n"*250}.jpg', 'female/  .jpg', 'male/a.b.jpg', 'male/é.jpg']
    data = make(tmp_path/'faces', names)
    for o in names[:3]: (data/o).chmod(0o444)
    (data/'male/link.jpg').symlink_to('a.b.jpg')
    before = shot(data)
    s = None if state is None else state/'odd'
    j = Journal(data, s)
    fns = [data/o for o in [*names, 'male/link.jpg']]
    j.remove(fns)
    assert not len(j.apply().failed) and not shot(data)
    assert not len(j.undo().failed) and shot(data) == before and (data/'male/link.jpg').is_symlink()
    j.relabel(fns, 'neither')
    assert not len(j.apply().failed) and len(Journal(data, s).labels) == len(fns)
    j.undo()
    j.relabel(fns, 'neither')
    assert not len(j.apply(move_labels=True).failed) and {o.split('/')[0] for o in shot(data)} == {'neither'}
    assert not len(j.undo().failed) and shot(data) == before

def test_linked_root(data, tmp_path):
    "A data set reached by another way is the same"
    (tmp_path/'way').symlink_to(data)
    j = Journal(tmp_path/'way')
    j.relabel(data/'male/a.jpg', 'female')
    j.relabel(tmp_path/'way/male/b.jpg', 'female')
    j.apply()
    assert set(with_edits(table(data), data).set_index('fn').labels[[str(data/'male/a.jpg'), str(data/'male/b.jpg')]]) == {'female'}
    assert set(with_edits(table(data), tmp_path/'way').set_index('fn').labels[[str(data/'male/a.jpg'), str(data/'male/b.jpg')]]) == {'female'}

def test_relative_root(data, monkeypatch):
    monkeypatch.chdir(data.parent)
    j = Journal('faces')
    j.remove(['faces/male/a.jpg', 'male/b.jpg', data/'male/c.jpg'])
    assert j.pending().fn.tolist() == ['faces/male/a.jpg', 'faces/male/b.jpg', 'faces/male/c.jpg']
    monkeypatch.chdir(data)
    assert len(Journal('.').apply().removed) == 3

def test_bad_arguments(data):
    j = Journal(data)
    for f, match in ((lambda: j.relabel(data/'male/a.jpg', '../x'), 'a label is'), (lambda: j.relabel(data/'male/a.jpg', None), 'a label is'),
            (lambda: j.remove('../../etc/passwd'), 'is not in'), (lambda: j.remove(data/STATE/'journal.jsonl'), 'is not in'), (lambda: j.remove(data/'male'), 'is not there'),
            (lambda: j.undo(0), '1 or more'), (lambda: j.undo(fn=data/'male/a.jpg'), 'nothing was done'), (lambda: Journal(data/'male/a.jpg'), 'folder of the pictures')):
        with pytest.raises(JournalError, match=match): f()
    assert not (data/STATE).exists()  # nothing was chosen, so nothing is written

def test_state_of_another_data_set(data, tmp_path):
    Journal(data, tmp_path/'state').keep(data/'male/a.jpg')
    other = make(tmp_path/'other')
    with pytest.raises(JournalError, match='belongs to the data set .*faces'): Journal(other, tmp_path/'state')
    data.rename(tmp_path/'moved')
    assert len(Journal(tmp_path/'moved', tmp_path/'state').pending()) == 1

def test_later_version(data):
    (data/STATE).mkdir()
    (data/STATE/'journal.jsonl').write_text('{"op": "open", "v": 2, "id": 1}\n')
    with pytest.raises(JournalError, match='later version'): Journal(data)

# several at once

def test_busy(data):
    "Another process is at it: reading works, changing says so"
    r, w = os.pipe()
    pid = os.fork()
    if not pid:
        with Journal(data)._locked():
            os.write(w, b'x')
            time.sleep(30)
        os._exit(0)
    try:
        os.read(r, 1)
        j = Journal(data, timeout=.1)
        with pytest.raises(JournalError, match='another process is changing .* just now: wait until it has ended'): j.remove(data/'male/a.jpg')
        assert not len(j.pending())
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    j.remove(data/'male/a.jpg')  # the lock of a killed process is free
    assert len(j.pending()) == 1

def test_opened_while_another_applies(data):
    "What another process has begun is left to it"
    choose(data, None)
    (r, w), (go, on) = os.pipe(), os.pipe()
    pid = os.fork()
    if not pid:
        old = os.link
        def slow(*a, **kw):
            old(*a, **kw)
            os.link = old
            os.write(w, b'x')
            os.read(go, 1)
        os.link = slow
        Journal(data).apply()
        os._exit(0)
    os.read(r, 1)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        j = Journal(data)
        assert set(j.history().state) == {'unfinished'}
        os.write(on, b'x')
        assert os.waitpid(pid, 0)[1] == 0
        assert set(j.history().state) == {'applied'} and len(j.removed) == 3

def test_two_processes_at_once(tmp_path):
    "Choices of several processes, and applies in between, come out as if one after the other"
    names = [f'{o}/{i:02}.jpg' for o in ('male', 'female') for i in range(24)]
    root = make(tmp_path/'faces', names)
    before = shot(root)
    def work(me):
        j = Journal(root, timeout=60)
        for i, o in enumerate(names[me::4]):
            (j.remove if i % 2 else lambda fn: j.relabel(fn, 'neither'))(root/o)
            if i % 3 == 2: j.apply()
        j.apply()
    pids = []
    for me in range(4):
        pid = os.fork()
        if not pid:
            try: work(me)
            except BaseException: traceback.print_exc(); os._exit(1)
            os._exit(0)
        pids.append(pid)
    assert [os.waitpid(o, 0)[1] for o in pids] == [0]*4
    j = Journal(root)
    assert len(j.removed) == 24 and len(j.labels) == 24 and not len(j.pending())
    ids = [json.loads(o)['id'] for o in (root/STATE/'journal.jsonl').read_text().splitlines()[1:]]
    assert ids == list(range(1, len(ids)+1))
    assert not len(j.undo(n=None).failed) and shot(root) == before

def test_threads(data):
    from concurrent.futures import ThreadPoolExecutor
    j = Journal(data)
    with ThreadPoolExecutor(4) as ex: list(ex.map(lambda o: j.keep(data/o), FILES*3))
    assert len(j.pending()) == len(FILES) and len(Journal(data).pending()) == len(FILES)

# a data set that cannot be written to

def as_nobody(f):
    "Call as a user who owns nothing, where this is the one who may do everything"
    def _inner():
        if os.geteuid() == 0: os.setegid(65534); os.seteuid(65534)
        return f()
    return in_child(_inner)

def test_read_only_root(tmp_path):
    import tempfile
    top = Path(tempfile.mkdtemp())  # `tmp_path` is closed to others
    data, s = make(top/'faces'), top/'state'
    s.mkdir(mode=0o777)
    s.chmod(0o777)
    for o in (data, *data.rglob('*')): o.chmod(0o555 if o.is_dir() else 0o444)
    top.chmod(0o755)
    def work():
        try: Journal(data).remove(data/'male/a.jpg')
        except JournalError as e: said = str(e)
        j = Journal(data, s)
        j.remove(data/'male/a.jpg')
        j.relabel(data/'male/b.jpg', 'female')
        res = j.apply()
        return said, res.failed.values.tolist(), res.relabelled, with_edits(table(data), data, s).labels.tolist(), [str(o) for o in inside(s/'trash')]
    try: said, failed, relabelled, labels, trash = as_nobody(work)
    finally:
        for o in (data, *data.rglob('*')): o.chmod(0o755)
        shutil.rmtree(top)
    assert 'cannot be written to (Permission denied)' in said and '--state FOLDER' in said
    assert [o[:2] for o in failed] == [[str(data/'male/a.jpg'), 'remove']] and 'may its folder be written to?' in failed[0][2]
    assert relabelled == [str(data/'male/b.jpg')] and Counter(labels)['female'] == 4 and not trash

# the review folder

def test_review_folder_is_not_trusted(tmp_path):
    (tmp_path/'secret.png').touch()
    path = tmp_path/'review'
    make(path, ['female/a.png'])
    lines = [dict(file='../secret.png', label='male'), dict(file='/etc/passwd', label='male'), dict(file='female/gone.png', label='male'), dict(file='female/a.png', label='cat'), 7, dict(file=7, label='male'),
             dict(file='female/a.png', label='female', said='male', probs=dict(male=.8, female='high'))]
    (path/'review.jsonl').write_text(''.join(json.dumps(o)+'\n' for o in lines)+'\0\0')
    with pytest.warns(UserWarning, match='7 lines of .* are left out'): df = read_review(path)
    assert df[['labels', 'said', 'p_male', 'source']].values.tolist() == [['female', 'male', .8, 'review']]

def test_what_is_not_ours_stays(data, tmp_path):
    "A labels.csv that somebody else wrote into the state folder, and pictures behind a link out of the data set"
    state,away = tmp_path/'state',tmp_path/'away'
    state.mkdir()
    (state/'labels.csv').write_text('mine')
    fn = next(o for o in sorted(data.rglob('*')) if o.is_file())
    j = Journal(data, state)
    j.relabel(fn, 'neither')
    j.apply()
    assert (state/'labels.csv').read_text() == 'mine' and Journal(data, state).labels
    away.mkdir()
    shutil.copy(fn, away/'one.jpg')
    (data/'other').symlink_to(away, target_is_directory=True)
    j.remove(data/'other/one.jpg')
    res = j.apply()
    assert (away/'one.jpg').is_file() and 'is a link to' in res.failed.error.iloc[0] and not len(res.done)
