#!/usr/bin/env python3
"""Compares the size of a vault's bucket with the live data in its mount.

    scripts/suites/space.py PORT PREFIX MOUNT PERCENT     fails above PERCENT of the live data plus 16 MiB
"""

import http.client
import os
import sys
import urllib.parse
import xml.etree.ElementTree as ElementTree

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
import weed  # noqa: E402

MIB = 1 << 20


def bucket_bytes(port, prefix):
    """The bytes of all objects below a prefix of the bucket "bench"."""
    total, token = 0, None
    while True:
        query = {"list-type": "2", "prefix": prefix + "/"}
        if token:
            query["continuation-token"] = token
        path = "/bench?" + urllib.parse.urlencode(sorted(query.items()), quote_via=urllib.parse.quote)
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("GET", path, headers=weed.signed(f"127.0.0.1:{port}", "GET", path, {}))
        answer = connection.getresponse()
        body = answer.read()
        assert answer.status == 200, body
        tree = ElementTree.fromstring(body)
        space = tree.tag[: tree.tag.index("}") + 1] if "}" in tree.tag else ""
        total += sum(int(size.text) for size in tree.iter(space + "Size"))
        token = tree.findtext(space + "NextContinuationToken")
        if not token or tree.findtext(space + "IsTruncated") != "true":
            return total


def live_bytes(mount):
    """The bytes in the files of a mount, each file once."""
    seen, total = set(), 0
    for directory, _, names in os.walk(mount):
        for name in names:
            found = os.lstat(os.path.join(directory, name))
            if found.st_ino not in seen:
                seen.add(found.st_ino)
                total += found.st_size
    return total


def main():
    port, prefix, mount, percent = int(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
    held, live = bucket_bytes(port, prefix), live_bytes(mount)
    limit = live * percent // 100 + 16 * MIB
    print(f"{held * 100 // max(live, 1)} % ({held / MIB:.0f} MiB for {live / MIB:.0f})")
    if held > limit:
        sys.exit(f"{held} bytes in the bucket for {live} that live: more than {percent} % and 16 MiB")


if __name__ == "__main__":
    main()
