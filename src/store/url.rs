//! Where a vault is: `s3://bucket[/prefix]` or `file:///dir`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Where a vault is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum StoreUrl {
    /// A bucket, and a prefix within it: empty, or segments without a slash at either end.
    S3 {
        /// The bucket's name.
        bucket: String,
        /// The prefix of all objects of the vault, without the slash that follows it.
        prefix: String,
    },
    /// A directory of this machine; the path is absolute.
    File(PathBuf),
}

/// Why a text is not a [`StoreUrl`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{url:?} is no place for a vault: {reason} (s3://BUCKET[/PREFIX] or file:///DIR)")]
pub struct UrlError {
    url: String,
    reason: &'static str,
}

impl FromStr for StoreUrl {
    type Err = UrlError;

    fn from_str(url: &str) -> Result<Self, UrlError> {
        let error = |reason| UrlError { url: url.to_owned(), reason };
        if let Some(path) = url.strip_prefix("file://") {
            if !path.starts_with('/') {
                return Err(error("the path is not absolute"));
            }
            if path.contains('\0') {
                return Err(error("the path has a NUL"));
            }
            return Ok(Self::File(PathBuf::from(path)));
        }
        let Some(rest) = url.strip_prefix("s3://") else {
            return Err(error("it begins with neither s3:// nor file://"));
        };
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let prefix = prefix.trim_end_matches('/');
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if bucket.len() < 2 || bucket.len() > 255 || !bucket.chars().all(plain) {
            return Err(error("that is not the name of a bucket"));
        }
        // 300 leaves room for the object names below it: a key may have 1,024 bytes, and each
        // segment 255, as in a file name.
        if prefix.len() > 300 {
            return Err(error("the prefix is longer than 300 bytes"));
        }
        let sound = |segment: &str| {
            !segment.is_empty()
                && segment != "."
                && segment != ".."
                && segment.chars().all(|c| plain(c) || c == '=')
        };
        if !prefix.is_empty() && !prefix.split('/').all(sound) {
            return Err(error(
                "a prefix is made of letters, digits and -_.= between single slashes",
            ));
        }
        Ok(Self::S3 { bucket: bucket.to_owned(), prefix: prefix.to_owned() })
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::S3 { bucket, prefix } if prefix.is_empty() => write!(f, "s3://{bucket}"),
            Self::S3 { bucket, prefix } => write!(f, "s3://{bucket}/{prefix}"),
            Self::File(path) => write!(f, "file://{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_read_back() {
        for url in ["s3://bucket", "s3://my.bucket-1/a/b", "file:///srv/a b/v", "file:///"] {
            assert_eq!(url.parse::<StoreUrl>().unwrap().to_string(), url);
        }
        let slashes = "s3://bucket/a/".parse::<StoreUrl>().unwrap();
        assert_eq!(slashes.to_string(), "s3://bucket/a");
        assert_eq!("s3://bucket/".parse::<StoreUrl>().unwrap().to_string(), "s3://bucket");
    }

    #[test]
    fn what_is_no_place_is_refused_with_a_reason() {
        let bad = [
            "",
            "bucket",
            "http://x/y",
            "s3://",
            "s3:///a",
            "s3://b/../c",
            "s3://bu/a//b",
            "s3://bu/.",
            "s3://bucket/a b",
            "file://relative",
            "file:/x",
            "s3://user:pw@host/b",
        ];
        for url in bad {
            let error = url.parse::<StoreUrl>().unwrap_err().to_string();
            assert!(error.contains("s3://BUCKET"), "{error}");
        }
    }
}
