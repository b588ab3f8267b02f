//! Random files of random extents, with their bytes in random places, compared with a model.

use proptest::prelude::*;

use super::*;

/// One extent of a random file: length of the hole before it, message length, skip, and part of the rest (in
/// thousandths).
type Shape = (u64, u64, u64, u64);

fn shapes() -> impl Strategy<Value = Vec<Shape>> {
    let length = prop_oneof![
        1..200_u64,
        Just(16 * KIB),
        Just(16 * KIB - 1),
        Just(16 * KIB + 1),
        Just(32 * KIB),
        1..120_000_u64,
    ];
    let hole = prop_oneof![Just(0), 1..40_000_u64];
    prop::collection::vec((hole, length, 0..1000_u64, 1..1000_u64), 1..9)
}

/// Where a pack is.
#[derive(Clone, Copy, Debug)]
enum Home {
    Bucket,
    Staging,
    Disk,
}

fn homes() -> impl Strategy<Value = Vec<Home>> {
    let home = prop_oneof![Just(Home::Bucket), Just(Home::Staging), Just(Home::Disk)];
    prop::collection::vec(home, 4)
}

/// Makes a file; returns its records and its bytes.
fn build(world: &World, shapes: &[Shape], homes: &[Home]) -> (Vec<(u64, Extent)>, Vec<u8>) {
    let mut packs: Vec<_> =
        homes.iter().map(|home| (PackId(random()), *home, Vec::new())).collect();
    let (mut list, mut bytes) = (Vec::new(), Vec::new());
    for (n, (hole, length, skip, rest)) in shapes.iter().enumerate() {
        let plain = noise(n as u64 * 7919 + length, usize::try_from(*length).unwrap());
        let which = n % packs.len();
        let (pack, _, sealed) = &mut packs[which];
        let reference = world.seal(*pack, &plain, sealed);
        let skip = skip % length;
        let length = (length - skip).min(length * rest / 1000 + 1);
        bytes.resize(bytes.len() + usize::try_from(*hole).unwrap(), 0);
        list.push((bytes.len() as u64, Extent { skip, length, reference }));
        bytes.extend_from_slice(part(&plain, skip..skip + length));
    }
    for (pack, home, sealed) in packs.into_iter().filter(|(_, _, sealed)| !sealed.is_empty()) {
        match home {
            Home::Bucket => world.store.plant(&pack_object(pack), sealed),
            Home::Staging => world.stage(pack, &sealed),
            Home::Disk => world.reader().cache.insert_whole(&pack_object(pack), sealed.into()),
        }
    }
    (list, bytes)
}

proptest! {
    #![proptest_config(crate::types::cases(48))]

    #[test]
    fn reads_agree_with_a_model(
        shapes in shapes(),
        homes in homes(),
        reads in prop::collection::vec((0..1000_u64, 1..200_000_u64), 1..12),
        buffer in (0..1000_u64, 0..40_000_u64),
        in_order in any::<bool>(),
    ) {
        let world = World::new();
        let (list, mut model) = build(&world, &shapes, &homes);
        // A tail that was never written, and an unpublished piece.
        model.resize(model.len() + 5_000, 0);
        let size = model.len() as u64;
        let (at, length) = (size * buffer.0 / 1000, buffer.1);
        let end = (at + length).min(size);
        let fresh = noise(99, usize::try_from(end - at).unwrap());
        model[usize::try_from(at).unwrap()..usize::try_from(end).unwrap()].copy_from_slice(&fresh);
        let fresh = Bytes::from(fresh);
        let file = Readahead::default();
        runtime().block_on(async {
            let mut next = 0;
            for (start, length) in reads {
                let start = if in_order { next } else { size * start / 1000 };
                next = (start + length).min(size);
                let mut overlay = Overlay::default();
                if at < end {
                    let bytes = OverlayBytes::Plain(fresh.clone());
                    overlay.pieces.push(OverlayPiece { offset: at, bytes });
                }
                let got = world.read_as(&file, &list, start..start + length, overlay, size).await;
                let got = got.map_err(|error| TestCaseError::fail(format!("{error:?}")))?;
                prop_assert!(got == part(&model, start..next), "{}..{}", start, next);
            }
            Ok(())
        })?;
    }

    /// Whatever happens to the packs in the store: a read returns the right bytes or an error.
    #[test]
    fn damaged_packs_are_errors_and_heal(
        shapes in shapes(),
        damage in 0..6_u8,
        at in 0..1000_u64,
        in_order in any::<bool>(),
    ) {
        let world = World::new();
        let (list, model) = build(&world, &shapes, &[Home::Bucket; 3]);
        let size = model.len() as u64;
        let good = world.store.snapshot();
        let names = world.store.names();
        let victim = &names[usize::try_from(at).unwrap() % names.len()];
        let whole = good[victim].clone();
        let place = whole.len() * usize::try_from(at).unwrap() / 1000;
        let mut bytes = whole.to_vec();
        match damage {
            0 => bytes[place] ^= 1 << (at % 8),
            1 => bytes.truncate(place),
            2 => bytes[place..].fill(0),
            3 => bytes = noise(at, bytes.len()),
            4 => bytes = good[&names[(usize::try_from(at).unwrap() + 1) % names.len()]].to_vec(),
            // Two chunks, or two messages, are swapped.
            _ => {
                let half = bytes.len() / 2;
                let (a, b) = bytes.split_at_mut(half);
                let length = a.len().min(16_400);
                a[..length].swap_with_slice(&mut b[..length]);
            }
        }
        world.store.plant(victim, bytes);
        let file = Readahead::default();
        runtime().block_on(async {
            let mut from = 0;
            while from < size {
                let to = (from + 30_000).min(size);
                let range = from..to;
                let file = if in_order { file.clone() } else { Readahead::default() };
                if let Ok(got) = world.read_as(&file, &list, range.clone(), Overlay::default(), size).await {
                    prop_assert!(got == part(&model, range.clone()), "{:?}", range);
                }
                from = to;
            }
            // As soon as the store has the right bytes again, they are read: nothing wrong is kept.
            world.store.restore(good);
            let got = world.read(&list, 0..size).await.map_err(|e| TestCaseError::fail(format!("{e:?}")))?;
            prop_assert!(got == model);
            Ok(())
        })?;
    }
}
