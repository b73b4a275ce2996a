"The server that shows the page: what it serves and what not, to whom, and what becomes of its visitors' processes"
import asyncio, json, os, re, shutil, signal, subprocess, sys, time, uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
import pytest
from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.websocket import WebSocketClosedError, websocket_connect
from gender_classifier.app import app_notebook
from gender_classifier.inference import ModelError, default_model, synth_model
from serving import ask, ended, get, kernels, kill, page_config, serving, until

@pytest.fixture(scope='module')
def model(tmp_path_factory):
    "The model that comes with the project, or one that knows nothing"
    try: return default_model()
    except ModelError: return synth_model(tmp_path_factory.mktemp('model'))

@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    "A copy of the app's folder, with things beside the notebook that are nobody's business"
    path = tmp_path_factory.mktemp('app')
    shutil.copy(app_notebook(), path)
    (path/'review').mkdir()
    for o in ('me.jpg', 'me.png', 'secret.txt', 'key.pem', 'model.onnx', '.env', 'review/face.jpg', 'index.html'): (path/o).write_bytes(b'private')
    return path

@pytest.fixture(scope='module')
def foreign(tmp_path_factory):
    "A place where another environment has registered its kernel as python3, and an extension of its own"
    path = tmp_path_factory.mktemp('foreign')
    (path/'kernels/python3').mkdir(parents=True)
    (path/'kernels/python3/kernel.json').write_text(json.dumps(dict(argv=['false', '{connection_file}'], display_name='Python 3', language='python')))
    (path/'labextensions/theirs/static').mkdir(parents=True)
    (path/'labextensions/theirs/package.json').write_text(json.dumps(dict(name='theirs', version='1.0.0', jupyterlab=dict(_build=dict(load='static/theirs.js', extension='./extension')))))
    (path/'labextensions/theirs/static/theirs.js').write_text('private')
    return path

@pytest.fixture(scope='module')
def server(folder, foreign, model, tmp_path_factory):
    log = tmp_path_factory.mktemp('log')/'server.txt'
    pre = f'from pathlib import Path; a.app_notebook = lambda: Path({str(folder/"gender_classifier.ipynb")!r})'
    with serving(log, model, pre=pre, env={'JUPYTER_PATH': str(foreign)}, max_upload_mb=2) as (url, p): yield url, p, log

# ---- what is served, and what is not

NOTHING = """
    me.jpg me.png secret.txt index.html gender_classifier.ipynb index.html.j2 voila/files/me.jpg voila/files/me.png voila/files/secret.txt voila/files/key.pem
    voila/files/model.onnx voila/files/.env voila/files/review/face.jpg voila/files/gender_classifier.ipynb voila/files/index.html voila/files/
    files/me.jpg files/secret.txt notebooks/gender_classifier.ipynb edit/secret.txt lab tree login logout metrics terminals/1
    voila/ voila/tree voila/render/gender_classifier.ipynb voila/api/contents/ voila/api/themes/@jupyterlab/theme-light-extension/index.css
    api api/ api/contents api/contents/ api/contents/secret.txt api/kernels api/sessions api/kernelspecs api/terminals api/status api/me api/config/notebook
    voila/static voila/static/ voila/static/.. voila/static/../ voila/static/style/style.min.css voila/static/index.html.j2
    voila/templates voila/templates/ voila/templates/lab/ voila/templates/lab/index.html.j2 voila/templates/lab/static/ voila/templates/lab/static/voila.js
    voila/templates/lab/static/../index.html.j2 voila/templates/base/static/..%2f404.html nbextensions/ static/
    voila/static/voila.js voila/static/theme-light.css voila/labextensions/anywidget/package.json
    voila/labextensions/ voila/labextensions/theirs/static/theirs.js voila/labextensions/theirs/package.json
    voila/labextensions/@jupyter-widgets/jupyterlab-manager/package.json voila/labextensions/@jupyter-widgets/jupyterlab-manager/static/
    voila/labextensions/@jupyter-widgets/jupyterlab-manager/static/../package.json voila/labextensions/@jupyter-widgets/jupyterlab-manager/static/..%2fpackage.json
    voila/files/../../../../etc/passwd voila/files/..%2f..%2f..%2f..%2fetc%2fpasswd voila/static/..%2f..%2f..%2f..%2f..%2f..%2f..%2f..%2fetc%2fpasswd
    voila/static//etc/passwd voila/static/%2fetc%2fpasswd voila/labextensions/..%2f..%2f..%2f..%2f..%2fetc%2fpasswd //etc/passwd ..%2f..%2fetc%2fpasswd
    voila/query/00000000-0000-0000-0000-000000000000 voila/execution/00000000-0000-0000-0000-000000000000
    api/kernels/00000000-0000-0000-0000-000000000000 api/kernels/00000000-0000-0000-0000-000000000000/interrupt""".split()

def test_nothing_else_is_served(server):
    before = len(kernels(server[1]))
    for path in NOTHING:
        status,body = get(server[0]+path)
        assert status in (403, 404), (path, status)
        assert not re.search(rb'private|root:|nbformat|extends|"jupyterlab"', body), path
    assert len(kernels(server[1])) == before # nor does asking for it start anything

def test_the_page_is_one_file(server):
    body = get(server[0])[1].decode()
    assert not re.search(r'(src|href)=["\'](?!data:)', body) and set(page_config(server[0])) == {'baseUrl', 'kernelId'} and len(body) < 40_000

def test_only_reading(server):
    for method in ('POST', 'PUT', 'DELETE', 'PATCH'):
        for path in ('', 'health', 'voila/files/me.jpg', 'api/kernels', 'api/contents/x.txt'):
            assert ask(server[0]+path, b'{}', method=method)[0] in (403, 404, 405), (method, path)

def test_the_template_cannot_be_changed(server):
    for q in ('?template=classic', '?template=../..', '?voila-template=reveal'):
        status,body = get(server[0]+q)
        assert status == 200 and b'Getting ready' in body and b'reveal' not in body

def test_health_starts_nothing(server):
    before = len(kernels(server[1]))
    assert get(server[0]+'health') == (200, b'ok') and len(kernels(server[1])) == before

def test_headers(server):
    _,headers,body = ask(server[0])
    csp = dict(o.split(' ', 1) for o in headers['Content-Security-Policy'].split('; '))
    assert csp['default-src'] == csp['connect-src'] == csp['frame-ancestors'] == csp['base-uri'] == "'self'" and csp['object-src'] == "'none'"
    assert not re.search(r'https?:|wss?:|\*', headers['Content-Security-Policy']) # nothing from, or to, another machine
    assert headers['Permissions-Policy'].startswith('camera=(self)') and headers['Referrer-Policy'] == 'same-origin'
    assert headers['X-Content-Type-Options'] == 'nosniff' and 'no-store' in headers['Cache-Control'] and 'Set-Cookie' not in headers # nor is anybody known again

def test_the_page_names_no_other_machine(server):
    page = get(server[0])[1].decode()
    assert not re.search(r'''["'](https?:)?//\w''', page) and 'lang="en"' in page and 'width=device-width' in page

# ---- the visitors' processes, and who may talk to them

async def _connect(url, kernel, origin):
    "A socket to the process `kernel`, from a page at `origin`"
    req = HTTPRequest(f'{url.replace("http", "ws", 1)}api/kernels/{kernel}/channels', headers={'Origin': origin} if origin else {})
    return await websocket_connect(req, max_message_size=2**26)

def refused(url, kernel, origin):
    "The status with which a socket is refused"
    try: sock = asyncio.run(_connect(url, kernel, origin))
    except HTTPClientError as e: return e.code
    return sock and 101

def test_a_socket_needs_the_same_origin(server):
    url,kernel = server[0],page_config(server[0])['kernelId']
    own = url.rstrip('/')
    for o in ('http://evil.example', 'https://evil.example', 'null', own.replace('http', 'https')+'1', own.replace('127.0.0.1', 'localhost')): assert refused(url, kernel, o) == 403, o
    assert refused(url, kernel, own) == 101
    assert refused(url, str(uuid.uuid4()), own) == 404

def test_another_website_ends_nobodys_process(server):
    "Its browser says where the request comes from; and it would have to know the id"
    url,kernel = server[0],page_config(server[0])['kernelId']
    for path,method in ((f'voila/api/shutdown/{kernel}', 'POST'), (f'api/kernels/{kernel}', 'DELETE')):
        for o in ('http://evil.example', 'null'): assert ask(url+path, b'', {'Origin': o}, method)[0] in (403, 404)
    assert get(f'{url}api/kernels/{kernel}')[0] == 200
    assert ask(f'{url}voila/api/shutdown/{kernel}', b'', {'Origin': url.rstrip('/')})[0] == 204
    assert get(f'{url}api/kernels/{kernel}')[0] == 404

def _msg(kind, content, channel='shell', **kwargs):
    "A message of Jupyter's protocol"
    header = dict(msg_id=uuid.uuid4().hex, msg_type=kind, username='', session=uuid.uuid4().hex, version='5.3', date='2026-01-01T00:00:00Z')
    return json.dumps(dict(channel=channel, header=header, parent_header={}, metadata={}, content=content, **kwargs))

async def _answers(url, kernel, *msgs, seconds=60):
    "The kinds of messages that come back to `msgs`, until a question after them is answered"
    sock,kinds = await _connect(url, kernel, url.rstrip('/')),[]
    try:
        for o in (*msgs, _msg('kernel_info_request', {})): await sock.write_message(o)
    except WebSocketClosedError: return kinds
    while 'kernel_info_reply' not in kinds:
        m = await asyncio.wait_for(sock.read_message(), seconds)
        if m is None: break
        if isinstance(m, str): kinds.append(json.loads(m)['msg_type'])
    sock.close()
    return kinds

def test_a_visitor_cannot_run_code(server, tmp_path):
    kernel = page_config(server[0])['kernelId']
    code = f'open({str(tmp_path/"was_here")!r}, "w")'
    run = dict(code=code, silent=False, store_history=False, user_expressions={'x': code}, allow_stdin=False, stop_on_error=False)
    for channel in ('shell', 'control'):
        kinds = asyncio.run(_answers(server[0], kernel, _msg('execute_request', run, channel), _msg('inspect_request', dict(code='open', cursor_pos=4, detail_level=0), channel)))
        assert 'kernel_info_reply' in kinds and not {'execute_reply', 'execute_result', 'inspect_reply'} & set(kinds)
    assert not (tmp_path/'was_here').exists()

def test_how_much_a_visitor_may_send(server):
    "2 MB are accepted here, and what belongs to them; a socket that sends much more is closed"
    kernel = page_config(server[0])['kernelId']
    def send(mb): return asyncio.run(_answers(server[0], kernel, _msg('comm_msg', dict(comm_id='nobody', data=dict(x='x'*(mb*2**20))))))
    assert 'kernel_info_reply' in send(3)
    assert 'kernel_info_reply' not in send(6)

def test_a_visitor_costs_little(server):
    "Own Python, one thread of OpenMP, nothing of training in memory, nobody's start-up files"
    kernel = page_config(server[0])['kernelId']
    k = max(kernels(server[1]), key=lambda o: o.create_time())
    env = k.environ()
    assert k.cmdline()[0] == sys.executable and env['OMP_NUM_THREADS'] == '1' and env['GENDER_CLASSIFIER_MAX_UPLOAD_MB'] == '2' and 'GENDER_CLASSIFIER_REVIEW' not in env
    assert env['IPYTHONDIR'].startswith(os.path.realpath(env.get('TMPDIR', '/tmp'))) or 'gender_classifier_' in env['IPYTHONDIR']
    if sys.platform == 'linux': assert not re.search(r'libtorch|sklearn|pandas|matplotlib', Path(f'/proc/{k.pid}/maps').read_text())
    rss = k.memory_info().rss/2**20
    print(f'{rss:.0f} MB a visitor')
    assert rss < 300
    ask(f'{server[0]}voila/api/shutdown/{kernel}', b'')
    until(lambda: ended(k))

QUICK = """
old = a.voila_config
def quick(*args, **kwargs):
    c = old(*args, **kwargs)
    c.MappingKernelManager.update(cull_idle_timeout=2, cull_interval=4)
    return c
a.voila_config = quick
"""

def test_processes_wait_and_end(model, tmp_path):
    "One that waits for its visitor stays, one whose visitor never came does not, and one who came has time to connect"
    with serving(tmp_path/'log.txt', model, pre=QUICK, preheat=1) as (url, p):
        first = until(lambda: kernels(p))[0]
        time.sleep(12) # much longer than idle processes are kept here
        assert first.is_running()
        kernel = page_config(url)['kernelId']
        assert get(f'{url}api/kernels/{kernel}')[0] == 200 # not ended in the moment it is handed over
        assert not ended(first) and first in kernels(p)
        until(lambda: any(o != first for o in kernels(p))) # the next one is on its way, perhaps after the first has ended
        until(lambda: get(f'{url}api/kernels/{kernel}')[0] == 404) # nobody connected
        until(lambda: len(kernels(p)) == 1 and first not in kernels(p))
        time.sleep(3)
        assert len(kernels(p)) == 1

def test_a_process_that_only_starts_can_be_ended():
    "When the server ends, the next visitor's process may be on its way: that is no error; one that nobody knows is"
    from tornado.web import HTTPError
    from gender_classifier.app import Visitors
    async def end(outcome):
        v, start = Visitors(), asyncio.get_running_loop().create_future()
        v._pending_kernels['next'] = start
        asyncio.get_running_loop().call_later(.05, outcome, start)
        await asyncio.wait_for(v.shutdown_kernel('next'), 5)
        assert start.done()
        with pytest.raises(HTTPError, match='does not exist'): await v.shutdown_kernel('nobody')
    for outcome in (lambda f: f.set_result(None), lambda f: f.set_exception(RuntimeError('it could not be started')), lambda f: f.cancel()): asyncio.run(end(outcome))

def test_preheated(model, tmp_path):
    "The page is there at once, more visitors than processes are served too, and `Ctrl-C` leaves nothing behind"
    with serving(tmp_path/'log.txt', model, preheat=2, max_upload_mb=7) as (url, p):
        until(lambda: len(kernels(p))==2)
        time.sleep(4)
        env = kernels(p)[0].environ()
        assert env['GENDER_CLASSIFIER_MAX_UPLOAD_MB'] == '7' and env['OMP_NUM_THREADS'] == '1'
        waiting = ' '.join(word for o in kernels(p) for word in o.cmdline())
        ids = {page_config(url)['kernelId']}
        assert all(o in waiting for o in ids) # the first visitor got one that was there
        for _ in range(3): ids.add(page_config(url)['kernelId'])
        assert len(ids) == 4
        ks = kernels(p)
        p.send_signal(signal.SIGINT)
        assert p.wait(30) == 0 and p.stdout.read().strip() == ''
        until(lambda: all(ended(o) for o in ks))
    assert 'Traceback' not in (tmp_path/'log.txt').read_text()

@pytest.mark.parametrize('preheat', [0, 1])
def test_no_more_visitors_than_there_are_places(preheat, model, tmp_path):
    "However many come at the same time; and whoever leaves makes room"
    with serving(tmp_path/'log.txt', model, preheat=preheat, max_visitors=2) as (url, p), ThreadPoolExecutor(6) as ex:
        until(lambda: len(kernels(p)) == preheat)
        if preheat: time.sleep(4)
        came = list(ex.map(ask, [url]*6))
        assert sorted(o[0] for o in came) == [200, 200, 503, 503, 503, 503]
        for status,headers,body in came:
            if status == 503: assert b'All places are taken' in body and headers['Retry-After'] == '5' and "frame-ancestors 'self'" in headers['Content-Security-Policy']
        until(lambda: len(kernels(p)) == 2+preheat)
        assert get(url)[0] == 503 and get(url+'health')[0] == 200
        one = next(re.search(rb'"kernelId": "([^"]+)"', o[2])[1].decode() for o in came if o[0] == 200)
        ask(f'{url}voila/api/shutdown/{one}', b'')
        assert until(lambda: get(url)[0] == 200) and get(url)[0] == 503

# ---- the server's own manners

def test_port_in_use_and_ctrl_c(server, tmp_path):
    port = int(server[0].rstrip('/').split(':')[-1])
    with serving(tmp_path/'log.txt', port=port) as (url, p):
        assert f'Port {port} is in use' in p.said and url != server[0] and get(url)[0] == 200
        ks,t = kernels(p),time.time()
        p.send_signal(signal.SIGINT)
        assert p.wait(30) == 0 and p.stdout.read().strip() == ''
        assert all(ended(o) for o in ks) and time.time()-t < 20

def test_review(model, tmp_path):
    "The folder is made, said, and named to the visitors' processes"
    with serving(tmp_path/'log.txt', model, review=str(tmp_path/'new/review')) as (url, p):
        assert (tmp_path/'new/review').is_dir() and str(tmp_path/'new/review') in p.said and 'Nothing else is kept' in p.said
        get(url)
        assert kernels(p)[0].environ()['GENDER_CLASSIFIER_REVIEW'] == str(tmp_path/'new/review')

def command(*args, **kwargs):
    "What the executable says to `args`, and its exit status"
    code = 'import sys; from gender_classifier.cli import main; sys.exit(main())'
    res = subprocess.run([sys.executable, '-c', code, *map(str, args)], capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL, **kwargs)
    return res.stdout+res.stderr,res.returncode

def test_wishes_that_cannot_be(tmp_path):
    (tmp_path/'file').touch()
    for args,why in ((['--review', tmp_path/'file'], 'it is a file'), (['--review', '/dev/null/x'], 'cannot be the review folder'), (['--embed-in', 'everyone'], 'no address of a website'),
                     (['--preheat', '-1'], 'less than 0'), (['--max-upload-mb', '0'], 'less than 1'), (['--max-visitors', '0'], 'less than 1'),
                     (['--port', '70000'], '70000 is no port'), (['--port', '-1'], '-1 is no port'), (['--ip', '192.0.2.1'], 'Nothing can be served')):
        said,rc = command('app', *args)
        assert why in said and rc == 2 and 'Traceback' not in said, said

def test_under_a_path(model, tmp_path):
    "As behind a proxy, and in the frame of a website that was named"
    with serving(tmp_path/'log.txt', model, base_url='/user/me/faces/', embed_in='https://example.org') as (url, p):
        assert url.endswith('/user/me/faces/')
        status,headers,body = ask(url)
        assert status == 200 and headers['Content-Security-Policy'].endswith("frame-ancestors 'self' https://example.org")
        cfg,root = page_config(url),url[:-len('/user/me/faces/')]
        assert cfg['baseUrl'] == '/user/me/faces/' and get(root+'/')[0] == 404
        assert get(f'{url}health') == get(root+'/health') == (200, b'ok') # as a container's own check asks for it
        assert get(f'{root}{cfg["baseUrl"]}api/kernels/{cfg["kernelId"]}')[0] == 200 and get(f'{root}/api/kernels/{cfg["kernelId"]}')[0] == 404

# ---- in a browser

@pytest.fixture
def tab(browser, server):
    "The page, drawn; all that it asks for and complains of is written down"
    page = browser.new_page()
    page.requests,page.errors = [],[]
    page.on('request', lambda o: page.requests.append(o.url))
    page.on('console', lambda o: page.errors.append(o.text) if o.type == 'error' else None)
    page.on('pageerror', lambda o: page.errors.append(str(o)))
    page.goto(server[0])
    page.wait_for_selector('.gc-page button', timeout=60_000)
    yield page
    page.close()

def test_no_request_leaves_the_machine(tab, server):
    "Nor is one tried that the browser then refuses"
    assert [o for o in tab.requests if not o.startswith((server[0], 'data:', 'blob:'))] == []
    assert tab.errors == []

def test_a_lost_process_is_said(tab, server):
    kernel = tab.evaluate('JSON.parse(document.querySelector("#jupyter-config-data").textContent).kernelId')
    assert tab.locator('.gc-lost').inner_text() == ''
    max(kernels(server[1]), key=lambda o: o.create_time()).kill()
    again = tab.get_by_role('button', name='Start again')
    again.wait_for(timeout=20_000)
    assert 'has ended' in tab.locator('.gc-lost').inner_text() and tab.locator('.gc-lost').get_attribute('role') == 'alert'
    again.click()
    tab.wait_for_selector('.gc-page button', timeout=60_000)
    assert tab.evaluate('JSON.parse(document.querySelector("#jupyter-config-data").textContent).kernelId') != kernel

def test_a_lost_connection_is_said(browser, server):
    "And taken back when it is there again, with nothing lost"
    page = browser.new_page()
    page.add_init_script("""window.sockets = []; window.Real = WebSocket
      window.WebSocket = class extends Real { constructor(...args) { super(...args); sockets.push(this) } }
      window.Broken = class { constructor() { this.readyState = 3; setTimeout(() => this.onclose(), 10) } }""")
    page.goto(server[0])
    page.wait_for_selector('.gc-page button')
    page.evaluate('() => { window.Ours = WebSocket; window.WebSocket = Broken; Broken.OPEN = 1; sockets[0].close() }')
    page.locator('.gc-lost', has_text='connection is lost').wait_for(timeout=20_000)
    page.get_by_role('button', name='I understand').click() # kept until it can be sent
    page.evaluate('() => { window.WebSocket = Ours }')
    page.wait_for_function('() => document.querySelector(".gc-lost").innerText==""', timeout=10_000)
    page.wait_for_function('() => document.querySelectorAll(".gc-page details.gc-notice").length==1', timeout=10_000)
    page.close()

def test_who_leaves_is_forgotten(tab, server):
    k = max(kernels(server[1]), key=lambda o: o.create_time())
    tab.goto('about:blank')
    until(lambda: ended(k))

def test_a_page_that_fails(browser, tmp_path):
    "A visitor is told no more than that; whoever runs the page finds the reason in the log"
    nb = json.loads(app_notebook().read_text())
    nb['cells'][0]['source'] = 'print("secret_word")\nraise RuntimeError("secret_word")'
    (tmp_path/'gender_classifier.ipynb').write_text(json.dumps(nb))
    pre = f'from pathlib import Path; a.app_notebook = lambda: Path({str(tmp_path/"gender_classifier.ipynb")!r})'
    with serving(tmp_path/'log.txt', pre=pre) as (url, _):
        page = browser.new_page()
        page.goto(url)
        page.locator('.gc-fail').wait_for(timeout=30_000)
        assert 'could not be started' in page.inner_text('body') and not re.search('secret_word|Traceback|Voil', page.content())
        page.close()
    assert 'secret_word' in (tmp_path/'log.txt').read_text()

def test_ready_soon(browser, server):
    "Time from asking for the page to its first button; generous, as other tests may run beside it"
    t,page = time.time(),browser.new_page()
    page.goto(server[0])
    page.wait_for_selector('.gc-page button')
    print(f'ready in {time.time()-t:.1f} s')
    assert time.time()-t < 15
    page.close()
