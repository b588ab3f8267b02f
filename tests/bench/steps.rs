//! The steps that each byte, change and look-up passes through, measured one by one: `cargo bench`. With `--test` (as
//! in CI) each runs once. `scripts/bench` measures the whole.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot be set up is over")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use s3vault::testing::{cache, checkpoint, content, crypto, index, log, os, records, store, types};
use types::{CommitNo, ExtentId, Hash, InodeNo, MIB, PackId, VaultId};

fn keys() -> crypto::Keys {
    let master = crypto::MasterKey::from_bytes([7; 32]);
    crypto::Keys::derive(&master, VaultId([1; 16]), crypto::FIRST_EPOCH)
}

/// Extents of 4 KiB and 1 MiB, as they are sealed when a file is closed and opened when it is read.
fn seals(c: &mut Criterion) {
    let keys = keys();
    let place = crypto::Place::Extent(ExtentId([2; 16]));
    let mut group = c.benchmark_group("seal");
    for length in [4 << 10, 1 << 20] {
        let plain = types::noise(1, length);
        let sealed = keys.seal(place, &plain).into_bytes();
        group.throughput(Throughput::Bytes(length as u64));
        group.bench_with_input(BenchmarkId::new("seal", length), &plain, |b, plain| {
            let mut out = Vec::with_capacity(sealed.len());
            b.iter(|| {
                out.clear();
                keys.seal_into(place, black_box(plain), &mut out)
            });
        });
        group.bench_with_input(BenchmarkId::new("open", length), &sealed, |b, sealed| {
            b.iter(|| keys.open(place, black_box(sealed)).unwrap());
        });
    }
    group.finish();
}

fn extent(number: u64, length: u64) -> types::Extent {
    let reference = types::Reference {
        pack: PackId([3; 16]),
        offset: number * 8192,
        sealed_length: length + 100,
        extent: ExtentId(u128::from(number).to_be_bytes()),
        plain_length: length,
        codec: types::Codec::Plain,
        salt: [4; 24],
        commitment: [5; 32],
        epoch: crypto::FIRST_EPOCH,
    };
    types::Extent { skip: 0, length, reference }
}

/// Writes 4 KiB into an extent map window with this many records.
fn extent_maps(c: &mut Criterion) {
    let mut group = c.benchmark_group("extent map");
    for records in [1, 64] {
        let old: Vec<_> = (0..records).map(|n| (n * 65_536, extent(n, 65_536))).collect();
        let new = [(records / 2 * 65_536 + 4096, extent(1 << 40, 4096))];
        group.bench_with_input(BenchmarkId::new("publish", records), &old, |b, old| {
            b.iter(|| content::extents::publish(black_box(old), &new));
        });
        group.bench_with_input(BenchmarkId::new("clip", records), &old, |b, old| {
            b.iter(|| content::extents::clip(black_box(old), 70_000..140_000));
        });
    }
    group.finish();
}

/// Look-ups of cached blocks, and of blocks that were never cached.
fn caches(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let _inside = runtime.enter();
    let dir = tempfile::tempdir().unwrap();
    let deadlines = store::Deadlines::of(Duration::from_secs(10));
    let bucket = store::Bucket::over(Arc::new(store::MemoryStore::new()), "", deadlines);
    let budgets = cache::Budgets { memory: 64 * MIB, disk: 64 * MIB };
    let cache = cache::Cache::open(&dir.path().join("cache"), bucket, budgets).unwrap();
    let sealed = bytes::Bytes::from(types::noise(1, 1 << 20));
    cache.insert_whole("pack/aa/aaaa", sealed.clone());
    let mut group = c.benchmark_group("cache");
    group.throughput(Throughput::Bytes(128 << 10));
    group.bench_function("disk, 128 KiB of sealed bytes", |b| {
        b.iter(|| cache.sealed_local(black_box("pack/aa/aaaa"), 4096..4096 + (128 << 10)).unwrap());
    });
    group.throughput(Throughput::Elements(1));
    group.bench_function("disk, what is not there", |b| {
        b.iter(|| cache.sealed_local(black_box("pack/bb/bbbb"), 0..4096));
    });
    group.finish();
    runtime.block_on(cache.end());
}

/// A journal in its own directory.
fn journal(dir: &std::path::Path) -> Arc<log::Journal> {
    let options = log::JournalOptions {
        keys: keys(),
        boot: "bench".into(),
        disk: Arc::new(os::Directory::open(&dir.join("journal")).unwrap()),
        watcher: None,
        room: None,
    };
    let noted = log::NotedCommit::head(CommitNo(0), Hash::ZERO);
    Arc::new(log::Journal::create(options, noted).unwrap())
}

/// A dentry and its inode, as creating a file writes them.
fn file(number: u64) -> (records::Entry, records::Inode) {
    let entry = records::Entry {
        name: format!("file-{number}").into(),
        ino: InodeNo(number),
        kind: libc::S_IFREG,
    };
    (entry, records::Inode::default())
}

/// Writing a change to the journal, without and with the barrier of an fsync.
fn journals(c: &mut Criterion) {
    let dir = tempfile::tempdir().unwrap();
    let journal = journal(dir.path());
    let change = records::Change { key: vec![1; 20], value: Some(types::noise(1, 200).into()) };
    let transaction = records::Transaction::new(vec![change; 3]);
    let mut group = c.benchmark_group("journal");
    group.bench_function("append", |b| {
        b.iter(|| journal.append_for(black_box(&transaction), log::RoomClass::Change).unwrap());
    });
    group.bench_function("append and sync", |b| {
        b.iter(|| {
            journal.append_for(black_box(&transaction), log::RoomClass::Change).unwrap();
            journal.sync_data(journal.mark().unwrap()).unwrap()
        });
    });
    group.finish();
}

/// Look-ups among 50,000 names of one directory, most of them in sled; and creating one more.
fn look_ups(c: &mut Criterion) {
    const FILES: u64 = 50_000;
    const ROOT: InodeNo = InodeNo(1);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let options = index::IndexOptions {
        dir: dir.path().join("index"),
        keys: keys(),
        base: checkpoint::Base::empty(),
        memory: index::IndexMemory::of(256 * MIB),
    };
    let index = index::Index::open(options).unwrap();
    index.attach(journal(dir.path()));
    let make = |from: u64, count: u64| {
        let put = move |draft: &mut index::Draft<'_>| {
            for (entry, inode) in (from..from + count).map(file) {
                draft.put_entry(ROOT, &entry);
                draft.put_inode(entry.ino, &inode);
            }
            Ok::<_, index::Error>(())
        };
        runtime.block_on(index.change(put)).unwrap();
    };
    (0..FILES / 1000).for_each(|thousand| make(2 + thousand * 1000, 1000));
    let mut group = c.benchmark_group("index");
    let mut number = 0;
    let mut next = || {
        number = (number + 7919) % FILES;
        format!("file-{}", number + 2).into_bytes()
    };
    group.bench_function("look-up of a name", |b| {
        let look = |name: Vec<u8>| {
            let found = runtime.block_on(index.read(|view| view.entry(ROOT, &name)));
            found.unwrap().unwrap()
        };
        b.iter_batched(&mut next, look, BatchSize::SmallInput);
    });
    group.bench_function("a name that is not there", |b| {
        b.iter(|| runtime.block_on(index.read(|view| view.entry(ROOT, b"nothing"))).unwrap());
    });
    let mut new = FILES + 2;
    group.bench_function("a file that is made", |b| {
        b.iter(|| {
            make(new, 1);
            new += 1;
        });
    });
    group.finish();
}

criterion_group! {
    name = steps;
    config = Criterion::default().measurement_time(Duration::from_secs(2)).warm_up_time(Duration::from_millis(500));
    targets = seals, extent_maps, caches, journals, look_ups
}
criterion_main!(steps);
