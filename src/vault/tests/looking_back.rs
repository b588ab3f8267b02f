//! The vault as it was: by commit, by time, by name.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use super::*;
use crate::records::{Horizon, Pin};
use crate::types::{CommitNo, Timestamp};
use crate::vault::NoState;

/// What the vault held after each commit, and when that was put.
type States = BTreeMap<CommitNo, (SystemTime, BTreeMap<String, Vec<u8>>)>;

/// The store's clock in a test begins here.
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
    // The last one was put an hour ago.
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
    // Which commits have a checkpoint.
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
    // What is named as a time could be is the snapshot.
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

/// Commits that are in the newest checkpoint are known by their hashes there: another history is not shown.
#[tokio::test]
async fn o2_a_state_that_is_not_of_this_log_is_refused() {
    let world = World::new().await;
    let vault = world.open("a").await;
    let states = lived(&world, &vault).await;
    let listed = crate::checkpoint::manifests(&world.bucket).await.unwrap().0;
    let first = listed[0].number;
    vault.close(LONG).await.unwrap();
    // A checkpoint of the same number, of another history, with this vault's key.
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
