//! A range of the map over all of its layers: for each key the newest layer counts, whatever is below.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::types::{EXTENT_MAX, Extent, NameHash, Reference};

const FILE: InodeNo = InodeNo(2);

/// Records of one layer: an extent's offset and its length, or `None` for a tombstone.
type Layer = BTreeMap<u64, Option<u64>>;

/// Oldest first: base (without tombstones), sled, the draining memtable, the active one, the draft.
type Stack = [Layer; 5];

/// All offsets are below this.
const OFFSETS: u64 = 24;

fn layer() -> impl Strategy<Value = Layer> {
    let value = prop::option::weighted(0.6, 1..1_000_u64);
    prop::collection::btree_map(0..OFFSETS, value, 0..14)
}

/// Each layer also has neighbouring records: of other inodes in the table, and of this one in other tables.
fn records(layer: &Layer) -> Vec<(Vec<u8>, Option<bytes::Bytes>)> {
    let encoded = |length| crate::records::encode_value(&piece(length));
    let of_file = layer.iter().map(|(at, length)| (Key::Extent(FILE, *at), length.map(encoded)));
    let neighbours = [
        Key::Extent(InodeNo(FILE.0 - 1), u64::MAX),
        Key::Extent(InodeNo(FILE.0 + 1), 0),
        Key::Entry(FILE, NameHash([0xff; 16])),
        Key::Xattr(FILE, NameHash([0; 16])),
    ];
    let neighbours = neighbours.into_iter().map(|key| (key, Some(encoded(1))));
    of_file.chain(neighbours).map(|(key, value)| (key.encode(), value)).collect()
}

fn memtable(layer: &Layer) -> Memtable {
    let mut memtable = Memtable::default();
    for (key, value) in records(layer) {
        memtable.insert(key, DeltaRecord { count: 1, value });
    }
    memtable
}

/// A world whose index has these layers. The base has many small pages, none of which is on this machine.
async fn layered(stack: &Stack) -> World {
    let mut world = World::new();
    world.sizes = Sizes { block: 256, page: 512, pass: 1 << 20 };
    world
        .put(|draft| {
            for (key, value) in records(&stack[0]) {
                if value.is_some() {
                    draft.put_encoded(key, value);
                }
            }
        })
        .await;
    world.checkpoint().await;
    assert_eq!(world.index().rows(), 0, "all of it is in the base");
    let nowhere = world.dir.path().join("cold");
    let budgets = Budgets { memory: 8 * MIB, disk: 64 * MIB };
    let cold = Cache::open(&nowhere, world.bucket.clone(), budgets).unwrap();
    let manifest = world.base.manifest().unwrap().clone();
    let base = Base::new(manifest, world.keys.clone(), cold);
    {
        let mut layers = world.index().0.layers.write();
        let none = BTreeMap::new();
        layers.sled.apply(&memtable(&stack[1]), &none, &layers.point).unwrap();
        layers.base = base;
        layers.draining = Some(Arc::new(memtable(&stack[2])));
        layers.active = memtable(&stack[3]);
    }
    world
}

/// The records of a range that the first `count` layers together have.
fn expected(stack: &[Layer], range: &Range<u64>, limit: usize) -> Vec<(u64, u64)> {
    let mut all = Layer::new();
    for (n, layer) in stack.iter().enumerate() {
        let layer = layer.iter().filter(|(_, length)| n > 0 || length.is_some());
        all.extend(layer.map(|(at, length)| (*at, *length)));
    }
    let live = all.into_iter().filter_map(|(at, length)| Some((at, length?)));
    live.filter(|(at, _)| range.contains(at)).take(limit).collect()
}

fn found(view: &View<'_>, range: &Range<u64>, limit: usize) -> Result<Vec<(u64, u64)>> {
    let list = view.extents_within(FILE, range.clone(), limit)?;
    Ok(list.into_iter().map(|(at, extent)| (at, extent.length)).collect())
}

fn one_by_one(view: &View<'_>) -> Result<Vec<(u64, u64)>> {
    let mut all = Vec::new();
    for at in 0..OFFSETS {
        if let Some(value) = view.get(&Key::Extent(FILE, at))? {
            all.push((at, crate::records::decode_value::<Extent>("extent", &value)?.length));
        }
    }
    Ok(all)
}

proptest! {
    #![proptest_config(crate::types::cases(24))]

    #[test]
    fn j9_a_range_has_the_newest_of_each_key(
        stack in [layer(), layer(), layer(), layer(), layer()],
        ranges in prop::collection::vec((0..OFFSETS, 0..=OFFSETS, 1..OFFSETS as usize), 12),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let world = layered(&stack).await;
            let whole = 0..OFFSETS;
            for (from, to, limit) in ranges {
                let range = from..to;
                let read = world.index().read(|view| found(view, &range, limit)).await.unwrap();
                assert_eq!(read, expected(&stack[..4], &range, limit), "{range:?}, {limit}");
                let drafted = in_a_draft(&world, &stack[4], |view| found(view, &range, limit)).await;
                assert_eq!(drafted, expected(&stack, &range, limit), "{range:?}, {limit}");
            }
            let read = world.index().read(one_by_one).await.unwrap();
            assert_eq!(read, expected(&stack[..4], &whole, usize::MAX));
            let drafted = in_a_draft(&world, &stack[4], one_by_one).await;
            assert_eq!(drafted, expected(&stack, &whole, usize::MAX));
        });
    }
}

/// What `look` sees in a draft with these records, which is then abandoned.
async fn in_a_draft<T: Send>(
    world: &World,
    layer: &Layer,
    look: impl Fn(&View<'_>) -> Result<T> + Send + Sync,
) -> T {
    let seen = std::sync::Mutex::new(None);
    let draft = |draft: &mut Draft<'_>| {
        records(layer).into_iter().for_each(|(key, value)| draft.put_encoded(key, value));
        *seen.lock().unwrap() = Some(look(draft)?);
        Err::<(), _>(Error::ReadOnly("it is only a look".into()))
    };
    world.index().change(draft).await.unwrap_err();
    seen.into_inner().unwrap().unwrap()
}

/// The page in the middle has to be fetched: the scan starts again, and neither skips nor repeats a record.
#[tokio::test]
async fn a_range_goes_on_over_pages_that_must_be_fetched() {
    let base: Layer = (0..OFFSETS).map(|at| (at, Some(at + 1))).collect();
    let ends = [(0, None), (OFFSETS / 2, None), (OFFSETS - 1, None)];
    let stack = [base, Layer::new(), Layer::from(ends), Layer::new(), Layer::new()];
    let world = layered(&stack).await;
    let pages = world.base.manifest().unwrap().pages.len();
    assert!(pages > 4, "{pages}");
    let runs = AtomicUsize::new(0);
    let whole = 0..u64::MAX;
    let read = |limit| {
        let (runs, whole, world) = (&runs, &whole, &world);
        async move {
            let look = |view: &View<'_>| {
                runs.fetch_add(1, Ordering::Relaxed);
                found(view, whole, limit)
            };
            (world.index().read(look).await.unwrap(), runs.swap(0, Ordering::Relaxed))
        }
    };
    let (first, runs_for_one) = read(1).await;
    assert_eq!(first, [(1, 2)], "the first is deleted");
    assert!(
        (2..pages).contains(&runs_for_one),
        "{runs_for_one}: no page is fetched that is not needed"
    );
    let (all, runs_for_all) = read(usize::MAX).await;
    assert_eq!(all, expected(&stack, &whole, usize::MAX));
    assert_eq!(all.len() as u64, OFFSETS - 3);
    assert!(runs_for_all > 2, "{runs_for_all}");
    let (again, runs_now) = read(usize::MAX).await;
    assert_eq!((again, runs_now), (all, 1), "now all pages are here");
}

fn piece(length: u64) -> Extent {
    Extent { skip: 0, length, reference: Reference::made_up(1, length) }
}

#[tokio::test]
async fn the_extents_of_a_range_are_those_that_overlap_it() {
    let world = World::new();
    let (mut pieces, mut at) = (BTreeMap::new(), 0);
    let holes = [0, 1, 0, 70_000, 3 * MIB, 0, 20 * MIB];
    let lengths = [1, 4096, 65_536, 65_537, MIB, MIB + 1, 5 * MIB, EXTENT_MAX, EXTENT_MAX - 1];
    for (n, length) in lengths.iter().cycle().take(60).enumerate() {
        at += holes[n % holes.len()];
        pieces.insert(at, piece(*length));
        at += length;
    }
    let half = pieces.keys().copied().nth(30).unwrap();
    for (from, to) in [(half, u64::MAX), (0, half)] {
        let put = |draft: &mut Draft<'_>| {
            draft.put_inode(InodeNo(2), &Inode { size: at, ..Inode::default() });
            pieces.range(from..to).for_each(|(at, piece)| draft.put_extent(InodeNo(2), *at, piece));
            Ok::<_, Error>(())
        };
        world.index().change(put).await.unwrap();
        world.index().drain().unwrap();
    }
    let edges = pieces.iter().flat_map(|(at, Extent { length, .. })| {
        [at.saturating_sub(1), *at, at + 1, at + length / 2, at + length - 1, at + length]
    });
    for (start, length) in edges.flat_map(|at| [(at, 1), (at, 4096), (at, 40 * MIB)]) {
        let range = start..start + length;
        let overlaps =
            |(at, piece): &(&u64, &Extent)| **at < range.end && **at + piece.length > start;
        let expected: Vec<_> =
            pieces.iter().filter(overlaps).map(|(at, piece)| (*at, piece.clone())).collect();
        let look = |view: &View<'_>| {
            let inode = view.inode(InodeNo(2))?.unwrap();
            view.extents(InodeNo(2), &inode, range.clone())
        };
        let read = world.index().read(look).await;
        assert_eq!(read.unwrap(), expected, "{range:?}");
    }
}

#[tokio::test]
async fn a_piece_of_a_file_of_many_is_found_without_reading_all_that_lie_before() {
    let world = World::new();
    let last = MIB - 4096..MIB;
    let seen = std::sync::Mutex::new(None);
    let look = |draft: &mut Draft<'_>| {
        let inode = Inode { size: MIB, ..Inode::default() };
        draft.put_inode(InodeNo(2), &inode);
        (0..256).for_each(|n| draft.put_extent(InodeNo(2), n * 4096, &piece(4096)));
        // A look at this record fails.
        let no_extent = Some(bytes::Bytes::from_static(b"no extent"));
        draft.put_encoded(Key::Extent(InodeNo(2), 0).encode(), no_extent);
        let near = draft.extents(InodeNo(2), &inode, 0..4096);
        *seen.lock().unwrap() = Some((draft.extents(InodeNo(2), &inode, last.clone()), near));
        Err::<(), _>(Error::Miss)
    };
    world.index().change(look).await.unwrap_err();
    let (far, near) = seen.into_inner().unwrap().unwrap();
    assert_eq!(far.unwrap(), [(last.start, piece(4096))]);
    near.unwrap_err();
}

#[tokio::test]
async fn what_a_transaction_put_and_took_out_again_leaves_no_tombstone() {
    let world = World::new();
    let ino = InodeNo(3);
    world.put(|draft| draft.put_inode(ino, &Inode::default())).await;
    world.index().drain().unwrap();
    let before = world.index().rows();
    for at in 1..20 {
        world
            .put(|draft| {
                draft.put_extent(ino, at * 100, &piece(100));
                draft.delete_extent(ino, at * 100);
                draft.put_inode(ino, &Inode::default());
            })
            .await;
    }
    world.index().drain().unwrap();
    assert_eq!(world.index().rows(), before);
    // A record that the map had is deleted, whether it was put once more or not; and it can be put again.
    for again in [false, true] {
        world.put(|draft| draft.put_extent(ino, 100, &piece(100))).await;
        world
            .put(|draft| {
                if again {
                    draft.put_extent(ino, 100, &piece(50));
                }
                draft.delete_extent(ino, 100);
            })
            .await;
        let left = world.index().read(|view| view.extents_within(ino, 0..1000, 9)).await.unwrap();
        assert_eq!(left, [], "{again}");
    }
}
