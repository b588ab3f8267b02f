//! What an S3 server's error answers mean.

use std::sync::Arc;

use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};

use super::super::error::{Cause, ENDS_EARLY, Error};
use super::exchange::Exchange;
use super::http;
use crate::types::{cause, causes, with_causes};

/// What the server or the SDK said, in one line.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Said(String);

pub(super) fn said(words: String) -> Cause {
    Arc::new(Said(words))
}

/// Why there are no credentials to sign with.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Lacking(pub(super) String);

/// Whether the server may have refused a header of the request rather than the request: a 501, or a 400 with no
/// code that we know.
pub(super) fn is_about_a_header<E>(error: &SdkError<E, HttpResponse>) -> bool
where
    E: std::error::Error + ProvideErrorMetadata + Send + Sync + 'static,
{
    let SdkError::ServiceError(answer) = error else { return false };
    let known = by_status(answer.raw().status().as_u16(), answer.err().code(), None, "", "");
    match answer.raw().status().as_u16() {
        501 => true,
        400 => matches!(known, Error::Other { .. } | Error::Unsupported { .. }),
        _ => false,
    }
}

/// The error of a request for `object`.
pub(super) fn error<E>(
    error: &SdkError<E, HttpResponse>,
    exchange: &Exchange,
    bucket: &str,
    object: &str,
) -> Error
where
    E: std::error::Error + ProvideErrorMetadata + Send + Sync + 'static,
{
    match error {
        SdkError::ServiceError(answer) => {
            let (code, message) = (answer.err().code(), answer.err().message());
            let status = answer.raw().status().as_u16();
            match by_status(status, code, message, bucket, object) {
                // Whatever the server says: it accepts no signature from another time.
                Error::Denied { object, cause } if exchange.is_skewed() => {
                    Error::Clock { object, cause }
                }
                error => error,
            }
        }
        SdkError::ConstructionFailure(_) | SdkError::DispatchFailure(_) => {
            let words = one_line(error);
            let object = object.to_owned();
            if let Some(why) = refused_certificate(error) {
                return Error::Certificate { object, cause: said(why) };
            }
            // Credentials are looked up within the request; the SDK has no error kind for missing ones.
            if let Some(lacking) = cause::<Lacking>(error) {
                return Error::NoCredentials { cause: said(lacking.0.clone()) };
            }
            if matches!(error, SdkError::ConstructionFailure(_)) {
                return Error::Other { object, cause: said(words) };
            }
            Error::Unreachable { object, cause: said(words) }
        }
        // A timeout (of the connection: no other is set), or an answer that breaks off or makes no sense.
        _ => Error::Unreachable { object: object.to_owned(), cause: said(one_line(error)) },
    }
}

/// The error for a status and S3's own code.
fn by_status(
    status: u16,
    code: Option<&str>,
    message: Option<&str>,
    bucket: &str,
    object: &str,
) -> Error {
    let words = [Some(status.to_string().as_str()), code, message]
        .into_iter()
        .flatten()
        .collect::<Vec<_>>()
        .join(" ");
    let (object, cause) = (object.to_owned(), said(words));
    match (status, code.unwrap_or_default()) {
        (_, "NoSuchBucket") => Error::NoBucket { bucket: bucket.to_owned(), cause },
        (507, _)
        | (
            _,
            "QuotaExceeded"
            | "XMinioAdminBucketQuotaExceeded"
            | "XMinioStorageFull"
            | "InsufficientStorage",
        ) => Error::Full { object, cause },
        (404, _) => Error::NotFound { object },
        (_, "RequestTimeTooSkewed" | "RequestExpired") => Error::Clock { object, cause },
        // 304 is the answer to a GET with this condition; some servers give it to a PUT. 409: another conditional
        // put of this key was under way.
        (304 | 412, _) | (409, "ConditionalRequestConflict" | "OperationAborted" | "") => {
            Error::Exists { object }
        }
        (416, _) => Error::Corrupt { object, reason: ENDS_EARLY.to_owned() },
        (401 | 403, _)
        | (
            400,
            "InvalidAccessKeyId"
            | "SignatureDoesNotMatch"
            | "ExpiredToken"
            | "InvalidToken"
            | "AuthorizationHeaderMalformed",
        ) => Error::Denied { object, cause },
        // BadDigest: the body was damaged on its way, and is not kept.
        // 5xx: whoever stands before the store has numbers of its own (Cloudflare, before R2: 520 to 530).
        (501 | 505, _) | (_, "NotImplemented") => Error::Unsupported { what: cause.to_string() },
        (429 | 500..=599 | 408, _) | (400, "RequestTimeout" | "BadDigest" | "SlowDown") => {
            Error::Busy { object, cause }
        }
        _ => Error::Other { object, cause },
    }
}

/// The error of one object within a DELETE of several.
pub(super) fn refused_deletion(error: &aws_sdk_s3::types::Error) -> Error {
    let object = error.key().unwrap_or_default().to_owned();
    let code = error.code().unwrap_or_default();
    let cause = said(format!("{code} {}", error.message().unwrap_or_default()));
    match code {
        "AccessDenied" => Error::Denied { object, cause },
        "SlowDown" | "InternalError" | "ServiceUnavailable" => Error::Busy { object, cause },
        _ => Error::Other { object, cause },
    }
}

/// What is wrong with a certificate, if that is why there is no connection.
fn refused_certificate(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    use rustls::Error as Tls;
    let tls = cause::<Tls>(error)?;
    let of_certificate = matches!(tls, Tls::InvalidCertificate(_) | Tls::NoCertificatesPresented);
    let proxy =
        causes(error).map(ToString::to_string).find(|words| words.starts_with(http::THROUGH));
    let proxy = proxy.map_or_else(String::new, |words| format!(", {words}"));
    of_certificate.then(|| format!("{tls}{proxy}"))
}

/// An error with its causes in one line, cut to a length fit for a log.
pub(super) fn one_line(error: &(dyn std::error::Error + 'static)) -> String {
    with_causes(error).chars().take(500).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_and_codes_have_their_meanings() {
        let of = |status, code: &str| by_status(status, Some(code), Some("m"), "b", "o");
        assert!(matches!(of(404, "NoSuchBucket"), Error::NoBucket { .. }));
        assert!(matches!(of(404, "NoSuchKey"), Error::NotFound { .. }));
        assert!(matches!(of(412, "PreconditionFailed"), Error::Exists { .. }));
        assert!(matches!(of(304, ""), Error::Exists { .. }));
        assert!(matches!(of(403, "RequestTimeTooSkewed"), Error::Clock { .. }));
        assert!(matches!(of(409, "ConditionalRequestConflict"), Error::Exists { .. }));
        assert!(matches!(of(403, "SignatureDoesNotMatch"), Error::Denied { .. }));
        assert!(matches!(of(503, "SlowDown"), Error::Busy { .. }));
        assert!(matches!(of(507, ""), Error::Full { .. }));
        assert!(matches!(of(400, "InvalidArgument"), Error::Other { .. }));
        assert!(matches!(of(400, "XMinioAdminBucketQuotaExceeded"), Error::Full { .. }));
        assert!(matches!(of(501, "NotImplemented"), Error::Unsupported { .. }));
        assert!(of(500, "InternalError").is_transient());
        // What stands before a store has numbers of its own.
        for status in [502, 504, 509, 520, 522, 524, 529, 530, 598] {
            assert!(of(status, "").is_transient(), "{status}");
        }
        assert!(!of(403, "AccessDenied").is_transient());
        assert_eq!(
            with_causes(&of(403, "AccessDenied")),
            "the store denies access to o: 403 AccessDenied m"
        );
    }
}
