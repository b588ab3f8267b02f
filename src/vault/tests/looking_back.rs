//! The vault as it was: by commit, by time, by name.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::{Duration, SystemTime};

use super::*;
use crate::records::{Horizon, Pin};
use crate::types::{CommitNo, Timestamp};
use crate::vault::{FileVersion, Happened, HistoryStep, NoState, Restored, Restoring};
use crate::vfs;

/// The vault's content after each commit, and when that was put.
type States = BTreeMap<CommitNo, (SystemTime, BTreeMap<String, Vec<u8>>)>;

/// The store's time at the start of a test.
fn noon() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_hours(480_000)
}

/// Changes files a few times, an hour apart, with checkpoints in between.
async fn lived(world: &World, vault: &Vault) -> States {
    let mut states = States::new();
    let mut model = BTreeMap::new();
    for hour in 0..8_usize {
        let now = noon() + Duration::from_hours(hour as u64);
        world.store.set_time(now);
        let name = format!("f{}", hour % 3);
        let data = bytes(hour, 1000 + 7000 * hour);
        write(&vault.vfs(), &name, &data).await;
        model.insert(name, data);
        if hour == 5 {
            vault.vfs().unlink(InodeNo::ROOT, b"f1").await.unwrap();
            model.remove("f1");
        }
        vault.sync(LONG).await.unwrap();
        states.insert(vault.status().head, (now, model.clone()));
        if hour == 2 || hour == 4 {
            vault.checkpoint().await.unwrap();
        }
    }
    world.store.advance(Duration::from_hours(1));
    states
}

async fn shows(world: &World, at: &StateAt) -> Result<(BTreeMap<String, Vec<u8>>, CommitNo)> {
    let who = Machines { at: Some(at), ..machine("viewer") };
    let vault = world.try_open(who).await?;
    let status = vault.status();
    let as_of = status.as_of.unwrap();
    assert_eq!(as_of.commit, status.head);
    assert!(status.read_only.is_some());
    let found = tree(&vault).await;
    let refused = try_write(&vault.vfs(), "new", b"x").await;
    assert!(matches!(refused, Err(crate::vfs::Error::ReadOnly)));
    vault.close(LONG).await?;
    Ok((found, as_of.commit))
}

async fn put_pin(vault: &Vault, name: &str, pin: &Pin) {
    let change = vault.index().change(|draft| draft.put_pin(name.as_bytes(), pin));
    change.await.unwrap();
    vault.sync(LONG).await.unwrap();
}

#[tokio::test]
async fn k4_each_state_is_shown_as_it_was_while_the_writer_goes_on() {
    let world = World::new().await;
    let vault = world.open("a").await;
    let states = lived(&world, &vault).await;
    for (number, (time, model)) in &states {
        let (found, commit) = shows(&world, &StateAt::Commit(number.0)).await.unwrap();
        assert_eq!((&found, commit), (model, *number));
        for minutes in [0, 59] {
            let time = *time + Duration::from_mins(minutes);
            let (found, _) = shows(&world, &StateAt::Time(time)).await.unwrap();
            assert_eq!(&found, model);
        }
    }
    // The last commit was put an hour ago.
    let (_, (_, last)) = states.last_key_value().unwrap();
    let (_, (_, before)) = states.iter().nth_back(1).unwrap();
    for (ago, model) in [(30, last), (61, before), (119, before)] {
        let at = StateAt::Ago(Duration::from_mins(ago));
        assert_eq!(&shows(&world, &at).await.unwrap().0, model, "{ago} minutes ago");
    }
    let future = StateAt::Time(noon() + Duration::from_hours(10_000));
    assert_eq!(&shows(&world, &future).await.unwrap().0, last);
    vault.close(LONG).await.unwrap();
}

#[tokio::test]
async fn a_state_that_never_was_is_refused() {
    let world = World::new().await;
    world.store.set_time(noon());
    let vault = world.open("a").await;
    lived(&world, &vault).await;
    let early = StateAt::Time(noon() - Duration::from_secs(1));
    let refused = shows(&world, &early).await.unwrap_err();
    let Error::NoState(NoState::TooOld { oldest, time, deleted: false }) = refused else {
        panic!("{refused}")
    };
    assert_eq!((oldest, time), (CommitNo(1), Some(Timestamp::from(noon()))));
    for number in [0, 10_000] {
        let refused = shows(&world, &StateAt::Commit(number)).await.unwrap_err();
        assert!(matches!(refused, Error::NoState(NoState::NoCommit { .. })), "{refused}");
    }
    let refused = shows(&world, &StateAt::Named("x".into(), None)).await.unwrap_err();
    assert!(matches!(refused, Error::NoState(NoState::NoSnapshot { .. })), "{refused}");
    vault.close(LONG).await.unwrap();
}

#[tokio::test]
async fn k4_before_the_horizon_only_what_is_pinned_is_shown() {
    let world = World::new().await;
    let vault = world.open("a").await;
    let states = lived(&world, &vault).await;
    // The commits that have a checkpoint.
    let listed = crate::checkpoint::manifests(&world.bucket).await.unwrap().0;
    let [first, second] = listed[..] else { panic!("two checkpoints were made: {listed:?}") };
    let now = world.bucket.list_all("log/").await.unwrap().1;
    let pin = |ends: Option<SystemTime>| Pin {
        commit: first.number,
        created: Timestamp::default(),
        ends: ends.map(Timestamp::from),
    };
    let horizon =
        Horizon { commit: second.number, emptied: CommitNo(0), time: Timestamp::default() };
    let change = vault.index().change(|draft| {
        draft.put_horizon(&horizon);
        Ok::<_, crate::index::Error>(())
    });
    change.await.unwrap();
    vault.sync(LONG).await.unwrap();
    let at = StateAt::Commit(first.number.0);
    let refused = shows(&world, &at).await.unwrap_err();
    let Error::NoState(NoState::TooOld { oldest, deleted: true, .. }) = refused else {
        panic!("{refused}")
    };
    assert_eq!(oldest, second.number);

    put_pin(&vault, "2026-11-28", &pin(None)).await;
    let over = pin(Some(now - Duration::from_secs(1)));
    put_pin(&vault, "over", &over).await;
    let model = &states.range(..=first.number).next_back().unwrap().1.1;
    let named = |name: &str| StateAt::Named(name.into(), Some(Box::new(StateAt::Time(now))));
    // If a snapshot is named like a time, the snapshot is meant.
    for at in [at, named("2026-11-28")] {
        assert_eq!(&shows(&world, &at).await.unwrap().0, model);
    }
    let (_, (_, last)) = states.last_key_value().unwrap();
    assert_eq!(&shows(&world, &named("2026-11-29")).await.unwrap().0, last);
    let refused = shows(&world, &StateAt::Named("over".into(), None)).await.unwrap_err();
    let Error::NoState(NoState::NoSnapshot { there, .. }) = refused else { panic!("{refused}") };
    assert_eq!(there, ["2026-11-28"], "one whose time is over is none");
    // From the horizon on, everything is there.
    for (number, (_, model)) in states.range(second.number..) {
        let at = StateAt::Commit(number.0);
        assert_eq!(&shows(&world, &at).await.unwrap().0, model);
    }
    vault.close(LONG).await.unwrap();
}

/// Commits in the newest checkpoint are known by their hashes there: a state of another history is not
/// shown.
#[tokio::test]
async fn o2_a_state_that_is_not_of_this_log_is_refused() {
    let world = World::new().await;
    let vault = world.open("a").await;
    let states = lived(&world, &vault).await;
    let listed = crate::checkpoint::manifests(&world.bucket).await.unwrap().0;
    let first = listed[0].number;
    vault.close(LONG).await.unwrap();
    // A checkpoint with the same number, of another history, sealed with this vault's key.
    let mut other = listed[0].open(&world.bucket, &world.keys).await.unwrap();
    other.commit_hash = crate::types::Hash([7; 32]);
    let name = other.name();
    let time = states.last_key_value().unwrap().1.0;
    world.store.set_time(noon() + Duration::from_hours(2));
    world.store.plant(&name, other.seal(&world.keys).unwrap());
    world.store.set_time(time + Duration::from_hours(1));
    let refused = shows(&world, &StateAt::Commit(first.0)).await.unwrap_err();
    assert!(matches!(refused, Error::Rollback { number } if number == first), "{refused}");
}

/// What happened to a path, and at which commits.
async fn told(vault: &Vault, path: &[&str]) -> Vec<FileVersion> {
    let mut versions = Vec::new();
    let mut tell = |step| {
        if let HistoryStep::Version(version) = step {
            versions.push(version);
        }
        ControlFlow::Continue(())
    };
    vault.history(&names(path), &mut tell).await.unwrap();
    versions
}

fn names(path: &[&str]) -> Vec<Vec<u8>> {
    path.iter().map(|name| name.as_bytes().to_vec()).collect()
}

async fn restored(
    vault: &Vault,
    path: &[&str],
    at: Option<StateAt>,
    to: Option<&[&str]>,
) -> Result<Restored> {
    let what = Restoring { path: names(path), at, to: to.map(names) };
    vault.restore(&what, &mut |_| ControlFlow::Continue(())).await
}

fn happened(versions: &[FileVersion]) -> Vec<(Happened, u64)> {
    versions.iter().map(|version| (version.what.clone(), version.size)).collect()
}

#[tokio::test]
async fn a_history_tells_what_became_of_a_path() {
    let world = World::new().await;
    let vault = world.open("a").await;
    lived(&world, &vault).await;
    let versions = told(&vault, &["f1"]).await;
    let size = |hour: u64| 1000 + 7000 * hour;
    let expected = [
        (Happened::Created, size(1)),
        (Happened::Written, size(4)),
        (Happened::Deleted, size(4)),
        (Happened::Created, size(7)),
    ];
    // In the sixth hour it is written and deleted, in one commit or in two.
    let mut found = happened(&versions);
    found.retain(|found| *found != (Happened::Written, size(5)));
    found.iter_mut().filter(|(what, _)| *what == Happened::Deleted).for_each(|f| f.1 = size(4));
    assert_eq!(found, expected);
    let hours = versions.first().unwrap().time;
    assert_eq!(SystemTime::from(hours), noon() + Duration::from_hours(1));
    assert!(versions.iter().all(|version| version.host.is_some()));

    // Names of directories on the path count, too.
    let vfs = vault.vfs();
    let dir = vfs.mkdir(&USER, InodeNo::ROOT, b"dir", 0o755).await.unwrap().ino;
    vfs.rename((InodeNo::ROOT, b"f1"), (dir, b"inner"), vfs::RenameMode::Replace).await.unwrap();
    vault.sync(LONG).await.unwrap();
    vfs.rename((InodeNo::ROOT, b"dir"), (InodeNo::ROOT, b"new"), vfs::RenameMode::Replace)
        .await
        .unwrap();
    vault.sync(LONG).await.unwrap();
    assert_eq!(told(&vault, &["f1"]).await.last().unwrap().what, Happened::Left);
    let arrived = [(Happened::Arrived, size(7)), (Happened::Left, size(7))];
    assert_eq!(happened(&told(&vault, &["dir", "inner"]).await), arrived);
    assert_eq!(happened(&told(&vault, &["new", "inner"]).await), arrived[..1]);
    assert_eq!(told(&vault, &["never"]).await, []);
    vault.close(LONG).await.unwrap();
}

#[tokio::test]
async fn v4_a_file_comes_back_as_it_was() {
    let world = World::new().await;
    let vault = world.open("a").await;
    let vfs = vault.vfs();
    let (old, new) = (bytes(1, 300_000), bytes(2, 5000));
    write(&vfs, "f", &old).await;
    let ino = vfs.lookup(InodeNo::ROOT, b"f").await.unwrap().ino;
    let value = b"value";
    vfs.set_xattr(ino, b"user.x", value, 0, &vfs::Setter::Superuser).await.unwrap();
    vault.sync(LONG).await.unwrap();
    let before = *vfs.lookup(InodeNo::ROOT, b"f").await.unwrap();
    write(&vfs, "f", &new).await;
    vault.sync(LONG).await.unwrap();
    let only = restored(&vault, &["f"], None, Some(&["deep", "copy"])).await.unwrap();
    assert_eq!((only.files, only.bytes), (1, old.len() as u64));
    assert!(read(&vfs, b"f").await == new, "the one that is there stays");
    let deep = vfs.lookup(InodeNo::ROOT, b"deep").await.unwrap().ino;
    let copy = *vfs.lookup(deep, b"copy").await.unwrap();
    assert!(read_at(&vfs, copy.ino).await.unwrap() == old);
    assert_eq!((copy.mtime, copy.mode, copy.size), (before.mtime, before.mode, before.size));
    assert_eq!(vfs.xattr(copy.ino, b"user.x").await.unwrap(), value);

    // It is restored in place, and then back again: what was replaced is in the history.
    restored(&vault, &["f"], None, None).await.unwrap();
    assert!(read(&vfs, b"f").await == old);
    vault.sync(LONG).await.unwrap();
    restored(&vault, &["f"], None, None).await.unwrap();
    assert!(read(&vfs, b"f").await == new);
    vault.sync(LONG).await.unwrap();
    vfs.unlink(InodeNo::ROOT, b"f").await.unwrap();
    vault.sync(LONG).await.unwrap();
    restored(&vault, &["f"], None, None).await.unwrap();
    assert!(read(&vfs, b"f").await == new, "the last before it was deleted");
    vault.sync(LONG).await.unwrap();
    let refused = restored(&vault, &["never"], None, None).await.unwrap_err();
    assert!(matches!(refused, Error::NoState(NoState::NoOther)), "{refused}");
    // Nothing of the past stays on this disk.
    let past = world.state_dir("a").join("past");
    assert_eq!(std::fs::read_dir(past).unwrap().count(), 0);
    vault.close(LONG).await.unwrap();
    let model = BTreeMap::from([("f".to_owned(), new)]);
    world.shows_elsewhere(&model).await;
}

#[tokio::test]
async fn v4_a_directory_comes_back_with_all_that_it_had() {
    let world = World::new().await;
    let vault = world.open("a").await;
    let vfs = vault.vfs();
    let dir = vfs.mkdir(&USER, InodeNo::ROOT, b"dir", 0o750).await.unwrap().ino;
    let sub = vfs.mkdir(&USER, dir, b"sub", 0o700).await.unwrap().ino;
    write(&vfs, "f", &bytes(3, 40_000)).await;
    let file = vfs.lookup(InodeNo::ROOT, b"f").await.unwrap().ino;
    drop(vfs.link(file, sub, b"one").await.unwrap());
    drop(vfs.link(file, sub, b"two").await.unwrap());
    drop(vfs.symlink(&USER, dir, b"link", b"sub/one").await.unwrap());
    drop(vfs.mknod(&USER, dir, b"fifo", libc::S_IFIFO | 0o600, 0).await.unwrap());
    vault.sync(LONG).await.unwrap();
    let at = StateAt::Commit(vault.status().head.0);
    let was = vfs.attributes(sub).await.unwrap();
    for (parent, name) in [(sub, &b"one"[..]), (sub, b"two"), (dir, b"link"), (dir, b"fifo")] {
        vfs.unlink(parent, name).await.unwrap();
    }
    vault.sync(LONG).await.unwrap();
    let refused = restored(&vault, &["dir"], Some(at.clone()), None).await.unwrap_err();
    assert!(matches!(refused, Error::NotRestored(_)), "{refused}");
    let refused = restored(&vault, &["dir"], None, None).await.unwrap_err();
    assert!(matches!(refused, Error::NotRestored(_)), "{refused}");
    let done = restored(&vault, &["dir"], Some(at.clone()), Some(&["back"])).await.unwrap();
    assert_eq!((done.files, done.bytes), (6, 40_000));
    let back = vfs.lookup(InodeNo::ROOT, b"back").await.unwrap();
    assert_eq!(back.mode & 0o777, 0o750);
    let inner = *vfs.lookup(back.ino, b"sub").await.unwrap();
    assert_eq!((inner.mode, inner.mtime), (was.mode, was.mtime));
    let one = *vfs.lookup(inner.ino, b"one").await.unwrap();
    assert_eq!((one.ino, one.nlink), (vfs.lookup(inner.ino, b"two").await.unwrap().ino, 2));
    assert!(read_at(&vfs, one.ino).await.unwrap() == bytes(3, 40_000));
    let link = vfs.lookup(back.ino, b"link").await.unwrap().ino;
    assert_eq!(vfs.read_link(link).await.unwrap(), b"sub/one");
    let fifo = vfs.lookup(back.ino, b"fifo").await.unwrap();
    assert_eq!(fifo.kind(), libc::S_IFIFO);
    // One at a time; a symlink over a file, too.
    write(&vfs, "f", b"x").await;
    restored(&vault, &["dir", "link"], Some(at), Some(&["f"])).await.unwrap();
    assert_eq!(vfs.lookup(InodeNo::ROOT, b"f").await.unwrap().kind(), libc::S_IFLNK);
    vault.close(LONG).await.unwrap();
}

#[tokio::test]
async fn k4_a_copied_bucket_keeps_each_state_that_was_promised() {
    let world = World::new().await;
    let vault = world.open("a").await;
    let states = lived(&world, &vault).await;
    vault.checkpoint().await.unwrap();
    let listed = crate::checkpoint::manifests(&world.bucket).await.unwrap().0;
    let first = listed[0].number;
    vault.close(LONG).await.unwrap();
    drop(vault);
    // The log was trimmed up to the first checkpoint, and then somebody copied the bucket: every date is
    // new.
    for number in 1..=first.0 {
        world.store.steal(&crate::log::commit_name(CommitNo(number))).unwrap();
    }
    world.store.advance(Duration::from_hours(24));
    world.store.restore(world.store.snapshot());
    let promised = || states.iter().filter(|(number, _)| **number >= first);
    assert!(promised().count() > 3);
    let vault = world.open("a").await;
    for round in 0..3 {
        for (number, (_, model)) in promised() {
            let found = shows(&world, &StateAt::Commit(number.0)).await;
            assert_eq!(
                &found.unwrap_or_else(|error| panic!("{round} {number:?}: {error}")).0,
                model
            );
        }
        let done = vault.reclaim(false, &|_| {}).await.unwrap();
        assert_eq!((done.oldest, done.packs.objects), (0, 0), "{done:?}");
        world.store.advance(Duration::from_hours(24));
        write(&vault.vfs(), "more", &bytes(round, 1000)).await;
        vault.sync(LONG).await.unwrap();
    }
    // When the retention, counted from the copy, is over, they go.
    for round in 0..2 {
        world.store.advance(Duration::from_hours(8 * 24));
        write(&vault.vfs(), "more", &bytes(round, 2000)).await;
        vault.reclaim(false, &|_| {}).await.unwrap();
    }
    let left = crate::checkpoint::manifests(&world.bucket).await.unwrap().0;
    assert!(left.iter().all(|manifest| manifest.number > listed[2].number), "{left:?}");
    vault.close(LONG).await.unwrap();
}
