//! Single cases of names, attributes, ACLs, read-only mounts, and what a call costs.

use super::*;

const ROOT: InodeNo = InodeNo::ROOT;
const BY_ROOT: Setter = Setter::Superuser;

#[tokio::test]
async fn a_small_file_copied_with_its_times_costs_two_transactions() {
    let world = World::new().await;
    let vfs = world.vfs();
    let before = world.transactions();
    let (seen, handle) = vfs.create(&ALICE, ROOT, b"f", 0o600, WRITE).await.unwrap();
    assert!(matches!(vfs.xattr(seen.ino, b"security.capability").await, Err(Error::NoAttribute)));
    vfs.write(handle, WriteAt::Offset(0), &[7; 4096]).await.unwrap();
    let set = SetAttributes {
        mtime: Some(SetTime::Now),
        atime: Some(SetTime::Now),
        ..SetAttributes::default()
    };
    vfs.set_attributes(seen.ino, &set).await.unwrap();
    // The ACL that `cp -a` sets on a file that has a mode of 0600 already.
    let line = |tag: u16, perm: u16| {
        [tag.to_le_bytes(), perm.to_le_bytes(), [0xff; 2], [0xff; 2]].concat()
    };
    let acl = [&2_u32.to_le_bytes()[..], &line(1, 6), &line(4, 0), &line(32, 0)].concat();
    vfs.set_xattr(seen.ino, b"system.posix_acl_access", &acl, 0, &BY_ROOT).await.unwrap();
    vfs.flush(handle).await.unwrap();
    vfs.release(handle).await.unwrap();
    assert_eq!(world.transactions() - before, 2);
    let acl = [&2_u32.to_le_bytes()[..], &line(1, 6), &line(4, 4), &line(32, 4)].concat();
    vfs.set_xattr(seen.ino, b"system.posix_acl_access", &acl, 0, &BY_ROOT).await.unwrap();
    assert_eq!(vfs.attributes(seen.ino).await.unwrap().mode & 0o7777, 0o644);
    assert!(vfs.xattrs(seen.ino).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_read_alone_never_causes_a_transaction_but_its_time_rides_in_the_next() {
    let mut world = World::new().await;
    let ino = world.file("f", b"read me").await;
    let made = world.vfs().attributes(ino).await.unwrap();
    let before = world.transactions();
    world.bytes(ino).await;
    let read = world.vfs().attributes(ino).await.unwrap();
    assert!(read.atime > made.atime);
    assert_eq!(world.transactions(), before);
    world.vfs().mkdir(&ALICE, ROOT, b"d", 0o755).await.unwrap();
    assert_eq!(world.transactions(), before + 1);
    world.reopen(Reopen::Kill).await;
    assert_eq!(world.vfs().attributes(ino).await.unwrap().atime, read.atime);
}

#[tokio::test]
async fn names_are_checked() {
    let world = World::new().await;
    let vfs = world.vfs();
    let long = [b'n'; 256];
    assert!(matches!(vfs.mkdir(&ALICE, ROOT, &long, 0o755).await, Err(Error::NameTooLong)));
    assert!(matches!(vfs.lookup(ROOT, &long).await, Err(Error::NameTooLong)));
    assert!(matches!(vfs.unlink(ROOT, &long).await, Err(Error::NameTooLong)));
    vfs.mkdir(&ALICE, ROOT, &long[..255], 0o755).await.unwrap();
    let target = [b't'; 4096];
    assert!(matches!(vfs.symlink(&ALICE, ROOT, b"l", &target).await, Err(Error::NameTooLong)));
    vfs.symlink(&ALICE, ROOT, b"l", &target[..4095]).await.unwrap();
    assert_eq!(vfs.lookup(ROOT, b"l").await.unwrap().size, 4095);
    assert_eq!(vfs.lookup(ROOT, b"..").await.unwrap().ino, ROOT);
}

#[tokio::test]
async fn a_read_only_mount_changes_nothing() {
    let mut world = World::new().await;
    let ino = world.file("f", b"content").await;
    world.options.read_only = true;
    world.reopen(Reopen::Kill).await;
    let vfs = world.vfs();
    let before = world.transactions();
    let set = SetAttributes { mode: Some(0), ..SetAttributes::default() };
    let errors = [
        vfs.mkdir(&ALICE, ROOT, b"d", 0).await.map(drop),
        vfs.unlink(ROOT, b"f").await,
        vfs.rename((ROOT, b"f"), (ROOT, b"g"), RenameMode::Replace).await,
        vfs.link(ino, ROOT, b"g").await.map(drop),
        vfs.open(ino, WRITE).await.map(drop),
        vfs.set_attributes(ino, &set).await.map(drop),
        vfs.set_xattr(ino, b"user.a", b"", 0, &BY_ROOT).await,
    ];
    for error in errors {
        assert_eq!(error.unwrap_err().errno(), libc::EROFS);
    }
    assert_eq!(world.bytes(ino).await, b"content");
    assert_eq!(world.transactions(), before);
}

#[tokio::test]
async fn sparse_files_reach_as_far_as_an_offset_can() {
    let mut world = World::new().await;
    let (seen, handle) = world.vfs().create(&ALICE, ROOT, b"f", 0o644, WRITE).await.unwrap();
    let far = SIZE_MAX - 3;
    world.vfs().write(handle, WriteAt::Offset(far), b"end").await.unwrap();
    let beyond = world.vfs().write(handle, WriteAt::Offset(far), b"ends").await;
    assert_eq!(beyond.unwrap_err().errno(), libc::EFBIG);
    let set = SetAttributes { size: Some(SIZE_MAX + 1), ..SetAttributes::default() };
    assert!(matches!(world.vfs().set_attributes(seen.ino, &set).await, Err(Error::TooBig)));
    let block = far - far % 4096;
    assert_eq!(world.vfs().seek(handle, 5, Seek::Data).await.unwrap(), block);
    world.vfs().flush(handle).await.unwrap();
    world.file("g", b"").await;
    world.reopen(Reopen::Kill).await;
    let handle = world.vfs().open(seen.ino, READ).await.unwrap();
    assert_eq!(&world.vfs().read_data(handle, far - 2, 100).await.unwrap()[..], b"\0\0end");
    let seen = world.vfs().attributes(seen.ino).await.unwrap();
    assert_eq!((seen.size, seen.blocks), (SIZE_MAX, 1));
    assert_eq!(world.vfs().seek(handle, 0, Seek::Hole).await.unwrap(), 0);
    assert_eq!(world.vfs().seek(handle, far, Seek::Hole).await.unwrap(), SIZE_MAX);
    assert!(world.vfs().space().await.is_ok());
}

#[tokio::test]
async fn setgid_and_default_acls_are_inherited() {
    let world = World::new().await;
    let vfs = world.vfs();
    let dir = vfs.mkdir(&ALICE, ROOT, b"d", 0o755).await.unwrap();
    let set = SetAttributes { mode: Some(0o2775), gid: Some(55), ..SetAttributes::default() };
    vfs.set_attributes(dir.ino, &set).await.unwrap();
    let below = vfs.mkdir(&ALICE, dir.ino, b"below", 0o777).await.unwrap();
    assert_eq!((below.gid, below.mode & 0o7777), (55, 0o2755));

    let line = |tag: u16, perm: u16, id: u32| {
        [&tag.to_le_bytes()[..], &perm.to_le_bytes(), &id.to_le_bytes()].concat()
    };
    let none = u32::MAX;
    let lines =
        [line(1, 7, none), line(2, 6, 42), line(4, 5, none), line(16, 7, none), line(32, 0, none)];
    let default = [&2_u32.to_le_bytes()[..], &lines.concat()].concat();
    vfs.set_xattr(dir.ino, b"system.posix_acl_default", &default, 0, &BY_ROOT).await.unwrap();
    let (file, handle) = vfs.create(&ALICE, dir.ino, b"f", 0o666, WRITE).await.unwrap();
    vfs.release(handle).await.unwrap();
    assert_eq!(file.mode & 0o7777, 0o660, "no umask: the default ACL stands for it");
    let acl = vfs.xattr(file.ino, b"system.posix_acl_access").await.unwrap();
    assert_eq!(&acl[4..12], line(1, 6, none), "the owner's line follows the mode");
    let set = SetAttributes { mode: Some(0o600), ..SetAttributes::default() };
    vfs.set_attributes(file.ino, &set).await.unwrap();
    let acl = vfs.xattr(file.ino, b"system.posix_acl_access").await.unwrap();
    assert_eq!(acl[4 + 3 * 8 + 2], 0, "chmod changes the mask");
    let sub = vfs.mkdir(&ALICE, dir.ino, b"sub", 0o777).await.unwrap();
    assert_eq!(vfs.xattr(sub.ino, b"system.posix_acl_default").await.unwrap(), default);
}

#[tokio::test]
async fn a_listing_survives_changes_between_its_parts() {
    let world = World::new().await;
    let vfs = world.vfs();
    for number in 0..200 {
        vfs.mkdir(&ALICE, ROOT, format!("stays {number}").as_bytes(), 0o755).await.unwrap();
        vfs.mkdir(&ALICE, ROOT, format!("goes {number}").as_bytes(), 0o755).await.unwrap();
    }
    let (mut cookie, mut seen, mut round) = (0, std::collections::BTreeSet::new(), 0);
    loop {
        let part = vfs.read_dir_plus(ROOT, cookie, 7).await.unwrap();
        let Some(last) = part.last() else { break };
        cookie = last.cookie;
        for entry in part {
            assert!(seen.insert(entry.name), "listed twice");
        }
        vfs.rmdir(ROOT, format!("goes {round}").as_bytes()).await.unwrap();
        vfs.mkdir(&ALICE, ROOT, format!("comes {round}").as_bytes(), 0o755).await.unwrap();
        round += 1;
    }
    for number in 0..200 {
        assert!(seen.contains(format!("stays {number}").as_bytes()), "{number}");
    }
}

#[tokio::test]
async fn a_full_staging_area_is_enospc_at_write_and_unlink_still_works() {
    let world = World::with(VfsOptions::default(), 256 * 1024).await;
    let vfs = world.vfs();
    let (_, handle) = vfs.create(&ALICE, ROOT, b"f", 0o644, WRITE).await.unwrap();
    let mut offset = 0;
    let errno = loop {
        match vfs.write(handle, WriteAt::Offset(offset), &[1; 16384]).await {
            Ok(length) => offset += u64::from(length),
            Err(error) => break error.errno(),
        }
        assert!(offset < 1 << 20, "more than staging holds was taken");
    };
    assert_eq!(errno, libc::ENOSPC);
    vfs.flush(handle).await.unwrap();
    vfs.release(handle).await.unwrap();
    vfs.unlink(ROOT, b"f").await.unwrap();
}

#[tokio::test]
async fn a_full_staging_area_is_waited_for_while_anything_gets_to_the_bucket() {
    let world = World::with(VfsOptions::default(), 1 << 20).await;
    let vfs = world.vfs();
    let (_, handle) = vfs.create(&ALICE, ROOT, b"f", 0o644, WRITE).await.unwrap();
    let mut held = Vec::new();
    while let Some(part) = world.staging.try_reserve(32 << 10).unwrap() {
        held.push(part);
    }
    let data = vec![1; 64 << 10];
    let write = || vfs.write(handle, WriteAt::Offset(0), &data);
    assert_eq!(write().await.unwrap_err().errno(), libc::ENOSPC);
    // The link moves. The write waits six times as long as staging itself does, and would go on waiting.
    world.durable.moves.store(1, Ordering::SeqCst);
    let write = write();
    tokio::pin!(write);
    assert!(tokio::time::timeout(Duration::from_millis(300), &mut write).await.is_err());
    held.clear();
    assert_eq!(write.await.unwrap(), 64 << 10);
    vfs.flush(handle).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn writers_who_stand_in_line_at_one_file_wait_for_room_once() {
    let world = World::with(VfsOptions::default(), 1 << 20).await;
    let vfs = world.vfs();
    let (_, handle) = vfs.create(&ALICE, ROOT, b"f", 0o644, WRITE).await.unwrap();
    let mut held = Vec::new();
    while let Some(part) = world.staging.try_reserve(32 << 10).unwrap() {
        held.push(part);
    }
    let data = vec![1; 64 << 10];
    let write = || vfs.write(handle, WriteAt::Offset(0), &data);
    let (wait, begun) = (Duration::from_millis(50), tokio::time::Instant::now());
    for _ in 0..20 {
        assert_eq!(write().await.unwrap_err().errno(), libc::ENOSPC);
    }
    assert!((wait..2 * wait).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    // If there is room it is given at once; if the link moves, the write waits for room.
    let part = held.pop();
    assert_eq!(write().await.unwrap_err().errno(), libc::ENOSPC, "not for all of it");
    world.durable.moves.store(1, Ordering::SeqCst);
    assert!(tokio::time::timeout(6 * wait, write()).await.is_err());
    world.durable.moves.store(0, Ordering::SeqCst);
    assert_eq!(write().await.unwrap_err().errno(), libc::ENOSPC);
    drop((part, held));
    assert_eq!(write().await.unwrap(), 64 << 10);
    vfs.flush(handle).await.unwrap();
}

#[tokio::test]
async fn a_reader_with_o_noatime_leaves_the_atime_alone() {
    let world = World::new().await;
    let vfs = world.vfs();
    let ino = world.file("f", b"read me").await;
    let made = vfs.attributes(ino).await.unwrap();
    let handle = vfs.open(ino, OpenFlags { no_atime: true, ..READ }).await.unwrap();
    assert_eq!(&vfs.read_data(handle, 0, 100).await.unwrap()[..], b"read me");
    assert_eq!(vfs.attributes(ino).await.unwrap().atime, made.atime);
    let handle = vfs.open(ino, READ).await.unwrap();
    vfs.read_data(handle, 0, 100).await.unwrap();
    assert!(vfs.attributes(ino).await.unwrap().atime > made.atime);
    let root = vfs.attributes(ROOT).await.unwrap();
    vfs.read_dir(ROOT, 0, 10).await.unwrap();
    assert_eq!(vfs.attributes(ROOT).await.unwrap().atime, root.atime);
    vfs.note_listing(ROOT).await.unwrap();
    assert!(vfs.attributes(ROOT).await.unwrap().atime > root.atime);
}

#[tokio::test]
async fn an_acl_set_by_a_stranger_to_the_group_takes_setgid() {
    let world = World::new().await;
    let vfs = world.vfs();
    let line = |tag: u16, perm: u16, id: u32| {
        [&tag.to_le_bytes()[..], &perm.to_le_bytes(), &id.to_le_bytes()].concat()
    };
    let none = u32::MAX;
    let plain = [line(1, 7, none), line(4, 7, none), line(32, 0, none)].concat();
    let named = [line(1, 7, none), line(2, 6, 42), line(4, 7, none), line(16, 7, none)].concat();
    let named = [named, line(32, 0, none)].concat();
    let stranger = Setter::Member(vec![100, 7]);
    let member = Setter::Member(vec![7, 55]);
    for (at, lines) in [plain, named].iter().enumerate() {
        let acl = [&2_u32.to_le_bytes()[..], lines].concat();
        for (by, setgid) in [(&BY_ROOT, 0o2000), (&member, 0o2000), (&stranger, 0)] {
            let name = format!("{at} {by:?}");
            let ino = vfs.mkdir(&ALICE, ROOT, name.as_bytes(), 0o755).await.unwrap().ino;
            let set =
                SetAttributes { mode: Some(0o2770), gid: Some(55), ..SetAttributes::default() };
            vfs.set_attributes(ino, &set).await.unwrap();
            vfs.set_xattr(ino, b"system.posix_acl_access", &acl, 0, by).await.unwrap();
            let seen = vfs.attributes(ino).await.unwrap();
            assert_eq!(seen.mode & 0o7777, 0o770 | setgid, "{name}");
        }
    }
}

#[tokio::test]
async fn blocks_count_what_is_written_and_no_holes_before_it_is_published_too() {
    let world = World::new().await;
    let vfs = world.vfs();
    let (seen, handle) = vfs.create(&ALICE, ROOT, b"f", 0o644, WRITE).await.unwrap();
    vfs.write(handle, WriteAt::Offset(1 << 40), &[1; 5000]).await.unwrap();
    assert_eq!(vfs.attributes(seen.ino).await.unwrap().blocks, 10);
    vfs.write(handle, WriteAt::Offset(0), &[1; 5000]).await.unwrap();
    assert_eq!(vfs.attributes(seen.ino).await.unwrap().blocks, 20);
    vfs.flush(handle).await.unwrap();
    assert_eq!(vfs.attributes(seen.ino).await.unwrap().blocks, 20);
}

#[tokio::test]
async fn statfs_says_what_is_used_and_what_can_be_written() {
    let world = World::new().await;
    let vfs = world.vfs();
    let empty = vfs.space().await.unwrap();
    assert_eq!((empty.block, empty.blocks, empty.free), (BLOCK, ENDLESS / BLOCK, ENDLESS / BLOCK));
    world.file("f", &[1; 10_000]).await;
    let full = vfs.space().await.unwrap();
    assert_eq!(full.blocks - full.free, 3);
    assert_eq!(full.inodes - full.free_inodes, empty.inodes - empty.free_inodes + 1);
    world.durable.free.store(100 * BLOCK + 1, Ordering::SeqCst);
    let stalled = vfs.space().await.unwrap();
    assert_eq!((stalled.blocks, stalled.free), (103, 100));
}

#[tokio::test]
async fn an_atime_that_is_set_stays_and_one_that_is_noted_never_goes_back() {
    let mut world = World::new().await;
    let ino = world.file("f", b"read me").await;
    world.bytes(ino).await;
    let read = world.vfs().attributes(ino).await.unwrap().atime;
    // The transaction of the truncation takes the noted read along, and its result shows it.
    let set = SetAttributes { size: Some(3), ..SetAttributes::default() };
    assert_eq!(world.vfs().set_attributes(ino, &set).await.unwrap().atime, read);
    world.bytes(ino).await;
    let read = world.vfs().attributes(ino).await.unwrap().atime;
    assert_eq!(world.vfs().link(ino, ROOT, b"g").await.unwrap().atime, read);
    world.bytes(ino).await;
    let old = Timestamp { seconds: 1000, nanos: 7 };
    let set = SetAttributes { atime: Some(SetTime::To(old)), ..SetAttributes::default() };
    assert_eq!(world.vfs().set_attributes(ino, &set).await.unwrap().atime, old);
    assert_eq!(world.vfs().attributes(ino).await.unwrap().atime, old);
    world.reopen(Reopen::Kill).await;
    assert_eq!(world.vfs().attributes(ino).await.unwrap().atime, old);
}

#[tokio::test]
async fn an_attribute_set_to_what_it_is_changes_nothing() {
    let world = World::new().await;
    let ino = world.file("f", b"").await;
    world.vfs().set_xattr(ino, b"user.a", b"one", 0, &BY_ROOT).await.unwrap();
    let (seen, before) = (world.vfs().attributes(ino).await.unwrap(), world.transactions());
    world.vfs().set_xattr(ino, b"user.a", b"one", 0, &BY_ROOT).await.unwrap();
    assert_eq!(world.vfs().attributes(ino).await.unwrap(), seen);
    assert_eq!(world.transactions(), before);
    world.vfs().set_xattr(ino, b"user.a", b"two", 0, &BY_ROOT).await.unwrap();
    assert!(world.vfs().attributes(ino).await.unwrap().ctime > seen.ctime);
}
