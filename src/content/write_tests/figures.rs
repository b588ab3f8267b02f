//! What it costs.

use super::*;

/// CPU time of this thread: the wall's is the neighbours' too.
fn cpu() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: it writes to the timespec only.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap())
}

/// Not a judgement of time, so not run by itself: `cargo test --lib content::write_tests::figures -- --ignored --nocapture`.
#[test]
#[ignore = "prints figures"]
fn figures() {
    let world = world();
    let data = pattern(1, 4096);
    let began = cpu();
    let count = 50_000u32;
    for i in 0..count {
        let file = world.content.file(InodeNo(i.into()));
        _ = now(file.write(0, &data)).unwrap();
        let publication = now(file.seal()).unwrap();
        _ = world.staging.appending(Seq(1), &[publication.pieces[0].1.reference.pack]).unwrap();
        file.published(publication);
    }
    println!("a 4 KiB file, written, sealed, published: {:?}", (cpu() - began) / count);
    for size in [4 << 10, 128 << 10, 1 << 20] {
        let file = world.content.file(InodeNo(u64::from(u32::MAX) + size as u64));
        let data = pattern(2, size);
        let began = cpu();
        let total = 512u64 << 20;
        for offset in (0..total).step_by(size) {
            _ = now(file.write(offset, &data)).unwrap();
        }
        let publication = now(file.seal()).unwrap();
        let took = cpu() - began;
        println!("a stream in pieces of {} KiB: {:?} for each GiB", size >> 10, took * 2);
        file.published(publication);
    }
    let file = world.content.file(InodeNo(u64::MAX));
    let began = cpu();
    for i in 0..count {
        _ = now(file.write(u64::from(i) * 7919 % 65536 * 8192, &data)).unwrap();
    }
    println!("a scattered 4 KiB write: {:?}", (cpu() - began) / count);
    file.discard();
}
