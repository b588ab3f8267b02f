//! One fuzz target for every parser; `S3VAULT_FUZZ_KIND` selects it.
#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;

static KIND: OnceLock<String> = OnceLock::new();

fuzz_target!(|bytes: &[u8]| {
    let kind = KIND.get_or_init(|| std::env::var("S3VAULT_FUZZ_KIND").expect("S3VAULT_FUZZ_KIND"));
    assert!(s3vault::testing::parse(kind, bytes).is_some(), "there is no kind {kind}");
});
