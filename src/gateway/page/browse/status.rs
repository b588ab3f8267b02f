//! How the vault is, in a line; what is wrong, in more.

use maud::{Markup, html};

use super::super::show::{count, minute, size};
use crate::gateway::Status;
use crate::gateway::metadata::rfc3339;

pub(super) fn show(status: &Status) -> Markup {
    let is_sent = status.unsent_changes == 0 && status.unpublished_files == 0;
    let is_bad = status.read_only.is_some() || status.trouble.is_some();
    let class = match (is_bad, is_sent) {
        (true, _) => "bad",
        (false, true) => "durable",
        (false, false) => "uploading",
    };
    let (used, budget) = status.staging;
    let share = (used * 100).checked_div(budget).unwrap_or(0);
    let at = rfc3339(status.head_time);
    html! {
        section.status id="status" data-state=(class) aria-label="The vault" {
            p.now {
                span class={ "badge " (class) } {
                    @if is_sent { "Everything is in the bucket" } @else { (on_its_way(status)) }
                }
                span.figures {
                    (count(status.inodes, "entry", "entries")) " · " (size(status.bytes))
                    @if share > 0 { " · " (share) " % of the room for what is unsent is taken" }
                    @if status.head_time.seconds > 0 {
                        " · last sent " time datetime=(at) { (minute(&at)) }
                    }
                }
            }
            @if let Some(reason) = &status.read_only {
                p.notice.bad { "Nothing can be changed: " (reason) "." }
            }
            @if let Some(trouble) = &status.trouble {
                p.notice.bad { "Uploads do not go through now: " (trouble) ". Nothing is lost; they are tried again." }
            }
            @for warning in &status.warnings { p.notice { (warning) } }
        }
    }
}

fn on_its_way(status: &Status) -> String {
    let mut parts = Vec::new();
    if status.unsent_changes > 0 {
        parts.push(count(status.unsent_changes, "change", "changes"));
    }
    if status.unpublished_files > 0 {
        parts.push(count(status.unpublished_files, "file being written", "files being written"));
    }
    if status.unsent_bytes > 0 {
        parts.push(size(status.unsent_bytes));
    }
    format!("On the way to the bucket: {}", parts.join(", "))
}
