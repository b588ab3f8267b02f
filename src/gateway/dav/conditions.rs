//! The `If` header (RFC 4918, section 10.4): which locks and versions a request relies on, and which lock tokens it
//! knows.

use axum::http::{HeaderMap, StatusCode, Uri};

use super::locks::LockTable;
use super::path::{DavPath, asked_for};
use crate::gateway::HttpProblem;
use crate::gateway::errors::Result;

/// The most conditions in one header.
const CONDITIONS_MAX: usize = 100;

/// One condition: a state that must hold, or must not.
#[derive(Clone, Debug, PartialEq, Eq)]
struct IfCondition {
    is_not: bool,
    what: IfState,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum IfState {
    /// A lock with this token.
    Token(String),
    /// This entity tag.
    Tag(String),
}

/// Conditions that must all hold for one resource; `None`: the resource that the request is for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct IfList {
    resource: Option<DavPath>,
    conditions: Vec<IfCondition>,
}

/// A parsed `If` header.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct IfHeader(Vec<IfList>);

impl IfHeader {
    /// Parses a request's header; without one there are no conditions.
    pub(super) fn of(uri: &Uri, headers: &HeaderMap) -> Result<Self> {
        let mut lines = headers.get_all("if").iter();
        let (Some(line), None) = (lines.next(), lines.next()) else {
            return match headers.contains_key("if") {
                true => Err(broken()),
                false => Ok(Self::default()),
            };
        };
        Self::parse(line.to_str().map_err(|_| broken())?, asked_for(uri, headers))
    }

    pub(super) fn parse(text: &str, own: Option<&str>) -> Result<Self> {
        let (mut lists, mut resource, mut count) = (Vec::new(), None, 0);
        let mut left = text.trim_start();
        while !left.is_empty() {
            if let Some(url) = between(&mut left, '<', '>') {
                resource = Some(DavPath::of_url(url, own)?);
                if !left.starts_with('(') {
                    return Err(broken());
                }
                continue;
            }
            let mut inner = between(&mut left, '(', ')').ok_or_else(broken)?.trim();
            let mut conditions = Vec::new();
            while !inner.is_empty() {
                let is_not = inner.get(..3).is_some_and(|word| word.eq_ignore_ascii_case("not"));
                if is_not {
                    inner = inner[3..].trim_start();
                }
                let token = between(&mut inner, '<', '>').map(|token| IfState::Token(token.into()));
                let mut tag = || between(&mut inner, '[', ']').map(|tag| IfState::Tag(tag.into()));
                let what = token.or_else(&mut tag).ok_or_else(broken)?;
                conditions.push(IfCondition { is_not, what });
                count += 1;
            }
            if conditions.is_empty() || count > CONDITIONS_MAX {
                return Err(broken());
            }
            lists.push(IfList { resource: resource.clone(), conditions });
        }
        if lists.is_empty() { Err(broken()) } else { Ok(Self(lists)) }
    }

    /// The lock tokens that it names: whoever sends it knows them.
    pub(super) fn tokens(&self) -> Vec<String> {
        let conditions = self.0.iter().flat_map(|list| &list.conditions);
        let tokens = conditions.filter_map(|condition| match &condition.what {
            IfState::Token(token) => Some(token.clone()),
            IfState::Tag(_) => None,
        });
        tokens.collect()
    }

    /// The resources it names besides the request's own.
    pub(super) fn resources(&self) -> impl Iterator<Item = &DavPath> {
        self.0.iter().filter_map(|list| list.resource.as_ref())
    }

    /// The paths whose entity tags it tests. `asked`: the resource that the request is for.
    pub(super) fn tagged<'a>(&'a self, asked: &'a DavPath) -> Vec<&'a DavPath> {
        let of_tag = |list: &&IfList| {
            list.conditions.iter().any(|condition| matches!(condition.what, IfState::Tag(_)))
        };
        let mut paths = Vec::new();
        for list in self.0.iter().filter(of_tag) {
            let path = list.resource.as_ref().unwrap_or(asked);
            if !paths.contains(&path) {
                paths.push(path);
            }
        }
        paths
    }

    /// Whether the header holds: at least one list of which all conditions hold. `tags`: the current entity tags of the
    /// [`IfHeader::tagged`] paths.
    pub(super) fn holds(
        &self,
        asked: &DavPath,
        locks: &LockTable,
        tags: &[(&DavPath, Option<String>)],
    ) -> bool {
        let holds = |list: &IfList| {
            let path = list.resource.as_ref().unwrap_or(asked);
            list.conditions.iter().all(|condition| {
                let is_so = match &condition.what {
                    IfState::Token(token) => locks.is_under(path.names(), token),
                    IfState::Tag(wanted) => {
                        let own = tags.iter().find(|(of, _)| *of == path);
                        own.is_some_and(|(_, tag)| tag.as_ref() == Some(wanted))
                    }
                };
                is_so != condition.is_not
            })
        };
        self.0.is_empty() || self.0.iter().any(holds)
    }
}

/// Takes a piece between two delimiters from the front of `text`.
fn between<'a>(text: &mut &'a str, open: char, close: char) -> Option<&'a str> {
    let (inner, rest) = text.strip_prefix(open)?.split_once(close)?;
    *text = rest.trim_start();
    Some(inner)
}

fn broken() -> HttpProblem {
    HttpProblem::bad_request("The header If is not understood. Nothing was changed.")
}

/// 412.
pub(super) fn failed() -> HttpProblem {
    HttpProblem::new(
        StatusCode::PRECONDITION_FAILED,
        "precondition_failed",
        "What the request relies on does not hold (a version, or a lock). Nothing was changed.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::dav::locks::LockWish;

    #[test]
    fn one_list_must_hold_whole() {
        let locks = LockTable::default();
        let path = |url: &str| DavPath::of_url(url, None).unwrap();
        let token = locks
            .lock(LockWish {
                root: path("/dav/a").names().to_vec(),
                is_exclusive: true,
                is_deep: true,
                owner: String::new(),
                holder: None,
                lasts: std::time::Duration::from_secs(60),
            })
            .unwrap()
            .token;
        for (text, holds) in [
            ("(<T>)", true),
            ("(<T> [\"v\"])", true),
            ("(<T> [\"x\"])", false),
            ("(<T> [\"x\"]) ([\"v\"])", true),
            ("(Not <T>) (not [\"v\"])", false),
            ("(<T> Not <DAV:no-lock>)", true),
            ("(<DAV:no-lock>)", false),
            ("</dav/b> (<T>)", false),
            ("</dav/b> (Not <T>)", true),
            ("<http://h/dav/a/c> (<T>)(<x>)", true),
            ("</dav/b>(<T>)</dav/a>(<T>)", true),
        ] {
            let header = IfHeader::parse(&text.replace('T', &token), Some("h")).unwrap();
            let asked = path("/dav/a");
            let tags: Vec<_> = header
                .tagged(&asked)
                .into_iter()
                .map(|path| (path, Some("\"v\"".into())))
                .collect();
            assert_eq!(header.holds(&asked, &locks, &tags), holds, "{text}");
        }
        let named = IfHeader::parse("(<a> [\"x\"]) (Not <b>)", None).unwrap().tokens();
        assert_eq!(named, ["a", "b"]);
        assert!(IfHeader::default().holds(&path("/dav"), &locks, &[]));
    }

    #[test]
    fn what_is_no_condition_is_refused() {
        let many = "(<a>)".repeat(101);
        for text in [
            "",
            "<a>",
            "()",
            "(<a>",
            "(a)",
            "([a)",
            "<a> <b> (<c>)",
            "(<a>) <b>",
            "(Not)",
            "</files/x> (<a>)",
            "(<a>) x",
            &many,
        ] {
            assert!(IfHeader::parse(text, Some("h")).is_err(), "{text}");
        }
    }
}
