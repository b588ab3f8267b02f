//! A directory as a store: it answers like the one in memory, whatever is asked and whatever was
//! interrupted before.

use std::fs;
use std::mem::discriminant;
use std::path::Path;

use proptest::prelude::*;

use super::*;

/// Names of which none is a directory of another. Two of them sort differently than in a directory
/// tree.
const NAMES: [&str; 7] = ["b", "log/1", "log/2", "log2", "log-1", "pack/0a/1", "pack/0a/2"];
const PREFIXES: [&str; 6] = ["", "log", "log/", "pack/", "pack/0a/1", "none/"];

#[derive(Clone, Debug)]
enum Op {
    Put(usize, Vec<u8>, bool),
    Get(usize, Option<(u64, u64)>),
    Head(usize),
    List(usize, Option<usize>),
    Delete(Vec<usize>),
}

fn op() -> impl Strategy<Value = Op> {
    let name = 0..NAMES.len();
    prop_oneof![
        4 => (name.clone(), prop::collection::vec(any::<u8>(), 0..9), any::<bool>())
            .prop_map(|(name, bytes, always)| Op::Put(name, bytes, always)),
        2 => (name.clone(), prop::option::of((0u64..12, 1u64..12)))
            .prop_map(|(name, range)| Op::Get(name, range)),
        1 => name.clone().prop_map(Op::Head),
        2 => (0..PREFIXES.len(), prop::option::of(name.clone()))
            .prop_map(|(prefix, after)| Op::List(prefix, after)),
        2 => prop::collection::vec(name, 1..3).prop_map(Op::Delete),
    ]
}

/// What a store did, without its clock and without what only one of the two stores reports.
async fn done(store: &dyn Store, op: &Op) -> Result<String> {
    Ok(match op {
        Op::Put(name, bytes, always) => {
            let condition = if *always { Put::Always } else { Put::IfAbsent };
            let reply = store.put(NAMES[*name], &Body::from(bytes.clone()), condition).await?;
            format!("{:?}", reply.crc32)
        }
        Op::Get(name, range) => {
            let range = range.map(|(start, length)| start..start + length);
            let fetched = store.get(NAMES[*name], range).await?;
            format!("{:?} of {}", fetched.bytes, fetched.object_length)
        }
        Op::Head(name) => store.head(NAMES[*name]).await?.length.to_string(),
        Op::List(prefix, after) => {
            let begin = after.map_or(Begin::First, |name| Begin::After(NAMES[name].to_owned()));
            let page = store.list(PREFIXES[*prefix], &begin).await?;
            let objects = page.objects.iter().map(|object| (&object.name, object.length));
            format!("{:?} {:?}", objects.collect::<Vec<_>>(), page.more)
        }
        Op::Delete(names) => {
            let names: Vec<_> = names.iter().map(|name| NAMES[*name].to_owned()).collect();
            format!("{:?}", store.delete(&names).await?)
        }
    })
}

proptest! {
    #![proptest_config(crate::types::cases(40))]

    #[test]
    fn a_directory_does_what_the_store_in_memory_does(ops in prop::collection::vec(op(), 1..30)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let directory = tempfile::tempdir().unwrap();
            let (real, model) =
                (DirectoryStore::open(directory.path()).await.unwrap(), MemoryStore::new());
            for op in &ops {
                match (done(&real, op).await, done(&model, op).await) {
                    (Ok(real), Ok(model)) => prop_assert_eq!(real, model, "{:?}", op),
                    (Err(real), Err(model)) => {
                        prop_assert_eq!(discriminant(&real), discriminant(&model), "{:?}", op);
                    }
                    (real, model) => prop_assert!(false, "{op:?}: {real:?}, {model:?}"),
                }
            }
            let left = fs::read_dir(directory.path().join(".tmp")).unwrap().count();
            prop_assert_eq!(left, 0, "temporary files are left");
            Ok(())
        })?;
    }
}

fn age(path: &Path, by: Duration) {
    let file = fs::File::options().write(true).open(path).unwrap();
    file.set_modified(SystemTime::now() - by).unwrap();
}

#[tokio::test]
async fn a_put_that_was_cut_off_leaves_nothing_that_counts_and_is_swept_later() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    let store = DirectoryStore::open(root).await.unwrap();
    let hour = Duration::from_secs(3600);
    // Before it had its name: half of it, in a directory that was made for it.
    fs::write(root.join(".tmp/half"), "ha").unwrap();
    fs::create_dir_all(root.join("pack/0a")).unwrap();
    // After it had its name, and before the temporary one was removed.
    store.put("log/1", &Body::from("whole"), Put::IfAbsent).await.unwrap();
    fs::hard_link(root.join("log/1"), root.join(".tmp/whole")).unwrap();
    let names = async || {
        let page = store.list("", &Begin::First).await.unwrap();
        page.objects.into_iter().map(|object| object.name).collect::<Vec<_>>()
    };
    assert_eq!(names().await, ["log/1"]);
    assert!(store.get("pack/0a/1", None).await.unwrap_err().is_not_found());
    store.put("pack/0a/1", &Body::from("again"), Put::IfAbsent).await.unwrap();
    // A recent file may still be being written.
    for (by, left) in [(hour * 23, 2), (hour * 25, 0)] {
        age(&root.join(".tmp/half"), by);
        age(&root.join("log/1"), by);
        DirectoryStore::open(root).await.unwrap();
        assert_eq!(fs::read_dir(root.join(".tmp")).unwrap().count(), left, "{by:?}");
        assert_eq!(names().await, ["log/1", "pack/0a/1"]);
        assert_eq!(store.get("log/1", None).await.unwrap().bytes, "whole");
    }
}

#[tokio::test]
async fn a_name_that_is_a_directory_is_no_object_and_nothing_takes_its_place() {
    let directory = tempfile::tempdir().unwrap();
    let store = DirectoryStore::open(directory.path()).await.unwrap();
    store.put("log/1", &Body::from("x"), Put::IfAbsent).await.unwrap();
    for condition in [Put::IfAbsent, Put::Always] {
        store.put("log", &Body::from("y"), condition).await.unwrap_err();
        store.put("log/1/2", &Body::from("y"), condition).await.unwrap_err();
    }
    for name in ["log", "log/1/2"] {
        assert!(store.get(name, None).await.unwrap_err().is_not_found(), "{name}");
        assert!(store.head(name).await.unwrap_err().is_not_found(), "{name}");
    }
    // A missing object is no error.
    store.delete(&["log/1/2".to_owned(), "log".to_owned()]).await.unwrap();
    assert_eq!(store.get("log/1", None).await.unwrap().bytes, "x");
    let listed = store.list("", &Begin::First).await.unwrap().objects;
    assert_eq!(listed.len(), 1);
    assert_eq!(fs::read_dir(directory.path().join(".tmp")).unwrap().count(), 0);
}

#[tokio::test]
async fn of_many_that_put_one_name_one_wins_and_its_bytes_stay() {
    let directory = tempfile::tempdir().unwrap();
    // Two processes share nothing but the directory.
    let stores = [
        DirectoryStore::open(directory.path()).await,
        DirectoryStore::open(directory.path()).await,
    ];
    for round in 0..20 {
        let name = format!("log/{round}");
        let bodies: Vec<_> = (0..6).map(|racer| Body::from(format!("racer {racer}"))).collect();
        let puts = bodies.iter().enumerate().map(|(racer, body)| {
            stores[racer % 2].as_ref().unwrap().put(&name, body, Put::IfAbsent)
        });
        let puts = futures_util::future::join_all(puts).await;
        let won: Vec<_> = (0..6).filter(|racer| puts[*racer].is_ok()).collect();
        assert!(puts.iter().flat_map(Result::as_ref).count() == 1, "{puts:?}");
        assert!(
            puts.iter()
                .filter_map(|put| put.as_ref().err())
                .all(|error| matches!(error, Error::Exists { .. }))
        );
        let there = fs::read(directory.path().join(&name)).unwrap();
        assert_eq!(there, bodies[won[0]].bytes()[..]);
    }
}
