//! Listings, however a store splits them into pages.

use proptest::prelude::*;

use super::odd::OddStore;
use super::*;

/// The names of a page, and where the next one begins.
type ScriptedPage = (Vec<&'static str>, Option<Begin>);

/// A page with these objects and the current time.
fn page<N: Into<String>>(names: impl IntoIterator<Item = N>, more: Option<Begin>) -> Listing {
    let time = SystemTime::now();
    let listed = |name: N| Listed { name: name.into(), length: 1, modified: time };
    Listing { objects: names.into_iter().map(listed).collect(), more, time }
}

/// A token that names the next page.
fn token(number: usize) -> Begin {
    Begin::Token(number.to_string())
}

fn number_of(begin: &Begin) -> usize {
    match begin {
        Begin::Token(token) => token.parse().unwrap_or(0),
        _ => 0,
    }
}

/// A store with these pages.
fn scripted(pages: Vec<ScriptedPage>) -> OddStore {
    let each = move |begin: &Begin| match pages.get(number_of(begin)) {
        Some((names, more)) => page(names.iter().copied(), more.clone()),
        None => page([""; 0], None),
    };
    OddStore { page: Some(Box::new(each)), ..OddStore::default() }
}

fn names(listed: Vec<Listed>) -> Vec<String> {
    listed.into_iter().map(|object| object.name).collect()
}

#[tokio::test]
async fn a_listing_goes_on_where_the_store_says_and_ends_only_where_it_ends() {
    let list = |pages| async move {
        let (_, bucket) = scripted(pages).bucket();
        let listed = bucket.list_after("log/", "log/1").await?;
        Ok::<_, Error>(names(listed.0))
    };
    // Empty pages, names out of order or repeated, and one that is not after the given name.
    let pages = vec![
        (vec![], Some(token(1))),
        (vec!["log/5", "log/1"], Some(token(2))),
        (vec![], Some(token(3))),
        (vec!["log/2", "log/5", "log/4"], Some(token(4))),
        (vec!["log/3"], None),
    ];
    assert_eq!(list(pages).await.unwrap(), ["log/2", "log/3", "log/4", "log/5"]);
    // A listing that goes in circles is reported as such.
    for pages in [
        vec![(vec!["log/2"], Some(token(1))), (vec!["log/3"], Some(token(0)))],
        vec![(vec!["log/2"], Some(Begin::After("log/2".into())))],
        vec![(vec![], Some(token(1))), (vec![], Some(token(0)))],
    ] {
        let error = list(pages).await.unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }), "{error:?}");
    }
}

proptest! {
    #![proptest_config(crate::types::cases(100))]

    /// Wherever pages are cut, and whatever is repeated or out of order: each name after the given one is listed
    /// once, in order.
    #[test]
    fn a_listing_is_whole_however_it_is_cut(
        pages in prop::collection::vec(prop::collection::vec(0u8..40, 0..6), 1..12),
        after in prop::option::of(0u8..40),
    ) {
        let name = |number: u8| format!("log/{number:02}");
        // A page without new names counts as going in circles; so each page has a name of its own, or is empty.
        let pages: Vec<Vec<_>> = pages
            .iter()
            .enumerate()
            .map(|(at, page)| {
                let own = (!page.is_empty()).then(|| format!("log/own-{at:02}"));
                page.iter().map(|number| name(*number)).chain(own).collect()
            })
            .collect();
        let after = after.map(name);
        let all: std::collections::BTreeSet<_> = pages.iter().flatten().cloned().collect();
        let expected: Vec<_> =
            all.into_iter().filter(|name| after.as_ref().is_none_or(|after| name > after)).collect();
        let each = move |begin: &Begin| {
            let at = number_of(begin);
            page(pages[at].clone(), (at + 1 < pages.len()).then(|| token(at + 1)))
        };
        let (_, bucket) = OddStore { page: Some(Box::new(each)), ..OddStore::default() }.bucket();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let listed = runtime.block_on(async {
            match &after {
                Some(after) => bucket.list_after("log/", after).await,
                None => bucket.list_all("log/").await,
            }
        });
        prop_assert_eq!(names(listed.unwrap().0), expected);
    }
}

#[tokio::test]
async fn empty_pages_are_followed_for_long_and_not_for_ever() {
    for (empty, whole) in [(1000, true), (usize::MAX, false)] {
        let each = move |begin: &Begin| match number_of(begin) {
            at if at < empty => page([""; 0], Some(token(at + 1))),
            _ => page(["log/1"], None),
        };
        let (_, bucket) = OddStore { page: Some(Box::new(each)), ..OddStore::default() }.bucket();
        match bucket.list_all("log/").await {
            Ok((listed, _)) => assert!(whole && names(listed) == ["log/1"]),
            Err(error) => assert!(!whole && matches!(error, Error::Corrupt { .. }), "{error:?}"),
        }
        assert!(bucket.requests().lists <= 1001, "{}", bucket.requests().lists);
    }
}

#[tokio::test]
async fn a_listing_that_never_ends_is_none() {
    let endless = |size: usize| OddStore {
        page: Some(Box::new(move |begin: &Begin| {
            let at = number_of(begin);
            page((0..size).map(|n| format!("log/{at:08}-{n:06}")), Some(token(at + 1)))
        })),
        ..OddStore::default()
    };
    let (_, bucket) = endless(100_000).bucket();
    let listed = bucket.list_all("log/").await;
    assert!(matches!(listed, Err(Error::Corrupt { .. })), "it ends");
    assert!(bucket.requests().lists <= 11, "{}", bucket.requests().lists);
    let (_, bucket) = endless(1).bucket();
    let mut lister = Lister::of(&bucket, "log/");
    let ended = loop {
        if let Err(error) = lister.next().await {
            break error;
        }
    };
    assert!(matches!(ended, Error::Corrupt { .. }), "{ended}");
}

#[tokio::test]
async fn a_token_that_comes_back_and_a_stranger_are_no_listing() {
    for (names, more) in [(vec!["log/1"], Some(token(0))), (vec!["log/1", "pack/1"], None)] {
        let each = move |_: &Begin| page(names.clone(), more.clone());
        let (_, bucket) = OddStore { page: Some(Box::new(each)), ..OddStore::default() }.bucket();
        let listed = bucket.list_all("log/").await;
        assert!(matches!(listed, Err(Error::Corrupt { .. })), "{listed:?}");
        assert!(bucket.requests().lists <= 6, "{}", bucket.requests().lists);
    }
}

#[tokio::test]
async fn the_time_of_a_listing_is_that_of_its_first_page() {
    let noon = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
    let each = move |begin: &Begin| {
        let at = number_of(begin);
        let time = noon + Duration::from_secs(60) * u32::try_from(at).unwrap();
        Listing { time, ..page([format!("log/{at}")], (at < 2).then(|| token(at + 1))) }
    };
    let (_, bucket) = OddStore { page: Some(Box::new(each)), ..OddStore::default() }.bucket();
    let (listed, time) = bucket.list_all("log/").await.unwrap();
    assert_eq!((listed.len(), time), (3, noon));
}

#[tokio::test]
async fn objects_are_deleted_by_the_thousand() {
    let (memory, _, bucket) = faulty();
    let names: Vec<_> = (0..2500).map(|number| format!("page/{number}")).collect();
    for name in &names {
        memory.plant(&format!("some/vault/{name}"), "x");
    }
    memory.plant("some/vault/log/1", "x");
    bucket.delete(&names).await.unwrap();
    assert_eq!(memory.names(), ["some/vault/log/1"]);
    assert_eq!(bucket.requests().deletes, 3);
    bucket.delete(&[]).await.unwrap();
    assert_eq!(bucket.requests().deletes, 3, "nothing is asked for nothing");
}
