use super::super::pack_rows::PackDeltas;
use super::*;

async fn rows(base: &Base) -> BTreeMap<PackId, PackInfo> {
    let mut found = BTreeMap::new();
    for (key, value) in all(base).await {
        if let Key::Pack(id) = Key::decode(&key).unwrap() {
            found.insert(id, crate::records::decode_value("packs", &value).unwrap());
        }
    }
    found
}

fn row(references: u64, live: u64, birth: u64, death: Option<u64>) -> PackInfo {
    PackInfo { references, live, birth: CommitNo(birth), death: death.map(CommitNo) }
}

fn inode(ino: u64) -> Key {
    Key::Inode(InodeNo(ino))
}

#[tokio::test]
async fn k3_counts_references_and_bytes_exactly() {
    let mut world = World::new(SMALL);
    let part = |ino, offset, pack, length| {
        put(&Key::Extent(InodeNo(ino), offset), encode_value(&extent(pack, length)))
    };
    world.commit(vec![], vec![vec![put(&inode(1), file(Some(extent(1, 10)))), part(2, 0, 1, 5)]]);
    world.commit(vec![], vec![vec![part(2, 5, 2, 7)], vec![part(3, 0, 2, 1)]]);
    let base = world.build(&Base::empty()).await;
    let (one, two) = (PackId([1; 16]), PackId([2; 16]));
    assert_eq!(rows(&base).await, [(one, row(2, 15, 1, None)), (two, row(2, 8, 2, None))].into());
    // A truncation: the same pack, fewer bytes.
    world.commit(vec![], vec![vec![part(2, 0, 1, 3)]]);
    let base = world.build(&base).await;
    assert_eq!(rows(&base).await[&one], row(2, 13, 1, None));
    assert_eq!(base.manifest().unwrap().live_bytes, 21);
}

#[tokio::test]
async fn k3_versions_between_two_checkpoints_are_seen() {
    let mut world = World::new(SMALL);
    let set = |pack| vec![put(&inode(1), file(Some(extent(pack, 10))))];
    world.commit(vec![], vec![set(1)]);
    let base = world.build(&Base::empty()).await;
    // Between two checkpoints, pack 2 comes and goes, and so does pack 3 within one commit.
    world.commit(vec![], vec![set(2)]);
    world.commit(vec![], vec![set(3), set(4)]);
    world.commit(vec![], vec![set(5)]);
    let base = world.build(&base).await;
    let table = rows(&base).await;
    let of = |pack: u8| table[&PackId([pack; 16])].clone();
    assert_eq!(of(1), row(0, 0, 1, Some(2)));
    assert_eq!(of(2), row(0, 0, 2, Some(3)));
    assert_eq!(of(3), row(0, 0, 3, Some(3)));
    assert_eq!(of(4), row(0, 0, 3, Some(4)));
    assert_eq!(of(5), row(1, 10, 4, None));
}

#[tokio::test]
async fn k3_a_reference_that_comes_later_undoes_a_death() {
    let mut world = World::new(SMALL);
    world.commit(vec![], vec![vec![put(&inode(1), file(Some(extent(1, 10))))]]);
    world.commit(vec![], vec![vec![delete(&inode(1))]]);
    let dead = world.build(&Base::empty()).await;
    assert_eq!(rows(&dead).await[&PackId([1; 16])], row(0, 0, 1, Some(2)));
    world.commit(vec![], vec![vec![put(&inode(2), file(Some(extent(1, 4))))]]);
    let alive = world.build(&dead).await;
    assert_eq!(rows(&alive).await[&PackId([1; 16])], row(1, 4, 1, None));
    world.commit(vec![], vec![vec![delete(&inode(2))], vec![delete(&inode(2))]]);
    let again = world.build(&alive).await;
    assert_eq!(rows(&again).await[&PackId([1; 16])], row(0, 0, 1, Some(4)));
    // If nothing refers to it, it stays as it is.
    world.commit(vec![], vec![vec![put(&inode(3), file(None))]]);
    assert_eq!(rows(&world.build(&again).await).await[&PackId([1; 16])], row(0, 0, 1, Some(4)));
}

#[tokio::test]
async fn k3_a_commit_cannot_bring_rows_of_its_own() {
    let mut world = World::new(SMALL);
    let row = put(&Key::Pack(PackId([1; 16])), encode_value(&row(1, 1, 1, None)));
    world.commit(vec![], vec![vec![row]]);
    let refused = world.try_build(&Base::empty(), &world.cold()).await;
    assert!(matches!(refused, Err(Error::Log(crate::log::Error::Records(_)))), "{refused:?}");
}

#[test]
fn k3_a_table_that_does_not_add_up_is_refused() {
    let pack = PackId([1; 16]);
    let apply = |before: Option<PackInfo>| {
        let mut deltas = PackDeltas::default();
        deltas.note(Some((pack, 5)), None, CommitNo(9));
        let (_, delta) = deltas.into_rows().next().unwrap();
        delta.apply(before.as_ref())
    };
    assert_eq!(apply(Some(row(1, 5, 2, None))).unwrap(), row(0, 0, 2, Some(9)));
    assert_eq!(apply(Some(row(2, 8, 2, None))).unwrap(), row(1, 3, 2, None));
    assert!(apply(None).is_err(), "a pack that was never referred to");
    assert!(apply(Some(row(0, 0, 2, Some(4)))).is_err(), "fewer references than none");
    assert!(apply(Some(row(2, 4, 2, None))).is_err(), "fewer bytes than none");
    assert!(apply(Some(row(1, 8, 2, None))).is_err(), "bytes without a reference");
}
