"""What the runners in Python share: they say and read the same lines as those for Node, see common.js, as python RUNNER.py FOLDER CORES [OPTION]"""
import json, os, sys, time

out = os.fdopen(os.dup(1), 'w')  # standard output is for answers, whatever a package prints
os.dup2(2, 1)

def say(o): print(json.dumps(o), file=out, flush=True)

def answer(file, look):
    "What `look` finds in one picture, and how long it takes"
    res, start, used = dict(file=file, faces=[], error=None), time.perf_counter(), time.process_time()
    try: res['faces'] = look(file)
    except Exception as e: res['error'] = ' '.join(f'{type(e).__name__}: {e}'.split())
    return res | dict(ms=(time.perf_counter()-start)*1e3, cpu=(time.process_time()-used)*1e3)

def serve(look, **ready):
    "Answer until standard input ends"
    say(dict(ready=ready))
    for line in sys.stdin:
        if line.strip(): say(answer(json.loads(line), look))
