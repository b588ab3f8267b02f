//! The state of the vault in one line, and more if something is wrong.

use maud::{Markup, html};

use super::super::show::{count, size, when};
use crate::gateway::Session;
use crate::types::{Progress, VaultStatus};

/// A visitor who sees only a part of the vault is told only what stands in their way.
pub(super) fn show(session: &Session, status: &VaultStatus) -> Markup {
    let sees_all = session.limit().is_none();
    let progress = &status.progress;
    let is_sent = progress.unsent_changes == 0 && progress.unpublished_files == 0;
    let is_bad = status.read_only.is_some() || progress.trouble.is_some();
    let class = match (is_bad, is_sent) {
        (true, _) => "bad",
        (false, true) => "durable",
        (false, false) => "uploading",
    };
    let (used, budget) = status.staging;
    let share = (used * 100).checked_div(budget).unwrap_or(0);
    html! {
        section.status id="status" data-state=(class) aria-label="The vault" {
            @if sees_all { p.now {
                span class={ "badge " (class) } {
                    @if is_sent { "Everything is in the bucket" } @else { (on_its_way(progress)) }
                }
                span.figures {
                    (count(status.inodes, "entry", "entries")) " · " (size(status.bytes))
                    @if share > 0 { " · " (share) " % of the room for what is unsent is taken" }
                    @if status.head_time.seconds > 0 {
                        " · last sent " (when(status.head_time))
                    }
                }
            } }
            @if let Some(reason) = &status.read_only {
                p.notice.bad { "Nothing can be changed: " (reason) "." }
            }
            @if let Some(trouble) = &progress.trouble {
                p.notice.bad { "Uploads do not go through now: " (trouble) ". Nothing is lost; they are tried again." }
            }
            @for warning in status.warnings.iter().filter(|_| sees_all) { p.notice { (warning) } }
        }
    }
}

fn on_its_way(progress: &Progress) -> String {
    let mut parts = Vec::new();
    if progress.unsent_changes > 0 {
        parts.push(count(progress.unsent_changes, "change", "changes"));
    }
    if progress.unpublished_files > 0 {
        parts.push(count(progress.unpublished_files, "file being written", "files being written"));
    }
    if progress.unsent_bytes > 0 {
        parts.push(size(progress.unsent_bytes));
    }
    format!("On the way to the bucket: {}", parts.join(", "))
}
