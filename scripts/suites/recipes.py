#!/usr/bin/env python3
"""Runs the blocks of pages as they stand, and looks at what came out; for scripts/suites/recipes.

    scripts/suites/recipes.py DIR PROGRAM PORT [--manual]     DIR is made; PORT is where SeaweedFS listens; --manual: and sections
                                                              of src/MANUAL.md, for which CI has no time

A block begins with ```sh, or ```sh MACHINE where the page has several; the blocks of a section that are one machine's run in one
bash, in the order of the page, which ends at the first command that fails. A section without a look at what it did (CHECKS) is an
error: whoever writes one also says what it is for. The credentials and the passphrase come from the environment.
"""

import glob
import http.client
import os
import pwd
import re
import secrets
import shutil
import signal
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.join(HERE, "..", "..")
sys.path.insert(0, os.path.join(HERE, ".."))
import weed  # noqa: E402

SCRATCH, PROGRAM, PORT = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2]), int(sys.argv[3])
# Placeholders in README.md and MANUAL.md for something of the reader's own, and what they become.
PLACEHOLDERS = {"s3://NAME/PREFIX": "s3://my-bucket/readme", "/path/to/": "sent/", "/media/usb/": "usb-", "/srv/restore": "restored",
                "2d ago": "3s ago", "psql shop": "psql another_shop",
                "export AWS_ACCESS_KEY_ID=... AWS_SECRET_ACCESS_KEY=...": "true"}
# Sections of README.md that are run here; what the first one does (`cargo run`, `scripts/test`), CI itself does.
OF_README = ["With a bucket", "Without a mount", "Over HTTP"]
# Sections of MANUAL.md that ask nothing at a terminal, and change nothing on the machine.
OF_MANUAL = ["When the superblock is lost", "Files without a mount", "Old states, and what they hold", "Looking back"]


class Machine:
    """A user's home on a machine of their own, and a shell for each section."""

    def __init__(self, name):
        self.name, self.home = name, os.path.join(SCRATCH, name)
        os.mkdir(self.home)
        os.makedirs(os.path.join(SCRATCH, "bin"), exist_ok=True)
        link = os.path.join(SCRATCH, "bin", "s3vault")
        os.path.lexists(link) or os.symlink(PROGRAM, link)
        self.environment = {
            "PATH": f"{SCRATCH}/bin:" + os.environ["PATH"], "HOME": self.home, "LC_ALL": "C.UTF-8", "TZ": "UTC",
            "S3VAULT_MACHINE_ID": f"{name}-{SCRATCH}", "S3VAULT_PASSPHRASE": "of the recipes, seven words or more",
            "AWS_ACCESS_KEY_ID": weed.KEY, "AWS_SECRET_ACCESS_KEY": weed.SECRET, "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{PORT}", "PGHOST": SCRATCH, "PGUSER": "postgres",
        }

    def run(self, script, must=True):
        done = subprocess.run(["bash", "-euo", "pipefail", "-c", script], env=self.environment, cwd=self.home, timeout=120,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        print(f"-- {self.name}\n{script.rstrip()}\n-- it said\n{done.stdout[-4000:]}", flush=True)
        if must and done.returncode != 0:
            raise SystemExit(f"{self.name}: exit code {done.returncode} of:\n{script}\n{done.stdout[-4000:]}")
        return done

    def end(self):
        """Leaves nothing behind, whatever failed."""
        vault = os.path.join(self.home, "vault")
        for words in (["umount", "--force", vault], ["serve", "--stop"]):
            subprocess.run([os.path.join(SCRATCH, "bin", "s3vault"), *words], env=self.environment, timeout=60,
                           stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def read(self, name):
        with open(os.path.join(self.home, name), "rb") as file:
            return file.read()


class Postgres:
    """A server at a Unix socket, run by the user `postgres` if this is root."""

    def __init__(self):
        self.bin = sorted(glob.glob("/usr/lib/postgresql/*/bin/initdb"))[-1].removesuffix("/initdb")
        self.data = os.path.join(SCRATCH, "postgres")
        os.mkdir(self.data, 0o700)
        os.chmod(SCRATCH, 0o777)
        if os.getuid() == 0:
            shutil.chown(self.data, "postgres", pwd.getpwnam("postgres").pw_gid)
        self.call("initdb", "-D", self.data, "-U", "postgres", "-A", "trust", "--no-sync", "-E", "UTF8")
        self.call("pg_ctl", "-D", self.data, "-w", "-l", f"{self.data}/log", "-o", f"-k {SCRATCH} -c listen_addresses= -c fsync=off",
                  "start")

    def call(self, program, *words):
        as_user = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []
        subprocess.run([*as_user, f"{self.bin}/{program}", *words], check=True, stdout=subprocess.DEVNULL, cwd="/", timeout=60)

    def sql(self, database, text):
        return subprocess.run([f"{self.bin}/psql", "-h", SCRATCH, "-U", "postgres", "-d", database, "-Atqc", text], check=True,
                              stdout=subprocess.PIPE, text=True, timeout=60).stdout.strip()

    def stop(self):
        self.call("pg_ctl", "-D", self.data, "-m", "immediate", "stop")


def sections(page):
    """[(heading, [(machine or "", block)])], without sections that have no block to run."""
    found, heading, block = [], "", None
    with open(os.path.join(ROOT, page)) as file:
        for line in file:
            if block is not None:
                if line.startswith("```"):
                    found[-1][1].append((machine, "".join(block)))
                    block = None
                else:
                    block.append(line)
            elif line.startswith("#"):
                heading = line.lstrip("#").strip()
            elif line.split()[:1] == ["```sh"]:
                machine, block = " ".join(line.split()[1:]), []
                if not found or found[-1][0] != heading:
                    found.append((heading, []))
    assert block is None, f"{page}: a block without an end"
    return found


def run_section(machines, blocks):
    """Consecutive blocks of one machine share a shell."""
    runs = []
    for name, block in blocks:
        if runs and runs[-1][0] == name:
            runs[-1][1] += block
        else:
            runs.append([name, block])
    return [machines[name or "desktop"].run(script).stdout for name, script in runs]


def same(left, right):
    differ = subprocess.run(["rsync", "-aHAXnic", "--delete", f"{left}/", f"{right}/"], check=True, stdout=subprocess.PIPE, text=True).stdout
    assert not differ, f"{left} and {right} differ: {differ}"


def check_vault(d, said):
    assert os.path.ismount(f"{d.home}/vault")


def check_rsync(d, said):
    assert d.read("documents/report.txt") == REPORT
    d.run("rsync -aHAX ~/documents/report.txt ~/vault/documents/")
    same(f"{d.home}/documents", f"{d.home}/vault/documents")


def check_restic(d, said):
    same(f"{d.home}/documents", f"{d.home}/restored{d.home}/documents")
    assert d.read("vault/restic-password") == d.read(".restic-password")


def check_borg(d, said):
    same(f"{d.home}/documents", f"{d.home}/borg-restored{d.home}/documents")


def check_postgres(d, said):
    for name in ("shop", "shop_again"):
        assert POSTGRES.sql(name, "select count(*), sum(length(what)) from orders") == "20000|640000", name
    # As the page says: a dump that ends early gets no name, and the old dump stays.
    POSTGRES.sql("shop", "drop table orders")
    before = sorted(os.listdir(f"{d.home}/vault/db"))
    text = next(block for _, block in dict(sections("src/RECIPES.md"))["PostgreSQL"] if "pg_dump" in block).split("s3vault ls")[0]
    assert d.run(text.replace("shop |", "no-such-database |"), must=False).returncode != 0
    assert sorted(set(os.listdir(f"{d.home}/vault/db")) - {"shop.unfinished"}) == before


def check_webdav(d, said):
    assert d.read("vault/photos/picture.jpg") == d.read("picture.jpg")
    [token] = re.findall(r"^s3vault_\w+$", said[0], re.M)
    # The service and its token are gone; the token would have seen only its directory.
    d.run("s3vault serve --listen 0.0.0.0:8443 --tls-cert ~/vault-tls.crt --tls-key ~/vault-tls.key")
    ask = "curl -sS --cacert ~/vault-tls.crt -o /dev/null -w '%{http_code}' https://localhost:8443"
    assert d.run(f"{ask}/dav/photos/picture.jpg --user phone:{token}").stdout == "401"
    d.run("s3vault serve token add phone --only photos --read-only > token")
    assert d.run(f'{ask}/dav/photos/picture.jpg --user "phone:$(cat token)"').stdout == "200"
    assert d.run(f'{ask}/dav/documents/report.txt --user "phone:$(cat token)"').stdout in ("403", "404")
    d.run("s3vault serve --stop")


def check_two_machines(d, said):
    assert said[-2].endswith("seen on the train\n"), said[-2]
    assert os.path.ismount(f"{LAPTOP.home}/vault")
    # The desktop notices that it is no longer the writer; what it writes now stays on it.
    d.run("echo late > ~/vault/late", must=False)
    assert d.run("s3vault umount ~/vault --timeout 30s", must=False).returncode == 18
    # It is refused while the other machine has the vault, as the page says. (Its own daemon may still be ending.)
    until = time.monotonic() + 30
    while (code := d.run("s3vault mount ~/vault", must=False).returncode) == 11 and time.monotonic() < until:
        time.sleep(0.5)
    assert code == 12, code
    LAPTOP.run("test ! -e ~/vault/late; s3vault umount ~/vault")
    d.run("s3vault mount ~/vault; test ! -e ~/vault/late; s3vault umount ~/vault")


def check_readme_bucket(r, said):
    assert os.path.ismount(f"{r.home}/vault")


def check_readme_files(r, said):
    same(f"{r.home}/photos", f"{r.home}/vault/backup/photos")
    assert "CREATE TABLE public.orders" in said[0]


def check_readme_http(r, said):
    assert r.read("sent/file.txt") == r.read("file.txt") == r.read("vault/encrypted/file.txt")
    assert not os.path.exists(f"{r.home}/vault/films/film.mp4") and '"films/film.mp4"' in said[0]
    r.run("s3vault serve --stop; s3vault umount ~/vault")


def check_superblock(r, said):
    assert os.path.ismount(f"{r.home}/vault") and os.path.getsize(f"{r.home}/usb-vault.superblock") > 100


def check_files(r, said):
    same(f"{r.home}/photos/2026", f"{r.home}/restored")
    assert sorted(os.listdir(f"{r.home}/vault/kept")) == ["2026", "two.jpg"]


def check_old_states(r, said):
    assert "monday" in said[0]


def check_looking_back(r, said):
    assert r.read("vault/report.odt") == b"first" and r.read("vault/old.odt") in (b"first", b"second")
    assert r.read("vault/project/plan") == b"the plan"
    r.run("s3vault umount ~/vault")


# Preparations for sections of the manual.
BEFORE = {
    "Files without a mount": "echo remove me > photos/a.tmp",
    "Old states, and what they hold": "mkdir vault/project; printf 'the plan' > vault/project/plan; s3vault snapshot create monday",
    "Looking back": "rm -r vault/project; printf first > vault/report.odt; s3vault sync; sleep 1; printf second > vault/report.odt; "
                    "s3vault sync; sleep 4",
}
CHECKS = {
    "src/RECIPES.md": {"Recipes": check_vault, "rsync": check_rsync, "restic": check_restic, "borg": check_borg,
                       "PostgreSQL": check_postgres, "Phones and desktops, by WebDAV": check_webdav, "Two machines": check_two_machines},
    "README.md": dict(zip(OF_README, (check_readme_bucket, check_readme_files, check_readme_http))),
    "src/MANUAL.md": dict(zip(OF_MANUAL, (check_superblock, check_files, check_old_states, check_looking_back))),
}
REPORT = b"the report\n"


def documents(home):
    """A user's tree: text, a large file, links, an empty directory, names that need quotes."""
    os.makedirs(f"{home}/documents/letters/empty")
    for name, data in {"report.txt": REPORT, "letters/a b 'c' ä.txt": b"x" * 70_000, "large": secrets.token_bytes(6 << 20)}.items():
        with open(f"{home}/documents/{name}", "wb") as file:
            file.write(data)
    os.symlink("report.txt", f"{home}/documents/newest")
    os.link(f"{home}/documents/large", f"{home}/documents/letters/large")


def put_things(machine, names):
    for name in names:
        os.makedirs(os.path.dirname(f"{machine.home}/{name}"), exist_ok=True)
        with open(f"{machine.home}/{name}", "wb") as file:
            file.write(secrets.token_bytes(300_000))


def main():
    global POSTGRES, LAPTOP
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    os.umask(0o022)
    os.mkdir(SCRATCH)
    bucket = http.client.HTTPConnection("127.0.0.1", PORT, timeout=60)
    bucket.request("PUT", "/my-bucket", headers=weed.signed(f"127.0.0.1:{PORT}", "PUT", "/my-bucket", {}))
    assert bucket.getresponse().status == 200
    desktop, LAPTOP, reader = Machine("desktop"), Machine("laptop"), Machine("reader")
    documents(desktop.home)
    put_things(desktop, ["picture.jpg"])
    put_things(reader, ["photos/2026/one.jpg", "photos/two.jpg", "film.mp4", "sent/file.txt"])
    POSTGRES = Postgres()
    count = 0
    try:
        for name in ("shop", "another_shop"):
            POSTGRES.sql("postgres", f"create database {name}")
        POSTGRES.sql("shop", "create table orders as select n, repeat('x', 32) as what from generate_series(1, 20000) n")
        pages = [("README.md", reader), ("src/MANUAL.md", reader), ("src/RECIPES.md", desktop)]
        if sys.argv[4:] != ["--manual"]:
            del pages[1]
        # The recipes come last: they end with a database without its table.
        for page, own in pages:
            of_page = [(title, blocks) for title, blocks in sections(page) if own is desktop or title in OF_README + OF_MANUAL]
            assert [title for title, _ in of_page] == list(CHECKS[page]), f"{page}: {[title for title, _ in of_page]}"
            for title, blocks in of_page:
                print(f"== {page}: {title}", flush=True)
                if own is reader:
                    for placeholder, value in PLACEHOLDERS.items():
                        blocks = [(name, block.replace(placeholder, value)) for name, block in blocks]
                if title in BEFORE:
                    own.run(BEFORE[title])
                CHECKS[page][title](own, run_section({"desktop": own, "laptop": LAPTOP}, blocks))
                count += len(blocks)
    finally:
        for machine in (desktop, LAPTOP, reader):
            machine.end()
        POSTGRES.stop()
    with open(os.path.join(SCRATCH, "done"), "w") as file:
        file.write(f"{count} blocks of {len(pages)} pages, as they stand\n")


if __name__ == "__main__":
    main()
