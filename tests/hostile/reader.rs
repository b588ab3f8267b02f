//! Runs `scripts/read_vault.py` on a vault in which any byte may be changed: it must end in bounded time with an error
//! that says what is wrong, and never with a traceback. `reader.py` beside this file does it, in one process.

use std::path::Path;
use std::process::Command;

#[test]
fn the_second_reader_ends_with_an_error_whatever_it_is_given() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = Command::new(root.join("scripts/reader-python")).output().unwrap();
    assert!(python.status.success(), "scripts/reader-python: {python:?}");
    let rounds = std::env::var("S3VAULT_HOSTILE_READER").unwrap_or_else(|_| "600".to_owned());
    let done = Command::new(String::from_utf8(python.stdout).unwrap().trim())
        .arg(root.join("tests/hostile/reader.py"))
        .args([root.join("scripts"), root.join("tests/golden/v1")])
        .args([&rounds])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stdout);
    println!("{said}");
    assert!(done.status.success(), "{said}{}", String::from_utf8_lossy(&done.stderr));
}
