//! What is accepted as the place of a vault, and what never is.

use proptest::prelude::*;

use super::*;

proptest! {
    #![proptest_config(crate::types::cases(256))]
    /// An accepted URL displays as it was given, and names below its prefix are object names.
    #[test]
    fn what_is_taken_reads_back(
        url in "(s3|file)://([a-zA-Z0-9._=/ -]{0,40}|ab(/[.]{1,3}|/[a-z]){0,3})"
    ) {
        let Ok(place) = url.parse::<StoreUrl>() else { return Ok(()) };
        prop_assert_eq!(place.to_string().parse::<StoreUrl>().unwrap(), place.clone());
        match place {
            StoreUrl::S3 { bucket, prefix } => {
                prop_assert!(bucket.len() >= 2 && !bucket.contains('/'));
                let whole = |segment: &str| !["", ".", ".."].contains(&segment);
                prop_assert!(prefix.is_empty() || prefix.split('/').all(whole), "{prefix:?}");
            }
            StoreUrl::File(path) => prop_assert!(path.is_absolute()),
        }
    }

    #[test]
    fn places_that_are_meant_are_taken(
        bucket in "[a-z0-9.-]{2,60}",
        prefix in prop::collection::vec("[a-zA-Z0-9_=-]{1,20}", 0..5),
    ) {
        let prefix = prefix.join("/");
        let expected = StoreUrl::S3 { bucket: bucket.clone(), prefix: prefix.clone() };
        for end in ["", "/"] {
            prop_assert_eq!(format!("s3://{bucket}/{prefix}{end}").parse(), Ok(expected.clone()));
        }
    }

    /// An error shows what was typed, and nothing panics.
    #[test]
    fn any_text_is_a_place_or_an_error_that_says_how_one_looks(url: String) {
        if let Err(error) = url.parse::<StoreUrl>() {
            prop_assert!(error.to_string().contains("s3://BUCKET"));
        }
    }
}
