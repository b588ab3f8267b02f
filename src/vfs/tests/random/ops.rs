//! The random calls.

use proptest::prelude::*;

/// Offsets and sizes: around chunk borders, and far enough apart for holes.
const SPAN: u32 = 80_000;

#[derive(Clone, Debug)]
pub(super) enum Op {
    Create { dir: u8, name: u8, exclusive: bool, truncate: bool },
    Mkdir { dir: u8, name: u8 },
    Symlink { dir: u8, name: u8 },
    Fifo { dir: u8, name: u8 },
    Link { node: u8, dir: u8, name: u8 },
    Unlink { dir: u8, name: u8 },
    Rmdir { dir: u8, name: u8 },
    Rename { from: (u8, u8), to: (u8, u8), mode: u8 },
    Open { node: u8, mode: u8, truncate: bool },
    Write { open: u8, offset: Option<u32>, length: u32, fill: u8 },
    Read { open: u8, offset: u32, length: u32 },
    Resize { node: u8, size: u32 },
    Allocate { open: u8, mode: u8, from: u32, length: u32 },
    Copy { from: u8, to: u8, at: (u32, u32), length: u32 },
    Seek { open: u8, offset: u32, data: bool },
    Chmod { node: u8, mode: u16 },
    Chown { node: u8, uid: u8 },
    Utimes { node: u8, seconds: i32 },
    SetXattr { node: u8, name: u8, length: u8, flags: u8 },
    RemoveXattr { node: u8, name: u8 },
    Flush { open: u8 },
    Fsync { open: u8 },
    Release { open: u8 },
    PublishAll,
    List { dir: u8, limit: u8 },
    Check,
    Reopen { kill: bool },
}

pub(super) fn op() -> impl Strategy<Value = Op> {
    use Op::*;
    let any_u8 = any::<u8>;
    let at = || 0..SPAN;
    let length = || prop_oneof![0..100_u32, 0..40_000_u32];
    let make = prop_oneof![
        8 => (any_u8(), any_u8(), any::<bool>(), any::<bool>())
            .prop_map(|(dir, name, exclusive, truncate)| Create { dir, name, exclusive, truncate }),
        4 => (any_u8(), any_u8()).prop_map(|(dir, name)| Mkdir { dir, name }),
        1 => (any_u8(), any_u8()).prop_map(|(dir, name)| Symlink { dir, name }),
        1 => (any_u8(), any_u8()).prop_map(|(dir, name)| Fifo { dir, name }),
    ];
    let names = prop_oneof![
        3 => (any_u8(), any_u8(), any_u8()).prop_map(|(node, dir, name)| Link { node, dir, name }),
        4 => (any_u8(), any_u8()).prop_map(|(dir, name)| Unlink { dir, name }),
        2 => (any_u8(), any_u8()).prop_map(|(dir, name)| Rmdir { dir, name }),
        6 => (any::<(u8, u8)>(), any::<(u8, u8)>(), any_u8())
            .prop_map(|(from, to, mode)| Rename { from, to, mode }),
    ];
    let data = prop_oneof![
        6 => (any_u8(), any_u8(), any::<bool>())
            .prop_map(|(node, mode, truncate)| Open { node, mode, truncate: truncate && mode > 200 }),
        16 => (any_u8(), proptest::option::weighted(0.8, at()), length(), any_u8())
            .prop_map(|(open, offset, length, fill)| Write { open, offset, length, fill }),
        8 => (any_u8(), at(), length()).prop_map(|(open, offset, length)| Read { open, offset, length }),
        5 => (any_u8(), at()).prop_map(|(node, size)| Resize { node, size }),
        4 => (any_u8(), any_u8(), at(), length())
            .prop_map(|(open, mode, from, length)| Allocate { open, mode, from, length }),
        3 => (any_u8(), any_u8(), (at(), at()), length())
            .prop_map(|(from, to, at, length)| Copy { from, to, at, length }),
        3 => (any_u8(), at(), any::<bool>()).prop_map(|(open, offset, data)| Seek { open, offset, data }),
        4 => any_u8().prop_map(|open| Flush { open }),
        1 => any_u8().prop_map(|open| Fsync { open }),
        4 => any_u8().prop_map(|open| Release { open }),
    ];
    let attributes = prop_oneof![
        2 => (any_u8(), any::<u16>()).prop_map(|(node, mode)| Chmod { node, mode }),
        1 => (any_u8(), any_u8()).prop_map(|(node, uid)| Chown { node, uid }),
        2 => (any_u8(), any::<i32>()).prop_map(|(node, seconds)| Utimes { node, seconds }),
        3 => (any_u8(), any_u8(), any_u8(), 0..3_u8)
            .prop_map(|(node, name, length, flags)| SetXattr { node, name, length, flags }),
        2 => (any_u8(), any_u8()).prop_map(|(node, name)| RemoveXattr { node, name }),
    ];
    prop_oneof![
        14 => make,
        14 => names,
        40 => data,
        8 => attributes,
        3 => (any_u8(), 1..5_u8).prop_map(|(dir, limit)| List { dir, limit }),
        1 => Just(PublishAll),
        1 => Just(Check),
        1 => any::<bool>().prop_map(|kill| Reopen { kill }),
    ]
}
