"""The pictures of README and of the lesson on cleaning: the page and the cleaner in a browser, with drawn faces.

    python tools/screenshots.py [OUT]

It needs what the tests in a browser need: playwright, chromium, JupyterLab. OUT is `nbs/images`. Look at them before you commit them.
"""
import shutil, sys, tempfile
from pathlib import Path
import nbformat
from PIL import Image
from playwright.sync_api import sync_playwright

root = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(root/'tests'))
from serving import jupyterlab, run_in_lab, serving # noqa: E402
from gender_classifier.synth import synth_face # noqa: E402

LESSON = '''from gender_classifier.cleaner import Cleaner
from gender_classifier.ingest import ingest
from gender_classifier.quality import find_issues, measure
from gender_classifier.synth import make_messy
_ = make_messy('collected', n=60)
df = ingest('collected').df
issues = find_issues(df, measure(df, root='collected', progress=False), root='collected')'''


def group(fn):
    "A photo of three drawn people"
    img = Image.new('RGB', (960,360))
    for i,(label,seed) in enumerate([('female',4),('male',5),('female',5)]): img.paste(synth_face(label, seed, 360).crop((20,0,340,360)), (320*i,0))
    img.save(fn)
    return fn


def the_page(browser, tmp, out):
    "The page with the answers for `group`"
    with serving(tmp/'page.log') as (url,_):
        page = browser.new_page(viewport=dict(width=900, height=1400))
        page.goto(url)
        page.get_by_role('button', name='I understand').click()
        with page.expect_file_chooser() as chooser: page.get_by_role('button', name='Choose').first.click()
        chooser.value.set_files(group(tmp/'three.png'))
        page.get_by_text('unsure').first.wait_for(timeout=60_000)
        page.wait_for_timeout(1000)
        page.locator('section.gc-result').first.screenshot(path=out, type='jpeg', quality=85)


def the_cleaner(browser, tmp, out):
    "The cleaner, a few choices made"
    cells = [LESSON, "cleaner = Cleaner(df, root='collected', issues=issues, n=6)\ncleaner"]
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(o) for o in cells], metadata=dict(kernelspec=dict(name='python3', display_name='Python 3'))), tmp/'clean.ipynb')
    with jupyterlab(tmp, root) as url:
        page = run_in_lab(browser, url, 'clean.ipynb')
        box = page.locator('.gc-cleaner')
        box.wait_for(timeout=120_000)
        page.wait_for_timeout(3000)
        for i,key in enumerate('rk'): box.locator('.gc-cleaner-card').nth(i).focus(); page.keyboard.press(key)
        page.wait_for_timeout(1000)
        area,at = box.bounding_box(),page.locator('.jp-Notebook').bounding_box()
        page.screenshot(path=out, type='jpeg', quality=85, clip=dict(area, height=at['y']+at['height']-area['y']))


def main():
    out,tmp = Path(sys.argv[1]) if sys.argv[1:] else root/'nbs/images',Path(tempfile.mkdtemp())
    out.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=shutil.which('chromium'), args=['--no-sandbox'])
        the_page(browser, tmp, out/'page.jpg')
        the_cleaner(browser, tmp, out/'cleaner.jpg')
    shutil.rmtree(tmp)


if __name__=='__main__': main()
