"What the tests of the page and of its server share: a server in a process of its own, and what is asked of it"
import json, os, re, signal, subprocess, sys, threading, time, urllib.error, urllib.request
from contextlib import contextmanager
from pathlib import Path

def kill(p):
    "End a server, quietly or not"
    if p.poll() is None: p.send_signal(signal.SIGINT)
    try: p.wait(20)
    except subprocess.TimeoutExpired: p.kill()

@contextmanager
def serving(log, model=None, python=sys.executable, pre='', env=None, **kwargs):
    "A server that stops with the block; gives the page's address, and the process, whose `said` is what it printed"
    code = f'import gender_classifier.app as a\n{pre}\na.serve(**{dict(port=0, model=str(model) if model else None) | kwargs!r})'
    with open(log, 'w') as err:
        p = subprocess.Popen([str(python), '-c', code], stdout=subprocess.PIPE, stderr=err, text=True, env=os.environ | (env or {}))
        try:
            p.said,timer = '',threading.Timer(120, p.kill) # one that hangs is ended: then there is nothing more to read
            timer.start()
            while 'The page is at http' not in p.said:
                line = p.stdout.readline()
                assert line, p.said + Path(log).read_text()
                p.said += line
            timer.cancel()
            yield re.search(r'The page is at (http\S+)', p.said)[1], p
        finally:
            timer.cancel()
            kill(p)

def ask(url, data=None, headers=None, method=None):
    "Status, headers and body"
    req = urllib.request.Request(url, data, headers or {}, method=method)
    try:
        with urllib.request.urlopen(req, timeout=60) as r: return r.status,r.headers,r.read()
    except urllib.error.HTTPError as e: return e.code,e.headers,e.read()

def get(url):
    "Status and body"
    status,_,body = ask(url)
    return status,body

def page_config(url):
    "What a visitor's browser is told, its process's id among it"
    return json.loads(re.search(r'<script id="jupyter-config-data"[^>]*>(.*?)</script>', get(url)[1].decode(), re.S)[1])

def kernels(p):
    "The visitors' processes of server `p`"
    import psutil
    def is_kernel(o):
        try: return 'ipykernel_launcher' in ' '.join(o.cmdline())
        except psutil.NoSuchProcess: return False # it has just ended
    return [o for o in psutil.Process(p.pid).children(recursive=True) if is_kernel(o)]

def ended(o):
    "Is process `o` of `kernels` over? (it may end between two looks)"
    import psutil
    try: return not o.is_running() or o.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess: return True

def until(cond, seconds=60):
    "Wait until `cond()` is true; what it gave"
    end = time.monotonic()+seconds
    while not (res := cond()) and time.monotonic()<end: time.sleep(.1)
    assert res, f'not so within {seconds} s'
    return res

TOKEN = 'test'
SETTINGS = {'apputils-extension/notification':dict(fetchNews='false', checkForUpdates=False), 'notebook-extension/tracker':dict(windowingMode='none'),
            'docmanager-extension/plugin':dict(autosave=False)}

@contextmanager
def jupyterlab(path, project):
    "JupyterLab with its home and its files in `path`; gives its address"
    for k,v in SETTINGS.items():
        fn = path/f'.settings/@jupyterlab/{k}.jupyterlab-settings'
        fn.parent.mkdir(parents=True, exist_ok=True)
        fn.write_text(json.dumps(v))
    env = {f'JUPYTER{k}':str(path/v) for k,v in dict(LAB_SETTINGS_DIR='.settings', LAB_WORKSPACES_DIR='.workspaces', _CONFIG_DIR='.config', _RUNTIME_DIR='.runtime', _DATA_DIR='.data').items()}
    env |= dict(IPYTHONDIR=str(path/'.ipython'), PYTHONPATH=os.pathsep.join([str(project), *filter(None, [os.environ.get('PYTHONPATH')])]))
    args = ['--no-browser', '--ip=127.0.0.1', '--port=0', '--allow-root', f'--ServerApp.root_dir={path}', f'--IdentityProvider.token={TOKEN}']
    log = path/'.lab.log'
    with open(log, 'w') as f: p = subprocess.Popen([sys.executable, '-m', 'jupyterlab', *args], stdout=f, stderr=f, env=os.environ | env, cwd=path)
    try:
        until(lambda: p.poll() is not None or re.search(r'http://127\.0\.0\.1:\d+', log.read_text()), 120)
        assert p.poll() is None, log.read_text()
        yield re.search(r'http://127\.0\.0\.1:\d+', log.read_text())[0]
    finally: kill(p)

def start_kernel(url, name):
    "Start a notebook's kernel before its page is opened: a page quicker than the kernel starts two, and cells sent to the one that is stopped are lost"
    def call(at, data=None):
        status,_,body = ask(f'{url}/api/{at}', data and json.dumps(data).encode(), {'Authorization':f'token {TOKEN}', 'Content-Type':'application/json'})
        assert status<300, body
        return json.loads(body)
    no = call('sessions', dict(path=name, name=name, type='notebook', kernel=dict(name='python3')))['kernel']['id']
    until(lambda: call(f'kernels/{no}')['execution_state'] in ('idle','starting'), 60)

def run_in_lab(browser, url, name):
    "The notebook `name`, opened in JupyterLab, and all its cells sent to run"
    start_kernel(url, name)
    page = browser.new_page(viewport=dict(width=1280, height=1000))
    page.goto(f'{url}/lab/tree/{name}?token={TOKEN}')
    page.locator('.jp-Notebook .jp-Cell').first.wait_for(timeout=120_000)
    page.locator('.jp-NotebookPanel-toolbar .jp-Notebook-ExecutionIndicator[data-status=idle]').wait_for(timeout=120_000)
    page.locator('.jp-NotebookPanel-toolbar .jp-KernelName, .jp-NotebookPanel-toolbar .jp-Toolbar-kernelName').filter(has_text='Python 3').first.wait_for(timeout=60_000)
    dialog = page.locator('.jp-Dialog .jp-mod-accept') # such as the question for a kernel, where one is slow to come
    def started():
        if dialog.count(): dialog.first.click()
        page.get_by_role('menuitem', name='Run', exact=True).click()
        page.get_by_role('menuitem', name='Run All Cells', exact=True).click()
        page.wait_for_timeout(3000)
        return not dialog.count() and re.search(r'[*\d]', page.locator('.jp-Notebook .jp-CodeCell .jp-InputPrompt').first.inner_text())
    until(started, 60) # what is asked of a process that has only just started can be lost
    return page
