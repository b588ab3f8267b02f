//! What a vault shows when it is opened again, here and elsewhere.

use super::*;
use crate::log::Journal;
use crate::types::CommitNo;

#[tokio::test(flavor = "multi_thread")]
async fn o1_the_bucket_alone_opens_elsewhere() {
    let world = World::new().await;
    let vault = world.open("a").await;
    let model = fill(&vault, "x").await;
    vault.sync(LONG).await.unwrap();
    assert_eq!(tree(&vault).await, model);
    vault.close(LONG).await.unwrap();
    drop(vault);
    world.shows_elsewhere(&model).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn c1_what_is_written_after_a_remount_is_sent_too() {
    let world = World::new().await;
    let mut model = BTreeMap::new();
    for prefix in ["x", "y", "z"] {
        let vault = world.open("a").await;
        model.extend(fill(&vault, prefix).await);
        vault.close(LONG).await.unwrap();
        drop(vault);
    }
    world.shows_elsewhere(&model).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn o1_a_checkpoint_and_the_commits_after_it_open_elsewhere() {
    let world = World::new().await;
    let vault = world.open("a").await;
    let mut model = fill(&vault, "x").await;
    vault.sync(LONG).await.unwrap();
    vault.checkpoint().await.unwrap();
    model.extend(fill(&vault, "y").await);
    write(&vault.vfs(), "x3", b"changed since").await;
    model.insert("x3".into(), b"changed since".to_vec());
    vault.vfs().unlink(InodeNo::ROOT, b"x4").await.unwrap();
    model.remove("x4");
    vault.sync(LONG).await.unwrap();
    assert_eq!(tree(&vault).await, model);
    vault.close(LONG).await.unwrap();
    drop(vault);
    let elsewhere = world.open("b").await;
    assert!(elsewhere.status().head > CommitNo(2));
    assert_eq!(tree(&elsewhere).await, model);
    elsewhere.close(LONG).await.unwrap();
    drop(elsewhere);
    let reader = world.try_open(Machines { read_only: true, ..machine("c") }).await.unwrap();
    assert_eq!(tree(&reader).await, model);
    assert!(try_write(&reader.vfs(), "no", b"x").await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn j1_after_a_kill_every_closed_file_is_here() {
    let world = World::new().await;
    let vault = world.open("a").await;
    world.faulty.disappear();
    let model = fill(&vault, "x").await;
    kill(vault).await;
    world.faulty.heal();
    let journal = world.state_dir("a").join("journal");
    let before = Journal::inspections(&journal);
    let again = world.open("a").await;
    assert_eq!(Journal::inspections(&journal), before + 1, "a mount reads a journal whole once");
    assert_eq!(tree(&again).await, model);
    again.sync(LONG).await.unwrap();
    kill(again).await;
    let elsewhere = world.try_open(Machines { take_over: true, ..machine("b") }).await.unwrap();
    assert_eq!(tree(&elsewhere).await, model);
}

#[tokio::test(flavor = "multi_thread")]
async fn j4_a_deleted_or_broken_index_is_made_anew() {
    let world = World::new().await;
    let vault = world.open("a").await;
    let mut model = fill(&vault, "x").await;
    vault.sync(LONG).await.unwrap();
    vault.checkpoint().await.unwrap();
    model.extend(fill(&vault, "y").await);
    kill(vault).await;
    let index = world.state_dir("a").join("index");
    for broken in [false, true] {
        if broken {
            for entry in std::fs::read_dir(&index).unwrap() {
                let path = entry.unwrap().path();
                if path.is_file() {
                    std::fs::OpenOptions::new()
                        .write(true)
                        .open(path)
                        .unwrap()
                        .set_len(10)
                        .unwrap();
                }
            }
        } else {
            std::fs::remove_dir_all(&index).unwrap();
        }
        let again = world.open("a").await;
        assert_eq!(tree(&again).await, model, "broken: {broken}");
        kill(again).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_state_directory_shows_what_was_in_the_bucket() {
    let world = World::new().await;
    let vault = world.open("a").await;
    let model = fill(&vault, "x").await;
    vault.sync(LONG).await.unwrap();
    kill(vault).await;
    std::fs::remove_dir_all(world.state_dir("a")).unwrap();
    let again = world.open("a").await;
    assert_eq!(tree(&again).await, model);
}

#[tokio::test(flavor = "multi_thread")]
async fn j3_a_damaged_journal_refuses_and_changes_nothing() {
    let world = World::new().await;
    let vault = world.open("a").await;
    world.faulty.disappear();
    fill(&vault, "x").await;
    vault.vfs().fsync_directory().await.unwrap();
    kill(vault).await;
    world.faulty.heal();
    let journal = world.state_dir("a").join("journal");
    let segment = std::fs::read_dir(&journal).unwrap().next().unwrap().unwrap().path();
    let mut content = std::fs::read(&segment).unwrap();
    content[700] ^= 1;
    std::fs::write(&segment, &content).unwrap();
    let before = image(&world.state_dir("a"));
    let refused = world.try_open(machine("a")).await.err().unwrap();
    assert!(refused.to_string().contains("--accept-damage"), "{refused}");
    assert_eq!(image(&world.state_dir("a")), before);
}

/// Every file below a directory, byte for byte.
fn image(dir: &std::path::Path) -> BTreeMap<PathBuf, Vec<u8>> {
    walkdir::WalkDir::new(dir)
        .into_iter()
        .map(Result::<_, _>::unwrap)
        .filter(|entry| entry.file_type().is_file())
        .map(|entry| (entry.path().to_owned(), std::fs::read(entry.path()).unwrap()))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn o2_a_bucket_that_went_back_is_refused_until_accepted() {
    let world = World::new().await;
    let vault = world.open("a").await;
    let old = fill(&vault, "x").await;
    vault.close(LONG).await.unwrap();
    drop(vault);
    let snapshot = world.store.snapshot();
    let vault = world.open("a").await;
    fill(&vault, "y").await;
    vault.close(LONG).await.unwrap();
    drop(vault);
    world.store.restore(snapshot);
    // `check` reports it, too; on a machine that saw nothing it cannot.
    let secret = MasterKey::from_bytes(world.master);
    let unlocked = unlock(&world.bucket, None, &secret).await.unwrap();
    let data = world.dir.path().join("a").join("data");
    for (data, knows) in [(Some(data.as_path()), true), (None, false)] {
        let report = check(&world.bucket, &unlocked, false, data, &|_, _| ()).await.unwrap();
        assert_eq!(report.findings, []);
        assert_eq!(report.went_back.is_some(), knows);
    }
    let refused = world.try_open(machine("a")).await.err().unwrap();
    assert!(matches!(refused, Error::Rollback { .. }), "{refused}");
    std::fs::remove_dir_all(world.state_dir("a")).unwrap();
    let refused = world.try_open(machine("a")).await.err().unwrap();
    assert!(matches!(refused, Error::Rollback { .. }), "a deleted state directory hides nothing");
    let accepted =
        world.try_open(Machines { accept_rollback: true, ..machine("a") }).await.unwrap();
    assert_eq!(tree(&accepted).await, old);
    accepted.close(LONG).await.unwrap();
    drop(accepted);
    let report = check(&world.bucket, &unlocked, false, Some(&data), &|_, _| ()).await.unwrap();
    assert_eq!(report.went_back, None);
    world.open("a").await.close(LONG).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn o1_a_missing_or_swapped_object_is_an_error_that_names_it() {
    let world = World::new().await;
    let vault = world.open("a").await;
    for n in 0..4 {
        write(&vault.vfs(), &format!("f{n}"), b"x").await;
        vault.sync(LONG).await.unwrap();
    }
    vault.close(LONG).await.unwrap();
    drop(vault);
    let whole = world.store.snapshot();
    let name = |n: u64| format!("log/{}", CommitNo(n));
    world.store.steal(&name(3));
    let error = world.try_open(machine("b")).await.err().unwrap();
    assert!(error.to_string().contains("commit 0000000000000003 is missing"), "{error}");
    world.store.plant(&name(3), whole[&name(2)].clone());
    let error = world.try_open(machine("b")).await.err().unwrap();
    assert!(error.to_string().contains(&name(3)), "{error}");
    world.store.restore(whole);
    world.open("b").await.close(LONG).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn o1_a_superblock_that_does_not_verify_is_refused_never_skipped() {
    let world = World::new().await;
    let object = format!("superblock/{}", Generation(1));
    let good = world.store.peek(&object).unwrap();
    let next = format!("superblock/{}", Generation(2));
    world.store.plant(&next, good.clone());
    let error = world.try_open(machine("a")).await.err().unwrap();
    assert!(error.to_string().contains(&next), "{error}");
    world.store.steal(&next);
    let mut changed = good.to_vec();
    let last = changed.len() - 1;
    changed[last] ^= 1;
    world.store.plant(&object, changed);
    let error = world.try_open(machine("a")).await.err().unwrap();
    assert!(error.to_string().contains("MAC"), "{error}");
}
