"""The recipes that start the page elsewhere: a container, Binder, a Hugging Face Space. None of them can be run here;
what they say is read, and their commands are run"""
import json, os, re, shlex, shutil, subprocess, sys, time
import pytest
from serving import get, kernels, until

@pytest.fixture
def dockerfile(project):
    "Instructions of the Dockerfile: (name, arguments)"
    text = re.sub(r'^#.*\n', '', (project/'Dockerfile').read_text(), flags=re.M).replace('\\\n', '')
    return [tuple(o.split(None, 1)) for o in text.splitlines() if o.strip()]

def env_of(dockerfile):
    "The variables it sets"
    return dict(o.split('=', 1) for name,args in dockerfile if name == 'ENV' for o in shlex.split(args))

@pytest.fixture
def path(tmp_path):
    "A PATH with the executable `gender_classifier` and this Python"
    exe = tmp_path/'bin/gender_classifier'
    exe.parent.mkdir()
    exe.write_text(f'#!/bin/sh\nexec {sys.executable} -c "import sys; from gender_classifier.cli import main; sys.exit(main())" "$@"\n')
    exe.chmod(0o755)
    (exe.parent/'python').symlink_to(sys.executable)
    return f'{exe.parent}:{os.environ["PATH"]}'

def free_port():
    import socket
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]

def started(args, env, url):
    "Start `args`; the process once `url` answers"
    p = subprocess.Popen(args, env=os.environ | env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    def there():
        assert p.poll() is None, p.stdout.read()
        try: return get(url)[0] == 200
        except OSError: return False
    until(there, 60)
    return p

def ended(p):
    "End it as a container is ended; what it said"
    p.terminate()
    said = p.communicate(timeout=30)[0]
    assert p.returncode == 0 and 'Traceback' not in said, said
    return said

def test_dockerfile_is_whole(dockerfile, project):
    names = [o for o,_ in dockerfile]
    assert names[0] == 'FROM' and {o for o in names} <= {'FROM','WORKDIR','COPY','RUN','ENV','EXPOSE','USER','HEALTHCHECK','CMD'}
    last = len(names)-names[::-1].index('FROM')
    assert 'USER' in names[last:] and dict(dockerfile)['USER'] not in ('root', '0') # nothing runs as root
    assert not re.search(r'latest|ADD |sudo|chmod 777', (project/'Dockerfile').read_text())

def test_what_the_container_is_built_from(project, dockerfile):
    "All that is named to pip and setup.py is let in, the model with it, and nothing else: no data, no keys"
    let_in = [o[1:] for o in (project/'.dockerignore').read_text().splitlines() if o.startswith('!')]
    assert (project/'.dockerignore').read_text().splitlines()[1] == '*' and all((project/o).exists() for o in let_in)
    assert set(let_in) == {'gender_classifier', 'app', 'models', 'setup.py', 'settings.ini', 'constraints.txt', 'pyproject.toml', 'README.md', 'LICENSE', 'MANIFEST.in'}

@pytest.mark.skipif(os.name == 'nt', reason='a shell of Unix is needed')
def test_the_containers_commands(dockerfile, path):
    "The page comes up at $PORT for all addresses, the health check sees it, and it ends when it is told to"
    d,port = dict(dockerfile),free_port()
    env = env_of(dockerfile) | dict(PATH=path, PORT=str(port), APP_OPTIONS='--preheat 1 --max-upload-mb 5')
    env.pop('GENDER_CLASSIFIER_CACHE')
    check = json.loads(d['HEALTHCHECK'].split('CMD ')[1])
    assert subprocess.run(check, env=os.environ | env, capture_output=True).returncode != 0 # nothing there yet
    p = started(json.loads(d['CMD']), env, f'http://127.0.0.1:{port}/health')
    assert subprocess.run(check, env=os.environ | env).returncode == 0
    until(lambda: len(kernels(p)) == 1)
    assert kernels(p)[0].environ()['GENDER_CLASSIFIER_MAX_UPLOAD_MB'] == '5'
    status,page = get(f'http://127.0.0.1:{port}/')
    assert status == 200 and b'jupyter-config-data' in page
    assert f':{port}/' in ended(p)

def test_binder(project, path):
    "What Jupyter's proxy is to start, with what it puts in for port and path"
    assert subprocess.run(['bash', '-n', project/'binder/postBuild']).returncode == 0 and os.access(project/'binder/postBuild', os.X_OK)
    assert re.fullmatch(r'python-3\.\d+\n', (project/'binder/runtime.txt').read_text()) and 'jupyter-server-proxy' in (project/'binder/requirements.txt').read_text()
    for o in re.findall(r'(?:install .*-c|cp) (\S+)', (project/'binder/postBuild').read_text()): assert (project/o).exists(), o
    server, = json.loads((project/'binder/jupyter_server_config.json').read_text())['ServerProxy']['servers'].items()
    name,what = server
    port = free_port()
    command = [o.format(port=port, base_url='/user/somebody/') for o in what['command']]
    url = f'http://127.0.0.1:{port}/user/somebody/{name}/'
    p = started(command, dict(PATH=path), url)
    assert what['absolute_url'] and f'"/user/somebody/{name}/"'.encode() in get(url)[1]
    ended(p)

def test_space(project, tmp_path, dockerfile, path):
    "The folder that is pushed has what the Dockerfile needs, a header that Hugging Face reads, and options that the program takes"
    yaml = pytest.importorskip('yaml')
    if not (project/'.git').exists() or not shutil.which('git'): pytest.skip('not a checkout')
    tracked = subprocess.run(['git', 'ls-files', 'Dockerfile', 'deploy'], cwd=project, capture_output=True, text=True).stdout
    if 'Dockerfile' not in tracked: pytest.skip('the recipe is not committed yet')
    subprocess.run([project/'deploy/huggingface/space', tmp_path], check=True, capture_output=True)
    head = yaml.safe_load((tmp_path/'README.md').read_text().split('---')[1])
    assert head['sdk'] == 'docker' and str(head['app_port']) == env_of(dockerfile)['PORT'] and head['title'] and len(head['short_description']) <= 60
    for o in ('Dockerfile', 'models/gender_resnet18.onnx', 'models/gender_small.onnx', 'app/gender_classifier.ipynb', 'setup.py', 'gender_classifier/cli.py'): assert (tmp_path/o).is_file(), o
    assert not list(tmp_path.glob('data*')) and not list(tmp_path.glob('tests*'))
    options = re.search(r'^ENV APP_OPTIONS="(.*)"$', (tmp_path/'Dockerfile').read_text().splitlines()[-1]).group(1)
    from gender_classifier.cli import parser
    args = parser().parse_args(['app', *options.split()])
    assert args.embed_in == ['https://huggingface.co'] and args.preheat == 1
