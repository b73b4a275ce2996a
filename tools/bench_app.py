"""Measure the page in a real browser: how soon it is there, how soon a phone's photo is labelled, what a visitor costs, how ten at once fare.
   python tools/bench_app.py [PHOTO] [-n TIMES]; needs Chromium and what `make dev` installs. Nothing is sent anywhere."""
import argparse, io, os, shutil, statistics, sys, tempfile, time
from pathlib import Path
import psutil
from PIL import Image
from playwright.sync_api import sync_playwright

root = Path(__file__).absolute().parents[1]
sys.path.insert(0, str(root/'tests'))
from serving import kernels, serving, until
from gender_classifier.page import example_files

def say(what, values, unit='s'):
    "A line of the report: the median, and the range"
    text = f'{statistics.median(values):.2f}' if unit=='s' else f'{statistics.median(values):.0f}'
    print(f'{what:<58} {text} {unit}' + (f'  ({min(values):.2f} to {max(values):.2f}, {len(values)} times)' if len(values)>1 and unit=='s' else ''), flush=True)

def phone_photo(fn, side=4000):
    "`fn` as a phone would have taken it: 12 megapixels, JPEG"
    img = Image.open(fn).convert('RGB')
    img = img.resize((round(img.width*side/img.height), side), Image.Resampling.BICUBIC) if img.height>=img.width else img.resize((side, round(img.height*side/img.width)))
    out = Image.new('RGB', (3000,4000) if img.height>=img.width else (4000,3000), '#557')
    out.paste(img, ((out.width-img.width)//2,(out.height-img.height)//2))
    buf = io.BytesIO()
    out.save(buf, 'JPEG', quality=93)
    return dict(name='phone.jpg', mimeType='image/jpeg', buffer=buf.getvalue())

def open_page(browser, url):
    "A new visitor, who waits for the page; the seconds until there is something to press"
    page,t = browser.new_context().new_page(),time.monotonic()
    page.goto(url)
    page.get_by_role('button', name='I understand').wait_for()
    return page,time.monotonic()-t

def choose(page, photo):
    page.locator('.gc-picker input[type=file]').set_input_files(photo)
    return time.monotonic()

def understand(page):
    page.get_by_role('button', name='I understand').click()
    page.wait_for_function('() => !document.querySelector(".gc-picker fieldset").disabled')

def answer(page):
    page.locator('.gc-card').first.wait_for()
    return page.locator('.gc-card h3').all_inner_texts()

def memory(p):
    "Resident and proportional MB of each visitor's process"
    for o in kernels(p):
        m = o.memory_full_info()
        yield m.rss/2**20,getattr(m, 'pss', m.rss)/2**20

def leave(page):
    "Go, and wait for the next process to be ready where some are kept"
    page.goto('about:blank')
    page.context.close()
    time.sleep(5)

def one_by_one(browser, url, p, photo, n, what):
    "Visitors one after the other"
    ready,first,again,mem = [],[],[],[]
    for _ in range(n):
        page,t = open_page(browser, url)
        ready.append(t)
        understand(page)
        t = choose(page, photo)
        answer(page)
        first.append(time.monotonic()-t)
        mem += [max(memory(p))]
        leave(page)
    say(f'page ready, {what}', ready)
    say('12-megapixel photo to answer', first)
    say('resident memory of a visitor after that', [o[0] for o in mem], 'MB')
    say('its share of what is shared counted in (PSS)', [o[1] for o in mem], 'MB')

def at_once(browser, url, p, photo, n):
    "Visitors who come at the same time"
    pages,t = [browser.new_context().new_page() for _ in range(n)],time.monotonic()
    for o in pages: o.goto(url, wait_until='commit')
    for o in pages: o.get_by_role('button', name='I understand').wait_for(timeout=120_000)
    say(f'{n} visitors at once: all have the page', [time.monotonic()-t])
    for o in pages: understand(o)
    t = time.monotonic()
    for o in pages: choose(o, photo)
    said = [answer(o) for o in pages]
    say(f'{n} photos at once: all are labelled', [time.monotonic()-t])
    mem = list(memory(p))
    say('resident memory of a visitor', [o[0] for o in mem], 'MB')
    print(f'all of them together {sum(o[1] for o in mem):.0f} MB (PSS); answers {"agree" if len(set(map(tuple, said)))==1 else "DIFFER"}: {said[0]}')

def main():
    ap = argparse.ArgumentParser(description=__doc__)
    ap.add_argument('photo', nargs='?', help='a photo with a face (default: the astronaut that scikit-image carries)')
    ap.add_argument('-n', type=int, default=5, help='how many times each (default: 5)')
    ap.add_argument('--at-once', type=int, default=10, metavar='N', help='visitors at the same time (default: 10; 0: leave that out)')
    args = ap.parse_args()
    if not args.photo: args.photo = example_files()['astronaut.png'][1]
    photo = phone_photo(args.photo)
    chromium = next((fn for o in ('chromium', 'chromium-browser', 'google-chrome', 'chrome') if (fn := shutil.which(o))), None)
    print(f'{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; the photo has {len(photo["buffer"])/2**20:.1f} MB', flush=True)
    with tempfile.TemporaryDirectory() as tmp, sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=['--no-sandbox'])
        with serving(Path(tmp, 'cold.txt')) as (url, p):
            one_by_one(browser, url, p, photo, args.n, 'process started for the visitor')
            if args.at_once: at_once(browser, url, p, photo, args.at_once)
        with serving(Path(tmp, 'warm.txt'), preheat=2) as (url, p):
            until(lambda: len(kernels(p))==2)
            time.sleep(5)
            one_by_one(browser, url, p, photo, args.n, 'process kept ready (--preheat 2)')
        browser.close()

if __name__ == '__main__': main()
