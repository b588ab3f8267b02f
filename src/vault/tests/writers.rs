//! Who writes: W1, W2, W3, and what is set aside.

use super::*;
use crate::store::{Fault, On, Verb};

#[tokio::test(flavor = "multi_thread")]
async fn w2_another_machine_is_refused_until_released_or_taken_over() {
    let world = World::new().await;
    let one = world.open("a").await;
    write(&one.vfs(), "mine", b"1").await;
    one.sync(LONG).await.unwrap();
    let refused = world.try_open(machine("b")).await.err().unwrap();
    assert!(matches!(refused, Error::OtherWriter { .. }), "{refused}");
    one.close(LONG).await.unwrap();
    drop(one);
    let other = world.open("b").await;
    assert_eq!(tree(&other).await.len(), 1);
    other.close(LONG).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn w2_a_close_that_could_not_release_says_so_each_time_until_it_can() {
    let world = World::new().await;
    let one = world.open("a").await;
    write(&one.vfs(), "f", b"1").await;
    one.sync(LONG).await.unwrap();
    world.faulty.inject(On::next(Verb::Put, "log/").always(), Fault::Breaks);
    for _ in 0..2 {
        assert!(one.close(LONG).await.is_err());
        let refused = world.try_open(machine("b")).await.err().unwrap();
        assert!(matches!(refused, Error::OtherWriter { .. }), "{refused}");
    }
    world.faulty.heal();
    one.close(LONG).await.unwrap();
    let objects = world.store.names();
    one.close(LONG).await.unwrap();
    assert_eq!(world.store.names(), objects, "once is enough");
    world.open("b").await.close(LONG).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn w2_one_machine_mounts_once() {
    let world = World::new().await;
    let one = world.open("a").await;
    let refused = world.try_open(machine("a")).await.err().unwrap();
    let Error::MountedHere { mountpoint } = refused else { panic!("{refused}") };
    assert_eq!(mountpoint, "/mnt/a");
    one.close(LONG).await.unwrap();
    drop(one);
    world.open("a").await.close(LONG).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn w3_the_fenced_writer_is_read_only_and_keeps_what_is_unsent() {
    let world = World::new().await;
    let one = world.open("a").await;
    write(&one.vfs(), "before", b"1").await;
    one.sync(LONG).await.unwrap();
    let other = world.try_open(Machines { take_over: true, ..machine("b") }).await.unwrap();
    write(&other.vfs(), "theirs", b"2").await;
    other.close(LONG).await.unwrap();
    drop(other);
    write(&one.vfs(), "late", b"3").await;
    let before = one.vfs().lookup(InodeNo::ROOT, b"before").await.unwrap().ino;
    let flags = crate::vfs::OpenFlags { write: true, ..crate::vfs::OpenFlags::default() };
    let held = one.vfs().open(before, flags).await.unwrap();
    assert!(one.sync(LONG).await.is_err());
    assert!(one.status().read_only.is_some());
    // Bytes that nothing would publish are not taken, not even through what is open.
    let refused = one.vfs().write(held, crate::vfs::WriteAt::Offset(0), b"x").await;
    assert!(matches!(refused, Err(crate::vfs::Error::ReadOnly)), "{refused:?}");
    assert!(matches!(one.vfs().open(before, flags).await, Err(crate::vfs::Error::ReadOnly)));
    one.vfs().release(held).await.unwrap();
    assert!(try_write(&one.vfs(), "no", b"x").await.is_err());
    assert_eq!(read(&one.vfs(), b"late").await, b"3", "what is here can be read");
    kill(one).await;
    // The next mount decides by W1: what cannot go on is set aside, neither lost nor merged.
    let again = world.open("a").await;
    let names: Vec<_> = tree(&again).await.into_keys().collect();
    assert_eq!(names, ["before", "theirs"]);
    assert_eq!(again.status().warnings.len(), 1, "{:?}", again.status().warnings);
    let aside = world.state_dir("a").join("set-aside");
    let folder = std::fs::read_dir(aside).unwrap().next().unwrap().unwrap().path();
    assert!(folder.join("records").exists());
    assert_eq!(std::fs::read_dir(folder.join("staging")).unwrap().count(), 1);
    assert_eq!(std::fs::read_dir(folder.join("journal")).unwrap().count(), 1);
    again.close(LONG).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn w1_unsent_changes_go_on_after_own_commits_whose_receipts_were_lost() {
    let world = World::new().await;
    let one = world.open("a").await;
    let mut model = fill(&one, "x").await;
    one.sync(LONG).await.unwrap();
    let journal = world.state_dir("a").join("journal");
    let segment = std::fs::read_dir(&journal).unwrap().next().unwrap().unwrap().path();
    let before = std::fs::metadata(&segment).unwrap().len();
    write(&one.vfs(), "confirmed", b"but not noted").await;
    model.insert("confirmed".into(), b"but not noted".to_vec());
    let noted_from = std::fs::metadata(&segment).unwrap().len();
    assert!(noted_from > before);
    one.sync(LONG).await.unwrap();
    world.faulty.disappear();
    kill(one).await;
    world.faulty.heal();
    // The note of the last commit becomes a torn tail.
    std::fs::OpenOptions::new().write(true).open(&segment).unwrap().set_len(noted_from).unwrap();
    let again = world.open("a").await;
    assert_eq!(tree(&again).await, model);
    assert!(!world.state_dir("a").join("set-aside").exists());
    again.close(LONG).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn w1_nothing_is_sent_before_the_claim() {
    let world = World::new().await;
    let one = world.open("a").await;
    world.faulty.disappear();
    fill(&one, "x").await;
    kill(one).await;
    world.faulty.heal();
    let before = world.store.names().len();
    world.faulty.take_requests();
    let again = world.open("a").await;
    again.close(LONG).await.unwrap();
    let puts: Vec<_> = world
        .faulty
        .take_requests()
        .into_iter()
        .filter(|request| request.verb == crate::store::Verb::Put)
        .map(|request| request.name)
        .collect();
    assert!(puts[0].starts_with("log/"), "{puts:?}");
    assert!(world.store.names().len() > before + 2);
    // A machine that does not know the store yet probes it first (W6), with objects that are not part of
    // the vault.
    let other = world.open("b").await;
    write(&other.vfs(), "f", b"x").await;
    other.close(LONG).await.unwrap();
    let requests = world.faulty.take_requests().into_iter();
    let puts = requests.filter(|request| request.verb == crate::store::Verb::Put);
    let puts: Vec<_> = puts.map(|request| request.name).collect();
    let claim = puts.iter().position(|name| name.starts_with("log/")).unwrap();
    assert!(claim > 0 && puts[..claim].iter().all(|name| name.starts_with("probe/")), "{puts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn w6_a_store_that_ignores_conditions_needs_single_machine() {
    let world = World::new().await;
    let data = world.dir.path().join("a").join("data");
    std::fs::create_dir_all(&data).unwrap();
    let secret = MasterKey::from_bytes(world.master);
    let vault = unlock(&world.bucket, None, &secret).await.unwrap().vault;
    std::fs::write(data.join(format!("{vault}.probed")), "ignored").unwrap();
    let refused = world.try_open(machine("a")).await.err().unwrap();
    assert!(matches!(refused, Error::NoConditionalPuts), "{refused}");
}
