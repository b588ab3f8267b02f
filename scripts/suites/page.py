#!/usr/bin/env python3
"""What scripts/suites/page does with the page of a service: all that it can do, by the keyboard alone (upload in a queue, cancel
and retry, folders, move, delete, several at once, previews, versions, snapshots), what tokens with less rights see, the same
without script; in both themes, wide and at the width of a phone.

    page.py SCRATCH URL PROGRAM [--pictures DIR]      SCRATCH/vault is the mount; the last line in SCRATCH/page says what was done

Ends with 0 if everything was as it should be. The shell that calls it exports the function `s3vault`, which calls PROGRAM.
"""

import argparse
import contextlib
import hashlib
import json
import os
import signal
import struct
import subprocess
import sys
import zlib

from browser import Browser, check, until

NAMES = "[...document.querySelectorAll('#files [data-main]')].map(link => link.textContent)"
FOCUS = "document.activeElement.textContent"


def made(path, length):
    return written(path, os.urandom(length))


def written(path, content):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(content)
    return path


def png(width, height):
    """A picture: a gradient."""
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    rows = b"".join(b"\0" + bytes(value for x in range(width) for value in (255 * x // width, 255 * y // height, 120))
                    for y in range(height))
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def sha256(path):
    return hashlib.sha256(open(path, "rb").read()).hexdigest()


def s3vault(*words):
    # (A python3 that is a script of pyenv's has a variable `program` of its own.)
    call = ["bash", "-c", 'program=$1; shift; s3vault "$@"', "s3vault", s3vault.program, *words]
    done = subprocess.run(call, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"s3vault {words}: {done.stderr}")
    return done.stdout


def token(*words):
    return s3vault("serve", "token", "add", *words).strip().split()[-1]


def pictures(browser, directory, name):
    for theme in ["light", "dark"]:
        for label, width in [("wide", 1200), ("phone", 360)]:
            browser.shown(theme, width, directory and f"{directory}/{name}-{theme}-{label}.png")
    browser.call("Emulation.setDeviceMetricsOverride", width=1200, height=900, deviceScaleFactor=1, mobile=False)


def row(name):
    return f"it.matches('[data-main]') && it.textContent === {json.dumps(name)}"


def open_sheet(browser, name):
    """Opens a file's sheet with the keyboard."""
    browser.tab_to(row(name), name)
    browser.press("Enter")
    browser.until(f"document.querySelector('#sheet[open] h1')?.textContent === {json.dumps(name)} && "
                  "document.activeElement.id === 'sheet-title'", f"the sheet of {name} opens, and has the focus")


def close_sheet(browser, name):
    browser.press("Escape")
    browser.until("!document.querySelector('#sheet[open]')", "Escape closes the sheet")
    check(browser.run(FOCUS) == name, f"the focus is on {name} again")


def log_in(browser, url, secret, directory=None):
    browser.open(url + "/")
    check(browser.run("location.pathname") == "/login", "who is not logged in is led to the form")
    if directory is not None:
        pictures(browser, directory, "login")
        browser.type("wrong")
        browser.press("Enter")
        browser.until("document.querySelector('[role=alert]') !== null", "a wrong token is told")
        browser.complaints.clear()  # Chromium reports a 401 as an error
    browser.tab_to("it.id === 'token'", "the field for the token")
    browser.type(secret)
    browser.press("Enter")
    browser.until("document.querySelector('#view') !== null", "logged in")
    check(browser.run("document.cookie") == "", "script does not see the cookie")


def log_out(browser):
    browser.run("document.querySelector('#main').focus(); document.querySelector('.skip').focus()")
    browser.tab_to("it.matches('.who > summary')", "who is logged in")
    browser.press("Enter")
    browser.tab_to("it.textContent === 'Log out'", "the button to log out")
    browser.press("Enter")
    browser.until("location.pathname === '/login'", "logged out")


def slowly(browser, rate):
    browser.call("Network.emulateNetworkConditions", offline=False, latency=20 if rate > 0 else 0,
                 downloadThroughput=-1, uploadThroughput=rate)


def uploads(browser, home, directory):
    large, other = made(f"{home}/in/A holiday film.mp4", 6_000_000), made(f"{home}/in/another film.mp4", 5_000_000)
    small = made(f"{home}/in/Größe & <i>x.txt", 4321)
    slowly(browser, 2_000_000)
    browser.tab_to("it.textContent === 'Choose files'", "the button for files")
    browser.press("Enter")
    browser.choose([large, other, small])
    seen = set()
    until(lambda: seen.add(browser.run("document.querySelector('#uploads progress')?.value ?? -1")) or
          any(0.2 < value < 0.9 for value in seen), "the bar moves")
    pictures(browser, directory, "uploading")
    check(browser.run("document.querySelectorAll('#uploads li').length") >= 2, "each file has its line")
    # Uploads go on while the user looks elsewhere; one is cancelled, and tried again.
    browser.tab_to("it.textContent === 'Cancel' && it.getAttribute('aria-label').includes('another film')", "Cancel")
    browser.press("Space")
    browser.until("document.querySelector('#uploads li[data-job=cancelled]') !== null", "one is cancelled")
    check(browser.run(FOCUS) == "Retry", "the focus stays on the button, which tries again now")
    pictures(browser, directory, "cancelled")
    browser.press("Enter")
    browser.until("!document.querySelector('#uploads li[data-job=cancelled]')", "it is tried again")
    slowly(browser, -1)
    browser.until(f"{NAMES}.length === 3", "all are in the list")
    # All three at once, or the retried one separately, as it happened.
    browser.until("window.allSaid.some(text => /^[123] files? uploaded[.]$/.test(text))", "that is said")
    browser.until("document.querySelectorAll('tr[data-state=durable]').length === 3", "all are in the bucket")
    browser.until("document.querySelector('#status').dataset.state === 'durable'", "the vault is at rest")
    names = browser.run(NAMES)
    check(sorted(names) == sorted(os.path.basename(path) for path in [large, other, small]), "names are shown as they are")
    downloads = f"{home}/downloads"
    os.mkdir(downloads)
    browser.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=downloads)
    browser.tab_to("it.matches('a.get') && it.textContent.includes('holiday')", "Download")
    browser.press("Enter")
    until(lambda: [name for name in os.listdir(downloads) if not name.endswith(".crdownload")], "the download ends")
    check(sha256(f"{downloads}/A holiday film.mp4") == sha256(large), "the download is the file")
    for path in [large, other, small]:
        check(sha256(f"{home}/vault/{os.path.basename(path)}") == sha256(path), f"the mount has it: {os.path.basename(path)}")


def folders(browser, home, directory):
    written(f"{home}/in/Holiday/day 1/beach.png", png(640, 400))
    written(f"{home}/in/Holiday/day 1/notes.txt", "# Tag 1\nGrüße vom Strand\n".encode())
    written(f"{home}/in/Holiday/map.svg", b"<svg xmlns='http://www.w3.org/2000/svg'><script>document.title='ran'</script></svg>")
    browser.tab_to("it.textContent === 'Choose a folder'", "the button for a folder")
    browser.press("Enter")
    browser.choose([f"{home}/in/Holiday"])
    browser.until(f"{NAMES}.includes('Holiday')", "the folder is uploaded")
    os.makedirs(f"{home}/in/Dropped/empty/inside")
    written(f"{home}/in/Dropped/a.txt", b"dropped\n")
    browser.drop([f"{home}/in/Dropped", made(f"{home}/in/beside.bin", 100)])
    browser.until(f"{NAMES}.includes('Dropped') && {NAMES}.includes('beside.bin')", "what is dropped is uploaded")
    browser.until("!document.querySelector('#uploads li[data-job=sending], #uploads li[data-job=waiting]')", "all of it")
    found = browser.run("fetch('/files/?prefix=&limit=100').then(reply => reply.json()).then(list => list.files.map(file => file.s3_key))")
    check({"Holiday/day 1/beach.png", "Holiday/map.svg", "Dropped/a.txt"} <= set(found), "with what is in it, below its folders")
    browser.open(browser.run("location.origin") + "/?path=Dropped/empty")
    check("inside" in browser.run(NAMES), "a folder that is empty, too")
    browser.open(browser.run("location.origin") + "/")

    browser.tab_to("it.matches('#new-folder summary')", "New folder")
    browser.press("Enter")
    browser.until("document.activeElement.id === 'folder-name'", "the field has the focus")
    pictures(browser, directory, "new-folder")
    browser.type("Letters")
    browser.press("Enter")
    browser.until(f"{NAMES}.includes('Letters') && {FOCUS} === 'Letters'", "the folder is there, and has the focus")
    browser.says("Made the folder Letters.")
    browser.press("Enter")
    browser.until("location.search === '?path=Letters' && document.readyState === 'complete'", "Enter opens it")
    trail = browser.run("[...document.querySelectorAll('.trail li')].map(item => item.textContent)")
    check(trail == ["Vault", "Letters"], f"the way back is shown {trail}")
    browser.tab_to("it.closest('.trail') && it.textContent === 'Vault'", "the way back")
    browser.press("Enter")
    browser.until("location.search === '?path=' && document.readyState === 'complete'", "it leads back")


def menu_of(browser, word):
    browser.tab_to(f"it.matches('#sheet summary') && it.textContent === '{word}'", word)
    browser.press("Enter")


def changes(browser, directory):
    name = "beside.bin"
    open_sheet(browser, name)
    pictures(browser, directory, "sheet")
    menu_of(browser, "Rename or move")
    browser.tab_to("it.name === 'to'", "the name")
    pictures(browser, directory, "moving")
    browser.type("Holiday")
    browser.press("Enter")
    browser.until("document.querySelector('#sheet [role=alert]')?.textContent.includes('choose another name')",
                  "a name that is taken is refused, and that is said")
    browser.complaints.clear()  # the 409
    browser.type("renamed.bin")
    browser.press("Enter")
    browser.until(f"!document.querySelector('#sheet[open]') && {FOCUS} === 'renamed.bin'", "renamed; the focus goes along")
    open_sheet(browser, "renamed.bin")
    menu_of(browser, "Rename or move")
    browser.tab_to("it.name === 'folder'", "the folder")
    browser.type("Let")
    browser.until("[...document.querySelectorAll('#sheet datalist option')].some(one => one.value === 'Letters')",
                  "folders that there are are offered")
    browser.type("Letters")
    browser.tab_to("it.textContent === 'Move it'", "Move it")
    browser.press("Enter")
    browser.until(f"!{NAMES}.includes('renamed.bin')", "moved")
    check(browser.run("document.activeElement.closest('#files') !== null"), "the focus stays in the list")
    browser.says("Moved renamed.bin to Letters/renamed.bin.")

    # Arrow keys move through the rows; the Delete key asks, and does not delete.
    browser.run("document.querySelector('#files [data-main]').focus()")
    first = browser.run(FOCUS)
    browser.press("ArrowDown")
    check(browser.run(FOCUS) == browser.run(NAMES)[1], "the arrow goes to the next row")
    browser.press("ArrowUp")
    check(browser.run(FOCUS) == first, "and back")
    browser.tab_to(row("Dropped"), "Dropped")
    browser.press("Delete")
    browser.until("document.querySelector('#sheet details[open] form[data-form=delete]') !== null", "the key asks")
    check("all that is in it" in browser.run("document.querySelector('#sheet form[data-form=delete]').textContent"),
          "it says that all goes")
    pictures(browser, directory, "deleting")
    close_sheet(browser, "Dropped")
    browser.press("Delete")
    browser.until("document.activeElement.textContent === 'Delete it'", "the button has the focus")
    browser.press("Enter")
    browser.until(f"!{NAMES}.includes('Dropped')", "deleted")
    check(browser.run("document.activeElement.closest('#files') !== null"), "the focus is on what took its place")
    browser.says("Deleted Dropped.")


def box(name):
    return f"it.matches('.pick input') && it.closest('tr').querySelector('[data-main]').textContent === {json.dumps(name)}"


def chosen(browser, text):
    browser.until(f"document.querySelector('#chosen-count').textContent === {json.dumps(text)}", f"{text}: said as it changes")


def question(browser, button, title):
    """Opens the question about all chosen entries, with a button."""
    browser.tab_to(f"it.id === 'chosen-{button}'", f"the button {button}")
    browser.press("Enter")
    browser.until(f"document.querySelector('#sheet[open] h1')?.textContent === {json.dumps(title)} && "
                  "document.activeElement.id === 'sheet-title'", f"it asks: {title}")


def several(browser, home, url, directory):
    """Several entries at once."""
    mount = f"{home}/vault/Choice"
    for path in ["one.txt", "two ä & <b>.txt", "three.bin", "sub/inside", "to/one.txt"]:
        made(f"{mount}/{path}", 1000)
    browser.open(url + "/?path=Choice")
    check(browser.run("document.querySelector('#chosen-count').getAttribute('role')") == "status", "the number of chosen ones is read out")
    check(browser.run("document.querySelector('#chosen .row').hidden"), "nothing to do without a choice")
    names = [node["name"]["value"] for node in browser.call("Accessibility.getFullAXTree")["nodes"]
             if node.get("role", {}).get("value") == "checkbox" and not node.get("ignored")]
    check(sorted(names) == sorted(["Choose all", "Choose one.txt", "Choose two ä & <b>.txt", "Choose three.bin", "Choose sub", "Choose to"]),
          f"each box is called as its file {names}")
    browser.tab_to(box("one.txt"), "the box of one.txt")
    browser.press("Space")
    chosen(browser, "1 entry chosen")
    browser.press("ArrowDown")
    check(browser.run(f"(it => {box('three.bin')})(document.activeElement)"), "the arrow leads to the next box")
    browser.press("Space")
    chosen(browser, "2 entries chosen")
    browser.tab_to(box("two ä & <b>.txt"), "another box")
    browser.press("Space")
    chosen(browser, "3 entries chosen")
    pictures(browser, directory, "chosen")

    # The list is reloaded: ticked entries stay ticked, and the focus stays where it is.
    browser.drop([made(f"{home}/in/newcomer.bin", 10)])
    browser.until(f"{NAMES}.includes('newcomer.bin')", "the list is read anew")
    chosen(browser, "3 entries chosen")
    check(browser.run("document.querySelectorAll('.pick input:checked').length") == 3, "what is ticked stays so")

    downloads = f"{home}/several"
    os.mkdir(downloads)
    browser.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=downloads)
    browser.tab_to("it.id === 'chosen-download'", "Download")
    browser.press("Enter")
    browser.says("Downloading 3 files.")
    until(lambda: len([name for name in os.listdir(downloads) if not name.endswith(".crdownload")]) == 3, "three downloads end")
    for name in ["one.txt", "two ä & <b>.txt", "three.bin"]:
        [got] = [path for path in os.listdir(downloads) if path[:3] == name[:3]]  # Chromium writes _ for <
        check(sha256(f"{downloads}/{got}") == sha256(f"{mount}/{name}"), f"{name} is what the mount has")

    # Into a folder: first one that does not exist, then one that already has one of the names.
    question(browser, "move", "Move what is chosen")
    check(browser.nameless() == [], f"everything in the question has a name {browser.nameless()}")
    browser.tab_to("it.name === 'folder'", "where to")
    browser.type("Choice/none")
    browser.press("Enter")
    browser.until("document.querySelector('#sheet [role=alert]')?.textContent.includes('no folder of this path')", "there is no such folder")
    browser.type("Choice/to")
    pictures(browser, directory, "moving-chosen")
    browser.press("Enter")
    browser.until("document.querySelector('#sheet [role=alert]')?.textContent.includes('Moved 2 of 3 entries')", "what was done is said")
    left = browser.run("[...document.querySelectorAll('#sheet .entries li')].map(item => item.textContent)")
    check(len(left) == 1 and left[0].startswith("one.txt There is something of this name"), f"and why not the other {left}")
    pictures(browser, directory, "not-moved")
    browser.complaints.clear()  # the 404 and the 409
    browser.press("Escape")
    browser.until("!document.querySelector('#sheet[open]')", "Escape closes the question")
    chosen(browser, "1 entry chosen")
    check(sorted(os.listdir(f"{mount}/to")) == ["one.txt", "three.bin", "two ä & <b>.txt"] and os.path.exists(f"{mount}/one.txt"),
          "nothing is replaced, the others are there")

    # All of them; the Delete key asks about all chosen entries.
    browser.run("document.querySelector('#main').focus()")
    browser.tab_to("it.id === 'choose-all'", "Choose all")
    browser.press("Space")
    chosen(browser, "4 entries chosen")
    browser.tab_to(box("newcomer.bin"), "a box")
    browser.press("Space")
    chosen(browser, "3 entries chosen")
    check(browser.run("document.querySelector('#choose-all').indeterminate"), "not all, not none")
    browser.tab_to(box("one.txt"), "a box that is ticked")
    browser.press("Delete")
    browser.until("document.querySelector('#sheet[open] h1')?.textContent === 'Delete what is chosen'", "the key asks about all that is chosen")
    browser.until("document.activeElement.id === 'sheet-title'", "the question has the focus")
    pictures(browser, directory, "deleting-chosen")
    check(os.path.exists(f"{mount}/one.txt"), "and deletes nothing by itself")
    browser.tab_to("it.textContent === 'Delete them'", "Delete them")
    browser.press("Enter")
    browser.says("Deleted 3 entries.")
    browser.until(f"!document.querySelector('#sheet[open]') && {NAMES}.join() === 'newcomer.bin'", "one is left")
    check(browser.run("document.activeElement.closest('#files') !== null"), "the focus is in the list")
    chosen(browser, "None chosen")
    check(os.listdir(mount) == ["newcomer.bin"], "the mount has nothing else any more")
    browser.tab_to(box("newcomer.bin"), "the last one")
    browser.press("Space")
    question(browser, "delete", "Delete what is chosen")
    browser.tab_to("it.textContent === 'Delete them'", "Delete them")
    browser.press("Enter")
    browser.until("document.querySelector('#files .empty') !== null && document.querySelector('#chosen').hidden", "nothing is left to choose")
    check(browser.run("document.activeElement.id") == "files", "the focus is on the list, whose button went away")


def previews(browser, url, directory):
    browser.open(url + "/?path=Holiday/day%201")
    open_sheet(browser, "beach.png")
    browser.until("document.querySelector('#sheet img')?.naturalWidth === 640", "a picture is shown")
    check(browser.run("document.querySelector('#sheet img').src.startsWith('blob:')"), "by a blob of its kind")
    pictures(browser, directory, "picture")
    close_sheet(browser, "beach.png")
    open_sheet(browser, "notes.txt")
    browser.until("document.querySelector('#sheet pre')?.textContent.includes('Grüße vom Strand')", "text is shown")
    pictures(browser, directory, "text")
    close_sheet(browser, "notes.txt")
    browser.open(url + "/?path=Holiday")
    open_sheet(browser, "map.svg")
    browser.until("document.querySelector('#sheet pre')?.textContent.includes('<script>')", "a drawing in SVG is text")
    check(browser.run("document.title") != "ran" and not browser.run("document.querySelector('#sheet img')"), "nothing in it ran")
    close_sheet(browser, "map.svg")
    # As a page of its own; and a file that is not a picture although its name says so.
    browser.run("fetch('/files/fake.png', {method: 'PUT', headers: {'X-CSRF-Token': document.querySelector('#upload').dataset.csrf}, "
                "body: '<html><script>document.title=\"ran\"</script>'})")
    browser.open(url + "/?path=&file=fake.png")
    browser.until("document.querySelector('.preview pre')?.textContent.startsWith('<html>')", "by content, not by name")
    pictures(browser, directory, "item")


def past(browser, url, directory):
    put = ("(text => fetch('/files/Letters/will.txt', {method: 'PUT', headers: {'X-CSRF-Token': "
           "document.querySelector('#upload').dataset.csrf}, body: text}).then(reply => reply.status))")
    browser.open(url + "/?path=Letters")
    check(browser.run(f"{put}('first words')") == 201, "a file")
    s3vault("snapshot", "create", "before")
    check(browser.run(f"{put}('other words, longer')") == 200, "is replaced")
    browser.open(url + "/?path=Letters")
    open_sheet(browser, "will.txt")
    browser.tab_to("it.textContent === 'Earlier versions'", "Earlier versions")
    browser.press("Enter")
    browser.until("document.querySelectorAll('#sheet .versions tbody tr').length === 2 && document.activeElement.id === 'sheet-title'",
                  "two versions are told")
    pictures(browser, directory, "versions")
    check("as it is now" in browser.run("document.querySelector('#sheet .versions tbody tr').textContent"), "which is that of now is said")
    browser.tab_to("it.matches('#sheet .versions tbody tr:nth-child(2) [data-main]')", "the older one")
    browser.press("Enter")
    browser.until("document.querySelector('#sheet pre')?.textContent === 'first words'", "its preview is the old text")
    pictures(browser, directory, "old-version")
    browser.tab_to("it.textContent === 'Back'", "Back")
    browser.press("Enter")
    browser.until("document.querySelectorAll('#sheet .versions tbody tr').length === 2", "back to the versions")
    browser.tab_to("it.matches('#sheet .versions tbody summary')", "Restore")
    browser.press("Enter")
    browser.until("document.querySelector('#sheet .versions details[open]') !== null", "it asks")
    pictures(browser, directory, "restoring")
    browser.tab_to("it.textContent === 'Restore it'", "Restore it")
    browser.press("Enter")
    browser.until("!document.querySelector('#sheet[open]')", "restored")
    browser.says("Restored Letters/will.txt.")
    check(browser.run(FOCUS) == "will.txt", "the focus is on the file")
    check(browser.run("fetch('/files/Letters/will.txt').then(reply => reply.text())") == "first words", "it is the old one")

    # Looks at a snapshot, and restores a deleted file from it.
    browser.run("fetch('/files/Letters/will.txt', {method: 'DELETE', headers: {'X-CSRF-Token': document.querySelector('#upload').dataset.csrf}})")
    browser.open(url + "/")
    browser.tab_to("it.matches('#look-back summary')", "Earlier states")
    browser.press("Enter")
    pictures(browser, directory, "earlier-states")
    browser.tab_to("it.textContent === 'Snapshots'", "Snapshots")
    browser.press("Enter")
    browser.until("location.pathname === '/page/snapshots' && document.readyState === 'complete'", "the snapshots")
    browser.tab_to("it.matches('#new-snapshot summary')", "New snapshot")
    browser.press("Enter")
    pictures(browser, directory, "new-snapshot")
    browser.tab_to("it.id === 'snapshot-name'", "its name")
    browser.type("by hand <b>")
    browser.press("Enter")
    browser.says("Made the snapshot by hand <b>.")
    browser.until("document.querySelectorAll('.versions tbody tr').length === 2 && document.activeElement.id === 'title'", "it is listed")
    pictures(browser, directory, "snapshots")
    browser.tab_to("it.textContent === 'Delete the snapshot by hand <b>'", "Delete")
    browser.press("Enter")
    pictures(browser, directory, "deleting-snapshot")
    browser.tab_to("it.textContent === 'Delete it'", "Delete it")
    browser.press("Enter")
    browser.says("Deleted the snapshot by hand <b>.")
    browser.until("document.querySelectorAll('.versions tbody tr').length === 1", "it is not listed any more")
    browser.tab_to(row("before"), "before")
    browser.press("Enter")
    browser.until("document.querySelector('.past')?.textContent.includes('snapshot before')", "which state it is is said")
    browser.tab_to(row("Letters"), "Letters")
    browser.press("Enter")
    browser.until(f"{NAMES}.includes('will.txt')", "it is there as it was")
    check(not browser.run("document.querySelector('#upload')"), "nothing can be changed there")
    pictures(browser, directory, "past")
    open_sheet(browser, "will.txt")
    menu_of(browser, "Restore")
    browser.tab_to("it.name === 'to'", "where to")
    pictures(browser, directory, "restoring-to")
    browser.type("Letters/back/will.txt")
    browser.press("Enter")
    browser.until("!document.querySelector('#sheet[open]')", "restored from the snapshot")
    browser.tab_to("it.textContent === 'Back to now'", "Back to now")
    browser.press("Enter")
    browser.until(f"!document.querySelector('.past') && {NAMES}.includes('back')", "it is there now")

    # As it was a moment ago, by time.
    browser.tab_to("it.matches('#look-back summary')", "Earlier states")
    browser.press("Enter")
    browser.run("document.querySelector('#look-time').value = new Date(Date.now() + 60000).toISOString().slice(0, 16)")
    browser.tab_to("it.textContent === 'Look'", "Look")
    browser.press("Enter")
    browser.until("document.querySelector('.past') !== null && location.search.includes('at=')", "a time leads to its state")


def keeps_going(browser, home, url):
    """An upload goes on when the user opens another folder."""
    browser.open(url + "/")
    slowly(browser, 1_000_000)
    browser.tab_to("it.textContent === 'Choose files'", "the button for files")
    browser.press("Enter")
    browser.choose([made(f"{home}/in/patience.bin", 3_000_000)])
    browser.until("document.querySelector('#uploads li[data-job=sending]') !== null", "it is under way")
    browser.tab_to(row("Holiday"), "Holiday")
    browser.press("Enter")
    browser.until("location.search === '?path=Holiday' && document.activeElement.id === 'title'", "another folder, in place")
    check(browser.run("document.querySelector('#uploads li') !== null"), "the upload goes on")
    slowly(browser, -1)
    browser.says("1 file uploaded.")
    browser.run("history.back()")
    browser.until(f"{NAMES}.includes('patience.bin')", "back, with the file")


def tokens(browser, url, directory):
    """A user with fewer rights is shown less."""
    reader = token("reader", "--read-only", "--expires", "30d")
    log_in(browser, url, reader)
    for what in ["#upload", "#new-folder", "form[data-form]", "#chosen-delete", "#chosen-move"]:
        check(not browser.run(f"document.querySelector('{what}')"), f"who may only read has no {what}")
    browser.tab_to("it.matches('.pick input')", "a box")
    browser.press("Space")
    chosen(browser, "1 entry chosen")
    check(browser.run("[...document.querySelectorAll('#chosen button')].map(one => one.textContent).join()") == "Download",
          "who may only read can choose what to download")
    browser.tab_to("it.matches('.who > summary')", "who is logged in")
    browser.press("Enter")
    shown = browser.run("document.querySelector('.who .panel').textContent")
    check("Read only" in shown and "reader" in shown and "All of it" in shown, "the page says what the token may do")
    pictures(browser, directory, "account")
    browser.press("Escape")
    open_sheet(browser, "A holiday film.mp4")
    check(not browser.run("document.querySelector('#sheet form')"), "nor a form in a sheet")
    close_sheet(browser, "A holiday film.mp4")
    log_out(browser)
    part = token("part", "--write", "--only", "Holiday/day 1")
    log_in(browser, url, part)
    check(browser.run("location.search") == "?path=Holiday/day%201", "who sees a part begins there")
    trail = browser.run("[...document.querySelectorAll('.trail li')].map(item => item.textContent)")
    check(trail == ["day 1"], f"and is shown no way out {trail}")
    check(not browser.run("document.querySelector('.figures, a[href=\"/page/snapshots\"]')"), "nor the figures of the whole, nor snapshots")
    pictures(browser, directory, "part")
    open_sheet(browser, "notes.txt")
    menu_of(browser, "Rename or move")
    browser.tab_to("it.name === 'folder'", "the folder")
    browser.type("Letters")
    browser.tab_to("it.textContent === 'Move it'", "Move it")
    browser.press("Enter")
    browser.until("document.querySelector('#sheet [role=alert]')?.textContent.includes('a part of the vault only')", "out of it nothing is moved")
    browser.complaints.clear()  # the 403
    close_sheet(browser, "notes.txt")
    log_out(browser)


def without_script(browser, url, home):
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    browser.open(url + "/")
    one = made(f"{home}/in/report.pdf", 70_000)
    check(browser.run("getComputedStyle(document.querySelector('#upload button')).display !== 'none'"),
          "without script there is a button")
    browser.files("#file", [one])
    browser.run("document.querySelector('#upload button').click()")
    browser.until("document.querySelector('.notice.good')?.textContent === 'Uploaded.'", "uploaded without script")
    check("report.pdf" in browser.run(NAMES), "it is in the list")
    browser.run("document.querySelector('#name').value = 'report'; document.querySelector('.search button').click()")
    browser.until("location.search.includes('name=report') && document.querySelectorAll('a.file').length === 1", "found")
    browser.run("document.querySelector('a.file').click()")
    browser.until("document.querySelector('#item h1')?.textContent === 'report.pdf'", "its page")
    browser.run("document.querySelector('form[data-form=move] [name=to]').value = 'paper.pdf'; "
                "document.querySelector('form[data-form=move] button').click()")
    browser.until(f"document.querySelector('.notice.good')?.textContent === 'Moved.' && {NAMES}.includes('paper.pdf')", "renamed")
    browser.open(url + "/page/history?path=&name=paper.pdf")
    check(browser.run("document.querySelectorAll('.versions tbody tr').length") >= 1, "its versions")
    browser.open(url + "/?path=&file=paper.pdf")
    browser.run("document.querySelector('form[data-form=delete] button').click()")
    browser.until(f"document.querySelector('.notice.good')?.textContent === 'Deleted.' && !{NAMES}.includes('paper.pdf')", "deleted")
    for name in ["a", "b", "c"]:
        made(f"{home}/vault/Plain/{name}", 10)
    made(f"{home}/vault/Plain/to/a", 10)
    browser.open(url + "/?path=Plain")
    browser.run("for (const input of document.querySelectorAll('.pick input')) input.checked = ['a', 'b'].includes(input.value)")
    browser.run("document.querySelector('#chosen-move').click()")
    browser.until("document.querySelector('#item h1')?.textContent === 'Move what is chosen'", "it asks, without script")
    browser.run("document.querySelector('[name=folder]').value = 'Plain/to'; document.querySelector('form[data-form=chosen] button').click()")
    browser.until("document.querySelector('#item [role=alert]')?.textContent.startsWith('Moved 1 of 2 entries')", "one is moved")
    check(browser.run("document.querySelector('.entries').textContent").startswith("a There is something"), "why not the other is said")
    browser.complaints.clear()  # the 409
    browser.open(url + "/?path=Plain")
    browser.run("for (const input of document.querySelectorAll('.pick input')) input.checked = true")
    browser.run("document.querySelector('#chosen-delete').click()")
    browser.until("document.querySelector('#item h1')?.textContent === 'Delete what is chosen'", "it asks")
    browser.run("document.querySelector('form[data-form=chosen] button').click()")
    browser.until("document.querySelector('.notice.good')?.textContent === 'Deleted.' && document.querySelector('#files .empty') !== null",
                  "all are deleted")
    browser.open(url + "/?path=none")
    check(browser.run("document.querySelector('[role=alert]') !== null"), "what is not there is said")
    browser.complaints.clear()  # the 404
    browser.call("Emulation.setScriptExecutionDisabled", value=False)


def full(browser, url, directory):
    """Takes pictures of a page in use, and checks what assistive technology is told."""
    script = """(async () => {
      const csrf = document.querySelector('#upload').dataset.csrf;
      const put = (path, size) => fetch('/files/' + path, {method: 'PUT', headers: {'X-CSRF-Token': csrf}, body: new Uint8Array(size)});
      for (const [path, size] of [['Accounts/2025/ledger.csv', 48211], ['Accounts/2026/ledger.csv', 1200],
          ['Photos/IMG_2041.jpg', 381102], ['Letters/a.txt', 900], ['notes.md', 5120],
          ['A very long name of a file that somebody has given to a scanned letter from the tax office, page 1 of 12.pdf', 91102],
          ['backup-2026-11-20.tar.zst', 1820012]]) await put(path, size);
    })()"""
    browser.open(url + "/")
    browser.run(script)
    browser.open(url + "/")
    pictures(browser, directory, "list")
    browser.open(url + "/?path=Accounts/2025")
    pictures(browser, directory, "directory")
    for path in ["/", "/?path=&file=notes.md", "/page/history?path=&name=notes.md", "/page/snapshots"]:
        browser.open(url + path)
        check(browser.nameless() == [], f"everything that can be used has a name: {path} {browser.nameless()}")
        level = browser.run("document.querySelectorAll('h1').length")
        check(level == 1, f"one heading above all: {path}")
    browser.open(url + "/")
    open_sheet(browser, "notes.md")
    check(browser.nameless() == [], f"in a sheet, too {browser.nameless()}")
    close_sheet(browser, "notes.md")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("scratch")
    parser.add_argument("url")
    parser.add_argument("program")
    parser.add_argument("--pictures", default="")
    arguments = parser.parse_args()
    home, url, directory = arguments.scratch, arguments.url, arguments.pictures
    s3vault.program = arguments.program
    if directory:
        os.makedirs(directory, exist_ok=True)
    with contextlib.ExitStack() as stack:
        writer = token("page", "--write")
        browser = Browser(home)
        stack.callback(browser.stop)
        log_in(browser, url, writer, directory)
        uploads(browser, home, directory)
        folders(browser, home, directory)
        changes(browser, directory)
        several(browser, home, url, directory)
        previews(browser, url, directory)
        past(browser, url, directory)
        keeps_going(browser, home, url)
        without_script(browser, url, home)
        full(browser, url, directory)
        log_out(browser)
        tokens(browser, url, directory)
        check(browser.complaints == [], f"the browser complains of nothing {browser.complaints}")
    with open(f"{home}/page", "w") as file:
        file.write(f"{check.number} checks, {len(os.listdir(directory)) if directory else 'no'} pictures\n")
    sys.exit(check.failed)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    main()
