//! Zeros ahead of the end of an open pack (J2), and the room that they take (J8).

use std::time::Duration;

use super::durability::{limits, local_of};
use super::rig::*;
use crate::os::Disk;
use crate::upload::{StagingLimits, StepObserver};

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn j2_an_open_pack_that_was_fsynced_has_zeros_ahead_and_none_when_it_is_closed() {
    let local = local_of(limits(), &keys(), None, HOUR, StepObserver::default());
    let on_disk = || local.disk.list().unwrap()[0].1;
    let mut pack = local.staging.create(id(1)).unwrap();
    let _hold = local.staging.hold(id(1));
    let publish = |end: u64| _ = local.journal.append(&transaction(1, &[(id(1), end)])).unwrap();
    pack.append(&[7; 100]).unwrap();
    publish(100);
    assert_eq!(on_disk(), 100, "nobody has fsynced it");
    local.barrier.sync_all().await.unwrap();
    pack.append(&[7; 100]).unwrap();
    let ahead = on_disk();
    assert!(ahead > 3_000);
    for n in 3..20 {
        publish(pack.length());
        local.barrier.sync_all().await.unwrap();
        pack.append(&[7; 100]).unwrap();
        assert_eq!((on_disk(), pack.length()), (ahead, n * 100));
    }
    assert_eq!(local.staging.length(id(1)), Some(1900));
    assert!(local.staging.read(id(1), 1800..1901).is_err(), "no zeros are read");
    pack.close(FOOTER).unwrap();
    assert_eq!(on_disk(), 1900 + FOOTER.len() as u64);
}

#[tokio::test]
async fn j8_zeros_ahead_count_and_leave_half_of_the_budget_alone() {
    let limits = StagingLimits { budget: 256 << 10, ..limits() };
    let local = local_of(limits, &keys(), None, HOUR, StepObserver::default());
    let on_disk =
        || local.disk.list().unwrap().into_iter().map(|(_, length)| length).collect::<Vec<_>>();
    let counts = |what: &str| {
        assert_eq!(local.staging.usage().used, on_disk().iter().sum::<u64>(), "{what}");
    };
    let mut packs = Vec::new();
    for n in 1..=20 {
        let mut pack = local.staging.create(id(n)).unwrap();
        pack.append(&[7; 5_000]).unwrap();
        local.journal.append(&transaction(n.into(), &[(id(n), 5_000)])).unwrap();
        packs.push((pack, local.staging.hold(id(n))));
    }
    local.barrier.sync_all().await.unwrap();
    for round in 0..3 {
        for (pack, _) in &mut packs {
            pack.append(&[7; 100]).unwrap();
            counts("written");
        }
        let have = on_disk().iter().filter(|length| **length > 5_500).count();
        assert!(have > 2 && have < 10, "{have} packs have zeros, round {round}");
    }
    // Over their zeros, and beyond them.
    packs[0].0.append(&[7; 4_000]).unwrap();
    packs[1].0.append(&[7; 9_000]).unwrap();
    counts("written over");
    for (n, (pack, hold)) in packs.into_iter().enumerate() {
        match n {
            5 => drop(pack), // given up open: its file stays what it is
            _ => _ = pack.close(FOOTER),
        }
        drop(hold);
        counts("over");
    }
}
