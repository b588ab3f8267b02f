//! This module's parsers, for hostile bytes (`tests/fuzz`).

use std::cell::OnceCell;

use tokio::runtime::{Builder, Runtime};

use super::object::{Begin, Store};
use super::s3::S3Store;

thread_local! {
    static RUNTIME: OnceCell<Option<Runtime>> = const { OnceCell::new() };
}

/// Whether `bytes` parse as a `kind`; `None`: there is no such kind here. `listing` is a server's answer to
/// `ListObjectsV2`: if the first byte is odd, the answer is a refusal; the rest is the body.
pub fn fuzzed(kind: &str, bytes: &[u8]) -> Option<bool> {
    if kind != "listing" {
        return None;
    }
    let (first, body) = bytes.split_first().unwrap_or((&0, &[]));
    let status = if first % 2 == 0 { 200 } else { 403 };
    let store = S3Store::canned(status, body);
    let answered = RUNTIME.with(|runtime| {
        let make = || Builder::new_current_thread().enable_all().build().ok();
        let runtime = runtime.get_or_init(make).as_ref()?;
        Some(runtime.block_on(store.list("log/", &Begin::First)))
    });
    Some(answered.is_some_and(|listing| listing.is_ok()))
}
