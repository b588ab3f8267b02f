//! Malformed bytes give an error; they never cause a panic or take much memory.

use proptest::prelude::*;

use super::super::page::{BlockIndex, PageBuilder, PageRecords, Records};
use super::*;

fn sample() -> (Bytes, u64, usize) {
    let mut pending = PageBuilder::new(Sizes { block: 300, page: 1 << 20, pass: 1 });
    for n in 0u32..200 {
        pending.push(&n.to_be_bytes(), &vec![n as u8; (n % 70) as usize * 9]);
    }
    let page = pending.flush().remove(0);
    (page.plain.into(), page.index_offset, 200)
}

fn read_all(plain: &Bytes, index_offset: u64) -> Result<usize> {
    let mut records = PageRecords::of(plain, index_offset)?;
    let mut count = 0;
    while records.next()?.is_some() {
        count += 1;
    }
    Ok(count)
}

#[test]
fn a_page_reads_back() {
    let (plain, index_offset, count) = sample();
    assert_eq!(read_all(&plain, index_offset).unwrap(), count);
    let (bytes, end) = (plain.slice(index_offset as usize..), index_offset / crypto::layout::CHUNK);
    let index = BlockIndex::read(&bytes, end).unwrap();
    let chunks: Vec<_> = (0..index.len()).flat_map(|block| index.chunks(block)).collect();
    assert!(chunks.iter().copied().eq(0..end));
    // A single look-up finds the same block.
    for n in 0u32..210 {
        for key in [n.to_be_bytes().to_vec(), [&n.to_be_bytes()[..], b"x"].concat(), Vec::new()] {
            let block = index.block_of(&key);
            let found = BlockIndex::find(&bytes, end, &key).unwrap();
            assert_eq!(found, (block, index.chunks(block)));
        }
    }
    assert!(BlockIndex::find(&[0x80], end, b"x").is_err(), "it is empty");
    assert!(BlockIndex::find(&bytes, 1, &[0xff]).is_err(), "beyond the page");
}

#[test]
fn values_of_every_length_read_back() {
    let lengths = [0, 1, 23, 24, 255, 256, 16_000, 16_384, 65_535, 65_536, 300_000];
    let mut pending = PageBuilder::new(Sizes::default());
    for (n, &length) in lengths.iter().enumerate() {
        pending.push(&[1, n as u8], &vec![n as u8; length]);
    }
    let page = pending.flush().remove(0);
    assert!(pending.is_empty());
    let mut records = PageRecords::of(&page.plain.into(), page.index_offset).unwrap();
    for (n, &length) in lengths.iter().enumerate() {
        let (key, value) = records.next().unwrap().unwrap();
        assert_eq!((&key[..], &value[..]), (&[1, n as u8][..], &vec![n as u8; length][..]));
    }
    assert!(records.next().unwrap().is_none());
}

fn a_manifest() -> Manifest {
    let page = |n: u8| PageRef {
        first_key: vec![2, n],
        number: CommitNo(3),
        id: crate::types::PageId([n; 16]),
        sealed_length: crypto::layout::sealed_length(20_000),
        plain_length: 20_000,
        index_offset: crypto::layout::CHUNK,
        salt: [n; 24],
        commitment: [n; 32],
        hash: Hash([n; 32]),
        records: 4,
        index: None,
    };
    Manifest {
        commit: CommitNo(5),
        commit_hash: Hash([1; 32]),
        generation: Generation(1),
        time: Timestamp::default(),
        tables: vec![TableSummary { tag: Tag::Inode.byte(), records: 8, bound: vec![2, 99] }],
        live_bytes: 7,
        pages: vec![page(1), page(2)],
        recent: vec![0; 80],
    }
}

#[test]
fn a_manifest_that_contradicts_itself_is_refused() {
    let check = |change: fn(&mut Manifest)| {
        let mut manifest = a_manifest();
        change(&mut manifest);
        Manifest::decode(CommitNo(5), &encode_value(&manifest))
    };
    assert_eq!(check(|_| ()).unwrap(), a_manifest());
    let wrong: [fn(&mut Manifest); 15] = [
        |m| m.recent.clear(),
        |m| m.commit = CommitNo(6),
        |m| m.pages.swap(0, 1),
        |m| m.pages[0].first_key.clear(),
        |m| m.pages[1].first_key = vec![2, 1],
        |m| m.pages[0].number = CommitNo(6),
        |m| m.pages[0].sealed_length += 1,
        |m| m.pages[0].plain_length = u64::MAX,
        |m| m.pages[0].index_offset = 0,
        |m| m.pages[0].index_offset = 1,
        |m| m.pages[0].index_offset = 2 * crypto::layout::CHUNK,
        |m| m.pages[0].records = u64::MAX,
        |m| m.tables[0].records = 7,
        |m| m.tables[0].tag = 77,
        |m| m.tables[0].bound = vec![3],
    ];
    for (number, change) in wrong.into_iter().enumerate() {
        assert!(check(change).is_err(), "{number}");
    }
}

proptest! {
    #![proptest_config(crate::types::cases(256))]
    #[test]
    fn mutated_pages_do_not_panic(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8), cut: Option<u16>) {
        let (plain, index_offset, _) = sample();
        let mut bytes = plain.to_vec();
        for (at, byte) in changes {
            // Mostly where there is structure: the heads of the blocks, and the index.
            let at = at.index(bytes.len());
            let block = at / 16_384 * 16_384;
            bytes[if at % 3 == 0 { at } else { block + at % 300 }.min(plain.len() - 1)] = byte;
        }
        bytes.truncate(cut.map_or(bytes.len(), |cut| bytes.len().saturating_sub(cut.into())));
        let bytes = Bytes::from(bytes);
        let _ = read_all(&bytes, index_offset);
        let _ = read_all(&bytes, index_offset / 2);
        let _ = Records::of(bytes.clone()).find(&[0, 0, 0, 50]);
        let _ = Records::of(bytes).seek(&[0, 0, 0, 50], true);
    }

    #[test]
    fn random_bytes_are_no_page(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = Records::of(bytes.clone().into()).find(b"key");
        let _ = BlockIndex::read(&bytes, 9);
        let _ = BlockIndex::find(&bytes, 9, b"x");
        let _ = Manifest::decode(CommitNo(5), &bytes);
    }

    #[test]
    fn mutated_manifests_do_not_panic(at: prop::sample::Index, byte: u8, at2: prop::sample::Index, byte2: u8) {
        let mut bytes = encode_value(&a_manifest()).to_vec();
        let length = bytes.len();
        bytes[at.index(length)] = byte;
        bytes[at2.index(length)] = byte2;
        let _ = Manifest::decode(CommitNo(5), &bytes);
    }
}
