//! Makes the corpus: the opened objects of the golden vault, and some lines by hand.

use std::fs;
use std::path::Path;

use s3vault::testing::crypto::{Keys, Place, fuzz_keys};
use s3vault::testing::types::{CommitNo, PackId};
use s3vault::testing::vault::{
    Argon2Params, Bucket, Deadlines, KeySlot, MasterKey, Passphrase, RecoveryKey, S3Options,
    Unlocked, open_by,
};

use super::corpus_dir;

const PASSPHRASE: &[u8] = b"golden, for ever";

fn put(kind: &str, name: &str, bytes: &[u8]) {
    let dir = corpus_dir().join(kind);
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join(name), bytes).unwrap();
}

/// All objects of one kind: number, name and bytes.
fn objects(prefix: &str) -> Vec<(u64, String, Vec<u8>)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1").join(prefix);
    let mut found = Vec::new();
    for entry in walkdir::WalkDir::new(dir).sort_by_file_name() {
        let entry = entry.unwrap();
        if entry.file_type().is_file() {
            let name = entry.file_name().to_str().unwrap().to_owned();
            let parent = entry.path().parent().unwrap().file_name().unwrap().to_str().unwrap();
            let number = [&name, parent].iter().find_map(|text| u64::from_str_radix(text, 16).ok());
            found.push((number.unwrap_or(0), name, fs::read(entry.path()).unwrap()));
        }
    }
    found
}

/// Replaces the vault id, so that the parsers, which have other keys, accept the bytes.
fn adopted(plain: &[u8], was: &[u8; 16], now: &[u8; 16]) -> Vec<u8> {
    let mut plain = plain.to_vec();
    for at in 0..plain.len().saturating_sub(15) {
        if plain[at..at + 16] == was[..] {
            plain[at..at + 16].copy_from_slice(now);
        }
    }
    plain
}

fn opened(keys: &Keys, place: Place, sealed: &[u8]) -> Vec<u8> {
    keys.open(place, sealed).unwrap().to_vec()
}

/// `cargo test --test hostile -- --ignored`, after a change of the format.
#[tokio::test]
#[ignore = "writes into tests/fuzz/corpus"]
async fn seeds_are_made() {
    let url = format!("file://{}/tests/golden/v1", env!("CARGO_MANIFEST_DIR"));
    let (url, how) = (url.parse().unwrap(), S3Options::default());
    let bucket = Bucket::open(&url, &how, Deadlines::default()).await.unwrap();
    let secret = Passphrase::from_bytes(PASSPHRASE.to_vec());
    let Unlocked { vault, keys, .. } = open_by(&bucket, None, &secret).await.unwrap().unlocked;
    for (_, _, sealed) in objects("superblock") {
        put("superblock", "golden", &sealed);
    }
    for (number, name, sealed) in objects("log") {
        let number = CommitNo(number);
        let plain = opened(&keys, Place::Commit(number), &sealed);
        if plain.len() < 10_000 {
            put("commit-plain", &name[14..], &adopted(&plain, &vault.0, &fuzz_keys().vault().0));
        }
        if number.0 == 1 {
            put("commit", "golden", &sealed);
            let own = adopted(&plain, &vault.0, &fuzz_keys().vault().0);
            put("commit", "own", &fuzz_keys().seal(Place::Commit(number), &own));
        }
    }
    for (number, name, sealed) in objects("checkpoint") {
        let plain = opened(&keys, Place::Manifest(CommitNo(number)), &sealed);
        put("manifest-plain", &name[14..], &plain);
    }
    for (_, name, pack) in objects("pack") {
        let id: PackId = name.parse().unwrap();
        let end = opened(&keys, Place::Trailer(id), &pack[pack.len() - 80..]);
        let end = usize::try_from(u64::from_be_bytes(end[..].try_into().unwrap())).unwrap();
        let plain = opened(&keys, Place::Footer(id), &pack[end..pack.len() - 80]);
        let plain = adopted(&plain, &id.0, &[9; 16]);
        let length = plain.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let seed = [&[255, 255], &plain[..length.min(4000)]].concat();
        put("footer-plain", &name[..2], &seed);
    }
    by_hand();
}

/// Text inputs, and inputs short enough to be written here.
fn by_hand() {
    let lines: [(&str, &str, &[u8]); 50] = [
        ("record", "inode", b"\x09\x02\x00\x00\x00\x00\x00\x00\x00\x01\xab\x00\x19\x41\xed\x01\x00\x02\x00\x03\x02\x04\x00\x05\x00\x06\x82\x01\x02\x07\x82\x01\x02\x08\x82\x01\x02\x09\x82\x01\x02\x0a\x01"),
        ("record", "orphan", b"\x09\x06\x00\x00\x00\x00\x00\x00\x00\x05\xa1\x00\x19\x10\x00"),
        ("record", "pin", b"\x05\x07name\xa2\x00\x03\x01\x82\x01\x02"),
        ("record", "history", b"\x09\x09\x00\x00\x00\x00\x00\x00\x00\x00\x50aaaabbbbccccdddd"),
        ("transaction", "one", b"\xa2\x00\x50aaaabbbbccccdddd\x01\x81\x82\x49\x06\x00\x00\x00\x00\x00\x00\x00\x05\xf6"),
        ("journal-record", "clean", b"\x05"),
        ("journal-record", "confirmed", b"\x03\xa3\x00\x05\x01\x07\x02\x58\x20aaaabbbbccccddddaaaabbbbccccdddd"),
        ("journal-record", "barrier", b"\x02\xa3\x00\x05\x01\x01\x02\x18\x40"),
        ("journal-record", "transaction", b"\x01\x01\x00\x00\x00aaaabbbbccccdddd\xa1\x01\x80"),
        ("journal-records", "two", b"\x01\x05\x0a\x02\xa3\x00\x05\x01\x01\x02\x18\x40tail"),
        ("journal", "marker", b"aaaabbbbccccddddaaaabbbbccccdddd\xf5S3J\x40\x00\x00\x00aaaa"),
        ("seen-plain", "seen", b"\xa3\x00\x05\x01\x58\x20aaaabbbbccccddddaaaabbbbccccdddd\x02\x01"),
        ("row", "value", b"\x00\x00\x00\x00\x00\x00\x00\x05\x00\x03key\x01value"),
        ("point", "point", b"\xaa\x00\x50aaaabbbbccccdddd\x01\x05\x02\x58\x20aaaabbbbccccddddaaaabbbbccccdddd\x03\x01\x04\x58\x20aaaabbbbccccddddaaaabbbbccccdddd\x05\x01\x06\x01\x0a\x58\x20aaaabbbbccccddddaaaabbbbccccdddd\x0b\x01\x0c\x01"),
        ("block", "two", b"\x9f\x43key\x45value\x44key2\x41v\xff\x00\x00"),
        ("pack-row", "row", b"\xa3\x00\x01\x01\x19\x10\x00\x02\x03"),
        ("slot-note", "note", b"\xa2\x00\x65label\x01\x82\x01\x02\x00\x00"),
        ("message", "zeros", &[0; 80]),
        ("chunks", "one", &[0; 33]),
        ("pack", "zeros", &[0; 200]),
        ("recovery-key", "lower", b"0123456-789abcd"),
        ("acl", "three", b"\x02\x00\x00\x00\x01\x00\x06\x00\xff\xff\xff\xff\x04\x00\x04\x00\xff\xff\xff\xff\x20\x00\x04\x00\xff\xff\xff\xff"),
        ("query", "all", b"path=a%2Fb&limit=10&recursive=true"),
        ("query", "cursor", b"cursor=-size.0.17.a%2Fb"),
        ("range", "first", b"bytes=0-499"),
        ("range", "last", b"bytes=-500"),
        ("form", "two", b"\x20--XX\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.txt\"\r\nContent-Type: text/plain\r\n\r\nhello\r\n--XX\r\nContent-Disposition: form-data; name=\"x\"\r\n\r\n\r\n--XX--\r\n"),
        ("tokens", "one", b"# s3vault tokens\nb94d27b9934d3e08a52e52d7da7dabfac484efe37a5380ee9088f7ace2efcde9 write 1700000000 laptop until=1800000000 only=photos/2026\n"),
        ("upload-note", "note", b"\xa5\x00\x58\x20aaaabbbbccccddddaaaabbbbccccdddd\x01\x50aaaabbbbccccdddd\x02\x6atext/plain\x03\x58\x20aaaabbbbccccddddaaaabbbbccccdddd\x04\x82\x01\x02"),
        ("request", "get", b"GET\n/files/a%2Fb?x=1\nhost:127.0.0.1:8080\nrange:bytes=0-1\nif-none-match:\"x\", W/\"y\"\nif-modified-since:Sun, 06 Nov 1994 08:49:37 GMT\ncookie:a=b; s3vault_session_8080=0123\nauthorization:Bearer s3v_0123"),
        ("request", "post", b"POST\n/upload/\nhost:localhost:8080\norigin:http://localhost:8080\nsec-fetch-site:same-origin\nuser-agent:Mozilla"),
        ("key", "path", b"a/b%20c/d.txt"),
        ("control-request", "status", b"{\"do\":\"status\"}"),
        ("control-request", "umount", b"{\"do\":\"umount\",\"within\":{\"secs\":5,\"nanos\":0}}"),
        ("control-request", "history", b"{\"do\":\"history\",\"path\":\"a/b\"}"),
        ("control-reply", "done", b"{\"reply\":\"done\"}"),
        ("control-reply", "said", b"{\"reply\":\"said\",\"text\":\"x\"}"),
        ("registry", "one", b"{\"pid\":1,\"started\":2,\"vault\":\"00\",\"bucket\":\"b\",\"dir\":\"/d\",\"log\":\"/l\",\"read_only\":false}"),
        ("last", "one", b"{\"pid\":1,\"started\":2,\"namespace\":3,\"failure\":null}"),
        ("config", "one", b"[[vault]]\nid = \"00\"\nurl = \"file:///x\"\n"),
        ("manifest", "zeros", &[0; 100]),
        ("listing", "two", b"\x00<?xml version=\"1.0\"?><ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><IsTruncated>true</IsTruncated><NextContinuationToken>abc</NextContinuationToken><Contents><Key>log/0000000000000001</Key><LastModified>2026-11-29T12:00:00.000Z</LastModified><ETag>&quot;00&quot;</ETag><Size>1024</Size></Contents><Contents><Key>log/&#x31;</Key><Size>0</Size></Contents></ListBucketResult>"),
        ("listing", "empty", b"\x00<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>"),
        ("listing", "refused", b"\x01<Error><Code>AccessDenied</Code><Message>no</Message><RequestId>1</RequestId></Error>"),
        ("dav-body", "propfind", b"<?xml version=\"1.0\"?><D:propfind xmlns:D=\"DAV:\"><D:prop><D:getetag/><x:a xmlns:x=\"urn:x\"/></D:prop></D:propfind>"),
        ("dav-body", "propertyupdate", b"<D:propertyupdate xmlns:D=\"DAV:\" xml:lang=\"en\"><D:set><D:prop><a xmlns=\"urn:b\">x &amp; <![CDATA[<y>]]></a></D:prop></D:set><D:remove><D:prop><D:b/></D:prop></D:remove></D:propertyupdate>"),
        ("dav-body", "lockinfo", b"<lockinfo xmlns=\"DAV:\"><lockscope><exclusive/></lockscope><locktype><write/></locktype><owner>me &#65;</owner></lockinfo>"),
        ("dav-body", "reserved", b"<xmlns:F/>"),
        ("dav-if", "two", b"<http://127.0.0.1:8080/dav/a> (<urn:uuid:1> [W/\"x\"]) (Not <DAV:no-lock>)"),
        ("dav-path", "url", b"http://127.0.0.1:8080/dav/a%20b/c"),
    ];
    for (kind, name, bytes) in lines {
        put(kind, name, bytes);
    }
    let page =
        [&[1][..], b"\x9f\x43key\x45value\xff", &[0; 16384 - 12], b"\x82\x43key\x00"].concat();
    put("page-plain", "one", &page);
    let (master, secret) = (MasterKey::from_bytes([5; 32]), Passphrase::from_bytes(b"x".to_vec()));
    let (vault, epoch) = (fuzz_keys().vault(), fuzz_keys().epoch());
    let least = Argon2Params::FLOOR;
    let slot = KeySlot::seal_with_passphrase(&master, vault, epoch, &secret, least).unwrap();
    put("slot", "passphrase", &hex(&slot.to_text()));
    let slot = KeySlot::seal_with_recovery_key(&master, vault, epoch, &RecoveryKey::generate());
    put("slot", "recovery", &hex(&slot.to_text()));
}

fn hex(text: &str) -> Vec<u8> {
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}
