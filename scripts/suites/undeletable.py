#!/usr/bin/env python3
"""What an administrator, and a thief, of a bucket of SeaweedFS do; for scripts/suites/undeletable.

    scripts/suites/undeletable.py PORT deny BUCKET         the machine's credentials may not delete in it any more
    scripts/suites/undeletable.py PORT lock BUCKET         makes it with Object Lock: each version stays for a day (COMPLIANCE)
    scripts/suites/undeletable.py PORT count BUCKET        how many objects it shows
    scripts/suites/undeletable.py PORT steal BUCKET        with the machine's credentials: overwrites every other object, deletes
                                                           the rest, then tries to delete each version
    scripts/suites/undeletable.py PORT bring-back BUCKET   removes what was put or marked above the first version of each
"""

import base64
import hashlib
import http.client
import json
import os
import sys
import urllib.parse
import xml.etree.ElementTree as ElementTree

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
import weed  # noqa: E402

LOCK = (b"<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule><DefaultRetention>"
        b"<Mode>COMPLIANCE</Mode><Days>1</Days></DefaultRetention></Rule></ObjectLockConfiguration>")


class Bucket:
    def __init__(self, port, name):
        self.port, self.name = port, name

    def request(self, method, key="", query=None, body=b"", headers=None, by=None):
        path = f"/{self.name}/{urllib.parse.quote(key)}" if key else f"/{self.name}"
        if query:
            path += "?" + urllib.parse.urlencode(sorted(query.items()), quote_via=urllib.parse.quote)
        given = headers or {}
        sent = weed.signed(f"127.0.0.1:{self.port}", method, path, given, by)
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request(method, path, body=body, headers={**given, **sent})
        answer = connection.getresponse()
        return answer.status, answer.read()

    def must(self, *words, **more):
        status, body = self.request(*words, **more)
        assert 200 <= status < 300, (words, status, body)
        return body

    def listed(self, query, *kinds):
        """The entries of these kinds in a listing, as dictionaries."""
        found, query = [], dict(query)
        while True:
            tree = ElementTree.fromstring(self.must("GET", query=query))
            space = tree.tag[: tree.tag.index("}") + 1] if "}" in tree.tag else ""
            for kind in kinds:
                for item in tree.iter(space + kind):
                    found.append({part.tag[len(space):]: part.text for part in item} | {"kind": kind})
            if tree.findtext(space + "IsTruncated") != "true":
                return found
            for mark, as_given in (("NextContinuationToken", "continuation-token"), ("NextKeyMarker", "key-marker"),
                                   ("NextVersionIdMarker", "version-id-marker")):
                if tree.findtext(space + mark):
                    query[as_given] = tree.findtext(space + mark)

    def keys(self):
        return [item["Key"] for item in self.listed({"list-type": "2"}, "Contents")]

    def versions(self):
        return self.listed({"versions": ""}, "Version", "DeleteMarker")


def deny(bucket):
    who = {"AWS": "arn:aws:iam::*:user/machine"}
    denied = {"Effect": "Deny", "Principal": who, "Action": ["s3:DeleteObject", "s3:DeleteObjectVersion"],
              "Resource": f"arn:aws:s3:::{bucket.name}/*"}
    bucket.must("PUT", query={"policy": ""}, body=json.dumps({"Version": "2012-10-17", "Statement": [denied]}).encode())
    bucket.must("PUT", "a-try", by=weed.MACHINE)
    assert bucket.request("DELETE", "a-try", by=weed.MACHINE)[0] == 403, "the machine may delete"
    bucket.must("DELETE", "a-try")


def lock(bucket):
    bucket.must("PUT", headers={"x-amz-bucket-object-lock-enabled": "true"})
    digest = base64.b64encode(hashlib.md5(LOCK).digest()).decode()
    bucket.must("PUT", query={"object-lock": ""}, body=LOCK, headers={"content-md5": digest})


def steal(bucket):
    for n, key in enumerate(bucket.keys()):
        bucket.must(*(("PUT", key) if n % 2 else ("DELETE", key)), by=weed.MACHINE, body=b"all your files are ours" if n % 2 else b"")
    tried = [item for item in bucket.versions() if item["kind"] == "Version" and item["IsLatest"] != "true"]
    gone = [item for item in tried
            if bucket.request("DELETE", item["Key"], {"versionId": item["VersionId"]}, by=weed.MACHINE)[0] != 403]
    print(f"{len(tried)} versions tried, {len(gone)} deleted")
    assert tried and not gone, gone[:3]


def bring_back(bucket):
    """Done by the administrator: first versions are s3vault's own, as it never overwrites. Anything later is removed,
    or, where the lock keeps that too, the first version is put again above it."""
    by_key = {}
    for item in bucket.versions():
        by_key.setdefault(item["Key"], []).append(item)
    for key, items in by_key.items():
        # Within a second, the order of the listing decides: the latest comes first.
        items = sorted(reversed(items), key=lambda item: item["LastModified"])
        first = [item for item in items if item["kind"] == "Version"][0]
        for item in items:
            if item["kind"] == "DeleteMarker":
                bucket.must("DELETE", key, {"versionId": item["VersionId"]})
        if len([item for item in items if item["kind"] == "Version"]) > 1:
            bucket.must("PUT", key, body=bucket.must("GET", key, {"versionId": first["VersionId"]}))


def main():
    bucket = Bucket(int(sys.argv[1]), sys.argv[3])
    what = {"deny": deny, "lock": lock, "steal": steal, "bring-back": bring_back,
            "count": lambda bucket: print(len(bucket.keys()))}
    what[sys.argv[2]](bucket)


if __name__ == "__main__":
    main()
