//! A page of the objects in a directory, in the order of their names.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::Path;
use std::time::SystemTime;

use super::super::object::{Begin, Listed};
use super::object_file::is_absent;

/// The objects of one page of a listing: S3's number.
const PAGE: usize = 1000;

/// The objects after `after` whose names begin with `prefix`, and where the next page begins.
pub(super) fn page(
    root: &Path,
    prefix: &str,
    after: &str,
) -> io::Result<(Vec<Listed>, Option<Begin>)> {
    let mut walk = ListingWalk { prefix, after, found: Vec::new() };
    walk.directory(root, "")?;
    let mut objects = walk.found;
    let more = (objects.len() > PAGE).then(|| Begin::Token(objects[PAGE - 1].name.clone()));
    objects.truncate(PAGE);
    Ok((objects, more))
}

/// Collects the objects after `after` whose names begin with `prefix`, in order: one more than a page has.
struct ListingWalk<'a> {
    prefix: &'a str,
    after: &'a str,
    found: Vec<Listed>,
}

impl ListingWalk<'_> {
    fn directory(&mut self, path: &Path, name: &str) -> io::Result<()> {
        let entries = match fs::read_dir(path) {
            // Deleted during the walk.
            Err(error) if is_absent(&error) && !name.is_empty() => return Ok(()),
            entries => entries?,
        };
        let mut here = Vec::new();
        for entry in entries {
            let entry = entry?;
            let file_name = entry.file_name();
            let Some(segment) = readable(&file_name) else { continue };
            let kind = entry.file_type()?;
            // The names of all objects in a directory begin with its name and a slash, so this string
            // gives the directory's place in the order.
            let slash = if kind.is_dir() { "/" } else { "" };
            let full = format!("{name}{segment}{slash}");
            if (kind.is_dir() || kind.is_file()) && self.may_hold(&full, kind.is_dir()) {
                here.push((full, entry.path()));
            }
        }
        here.sort_unstable();
        for (full, path) in here {
            if self.found.len() > PAGE {
                return Ok(());
            }
            if full.ends_with('/') {
                self.directory(&path, &full)?;
                continue;
            }
            match fs::metadata(&path) {
                Ok(found) => self.found.push(Listed {
                    name: full,
                    length: found.len(),
                    modified: found.modified().unwrap_or(SystemTime::UNIX_EPOCH),
                }),
                Err(error) if is_absent(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn may_hold(&self, full: &str, is_directory: bool) -> bool {
        if !is_directory {
            return full.starts_with(self.prefix) && full > self.after;
        }
        let in_prefix = full.starts_with(self.prefix) || self.prefix.starts_with(full);
        in_prefix && (full > self.after || self.after.starts_with(full))
    }
}

/// A segment of an object's name; `None` for files that are not objects.
fn readable(file_name: &OsStr) -> Option<&str> {
    file_name.to_str().filter(|segment| !segment.starts_with('.'))
}
