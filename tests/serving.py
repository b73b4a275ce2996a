"What the tests of the page and of its server share: a server in a process of its own, and what is asked of it"
import json, os, re, signal, subprocess, sys, time, urllib.error, urllib.request
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
            p.said = ''
            while 'The page is at http' not in p.said:
                line = p.stdout.readline()
                assert line, p.said + Path(log).read_text()
                p.said += line
            yield re.search(r'The page is at (http\S+)', p.said)[1], p
        finally: kill(p)

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
    return [o for o in psutil.Process(p.pid).children(recursive=True) if 'ipykernel_launcher' in ' '.join(o.cmdline())]

def until(cond, seconds=30):
    "Wait until `cond()` is true; what it gave"
    end = time.monotonic()+seconds
    while not (res := cond()) and time.monotonic()<end: time.sleep(.1)
    assert res, f'not so within {seconds} s'
    return res
