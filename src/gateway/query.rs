//! The query of a URL. Values are bytes, since file names are bytes.

use super::HttpProblem;
use super::errors::Result;

/// The parameters of a request. A parameter that is repeated, or unknown to the path, is an error: a typing error must
/// not do something that was not meant.
pub(super) struct Query(Vec<(String, Vec<u8>)>);

impl Query {
    /// `known`: the parameters that are allowed.
    pub(super) fn parse(query: Option<&str>, known: &[&str]) -> Result<Self> {
        Self::parse_with_list(query, known, None)
    }

    /// Like [`Query::parse`], but `list` may be given more than once.
    pub(super) fn parse_with_list(
        query: Option<&str>,
        known: &[&str],
        list: Option<&str>,
    ) -> Result<Self> {
        let mut found: Vec<(String, Vec<u8>)> = Vec::new();
        for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = String::from_utf8(decoded(name))
                .map_err(|_| HttpProblem::bad_request("A parameter's name is not UTF-8."))?;
            let is_of_list = list == Some(name.as_str());
            if !is_of_list && !known.contains(&name.as_str()) {
                let known: Vec<_> = known.iter().copied().chain(list).collect();
                let known = known.join(", ");
                return Err(HttpProblem::bad_request(format!(
                    "Unknown parameter in the URL. Known here: {known}."
                )));
            }
            if !is_of_list && found.iter().any(|(other, _)| *other == name) {
                return Err(HttpProblem::bad_request(format!(
                    "The parameter {name} is given twice."
                )));
            }
            found.push((name, decoded(value)));
        }
        Ok(Self(found))
    }

    /// The value, if it was given.
    pub(super) fn bytes(&self, name: &str) -> Option<&[u8]> {
        self.0.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_slice())
    }

    /// All values of a parameter that may be repeated.
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.0.iter().filter(move |(other, _)| other == name).map(|(_, value)| value.as_slice())
    }

    /// A value out of a fixed set of words, or `otherwise` if it was not given.
    pub(super) fn word<T: Copy>(&self, name: &str, words: &[(&str, T)], otherwise: T) -> Result<T> {
        let Some(value) = self.bytes(name) else { return Ok(otherwise) };
        let found = words.iter().find(|(word, _)| word.as_bytes() == value);
        found.map(|(_, meaning)| *meaning).ok_or_else(|| {
            let words: Vec<_> = words.iter().map(|(word, _)| *word).collect();
            HttpProblem::bad_request(format!(
                "The parameter {name} is one of: {}.",
                words.join(", ")
            ))
        })
    }

    /// `true` or `false`, or `otherwise` if it was not given.
    pub(super) fn flag(&self, name: &str, otherwise: bool) -> Result<bool> {
        self.word(name, &[("true", true), ("false", false)], otherwise)
    }

    /// A number within limits, or `otherwise` if it was not given.
    pub(super) fn number(
        &self,
        name: &str,
        limits: std::ops::RangeInclusive<usize>,
        otherwise: usize,
    ) -> Result<usize> {
        let Some(value) = self.bytes(name) else { return Ok(otherwise) };
        let text = std::str::from_utf8(value).ok();
        let digits = text.filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        digits
            .and_then(|text| text.parse().ok())
            .filter(|number| limits.contains(number))
            .ok_or_else(|| {
                let (least, most) = (limits.start(), limits.end());
                HttpProblem::bad_request(format!(
                    "The parameter {name} is a number from {least} to {most}."
                ))
            })
    }
}

/// Decodes `application/x-www-form-urlencoded`, where a plus is a space.
fn decoded(text: &str) -> Vec<u8> {
    percent_encoding::percent_decode_str(&text.replace('+', " ")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_bytes_and_names_are_known() {
        let query = Query::parse(Some("a=x+y%2Fz%FF&b=&limit=7"), &["a", "b", "limit"]).unwrap();
        assert_eq!(query.bytes("a"), Some(&b"x y/z\xff"[..]));
        assert_eq!(query.bytes("b"), Some(&b""[..]));
        assert_eq!(query.number("limit", 1..=9, 3).unwrap(), 7);
        assert_eq!(query.number("other", 1..=9, 3).unwrap(), 3);
        assert!(query.number("limit", 1..=5, 3).is_err());
        assert!(query.flag("a", true).is_err() && query.flag("c", true).unwrap());
        for bad in ["a=1&a=2", "c=1", "%ff=1"] {
            assert!(Query::parse(Some(bad), &["a"]).is_err(), "{bad}");
        }
        let list = |text| Query::parse_with_list(Some(text), &["a"], Some("n"));
        let found = list("n=1&a=x&n=%2F&n=1").unwrap();
        assert_eq!(found.all("n").collect::<Vec<_>>(), [&b"1"[..], b"/", b"1"]);
        assert!(list("a=1&n=1&a=2").is_err() && list("m=1").is_err());
        for bad in ["limit=-1", "limit=+1", "limit=x", "limit=", "limit=99999999999999999999"] {
            assert!(
                Query::parse(Some(bad), &["limit"]).unwrap().number("limit", 0..=9, 3).is_err()
            );
        }
    }
}
