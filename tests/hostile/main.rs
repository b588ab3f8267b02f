//! Hostile bytes. Every parser of data that others can write (the bucket, this disk, the control socket, the network)
//! is given the corpus of `tests/fuzz` and mutations of it. None may panic, take a second, or take much memory.
//! `tests/fuzz` does the same by hand, guided by coverage.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(unreachable_pub, reason = "a module of tests is public to the others")]

use std::collections::BTreeMap;
use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use s3vault::testing::parse;

mod mutator;
mod reader;
mod seeds;

use mutator::Mutator;

/// The time limit for one input.
const TIME: Duration = Duration::from_secs(2);
/// The limit on additional memory, in bytes; the largest input has a few KiB.
const MEMORY: u64 = 192 << 20;
/// Kinds that refuse even their seeds, because of a seal, a checksum or the key. What is inside a seal has a kind of
/// its own.
const SEALED: [&str; 7] =
    ["message", "chunks", "journal", "pack", "manifest", "recovery-key", "slot"];
/// Inputs per kind, unless `S3VAULT_HOSTILE_ROUNDS` sets another number, and the time limit of the whole run.
const ROUNDS: u64 = 20_000;
const IN_ALL: Duration = Duration::from_secs(60);

fn corpus_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus")
}

/// The seeds of each kind.
fn corpus() -> BTreeMap<String, Vec<Vec<u8>>> {
    let mut found = BTreeMap::new();
    for kind in fs::read_dir(corpus_dir()).unwrap() {
        let kind = kind.unwrap();
        let mut files: Vec<_> =
            fs::read_dir(kind.path()).unwrap().map(|f| f.unwrap().path()).collect();
        files.sort();
        let seeds = files.iter().map(|file| fs::read(file).unwrap()).collect();
        found.insert(kind.file_name().into_string().unwrap(), seeds);
    }
    found
}

/// Parses an input, and prints it if that goes wrong. Returns whether it was accepted.
fn given(kind: &str, bytes: &[u8]) -> bool {
    let shown = || bytes.escape_ascii().to_string();
    let mut took = Vec::new();
    // The machine may stall for a moment, but hardly three times for the same input.
    let parsed = loop {
        let began = Instant::now();
        let parsed = catch_unwind(|| parse(kind, bytes));
        let Ok(parsed) = parsed else { panic!("{kind} panics at b\"{}\"", shown()) };
        took.push(began.elapsed());
        if began.elapsed() < TIME {
            break parsed;
        }
        assert!(took.len() < 3, "{kind} takes {took:?} for b\"{}\"", shown());
    };
    parsed.unwrap_or_else(|| panic!("nobody knows the kind {kind}"))
}

/// From here on, a parser that asks for more memory than this ends the test.
fn bound_memory() {
    let pages = fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = pages.split(' ').next().unwrap().parse().unwrap();
    let most = Some(pages * 4096 + MEMORY);
    let limit = getrlimit(Resource::As);
    setrlimit(Resource::As, Rlimit { current: most, ..limit }).unwrap();
}

/// Set in the child process, which has the memory limit.
const BOUNDED: &str = "S3VAULT_HOSTILE_BOUNDED";

#[test]
fn no_parser_is_harmed_by_what_it_is_given() {
    if std::env::var_os(BOUNDED).is_none() {
        let mut again = Command::new(std::env::current_exe().unwrap());
        again.args(["--exact", "no_parser_is_harmed_by_what_it_is_given", "--nocapture"]);
        let done = again.env(BOUNDED, "1").output().unwrap();
        let said = [done.stdout, done.stderr].concat();
        println!("{}", String::from_utf8_lossy(&said));
        return assert!(done.status.success(), "{}", done.status);
    }
    bound_memory();
    let corpus = corpus();
    assert!(corpus.len() > 25, "{:?}", corpus.keys());
    let rounds = std::env::var("S3VAULT_HOSTILE_ROUNDS").ok().and_then(|text| text.parse().ok());
    let (rounds, began) = (rounds.unwrap_or(ROUNDS), Instant::now());
    let each = IN_ALL / u32::try_from(corpus.len()).unwrap();
    let (mut tally, mut refused) = (Vec::new(), Vec::new());
    for (kind, seeds) in &corpus {
        // A kind that accepts none of its seeds is not really tested.
        let good = seeds.iter().filter(|seed| given(kind, seed)).count();
        if good == 0 && !SEALED.contains(&kind.as_str()) {
            refused.push(kind);
        }
        let mut mutator = Mutator::new(kind.len() as u64 * 7919 + 1, seeds.clone());
        let (mut done, mut taken, start) = (0, 0, Instant::now());
        while done < rounds && start.elapsed() < each {
            taken += u64::from(given(kind, &mutator.next()));
            done += 1;
        }
        tally.push(format!("{kind} {done} ({taken} taken)"));
    }
    println!("{}; {:.1} s", tally.join(", "), began.elapsed().as_secs_f64());
    assert!(refused.is_empty(), "no seed of these is good: {refused:?}");
}
