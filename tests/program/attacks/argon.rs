//! A superblock whose slots demand the most that Argon2 parameters allow, or more: opening the vault is refused in
//! time, and without taking the memory.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use minicbor::{Decoder, Encoder};

use crate::support::home::{Done, Home};

/// The parameters that `init` writes: 256 MiB, 3 passes, one lane.
const MADE: &[u8] = b"\x03\x1a\x00\x04\x00\x00\x04\x03\x05\x01";
/// How long a refusal may take on a busy machine.
const SOON: Duration = Duration::from_secs(20);
/// KiB of address space that the process may have, where the test limits it.
const ADDRESSES: u64 = 1 << 20;

fn asks(memory_kib: u32, passes: u8, lanes: u8) -> Vec<u8> {
    let memory = memory_kib.to_be_bytes();
    [&[3, 0x1a], &memory[..], &[4, 0x18, passes, 5, lanes]].concat()
}

/// Replaces the parameters of all slots, and nothing else.
fn forge(superblock: &[u8], asked: &[u8]) -> Vec<u8> {
    let mut decoder = Decoder::new(superblock);
    decoder.map().unwrap();
    decoder.u8().unwrap();
    let body = decoder.bytes().unwrap();
    decoder.u8().unwrap();
    let mac = decoder.bytes().unwrap();
    let (mut forged, mut at) = (Vec::new(), 0);
    while at < body.len() {
        let is_made = body[at..].starts_with(MADE);
        forged.extend_from_slice(if is_made { asked } else { &body[at..=at] });
        at += if is_made { MADE.len() } else { 1 };
    }
    assert_ne!(forged, body);
    let mut encoder = Encoder::new(Vec::new());
    encoder.map(2).unwrap().u8(0).unwrap().bytes(&forged).unwrap();
    encoder.u8(1).unwrap().bytes(mac).unwrap();
    encoder.into_writer()
}

#[test]
fn slots_that_ask_for_more_than_a_machine_has_are_refused_in_time() {
    let home = Home::new().with("S3VAULT_PASSPHRASE", "correct horse");
    let url = format!("file://{}", home.path("bucket").display());
    home.type_in(&format!("init --recovery-file key --bucket {url}")).exits(0);
    fs::write(home.path("two"), "another one").unwrap();
    home.type_in("key add --new-passphrase-file two").exits(0);
    let [superblock] = &fs::read_dir(home.path("bucket/superblock"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect::<Vec<_>>()[..]
    else {
        panic!("one superblock")
    };
    let good = fs::read(superblock).unwrap();
    let mount = |limit: Option<u64>| -> Done {
        let mut mount = home.command(["mount", "vault"]);
        if let Some(kib) = limit {
            let mut bounded = Command::new("sh");
            bounded.args(["-c", &format!("ulimit -v {kib}; exec \"$0\" \"$@\"")]);
            bounded.arg(mount.get_program()).args(mount.get_args());
            for (name, value) in mount.get_envs() {
                match value {
                    Some(value) => bounded.env(name, value),
                    None => bounded.env_remove(name),
                };
            }
            bounded.current_dir(home.path(""));
            mount = bounded;
        }
        mount.output().unwrap().into()
    };
    let refused = |what: &str, asked: &[u8], limit: Option<u64>, words: &[&str]| {
        fs::write(superblock, forge(&good, asked)).unwrap();
        let begun = Instant::now();
        let done = mount(limit);
        assert_ne!(done.code, 0, "{what}: {done:?}");
        for word in words {
            assert!(done.err.contains(word), "{what}: {word}: {}", done.err);
        }
        assert!(begun.elapsed() < SOON, "{what}: {:?}", begun.elapsed());
        assert!(!done.err.contains("panic"), "{what}: {}", done.err);
    };
    // The maximum of each: 2 GiB, 64 passes, 16 lanes. Even two such slots exceed the total work that anybody is asked
    // for.
    let most = asks(2 << 20, 64, 16);
    refused("the ceiling", &most, None, &["superblock/", "none of it was done"]);
    refused("the ceiling, bounded", &most, Some(ADDRESSES), &["none of it was done"]);
    for (what, asked) in [
        ("memory", asks((2 << 20) + 1, 64, 1)),
        ("all memory", asks(u32::MAX, 64, 1)),
        ("passes", asks(1 << 16, 65, 1)),
        ("all passes", asks(1 << 16, 255, 1)),
        ("lanes", asks(1 << 16, 24, 17)),
        ("nothing", asks(0, 24, 0)),
    ] {
        refused(what, &asked, Some(ADDRESSES), &["none of it was done"]);
    }
    // Within the total, but more memory than this process can have: reported, and not taken.
    let large = asks(2 << 20, 24, 1);
    let large = [&large[..6], &[4, 8, 5, 1]].concat();
    refused("2 GiB", &large, Some(ADDRESSES), &["not enough memory", "2048 MiB"]);
    fs::write(superblock, good).unwrap();
    home.type_in("mount vault").exits(0);
    home.type_in("umount vault").exits(0);
}
